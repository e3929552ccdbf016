//! Changing mode, owner, flags and times.
//!
//! Sources: NetBSD `sys/kern/vfs_syscalls.c`, `sys/sys/stat.h`; chmod(2), chown(2), chflags(2),
//! utimes(2), utimensat(2).

use kernel::sys;
use std::sync::Arc;

use super::super::abi::{mode, timespec_at, timeval_at};
use super::super::call::{Answer, Result, SyscallContext};
use super::super::listed::{Listed, Runs, call, partly};
use super::super::memfs::{Handover, Inode};
use super::super::time;
use super::{Named, here, there};

use Handover::{Native, Posix};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::CHMOD, Runs::Inline, |run| chmod(run, here(0), true)),
    call(sys::CHOWN, Runs::Inline, |run| chown(run, here(0), true, Native)),
    call(sys::CHFLAGS, Runs::Inline, |run| chflags(run, true)),
    call(sys::FCHFLAGS, Runs::Inline, fchflags),
    call(sys::FCHOWN, Runs::Inline, |run| fchown(run, Native)),
    call(sys::FCHMOD, Runs::Inline, fchmod),
    call(sys::LCHMOD, Runs::Inline, |run| chmod(run, here(0), false)),
    call(sys::LCHOWN, Runs::Inline, |run| chown(run, here(0), false, Native)),
    call(sys::POSIX_CHOWN, Runs::Inline, |run| chown(run, here(0), true, Posix)),
    call(sys::POSIX_FCHOWN, Runs::Inline, |run| fchown(run, Posix)),
    call(sys::POSIX_LCHOWN, Runs::Inline, |run| chown(run, here(0), false, Posix)),
    call(sys::LCHFLAGS, Runs::Inline, |run| chflags(run, false)),
    partly(sys::UTIMES, Runs::Inline, |run| utimes(run, true), FAR_TIMES),
    partly(sys::FUTIMES, Runs::Inline, futimes, FAR_TIMES),
    partly(sys::LUTIMES, Runs::Inline, |run| utimes(run, false), FAR_TIMES),
    call(sys::FCHMODAT, Runs::Inline, fchmodat),
    call(sys::FCHOWNAT, Runs::Inline, fchownat),
    partly(sys::UTIMENSAT, Runs::Inline, utimensat, FAR_TIMES),
    partly(sys::FUTIMENS, Runs::Inline, futimens, FAR_TIMES),
];

const FAR_TIMES: &str =
    "times before 1677 and after 2262 become those, and a part of a second is less than one";

/// `int chmod(const char *path, mode_t mode)`, `lchmod`
fn chmod(run: &mut SyscallContext<'_, '_>, named: Named, follow: bool) -> Answer {
    let mode = run.uint(named.after(1));
    let inode = run.look_up(named, follow)?;
    change_mode(run, &inode, mode)
}

/// `int fchmod(int fd, mode_t mode)`
fn fchmod(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (_, inode) = run.vnode(run.int(0))?;
    let mode = run.uint(1);
    change_mode(run, &inode, mode)
}

/// `int fchmodat(int fd, const char *path, mode_t mode, int flag)`
fn fchmodat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let follow = run.follows(3);
    chmod(run, there(0), follow)
}

fn change_mode(run: &SyscallContext<'_, '_>, inode: &Inode, mode: u32) -> Answer {
    inode.change_mode(&run.proc.credentials(), mode & mode::PERMISSIONS)?;
    Ok([0, 0])
}

/// `int chown(const char *path, uid_t uid, gid_t gid)`, `lchown`, `__posix_chown`, `__posix_lchown`
fn chown(
    run: &mut SyscallContext<'_, '_>,
    named: Named,
    follow: bool,
    handover: Handover,
) -> Answer {
    let inode = run.look_up(named, follow)?;
    change_owner(run, &inode, named.after(1), handover)
}

/// `int fchown(int fd, uid_t uid, gid_t gid)`, `__posix_fchown`
fn fchown(run: &mut SyscallContext<'_, '_>, handover: Handover) -> Answer {
    let (_, inode) = run.vnode(run.int(0))?;
    change_owner(run, &inode, 1, handover)
}

/// `int fchownat(int fd, const char *path, uid_t owner, gid_t group, int flag)`
fn fchownat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let follow = run.follows(4);
    chown(run, there(0), follow, Native)
}

