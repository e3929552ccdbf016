//! The results of a comparison's turns, and the numbers made of them: medians and ratios.

use super::load_spec::LoadSpec;
use crate::histogram::{QUANTILES, us};
use crate::idle::Idle;
use crate::load;
use crate::measure::{Holdings, Measurement};
use crate::workload::{Call, fair};

/// One load, and the results of each target.
pub struct Case {
    pub load_spec: LoadSpec,
    pub rounds: Rounds<Turn>,
}

/// A number of idle connections, and the results of each target.
pub struct IdleCase {
    pub connections: u32,
    pub rounds: Rounds<Idle>,
}

/// The turns, by round, then by target; the last round may be short.
pub struct Rounds<T>(pub Vec<Vec<Taken<T>>>);

/// A turn: `None` if the target does not take part, `Err` with the reason if there is no measurement.
pub type Taken<T> = Option<Result<T, String>>;

/// The numbers of one turn of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Calls answered a second.
    pub rate: f64,
    /// Microseconds of the server's CPU time for a call.
    pub cpu_us: Option<f64>,
    /// Context switches of the server for a call.
    pub switches: Option<f64>,
    /// `io_uring_enter` calls of the server for a call.
    pub enters: Option<f64>,
    /// Microseconds, by [`QUANTILES`].
    pub latency_us: [f64; QUANTILES.len()],
    /// The fraction of one CPU's time that the load's busiest thread took.
    pub client_busy: f64,
    pub holdings: Option<Holdings>,
    /// The calls a second that were asked for, if the loop was open.
    pub asked: Option<u64>,
    /// Calls that were due and had no answer when the time was up.
    pub unanswered: u64,
    /// The length of the turn in seconds, and whether it was cut short.
    pub seconds: f64,
    pub is_cut_short: bool,
    /// The number of threads that made the load, and the number of processes they were in.
    pub threads: u32,
    pub processes: u32,
    /// The parts of the load, which are counted apart.
    pub parts: Vec<Part>,
}

/// The numbers of a part of a load.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: String,
    /// Calls answered a second.
    pub rate: f64,
    /// Microseconds, by [`QUANTILES`].
    pub latency_us: [f64; QUANTILES.len()],
}

impl Turn {
    /// Returns the numbers of a measurement of this call, at the rate that was asked for.
    pub fn new(call: Call, asked: Option<u64>, measurement: &Measurement) -> Turn {
        let load = &measurement.load;
        let part = |(name, part): (String, &load::Part)| Part {
            name,
            rate: load.rate_of(part),
            latency_us: QUANTILES.map(|(_, quantile)| us(&part.latencies, quantile)),
        };
        Turn {
            rate: load.rate(),
            cpu_us: measurement.cpu_us(),
            switches: measurement.switches(),
            enters: measurement.enters,
            latency_us: QUANTILES.map(|(_, quantile)| load.quantile_us(quantile)),
            client_busy: load.client_busy,
            holdings: measurement.holdings,
            asked,
            unanswered: load.unanswered,
            seconds: load.elapsed.as_secs_f64(),
            is_cut_short: load.is_cut_short,
            threads: measurement.threads,
            processes: measurement.processes,
            parts: call.parts().into_iter().zip(&load.parts).map(part).collect(),
        }
    }

    pub fn p50_us(&self) -> f64 {
        self.latency_us[P50]
    }

    pub fn p99_us(&self) -> f64 {
        self.latency_us[P99]
    }

    /// Returns the slow caller's p99 over the busy callers' p50, if the load has those parts.
    pub fn unfairness(&self) -> Option<f64> {
        let [busy, slow] = [fair::BUSY, fair::SLOW].map(|part| self.parts.get(part));
        Some(slow?.latency_us[P99] / busy?.latency_us[P50])
    }
}

/// Indices in [`QUANTILES`].
pub const P50: usize = 0;
pub const P99: usize = 2;
pub const P99_9: usize = 3;
pub const P99_99: usize = 4;
pub const MAX: usize = 5;

/// The median of some numbers, and their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Returns `None` if there are no numbers.
    fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (&min, &max) = (numbers.first()?, numbers.last()?);
        let middle = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            1 => numbers[middle],
            _ => (numbers[middle - 1] + numbers[middle]) / 2.0,
        };
        Some(Spread { median, min, max })
    }
}

