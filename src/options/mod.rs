//! The options of a server: `--name value` on the command line, or `RUMPRING_NAME=value` in the
//! environment. The command line takes precedence.
//!
//! A program with a rump kernel inside that has this server preloaded has no command line of rumpring's;
//! it is configured by the variables.
//!
//! - [`limits`]: limits on what a server takes on; [`access`]: who may connect; [`units`]: sizes and
//!   times; [`effect`]: a check for options without effect.

mod access;
mod effect;
mod limits;
mod units;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use effect::{KernelKind, check, warn_of_unknown_variables};
pub use units::size;

use crate::output::log::LogOptions;
use crate::server::{self, Config, SocketMode};
use crate::{scheduler, server::Access};
use access::AccessOptions;
use limits::LimitOptions;
use rumpsp::url::Url;

/// The most clients at once by default. What is preallocated for each is 16 bytes.
const DEFAULT_CONNECTIONS: u64 = 65_536;

/// The most seconds of silence: Linux counts in 15 bits.
const MOST_KEEPALIVE: u64 = 32_767;

/// The options of every server, whatever its kernel.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// CPUs to run workers on, one each, as in 0,2-3. All that the process may use if not given.
    #[arg(long, env = "RUMPRING_CPUS", value_name = "LIST", value_parser = cpus)]
    cpus: Option<Cpus>,

    /// Number of workers, on the first CPUs that the process may use.
    #[arg(long, env = "RUMPRING_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// Microseconds a thread looks for work before it sleeps, as long as that pays.
    #[arg(long, env = "RUMPRING_SPIN", value_name = "US",
        value_parser = clap::value_parser!(u64).range(0..=1_000_000),
        default_value_t = server::SPIN.as_micros() as u64)]
    spin: u64,

    /// Send messages of at least this many bytes over TCP without copying them, from registered memory.
    /// Pays over a network card that can gather; over loopback it costs.
    #[arg(long, env = "RUMPRING_ZERO_COPY_FROM", value_name = "BYTES")]
    zero_copy_from: Option<usize>,

    /// Over TCP: seconds of silence after which a client's host is asked whether it is still there. One
    /// that does not answer for as long again has gone, and so has a client that takes nothing of what
    /// is sent to it for twice that long. 0 or `off`: nobody is asked, and a host that died stays.
    #[arg(long, env = "RUMPRING_KEEPALIVE", value_name = "SECONDS", default_value = "60",
        value_parser = keepalive)]
    keepalive: Keepalive,

    /// Most clients at once; others wait. Not over the open file limit, which is raised to its hard
    /// value.
    #[arg(long, env = "RUMPRING_CONNECTIONS", value_name = "N", help_heading = limits::HEADING)]
    connections: Option<NonZeroU32>,

    /// For librump: most calls that may sleep at once, each on a thread. At this bound a call waits if
    /// another of the same system call is asleep; all others go on. Of the last quarter, or
    /// the last 512 if that is less, a client gets only a few.
    #[arg(long, env = "RUMPRING_MAX_ASLEEP", value_name = "N", default_value = "10000",
        help_heading = limits::HEADING)]
    max_asleep: NonZeroUsize,

    /// For librump: whether calls that are known to bring NetBSD's kernel down are refused, or let through
    /// to a kernel that is known to be mended. Refused if not given.
    #[arg(long, env = "RUMPRING_NETBSD_FAULTS", value_name = "WHAT", value_enum)]
    netbsd_faults: Option<NetbsdFaults>,

    #[command(flatten)]
    limits: LimitOptions,

    #[command(flatten)]
    access: AccessOptions,
}

/// The treatment of calls that are known to bring NetBSD's kernel down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NetbsdFaults {
    Refuse,
    Allow,
}

/// A time of silence, or none.
#[derive(Clone, Copy, Debug)]
struct Keepalive(Option<Duration>);

fn keepalive(text: &str) -> Result<Keepalive, String> {
    match text.parse() {
        _ if text == "off" => Ok(Keepalive(None)),
        Ok(0) => Ok(Keepalive(None)),
        Ok(seconds @ 1..=MOST_KEEPALIVE) => Ok(Keepalive(Some(Duration::from_secs(seconds)))),
        _ => Err(format!("neither `off` nor a number of seconds from 0 to {MOST_KEEPALIVE}")),
    }
}

