//! Resource limits. The limits on file sizes, processes, descriptors and socket buffers are enforced. The
//! others are about things of the client or its host: they are only kept and inherited.
//!
//! Source: NetBSD `sys/kern/{kern_resource,kern_proc}.c`; getrlimit(2).

use super::abi::{signal, u64_at};
use super::call::{Answer, SyscallContext};
use super::limits::Limits;
use super::listed::{Listed, Runs, call, partly};
use super::process::Proc;
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::GETRLIMIT, Runs::Inline, getrlimit),
    partly(
        sys::SETRLIMIT,
        Runs::Inline,
        setrlimit,
        "file size, processes, descriptors and socket buffers bind; the other limits are kept and \
        inherited",
    ),
];

/// The number of resources (`RLIM_NLIMITS`).
pub(super) const COUNT: usize = 12;

/// `RLIMIT_FSIZE`: the largest size to which writing may extend a file.
const FSIZE: usize = 1;
const DATA: usize = 2;
const STACK: usize = 3;
const MEMLOCK: usize = 6;
/// `RLIMIT_NPROC`: processes of one user.
pub(super) const NPROC: usize = 7;
/// `RLIMIT_NOFILE`: descriptors of one process.
const NOFILE: usize = 8;
/// `RLIMIT_SBSIZE`: bytes in the socket buffers of one user.
const SBSIZE: usize = 9;
const NTHR: usize = 11;

/// `RLIM_INFINITY`
pub(super) const INFINITY: u64 = i64::MAX as u64;

/// The most threads of all processes (`maxlwp`), and the initial limit of a user (`CHILD_MAX`).
const THREADS: u64 = 2048;
const THREADS_DEFAULT: u64 = 160;
/// The largest stack (`MAXSSIZ`), and the initial limit (`DFLSSIZ`).
const STACK_MAX: u64 = 128 << 20;
const STACK_DEFAULT: u64 = 4 << 20;
/// The largest data segment (`MAXDSIZ`).
const DATA_MAX: u64 = 8 << 30;
const PAGE: u64 = 4096;

/// `struct rlimit`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rlimit {
    pub soft: u64,
    pub hard: u64,
}

/// The limits of a process.
#[derive(Clone, Debug)]
pub(super) struct Rlimits([Rlimit; COUNT]);

impl Rlimits {
    /// Returns the limits every client begins with. NetBSD: `proc0_init`.
    pub fn new(limits: &Limits) -> Self {
        let mut all = [Rlimit { soft: INFINITY, hard: INFINITY }; COUNT];
        let same = |most: u64| Rlimit { soft: most, hard: most };
        all[STACK] = Rlimit { soft: STACK_DEFAULT, hard: STACK_MAX };
        all[MEMLOCK] = Rlimit { soft: limits.bytes / 3, hard: limits.bytes };
        all[NPROC] = same(limits.processes);
        all[NOFILE] = same(limits.files_per_process as u64);
        all[NTHR] = Rlimit { soft: THREADS_DEFAULT, hard: THREADS };
        Rlimits(all)
    }

    /// Returns the limit that is enforced.
    pub fn soft(&self, which: usize) -> u64 {
        self.0[which].soft
    }

    pub fn get(&self, which: usize) -> Rlimit {
        self.0[which]
    }

    /// Returns the most descriptors the process may have open.
    pub fn open_files(&self) -> usize {
        usize::try_from(self.soft(NOFILE)).unwrap_or(usize::MAX)
    }

    /// Returns the most bytes the socket buffers of the user may take.
    pub fn socket_bytes(&self) -> u64 {
        self.soft(SBSIZE)
    }
}

impl SyscallContext<'_, '_> {
    /// Returns EFBIG, and raises SIGXFSZ, if a write of `count` bytes at `from` would exceed the file size
    /// limit. NetBSD: `enforce_rlimit_fsize`; truncation has no limit.
    pub fn check_file_size(&self, from: u64, count: u64) -> Result<(), Errno> {
        if from.saturating_add(count) <= self.proc.rlimits().soft(FSIZE) {
            return Ok(());
        }
        self.proc.raise(signal::XFSZ);
        Err(Errno::EFBIG)
    }
}

/// Sets a limit of `proc`, which may be the caller. NetBSD: `dosetrlimit`.
pub(super) fn set(caller: &Proc, proc: &Proc, which: usize, new: Rlimit) -> Result<(), Errno> {
    if which >= COUNT || new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    let from = caller.credentials();
    let itself = caller.pid == proc.pid;
    proc.change_rlimits(|now, own| {
        let before = now.get(which);
        if before == new {
            return Ok(None);
        }
        if new.hard > before.hard || !itself && !from.owns(own) {
            from.check_superuser()?;
        }
        let mut all = now.clone();
        all.0[which] = bounded(which, new, &proc.system.limits);
        Ok(Some(all))
    })
}

/// Returns the limit `new`, lowered to what the system has at all.
fn bounded(which: usize, new: Rlimit, limits: &Limits) -> Rlimit {
    let most = match which {
        DATA => DATA_MAX,
        STACK => STACK_MAX,
        NPROC => limits.processes,
        NOFILE => limits.files_per_process as u64,
        NTHR => THREADS,
        _ => return new,
    };
    let unit = if which == STACK { PAGE } else { 1 };
    let bounded = |value: u64| value.min(most).next_multiple_of(unit);
    Rlimit { soft: bounded(new.soft), hard: bounded(new.hard) }
}

/// Returns the index of the resource with the number a client gave.
fn index(which: i32) -> Result<usize, Errno> {
    usize::try_from(which).ok().filter(|&which| which < COUNT).ok_or(Errno::EINVAL)
}

/// `int getrlimit(int which, struct rlimit *rlp)`
fn getrlimit(run: &mut SyscallContext<'_, '_>) -> Answer {
    let which = index(run.int(0))?;
    let Rlimit { soft, hard } = run.proc.rlimits().get(which);
    let addr = run.word(1);
    run.copyout(&[soft.to_le_bytes(), hard.to_le_bytes()].concat(), addr)?;
    Ok([0, 0])
}

/// `int setrlimit(int which, const struct rlimit *rlp)`
fn setrlimit(run: &mut SyscallContext<'_, '_>) -> Answer {
    let limit = run.copyin::<16>(run.word(1))?;
    let limit = Rlimit { soft: u64_at(&limit, 0), hard: u64_at(&limit, 8) };
    set(run.proc, run.proc, index(run.int(0))?, limit)?;
    Ok([0, 0])
}
