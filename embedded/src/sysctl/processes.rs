//! The sysctl nodes of processes: the list that ps(1) reads, and the limits of each process.
//!
//! Sources: NetBSD `sys/kern/{kern_proc,kern_resource}.c`, `sys/sys/sysctl.h`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::abi::u64_at;
use super::super::call::{Result, Stop, SyscallContext};
use super::super::process::Proc;
use super::super::rlimits;
use super::tree::node;
use super::{ANY_WRITE, Node, READ_WRITE, Request, TYPE_QUAD, Value, exchange, generic, query};
use kernel::Errno;

/// The size of `struct kinfo_proc2`.
const ENTRY: usize = 680;
/// The entries to have room for beyond the present number, when the client asks for the size.
const SLOP: u64 = 5;

/// `KERN_PROC_*`
mod by {
    pub const ALL: i32 = 0;
    pub const PID: i32 = 1;
    pub const GROUP: i32 = 2;
    pub const SESSION: i32 = 3;
    pub const TERMINAL: i32 = 4;
    pub const USER: i32 = 5;
    pub const REAL_USER: i32 = 6;
    pub const GID: i32 = 7;
    pub const REAL_GID: i32 = 8;
}
/// The argument for processes without a terminal, which all of them are.
const NO_TERMINAL: i32 = -1;

/// `kern.proc2.OP.ARG.SIZE.COUNT`. NetBSD: `sysctl_doeproc`.
pub(super) fn list(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let &[op, arg, size, count] = match &name[at..] {
        [generic::QUERY] => return query(run, &[], request, needed),
        rest => <&[i32; 4]>::try_from(rest).map_err(|_| Errno::EINVAL)?,
    };
    let (size, count) = (u64::from(size as u32), u64::from(count as u32));
    let found = meant(run, op, arg)?;
    if request.old == 0 {
        *needed = found.len() as u64 * size + SLOP * ENTRY as u64;
        return Ok(());
    }
    let fits = request.room.checked_div(size).unwrap_or(u64::MAX).min(count);
    // The number of entries copied out in earlier runs, and the pid of the last.
    let (mut given, mut last) = (run.done() >> 32, run.done() as u32 as i32);
    let part = size.min(ENTRY as u64) as usize;
    let mut whole = true;
    let before = if run.done() == 0 { i32::MAX } else { last };
    for proc in found.iter().filter(|proc| proc.pid < before) {
        if given == fits {
            whole = false;
            break;
        }
        if run.memory().room() < part + 8 {
            run.call.progress.done = given << 32 | u64::from(last as u32);
            return Err(Stop::Flush);
        }
        if part > 0 {
            run.copyout(&entry(proc)[..part], request.old.wrapping_add(given * size))?;
        }
        (given, last) = (given + 1, proc.pid);
    }
    *needed = given * size;
    if whole { Ok(()) } else { Err(Errno::ENOMEM.into()) }
}

