//! `rumpring-bench compare`: several servers take turns under the same loads, so that what a machine
//! does to one it does to all of them, and ratios mean something where numbers do not.

mod demand;
mod findings;
mod only;
mod progress;
mod runner;
mod running;
mod tables;
mod target;
mod turns;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::files;
use crate::interrupt;
use crate::load::{LoadArgs, Plan};
use crate::once::seconds_from;
use crate::report;
use crate::workload::{self, Case as Wanted};

pub use findings::Findings;
#[cfg(test)]
pub use tables::tests::findings as test_findings;
pub use tables::{Column, Table, all as all_tables};
pub use turns::{Case, Spread, Turn};

use demand::Demand;
pub use demand::When;
use only::Only;
use progress::Progress;
use runner::Runner;
use target::{Target, What};

/// Compare servers, which take turns: A B A B.
///
/// Prints a table in Markdown. Each number is the median of the rounds; each ratio is the median of
/// those of the rounds, with the least and the greatest. CPU time, context switches, user memory and
/// threads are those of the servers that are started here; memory is read before the load connects and
/// at the end of its time. The first SIGINT or SIGTERM ends the comparison with what there is by then.
#[derive(Args)]
pub struct Compare {
    /// A server: NAME=COMMAND, where the command starts one in the foreground on the URL that is put
    /// in place of {url}; NAME+stats=COMMAND, if it prints a line of counters at SIGUSR1 as rumpring
    /// does (others die of it); NAME=URL; or NAME="floor ring" and NAME="floor hop", which are the
    /// floors of this program (see its command floor).
    #[arg(value_name = "NAME=COMMAND", required = true)]
    targets: Vec<Target>,

    /// Whom the others are compared to, with a table for each. The first server if not given.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    ratio_to: Vec<String>,

    /// What to call: getpid, read:SIZE, pwrite:SIZE, copyinstr, pipe, fork, connect, mixed,
    /// mixed:CALL=WEIGHT+... or fair (see the help without a command), each with CONNECTIONS or
    /// CONNECTIONSxIN_FLIGHT of its own if wanted, and with the NAMEs of the servers if not all are to take
    /// part, as in pwrite:64k@16 and getpid@10000=one+other. Floors take part in getpid and fair only.
    ///
    /// With %PERCENT behind it, calls are made at a fixed rate: at so many percent of what the same server
    /// answered in a closed loop, the turns of which have to come before, as in getpid@64,getpid@64%50.
    #[arg(long, value_name = "CALL[@N[xM]][%P][=NAME+...],...", value_delimiter = ',',
        default_value = "getpid", value_parser = wanted)]
    calls: Vec<Only<Wanted>>,

    /// How many connections.
    #[arg(short, long, value_delimiter = ',', default_value = "64",
        value_parser = workload::connections_from)]
    connections: Vec<u32>,

    /// How many calls each keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

    #[command(flatten)]
    load: LoadArgs,

    /// How many turns each server has with each load.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// For how many seconds each turn.
    #[arg(short, long, default_value = "2", value_parser = seconds_from)]
    seconds: Duration,

    /// For how many seconds before that, which do not count.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds_from)]
    warm_up: Duration,

    /// Start each server once and keep it, instead of a new one for each turn.
    #[arg(long)]
    keep: bool,

    /// Measure the memory for so many idle connections, too, on a server of its own each time; of
    /// some servers only as with calls.
    #[arg(long, value_name = "N[=NAME+...],...", value_delimiter = ',', value_parser = idle)]
    idle: Vec<Only<u32>>,

    /// Write all numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write all latencies of each turn to this folder: an HdrHistogram log, and with .hgrm behind its
    /// name the text that HdrHistogram's plotters read.
    #[arg(long, value_name = "DIR")]
    histograms: Option<PathBuf>,

    /// Write a page with the tables and with charts to this file.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// For the report: a text that says on what was measured.
    #[arg(long, value_name = "FILE", requires = "report")]
    about: Option<PathBuf>,

    /// Do not tell on stderr how far it is.
    #[arg(short, long)]
    quiet: bool,
}

