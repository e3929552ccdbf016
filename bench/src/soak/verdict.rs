//! The rules for whether a server is unchanged after a soak, and their results.

use super::run::WARM_UP;
use super::sample::Sample;

/// The number of parts of the time. The first is warm-up, the second is compared to the last.
const PARTS: f64 = WARM_UP as f64;

/// The fewest samples of a tenth for which its median counts.
const FEWEST: usize = 3;

/// The growth of memory allowed: KiB, or this fraction if that is more.
const MEMORY: f64 = 4096.0;
const MEMORY_PART: f64 = 0.05;

/// The growth allowed of descriptors, threads and lwps. So many come and go with clients.
const DESCRIPTORS: f64 = 16.0;
const THREADS: f64 = 16.0;

/// The number of descriptors a server may have more at rest than before any client came.
const DESCRIPTORS_AT_REST: u64 = 4;

/// The rules in words.
pub const RULES: &str = "\
Flat is judged by medians: that of the samples of the last tenth of the time against that of the second \
tenth. In the first, the warm-up, all hostile clients make the same attack at a time, one after the other, \
so that what a server keeps for use again is as large as it gets; later each is by chance. Resident and anonymous memory may have grown by 5 % or 4 MiB, whichever is \
more, descriptors, threads and the kernel's lwps by 16, as they come and go with clients. When the load has gone the server \
has 30 s until it has no connection, no call in flight and no prefork, and at most 4 descriptors more than \
before the load, then 15 s to end at SIGTERM, with success. None of its tasks may have panicked. No answer \
may have been wrong, no well-behaved client refused, and the canary served within 5 s each time.";

/// The result of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub what: &'static str,
    /// The number before, and the number after.
    pub was: f64,
    pub is: f64,
    /// The highest number allowed.
    pub most: f64,
    /// True if the rule holds; `None` if there are too few samples to say.
    pub is_good: Option<bool>,
}

type Number = fn(&Sample) -> f64;

/// Checks whether memory, descriptors, threads and lwps are flat over a soak of `seconds` seconds.
pub fn flat(samples: &[Sample], seconds: f64) -> Vec<Finding> {
    let memory = |was: f64| was + MEMORY.max(was * MEMORY_PART);
    let mut rules: Vec<(_, Number, &dyn Fn(f64) -> f64)> = vec![
        ("resident memory, KiB", |sample| sample.resident as f64, &memory),
        ("anonymous memory, KiB", |sample| sample.anonymous as f64, &memory),
        ("descriptors", |sample| sample.descriptors as f64, &|was| was + DESCRIPTORS),
        ("threads", |sample| sample.threads as f64, &|was| was + THREADS),
    ];
    if samples.iter().any(|sample| sample.lwps.is_some()) {
        let lwps = |sample: &Sample| sample.lwps.unwrap_or_default() as f64;
        rules.push(("lwps", lwps, &|was| was + THREADS));
    }
    let tenth = |number: f64| -> Vec<&Sample> {
        let (from, to) = (seconds * number / PARTS, seconds * (number + 1.0) / PARTS);
        // Samples of the very end belong to the last tenth.
        let to = if number + 1.0 == PARTS { f64::INFINITY } else { to };
        samples.iter().filter(|sample| (from..to).contains(&sample.at)).collect()
    };
    let (second, last) = (tenth(1.0), tenth(PARTS - 1.0));
    let has_enough = second.len() >= FEWEST && last.len() >= FEWEST;
    let finding = |(what, number, most): (_, Number, &dyn Fn(f64) -> f64)| {
        let was = median(second.iter().map(|sample| number(sample)).collect());
        let is = median(last.iter().map(|sample| number(sample)).collect());
        let most = most(was);
        Finding { what, was, is, most, is_good: has_enough.then_some(is <= most) }
    };
    rules.into_iter().map(finding).collect()
}

