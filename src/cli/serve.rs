//! `rumpring serve`: a server in the foreground, until a signal or a client's halt ends it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::Failure;
use crate::kernel::{Kernel, embedded};
use crate::server::{Config, Control, Limits, Server};
use crate::url::Url;
use crate::{pool, server};

/// Most clients at once if nobody says: what is preallocated for each is 16 bytes.
const DEFAULT_CONNECTIONS: u64 = 65_536;

/// Most seconds to drain: a year, which is a time that can be added to any other.
const MAX_DRAIN: u64 = 365 * 86_400;

/// Serve a kernel's system calls at URL.
///
/// "listening on URL" appears on stderr once connections are accepted. SIGTERM and SIGINT end the
/// server: it takes no more clients and gives calls in flight some time; a second one ends it at once.
/// SIGUSR1 prints one line of counters to stderr.
#[derive(Args)]
pub struct Serve {
    /// Where: unix://PATH, tcp://A.B.C.D:PORT or tcp6://[ADDR]:PORT ('*' is every address).
    url: Url,

    /// The kernel to serve.
    #[arg(long, value_enum, default_value_t = Choice::Embedded)]
    kernel: Choice,

    /// CPUs to run workers on, one each, as in 0,2-3. All that the process may use if not given.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, conflicts_with = "workers")]
    cpus: Option<Cpus>,

    /// How many workers, on the first CPUs that the process may use.
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// Microseconds a worker looks for work before it sleeps.
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin: u64,

    /// Most clients at once. Not over the open file limit, which is raised to its hard value.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,

    /// Seconds that calls in flight have to end once the server is to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    drain: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// The kernel that comes with rumpring: small, in memory, NetBSD's calls and numbers.
    Embedded,
}

/// A list of CPUs.
#[derive(Clone)]
struct Cpus(Vec<usize>);

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.config()?;
        let kernel: Arc<dyn Kernel> = match self.kernel {
            Choice::Embedded => Arc::new(embedded::Embedded::default()),
        };
        // Before there is a thread, so that all of them leave the signals to that one.
        let signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        let server = Server::new(&config, kernel)?;
        let url = server.url().clone();
        let control = server.control();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || handle_signals(signals, &control))?;
        eprintln!("listening on {url}");
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!("cannot tell NOTIFY_SOCKET that the server is ready: {error}");
        }
        server.run()?;
        Ok(())
    }

    fn config(&self) -> Result<Config, Failure> {
        let sockets = self.connections(raise_file_limit())?;
        let ring = ring::Config { sockets, ..ring::Config::default() };
        let cpus = match (&self.cpus, self.workers) {
            (Some(Cpus(cpus)), _) => cpus.clone(),
            (None, Some(workers)) => first_cpus(workers.get())?,
            (None, None) => Vec::new(),
        };
        let spin = Duration::from_micros(self.spin);
        Ok(Config {
            url: self.url.clone(),
            ring,
            pool: pool::Config { cpus, spin, ..pool::Config::default() },
            limits: Limits { drain: Duration::from_secs(self.drain), ..server::Limits::default() },
        })
    }

    fn connections(&self, file_limit: u64) -> Result<u32, Failure> {
        match self.connections {
            None => Ok(file_limit.clamp(1, DEFAULT_CONNECTIONS) as u32),
            Some(0) => Err("--connections 0: a server without clients is none".into()),
            Some(n) if u64::from(n) > file_limit => Err(format!(
                "--connections {n}: the open file limit is {file_limit}; raise it with `ulimit -n` \
                 or systemd's LimitNOFILE=, or ask for fewer"
            )
            .into()),
            Some(n) => Ok(n),
        }
    }
}

/// As many CPUs as there are to be workers.
fn first_cpus(workers: usize) -> Result<Vec<usize>, Failure> {
    let mut cpus = pool::allowed_cpus()?;
    if workers > cpus.len() {
        let most = cpus.len();
        return Err(format!(
            "--workers {workers}: each has a CPU of its own, and this process may run on {most}"
        )
        .into());
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

fn handle_signals(mut signals: Signals, control: &Control) {
    let mut stopping = false;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => match control.stats() {
                Some(stats) => eprintln!("{stats}"),
                None => tracing::warn!("the server does not answer"),
            },
            _ if stopping => std::process::exit(1),
            _ => {
                stopping = true;
                control.stop();
            }
        }
    }
}

/// Parses a list such as `0,2-3`.
fn parse_cpus(list: &str) -> Result<Cpus, String> {
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no CPU number"));
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last - first >= 4096 {
            return Err(format!("`{part}` is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    Ok(Cpus(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_cpus("0,2-4").map(|c| c.0), Ok(vec![0, 2, 3, 4]));
        for bad in ["", "x", "3-1", "0-99999999", "1,", "-1"] {
            assert!(parse_cpus(bad).is_err(), "{bad:?} is no list");
        }
    }
}
