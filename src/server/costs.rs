//! How long calls take, by number, learnt from those that have run.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::task::CALL_KINDS;

/// A call is short if a worker's wake-up takes longer.
const SHORT: u32 = 10_000;

/// One run in so many is timed, for the clock costs a tenth of the shortest.
const TIMED_EVERY: u32 = 8;

/// What one run counts for against those before it.
const WEIGHT: i64 = 8;

/// A run counts for no longer than this, in nanoseconds: it may have been taken off its CPU.
const MOST: u32 = 4 * SHORT;

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

/// Mean times of the kinds of calls, in nanoseconds.
pub struct Costs {
    means: [AtomicU32; CALL_KINDS],
    /// Whether anything is learnt.
    learns: bool,
}

impl Default for Costs {
    fn default() -> Costs {
        Costs { means: std::array::from_fn(|_| AtomicU32::new(0)), learns: true }
    }
}

impl Costs {
    /// Every call is taken for short, whatever it takes: what comes of a run does not depend on time.
    #[cfg(test)]
    pub fn unknown() -> Costs {
        Costs { learns: false, ..Costs::default() }
    }

    /// Whether calls of this kind have been short so far.
    pub fn is_short(&self, kind: usize) -> bool {
        self.means[kind].load(Ordering::Relaxed) <= SHORT
    }

    /// Runs a call of this kind, and learns from some.
    pub fn time<R>(&self, kind: usize, run: impl FnOnce() -> R) -> R {
        let runs = RUNS.get();
        RUNS.set(runs.wrapping_add(1));
        if !runs.is_multiple_of(TIMED_EVERY) || !self.learns {
            return run();
        }
        let start = Instant::now();
        let result = run();
        self.learn(kind, start.elapsed());
        result
    }

    /// Threads may learn at once: what one of them overwrites is no loss.
    fn learn(&self, kind: usize, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(MOST).min(MOST);
        let mean = self.means[kind].load(Ordering::Relaxed);
        let mean = i64::from(mean) + (i64::from(took) - i64::from(mean)) / WEIGHT;
        self.means[kind].store(mean as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_what_most_of_its_runs_were() {
        let costs = Costs::default();
        let (short, long) = (Duration::from_nanos(300), Duration::from_micros(50));
        assert!(costs.is_short(3), "what has not run is tried");
        costs.learn(3, long);
        assert!(costs.is_short(3), "one run may have been unlucky");
        costs.learn(3, Duration::MAX);
        assert!(costs.is_short(3), "however much");
        for _ in 0..10 {
            costs.learn(3, long);
        }
        assert!(!costs.is_short(3));
        assert!(costs.is_short(4), "another kind is not");
        for _ in 0..30 {
            costs.learn(3, short);
        }
        assert!(costs.is_short(3), "it may get short again");
    }

    #[test]
    fn some_runs_are_timed() {
        let costs = Costs::default();
        for _ in 0..8 * TIMED_EVERY {
            costs.time(7, || std::thread::sleep(Duration::from_micros(100)));
        }
        assert!(!costs.is_short(7));
    }
}
