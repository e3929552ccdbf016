//! All that a comparison has found.

use serde_json::{Value, json};

use super::target::Target;
use super::turns::{Case, IdleCase, Rounds, Taken, Turn};
use crate::histogram::QUANTILES;
use crate::idle::Idle;

pub struct Findings<'a> {
    /// How it was measured, in words.
    pub how: String,
    /// On what, as far as somebody has said.
    pub about: Option<String>,
    pub targets: &'a [Target],
    /// The targets that others are compared to.
    pub bases: Vec<usize>,
    pub settings: Value,
    pub cases: Vec<Case>,
    pub idle: Vec<IdleCase>,
    /// That not all turns were taken, if so, in words.
    pub cut_short: Option<String>,
}

impl Findings<'_> {
    /// All numbers of all turns.
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
        "call": case.plan.call.to_string(),
        "connections": case.plan.connections,
        "in_flight": case.plan.in_flight,
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
    });
    for ((name, _), us) in QUANTILES.iter().zip(turn.latency_us) {
        value[format!("{name}_us")] = us.into();
    }
    value
}

fn idle(idle: &Idle) -> Value {
    json!({
        "server_memory_kib_before": idle.before,
        "server_memory_kib": idle.with,
        "server_memory_kib_per_connection": idle.kib_each(),
    })
}
