//! A small in-memory kernel with NetBSD's interface: files, pipes, sockets, time, signals and sysctl for
//! clients that speak NetBSD/amd64.
//!
//! No call sleeps on a thread. A call that cannot go on stops with a reason (`Stop`), and is run again from
//! the top once the reason is gone. Therefore a call copies in first, then changes state, then copies out,
//! and keeps its progress in its `Progress`. A blocked client costs a place in a queue.
//!
//! # Modules
//!
//! - `call`: one run of a call, and how it stops; `listed`: a call as its family lists it; `table`: all of them
//! - `process`, `pid`, `cwd`, `signal`: processes, their IDs and directories, the signals they send
//! - `credentials`, `groups`, `uidinfo`: users and groups, process groups and sessions, counts by user
//! - `rlimits`, `usage`: the resource limits of processes, and the resources they have used
//! - `file`, `descriptors`: open files and the operations of each kind, and descriptor tables; `owner`: who
//!   gets the signals of a file
//! - `io`, `ioctl`: reading, writing and other requests on any kind of file
//! - `console`, `vnode`, `pipe`, `sockets`: the kinds of files; `interfaces`: the network interface as
//!   sockets show it
//! - `memfs`, `files`, `device`: the file system, calls on files by name, the devices in `/dev`
//! - `locks`: locks on files and parts of them; `etfs`: files of the host
//! - `poll`, `kqueue`: waiting for one of many files or events
//! - `time`, `timers`, `memory`, `sysctl`, `system`: a family of calls each
//! - `timer_thread`: the only thread of the kernel, started with the first timer
//! - `wait`, `sync`, `limits`, `paid`, `abi`: wait queues, locks, limits, payment, layouts
//! - `work`: the bound on the work of an inline run
//!
//! Processes that share nothing share no lock: `getpid` takes none at all; reading a file takes the
//! process's descriptor table, the open file's offset and the file, each for reading where that is enough.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod abi;
mod call;
mod console;
mod credentials;
mod cwd;
mod descriptors;
mod device;
mod etfs;
mod file;
mod files;
mod groups;
mod interfaces;
mod io;
mod ioctl;
mod kqueue;
mod limits;
mod listed;
mod locks;
mod memfs;
mod memory;
mod owner;
mod paid;
mod pid;
mod pipe;
mod poll;
mod process;
mod rlimits;
#[cfg(test)]
#[path = "../../tests/support/seeds.rs"]
mod seeds;
mod signal;
mod sockets;
mod sync;
mod sysctl;
mod system;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod timer_thread;
mod timers;
mod uidinfo;
mod usage;
mod vnode;
mod wait;
mod work;

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use cwd::Cwd;
pub use etfs::{Etfs, EtfsError, Why};
use groups::Groups;
use kernel::{Args, Client, Errno, Identity, Kernel, Process};
use limits::Counters;
pub use limits::{Limits, Usage};
use locks::WaitGraph;
use memfs::Fs;
use process::{Credentials, Proc, ProcessTable};
use rlimits::Rlimits;
use sockets::Net;
use sysctl::Variables;
use table::Missing;
pub use table::{Entry, LIMIT, Status, by_name, by_number, table};
use time::Clock;
use timer_thread::TimerThread;
use uidinfo::UidTable;

/// The NetBSD release whose numbers, structures and answers this kernel has: the NetBSD-current that the
/// rump kernels of buildrump.sh are made from. Clients built for that release find what they expect.
const OSRELEASE: &str = "7.99.34";

/// The release as a number (`__NetBSD_Version__`).
const OSREVISION: i32 = 799_003_400;

/// The nanoseconds of a tick of the clock (`hz` is 100).
const TICK: i64 = 10_000_000;

/// The configuration of an embedded kernel.
pub struct Config {
    pub limits: Limits,
    /// The first value of `kern.hostname`.
    pub hostname: String,
    /// Takes the bytes written to the console, descriptors 0, 1 and 2 of a new client. Without it they are
    /// dropped.
    pub console: Option<Console>,
}

