//! The signals on their way to one client. As in a kernel, at most one of each number is pending: raising
//! it again before it has left changes nothing. So a client that takes nothing costs no more than that,
//! however many signals it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pending numbers, a bit each.
#[derive(Debug, Default)]
pub struct Signals(AtomicU64);

/// Returns the bit of a number. NetBSD has signals 1 to 63.
fn bit(signo: i32) -> u64 {
    match signo {
        1..64 => 1 << signo,
        _ => 0,
    }
}

impl Signals {
    /// Adds a signal. Returns `false` if it was pending already, or if there is no such signal.
    pub fn add(&self, signo: i32) -> bool {
        let bit = bit(signo);
        bit != 0 && self.0.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// Returns `true` if a signal of this number is pending.
    pub fn has(&self, signo: i32) -> bool {
        self.0.load(Ordering::SeqCst) & bit(signo) != 0
    }
}

/// The signals whose frames wait to be sent.
#[derive(Default)]
pub struct Framed {
    which: u64,
    /// The client's pending signals; set with the first frame.
    pending: Option<Arc<Signals>>,
}

impl Framed {
    /// Notes that a signal has become a frame.
    pub fn add(&mut self, signo: i32, pending: Arc<Signals>) {
        self.which |= bit(signo);
        self.pending = Some(pending);
    }

    /// Notes that the frames are being sent: a signal that is raised from here on is another one.
    pub fn leave(&mut self) {
        let which = std::mem::take(&mut self.which);
        if let Some(pending) = self.pending.as_ref().filter(|_| which != 0) {
            pending.0.fetch_and(!which, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_number_one_is_pending_until_it_leaves() {
        let (pending, mut framed) = (Arc::new(Signals::default()), Framed::default());
        assert!(pending.add(15) && !pending.add(15) && pending.add(63));
        for none in [0, -1, 64, i32::MIN, i32::MAX] {
            assert!(!pending.add(none) && !pending.has(none), "{none} is no signal");
        }
        framed.add(15, pending.clone());
        framed.leave();
        assert!(!pending.has(15) && pending.has(63), "63 is no frame yet");
        assert!(pending.add(15));
        framed.leave();
        assert!(pending.has(15), "nor is the next");
    }
}
