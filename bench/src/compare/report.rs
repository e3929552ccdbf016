//! What a comparison has found: a table in Markdown for people, JSON for programs.

use serde_json::{Value, json};

use super::target::Target;
use super::turns::{Case, Spread, Turn};

/// The head of the table.
pub fn head(targets: &[Target]) -> String {
    let base = &targets[0].name;
    format!(
        "| call | connections x in flight | server | calls/s | CPU us/call | switches/call | p50 us \
         | p99 us | load busy | calls/s to {base} | CPU to {base} | p50 to {base} |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
}

/// The lines of one load: one for each target.
pub fn lines(targets: &[Target], case: &Case) -> String {
    let plan = case.plan;
    let mut lines = String::new();
    for (index, target) in targets.iter().enumerate() {
        let number = |digits, number: fn(&Turn) -> Option<f64>| {
            case.median(index, number).map_or("-".into(), |n| format!("{n:.digits$}"))
        };
        let ratio = |number: fn(&Turn) -> Option<f64>| match case.ratio(index, number) {
            Some(ratio) if index > 0 => spread(ratio),
            _ => "-".into(),
        };
        lines += &format!(
            "| {} | {} x {} | {} | {} | {} | {} | {} | {} | {} % | {} | {} | {} |\n",
            plan.call,
            plan.connections,
            plan.in_flight,
            target.name,
            number(0, |turn| Some(turn.rate)),
            number(2, |turn| turn.cpu_us),
            number(2, |turn| turn.switches),
            number(1, |turn| Some(turn.p50_us)),
            number(1, |turn| Some(turn.p99_us)),
            number(0, |turn| Some(turn.client_busy * 100.0)),
            ratio(|turn| Some(turn.rate)),
            ratio(|turn| turn.cpu_us),
            ratio(|turn| Some(turn.p50_us)),
        );
    }
    lines
}

fn spread(ratio: Spread) -> String {
    let Spread { median, min, max } = ratio;
    format!("**{median:.2}** ({min:.2}..{max:.2})")
}

/// All of it.
pub fn json(targets: &[Target], settings: &Value, cases: &[Case]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|target| json!({ "name": target.name, "command": target.command() }))
        .collect();
    let cases: Vec<Value> = cases.iter().map(one).collect();
    json!({ "targets": targets, "settings": settings, "cases": cases })
}

fn one(case: &Case) -> Value {
    let rounds: Vec<Vec<Value>> =
        case.rounds.iter().map(|round| round.iter().map(turn).collect()).collect();
    json!({
        "call": case.plan.call.to_string(),
        "connections": case.plan.connections,
        "in_flight": case.plan.in_flight,
        "rounds": rounds,
    })
}

fn turn(turn: &Result<Turn, String>) -> Value {
    match turn {
        Err(error) => json!({ "error": error }),
        Ok(turn) => json!({
            "calls_per_second": turn.rate,
            "server_cpu_us_per_call": turn.cpu_us,
            "server_context_switches_per_call": turn.switches,
            "p50_us": turn.p50_us,
            "p99_us": turn.p99_us,
            "load_busy": turn.client_busy,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Plan;
    use crate::workload::Call;

    #[test]
    fn a_line_for_each_target_and_a_column_for_each_head() {
        let targets: Vec<Target> = vec!["a=x {url}".parse().unwrap(), "b=y {url}".parse().unwrap()];
        let turn = |rate| {
            let (cpu_us, switches) = (Some(2.0), Some(1.0));
            Ok(Turn { rate, cpu_us, switches, p50_us: 1.0, p99_us: 2.0, client_busy: 0.5 })
        };
        let plan = Plan { call: Call::Getpid, connections: 64, in_flight: 1 };
        let rounds = vec![vec![turn(10.0), turn(25.0)], vec![turn(10.0), Err("gone".into())]];
        let case = Case { plan, rounds };
        let lines = lines(&targets, &case);
        assert!(lines.contains("**2.50** (2.50..2.50)"), "{lines}");
        let columns = |line: &str| line.matches('|').count();
        let heads = head(&targets);
        let all: Vec<&str> = heads.lines().chain(lines.lines()).collect();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|line| columns(line) == columns(all[0])), "{all:?}");
        let json = json(&targets, &json!({}), &[case]);
        assert_eq!(json["cases"][0]["rounds"][0][1]["calls_per_second"], 25.0);
        assert_eq!(json["cases"][0]["rounds"][1][1]["error"], "gone");
    }
}
