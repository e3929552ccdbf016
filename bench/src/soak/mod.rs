//! `rumpring-bench soak`: one server, and everything that clients do to it, all at once and for a long
//! time. The server must serve the clients that behave, and must be in the same state at the end as at
//! the beginning.
//!
//! - [`run`]: the state that the parts share. The parts are [`busy`] connections under a mixed load, a
//!   [`canary`], [`churn`] that come and go, [`victims`] that are killed, and [`hostile`] clients with
//!   their [`attacks`]; a [`clock`] measures the delays of the machine itself. [`parts`] runs all of
//!   them, and [`ending`] ends the soak.
//! - [`sample`]: the server's resources; [`verdict`]: whether they are flat; [`report`]: the results
//!   for readers.

mod attacks;
mod busy;
mod canary;
mod churn;
mod clock;
mod ending;
mod hostile;
mod parts;
mod report;
mod run;
mod sample;
mod verdict;
mod victims;

pub use victims::Victim;

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use rumpring::output;
use rumpsp::url::Url;

use crate::compare::{Target, What, end_all};
use crate::load::Plan;
use crate::once::some_seconds_from;
use crate::workload::{self, Call, Mix};
use crate::{files, interrupt};
use parts::{Cast, Done, run_all};
use report::Found;
use run::Run;
use sample::Sample;

/// The most clients of one kind at a time, each of which has a thread.
const MOST: usize = 1000;

/// The time a server that has just started has to come to rest.
const REST: Duration = Duration::from_millis(300);

/// Keep a server busy for a long time, with clients that are killed, come and go, and mean harm.
///
/// Fails if it gives a wrong answer, refuses a client that behaves, does not serve one in time, ends, or has
/// not the same memory, descriptors and threads at the end as at the beginning. The first SIGINT or SIGTERM
/// ends the soak with what there is by then.
#[derive(Args)]
pub struct Soak {
    /// The server: NAME=COMMAND, where the command starts it in the foreground on the URL that is put in
    /// place of {url}; NAME+stats=COMMAND, if it prints a line of counters at SIGUSR1 as rumpring does.
    #[arg(value_name = "NAME=COMMAND", value_parser = target)]
    target: Target,

    /// Seconds the soak lasts.
    #[arg(short, long, value_name = "SECONDS", default_value = "3600", value_parser = some_seconds_from)]
    duration: Duration,

    /// Seconds between two looks at the server.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = some_seconds_from)]
    every: Duration,

    /// Number of connections with the mixed load.
    #[arg(short, long, default_value = "64", value_parser = workload::connections_from)]
    connections: u32,

    /// Calls a second of these connections in all.
    #[arg(long, value_name = "CALLS", default_value_t = 2000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,

    /// Number of hostile clients at a time.
    #[arg(long, default_value_t = 16, value_parser = some)]
    hostile: usize,

    /// Only those attacks that have this in their names, to find out which one does what.
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = words_of_attacks)]
    attacks: String,

    /// Number of clients at a time that come and go.
    #[arg(long, alias = "visitors", default_value_t = 4, value_parser = some)]
    churn: usize,

    /// Number of clients at a time that are killed.
    #[arg(long, default_value_t = 4, value_parser = some)]
    victims: usize,

    /// Serve on TCP, a free port of loopback, instead of a unix socket.
    #[arg(long)]
    tcp: bool,

    /// Seed of the random choices: the same seed gives the same choices. The time by default.
    #[arg(long)]
    seed: Option<u64>,

    /// Write a report in Markdown to this file.
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,

    /// Write all numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// For the report: a text that says on what it was run.
    #[arg(long, value_name = "FILE", requires = "report")]
    about: Option<PathBuf>,

    /// Say nothing of each look at the server.
    #[arg(short, long)]
    quiet: bool,
}

