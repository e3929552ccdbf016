//! Signals between clients. What a signal does is the client's business: here it is only delivered.
//!
//! A rump kernel offers no kill to its clients; what is here follows NetBSD's `sys/kern/sys_sig.c`;
//! kill(2).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::abi::signal;
use super::call::{Answer, Run};
use super::process::Task;
use super::table::{Listed, call};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[call(37, kill)];

/// `int kill(pid_t pid, int signum)`: signal 0 only looks.
fn kill(run: &mut Run<'_, '_>) -> Answer {
    let (pid, signo) = (run.int(0), run.int(1));
    if signo as u32 >= signal::LIMIT {
        return Err(Errno::EINVAL.into());
    }
    let processes = &run.system().processes;
    if pid > 0 {
        if pid == run.task.pid {
            send(run.task, signo);
            return Ok([0, 0]);
        }
        let other = processes.find(pid).ok_or(Errno::ESRCH)?;
        if !may(run.task, &other) {
            return Err(Errno::EPERM.into());
        }
        send(&other, signo);
        return Ok([0, 0]);
    }
    let group = match pid {
        0 => Some(run.task.group.load(Relaxed)),
        -1 => None,
        _ => Some(pid.checked_neg().ok_or(Errno::ESRCH)?),
    };
    let meant = |other: &Arc<Task>| match group {
        Some(group) => other.group.load(Relaxed) == group,
        None => other.pid != run.task.pid,
    };
    let mut reached = 0;
    let mut found = 0;
    for other in processes.all().filter(meant) {
        found += 1;
        if may(run.task, &other) {
            reached += 1;
            send(&other, signo);
        }
    }
    match (found, reached) {
        (0, _) => Err(Errno::ESRCH.into()),
        (_, 0) => Err(Errno::EPERM.into()),
        _ => Ok([0, 0]),
    }
}

fn send(to: &Task, signo: i32) {
    if signo != 0 {
        to.raise(signo);
    }
}

/// Whether one process may signal another: the superuser, or one of the same user.
fn may(from: &Task, to: &Task) -> bool {
    let (a, b) = (from.credentials(), to.credentials());
    a.euid == 0 || [a.uid, a.euid].iter().any(|id| *id == b.uid || *id == b.euid)
}
