//! Signals between clients. What a signal does is the client's business: here it is only delivered.
//!
//! Actions, masks and what is pending belong to the client's own process, which is the host's: as in a
//! rump kernel there is no sigaction, sigprocmask, sigpending, sigsuspend, sigtimedwait or
//! sigqueueinfo. A rump kernel offers no kill either; the one here follows NetBSD's `sys/kern/
//! {sys_sig,kern_sig}.c`, `sys/secmodel/suser/secmodel_suser.c`; kill(2).
//!
//! A prefork is a process without a thread: what it is sent is pending, as for any process that cannot
//! run just now, and is delivered in the first call of the client that takes its place. It goes with
//! the prefork if none does.

use super::abi::signal;
use super::call::{Answer, Result, SyscallContext};
use super::process::{INIT, Proc};
use super::table::{Listed, Runs, call};
use kernel::Errno;
use kernel::sys;

pub(super) const CALLS: &[Listed] =
    &[call(sys::KILL, Runs::InlineIf(|args| args[0] as i32 > 0), kill)];

/// `int kill(pid_t pid, int signum)`: signal 0 only looks. NetBSD: `kill1`.
fn kill(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (pid, signo) = (run.int(0), run.int(1));
    if signo as u32 >= signal::LIMIT {
        return Err(Errno::EINVAL.into());
    }
    match pid {
        // Nobody runs as init, so nothing comes of it.
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

/// Sends to a group, or to everybody but the caller. NetBSD: `killpg1`.
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

/// Whether one process may send another this signal: the superuser, one of the same user, and within a
/// session anybody to go on. NetBSD: `signal_listener_cb`.
fn may(from: &Proc, to: &Proc, signo: i32) -> bool {
    let own = from.credentials();
    own.is_superuser()
        || own.shares_user(&to.credentials())
        || signo == signal::CONT && from.group().session.id == to.group().session.id
}
