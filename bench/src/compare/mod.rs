//! `rumpring-bench compare`: several servers take turns under the same loads, so that what a machine
//! does to one it does to all of them, and ratios mean something where numbers do not.

mod report;
mod target;
mod turns;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::load::Plan;
use crate::measure::measure;
use crate::once::seconds_from;
use crate::workload::{self, Case as Wanted};

use target::{Server, Target};
use turns::{Case, Turn};

/// Compare servers, which take turns: A B A B.
///
/// Prints a table in Markdown. Each number is the median of the rounds; each ratio is the median of
/// those of the rounds, with the least and the greatest. CPU time and context switches are those of
/// the servers that are started here.
#[derive(Args)]
pub struct Compare {
    /// A server: NAME=COMMAND, where the command starts one in the foreground on the URL that is put
    /// in place of {url}; NAME=URL; or NAME="floor ring" and NAME="floor hop", which are the floors of
    /// this program (see its command floor). The first is the one that all others are compared to.
    #[arg(value_name = "NAME=COMMAND", required = true, num_args = 2..)]
    targets: Vec<Target>,

    /// What to call: getpid, read:SIZE or pwrite:SIZE, each with CONNECTIONS or CONNECTIONSxIN_FLIGHT
    /// of its own if wanted, as in pwrite:64k@16.
    #[arg(long, value_name = "CALL[@N[xM]],...", value_delimiter = ',', default_value = "getpid")]
    calls: Vec<Wanted>,

    /// How many connections.
    #[arg(short, long, value_delimiter = ',', default_value = "64",
        value_parser = workload::connections_from)]
    connections: Vec<u32>,

    /// How many calls each keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

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

    /// Write all numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Compare {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut runner = Runner { compare: self, dir: dir.path(), kept: Vec::new(), failures: 0 };
        if self.keep {
            for (index, target) in self.targets.iter().enumerate() {
                runner.kept.push(runner.start(index).map_err(|e| format!("{}: {e}", target.name))?);
            }
        }
        println!("{}.\n", self.how());
        for target in &self.targets {
            println!("- {}: `{}`", target.name, target.command());
        }
        print!("\n{}", report::head(&self.targets));
        let mut cases = Vec::new();
        for plan in self.plans() {
            let case = runner.case(plan);
            print!("{}", report::lines(&self.targets, &case));
            cases.push(case);
        }
        if let Some(file) = &self.json {
            let settings = json!({
                "rounds": self.rounds,
                "seconds": self.seconds.as_secs_f64(),
                "warm_up": self.warm_up.as_secs_f64(),
                "kept_servers": self.keep,
            });
            let text = report::json(&self.targets, &settings, &cases);
            std::fs::write(file, format!("{text:#}\n"))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        match runner.failures {
            0 => Ok(()),
            failures => Err(format!("{failures} turns failed").into()),
        }
    }

    /// How it is measured, in words.
    fn how(&self) -> String {
        format!(
            "{} turns each, in turn, of {} s after {} s of warm-up, {}; one load thread",
            self.rounds,
            self.seconds.as_secs_f64(),
            self.warm_up.as_secs_f64(),
            if self.keep { "all on the same servers" } else { "a new server for each" },
        )
    }

    /// The loads, in the order in which they were asked for.
    fn plans(&self) -> Vec<Plan> {
        let mut plans = Vec::new();
        for wanted in &self.calls {
            let connections = match wanted.connections {
                Some(connections) => vec![connections],
                None => self.connections.clone(),
            };
            let in_flight = wanted.in_flight.unwrap_or(self.in_flight);
            plans.extend(connections.into_iter().map(|connections| Plan {
                call: wanted.call,
                connections,
                in_flight,
            }));
        }
        plans
    }
}

/// A comparison that is under way.
struct Runner<'a> {
    compare: &'a Compare,
    dir: &'a Path,
    /// The servers, if they are kept.
    kept: Vec<Server>,
    failures: u32,
}

impl Runner<'_> {
    fn start(&self, target: usize) -> Result<Server, String> {
        // Each in a directory of its own: all may run at once.
        let dir = self.dir.join(target.to_string());
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        self.compare.targets[target].server(&dir).map_err(|error| error.to_string())
    }

    /// All turns of one load.
    fn case(&mut self, plan: Plan) -> Case {
        let mut case = Case { plan, rounds: Vec::new() };
        for round in 1..=self.compare.rounds {
            let mut turns = Vec::new();
            for (index, target) in self.compare.targets.iter().enumerate() {
                let turn = self.turn(index, plan);
                if let Err(error) = &turn {
                    self.failures += 1;
                    eprintln!(
                        "{} with {} connections, round {round}, {}: {error}",
                        plan.call, plan.connections, target.name
                    );
                }
                turns.push(turn);
            }
            case.rounds.push(turns);
        }
        case
    }

    fn turn(&self, target: usize, plan: Plan) -> Result<Turn, String> {
        let started;
        let server = match self.kept.get(target) {
            Some(server) => server,
            None => {
                started = self.start(target)?;
                &started
            }
        };
        let Compare { warm_up, seconds, .. } = *self.compare;
        let measurement = measure(&server.url, plan, warm_up, seconds, server.pid())
            .map_err(|error| server.explain(&error))?;
        Ok(Turn::from(&measurement))
    }
}