/// A function that takes what clients write to the console, in pieces of any size.
pub type Console = Box<dyn Fn(&[u8]) + Send + Sync>;

impl Default for Config {
    fn default() -> Self {
        Config { limits: Limits::default(), hostname: "rumpring".into(), console: None }
    }
}

/// The embedded kernel.
pub struct Embedded {
    system: Arc<System>,
}

/// The state that all processes share.
struct System {
    limits: Limits,
    counters: Arc<Counters>,
    identity: Identity,
    /// `kern.version`
    version: String,
    cpus: i32,
    /// The time of boot: on the monotonic clock, and in nanoseconds since 1970.
    booted: Instant,
    boot_time: i64,
    /// The credentials every client begins with: the superuser's.
    root: Arc<Credentials>,
    /// The limits every client begins with.
    rlimits: Arc<Rlimits>,
    groups: Groups,
    uidinfo: UidTable,
    /// The directories every client begins in.
    places: Arc<Cwd>,
    processes: ProcessTable,
    fs: Fs,
    timer_thread: Arc<TimerThread>,
    clock: Clock,
    net: Arc<Net>,
    variables: Variables,
    missing: Missing,
    /// The processes that wait for locks of others.
    waits: Arc<WaitGraph>,
    console: Option<Console>,
}

impl System {
    /// Returns the ticks of the clock since boot; they wrap after a year and four months.
    fn tick(&self) -> u32 {
        (self.booted.elapsed().as_nanos() / TICK as u128) as u32
    }

    fn print(&self, bytes: &[u8]) {
        if let Some(console) = &self.console {
            console(bytes);
        }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Embedded::new(Config::default())
    }
}

impl Embedded {
    /// Boots a kernel. It ends when this handle and its last process are dropped.
    pub fn new(config: Config) -> Self {
        let Config { limits, hostname, console } = config;
        let counters = Arc::new(Counters::new(limits.clone()));
        let identity = Identity {
            ostype: "NetBSD".into(),
            osrelease: OSRELEASE.into(),
            machine: "amd64".into(),
        };
        let version = concat!("rumpring ", env!("CARGO_PKG_VERSION"), ", embedded");
        let fs = Fs::new(&counters);
        let timer_thread = Arc::default();
        let system = System {
            version: format!("NetBSD {OSRELEASE} ({version})\n"),
            cpus: available_parallelism().map_or(1, |count| count.get() as i32),
            booted: Instant::now(),
            boot_time: time::now(),
            root: Arc::new(Credentials::default()),
            rlimits: Arc::new(Rlimits::new(&limits)),
            groups: Groups::new(),
            uidinfo: UidTable::new(),
            processes: ProcessTable::new(limits.processes),
            places: Cwd::first(fs.root()),
            fs,
            clock: Clock::default(),
            net: Arc::new(Net::new(&counters, &timer_thread)),
            timer_thread,
            variables: Variables::new(&hostname),
            missing: Missing::new(),
            waits: Arc::default(),
            console,
            limits,
            counters,
            identity,
        };
        Embedded { system: Arc::new(system) }
    }

    /// Returns what the kernel holds right now.
    pub fn usage(&self) -> Usage {
        let counters = &self.system.counters;
        Usage {
            processes: counters.processes.get(),
            files: counters.files.get(),
            flights: counters.flights.get(),
            inodes: counters.inodes.get(),
            bytes: counters.bytes.get(),
            ports: counters.ports.get(),
        }
    }

    /// Returns the calls that clients made but that are not implemented: their numbers, and how often.
    /// Numbers no call can have are counted under [`LIMIT`].
    pub fn missing(&self) -> Vec<(i32, u64)> {
        self.system.missing.counts()
    }
}

impl Kernel for Embedded {
    fn identity(&self) -> Identity {
        self.system.identity.clone()
    }

    fn runs_inline(&self, number: i32, args: &Args) -> bool {
        table::runs_inline(number, args)
    }

    fn spawn(&self, client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        Ok(Proc::spawn(&self.system, client, command)?)
    }
}
