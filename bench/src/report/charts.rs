//! The charts of a report: throughput and CPU time over connections, and latencies of each load.

use super::plot::{self, Axis, Chart, Line, Point};
use crate::compare::{Case, Findings, Turn, When};
use crate::histogram::QUANTILES;
use crate::workload::Call;

/// Charts that belong together, each with its title.
pub struct Section {
    pub title: &'static str,
    pub words: &'static str,
    pub charts: Vec<(String, String)>,
}

/// Returns all sections that have a chart.
pub fn sections(findings: &Findings<'_>) -> Result<Vec<Section>, plot::Error> {
    let mut sections = vec![
        Section {
            title: "Throughput",
            words: "Calls a second, over the number of connections. The thin lines go from the least \
                    to the greatest of the turns.",
            charts: over_connections(findings, "calls/s", |turn| Some(turn.rate))?,
        },
        Section {
            title: "CPU time",
            words: "Microseconds of the server's CPU time for a call, over the number of \
                    connections.",
            charts: over_connections(findings, "us/call", |turn| turn.cpu_us)?,
        },
        Section {
            title: "Latencies",
            words: "Microseconds that this part of the calls stayed below, both axes logarithmic. At a \
                    rate they count from when a call was due.",
            charts: latencies(findings)?,
        },
    ];
    sections.retain(|section| !section.charts.is_empty());
    Ok(sections)
}

/// Returns a chart for each call, and number of calls in flight, that was measured with several numbers
/// of connections.
fn over_connections(
    findings: &Findings<'_>,
    unit: &str,
    number: fn(&Turn) -> Option<f64>,
) -> Result<Vec<(String, String)>, plot::Error> {
    let mut charts = Vec::new();
    for (call, in_flight) in kinds(&findings.cases) {
        let of_this = |case: &&Case| kind(case) == Some((call, in_flight));
        let mut cases: Vec<&Case> = findings.cases.iter().filter(of_this).collect();
        cases.sort_by_key(|case| case.load_spec.plan.connections);
        cases.dedup_by_key(|case| case.load_spec.plan.connections);
        let lines = lines(findings, |target| {
            let point = |case: &&Case| {
                let spread = case.rounds.spread(target, number)?;
                Some(Point { x: f64::from(case.load_spec.plan.connections).ln(), spread })
            };
            cases.iter().filter_map(point).collect()
        });
        let ticks = cases.iter().map(|case| case.load_spec.plan.connections);
        let ticks: Vec<_> = ticks.map(|n| (f64::from(n).ln(), n.to_string())).collect();
        if ticks.len() < 2 || lines.iter().all(|line| line.points.is_empty()) {
            continue;
        }
        let title = format!("{call}, {in_flight} in flight on each connection");
        let chart = Chart { ticks, x: "connections", y: unit, axis: Axis::FromZero, lines };
        charts.push((title, chart.svg()?));
    }
    Ok(charts)
}

/// Returns the calls and their numbers in flight, each pair once.
fn kinds(cases: &[Case]) -> Vec<(Call, u32)> {
    let mut kinds = Vec::new();
    for kind in cases.iter().filter_map(kind) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Returns the call of a case and the number in flight, or `None` if each server was called at its own
/// rate.
fn kind(case: &Case) -> Option<(Call, u32)> {
    let is_own = matches!(case.load_spec.when, When::Percent(_));
    (!is_own).then_some((case.load_spec.plan.call, case.load_spec.plan.in_flight))
}

/// Returns a chart for each load.
fn latencies(findings: &Findings<'_>) -> Result<Vec<(String, String)>, plot::Error> {
    // The last quantile is the maximum, which no number of nines reaches.
    let nines: Vec<_> = QUANTILES[..QUANTILES.len() - 1]
        .iter()
        .map(|&(name, quantile)| (-(1.0 - quantile).log10(), name.to_string()))
        .collect();
    let mut charts = Vec::new();
    for case in &findings.cases {
        let lines = lines(findings, |target| {
            let point = |(index, (x, _)): (usize, &(f64, String))| {
                let spread =
                    case.rounds.spread(target, |turn| Some(turn.latency_us[index].max(0.001)))?;
                Some(Point { x: *x, spread })
            };
            nines.iter().enumerate().filter_map(point).collect()
        });
        if lines.iter().all(|line| line.points.is_empty()) {
            continue;
        }
        let title = format!("{}, {}", case.load_spec.plan.call, case.load_spec.with());
        let (ticks, axis) = (nines.clone(), Axis::Logarithmic);
        charts.push((title, Chart { ticks, x: "part of the calls", y: "us", axis, lines }.svg()?));
    }
    Ok(charts)
}

/// Returns a line for each target.
fn lines(findings: &Findings<'_>, points: impl Fn(usize) -> Vec<Point>) -> Vec<Line> {
    (0..findings.targets.len())
        .map(|target| Line { color: target, points: points(target) })
        .collect()
}
