//! Signals between clients. The client's own system acts on a signal; this kernel only delivers it.
//!
//! Actions, masks and pending signals belong to the client's process on its host: as in a rump kernel there
//! is no sigaction, sigprocmask, sigpending, sigsuspend, sigtimedwait or sigqueueinfo. A rump kernel offers
//! no kill either; the one here follows NetBSD's `sys/kern/ {sys_sig,kern_sig}.c`,
//! `sys/secmodel/suser/secmodel_suser.c`; kill(2).
//!
//! A prefork is a process without a thread: its signals stay pending, as for any process that cannot run
//! just now. They are delivered in the first call of the client that takes its place, and are dropped with
//! the prefork if no client does.

use super::abi::signal;
use super::call::{Answer, Result, SyscallContext};
use super::listed::{Listed, Runs, call};
use super::process::{INIT, Proc};
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] =
    &[call(sys::KILL, Runs::InlineIf(|args| args[0] as i32 > 0), kill)];

/// `int kill(pid_t pid, int signum)`: signal 0 only checks. NetBSD: `kill1`.
fn kill(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (pid, signo) = (run.int(0), run.int(1));
    if signo as u32 >= signal::LIMIT {
        return Err(Errno::EINVAL.into());
    }
    match pid {
        // No client runs as init, so the signal has no effect.
        INIT => {
            let root = run.system().root.clone();
            let own = run.proc.credentials();
            let same = signo == signal::CONT && run.proc.group().session.id == 0;
            if !(own.is_superuser() || own.shares_user(&root) || same) {
                return Err(Errno::EPERM.into());
            }
        }
        pid if pid > 0 => {
            let other = run.system().processes.find(pid).ok_or(Errno::ESRCH)?;
            if !may(run.proc, &other, signo) {
                return Err(Errno::EPERM.into());
            }
            other.send(signo);
        }
        _ => kill_many(run, pid, signo)?,
    }
    Ok([0, 0])
}

/// Sends a signal to a group, or to every process but the caller. NetBSD: `killpg1`.
fn kill_many(run: &SyscallContext<'_, '_>, pid: i32, signo: i32) -> Result<()> {
    let system = run.system();
    let mut reached = false;
    let mut each = |other: &Proc| {
        if may(run.proc, other, signo) {
            reached = true;
            other.send(signo);
        }
    };
    if pid == -1 {
        let others = system.processes.all().filter(|other| other.pid != run.proc.pid);
        others.for_each(|other| each(&other));
    } else {
        let group = match pid {
            0 => run.proc.group(),
            _ => {
                let id = pid.checked_neg().ok_or(Errno::ESRCH)?;
                system.groups.find(id).ok_or(Errno::ESRCH)?
            }
        };
        group.members(system).iter().for_each(|other| each(other));
    }
    if reached { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Returns `true` if `from` may send `to` this signal: the superuser may, a process of the same user may,
/// and any process in the same session may send SIGCONT. NetBSD: `signal_listener_cb`.
fn may(from: &Proc, to: &Proc, signo: i32) -> bool {
    let own = from.credentials();
    own.is_superuser()
        || own.shares_user(&to.credentials())
        || signo == signal::CONT && from.group().session.id == to.group().session.id
}
