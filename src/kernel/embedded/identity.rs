//! Who a process is: its pid and parent, user and groups, process group and session, and umask.
//!
//! Sources: NetBSD `sys/kern/kern_prot.c`; getpid(2), getuid(2), getgid(2), setsid(2), umask(2).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::call::{Answer, Result, Run};
use super::process::Task;
use super::table::{Listed, call};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[
    call(20, getpid),
    call(24, getuid),
    call(25, geteuid),
    call(39, getppid),
    call(43, getegid),
    call(47, getgid),
    call(60, umask),
    call(79, getgroups),
    call(81, getpgrp),
    call(147, setsid),
    call(207, getpgid),
    call(286, getsid),
    call(305, issetugid),
];

/// `pid_t getpid(void)`; the parent's pid comes along as the second value.
fn getpid(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.pid.into(), run.task.parent().into()])
}

/// `pid_t getppid(void)`
fn getppid(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.parent().into(), 0])
}

/// `uid_t getuid(void)`; the effective one comes along.
fn getuid(run: &mut Run<'_, '_>) -> Answer {
    let own = run.task.credentials();
    Ok([own.uid.into(), own.euid.into()])
}

/// `uid_t geteuid(void)`
fn geteuid(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.credentials().euid.into(), 0])
}

/// `gid_t getgid(void)`; the effective one comes along.
fn getgid(run: &mut Run<'_, '_>) -> Answer {
    let own = run.task.credentials();
    Ok([own.gid.into(), own.egid.into()])
}

/// `gid_t getegid(void)`
fn getegid(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.credentials().egid.into(), 0])
}

/// `int getgroups(int gidsetsize, gid_t *gidset)`
fn getgroups(run: &mut Run<'_, '_>) -> Answer {
    let (size, addr) = (run.int(0), run.word(1));
    let groups = run.task.credentials().groups.clone();
    let count = groups.len() as i32;
    if size == 0 {
        return Ok([count.into(), 0]);
    }
    if size < count {
        return Err(Errno::EINVAL.into());
    }
    if count > 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|gid| gid.to_le_bytes()).collect();
        run.copyout(&bytes, addr)?;
    }
    Ok([count.into(), 0])
}

/// `int issetugid(void)`: no process here ever is.
fn issetugid(_: &mut Run<'_, '_>) -> Answer {
    Ok([0, 0])
}

/// `mode_t umask(mode_t newmask)`
fn umask(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.cwd.set_umask(run.uint(0)).into(), 0])
}

/// `int getpgrp(void)`
fn getpgrp(run: &mut Run<'_, '_>) -> Answer {
    Ok([run.task.group.load(Relaxed).into(), 0])
}

/// `pid_t setsid(void)`
fn setsid(run: &mut Run<'_, '_>) -> Answer {
    let (task, pid) = (run.task, run.task.pid);
    if task.group.load(Relaxed) == pid
        || run.system().processes.all().any(|other| leads(&other, pid))
    {
        return Err(Errno::EPERM.into());
    }
    task.group.store(pid, Relaxed);
    task.session.store(pid, Relaxed);
    Ok([pid.into(), 0])
}

fn leads(other: &Arc<Task>, group: i32) -> bool {
    other.group.load(Relaxed) == group
}

/// `pid_t getpgid(pid_t pid)`
fn getpgid(run: &mut Run<'_, '_>) -> Answer {
    let of = run.int(0);
    Ok([process(run, of, |task| task.group.load(Relaxed))?, 0])
}

/// `pid_t getsid(pid_t pid)`
fn getsid(run: &mut Run<'_, '_>) -> Answer {
    let of = run.int(0);
    Ok([process(run, of, |task| task.session.load(Relaxed))?, 0])
}

/// Asks process `pid`, the caller for 0.
fn process(run: &Run<'_, '_>, pid: i32, ask: impl Fn(&Task) -> i32) -> Result<i64> {
    if pid == 0 {
        return Ok(ask(run.task).into());
    }
    let other = run.system().processes.find(pid).ok_or(Errno::ESRCH)?;
    Ok(ask(&other).into())
}