impl<T> Rounds<T> {
    /// Returns `true` if a target had a turn, even a failed one.
    pub fn has(&self, target: usize) -> bool {
        self.0.iter().any(|round| matches!(round.get(target), Some(Some(_))))
    }

    /// Returns `true` if any target had a turn.
    pub fn has_any(&self) -> bool {
        self.0.iter().flatten().any(Option::is_some)
    }

    /// Returns a number of a target over the rounds, if there is any.
    pub fn spread(&self, target: usize, number: impl Fn(&T) -> Option<f64>) -> Option<Spread> {
        let rounds = self.0.iter().filter_map(|round| round.get(target)?.as_ref()?.as_ref().ok());
        Spread::of(rounds.filter_map(number).collect())
    }

    /// Returns the ratios of a target's number to that of `base`, each within one round.
    pub fn ratio(
        &self,
        target: usize,
        base: usize,
        number: impl Fn(&T) -> Option<f64>,
    ) -> Option<Spread> {
        let ratio = |round: &Vec<Taken<T>>| {
            let of = |target: usize| number(round.get(target)?.as_ref()?.as_ref().ok()?);
            Some(of(target)? / of(base)?).filter(|ratio| ratio.is_finite())
        };
        Spread::of(self.0.iter().filter_map(ratio).collect())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a turn with this rate, and with other numbers that differ from those of other rates.
    pub fn turn(rate: f64) -> Turn {
        Turn {
            rate,
            cpu_us: Some(1e5 / rate),
            switches: None,
            enters: Some(0.25),
            latency_us: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|us| us * 1e5 / rate),
            client_busy: 0.5,
            holdings: Some(Holdings { memory_before: 2048, memory: 4096, threads: 3 }),
            asked: None,
            unanswered: 0,
            seconds: 2.0,
            is_cut_short: false,
            threads: 1,
            processes: 1,
            parts: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        let turn = |rate| Some(Ok(turn(rate)));
        let rounds = Rounds(vec![
            vec![turn(10.0), turn(20.0)],
            vec![turn(100.0), turn(400.0)],
            vec![turn(1.0), turn(3.0)],
            vec![turn(5.0), Some(Err("gone".into()))],
            vec![],
            vec![None, None, None],
        ]);
        let rate = |turn: &Turn| Some(turn.rate);
        let all = rounds.spread(0, rate);
        assert_eq!(all, Some(Spread { median: 7.5, min: 1.0, max: 100.0 }));
        assert_eq!(rounds.spread(1, rate).unwrap().median, 20.0);
        let ratio = Spread { median: 3.0, min: 2.0, max: 4.0 };
        assert_eq!(rounds.ratio(1, 0, rate), Some(ratio));
        assert_eq!(rounds.ratio(0, 1, rate).unwrap().min, 0.25);
        assert_eq!(rounds.spread(0, |turn| turn.switches), None);
        assert_eq!(rounds.ratio(1, 0, |turn| turn.switches), None);
        assert_eq!(rounds.ratio(2, 0, rate), None);
        assert_eq!([0, 1, 2, 3].map(|target| rounds.has(target)), [true, true, false, false]);
    }

    #[test]
    fn the_slow_one_waits_as_long_as_others_or_more() {
        let mut fair = turn(1e5);
        assert_eq!(fair.unfairness(), None);
        let part = |us: f64| Part {
            name: "x".into(),
            rate: 1.0,
            latency_us: [us, 0.0, 3.0 * us, 0.0, 0.0, 0.0],
        };
        fair.parts = vec![part(10.0), part(20.0)];
        assert_eq!(fair.unfairness(), Some(6.0));
    }

    #[test]
    fn places_are_those_of_the_quantiles() {
        let names = [P50, P99, P99_9, P99_99, MAX].map(|place| QUANTILES[place].0);
        assert_eq!(names, ["p50", "p99", "p99.9", "p99.99", "max"]);
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        let rounds = Rounds(vec![vec![Some(Ok(turn(1.0))), Some(Ok(turn(2.0)))]]);
        assert_eq!(rounds.ratio(1, 0, |turn| Some(turn.rate - 1.0)), None);
    }
}
