//! The timer thread, which runs the timers of kqueues and processes, for which no call sleeps.
//!
//! A call that waits for a time says so when it goes to sleep, and the server wakes it. But a timer
//! outlives the call that set it, and its process may have no sleeping call. So the kernel has one thread
//! that sleeps until the earliest timer. It is started with the first timer and ends with the kernel.
//!
//! Source: NetBSD `sys/kern/kern_timeout.c`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::sync::lock;
use kernel::Errno;

/// The time between two ticks of NetBSD's clock, on which timers go off (`tick`, at 100 Hz).
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The farthest time a timer is set to; the clock reaches twice as far.
const FAR: Duration = Duration::from_secs(1 << 62);

/// A timer's target.
pub(super) trait Due: Send + Sync {
    /// Handles the time that has come. The timer may have been put off meanwhile. Called on the timer
    /// thread, with no lock held; must not sleep.
    fn due(self: Arc<Self>);
}

/// The timers that are set.
#[derive(Default)]
pub(super) struct TimerThread {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the thread when the earliest timer has changed.
    bell: Condvar,
}

#[derive(Default)]
struct Queue {
    timers: BTreeMap<AlarmId, Weak<dyn Due>>,
    next: u64,
    over: bool,
}

/// The ID of a timer that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AlarmId {
    at: Instant,
    /// A number that distinguishes timers of the same time.
    number: u64,
}

/// Returns the time `wait` after `now`.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

impl TimerThread {
    /// Sets a timer for `what`. EAGAIN if the thread cannot be started.
    pub fn set(&self, at: Instant, what: Weak<dyn Due>) -> Result<AlarmId, Errno> {
        self.start()?;
        let mut queue = lock(&self.shared.queue);
        queue.next += 1;
        let id = AlarmId { at, number: queue.next };
        queue.timers.insert(id, what);
        if queue.timers.keys().next() == Some(&id) {
            self.shared.bell.notify_one();
        }
        Ok(id)
    }

    /// Cancels a timer, which may be going off already.
    pub fn cancel(&self, id: AlarmId) {
        let what = lock(&self.shared.queue).timers.remove(&id);
        drop(what);
    }

    /// Returns the number of timers set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.shared.queue).timers.len()
    }

    fn start(&self) -> Result<(), Errno> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = self.shared.clone();
            let made = thread::Builder::new().name("timers".into()).spawn(move || {
                // A panic in one timer does not end the others.
                while catch_unwind(AssertUnwindSafe(|| shared.run())).is_err() {}
            });
            *thread = Some(made.map_err(|_| Errno::EAGAIN)?);
        }
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        let mut queue = lock(&self.queue);
        while !queue.over {
            let soonest = queue.timers.first_entry();
            let left = soonest
                .as_ref()
                .map(|first| first.key().at.saturating_duration_since(Instant::now()));
            queue = match (soonest, left) {
                (Some(first), Some(Duration::ZERO)) => {
                    let what = first.remove();
                    drop(queue);
                    if let Some(what) = what.upgrade() {
                        tell(what);
                    }
                    lock(&self.queue)
                }
                (_, Some(left)) => {
                    self.bell.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
                (_, None) => self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Runs a timer. A panic ends that timer only.
fn tell(what: Arc<dyn Due>) {
    if catch_unwind(AssertUnwindSafe(|| what.due())).is_err() {
        tracing::error!("a timer panicked");
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        lock(&self.shared.queue).over = true;
        self.shared.bell.notify_one();
        let thread = lock(&self.thread).take();
        // The last timer may have held the last reference to the kernel.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Tells(&'static str, Sender<&'static str>);

    impl Due for Tells {
        fn due(self: Arc<Self>) {
            self.1.send(self.0).unwrap();
        }
    }

    #[test]
    fn they_come_in_order_and_not_once_cancelled() {
        let timer_thread = TimerThread::default();
        assert!(lock(&timer_thread.thread).is_none());
        let (sender, receiver) = channel();
        let tells = |what| Arc::new(Tells(what, sender.clone()));
        let all = [tells("late"), tells("soon"), tells("never"), tells("gone")];
        let now = Instant::now();
        let mut ids = Vec::new();
        for (what, millis) in all.iter().zip([40, 20, 10, 10]) {
            let weak: Weak<dyn Due> = Arc::downgrade(&(what.clone() as Arc<dyn Due>));
            ids.push(timer_thread.set(after(now, Duration::from_millis(millis)), weak).unwrap());
        }
        timer_thread.cancel(ids[2]);
        let [_late, _soon, _never, gone] = all;
        drop(gone);
        assert_eq!(receiver.recv(), Ok("soon"));
        assert_eq!(receiver.recv(), Ok("late"));
        assert!(now.elapsed() >= Duration::from_millis(40));
        assert_eq!(timer_thread.len(), 0);
        assert!(after(now, Duration::MAX) > now);
    }
}
