//! A small kernel in memory, with NetBSD's face: files, pipes, sockets, time, signals and
//! sysctl for clients that speak NetBSD/amd64.
//!
//! No call sleeps on a thread. A call that cannot go on stops with a reason (`Stop`), and is run
//! again from the top once that has changed; so it copies in first, changes state last, copies out
//! after that, and keeps how far it came in its `Progress`. A blocked client costs a place in a
//! queue.
//!
//! # The rooms of this room
//!
//! - `call`: one run of a call, and how it stops; `table`: which calls there are
//! - `process`, `identity`, `cwd`, `signal`: processes, who and where they are, what they send each other
//! - `credentials`, `groups`, `uidinfo`: whose rights they have, and which of them belong together
//! - `rlimits`, `usage`: what they may use, and what they have used
//! - `file`, `descriptors`: open files and what a kind of them can do, and the tables that hold them
//! - `io`, `ioctl`: reading and writing whatever a descriptor is open on, and what else can be asked
//! - `console`, `vnode`, `pipe`, `sockets`: the kinds of files there are; `interfaces`: what sockets are
//!   asked about the network
//! - `memfs`, `files`, `device`: the file system, files by name, what `/dev` has
//! - `locks`: locks on files and parts of them; `etfs`: files of the host
//! - `poll`, `kqueue`: waiting for one of many
//! - `time`, `timers`, `memory`, `sysctl`, `system`: a family of calls each
//! - `alarm`: the one thread of the kernel, which timers have once there is one
//! - `wait`, `sync`, `limits`, `paid`, `abi`: queues, locks, bounds, who pays, layouts
//! - `work`: how much is done where all clients are served
//!
//! No lock is shared by processes that share nothing: `getpid` takes none at all, reading a file takes
//! the process's descriptor table, the open file's offset and the file, each for reading where that
//! will do.

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

/// The release whose numbers, structures and answers this kernel gives: the NetBSD-current that the
/// rump kernels of buildrump.sh are made from. Clients built for it find what they expect.
const OSRELEASE: &str = "7.99.34";

/// The same as a number (`__NetBSD_Version__`).
const OSREVISION: i32 = 799_003_400;

/// Nanoseconds of a tick of the clock (`hz` is 100).
const TICK: i64 = 10_000_000;

/// What to make an embedded kernel from.
pub struct Config {
    pub limits: Limits,
    /// The first value of `kern.hostname`.
    pub hostname: String,
    /// Where bytes written to the console go: descriptors 0, 1 and 2 of a new client. Without it
    /// they go nowhere.
    pub console: Option<Console>,
}

/// Takes what clients write to the console, in pieces of any size.
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

/// What all processes share.
struct System {
    limits: Limits,
    counters: Arc<Counters>,
    identity: Identity,
    /// `kern.version`
    version: String,
    cpus: i32,
    /// When it began: on the monotonic clock, and in nanoseconds since 1970.
    booted: Instant,
    boot_time: i64,
    /// The credentials every client begins with: the superuser's.
    root: Arc<Credentials>,
    /// The limits every client begins with.
    rlimits: Arc<Rlimits>,
    groups: Groups,
    uidinfo: UidTable,
    /// Where every client begins.
    places: Arc<Cwd>,
    processes: ProcessTable,
    fs: Fs,
    timer_thread: Arc<TimerThread>,
    clock: Clock,
    net: Arc<Net>,
    variables: Variables,
    missing: Missing,
    /// Who waits for whose locks.
    waits: Arc<WaitGraph>,
    console: Option<Console>,
}

impl System {
    /// Ticks of the clock since it began; they wrap after a year and four months.
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
    /// Boots a kernel. It ends when it and its last process are dropped.
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

    /// What the kernel holds right now.
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

    /// The calls that were made but are not there, by number, and how often. Numbers no call can
    /// have are counted under [`LIMIT`].
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