/// A list of CPUs.
#[derive(Clone, Debug)]
struct Cpus(Vec<usize>);

fn cpus(list: &str) -> Result<Cpus, String> {
    scheduler::parse_cpus(list).map(Cpus)
}

impl Options {
    /// Reads the options and the configuration of a server of NetBSD's own kernel, at this URL, from the
    /// environment.
    pub fn from_env(url: Url) -> Result<(Options, Config), String> {
        let command = Options::augment_args(clap::Command::new("rumpring"));
        warn_of_unknown_variables(&[&LogOptions::augment_args(command.clone())]);
        let given =
            command.try_get_matches_from(["rumpring"]).map_err(|error| error.to_string())?;
        let options = Options::from_arg_matches(&given).map_err(|error| error.to_string())?;
        check(&given, &url, KernelKind::Librump)?;
        let config = options.config(&given, url)?;
        Ok((options, config))
    }

    /// Returns a server's configuration, at this URL. `given` is what these options were parsed from.
    pub fn config(&self, given: &ArgMatches, url: Url) -> Result<Config, String> {
        let connections = connections(self.connections)?;
        let spin = Duration::from_micros(self.spin);
        let zero_copy_from = self.zero_copy_from;
        Ok(Config {
            url,
            ring: ring::Config {
                sockets: connections,
                zero_copy_from,
                spin,
                ..ring::Config::default()
            },
            scheduler: scheduler::Config {
                cpus: self.cpus(given)?,
                spin,
                max_asleep: self.max_asleep,
                ..scheduler::Config::default()
            },
            limits: self.limits.limits(),
            access: self.access()?,
            socket: SocketMode { keepalive: self.keepalive.0, ..self.access.socket()? },
        })
    }

    /// Returns `true` if calls that are known to bring NetBSD's kernel down are let through.
    pub fn allows_netbsd_faults(&self) -> bool {
        self.netbsd_faults == Some(NetbsdFaults::Allow)
    }

    fn cpus(&self, given: &ArgMatches) -> Result<Vec<usize>, String> {
        let [cpus, workers] = ["cpus", "workers"].map(|id| effect::source(given, id));
        // If one is a variable and the other is on the command line, the command line wins.
        let is_word = |source| source == Some(ValueSource::CommandLine);
        match (&self.cpus, self.workers) {
            (_, Some(count)) if is_word(workers) || cpus.is_none() => first_cpus(count.get()),
            (Some(Cpus(cpus)), _) => Ok(cpus.clone()),
            (None, _) => Ok(Vec::new()),
        }
    }

    fn access(&self) -> Result<Access, String> {
        Ok(Access { per_peer: self.limits.per_peer(), ..self.access.access()? })
    }
}

/// Returns the number of clients that a server may have: as many as asked for, if the open file limit
/// allows. Raises that limit to its hard value.
fn connections(asked: Option<NonZeroU32>) -> Result<u32, String> {
    let file_limit = raise_file_limit();
    match asked.map(NonZeroU32::get) {
        None => Ok(file_limit.clamp(1, DEFAULT_CONNECTIONS) as u32),
        Some(n) if u64::from(n) > file_limit => Err(format!(
            "--connections {n}: the open file limit is {file_limit}; raise it with `ulimit -n` or \
             systemd's LimitNOFILE=, or ask for fewer"
        )),
        Some(n) => Ok(n),
    }
}

/// Returns the first CPUs that this process may use, one for each worker.
fn first_cpus(workers: usize) -> Result<Vec<usize>, String> {
    let mut cpus = scheduler::allowed_cpus().map_err(|error| error.to_string())?;
    if workers > cpus.len() {
        let most = cpus.len();
        return Err(format!(
            "--workers {workers}: each has a CPU of its own, and this process may run on {most}"
        ));
    }
    cpus.truncate(workers);
    Ok(cpus)
}

/// Raises the soft limit of open files to the hard one, and returns it.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests;
