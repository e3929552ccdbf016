//! The results of a soak, for readers and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::canary::BOUND;
use super::parts::{Cast, Done};
use super::run::{Wrong, Wrongs};
use super::sample::Sample;
use super::verdict::{Finding, RULES};
use crate::histogram::us;

/// The most lines of samples in a report for people.
const MOST_LINES: usize = 40;

pub struct Found {
    pub name: String,
    pub command: String,
    /// A description of the machine, if the user gave one.
    pub about: Option<String>,
    pub seed: u64,
    pub seconds: f64,
    pub cast: Cast,
    pub tcp: bool,
    /// The samples from before the first client and from after the last.
    pub before: Sample,
    pub after: Option<Sample>,
    pub findings: Vec<Finding>,
    /// The way the server ended when it was told to.
    pub end: Option<String>,
    pub wrongs: Wrongs,
    pub is_cut_short: bool,
    pub done: Done,
}

/// Returns a sample as a line of text.
pub fn line(sample: &Sample) -> String {
    let Sample { at, resident, anonymous, descriptors, threads, lwps, cpu, counted } = sample;
    let mut line = format!(
        "{at:.0} s: {resident} KiB resident, {anonymous} anonymous, {descriptors} descriptors, \
         {threads} threads, {cpu:.1} s of CPU time"
    );
    if let Some(lwps) = lwps {
        let _ = write!(line, ", {lwps} lwps");
    }
    if let Some(counted) = counted {
        let _ = write!(line, ", {} connections, {} calls", counted.connections, counted.calls);
    }
    line
}

