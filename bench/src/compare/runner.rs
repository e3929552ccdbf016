//! A running comparison: turns, one after the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Compare;
use super::findings::Findings;
use super::load_spec::LoadSpec;
use super::progress::Progress;
use super::rounds::{Case, IdleCase, Rounds, Taken, Turn};
use super::target::Server;
use crate::histogram::{self, About};
use crate::idle::{Idle, idle};
use crate::load::Settings;
use crate::measure::{Measurement, Onlooker, measure};

pub struct Runner<'a> {
    compare: &'a Compare,
    dir: &'a Path,
    /// The servers, if they are kept between turns.
    kept: Vec<Server>,
    pub progress: Progress,
    /// True once a signal has ended the comparison.
    is_enough: Arc<AtomicBool>,
    /// The number of turns that have ended, including the failed ones.
    taken: u64,
    pub failures: u32,
    /// The length of the last turn in seconds, if a signal cut it short.
    last: Option<f64>,
}

impl<'a> Runner<'a> {
    /// Starts the servers that are kept.
    pub fn new(
        compare: &'a Compare,
        dir: &'a Path,
        progress: Progress,
        is_enough: Arc<AtomicBool>,
    ) -> Result<Runner<'a>, String> {
        let (kept, taken, failures, last) = (Vec::new(), 0, 0, None);
        let mut runner = Runner { compare, dir, kept, progress, is_enough, taken, failures, last };
        if compare.keep {
            for (index, target) in compare.targets.iter().enumerate() {
                let server = runner.start(index).map_err(|e| format!("{}: {e}", target.name))?;
                runner.kept.push(server);
            }
        }
        Ok(runner)
    }

    pub fn is_enough(&self) -> bool {
        self.is_enough.load(Ordering::Relaxed)
    }

    /// Returns why not all turns were taken, if so, in words.
    pub fn cut_short(&self) -> Option<String> {
        if !self.is_enough() {
            return None;
        }
        let (taken, rounds) = (self.taken, self.compare.rounds());
        let last =
            self.last.map(|seconds| format!(", the last of which ended after {seconds:.2} s"));
        let last = last.unwrap_or_default();
        Some(format!("cut short by a signal after {taken} of {rounds} turns{last}"))
    }

    /// Takes all turns of one load. In an open loop, the findings so far give the rate.
    pub fn case(&mut self, load_spec: LoadSpec, who: &[bool], findings: &Findings<'_>) -> Case {
        let rounds = self.rounds(&load_spec.to_string(), who, |runner, target, round| {
            let rate = findings.rate_for(&load_spec, target)?;
            runner.turn(target, load_spec, rate, round)
        });
        Case { load_spec, rounds }
    }

    /// Takes all turns with `connections` idle connections.
    pub fn idle(&mut self, connections: u32, who: &[bool]) -> IdleCase {
        let what = format!("{connections} idle connections");
        let rounds =
            self.rounds(&what, who, |runner, target, _| runner.idle_turn(target, connections));
        IdleCase { connections, rounds }
    }

    /// Lets the targets of `who` take turns, until all rounds are done or a signal came.
    fn rounds<T>(
        &mut self,
        what: &str,
        who: &[bool],
        turn: impl Fn(&mut Self, usize, u32) -> Result<T, String>,
    ) -> Rounds<T> {
        let mut rounds = Vec::new();
        for round in 1..=self.compare.rounds {
            if self.is_enough() {
                break;
            }
            rounds.push(self.round(&format!("{what}, round {round}"), who, |runner, target| {
                turn(runner, target, round)
            }));
        }
        Rounds(rounds)
    }

    /// Takes one turn for each target, or fewer if a signal came.
    fn round<T>(
        &mut self,
        what: &str,
        who: &[bool],
        turn: impl Fn(&mut Self, usize) -> Result<T, String>,
    ) -> Vec<Taken<T>> {
        let mut rounds = Vec::new();
        for (index, target) in self.compare.targets.iter().enumerate() {
            if !who[index] {
                rounds.push(None);
                continue;
            }
            if self.is_enough() {
                break;
            }
            let what = format!("{what}, {}", target.name);
            self.progress.begin(&what);
            // The paths of the servers' sockets change from run to run, and do not belong in the
            // results.
            let dir = self.dir.display().to_string();
            let turn = turn(self, index).map_err(|error| error.replace(&dir, "DIR"));
            if let Err(error) = &turn {
                // A signal from a terminal goes to the servers, too.
                if self.is_enough() {
                    break;
                }
                self.failures += 1;
                self.progress.complain(&format!("{what}: {error}"));
            }
            self.taken += 1;
            rounds.push(Some(turn));
        }
        rounds
    }

    fn start(&self, target: usize) -> Result<Server, String> {
        // Each server has a directory of its own: all may run at once.
        let dir = self.dir.join(target.to_string());
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        self.compare.targets[target].server(&dir).map_err(|error| error.to_string())
    }

    fn turn(
        &mut self,
        target: usize,
        load_spec: LoadSpec,
        rate: Option<u64>,
        round: u32,
    ) -> Result<Turn, String> {
        let started;
        let server = match self.kept.get(target) {
            Some(server) => server,
            None => {
                started = self.start(target)?;
                &started
            }
        };
        let Compare { warm_up, seconds, .. } = *self.compare;
        let onlooker = Onlooker::new(server.books(), &self.is_enough);
        let settings = Settings { rate, ..self.compare.load.settings() };
        let measurement =
            measure(&server.url, load_spec.plan, &settings, warm_up, seconds, onlooker)
                .map_err(|error| server.explain(&error))?;
        let load = &measurement.load;
        if load.is_cut_short {
            if load.elapsed.is_zero() {
                return Err("cut short while warming up".into());
            }
            self.last = Some(load.elapsed.as_secs_f64());
        }
        self.keep_histogram(target, load_spec, round, &measurement)?;
        Ok(Turn::new(load_spec.plan.call, rate, &measurement))
    }

    fn keep_histogram(
        &self,
        target: usize,
        load_spec: LoadSpec,
        round: u32,
        measurement: &Measurement,
    ) -> Result<(), String> {
        let Some(dir) = &self.compare.histograms else {
            return Ok(());
        };
        let name = &self.compare.targets[target].name;
        let file = format!("{}-{name}-{round}.hlog", load_spec.in_file_name());
        let about = About {
            words: format!("{load_spec}, {name}, round {round}"),
            length: measurement.load.elapsed,
        };
        histogram::write(&dir.join(file), &measurement.load.latencies, &about)
            .map_err(|error| error.to_string())
    }

    /// Takes a turn on a new server, so that no earlier load affects its memory.
    fn idle_turn(&self, target: usize, connections: u32) -> Result<Idle, String> {
        let kept = self.kept.get(target).is_some();
        let dir = self.dir.join(if kept { format!("idle{target}") } else { target.to_string() });
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let target = &self.compare.targets[target];
        let server = target.server(&dir).map_err(|error| error.to_string())?;
        let pid = server.books().pid.ok_or("which process it is is not known")?;
        idle(&server.url, connections, pid).map_err(|error| server.explain(&error))
    }
}
