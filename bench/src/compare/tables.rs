//! The results of a comparison in tables, written in Markdown, and in HTML by the report.

use super::findings::Findings;
use super::load_spec::When;
use super::rounds::{Case, IdleCase, MAX, P50, P99, P99_9, P99_99, Part, Rounds, Spread, Turn};
use super::target::Target;
use crate::workload::{Call, fair};

/// A table. Columns of numbers are aligned to the right.
pub struct Table {
    /// The title; empty if the table needs none.
    pub title: String,
    pub head: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

/// The head of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Words(&'static str),
    Numbers(&'static str),
}

use Column::{Numbers, Words};

impl Column {
    pub fn name(self) -> &'static str {
        let (Words(name) | Numbers(name)) = self;
        name
    }
}

/// The columns of the table of measurements.
const MEASURED: [Column; 14] = [
    Words("call"),
    Words("connections x in flight"),
    Words("server"),
    Numbers("calls/s"),
    Numbers("CPU us/call"),
    Numbers("switches/call"),
    Numbers("enters/call"),
    Numbers("p50 us"),
    Numbers("p99 us"),
    Numbers("p99.99 us"),
    Numbers("MiB before"),
    Numbers("MiB loaded"),
    Numbers("threads"),
    Numbers("load busy %"),
];

const OPEN: [Column; 10] = [
    Words("call"),
    Words("connections x in flight"),
    Words("server"),
    Numbers("calls/s asked"),
    Numbers("calls/s"),
    Numbers("p50 us"),
    Numbers("p99 us"),
    Numbers("p99.9 us"),
    Numbers("max us"),
    Numbers("unanswered"),
];

const FAIR: [Column; 10] = [
    Words("call"),
    Words("connections x in flight"),
    Words("server"),
    Numbers("busy calls/s"),
    Numbers("busy p50 us"),
    Numbers("busy p99 us"),
    Numbers("slow p50 us"),
    Numbers("slow p99 us"),
    Numbers("slow unanswered"),
    Numbers("slow p99 / busy p50"),
];

const RATIOS: [Column; 7] = [
    Words("call"),
    Words("connections x in flight"),
    Words("server"),
    Numbers("calls/s"),
    Numbers("CPU"),
    Numbers("p50"),
    Numbers("p99"),
];

const IDLE: [Column; 5] = [
    Numbers("connections"),
    Words("server"),
    Numbers("MiB before"),
    Numbers("MiB with them"),
    Numbers("KiB a connection"),
];

impl Table {
    fn new(title: String, head: &[Column]) -> Table {
        Table { title, head: head.to_vec(), rows: Vec::new() }
    }

    /// Returns the table of measurements, without any row.
    pub fn measured() -> Table {
        Table::new(String::new(), &MEASURED)
    }

    /// Returns the whole table in Markdown.
    pub fn markdown(&self) -> String {
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rows}", self.markdown_head())
    }

    /// Returns the title and the head in Markdown.
    pub fn markdown_head(&self) -> String {
        let title = match self.title.as_str() {
            "" => String::new(),
            title => format!("{title}:\n\n"),
        };
        let names: Vec<_> = self.head.iter().map(|column| column.name()).collect();
        let rules = self.head.iter().map(|column| match column {
            Words(_) => "---",
            Numbers(_) => "---:",
        });
        title + &line(&names) + &line(&rules.collect::<Vec<_>>())
    }
}

/// Returns a row in Markdown.
pub fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Returns all tables, in the order for readers.
pub fn all(findings: &Findings<'_>) -> Vec<Table> {
    let mut measured = Table::measured();
    measured.rows = findings.cases.iter().flat_map(|case| lines(findings.targets, case)).collect();
    let mut tables = vec![measured];
    tables.extend(others(findings));
    tables
}

