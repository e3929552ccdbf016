//! Process groups and sessions: their members, and the calls by which a process enters another group.
//!
//! Every client begins in group 0 of session 0, as clients of a rump kernel do. Group 0 keeps no list of
//! its members, so that processes which never use groups share nothing.
//!
//! Sources: NetBSD `sys/kern/{kern_proc,kern_prot}.c`; getpgrp(2), setpgid(2), setsid(2),
//! getlogin(2).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use super::System;
use super::call::{Answer, Result, SyscallContext};
use super::listed::{Listed, Runs, call};
use super::process::{INIT, Proc};
use super::sync::lock;
use super::work;
use kernel::{CopyError, Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::GETLOGIN, Runs::Inline, getlogin),
    call(sys::SETLOGIN, Runs::Inline, setlogin),
    call(sys::GETPGRP, Runs::Inline, getpgrp),
    call(sys::SETPGID, Runs::InlineIf(|args| args[0] as i32 == 0), setpgid),
    call(sys::SETSID, Runs::Inline, setsid),
    call(sys::GETPGID, Runs::Inline, getpgid),
    call(sys::GETSID, Runs::Inline, getsid),
];

/// The longest login name; a name of this length has no NUL (`MAXLOGNAME`).
const LOGIN_MAX: usize = 16;

const SHARDS: usize = 64;

/// A session: the process groups of one login.
pub(super) struct Session {
    pub id: i32,
    /// The login name, filled up with zeros (`s_login`).
    login: Mutex<[u8; LOGIN_MAX]>,
    names: Arc<Names>,
}

/// A process group.
pub(super) struct Group {
    pub id: i32,
    pub session: Arc<Session>,
    /// The pids of its members; not kept for group 0.
    members: Mutex<BTreeSet<i32>>,
    names: Arc<Names>,
}

/// The groups and sessions by number. Their members keep them alive.
struct Names(Vec<Mutex<HashMap<i32, Named>>>);

/// The group and the session with a number.
#[derive(Default)]
struct Named {
    group: Weak<Group>,
    session: Weak<Session>,
}

impl Names {
    fn shard(&self, id: i32) -> &Mutex<HashMap<i32, Named>> {
        &self.0[id as usize % SHARDS]
    }

    /// Removes the number `id` if neither a group nor a session has it any more.
    fn sweep(&self, id: i32) {
        let mut shard = lock(self.shard(id));
        let over =
            |named: &Named| named.group.strong_count() == 0 && named.session.strong_count() == 0;
        if shard.get(&id).is_some_and(over) {
            shard.remove(&id);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.names.sweep(self.id);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.names.sweep(self.id);
    }
}

impl Session {
    /// Returns the login name, filled up with zeros.
    pub fn login(&self) -> [u8; LOGIN_MAX] {
        *lock(&self.login)
    }
}

impl Group {
    /// Adds process `pid` to the group.
    pub fn add(&self, pid: i32) {
        if self.id != 0 {
            lock(&self.members).insert(pid);
        }
    }

    /// Removes process `pid` from the group.
    pub fn remove(&self, pid: i32) {
        if self.id != 0 {
            lock(&self.members).remove(&pid);
        }
    }

    fn is_empty(&self) -> bool {
        self.id != 0 && lock(&self.members).is_empty()
    }

    /// Returns the present members. Only for workers, as there may be very many.
    pub fn members(&self, system: &System) -> Vec<Arc<Proc>> {
        let is_in = |proc: &Arc<Proc>| proc.group().id == self.id;
        if self.id == 0 {
            return system.processes.all().filter(is_in).collect();
        }
        let mut pids: Vec<i32> = Vec::new();
        loop {
            let from = pids.last().map_or(i32::MIN, |last| last + 1);
            let before = pids.len();
            pids.extend(lock(&self.members).range(from..).take(work::BATCH));
            if pids.len() == before {
                break;
            }
        }
        pids.into_iter().filter_map(|pid| system.processes.find(pid)).filter(is_in).collect()
    }
}

/// The process groups by number; moves processes from one to another.
pub(super) struct Groups {
    names: Arc<Names>,
    zero: Arc<Group>,
    /// The lock held while a process changes its group, so that what was checked still holds (`proc_lock`).
    changing: Mutex<()>,
}

impl Groups {
    pub fn new() -> Self {
        let names = Arc::new(Names((0..SHARDS).map(|_| Mutex::default()).collect()));
        let login = Mutex::default();
        let session = Arc::new(Session { id: 0, login, names: names.clone() });
        let zero = Group { id: 0, session, members: Mutex::default(), names: names.clone() };
        Groups { names, zero: Arc::new(zero), changing: Mutex::new(()) }
    }

    /// Returns the group every client begins in.
    pub fn zero(&self) -> Arc<Group> {
        self.zero.clone()
    }

    /// Returns `true` if a group or session has this number, so that no new process may have it.
    pub fn has(&self, id: i32) -> bool {
        lock(self.names.shard(id)).contains_key(&id)
    }

    /// Returns the group with this number, if it has members.
    pub fn find(&self, id: i32) -> Option<Arc<Group>> {
        if id == 0 {
            return Some(self.zero());
        }
        let group = lock(self.names.shard(id)).get(&id)?.group.upgrade()?;
        (!group.is_empty()).then_some(group)
    }

