//! Resource usage and priorities of processes: getrusage, getpriority and setpriority.
//!
//! Sources: NetBSD `sys/kern/kern_resource.c`; getrusage(2), getpriority(2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::abi::pair;
use super::call::{Answer, Result, SyscallContext};
use super::listed::{Listed, Runs, call, partly};
use super::process::Proc;
use kernel::{Errno, Outcome, sys};

pub(super) const CALLS: &[Listed] = &[
    partly(
        sys::SETPRIORITY,
        Runs::InlineIf(|args| args[0] as i32 == PROCESS),
        setpriority,
        "kept and inherited, but all are served alike",
    ),
    call(sys::GETPRIORITY, Runs::InlineIf(|args| args[0] as i32 == PROCESS), getpriority),
    partly(
        sys::GETRUSAGE,
        Runs::Inline,
        getrusage,
        "system time, sleeps and signals only: the rest of what a client uses is its host's; \
         nothing of children, as nobody can wait for them",
    ),
];

/// The resource usage of a process.
#[derive(Default)]
pub(super) struct Spent {
    /// The nanoseconds in calls, without those asleep.
    time: AtomicU64,
    /// The number of times a call went to sleep.
    sleeps: AtomicU32,
    signals: AtomicU32,
}

impl Spent {
    /// Adds the time of a run of a call. It is wall-clock time on the thread, as a kernel reads it at a
    /// switch, even if the host has run something else meanwhile.
    pub fn call(&self, time: Duration, outcome: Outcome) {
        self.time.fetch_add(time.as_nanos() as u64, Relaxed);
        if matches!(outcome, Outcome::Sleep(_)) {
            self.sleeps.fetch_add(1, Relaxed);
        }
    }

    /// Counts a signal.
    pub fn signal(&self) {
        self.signals.fetch_add(1, Relaxed);
    }

    /// Returns the nanoseconds in calls.
    pub fn nanoseconds(&self) -> u64 {
        self.time.load(Relaxed)
    }

    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Relaxed).into()
    }

    pub fn signals(&self) -> u64 {
        self.signals.load(Relaxed).into()
    }
}

const SELF: i32 = 0;
const CHILDREN: i32 = -1;

/// `int __getrusage50(int who, struct rusage *rusage)`
fn getrusage(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (who, addr) = (run.int(0), run.word(1));
    let mut usage = [0; 144];
    match who {
        SELF => {
            let spent = &run.proc.spent;
            let micros = (spent.nanoseconds() / 1000) as i64;
            usage[16..32].copy_from_slice(&pair(micros / 1_000_000, micros % 1_000_000));
            usage[120..128].copy_from_slice(&spent.signals().to_le_bytes());
            usage[128..136].copy_from_slice(&spent.sleeps().to_le_bytes());
        }
        CHILDREN => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    run.copyout(&usage, addr)?;
    Ok([0, 0])
}

const PROCESS: i32 = 0;
const GROUP: i32 = 1;
const USER: i32 = 2;

/// Returns the processes that `getpriority` and `setpriority` act on.
fn meant(run: &SyscallContext<'_, '_>, which: i32, who: i32) -> Result<Vec<Arc<Proc>>> {
    let system = run.system();
    Ok(match which {
        PROCESS => {
            let pid = if who == 0 { run.proc.pid } else { who };
            system.processes.find(pid).into_iter().collect()
        }
        GROUP => {
            let group = if who == 0 { Some(run.proc.group()) } else { system.groups.find(who) };
            group.map_or(Vec::new(), |group| group.members(system))
        }
        USER => {
            let user = if who == 0 { run.proc.credentials().euid } else { who as u32 };
            let theirs = |proc: &Arc<Proc>| proc.credentials().euid == user;
            system.processes.all().filter(theirs).collect()
        }
        _ => return Err(Errno::EINVAL.into()),
    })
}

/// `int getpriority(int which, id_t who)`: returns the best priority of those processes.
fn getpriority(run: &mut SyscallContext<'_, '_>) -> Answer {
    let meant = meant(run, run.int(0), run.int(1))?;
    let best = meant.iter().map(|proc| proc.nice.load(Relaxed)).min();
    Ok([best.ok_or(Errno::ESRCH)?.into(), 0])
}

/// `int setpriority(int which, id_t who, int prio)`
fn setpriority(run: &mut SyscallContext<'_, '_>) -> Answer {
    let meant = meant(run, run.int(0), run.int(1))?;
    let nice = run.int(2).clamp(-20, 20) as i8;
    let mut result = Err(Errno::ESRCH);
    for proc in &meant {
        result = renice(run.proc, proc, nice);
        if result.is_err() {
            break;
        }
    }
    result?;
    Ok([0, 0])
}

/// NetBSD: `donice`.
fn renice(from: &Proc, proc: &Proc, nice: i8) -> Result<(), Errno> {
    let (own, other) = (from.credentials(), proc.credentials());
    let same = own.euid == other.euid || own.uid == other.euid;
    if own.euid != 0 && own.uid != 0 && !same {
        return Err(Errno::EPERM);
    }
    let falls = nice < proc.nice.load(Relaxed);
    if !own.is_superuser() && (falls || !same) {
        return Err(Errno::EACCES);
    }
    proc.nice.store(nice, Relaxed);
    Ok(())
}
