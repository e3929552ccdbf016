//! The queue delay: finds out if tasks wait for too long in the deques.
//!
//! A task has no time stamp; instead, the watch notes how many tasks have been pushed. If [`PATIENCE`]
//! later not as many have been taken, the oldest has waited for that long: the workers that are awake are
//! busy with something long, or there are too few of them.

use std::time::{Duration, Instant};

/// The time that a task may wait before another worker is woken for it: a few times what a wake-up costs.
pub const PATIENCE: Duration = Duration::from_micros(50);

/// The watch over the deques of one dispatcher.
#[derive(Debug, Default)]
pub struct QueueDelay {
    /// The number of tasks ever pushed.
    pushed: u64,
    /// The time of the next look, and how many tasks should have been taken by then.
    mark: Option<(Instant, u64)>,
}

impl QueueDelay {
    /// Counts a task that was pushed.
    pub fn pushed(&mut self) {
        self.pushed += 1;
    }

    /// Watches what has been pushed by now, if nothing is being watched.
    pub fn begin(&mut self, now: Instant) {
        self.mark.get_or_insert((now + PATIENCE, self.pushed));
    }

    /// Returns the time of the next look.
    pub fn next(&self) -> Option<Instant> {
        self.mark.map(|(when, _)| when)
    }

    /// Returns `true` if some tasks have waited for too long. `waiting` tasks are waiting now.
    pub fn has_seen_too_long_a_wait(&mut self, now: Instant, waiting: u64) -> bool {
        if waiting == 0 {
            self.mark = None;
        }
        let Some((_, mark)) = self.mark.filter(|(when, _)| *when <= now) else {
            return false;
        };
        self.mark = Some((now + PATIENCE, self.pushed));
        waiting > self.pushed - mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_are_taken_in_time_wake_nobody() {
        let mut queue_delay = QueueDelay::default();
        let start = Instant::now();
        let at = |turns: u32| start + PATIENCE * turns;
        for _ in 0..3 {
            queue_delay.pushed();
        }
        queue_delay.begin(start);
        assert!(!queue_delay.has_seen_too_long_a_wait(start, 3), "it is not time");
        assert_eq!(queue_delay.next(), Some(at(1)));
        // Two more tasks came later and wait; all of the three are gone.
        queue_delay.pushed();
        queue_delay.pushed();
        queue_delay.begin(start);
        assert!(!queue_delay.has_seen_too_long_a_wait(at(1), 2));
        assert_eq!(queue_delay.next(), Some(at(2)), "they are watched, too");
        assert!(!queue_delay.has_seen_too_long_a_wait(start, 0));
        assert_eq!(queue_delay.next(), None, "there is nothing to watch");
    }

    #[test]
    fn one_task_left_of_those_watched_has_waited() {
        let mut queue_delay = QueueDelay::default();
        let start = Instant::now();
        queue_delay.pushed();
        queue_delay.pushed();
        queue_delay.begin(start);
        queue_delay.pushed();
        assert!(
            queue_delay.has_seen_too_long_a_wait(start + PATIENCE, 2),
            "of two and one, one was taken"
        );
        assert!(!queue_delay.has_seen_too_long_a_wait(start + PATIENCE, 2), "once a while");
        assert!(
            queue_delay.has_seen_too_long_a_wait(start + PATIENCE * 2, 1),
            "the last still waits"
        );
    }
}