impl Soak {
    pub fn run(&self) -> Result<(), Box<dyn Error>> {
        if self.hostile == 0 && !self.attacks.is_empty() {
            return Err(
                "--attacks says nothing with --hostile 0; have one hostile client at least".into(),
            );
        }
        let about = self.about.as_ref().map(|file| {
            std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
        });
        let about = about.transpose()?;
        files::raise(None)?;
        let interrupted = interrupt::flag(end_all)?;
        let dir = tempfile::tempdir()?;
        let mut server = self.target.server_at(&self.url(dir.path())?, dir.path())?;
        std::thread::sleep(REST);
        let before = Sample::take(server.books(), &server.url, 0.0)?;
        let seed = self.seed.unwrap_or_else(time_as_seed);
        let run = Run::new(server.url.clone(), seed, self.duration, interrupted);
        output::say(format_args!("soak of {}, seed {seed}", self.target.name));
        let look = |sample: &Sample| {
            if !self.quiet {
                output::say(report::line(sample));
            }
        };
        let done = run_all(&run, &self.cast(), &mut server, self.every, look)?;
        let seconds = run.elapsed().min(self.duration).as_secs_f64();
        let mut found = self.found(about, seed, seconds, before, done);
        let ending = ending::end(&run, &mut server, &found.before)?;
        if let Some(after) = &ending.after {
            found.findings.extend(verdict::at_rest(&found.before, after));
        }
        (found.after, found.end) = (ending.after, ending.words);
        // The place of the sockets does not belong in the report.
        found.wrongs = run.wrongs().without(&dir.path().display().to_string());
        found.is_cut_short = run.is_interrupted();
        self.tell(&found)
    }

    /// Collects the results of a run of all parts.
    fn found(
        &self,
        about: Option<String>,
        seed: u64,
        seconds: f64,
        before: Sample,
        done: Done,
    ) -> Found {
        let flat = verdict::flat(&done.samples, seconds);
        Found {
            name: self.target.name.clone(),
            command: self.target.command(),
            about,
            seed,
            seconds,
            cast: self.cast(),
            tcp: self.tcp,
            before,
            after: None,
            findings: flat,
            end: None,
            wrongs: run::Wrongs::default(),
            is_cut_short: false,
            done,
        }
    }

    fn tell(&self, found: &Found) -> Result<(), Box<dyn Error>> {
        if let Some(file) = &self.json {
            std::fs::write(file, format!("{:#}\n", found.json())).map_err(in_file(file))?;
        }
        let text = found.markdown();
        match &self.report {
            Some(file) => std::fs::write(file, text).map_err(in_file(file))?,
            None => output::print(text)?,
        }
        let verdict = format!("{}: {}", self.target.name, found.verdict());
        if found.has_passed() {
            output::say(verdict);
            return Ok(());
        }
        Err(verdict.into())
    }

    fn cast(&self) -> Cast {
        let call = Call::Mixed(Mix::usual());
        Cast {
            plan: Plan { call, connections: self.connections, in_flight: 1 },
            rate: self.rate,
            hostile: self.hostile,
            attacks: self.attacks.clone(),
            churn: self.churn,
            victims: self.victims,
        }
    }

    /// Returns the URL for the server.
    fn url(&self, dir: &Path) -> Result<Url, Box<dyn Error>> {
        if !self.tcp {
            return Ok(Url::Unix(dir.join("socket")));
        }
        // The port stays free for a moment longer, unless another program is very quick.
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Url::from_socket_addr(free))
    }
}

fn target(text: &str) -> Result<Target, String> {
    let target: Target = text.parse()?;
    match target.what {
        What::Command(_) => Ok(target),
        _ => Err(format!(
            "{}: what is soaked is started here, by a command with {{url}}",
            target.name
        )),
    }
}

fn words_of_attacks(text: &str) -> Result<String, String> {
    let names = attacks::ATTACKS.map(|(name, _)| name);
    match names.iter().any(|name| name.contains(text)) {
        true => Ok(text.into()),
        false => Err(format!("none of the attacks has that in its name: {}", names.join(", "))),
    }
}

fn some(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number <= MOST => Ok(number),
        _ => Err(format!("{text:?} is no number from 0 to {MOST}")),
    }
}

fn time_as_seed() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64)
}

fn in_file(file: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", file.display())
}
