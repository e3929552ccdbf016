//! What the turns of a comparison have shown, and the numbers made of them: medians and ratios.

use crate::histogram::QUANTILES;
use crate::idle::Idle;
use crate::load::Plan;
use crate::measure::{Holdings, Measurement};

/// One load, and what each target made of it.
pub struct Case {
    pub plan: Plan,
    pub rounds: Rounds<Turn>,
}

/// So many idle connections, and what each target has for them.
pub struct IdleCase {
    pub connections: u32,
    pub rounds: Rounds<Idle>,
}

/// By round, then by target; the last round may be short.
pub struct Rounds<T>(pub Vec<Vec<Taken<T>>>);

/// A turn: `None` if the target does not take part. `Err` says why there is no measurement.
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
    /// Which part of one CPU's time the load took.
    pub client_busy: f64,
    pub holdings: Option<Holdings>,
}

impl From<&Measurement> for Turn {
    fn from(measurement: &Measurement) -> Turn {
        Turn {
            rate: measurement.load.rate(),
            cpu_us: measurement.cpu_us(),
            switches: measurement.switches(),
            enters: measurement.enters,
            latency_us: QUANTILES.map(|(_, quantile)| measurement.load.quantile_us(quantile)),
            client_busy: measurement.load.client_busy,
            holdings: measurement.holdings,
        }
    }
}

impl Turn {
    pub fn p50_us(&self) -> f64 {
        self.latency_us[0]
    }

    pub fn p99_us(&self) -> f64 {
        self.latency_us[2]
    }
}

/// The middle of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of no numbers.
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
    /// Whether a target had a turn, be it one that failed.
    pub fn has(&self, target: usize) -> bool {
        self.0.iter().any(|round| matches!(round.get(target), Some(Some(_))))
    }

    /// Whether anybody had one.
    pub fn has_any(&self) -> bool {
        self.0.iter().flatten().any(Option::is_some)
    }

    /// A number of a target over the rounds, if there is any.
    pub fn spread(&self, target: usize, number: impl Fn(&T) -> Option<f64>) -> Option<Spread> {
        let turns = self.0.iter().filter_map(|round| round.get(target)?.as_ref()?.as_ref().ok());
        Spread::of(turns.filter_map(number).collect())
    }

    /// The ratios of a target's number to the same of `base`, each of one round.
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

    /// A turn with this rate, and other numbers that tell it from others.
    pub fn turn(rate: f64) -> Turn {
        Turn {
            rate,
            cpu_us: Some(1e5 / rate),
            switches: None,
            enters: Some(0.25),
            latency_us: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(|us| us * 1e5 / rate),
            client_busy: 0.5,
            holdings: Some(Holdings { memory_before: 2048, memory: 4096, threads: 3 }),
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
    fn a_ratio_to_nothing_is_none() {
        let rounds = Rounds(vec![vec![Some(Ok(turn(1.0))), Some(Ok(turn(2.0)))]]);
        assert_eq!(rounds.ratio(1, 0, |turn| Some(turn.rate - 1.0)), None);
    }
}