/// Changes the owner to the user in argument `n` and the group in the next one; -1 leaves the present one.
fn change_owner(
    run: &SyscallContext<'_, '_>,
    inode: &Inode,
    n: usize,
    handover: Handover,
) -> Answer {
    let named = |id: u32| (id != u32::MAX).then_some(id);
    let (uid, gid) = (named(run.uint(n)), named(run.uint(n + 1)));
    inode.change_owner(&run.proc.credentials(), uid, gid, handover)?;
    Ok([0, 0])
}

/// `int chflags(const char *path, u_long flags)`, `lchflags`
fn chflags(run: &mut SyscallContext<'_, '_>, follow: bool) -> Answer {
    let inode = run.look_up(here(0), follow)?;
    change_flags(run, &inode)
}

/// `int fchflags(int fd, u_long flags)`
fn fchflags(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (_, inode) = run.vnode(run.int(0))?;
    change_flags(run, &inode)
}

fn change_flags(run: &SyscallContext<'_, '_>, inode: &Inode) -> Answer {
    // All bits set stand for no change (`VNOVAL`).
    if run.word(1) != u64::MAX {
        inode.change_flags(&run.proc.credentials(), run.uint(1))?;
    }
    Ok([0, 0])
}

/// The changes a call makes to a file's times.
struct Times {
    accessed: Option<i64>,
    modified: Option<i64>,
    /// True if both times are set to the present.
    now: bool,
}

/// The value of nanoseconds or microseconds that stands for the present (`UTIME_NOW`).
const UTIME_NOW: i64 = (1 << 30) - 1;
/// The value of nanoseconds or microseconds that stands for no change (`UTIME_OMIT`).
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// Copies in two times, in seconds and parts of `unit` nanoseconds.
fn times(run: &mut SyscallContext<'_, '_>, addr: u64, unit: i64) -> Result<Times> {
    let now = time::now();
    if addr == 0 {
        return Ok(Times { accessed: Some(now), modified: Some(now), now: true });
    }
    let bytes = run.copyin::<32>(addr)?;
    let time = if unit == MICROSECONDS { timeval_at } else { timespec_at };
    let wanted = |at: usize| match time(&bytes, at) {
        (_, UTIME_NOW) => Some(now),
        // One second before 1970 stands for no change (`VNOVAL`).
        (_, UTIME_OMIT) | (-1, _) => None,
        (seconds, parts) => {
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(parts) * i128::from(unit);
            Some(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
    };
    let present = [0, 16].iter().all(|&at| time(&bytes, at).1 == UTIME_NOW);
    Ok(Times { accessed: wanted(0), modified: wanted(16), now: present })
}

const MICROSECONDS: i64 = 1000;
const NANOSECONDS: i64 = 1;

/// `int __utimes50(const char *path, const struct timeval *tptr)`, `__lutimes50`
fn utimes(run: &mut SyscallContext<'_, '_>, follow: bool) -> Answer {
    let times = times(run, run.word(1), MICROSECONDS)?;
    let inode = run.look_up(here(0), follow)?;
    change_times(run, &inode, &times)
}

/// `int __futimes50(int fd, const struct timeval *tptr)`
fn futimes(run: &mut SyscallContext<'_, '_>) -> Answer {
    by_descriptor(run, MICROSECONDS)
}

/// `int futimens(int fd, const struct timespec *tptr)`
fn futimens(run: &mut SyscallContext<'_, '_>) -> Answer {
    by_descriptor(run, NANOSECONDS)
}

fn by_descriptor(run: &mut SyscallContext<'_, '_>, unit: i64) -> Answer {
    let (_, inode) = run.vnode(run.int(0))?;
    let times = times(run, run.word(1), unit)?;
    change_times(run, &inode, &times)
}

/// `int utimensat(int fd, const char *path, const struct timespec *tptr, int flag)`
fn utimensat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let times = times(run, run.word(2), NANOSECONDS)?;
    let follow = run.follows(3);
    let inode = run.look_up(there(0), follow)?;
    change_times(run, &inode, &times)
}

fn change_times(run: &SyscallContext<'_, '_>, inode: &Arc<Inode>, times: &Times) -> Answer {
    let own = run.proc.credentials();
    inode.change_times(&own, times.accessed, times.modified, times.now)?;
    Ok([0, 0])
}
