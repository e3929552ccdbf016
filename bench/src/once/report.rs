//! The results of one load: lines for readers, JSON for programs.

use hdrhistogram::Histogram;
use rumpsp::url::Url;
use serde_json::{Value, json};

use crate::histogram::{QUANTILES, in_words, us};
use crate::load::Plan;
use crate::measure::{Holdings, Measurement};

/// The load that was asked for.
pub struct Asked<'a> {
    pub url: &'a Url,
    pub plan: Plan,
    /// Calls a second.
    pub rate: Option<u64>,
}

/// Returns the results as lines of text.
pub fn text(asked: &Asked<'_>, result: &Measurement) -> String {
    let Plan { call, connections, in_flight } = asked.plan;
    let load = &result.load;
    let mut lines = vec![format!(
        "{call} {connections} connections {in_flight} in flight: {:.0} calls/s{}",
        load.rate(),
        asked.rate.map_or(String::new(), |rate| format!(", {rate} asked")),
    )];
    lines.push(in_words(&load.latencies));
    for (name, part) in call.parts().iter().zip(&load.parts) {
        let rate = load.rate_of(part);
        lines.push(format!("{name}: {rate:.0} calls/s; {}", in_words(&part.latencies)));
    }
    if asked.rate.is_some() || load.unanswered > 0 {
        lines.push(format!("unanswered {}", load.unanswered));
    }
    if let (Some(cpu), Some(switches)) = (result.cpu_us(), result.switches()) {
        lines.push(format!("server: {cpu:.2} us of CPU and {switches:.3} context switches a call"));
    }
    if let Some(Holdings { memory_before, memory, threads }) = result.holdings {
        lines.push(format!(
            "server: {memory_before} KiB of user memory before, {memory} KiB with the load, \
             {threads} threads"
        ));
    }
    lines.push(format!(
        "client: {}{}, busy {:.0} % of one CPU, {:.2} us of CPU a call",
        count(result.threads, "thread", "threads"),
        match result.processes {
            1 => String::new(),
            processes => format!(" in {processes} processes"),
        },
        load.client_busy * 100.0,
        load.client_cpu_us(),
    ));
    if load.is_cut_short {
        lines.push(format!("cut short: measured for {:.2} s", load.elapsed.as_secs_f64()));
    }
    lines.join("\n") + "\n"
}

fn count(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Returns the results as one JSON object.
pub fn json(asked: &Asked<'_>, result: &Measurement) -> Value {
    let Plan { call, connections, in_flight } = asked.plan;
    let load = &result.load;
    let parts: Vec<Value> = call
        .parts()
        .iter()
        .zip(&load.parts)
        .map(|(name, part)| {
            json!({
                "part": name,
                "calls": part.calls,
                "calls_per_second": load.rate_of(part),
                "latency_us": json_latencies(&part.latencies),
            })
        })
        .collect();
    json!({
        "url": asked.url.to_string(),
        "call": call.to_string(),
        "connections": connections,
        "in_flight": in_flight,
        "threads": result.threads,
        "processes": result.processes,
        "asked_calls_per_second": asked.rate,
        "seconds": load.elapsed.as_secs_f64(),
        "cut_short": load.is_cut_short,
        "calls": load.calls,
        "calls_per_second": load.rate(),
        "unanswered_calls": load.unanswered,
        "latency_us": json_latencies(&load.latencies),
        "parts": parts,
        "server_cpu_us_per_call": result.cpu_us(),
        "server_context_switches_per_call": result.switches(),
        "server_memory_kib_before": result.holdings.map(|held| held.memory_before),
        "server_memory_kib": result.holdings.map(|held| held.memory),
        "server_threads": result.holdings.map(|held| held.threads),
        "client_busy": load.client_busy,
        "client_cpu_us_per_call": load.client_cpu_us(),
    })
}

fn json_latencies(histogram: &Histogram<u64>) -> Value {
    let each = QUANTILES.map(|(name, quantile)| (name.to_string(), json!(us(histogram, quantile))));
    Value::Object(each.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Measured;
    use std::time::Duration;

    fn result(parts: usize) -> Measurement {
        let mut load = Measured::nothing(parts).unwrap();
        load.elapsed = Duration::from_secs(2);
        load.calls = 100;
        load.unanswered = 3;
        load.is_cut_short = true;
        load.client_cpu = Duration::from_micros(200);
        load.latencies.record_n(1000, 103).unwrap();
        for part in &mut load.parts {
            part.calls = 50;
            part.latencies.record_n(2000, 50).unwrap();
        }
        let holdings = Some(Holdings { memory_before: 100, memory: 200, threads: 5 });
        Measurement { load, cpu_usage: None, holdings, enters: None, threads: 3, processes: 2 }
    }

    fn asked<'a>(url: &'a Url, call: &str, rate: Option<u64>) -> Asked<'a> {
        let plan = Plan { call: call.parse().unwrap(), connections: 4, in_flight: 1 };
        Asked { url, plan, rate }
    }

    #[test]
    fn lines_say_all_there_is_and_no_more() {
        let url = "unix:///s".parse().unwrap();
        let mixed = "mixed:getpid=1+read:4k=1";
        let lines = text(&asked(&url, mixed, Some(60)), &result(2));
        for line in [
            "mixed:getpid=1+read:4k=1 4 connections 1 in flight: 50 calls/s, 60 asked\n",
            "latency us: p50 1.0 p90 1.0 p99 1.0 p99.9 1.0 p99.99 1.0 max 1.0\n",
            "getpid: 25 calls/s; latency us: p50 2.0",
            "read:4k: 25 calls/s; latency us: p50 2.0",
            "unanswered 3\n",
            "server: 100 KiB of user memory before, 200 KiB with the load, 5 threads\n",
            "client: 3 threads in 2 processes, busy 0 % of one CPU, 2.00 us of CPU a call\n",
            "cut short: measured for 2.00 s\n",
        ] {
            assert!(lines.contains(line), "no {line:?} in {lines}");
        }
        let mut result = result(0);
        result.load.unanswered = 0;
        let lines = text(&asked(&url, "getpid", None), &result);
        assert!(!lines.contains("unanswered") && !lines.contains("asked"), "{lines}");
    }

    #[test]
    fn json_has_the_same() {
        let url = "unix:///s".parse().unwrap();
        let json = json(&asked(&url, "mixed:getpid=1+read:4k=1", Some(60)), &result(2));
        assert_eq!(
            (&json["calls_per_second"], &json["asked_calls_per_second"]),
            (&json!(50.0), &json!(60))
        );
        assert_eq!(json["parts"][1]["part"], "read:4k");
        assert_eq!((&json["unanswered_calls"], &json["cut_short"]), (&json!(3), &json!(true)));
        assert_eq!((&json["server_memory_kib"], &json["server_threads"]), (&json!(200), &json!(5)));
        assert!(json["latency_us"]["p99.9"].as_f64().unwrap() > 0.9);
    }
}
