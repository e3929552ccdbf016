//! What all parts of a soak share: where the server is, when it is enough, and what went wrong so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rumpring::output;
use rumpsp::url::Url;

use crate::workload::Random;

/// How often a part that waits looks whether it is enough.
const TICK: Duration = Duration::from_millis(50);

/// Which part of the time is warm-up: one of so many.
pub const WARM_UP: u32 = 10;

/// How many wrongs are kept in words. Of the others there is a count.
const MOST_WRONGS: usize = 100;

/// How often something was done, by its name.
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

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wrongs {
    pub count: u64,
    /// The first of them.
    pub first: Vec<Wrong>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Seconds since the start.
    pub at: f64,
    /// Which part has seen it.
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

    /// Choices of one part, or of one of its threads: the same in each soak with this seed.
    pub fn random(&self, part: &str, number: usize) -> Random {
        let mix = |seed: u64, byte| Random::new(seed ^ u64::from(byte)).next();
        Random::new(part.bytes().fold(self.seed ^ number as u64, mix))
    }

    /// One of several things to do, by its number. During the warm-up all do the same at a time, one
    /// thing after the other: a server that keeps memory or threads for use again then has all of them
    /// when it is first judged. From then on it is by chance.
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

    /// How long it is to go on.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether all parts are to end.
    pub fn is_over(&self) -> bool {
        self.is_interrupted() || self.is_given_up.load(Ordering::Relaxed) || self.left().is_zero()
    }

    /// Whether a signal has said that it is enough.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Has all parts end before the time.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Sleeps, no longer than until the end, and returns whether it goes on.
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

    /// Something went wrong: the soak will have failed.
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
    /// With `DIR` instead of this folder.
    pub fn without(mut self, dir: &str) -> Wrongs {
        self.first.iter_mut().for_each(|wrong| wrong.what = wrong.what.replace(dir, "DIR"));
        self
    }
}

/// Adds up what several threads have counted.
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
        assert_ne!(first(&one, "hostile", 3), first(&one, "visitors", 3));
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
