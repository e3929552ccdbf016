//! Looks for work for a while before sleeping, as long as that pays.
//!
//! A sleep costs its thread a few microseconds and its waker some more, so a thread that expects work
//! soon does better to look for it. But a look that finds nothing is wasted, and on a machine without
//! an idle core it keeps the core from the thread that would bring the work. Hence two rules. Between
//! looks the thread yields (`sched_yield(2)`), so that another thread that wants the core gets it. And
//! each look that finds nothing doubles the number of sleeps before the next look, so a thread with
//! little to do hardly ever looks.

use std::time::{Duration, Instant};

/// The most sleeps without a look before them.
const MOST_PASSED: u32 = 256;

/// The number of looks at the work between two readings of the clock.
const LOOKS: u32 = 8;

/// The spinning of one thread before it sleeps.
#[derive(Clone, Debug)]
pub struct Spin {
    most: Duration,
    /// The number of sleeps to let pass before the next look.
    pass: u32,
    /// The value `pass` gets when the next look finds nothing.
    penalty: u32,
}

impl Spin {
    /// Makes a `Spin` that looks for up to `most` at a time; zero means never.
    pub fn new(most: Duration) -> Spin {
        Spin { most, pass: 0, penalty: 1 }
    }

    /// Returns `true` if the thread should look for work before this sleep. Counts the sleep.
    pub fn pays(&mut self) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let pays = self.pass == 0;
        self.pass = self.pass.saturating_sub(1);
        pays
    }

    /// Looks until `found` returns `true`, and returns whether it did in time.
    pub fn look(&mut self, mut found: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if found() {
                    self.penalty = 1;
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.most {
                self.pass = self.penalty;
                self.penalty = (self.penalty * 2).min(MOST_PASSED);
                return false;
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_get_rare() {
        let mut spin = Spin::new(Duration::from_nanos(1));
        let looks = (0..10_000).filter(|_| spin.pays() && !spin.look(|| false)).count();
        // There is one look at each of 1, 2, 4 .. 256 sleeps, then one every 257.
        assert_eq!(looks, 9 + (10_000 - 520usize).div_ceil(257));
    }

    #[test]
    fn a_look_that_finds_something_makes_up_for_those_that_did_not() {
        let mut spin = Spin::new(Duration::from_nanos(1));
        for _ in 0..2_000 {
            let _ = spin.pays() && spin.look(|| false);
        }
        while !spin.pays() {}
        assert!(spin.look(|| true));
        assert!(spin.pays(), "the next sleep has a look before it");
    }

    #[test]
    fn nobody_looks_for_no_time() {
        assert!(!Spin::new(Duration::ZERO).pays());
    }
}
