//! `rumpring-bench compare`: several servers take turns under the same loads, so that the machine
//! affects all of them alike, and ratios mean something where numbers do not.
//!
//! - [`asked`]: the checks of the request; [`target`]s and [`load_spec`]s: the servers and the loads,
//!   [`target_filter`] a load for some servers only.
//! - [`runner`]: turn after turn, with its [`progress`]; [`running`]: the servers that run now.
//! - [`rounds`]: the results of the turns, and medians; [`findings`]: all results; [`tables`]: the
//!   results for readers.

mod asked;
mod findings;
mod load_spec;
mod progress;
mod rounds;
mod runner;
mod running;
mod tables;
mod target;
mod target_filter;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rumpring::output;

use crate::files;
use crate::interrupt;
use crate::load::LoadArgs;
use crate::once::{seconds_from, some_seconds_from};
use crate::report;
use crate::workload::{self, Case as Wanted};

pub use findings::Findings;
pub use load_spec::When;
pub use rounds::{Case, Spread, Turn};
pub use running::end_all;
#[cfg(test)]
pub use tables::tests::findings as test_findings;
pub use tables::{Column, Table, all as all_tables};
pub use target::{Server, Target, What};

use progress::Progress;
use runner::Runner;
use target_filter::TargetFilter;

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
    /// does (others die of it); NAME=URL; or NAME="baseline ring" and NAME="baseline hop", which are the
    /// baselines of this program (see its command baseline).
    #[arg(value_name = "NAME=COMMAND", required = true)]
    targets: Vec<Target>,

    /// The servers that the others are compared to, with a table for each. The first server by default.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    ratio_to: Vec<String>,

    /// The calls to make: getpid, read:SIZE, pwrite:SIZE, copyinstr, pipe, fork, connect, mixed,
    /// mixed:CALL=WEIGHT+... or fair (see the help without a command), each with CONNECTIONS or
    /// CONNECTIONSxIN_FLIGHT of its own if wanted, and with the NAMEs of the servers if not all are to take
    /// part, as in pwrite:64k@16 and getpid@10000=one+other. Baselines take part in getpid and fair only.
    ///
    /// With %PERCENT behind it, calls are made at a fixed rate: at so many percent of what the same server
    /// answered in a closed loop, the turns of which have to come before, as in getpid@64,getpid@64%50.
    #[arg(long, value_name = "CALL[@N[xM]][%P][=NAME+...],...", value_delimiter = ',',
        default_value = "getpid", value_parser = wanted)]
    calls: Vec<TargetFilter<Wanted>>,

    /// Number of connections.
    #[arg(short, long, value_delimiter = ',', default_value = "64",
        value_parser = workload::connections_from)]
    connections: Vec<u32>,

    /// Number of calls each connection keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

    #[command(flatten)]
    load: LoadArgs,

    /// Number of turns of each server with each load.
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Seconds of each turn.
    #[arg(short, long, default_value = "2", value_parser = some_seconds_from)]
    seconds: Duration,

    /// Seconds of warm-up before that, which do not count.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds_from)]
    warm_up: Duration,

    /// Start each server once and keep it, instead of a new one for each turn.
    #[arg(long)]
    keep: bool,

    /// Measure the memory for so many idle connections, too, on a server of its own each time; of
    /// some servers only as with calls.
    #[arg(long, value_name = "N[=NAME+...],...", value_delimiter = ',', value_parser = idle)]
    idle: Vec<TargetFilter<u32>>,

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
        self.check()?;
        let mut findings = self.nothing_yet()?;
        // The servers that are started from here inherit the limit.
        files::raise(None)?;
        if let Some(dir) = &self.histograms {
            std::fs::create_dir_all(dir).map_err(in_file(dir))?;
        }
        let dir = tempfile::tempdir()?;
        let is_enough = interrupt::flag(running::end_all)?;
        let progress = Progress::new(self.rounds(), self.quiet);
        let mut runner = Runner::new(self, dir.path(), progress, is_enough)?;
        runner.progress.print(&self.introduction())?;
        for (load_spec, who) in self.demands() {
            let case = runner.case(load_spec, &who, &findings);
            if case.rounds.has_any() {
                let rows = tables::lines(&self.targets, &case);
                let lines: String = rows.iter().map(|row| tables::line(row)).collect();
                runner.progress.print(&lines)?;
                findings.cases.push(case);
            }
        }
        for (connections, who) in self.idle_plans() {
            let case = runner.idle(connections, &who);
            if case.rounds.has_any() {
                findings.idle.push(case);
            }
        }
        findings.cut_short = runner.cut_short();
        let failures = runner.failures;
        drop(runner);
        self.tell(&findings)?;
        match (findings.cut_short, failures) {
            (Some(why), _) => Err(why.into()),
            (None, 0) => Ok(()),
            (None, failures) => Err(format!("{failures} turns failed").into()),
        }
    }

    /// Returns findings without any turn.
    fn nothing_yet(&self) -> Result<Findings<'_>, String> {
        let about =
            self.about.as_ref().map(|file| std::fs::read_to_string(file).map_err(in_file(file)));
        Ok(Findings {
            how: self.how(),
            about: about.transpose()?,
            targets: &self.targets,
            bases: self.bases()?,
            settings: self.settings(),
            cases: Vec::new(),
            idle: Vec::new(),
            cut_short: None,
        })
    }

    /// Returns the text to print before the first line of numbers.
    fn introduction(&self) -> String {
        let one = |target: &Target| format!("- {}: `{}`\n", target.name, target.command());
        let targets: String = self.targets.iter().map(one).collect();
        format!("{}.\n\n{targets}\n{}", self.how(), Table::measured().markdown_head())
    }

    /// Prints the tables that were not printed yet, and writes the files.
    fn tell(&self, findings: &Findings<'_>) -> Result<(), Box<dyn std::error::Error>> {
        for table in tables::others(findings) {
            output::print(format_args!("\n{}", table.markdown()))?;
        }
        if let Some(why) = &findings.cut_short {
            output::print(format_args!("\nThis was {why}.\n"))?;
        }
        if let Some(file) = &self.json {
            std::fs::write(file, format!("{:#}\n", findings.json())).map_err(in_file(file))?;
        }
        if let Some(file) = &self.report {
            std::fs::write(file, report::page(findings)?).map_err(in_file(file))?;
        }
        Ok(())
    }
}

fn wanted(text: &str) -> Result<TargetFilter<Wanted>, String> {
    TargetFilter::parse(text, str::parse)
}

fn idle(text: &str) -> Result<TargetFilter<u32>, String> {
    TargetFilter::parse(text, workload::connections_from)
}

fn in_file(file: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", file.display())
}
