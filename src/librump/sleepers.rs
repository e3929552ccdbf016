//! Sleeps inside the kernel that the kernel itself cannot end.
//!
//! The function `lwpexit`, which is called when a client leaves, wakes the lwps of the process that sleep
//! on a condition variable. It does not know of two kinds of sleep:
//!
//! - A pause (`kpause`) sleeps in a hypercall whose result is ignored: nanosleep(2) goes on until its
//!   time is over. So the hypercall sleeps here, where it is woken, and then leaves the whole call: see
//!   [`super::escape`]. That is for the calls that [`can_be_left`]. All other pauses are the kernel's
//!   own, of a second at most, and wait for something that cannot be left undone.
//! - `tsleep` sleeps on a channel of its own making. A call that does so is woken by `wakeup` of that
//!   channel, and EINTR tells it why.
//!
//! Source: NetBSD `sys/rump/librump/rumpkern/emul.c`, `kpause`, and `ltsleep.c`; `sys/kern/kern_time.c`,
//! `nanosleep1`.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::indirect;
use kernel::Args;

/// The sleepers of a process.
#[derive(Default)]
pub struct Sleepers {
    state: Mutex<State>,
    ends: Condvar,
    /// Signalled when no call begins to wait any more.
    begun: Condvar,
}

#[derive(Default)]
struct State {
    /// True if the calls of the process are to end.
    ending: bool,
    /// The number of calls that are about to wait for a condition, and have not given up their CPU yet.
    beginning: usize,
    /// The channels that calls sleep on, and the number of sleepers on each.
    channels: BTreeMap<usize, usize>,
}

/// Returns `true` if a call of this number may be left while it pauses, because it holds nothing in the
/// kernel. That is so for nanosleep(2), in each of its numbers: it copies in, pauses without a lock and
/// copies out.
///
/// Source: NetBSD `sys/kern/kern_time.c`, `sys/compat/common/kern_time_50.c`, `sys/kern/sys_syscall.c`.
pub fn can_be_left(number: i32, args: &Args) -> bool {
    const OLD_NANOSLEEP: i32 = 240;
    use kernel::sys::{CLOCK_NANOSLEEP, NANOSLEEP};
    let (number, _) = indirect::direct(number, args);
    matches!(number, OLD_NANOSLEEP | NANOSLEEP | CLOCK_NANOSLEEP)
}

impl Sleepers {
    /// Sleeps for this long. Returns `true` if the call is to end.
    pub fn pause(&self, time: Duration) -> bool {
        let waited = self.ends.wait_timeout_while(self.lock(), time, |state| !state.ending);
        waited.unwrap_or_else(PoisonError::into_inner).0.ending
    }

    /// Runs a sleep on a channel, and notes the channel meanwhile.
    pub fn on_channel<R>(&self, channel: usize, sleep: impl FnOnce() -> R) -> R {
        *self.lock().channels.entry(channel).or_default() += 1;
        let result = sleep();
        let mut state = self.lock();
        if let Some(count) = state.channels.get_mut(&channel) {
            *count -= 1;
            if *count == 0 {
                state.channels.remove(&channel);
            }
        }
        result
    }

    /// Begins a wait of a call for a condition. Returns `false` if the call is to end instead.
    pub fn begin_wait(&self) -> bool {
        let mut state = self.lock();
        state.beginning += usize::from(!state.ending);
        !state.ending
    }

    /// Notes that the call waits, or does not want to any more.
    pub fn has_begun(&self) {
        let mut state = self.lock();
        state.beginning -= 1;
        if state.beginning == 0 && state.ending {
            self.begun.notify_all();
        }
    }

    /// Makes all pauses end, including those that begin later. When this returns, no call is about to
    /// wait: the kernel, which is told next, finds each call either waiting or not going to wait.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        self.ends.notify_all();
        while state.beginning > 0 {
            state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the process go on, without its old calls.
    pub fn go_on(&self) {
        self.lock().ending = false;
    }

    /// Returns `true` if calls are to end.
    pub fn are_ending(&self) -> bool {
        self.lock().ending
    }

    /// Returns the channels that calls sleep on.
    pub fn channels(&self) -> Vec<usize> {
        self.lock().channels.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::MAX_ARGS;
    use std::sync::Arc;
    use std::thread;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn pauses_end_in_time_or_with_the_process() {
        let sleepers = Arc::new(Sleepers::default());
        assert!(!sleepers.pause(Duration::from_millis(1)));
        let pauses: Vec<_> = (0..4)
            .map(|_| {
                let sleepers = sleepers.clone();
                thread::spawn(move || sleepers.pause(DAY))
            })
            .collect();
        sleepers.end();
        assert!(pauses.into_iter().all(|pause| pause.join().unwrap()));
        assert!(sleepers.pause(DAY), "one that begins too late does not sleep");
        sleepers.go_on();
        assert!(!sleepers.pause(Duration::ZERO));
    }

    #[test]
    fn nobody_is_about_to_wait_once_calls_end() {
        let sleepers = Arc::new(Sleepers::default());
        assert!(sleepers.begin_wait());
        let ending = sleepers.clone();
        let end = thread::spawn(move || ending.end());
        while !sleepers.are_ending() {
            thread::yield_now();
        }
        assert!(!sleepers.begin_wait(), "one that comes later does not wait");
        assert!(!end.is_finished(), "the first has not begun");
        sleepers.has_begun();
        end.join().unwrap();
    }

    #[test]
    fn channels_are_known_while_somebody_sleeps_on_them() {
        let sleepers = Sleepers::default();
        sleepers.on_channel(7, || {
            sleepers.on_channel(7, || assert_eq!(sleepers.channels(), [7]));
            sleepers.on_channel(8, || assert_eq!(sleepers.channels(), [7, 8]));
            assert_eq!(sleepers.channels(), [7]);
        });
        assert!(sleepers.channels().is_empty());
    }

    #[test]
    fn only_a_nanosleep_can_be_left() {
        let none = [0; MAX_ARGS];
        let left: Vec<i32> = (-1..600).filter(|&number| can_be_left(number, &none)).collect();
        assert_eq!(left, [240, 430, 477]);
        let mut args = none;
        for (code, is_one) in [(430, true), (430 + 512, true), (198, false), (431, false)] {
            args[0] = code;
            assert_eq!([0, 198].map(|number| can_be_left(number, &args)), [is_one; 2], "{code}");
        }
    }
}