impl Found {
    fn bad(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_good == Some(false))
    }

    pub fn has_passed(&self) -> bool {
        self.wrongs.count == 0 && !self.is_cut_short && self.bad().next().is_none()
    }

    /// Returns the verdict as a line of text.
    pub fn verdict(&self) -> String {
        let bad: Vec<&str> = self.bad().map(|finding| finding.what).collect();
        let mut verdict = match (self.wrongs.count, bad.is_empty()) {
            (0, true) if self.is_cut_short => "cut short by a signal".into(),
            (0, true) => format!("passed, {:.0} s", self.seconds),
            (0, false) => format!("failed: too much of {}", bad.join(", ")),
            (wrongs, true) => format!("failed: {wrongs} wrongs"),
            (wrongs, false) => format!("failed: {wrongs} wrongs, too much of {}", bad.join(", ")),
        };
        if self.findings.iter().any(|finding| finding.is_good.is_none()) {
            verdict += " (too short to say whether it is flat)";
        }
        verdict
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# Soak of {}: {}\n\n", self.name, self.verdict());
        text += &self.how();
        text += &self.wrongs();
        text += &self.rules();
        text += &self.load();
        text += &self.counts();
        text + &self.samples()
    }

    fn how(&self) -> String {
        let Cast { plan, rate, hostile, attacks, churn, victims } = &self.cast;
        let mut text = format!(
            "`{}` over {}, {:.0} s, seed {}. At once: {} connections with {rate} calls/s of `{}`, a \
             canary every second, {churn} clients that come and go, {victims} clients to be killed and {hostile} \
             hostile ones at a time{}.\n\n",
            self.command,
            if self.tcp { "tcp" } else { "a unix socket" },
            self.seconds,
            self.seed,
            plan.connections,
            plan.call,
            if attacks.is_empty() { String::new() } else { format!(", of \"{attacks}\" only") },
        );
        if let Some(about) = &self.about {
            let _ = write!(text, "```\n{}\n```\n\n", about.trim_end());
        }
        text
    }

    fn wrongs(&self) -> String {
        if self.wrongs.count == 0 {
            return "No answer was wrong, and no client that behaves was refused.\n\n".into();
        }
        let mut text = format!("## What went wrong: {} times\n\n", self.wrongs.count);
        for Wrong { at, part, what } in &self.wrongs.first {
            let _ = writeln!(text, "- {at:.1} s, {part}: {}", what.trim().replace('\n', "\n  "));
        }
        text + "\n"
    }

    fn rules(&self) -> String {
        let mut text = format!("## What was judged\n\n{RULES}\n\n");
        text += "| what | was | is | may be | |\n| --- | ---: | ---: | ---: | --- |\n";
        for Finding { what, was, is, most, is_good } in &self.findings {
            let verdict = match is_good {
                Some(true) => "good",
                Some(false) => "**bad**",
                None => "too few samples",
            };
            let _ = writeln!(text, "| {what} | {was:.0} | {is:.0} | {most:.0} | {verdict} |");
        }
        let end = self.end.as_deref().unwrap_or("it did not end as it was told to");
        text + &format!("\nThe end of the server: {end}.\n\n")
    }

    fn load(&self) -> String {
        let Done { load, canary, clock, .. } = &self.done;
        let mut text = String::from(
            "## Latencies\n\n| | times | p50 us | p99 us | p99.9 us | max us |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        let rows = [
            ("load, from when a call was due", &load.latencies),
            ("rounds of the canary", &canary.latencies),
            ("a thread that only sleeps, how late it woke", clock),
        ];
        for (name, latencies) in rows {
            let at = |quantile| us(latencies, quantile);
            let _ = writeln!(
                text,
                "| {name} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
                latencies.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
        text + &format!(
            "\n{:.0} calls/s of the load were answered, {} calls not by its end. Of the canary's rounds \
             {} were refused, {} took longer than {} s.\n\n",
            load.rate(),
            load.unanswered,
            canary.refused,
            canary.late,
            BOUND.as_secs()
        )
    }

    fn counts(&self) -> String {
        let mut text =
            String::from("## What was done\n\n| by | what | times |\n| --- | --- | ---: |\n");
        for (part, counts) in &self.done.counts {
            for (what, times) in counts {
                let _ = writeln!(text, "| {part} | {what} | {times} |");
            }
        }
        text + "\n"
    }

    /// Returns some of the samples, evenly spread, with the first and the last.
    fn samples(&self) -> String {
        let samples = &self.done.samples;
        let step = samples.len().div_ceil(MOST_LINES).max(1);
        let few = samples.iter().step_by(step);
        let last = samples.last().filter(|_| !(samples.len().max(1) - 1).is_multiple_of(step));
        let mut text = String::from(
            "## What the server held\n\n| s | resident KiB | anonymous KiB | descriptors | threads | lwps | \
             CPU s | connections | calls | in flight | preforks | hang-ups |\n",
        );
        text += &format!("|{}\n", " ---: |".repeat(12));
        text += &row("before", &self.before);
        for sample in few.chain(last) {
            text += &row(&format!("{:.0}", sample.at), sample);
        }
        if let Some(after) = &self.after {
            text += &row("after", after);
        }
        text
    }

    /// Returns all numbers as JSON.
    pub fn json(&self) -> Value {
        let Cast { plan, rate, hostile, attacks, churn, victims } = &self.cast;
        let Done { samples, load, canary, clock, counts } = &self.done;
        let latencies = |of| {
            json!({ "count": hdrhistogram::Histogram::len(of), "p50_us": us(of, 0.5),
                "p99_us": us(of, 0.99), "p99.9_us": us(of, 0.999), "max_us": us(of, 1.0) })
        };
        let finding = |finding: &Finding| {
            let Finding { what, was, is, most, is_good } = finding;
            json!({ "what": what, "was": was, "is": is, "most": most, "good": is_good })
        };
        let wrong =
            |Wrong { at, part, what }: &Wrong| json!({ "seconds": at, "part": part, "what": what });
        json!({
            "name": self.name,
            "command": self.command,
            "transport": if self.tcp { "tcp" } else { "unix" },
            "passed": self.has_passed(),
            "verdict": self.verdict(),
            "seed": self.seed,
            "seconds": self.seconds,
            "connections": plan.connections,
            "asked_calls_per_second": rate,
            "hostile": hostile,
            "attacks": attacks,
            "churn": churn,
            "victims": victims,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "end": self.end,
            "wrongs": self.wrongs.count,
            "first_wrongs": self.wrongs.first.iter().map(wrong).collect::<Vec<_>>(),
            "load": latencies(&load.latencies),
            "load_calls_per_second": load.rate(),
            "load_unanswered": load.unanswered,
            "canary": latencies(&canary.latencies),
            "clock": latencies(clock),
            "canary_refused": canary.refused,
            "canary_late": canary.late,
            "counts": counts.iter().map(|(part, counts)| (*part, json!(counts)))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "before": self.before.json(),
            "after": self.after.as_ref().map(Sample::json),
            "samples": samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

fn row(when: &str, sample: &Sample) -> String {
    let Sample { resident, anonymous, descriptors, threads, lwps, cpu, counted, .. } = sample;
    let lwps = lwps.map_or(String::new(), |lwps| lwps.to_string());
    let counted = counted.map_or(" | | | | |".into(), |counted| {
        format!(
            " {} | {} | {} | {} | {} |",
            counted.connections,
            counted.calls,
            counted.in_flight,
            counted.preforks,
            counted.hang_ups
        )
    });
    format!(
        "| {when} | {resident} | {anonymous} | {descriptors} | {threads} | {lwps} | {cpu:.1} |{counted}\n"
    )
}