/// Returns all tables but that of the measurements: a table of ratios for each base, one of open loops,
/// one of fairness, and idle memory.
pub fn others(findings: &Findings<'_>) -> Vec<Table> {
    let mut tables: Vec<Table> =
        findings.bases.iter().map(|&base| ratios(findings, base)).collect();
    tables.extend([open(findings), fair(findings)]);
    if !findings.idle.is_empty() {
        let title = "User memory of the server's process for idle connections";
        let mut table = Table::new(title.into(), &IDLE);
        let idle = findings.idle.iter();
        table.rows = idle.flat_map(|case| idle_lines(findings.targets, case)).collect();
        tables.push(table);
    }
    tables.retain(|table| !table.rows.is_empty());
    tables
}

/// Returns the measurements under one load: a row for each target.
pub fn lines(targets: &[Target], case: &Case) -> Vec<Vec<String>> {
    let one = |(index, target): (usize, &Target)| {
        let number =
            |digits, number: fn(&Turn) -> Option<f64>| median(&case.rounds, index, digits, number);
        let held = |turn: &Turn| turn.holdings;
        let mut row = names(case, target);
        row.extend([
            number(0, |turn| Some(turn.rate)),
            number(2, |turn| turn.cpu_us),
            number(2, |turn| turn.switches),
            number(3, |turn| turn.enters),
            number(1, |turn| Some(turn.p50_us())),
            number(1, |turn| Some(turn.p99_us())),
            number(1, |turn| Some(turn.latency_us[P99_99])),
            median(&case.rounds, index, 1, |turn| Some(mib(held(turn)?.memory_before))),
            median(&case.rounds, index, 1, |turn| Some(mib(held(turn)?.memory))),
            median(&case.rounds, index, 0, |turn| Some(held(turn)?.threads as f64)),
            number(0, |turn| Some(turn.client_busy * 100.0)),
        ]);
        row
    };
    those_of(targets, &case.rounds).map(one).collect()
}

/// Returns the targets that took part.
fn those_of<'a, T>(
    targets: &'a [Target],
    rounds: &'a Rounds<T>,
) -> impl Iterator<Item = (usize, &'a Target)> {
    targets.iter().enumerate().filter(|(index, _)| rounds.has(*index))
}