/// Checks that nothing of the clients is left, by a sample from before them and one from after.
pub fn at_rest(before: &Sample, after: &Sample) -> Vec<Finding> {
    let rule = |what, was: u64, is: u64, more: u64| {
        let (was, is, most) = (was as f64, is as f64, (was + more) as f64);
        Finding { what, was, is, most, is_good: Some(is <= most) }
    };
    let mut findings = vec![rule(
        "descriptors at rest",
        before.descriptors,
        after.descriptors,
        DESCRIPTORS_AT_REST,
    )];
    if let Some(counted) = after.counted {
        findings.extend([
            rule("connections at rest", 0, counted.connections, 0),
            rule("calls in flight at rest", 0, counted.in_flight, 0),
            rule("preforks at rest", 0, counted.preforks, 0),
            rule("panics", 0, counted.panics, 0),
        ]);
    }
    findings
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        len if len % 2 == 1 => numbers[len / 2],
        len => (numbers[len / 2 - 1] + numbers[len / 2]) / 2.0,
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::sample::Counted;
    use super::*;

    pub fn sample(at: f64, resident: u64, descriptors: u64, threads: u64) -> Sample {
        let (anonymous, cpu, counted) = (resident / 2, at / 2.0, Some(Counted::default()));
        let lwps = Some(threads);
        Sample { at, resident, anonymous, descriptors, threads, lwps, cpu, counted }
    }

    /// Returns one sample a second for 100 seconds.
    fn soak(one: impl Fn(f64) -> Sample) -> Vec<Sample> {
        (0..100).map(|second| one(f64::from(second))).collect()
    }

    fn is_good(samples: &[Sample]) -> Vec<Option<bool>> {
        flat(samples, 100.0).iter().map(|finding| finding.is_good).collect()
    }

    #[test]
    fn what_stays_is_flat_whatever_the_warm_up_was() {
        let samples = soak(|at| sample(at, if at < 10.0 { 10 } else { 50_000 }, 20, 5));
        assert_eq!(is_good(&samples), [Some(true); 5]);
        // Single peaks do not count as growth.
        let samples = soak(|at| sample(at, if at > 98.0 { 900_000 } else { 50_000 }, 20, 5));
        assert_eq!(is_good(&samples), [Some(true); 5]);
    }

    #[test]
    fn what_grows_is_not_flat() {
        let grows = |at: f64, by: f64| (at * by) as u64;
        let memory = soak(|at| sample(at, 50_000 + grows(at, 75.0), 20, 5));
        assert_eq!(is_good(&memory)[..2], [Some(false), Some(true)]);
        let much = soak(|at| sample(at, 50_000 + grows(at, 400.0), 20, 5));
        assert_eq!(is_good(&much)[..2], [Some(false); 2]);
        let descriptors = soak(|at| sample(at, 50_000, 20 + grows(at, 0.3), 5));
        assert_eq!(is_good(&descriptors)[2], Some(false));
        let threads = soak(|at| sample(at, 50_000, 20, 5 + grows(at, 0.3)));
        assert_eq!(is_good(&threads)[3..], [Some(false); 2]);
    }

    #[test]
    fn the_bound_of_memory_is_the_larger() {
        let most = |resident| flat(&soak(|at| sample(at, resident, 20, 5)), 100.0)[0].most;
        assert_eq!(most(10_000), 14_096.0);
        assert_eq!(most(1_000_000), 1_050_000.0);
    }

    #[test]
    fn too_few_samples_say_nothing() {
        let samples: Vec<_> =
            [5.0, 15.0, 95.0].map(|at| sample(at, 1 << 10, 20, 5)).into_iter().collect();
        assert_eq!(is_good(&samples), [None; 5]);
        assert_eq!(is_good(&[]), [None; 4]);
    }

    #[test]
    fn what_is_left_behind_is_found() {
        let (before, after) = (sample(0.0, 1, 20, 5), sample(9.0, 1, 24, 50));
        assert!(at_rest(&before, &after).iter().all(|finding| finding.is_good == Some(true)));
        let counted = Counted { preforks: 1, panics: 1, ..Counted::default() };
        let after = Sample { descriptors: 25, counted: Some(counted), ..after };
        let bad = at_rest(&before, &after);
        let bad: Vec<_> = bad.iter().filter(|f| f.is_good == Some(false)).map(|f| f.what).collect();
        assert_eq!(bad, ["descriptors at rest", "preforks at rest", "panics"]);
    }
}