impl Compare {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut findings = self.nothing_yet()?;
        // Also for the servers that are started from here.
        files::raise(None)?;
        if let Some(dir) = &self.histograms {
            std::fs::create_dir_all(dir).map_err(in_file(dir))?;
        }
        let dir = tempfile::tempdir()?;
        let is_enough = interrupt::flag(running::end_all)?;
        let progress = Progress::new(self.turns(), self.quiet);
        let mut runner = Runner::new(self, dir.path(), progress, is_enough)?;
        runner.progress.print(&self.introduction());
        for (demand, who) in self.demands() {
            let case = runner.case(demand, &who, &findings);
            if case.rounds.has_any() {
                let rows = tables::lines(&self.targets, &case);
                let lines: String = rows.iter().map(|row| tables::line(row)).collect();
                runner.progress.print(&lines);
                findings.cases.push(case);
            }
        }
        for (connections, who) in self.idle_plans() {
            let case = runner.idle(connections, &who);
            if case.rounds.has_any() {
                findings.idle.push(case);
            }
        }
        if runner.is_enough() {
            let last = runner
                .last
                .map_or(String::new(), |seconds| format!(", the last of which has {seconds:.2} s"));
            let (taken, turns) = (runner.taken, self.turns());
            findings.cut_short =
                Some(format!("cut short by a signal after {taken} of {turns} turns{last}"));
        }
        let failures = runner.failures;
        drop(runner);
        self.tell(&findings)?;
        match (findings.cut_short, failures) {
            (Some(why), _) => Err(why.into()),
            (None, 0) => Ok(()),
            (None, failures) => Err(format!("{failures} turns failed").into()),
        }
    }

    /// What can be said before the first turn; errors in what was asked for.
    fn nothing_yet(&self) -> Result<Findings<'_>, Box<dyn std::error::Error>> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            return Err(format!("two servers have the name {}", names[twice]).into());
        }
        let base = |name: &String| {
            let found = names.iter().position(|other| other == name);
            found.ok_or_else(|| format!("--ratio-to {name}: no server has that name"))
        };
        let mut bases = self.ratio_to.iter().map(base).collect::<Result<Vec<_>, _>>()?;
        if bases.is_empty() {
            bases.push(0);
        }
        let strangers = self.calls.iter().filter_map(|only| only.stranger(&names));
        let strangers = strangers.chain(self.idle.iter().filter_map(|only| only.stranger(&names)));
        if let Some(name) = strangers.into_iter().next() {
            return Err(format!("no server has the name {name}").into());
        }
        let running = self.targets.iter().find(|target| matches!(target.what, What::Url(_)));
        if let (Some(target), false) = (running, self.idle.is_empty()) {
            let name = &target.name;
            return Err(
                format!("--idle: {name} is not started here, so its memory is unknown").into()
            );
        }
        self.check_demands()?;
        let about =
            self.about.as_ref().map(|file| std::fs::read_to_string(file).map_err(in_file(file)));
        Ok(Findings {
            how: self.how(),
            about: about.transpose()?,
            targets: &self.targets,
            bases,
            settings: json!({
                "rounds": self.rounds,
                "seconds": self.seconds.as_secs_f64(),
                "warm_up": self.warm_up.as_secs_f64(),
                "kept_servers": self.keep,
                "load_threads": self.load.threads,
                "load_spin_us": self.load.spin,
                "calls_per_second": self.load.rate,
            }),
            cases: Vec::new(),
            idle: Vec::new(),
            cut_short: None,
        })
    }

    /// Errors in the loads that are asked for.
    fn check_demands(&self) -> Result<(), String> {
        let demands = self.demands();
        for (number, (demand, who)) in demands.iter().enumerate() {
            let Plan { call, connections, .. } = demand.plan;
            call.check(connections)?;
            if demand.is_open() {
                call.check_rate()?;
            }
            let has_all = |(other, of_other): &(Demand, Vec<bool>)| {
                *other == demand.closed()
                    && who.iter().zip(of_other).all(|(one, other)| one <= other)
            };
            if matches!(demand.when, When::Percent(_)) && !demands[..number].iter().any(has_all) {
                return Err(format!(
                    "{demand}: {} in a closed loop has to come before it, with the same servers",
                    demand.closed()
                ));
            }
        }
        Ok(())
    }

    /// How it is measured, in words.
    fn how(&self) -> String {
        let LoadArgs { rate, threads, spin } = self.load;
        format!(
            "{} turns each, in turn, of {} s after {} s of warm-up, {}; {}{}; {}",
            self.rounds,
            self.seconds.as_secs_f64(),
            self.warm_up.as_secs_f64(),
            if self.keep { "all on the same servers" } else { "a new server for each" },
            match threads {
                1 => "one load thread".into(),
                // Not more than there are connections.
                threads => format!("up to {threads} load threads"),
            },
            match spin {
                0 => String::new(),
                spin => format!(", looking for answers for up to {spin} us before they sleep"),
            },
            match rate {
                None => "a closed loop unless said otherwise".into(),
                Some(rate) => format!("an open loop of {rate} calls/s, all connections together"),
            },
        )
    }

    /// What is printed before the first line of numbers.
    fn introduction(&self) -> String {
        let one = |target: &Target| format!("- {}: `{}`\n", target.name, target.command());
        let targets: String = self.targets.iter().map(one).collect();
        format!("{}.\n\n{targets}\n{}", self.how(), Table::measured().markdown_head())
    }

    /// Prints what the lines so far have not told, and writes the files.
    fn tell(&self, findings: &Findings<'_>) -> Result<(), Box<dyn std::error::Error>> {
        for table in tables::others(findings) {
            print!("\n{}", table.markdown());
        }
        if let Some(why) = &findings.cut_short {
            println!("\nThis was {why}.");
        }
        if let Some(file) = &self.json {
            std::fs::write(file, format!("{:#}\n", findings.json())).map_err(in_file(file))?;
        }
        if let Some(file) = &self.report {
            std::fs::write(file, report::page(findings)?).map_err(in_file(file))?;
        }
        Ok(())
    }

    /// The loads, in the order in which they were asked for, and which targets take part.
    fn demands(&self) -> Vec<(Demand, Vec<bool>)> {
        let mut demands = Vec::new();
        for only in &self.calls {
            let Wanted { call, connections, in_flight, percent } = only.what;
            let takes_part = |target: &Target| {
                let has_files = !matches!(target.what, What::Floor(_));
                only.has(&target.name) && (has_files || call.is_getpid())
            };
            let who: Vec<bool> = self.targets.iter().map(takes_part).collect();
            let connections = connections.map_or(self.connections.clone(), |n| vec![n]);
            let in_flight = in_flight.unwrap_or(self.in_flight);
            let when = match (percent, self.load.rate) {
                (Some(percent), _) => When::Percent(percent),
                (None, Some(rate)) => When::Rate(rate),
                (None, None) => When::Answered,
            };
            let plan = |connections| Plan { call, connections, in_flight };
            let demand = |connections| Demand { plan: plan(connections), when };
            demands.extend(connections.into_iter().map(|n| (demand(n), who.clone())));
        }
        demands
    }

    /// How many idle connections, and which targets take part.
    fn idle_plans(&self) -> Vec<(u32, Vec<bool>)> {
        let who = |only: &Only<u32>| self.targets.iter().map(|t| only.has(&t.name)).collect();
        self.idle.iter().map(|only| (only.what, who(only))).collect()
    }

    /// How many turns there will be.
    fn turns(&self) -> u64 {
        let loads = self.demands().into_iter().map(|(_, who)| who);
        let idle = self.idle_plans().into_iter().map(|(_, who)| who);
        let a_round = loads.chain(idle).flatten().filter(|takes_part| *takes_part).count();
        a_round as u64 * u64::from(self.rounds)
    }
}

fn wanted(text: &str) -> Result<Only<Wanted>, String> {
    Only::parse(text, str::parse)
}

fn idle(text: &str) -> Result<Only<u32>, String> {
    Only::parse(text, workload::connections_from)
}

fn in_file(file: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", file.display())
}
