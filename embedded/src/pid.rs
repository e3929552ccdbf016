//! The calls that return a process's pid and its parent's, and umask.
//!
//! Sources: NetBSD `sys/kern/{kern_prot,kern_descrip}.c`; getpid(2), umask(2).

use super::call::{Answer, SyscallContext};
use super::listed::{Listed, Runs, call};
use kernel::sys;

pub(super) const CALLS: &[Listed] = &[
    call(sys::GETPID, Runs::Inline, getpid),
    call(sys::GETPPID, Runs::Inline, getppid),
    call(sys::UMASK, Runs::Inline, umask),
];

/// `pid_t getpid(void)`; the second return value is the parent's pid.
fn getpid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.pid.into(), run.proc.parent().into()])
}

/// `pid_t getppid(void)`
fn getppid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.parent().into(), 0])
}

/// `mode_t umask(mode_t newmask)`
fn umask(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.cwd.set_umask(run.uint(0)).into(), 0])
}
