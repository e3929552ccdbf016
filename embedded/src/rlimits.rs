//! Resource limits. Those on file sizes, processes, descriptors and socket buffers bind; what the others are
//! about is the client's, or its host's: they are kept and inherited.
//!
//! Source: NetBSD `sys/kern/{kern_resource,kern_proc}.c`; getrlimit(2).

use super::abi::{signal, u64_at};
use super::call::{Answer, SyscallContext};
use super::limits::Limits;
use super::process::Proc;
use super::table::{Listed, Runs, call, partly};
use kernel::Errno;
use kernel::sys;

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

/// How many there are (`RLIM_NLIMITS`).
pub(super) const COUNT: usize = 12;

/// `RLIMIT_FSIZE`: how long a file may become by writing.
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

/// The most threads of all processes (`maxlwp`), and of a user to begin with (`CHILD_MAX`).
const THREADS: u64 = 2048;
const THREADS_DEFAULT: u64 = 160;
/// The longest stack (`MAXSSIZ`), and the one a program begins with (`DFLSSIZ`).
const STACK_MAX: u64 = 128 << 20;
const STACK_DEFAULT: u64 = 4 << 20;
/// The most data (`MAXDSIZ`).
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
    /// What every client begins with. NetBSD: `proc0_init`.
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

    /// What binds.
    pub fn soft(&self, which: usize) -> u64 {
        self.0[which].soft
    }

    pub fn get(&self, which: usize) -> Rlimit {
        self.0[which]
    }

    /// How many descriptors it may have open.
    pub fn open_files(&self) -> usize {
        usize::try_from(self.soft(NOFILE)).unwrap_or(usize::MAX)
    }

    /// How many bytes the socket buffers of its user may take.
    pub fn socket_bytes(&self) -> u64 {
        self.soft(SBSIZE)
    }
}

impl SyscallContext<'_, '_> {
    /// EFBIG, and a signal, if a regular file may not be written from `from` on for `count` bytes.
    /// NetBSD: `enforce_rlimit_fsize`; a file may be cut to any length.
    pub fn check_file_size(&self, from: u64, count: u64) -> Result<(), Errno> {
        if from.saturating_add(count) <= self.proc.rlimits().soft(FSIZE) {
            return Ok(());
        }
        self.proc.raise(signal::XFSZ);
        Err(Errno::EFBIG)
    }
}

/// Sets a limit of `proc`, which the caller may be. NetBSD: `dosetrlimit`.
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

/// What a limit becomes that is set to `new`: beyond what the system has at all nobody gets.
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

/// The limit a client means by a number.
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