    fn make(&self, id: i32, session: Option<Arc<Session>>, login: [u8; LOGIN_MAX]) -> Arc<Group> {
        let names = &self.names;
        let session = session.unwrap_or_else(|| {
            Arc::new(Session { id, login: Mutex::new(login), names: names.clone() })
        });
        let members = Mutex::default();
        let group = Arc::new(Group { id, session, members, names: names.clone() });
        let mut shard = lock(names.shard(id));
        let named = shard.entry(id).or_default();
        named.group = Arc::downgrade(&group);
        if group.session.id == id {
            named.session = Arc::downgrade(&group.session);
        }
        group
    }

    /// Moves process `pid`, the caller or a descendant, into group `id`; with `leads`, moves the caller
    /// into a new session. NetBSD: `proc_enterpgrp`.
    fn enter(&self, caller: &Proc, pid: i32, id: i32, leads: bool) -> Result<(), Errno> {
        let _one_at_a_time = lock(&self.changing);
        let there = self.find(id);
        let own = caller.group();
        let other;
        let proc = if pid != caller.pid {
            other = caller.system.processes.find(pid).filter(|other| descends(other, caller));
            let other = other.as_ref().ok_or(Errno::ESRCH)?;
            let session = &other.group().session;
            let same = |with: &Group| Arc::ptr_eq(&with.session, session);
            if leads || !same(&own) || there.as_deref().is_some_and(|there| !same(there)) {
                return Err(Errno::EPERM);
            }
            if other.has_execed() {
                return Err(Errno::EACCES);
            }
            other
        } else {
            if leads && (own.id == pid || there.is_some()) {
                return Err(Errno::EPERM);
            }
            caller
        };
        let before = proc.group();
        let stays = there.as_ref().is_some_and(|there| Arc::ptr_eq(there, &before));
        if before.session.id == pid {
            return if !leads && stays { Ok(()) } else { Err(Errno::EPERM) };
        }
        if there.is_none() && id != pid || leads && there.is_some() {
            return Err(Errno::EPERM);
        }
        if stays {
            return Ok(());
        }
        let session = (!leads).then(|| before.session.clone());
        let login = before.session.login();
        let group = there.unwrap_or_else(|| self.make(id, session, login));
        proc.join(group);
        Ok(())
    }
}

/// Returns `true` if `proc` is a descendant of `from` (`p_inferior`).
fn descends(proc: &Proc, from: &Proc) -> bool {
    let mut parent = proc.parent();
    while parent != from.pid {
        let Some(next) = proc.system.processes.find(parent) else { return false };
        parent = next.parent();
    }
    true
}

/// `int getpgrp(void)`
fn getpgrp(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.group().id.into(), 0])
}

/// `int setpgid(pid_t pid, pid_t pgid)`
fn setpgid(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (pid, id) = (run.int(0), run.int(1));
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = if pid == 0 { run.proc.pid } else { pid };
    let id = if id == 0 { pid } else { id };
    run.system().groups.enter(run.proc, pid, id, false)?;
    Ok([0, 0])
}

/// `pid_t setsid(void)`
fn setsid(run: &mut SyscallContext<'_, '_>) -> Answer {
    let pid = run.proc.pid;
    run.system().groups.enter(run.proc, pid, pid, true)?;
    Ok([pid.into(), 0])
}

/// `pid_t getpgid(pid_t pid)`
fn getpgid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([group_of(run, run.int(0))?.id.into(), 0])
}

/// `pid_t getsid(pid_t pid)`
fn getsid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([group_of(run, run.int(0))?.session.id.into(), 0])
}

/// Returns the group of process `pid`, or of the caller for 0.
fn group_of(run: &SyscallContext<'_, '_>, pid: i32) -> Result<Arc<Group>> {
    match pid {
        0 => Ok(run.proc.group()),
        INIT => Ok(run.system().groups.zero()),
        _ => Ok(run.system().processes.find(pid).ok_or(Errno::ESRCH)?.group()),
    }
}

/// `int __getlogin(char *namebuf, size_t namelen)`
fn getlogin(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, len) = (run.word(0), run.word(1));
    let login = run.proc.group().session.login();
    let part = &login[..len.min(LOGIN_MAX as u64) as usize];
    if !part.is_empty() {
        run.copyout(part, addr)?;
    }
    Ok([0, 0])
}

/// `int __setlogin(const char *namebuf)`: sets the login name of the whole session.
fn setlogin(run: &mut SyscallContext<'_, '_>) -> Answer {
    run.proc.credentials().check_superuser()?;
    let mut name = [0; LOGIN_MAX + 1];
    let addr = run.word(0);
    match run.memory().copyinstr(addr, &mut name) {
        Err(CopyError::TooLong) => return Err(Errno::EINVAL.into()),
        copied => copied?,
    };
    let mut login = [0; LOGIN_MAX];
    login.copy_from_slice(&name[..LOGIN_MAX]);
    *lock(&run.proc.group().session.login) = login;
    Ok([0, 0])
}
