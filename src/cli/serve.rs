//! `rumpring serve`: a server in the foreground, until a signal or a client's halt ends it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::rump::Rump;
use super::{Failure, embedded, lifetime, sandbox, user};
use crate::kernel::librump::load;
use crate::server::{Config, Limits, Server, listen};
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

    /// For librump: a component to load, named as with the linker (-l rumpvfs).
    #[arg(short = 'l', long = "lib", value_name = "LIB")]
    libraries: Vec<String>,

    /// For librump: where it was installed. RUMP_PREFIX if not given, then the loader's own path.
    #[arg(long, value_name = "DIR")]
    rump_prefix: Option<PathBuf>,

    /// CPUs to run workers on, one each, as in 0,2-3. All that the process may use if not given.
    #[arg(long, value_name = "LIST", value_parser = cpus, conflicts_with = "workers")]
    cpus: Option<Cpus>,

    /// How many workers, on the first CPUs that the process may use.
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,

    /// Microseconds a thread looks for work before it sleeps, as long as that pays.
    #[arg(long, value_name = "US", default_value_t = server::SPIN.as_micros() as u64)]
    spin: u64,

    /// Most clients at once. Not over the open file limit, which is raised to its hard value.
    #[arg(long, value_name = "N")]
    connections: Option<u32>,

    /// For librump: most calls that may sleep at once, each on a thread. At this bound a call waits if
    /// one of its number is asleep; all others go on.
    #[arg(long, value_name = "N", default_value = "10000")]
    max_asleep: NonZeroUsize,

    /// Send messages of at least this many bytes over TCP without copying them, from registered memory.
    /// Pays over a network card that can gather; over loopback it costs.
    #[arg(long, value_name = "BYTES")]
    zero_copy_from: Option<usize>,

    /// Seconds that calls in flight have to end once the server is to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN))]
    drain: u64,

    #[command(flatten)]
    run_as: user::RunAs,

    #[command(flatten)]
    sandbox: sandbox::Wish,

    #[command(flatten)]
    kernel_limits: embedded::KernelLimits,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// The kernel that comes with rumpring: small, in memory, NetBSD's calls and numbers.
    Embedded,
    /// NetBSD's own, loaded at run time.
    Librump,
}

/// A list of CPUs.
#[derive(Clone)]
struct Cpus(Vec<usize>);

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.config()?;
        match self.kernel {
            Choice::Embedded => self.serve_embedded(&config),
            Choice::Librump => self.serve_librump(config),
        }
    }

    fn serve_embedded(&self, config: &Config) -> Result<(), Failure> {
        // The kernel asks the system how many CPUs there are, which a sandbox does not have.
        let kernel = Arc::new(self.kernel_limits.kernel());
        let bound = listen(&config.url)?;
        self.run_as.settle(&bound)?;
        let sandbox = self.sandbox.enter(&bound)?;
        let signals = lifetime::take_signals()?;
        let server = Server::on(bound, config, kernel)?;
        lifetime::heed(signals, server.control())?;
        lifetime::ready(server.url());
        sandbox.map_or(Ok(()), |sandbox| sandbox.seal())?;
        server.run()?;
        Ok(())
    }

    fn serve_librump(&self, config: Config) -> Result<(), Failure> {
        self.sandbox.refuse_for_librump()?;
        self.kernel_limits.refuse_for_librump()?;
        let bound = self.run_as.bind_and_settle(&config.url)?;
        self.rump().serve(config, bound)
    }

    fn rump(&self) -> Rump {
        Rump {
            prefix: self.rump_prefix.clone().or_else(load::prefix_from_env),
            libraries: self.libraries.clone(),
            announce: true,
            ..Rump::default()
        }
    }

    fn config(&self) -> Result<Config, Failure> {
        let sockets = connections(self.connections)?;
        let ring = ring::Config {
            sockets,
            zero_copy_from: self.zero_copy_from,
            spin: Duration::from_micros(self.spin),
            ..ring::Config::default()
        };
        let cpus = match (&self.cpus, self.workers) {
            (Some(Cpus(cpus)), _) => cpus.clone(),
            (None, Some(workers)) => first_cpus(workers.get())?,
            (None, None) => Vec::new(),
        };
        Ok(Config {
            url: self.url.clone(),
            pool: pool::Config { cpus, spin: ring.spin, max_asleep: self.max_asleep },
            ring,
            limits: Limits { drain: Duration::from_secs(self.drain), ..server::Limits::default() },
        })
    }
}

/// How many clients a server may have: as many as asked for, if the open file limit allows. That is
/// raised to its hard value.
pub(super) fn connections(asked: Option<u32>) -> Result<u32, String> {
    let file_limit = raise_file_limit();
    match asked {
        None => Ok(file_limit.clamp(1, DEFAULT_CONNECTIONS) as u32),
        Some(0) => Err("--connections 0: a server without clients is none".into()),
        Some(n) if u64::from(n) > file_limit => Err(format!(
            "--connections {n}: the open file limit is {file_limit}; raise it with `ulimit -n` or \
             systemd's LimitNOFILE=, or ask for fewer"
        )),
        Some(n) => Ok(n),
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

fn cpus(list: &str) -> Result<Cpus, String> {
    pool::parse_cpus(list).map(Cpus)
}
