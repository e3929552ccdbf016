//! The state that all parts of a soak share: the server's URL, the time of the end, and the errors so
//! far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumpring::output;
use rumpsp::url::Url;

use crate::workload::Random;

/// The time between two looks of a waiting part at whether the run is over.
const TICK: Duration = Duration::from_millis(50);

/// The fraction of the time that is warm-up: one of this many parts.
pub const WARM_UP: u32 = 10;

/// The most wrongs that are kept in words. Further wrongs are only counted.
const MOST_WRONGS: usize = 100;

/// The number of times each thing was done, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// A soak that is under way.
pub struct Run {
    pub url: Url,
    pub seed: u64,
    start: Instant,
    warm: Instant,
    end: Instant,
    interrupted: Arc<AtomicBool>,
    is_given_up: AtomicBool,
    wrongs: Mutex<Wrongs>,
}

/// The errors of a soak.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wrongs {
    pub count: u64,
    /// The first of the wrongs.
    pub first: Vec<Wrong>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Seconds since the start.
    pub at: f64,
    /// The part that has seen the wrong.
    pub part: &'static str,
    pub what: String,
}

impl Run {
    pub fn new(url: Url, seed: u64, length: Duration, interrupted: Arc<AtomicBool>) -> Run {
        let start = Instant::now();
        let (warm, end) = (start + length / WARM_UP, start + length);
        let (is_given_up, wrongs) = (AtomicBool::new(false), Mutex::default());
        Run { url, seed, start, warm, end, interrupted, is_given_up, wrongs }
    }

    /// Returns the random choices of one part, or of one of its threads: the same in each soak with
    /// this seed.
    pub fn random(&self, part: &str, number: usize) -> Random {
        let mix = |seed: u64, byte| Random::new(seed ^ u64::from(byte)).next();
        Random::new(part.bytes().fold(self.seed ^ number as u64, mix))
    }

    /// Chooses one of several things to do, by number. During the warm-up all threads do the same thing
    /// at a time, one thing after the other: a server that keeps memory or threads for reuse then has
    /// all of them when it is first judged. After the warm-up the choice is random.
    pub fn choose(&self, random: &mut Random, several: usize) -> usize {
        let by_chance = random.below(several as u32) as usize;
        if Instant::now() >= self.warm {
            return by_chance;
        }
        let part = self.elapsed().as_secs_f64() / (self.warm - self.start).as_secs_f64();
        ((part * several as f64) as usize).min(several - 1)
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the time left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Returns `true` if all parts are to end.
    pub fn is_over(&self) -> bool {
        self.is_interrupted() || self.is_given_up.load(Ordering::Relaxed) || self.left().is_zero()
    }

    /// Returns `true` if a signal has ended the soak.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Ends all parts before the time.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Sleeps, at most until the end, and returns `true` if the run goes on.
    pub fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(TICK));
        }
        false
    }

    /// Records that something went wrong: the soak will have failed.
    pub fn wrong(&self, part: &'static str, what: impl Into<String>) {
        let wrong = Wrong { at: self.elapsed().as_secs_f64(), part, what: what.into() };
        output::say(format_args!("{:.1} s: {part}: {}", wrong.at, wrong.what));
        let mut wrongs = self.wrongs.lock().unwrap_or_else(PoisonError::into_inner);
        wrongs.count += 1;
        if wrongs.first.len() < MOST_WRONGS {
            wrongs.first.push(wrong);
        }
    }

    pub fn wrongs(&self) -> Wrongs {
        self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Wrongs {
    /// Replaces this folder by `DIR` in all texts.
    pub fn without(mut self, dir: &str) -> Wrongs {
        self.first.iter_mut().for_each(|wrong| wrong.what = wrong.what.replace(dir, "DIR"));
        self
    }
}

/// Adds up the counts of several threads.
pub fn sum(all: impl IntoIterator<Item = Counts>) -> Counts {
    let mut sum = Counts::new();
    for (name, count) in all.into_iter().flatten() {
        *sum.entry(name).or_default() += count;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(length: Duration) -> Run {
        Run::new("unix:///s".parse().unwrap(), 7, length, Arc::default())
    }

    #[test]
    fn choices_are_the_same_with_the_same_seed_and_differ_between_threads() {
        let (one, other) = (run(Duration::ZERO), run(Duration::ZERO));
        let first = |run: &Run, part, number| run.random(part, number).next();
        assert_eq!(first(&one, "hostile", 3), first(&other, "hostile", 3));
        assert_ne!(first(&one, "hostile", 3), first(&one, "hostile", 4));
        assert_ne!(first(&one, "hostile", 3), first(&one, "churn", 3));
    }

    #[test]
    fn all_do_the_same_during_the_warm_up() {
        let run = run(Duration::from_secs(1000));
        let mut random = run.random("hostile", 0);
        assert!((0..20).all(|_| run.choose(&mut random, 5) == 0), "the first for 20 s");
        let over = Run { warm: run.start, ..run };
        let mut chosen: Vec<_> = (0..100).map(|_| over.choose(&mut random, 5)).collect();
        chosen.sort();
        chosen.dedup();
        assert_eq!(chosen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn who_sleeps_wakes_when_it_is_enough() {
        assert!(!run(Duration::ZERO).sleep(Duration::from_secs(60)));
        let run = run(Duration::from_secs(60));
        assert!(run.sleep(Duration::ZERO));
        run.give_up();
        assert!(!run.sleep(Duration::from_secs(60)));
    }

    #[test]
    fn wrongs_are_counted_and_the_first_are_kept() {
        let run = run(Duration::ZERO);
        (0..MOST_WRONGS + 5).for_each(|number| run.wrong("test", number.to_string()));
        let wrongs = run.wrongs();
        assert_eq!((wrongs.count, wrongs.first.len()), (MOST_WRONGS as u64 + 5, MOST_WRONGS));
        assert_eq!(wrongs.first[1].what, "1");
    }
}