/// Returns the processes a client asks for.
fn meant(run: &SyscallContext<'_, '_>, op: i32, arg: i32) -> Result<Vec<Arc<Proc>>> {
    let system = run.system();
    let fits = |proc: &Proc| {
        let own = proc.credentials();
        match op {
            by::SESSION => proc.group().session.id == arg,
            by::TERMINAL => arg == NO_TERMINAL,
            by::USER => own.euid == arg as u32,
            by::REAL_USER => own.uid == arg as u32,
            by::GID => own.egid == arg as u32,
            by::REAL_GID => own.gid == arg as u32,
            _ => true,
        }
    };
    let mut found: Vec<_> = match op {
        by::PID => system.processes.find(arg).into_iter().collect(),
        by::GROUP => system.groups.find(arg).map_or(Vec::new(), |group| group.members(system)),
        by::ALL | by::SESSION..=by::REAL_GID => {
            system.processes.all().filter(|proc| fits(proc)).collect()
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    found.sort_unstable_by_key(|proc| std::cmp::Reverse(proc.pid));
    Ok(found)
}

/// `P_INMEM`, `P_SUGID`, `P_EXEC`
const IN_MEMORY: i32 = 0x4;
const TAINTED: i32 = 0x100;
const EXECED: i32 = 0x4000;
/// `EPROC_SLEADER`
const LEADS: i32 = 0x2;
/// `LSSLEEP`: the process waits for its client.
const ASLEEP: u8 = 3;
/// `SACTIVE`
const ACTIVE: u64 = 2;
/// `NZERO`
const NICE: i8 = 20;
/// `NO_PGID`
const NONE: i32 = -1;

/// Encodes a `struct kinfo_proc2`, as far as this kernel knows the values. NetBSD: `fill_kproc2`.
fn entry(proc: &Proc) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    let (own, group) = (proc.credentials(), proc.group());
    let leads = group.session.id == proc.pid;
    let flag = |is: bool, flag: i32| if is { flag } else { 0 };
    let flags = IN_MEMORY | flag(proc.is_tainted(), TAINTED) | flag(proc.has_execed(), EXECED);
    let words = [
        flag(leads, LEADS),
        0,
        flags,
        proc.pid,
        proc.parent(),
        group.session.id,
        group.id,
        NONE,
        own.euid as i32,
        own.uid as i32,
        own.egid as i32,
        own.gid as i32,
    ];
    for (at, word) in words.iter().enumerate() {
        put(104 + 4 * at, &word.to_le_bytes());
    }
    for (at, gid) in own.groups.iter().enumerate() {
        put(152 + 4 * at, &gid.to_le_bytes());
    }
    put(216, &(own.groups.len() as i16).to_le_bytes());
    put(220, &NONE.to_le_bytes());
    let micros = proc.spent.nanoseconds() / 1000;
    let time = [(micros / 1_000_000) as u32, (micros % 1_000_000) as u32];
    put(228, &time[0].to_le_bytes());
    put(232, &time[1].to_le_bytes());
    let nice = proc.nice.load(Relaxed) + NICE;
    put(360, &[ASLEEP, 0, 0, nice as u8]);
    let command = proc.command();
    put(368, &command);
    put(408, &group.session.login());
    put(448, &1u64.to_le_bytes());
    let began = proc.began();
    put(456, &((began / 1_000_000_000) as u32).to_le_bytes());
    put(460, &((began % 1_000_000_000 / 1000) as u32).to_le_bytes());
    put(472, &time[0].to_le_bytes());
    put(476, &time[1].to_le_bytes());
    put(568, &proc.spent.signals().to_le_bytes());
    put(576, &proc.spent.sleeps().to_le_bytes());
    put(608, &(flags as u64).to_le_bytes());
    put(616, &1u64.to_le_bytes());
    put(632, &ACTIVE.to_le_bytes());
    put(640, &own.suid.to_le_bytes());
    put(644, &own.sgid.to_le_bytes());
    put(648, b"netbsd");
    out
}

/// `KERN_PROC_ARGV` to `KERN_PROC_NENV`
const ARGUMENTS: i32 = 1;
const ARGUMENT_COUNT: i32 = 2;
const ENVIRONMENT_COUNT: i32 = 4;
/// `ARG_MAX`
const ARGUMENTS_MAX: u64 = 256 * 1024;

/// `kern.proc_args.PID.WHAT`: returns the largest possible length. Only the client's host knows the
/// arguments, as NetBSD does not know a system process's. NetBSD: `sysctl_kern_proc_args`.
pub(super) fn arguments(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let (pid, what) = match name[at..] {
        [generic::QUERY] => return query(run, &[], request, needed),
        [pid, what] if request.new == 0 => (pid, what),
        _ => return Err(Errno::EINVAL.into()),
    };
    let known = (ARGUMENTS..=ENVIRONMENT_COUNT).contains(&what);
    let proc = run.system().processes.find(pid);
    if !known || proc.is_none() || request.old != 0 {
        return Err(Errno::EINVAL.into());
    }
    let counts = what == ARGUMENT_COUNT || what == ENVIRONMENT_COUNT;
    *needed = if counts { 4 } else { ARGUMENTS_MAX };
    Ok(())
}

/// `proc.PID`
pub(super) static SETTINGS: &[Node] =
    &[node(2, "rlimit", "Limits of a process", Value::Node(RLIMITS))];

static RLIMITS: &[Node] = &[
    node(1, "cputime", "Seconds on a processor", Value::Node(BOTH)),
    node(2, "filesize", "Bytes of a file", Value::Node(BOTH)),
    node(3, "datasize", "Bytes of data", Value::Node(BOTH)),
    node(4, "stacksize", "Bytes of stack", Value::Node(BOTH)),
    node(5, "coredumpsize", "Bytes of a core file", Value::Node(BOTH)),
    node(6, "memoryuse", "Bytes of memory", Value::Node(BOTH)),
    node(7, "memorylocked", "Bytes of memory locked", Value::Node(BOTH)),
    node(8, "maxproc", "Processes of its user", Value::Node(BOTH)),
    node(9, "descriptors", "Open files", Value::Node(BOTH)),
    node(10, "sbsize", "Bytes in socket buffers", Value::Node(BOTH)),
    node(11, "vmemoryuse", "Bytes of address space", Value::Node(BOTH)),
    node(12, "maxlwp", "Threads of its user", Value::Node(BOTH)),
];

const SOFT: i32 = 1;

static BOTH: &[Node] = &[
    node(SOFT, "soft", "What binds", Value::Asked(LIMIT, 8, limit)),
    node(2, "hard", "How far it may be raised", Value::Asked(LIMIT, 8, limit)),
];

const LIMIT: u32 = TYPE_QUAD | READ_WRITE | ANY_WRITE;

/// `proc.PID.rlimit.WHICH.soft`, `.hard`. NetBSD: `sysctl_proc_plimit`.
fn limit(
    run: &mut SyscallContext<'_, '_>,
    name: &[i32],
    at: usize,
    request: &Request,
    needed: &mut u64,
) -> Result<()> {
    let &[_, pid, _, which, end] = match <&[i32; 5]>::try_from(name) {
        Ok(name) if at == name.len() => name,
        _ => return Err(Errno::EINVAL.into()),
    };
    let other;
    let proc = if pid == i32::MAX {
        run.proc
    } else {
        other = run.system().processes.find(pid).ok_or(Errno::ESRCH)?;
        &other
    };
    let which = which as usize - 1;
    let mut limit = proc.rlimits().get(which);
    let value = if end == SOFT { &mut limit.soft } else { &mut limit.hard };
    let now = value.to_le_bytes();
    if let Some(new) = exchange(run, LIMIT, 8, &now, request, needed)? {
        *value = u64_at(&new, 0);
        rlimits::set(run.proc, proc, which, limit)?;
    }
    Ok(())
}
