//! What is to happen at a time though no call sleeps until then: the timers of kqueues and processes.
//!
//! A call that waits for a time says so when it goes to sleep, and the server wakes it. A timer
//! outlives the call that set it, and it may be for a process none of whose calls sleeps; so the kernel
//! has one thread that sleeps until the soonest of them, started with the first timer and ended with
//! the kernel.
//!
//! Source: NetBSD `sys/kern/kern_timeout.c`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::sync::lock;
use kernel::Errno;

/// The time between two ticks of NetBSD's clock: timers go off on them (`tick`, at 100 Hz).
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A timer further away than this is set for then: the clock goes twice as far.
const FAR: Duration = Duration::from_secs(1 << 62);

/// Something that a time comes for.
pub(super) trait Due: Send + Sync {
    /// The time has come. It may have been put off meanwhile. Called on the thread of the timers, with
    /// no lock held; must not sleep.
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
    /// Rings when the soonest has changed.
    bell: Condvar,
}

#[derive(Default)]
struct Queue {
    timers: BTreeMap<AlarmId, Weak<dyn Due>>,
    next: u64,
    over: bool,
}

/// Names a timer that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AlarmId {
    at: Instant,
    /// Tells apart those of one time.
    number: u64,
}

/// The time after `wait`, from `now`.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

impl TimerThread {
    /// Has `what` told at that time. EAGAIN if there can be no thread for it.
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

    /// Forgets a timer. It may be on its way already.
    pub fn cancel(&self, id: AlarmId) {
        let what = lock(&self.shared.queue).timers.remove(&id);
        drop(what);
    }

    /// How many are set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.shared.queue).timers.len()
    }

    fn start(&self) -> Result<(), Errno> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = self.shared.clone();
            let made = thread::Builder::new().name("timers".into()).spawn(move || {
                // A panic between two timers is no end of the others.
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

/// One that panics is the end of that timer only.
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
        // The last timer may have been the last to hold the kernel.
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
