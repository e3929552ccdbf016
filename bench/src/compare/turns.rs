//! What the turns of a comparison have shown, and the numbers made of them: medians and ratios.

use crate::load::Plan;
use crate::measure::Measurement;

/// One load, and what each target made of it in each round.
pub struct Case {
    pub plan: Plan,
    /// By round, then by target. `Err` says why there is no measurement.
    pub rounds: Vec<Vec<Result<Turn, String>>>,
}

/// The numbers of one turn of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub rate: f64,
    pub cpu_us: Option<f64>,
    pub switches: Option<f64>,
    pub p50_us: f64,
    pub p99_us: f64,
    pub client_busy: f64,
}

impl From<&Measurement> for Turn {
    fn from(measurement: &Measurement) -> Turn {
        Turn {
            rate: measurement.load.rate(),
            cpu_us: measurement.cpu_us(),
            switches: measurement.switches(),
            p50_us: measurement.load.quantile_us(0.5),
            p99_us: measurement.load.quantile_us(0.99),
            client_busy: measurement.load.client_busy,
        }
    }
}

/// Ratios of two targets in the same rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Case {
    /// The median of a number over the rounds of a target, if there is any.
    pub fn median(&self, target: usize, number: impl Fn(&Turn) -> Option<f64>) -> Option<f64> {
        let turns = self.rounds.iter().filter_map(|round| round.get(target)?.as_ref().ok());
        median(turns.filter_map(number).collect())
    }

    /// The ratios of a target's number to the first target's, each of one round.
    pub fn ratio(&self, target: usize, number: impl Fn(&Turn) -> Option<f64>) -> Option<Spread> {
        let ratios: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| {
                let of = |target: usize| number(round.get(target)?.as_ref().ok()?);
                Some(of(target)? / of(0)?)
            })
            .filter(|ratio| ratio.is_finite())
            .collect();
        Some(Spread {
            min: ratios.iter().copied().reduce(f64::min)?,
            max: ratios.iter().copied().reduce(f64::max)?,
            median: median(ratios)?,
        })
    }
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        len if len % 2 == 1 => Some(numbers[middle]),
        _ => Some((numbers[middle - 1] + numbers[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Call;

    fn turn(rate: f64) -> Result<Turn, String> {
        let (cpu_us, switches) = (None, None);
        Ok(Turn { rate, cpu_us, switches, p50_us: 1.0, p99_us: 2.0, client_busy: 0.5 })
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        let rounds = vec![
            vec![turn(10.0), turn(20.0)],
            vec![turn(100.0), turn(400.0)],
            vec![turn(1.0), turn(3.0)],
            vec![turn(5.0), Err("gone".into())],
        ];
        let plan = Plan { call: Call::Getpid, connections: 1, in_flight: 1 };
        let case = Case { plan, rounds };
        assert_eq!(case.median(0, |turn| Some(turn.rate)), Some(7.5));
        assert_eq!(case.median(1, |turn| Some(turn.rate)), Some(20.0));
        let spread = Spread { median: 3.0, min: 2.0, max: 4.0 };
        assert_eq!(case.ratio(1, |turn| Some(turn.rate)), Some(spread));
        assert_eq!(case.median(0, |turn| turn.cpu_us), None);
        assert_eq!(case.ratio(1, |turn| turn.cpu_us), None);
        assert_eq!(case.ratio(2, |turn| Some(turn.rate)), None);
    }
}