fn names(case: &Case, target: &Target) -> Vec<String> {
    vec![case.load_spec.plan.call.to_string(), case.load_spec.with(), target.name.clone()]
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn median<T>(
    rounds: &Rounds<T>,
    target: usize,
    digits: usize,
    number: impl Fn(&T) -> Option<f64>,
) -> String {
    let spread = rounds.spread(target, number);
    spread.map_or("-".into(), |Spread { median, .. }| format!("{median:.digits$}"))
}

fn ratios(findings: &Findings<'_>, base: usize) -> Table {
    let title = format!("Ratios to {}", findings.targets[base].name);
    let mut table = Table::new(title, &RATIOS);
    // In loads at a percentage, each target has a rate of its own, so ratios mean nothing.
    let has_ratios =
        |case: &&Case| !matches!(case.load_spec.when, When::Percent(_)) && case.rounds.has(base);
    for case in findings.cases.iter().filter(has_ratios) {
        let others = those_of(findings.targets, &case.rounds).filter(|(index, _)| *index != base);
        for (index, target) in others {
            let ratio = |number: fn(&Turn) -> Option<f64>| {
                case.rounds.ratio(index, base, number).map_or("-".into(), spread)
            };
            let mut row = names(case, target);
            row.extend([
                ratio(|turn| Some(turn.rate)),
                ratio(|turn| turn.cpu_us),
                ratio(|turn| Some(turn.p50_us())),
                ratio(|turn| Some(turn.p99_us())),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn open(findings: &Findings<'_>) -> Table {
    let title = "Latency at a fixed rate: an open loop, where it counts from when a call was due. N % are \
                 of the calls/s of the same server in a closed loop";
    let mut table = Table::new(title.into(), &OPEN);
    for case in findings.cases.iter().filter(|case| case.load_spec.is_open()) {
        for (index, target) in those_of(findings.targets, &case.rounds) {
            let number = |digits, number: fn(&Turn) -> f64| {
                median(&case.rounds, index, digits, |turn| Some(number(turn)))
            };
            let mut row = names(case, target);
            row.extend([
                median(&case.rounds, index, 0, |turn| Some(turn.asked? as f64)),
                number(0, |turn| turn.rate),
                number(1, Turn::p50_us),
                number(1, Turn::p99_us),
                number(1, |turn| turn.latency_us[P99_9]),
                number(1, |turn| turn.latency_us[MAX]),
                number(0, |turn| turn.unanswered as f64),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn fair(findings: &Findings<'_>) -> Table {
    let title = format!(
        "Fairness: one connection calls {} times a second, the others as often as they are answered",
        fair::SLOW_RATE
    );
    let mut table = Table::new(title, &FAIR);
    for case in findings.cases.iter().filter(|case| case.load_spec.plan.call == Call::Fair) {
        for (index, target) in those_of(findings.targets, &case.rounds) {
            let number = |digits, part, number: fn(&Part) -> f64| {
                median(&case.rounds, index, digits, |turn: &Turn| turn.parts.get(part).map(number))
            };
            let ratio = case.rounds.spread(index, Turn::unfairness);
            let mut row = names(case, target);
            row.extend([
                number(0, fair::BUSY, |part| part.rate),
                number(1, fair::BUSY, |part| part.latency_us[P50]),
                number(1, fair::BUSY, |part| part.latency_us[P99]),
                number(1, fair::SLOW, |part| part.latency_us[P50]),
                number(1, fair::SLOW, |part| part.latency_us[P99]),
                median(&case.rounds, index, 0, |turn| Some(turn.unanswered as f64)),
                ratio.map_or("-".into(), spread),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn spread(ratio: Spread) -> String {
    let Spread { median, min, max } = ratio;
    format!("**{median:.2}** ({min:.2}..{max:.2})")
}

fn idle_lines(targets: &[Target], case: &IdleCase) -> Vec<Vec<String>> {
    let one = |(index, target): (usize, &Target)| {
        vec![
            case.connections.to_string(),
            target.name.clone(),
            median(&case.rounds, index, 1, |idle| Some(mib(idle.before))),
            median(&case.rounds, index, 1, |idle| Some(mib(idle.with))),
            median(&case.rounds, index, 2, |idle| Some(idle.kib_each())),
        ]
    };
    those_of(targets, &case.rounds).map(one).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::compare::load_spec::LoadSpec;
    use crate::compare::rounds::tests::turn;
    use crate::idle::Idle;
    use crate::load::Plan;

    pub fn targets() -> Vec<Target> {
        vec!["a=x {url}".parse().unwrap(), "b=y {url}".parse().unwrap()]
    }

    /// Returns the results of two loads on two targets in two rounds, one of which failed.
    pub fn findings(targets: &[Target]) -> Findings<'_> {
        let case = |connections| Case {
            load_spec: LoadSpec {
                plan: Plan { call: Call::Getpid, connections, in_flight: 1 },
                when: When::Answered,
            },
            rounds: Rounds(vec![
                vec![Some(Ok(turn(1e5))), Some(Ok(turn(2.5e5)))],
                vec![Some(Ok(turn(1e5))), Some(Err("gone".into()))],
            ]),
        };
        let idle = |with| Some(Ok(Idle { before: 1024, with, connections: 100 }));
        let idle = Rounds(vec![vec![idle(1524), idle(1224)]]);
        Findings {
            how: "by <hand>".into(),
            about: Some("a machine & more".into()),
            targets,
            bases: vec![0, 1],
            settings: serde_json::json!({}),
            cases: vec![case(1), case(64)],
            idle: vec![IdleCase { connections: 100, rounds: idle }],
            cut_short: None,
        }
    }

    #[test]
    fn every_line_has_a_cell_for_each_column() {
        let targets = targets();
        let tables = all(&findings(&targets));
        let rows: Vec<_> = tables.iter().map(|table| table.rows.len()).collect();
        assert_eq!(rows, [4, 2, 2, 2]);
        for table in &tables {
            assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{}", table.title);
            let markdown = table.markdown();
            let lines: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
            assert_eq!(lines.len(), table.rows.len() + 2);
            let columns = |line: &&str| line.matches('|').count();
            assert!(lines.iter().all(|line| columns(line) == columns(&lines[0])), "{markdown}");
        }
    }

    #[test]
    fn each_base_has_its_ratios() {
        let targets = targets();
        let tables = others(&findings(&targets));
        assert_eq!(tables[0].title, "Ratios to a");
        assert_eq!(tables[0].rows[0][2..4], ["b", "**2.50** (2.50..2.50)"]);
        assert_eq!(tables[1].title, "Ratios to b");
        assert_eq!(tables[1].rows[0][2..4], ["a", "**0.40** (0.40..0.40)"]);
        assert_eq!(tables[2].rows[1], ["100", "b", "1.0", "1.2", "2.00"]);
    }

    #[test]
    fn who_takes_no_part_has_no_line() {
        let targets = targets();
        let mut findings = findings(&targets);
        findings.cases[0].rounds.0.iter_mut().for_each(|round| round[0] = None);
        let tables = all(&findings);
        let rows: Vec<_> = tables.iter().map(|table| table.rows.len()).collect();
        assert_eq!(rows, [3, 1, 1, 2]);
        assert_eq!(findings.json()["cases"][0]["rounds"][0][0], serde_json::Value::Null);
    }

    #[test]
    fn open_loops_and_fairness_have_tables_of_their_own() {
        let targets = targets();
        let mut findings = findings(&targets);
        findings.cases[0].load_spec.when = When::Percent(50);
        findings.cases[1].load_spec.plan.call = Call::Fair;
        for round in &mut findings.cases[0].rounds.0 {
            for turn in round.iter_mut().flatten().flatten() {
                (turn.asked, turn.unanswered) = (Some(60_000), 9);
            }
        }
        let part = |us: f64| Part { name: "x".into(), rate: 7.0, latency_us: [us; 6] };
        for round in &mut findings.cases[1].rounds.0 {
            for turn in round.iter_mut().flatten().flatten() {
                turn.parts = vec![part(10.0), part(25.0)];
            }
        }
        let tables = others(&findings);
        assert_eq!(tables.len(), 5, "and ratios of the closed loop only");
        assert_eq!((tables[0].rows.len(), &tables[0].rows[0][0]), (1, &"fair".to_string()));
        assert!(tables[2].title.starts_with("Latency at a fixed rate"));
        assert_eq!(tables[2].rows[0][1..6], ["1 x 1 at 50 %", "a", "60000", "100000", "1.0"]);
        assert_eq!(tables[2].rows[0][9], "9");
        assert!(tables[3].title.starts_with("Fairness"));
        let row = ["7", "10.0", "10.0", "25.0", "25.0", "0", "**2.50** (2.50..2.50)"];
        assert_eq!(tables[3].rows[0][3..], row);
        assert!(tables.iter().all(|t| t.rows.iter().all(|row| row.len() == t.head.len())));
    }

    #[test]
    fn json_has_all_turns() {
        let targets = targets();
        let json = findings(&targets).json();
        let turn = &json["cases"][1]["rounds"][0][1];
        assert_eq!(turn["calls_per_second"], 2.5e5);
        assert_eq!(turn["p99.99_us"], 2.0);
        assert_eq!(turn["server_memory_kib"], 4096);
        assert_eq!(json["cases"][0]["rounds"][1][1]["error"], "gone");
        assert_eq!(json["idle"][0]["rounds"][0][0]["server_memory_kib_per_connection"], 5.0);
    }
}
