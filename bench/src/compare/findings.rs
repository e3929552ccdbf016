//! The results of a comparison.

use serde_json::{Value, json};

use super::load_spec::{LoadSpec, When};
use super::rounds::{Case, IdleCase, Part, Rounds, Taken, Turn};
use super::target::Target;
use crate::histogram::QUANTILES;
use crate::idle::Idle;

pub struct Findings<'a> {
    /// A description of the method, in words.
    pub how: String,
    /// A description of the machine, if the user gave one.
    pub about: Option<String>,
    pub targets: &'a [Target],
    /// The targets that others are compared to.
    pub bases: Vec<usize>,
    pub settings: Value,
    pub cases: Vec<Case>,
    pub idle: Vec<IdleCase>,
    /// The reason why not all turns were taken, if so, in words.
    pub cut_short: Option<String>,
}

impl Findings<'_> {
    /// Returns the rate at which a target is to be called, or `None` if the loop is closed.
    pub fn rate_for(&self, load_spec: &LoadSpec, target: usize) -> Result<Option<u64>, String> {
        let percent = match load_spec.when {
            When::Answered => return Ok(None),
            When::Rate(rate) => return Ok(Some(rate)),
            When::Percent(percent) => f64::from(percent),
        };
        let closed = self.cases.iter().rev().find(|case| case.load_spec == load_spec.closed());
        let all = closed.and_then(|case| case.rounds.spread(target, |turn| Some(turn.rate)));
        let all =
            all.ok_or_else(|| format!("no turn with {} has shown its rate", load_spec.closed()))?;
        Ok(Some((all.median * percent / 100.0).round().max(1.0) as u64))
    }

    /// Returns all numbers of all turns.
    pub fn json(&self) -> Value {
        let targets = self.targets.iter();
        let targets = targets.map(|t| json!({ "name": t.name, "command": t.command() }));
        json!({
            "targets": targets.collect::<Vec<_>>(),
            "settings": self.settings,
            "cut_short": self.cut_short,
            "cases": self.cases.iter().map(case).collect::<Vec<_>>(),
            "idle": self.idle.iter().map(idle_case).collect::<Vec<_>>(),
        })
    }
}

fn case(case: &Case) -> Value {
    json!({
        "call": case.load_spec.plan.call.to_string(),
        "connections": case.load_spec.plan.connections,
        "in_flight": case.load_spec.plan.in_flight,
        "percent_of_own_rate": match case.load_spec.when {
            When::Percent(percent) => Some(percent),
            _ => None,
        },
        "rounds": rounds(&case.rounds, turn),
    })
}

fn idle_case(case: &IdleCase) -> Value {
    json!({ "connections": case.connections, "rounds": rounds(&case.rounds, idle) })
}

fn rounds<T>(rounds: &Rounds<T>, one: fn(&T) -> Value) -> Vec<Vec<Value>> {
    let one = |turn: &Taken<T>| match turn {
        None => Value::Null,
        Some(Ok(turn)) => one(turn),
        Some(Err(error)) => json!({ "error": error }),
    };
    rounds.0.iter().map(|round| round.iter().map(one).collect()).collect()
}

fn turn(turn: &Turn) -> Value {
    let mut value = json!({
        "calls_per_second": turn.rate,
        "server_cpu_us_per_call": turn.cpu_us,
        "server_context_switches_per_call": turn.switches,
        "server_enters_per_call": turn.enters,
        "server_memory_kib_before": turn.holdings.map(|held| held.memory_before),
        "server_memory_kib": turn.holdings.map(|held| held.memory),
        "server_threads": turn.holdings.map(|held| held.threads),
        "load_busy": turn.client_busy,
        "load_threads": turn.threads,
        "load_processes": turn.processes,
        "asked_calls_per_second": turn.asked,
        "unanswered_calls": turn.unanswered,
        "seconds": turn.seconds,
        "cut_short": turn.is_cut_short,
        "parts": turn.parts.iter().map(part).collect::<Vec<_>>(),
    });
    put_latencies(&mut value, &turn.latency_us);
    value
}

fn part(part: &Part) -> Value {
    let mut value = json!({ "part": part.name, "calls_per_second": part.rate });
    put_latencies(&mut value, &part.latency_us);
    value
}

fn put_latencies(value: &mut Value, latency_us: &[f64]) {
    for ((name, _), us) in QUANTILES.iter().zip(latency_us) {
        value[format!("{name}_us")] = (*us).into();
    }
}

fn idle(idle: &Idle) -> Value {
    json!({
        "server_memory_kib_before": idle.before,
        "server_memory_kib": idle.with,
        "server_memory_kib_per_connection": idle.kib_each(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::{findings, targets};
    use super::*;

    #[test]
    fn a_percentage_is_of_the_target_s_own_rate() {
        let targets = targets();
        let findings = findings(&targets);
        let closed = findings.cases[0].load_spec;
        let rate_for = |when, target| findings.rate_for(&LoadSpec { when, ..closed }, target);
        assert_eq!(rate_for(When::Answered, 0), Ok(None));
        assert_eq!(rate_for(When::Rate(7), 0), Ok(Some(7)));
        assert_eq!(rate_for(When::Percent(50), 0), Ok(Some(50_000)));
        assert_eq!(rate_for(When::Percent(10), 1), Ok(Some(25_000)), "of the turn that was good");
        assert!(rate_for(When::Percent(50), 2).unwrap_err().contains("getpid 1 x 1"));
    }
}
