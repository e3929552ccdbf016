//! Timers of the submission thread.

use std::collections::BTreeMap;
use std::time::Instant;

/// Values with their times, soonest first.
pub struct Timers<T> {
    queue: BTreeMap<TimerId, T>,
    next: u64,
}

/// The name of a timer until it expires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    at: Instant,
    /// A number that tells timers of the same time apart.
    number: u64,
}

impl TimerId {
    /// Returns the time when the timer expires.
    pub fn at(self) -> Instant {
        self.at
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers { queue: BTreeMap::new(), next: 0 }
    }
}

impl<T> Timers<T> {
    /// Sets a timer: `what` expires at this time.
    pub fn set(&mut self, at: Instant, what: T) -> TimerId {
        self.next += 1;
        let id = TimerId { at, number: self.next };
        self.queue.insert(id, what);
        id
    }

    /// Removes a timer, if it has not expired.
    pub fn cancel(&mut self, id: TimerId) {
        self.queue.remove(&id);
    }

    /// Returns the time when the next timer expires.
    pub fn next(&self) -> Option<Instant> {
        self.queue.keys().next().map(|id| id.at)
    }

    /// Takes out one value whose time has come.
    pub fn expired(&mut self, now: Instant) -> Option<T> {
        let first = self.queue.first_entry()?;
        (first.key().at <= now).then(|| first.remove())
    }

    /// Returns the number of timers.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn they_expire_in_order_and_not_before() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set(at(20), "late");
        timers.set(at(10), "first");
        timers.set(at(10), "second");
        let never = timers.set(at(5), "cancelled");
        timers.cancel(never);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expired(at(9)), None);
        assert_eq!(timers.expired(at(10)), Some("first"));
        assert_eq!(timers.expired(at(10)), Some("second"));
        assert_eq!(timers.expired(at(10)), None);
        assert_eq!(timers.len(), 1);
    }
}
