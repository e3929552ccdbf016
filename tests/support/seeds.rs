//! Tests that run with many seeds: a usual number, or more by a variable; one seed can be run again.

use std::ops::Range;
use std::thread;

/// Returns the number in a variable of the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Divides the seeds among all CPUs: each takes every so-many-th seed of the range, from its own first
/// one on. The seeds are `SEED` alone, or as many as the variable `how_many` says, or the usual number.
/// Panics with the error of a seed that fails, and returns the number of seeds.
pub fn on_all_cpus(
    how_many: &str,
    usual: u64,
    run_some: impl Fn(Range<u64>, usize) -> Result<(), String> + Sync,
) -> u64 {
    let seeds = match (number("SEED"), number(how_many)) {
        (Some(seed), _) => seed..seed + 1,
        (None, many) => 0..many.unwrap_or(usual),
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let outcomes: Vec<_> = thread::scope(|scope| {
        let run_some = &run_some;
        let begin = |first| {
            let seeds = seeds.start + first as u64..seeds.end;
            scope.spawn(move || run_some(seeds, threads))
        };
        let running: Vec<_> = (0..threads).map(begin).collect();
        running.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    seeds.end - seeds.start
}
