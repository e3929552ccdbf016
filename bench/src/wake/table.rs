//! The results in a table: a line for each crowd, and its ratio to the first.

use super::crowd::{Crowd, Round};
use crate::compare::Target;

pub fn head(target: &Target, things: u32, sockets: bool) -> String {
    let what = if sockets { "socket pairs" } else { "pipes" };
    format!(
        "{}: clients that wait for {things} {what} each\n\n\
         | by | waiting | threads | KiB each | woken, us | CPU, us | woken, ratio | CPU, ratio |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        target.name
    )
}

pub fn lines(by: &str, crowds: &[Crowd]) -> String {
    let line = |first: &Crowd, crowd: &Crowd| {
        let ratio = |of: fn(&Round) -> f64| {
            let ratios = crowd.rounds.iter().zip(&first.rounds).map(|(a, b)| of(a) / of(b));
            median(ratios.collect())
        };
        format!(
            "| {by} | {} | {} | {:.1} | {:.0} | {:.1} | {:.2} | {:.2} |\n",
            crowd.clients(),
            crowd.threads,
            crowd.kib_each,
            median(crowd.rounds.iter().map(|round| round.median_us).collect()),
            median(crowd.rounds.iter().map(|round| round.cpu_us).collect()),
            ratio(|round| round.median_us),
            ratio(|round| round.cpu_us),
        )
    };
    crowds.iter().map(|crowd| line(&crowds[0], crowd)).collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
