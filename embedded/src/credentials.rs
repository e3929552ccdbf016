//! Credentials of processes: real, effective and saved user and group, and supplementary groups.
//!
//! A change makes new credentials: a call that has begun keeps the credentials it started with.
//!
//! Sources: NetBSD `sys/kern/{kern_prot,kern_auth}.c`, `sys/secmodel/suser/secmodel_suser.c`;
//! setuid(2), setreuid(2), getgroups(2), setgroups(2), issetugid(2).

use super::call::{Answer, Result, SyscallContext};
use super::listed::{Listed, Runs, call};
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::SETUID, Runs::Inline, |run| set_all(run, USER)),
    call(sys::GETUID, Runs::Inline, getuid),
    call(sys::GETEUID, Runs::Inline, geteuid),
    call(sys::GETEGID, Runs::Inline, getegid),
    call(sys::GETGID, Runs::Inline, getgid),
    call(sys::GETGROUPS, Runs::Inline, getgroups),
    call(sys::SETGROUPS, Runs::Inline, setgroups),
    call(sys::SETREUID, Runs::Inline, |run| set_two(run, USER)),
    call(sys::SETREGID, Runs::Inline, |run| set_two(run, GROUP)),
    call(sys::SETGID, Runs::Inline, |run| set_all(run, GROUP)),
    call(sys::SETEGID, Runs::Inline, |run| set_effective(run, GROUP)),
    call(sys::SETEUID, Runs::Inline, |run| set_effective(run, USER)),
    call(sys::ISSETUGID, Runs::Inline, issetugid),
];

/// The most supplementary groups (`NGROUPS_MAX`).
pub(super) const GROUPS_MAX: usize = 16;

/// The argument that stands for "leave this ID as it is."
const SAME: u32 = u32::MAX;

/// The credentials of a process. Processes with the same credentials share one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Returns `true` for the superuser. NetBSD: `suser_isroot`.
    pub fn is_superuser(&self) -> bool {
        self.euid == 0
    }

    /// Returns EPERM unless these are the superuser's credentials.
    pub fn check_superuser(&self) -> Result<(), Errno> {
        if self.is_superuser() { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Returns `true` if the real or effective user of one equals the real or effective user of the other
    /// (`kauth_cred_uidmatch`).
    pub fn shares_user(&self, other: &Credentials) -> bool {
        [self.uid, self.euid].iter().any(|id| *id == other.uid || *id == other.euid)
    }

    /// Returns `true` if a process with these credentials may look into a process with `other`'s and change
    /// it (`proc_uidmatch`).
    pub fn owns(&self, other: &Credentials) -> bool {
        self.uid == other.uid
            && self.uid == other.suid
            && other.gid == other.sgid
            && self.groups.contains(&other.gid)
    }

    fn ids(&self, which: Which) -> Ids {
        match which {
            Which::User => Ids { real: self.uid, effective: self.euid, saved: self.suid },
            Which::Group => Ids { real: self.gid, effective: self.egid, saved: self.sgid },
        }
    }

    fn with(&self, which: Which, ids: Ids) -> Credentials {
        let Ids { real, effective, saved } = ids;
        let before = self.clone();
        match which {
            Which::User => Credentials { uid: real, euid: effective, suid: saved, ..before },
            Which::Group => Credentials { gid: real, egid: effective, sgid: saved, ..before },
        }
    }

    /// Returns the credentials after an exec, in which the effective IDs become the saved ones; `None` if
    /// nothing changes.
    pub fn after_exec(&self) -> Option<Credentials> {
        let changes = self.suid != self.euid || self.sgid != self.egid;
        changes.then(|| Credentials { suid: self.euid, sgid: self.egid, ..self.clone() })
    }
}

#[derive(Clone, Copy, Debug)]
enum Which {
    User,
    Group,
}
const USER: Which = Which::User;
const GROUP: Which = Which::Group;

/// The three user IDs, or the three group IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
}

impl Ids {
    /// Returns these IDs changed to `wanted`. EPERM if, without `privilege`, a wanted ID is not in the list
    /// of `allowed` for it. NetBSD: `do_setresuid`, `do_setresgid`.
    fn changed(self, wanted: Ids, allowed: [&[u32]; 3], privilege: bool) -> Result<Ids, Errno> {
        let new = [wanted.real, wanted.effective, wanted.saved];
        let fits = |(id, allowed): (&u32, &[u32])| *id == SAME || allowed.contains(id);
        if !privilege && !new.iter().zip(allowed).all(fits) {
            return Err(Errno::EPERM);
        }
        let or = |new: u32, now: u32| if new == SAME { now } else { new };
        Ok(Ids {
            real: or(wanted.real, self.real),
            effective: or(wanted.effective, self.effective),
            saved: or(wanted.saved, self.saved),
        })
    }
}

/// Changes users or groups. `wanted` and `allowed` are computed from the current ones.
fn change(
    run: &SyscallContext<'_, '_>,
    which: Which,
    decide: impl Fn(Ids, bool) -> Result<Ids, Errno>,
) -> Answer {
    run.proc.change_credentials(|now| {
        let before = now.ids(which);
        let after = decide(before, now.is_superuser())?;
        Ok((after != before).then(|| now.with(which, after)))
    })?;
    Ok([0, 0])
}

/// `int setuid(uid_t uid)`, `int setgid(gid_t gid)`
fn set_all(run: &mut SyscallContext<'_, '_>, which: Which) -> Answer {
    let id = run.uint(0);
    let wanted = Ids { real: id, effective: id, saved: id };
    change(run, which, |now, privilege| now.changed(wanted, [&[now.real]; 3], privilege))
}

/// `int seteuid(uid_t euid)`, `int setegid(gid_t egid)`
fn set_effective(run: &mut SyscallContext<'_, '_>, which: Which) -> Answer {
    let wanted = Ids { real: SAME, effective: run.uint(0), saved: SAME };
    change(run, which, |now, privilege| {
        now.changed(wanted, [&[], &[now.real, now.saved], &[]], privilege)
    })
}

/// `int setreuid(uid_t ruid, uid_t euid)`, `int setregid(gid_t rgid, gid_t egid)`: if the real ID changes,
/// the saved ID becomes the effective one.
fn set_two(run: &mut SyscallContext<'_, '_>, which: Which) -> Answer {
    let (real, effective) = (run.uint(0), run.uint(1));
    change(run, which, |now, privilege| {
        let real = if real == SAME { now.real } else { real };
        let effective = if effective == SAME { now.effective } else { effective };
        let saved = if real == now.real { SAME } else { effective };
        let any = [now.real, now.effective, now.saved];
        let wanted = Ids { real, effective, saved };
        now.changed(wanted, [&any[..2], &any, &any], privilege)
    })
}

/// `uid_t getuid(void)`; the second return value is the effective user.
fn getuid(run: &mut SyscallContext<'_, '_>) -> Answer {
    let own = run.proc.credentials();
    Ok([own.uid.into(), own.euid.into()])
}

/// `uid_t geteuid(void)`
fn geteuid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.credentials().euid.into(), 0])
}

/// `gid_t getgid(void)`; the second return value is the effective group.
fn getgid(run: &mut SyscallContext<'_, '_>) -> Answer {
    let own = run.proc.credentials();
    Ok([own.gid.into(), own.egid.into()])
}

/// `gid_t getegid(void)`
fn getegid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.credentials().egid.into(), 0])
}

/// `int getgroups(int gidsetsize, gid_t *gidset)`
fn getgroups(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (size, addr) = (run.int(0), run.word(1));
    let own = run.proc.credentials();
    let count = own.groups.len() as i32;
    if size == 0 {
        return Ok([count.into(), 0]);
    }
    if size < count {
        return Err(Errno::EINVAL.into());
    }
    if count > 0 {
        let bytes: Vec<u8> = own.groups.iter().flat_map(|gid| gid.to_le_bytes()).collect();
        run.copyout(&bytes, addr)?;
    }
    Ok([count.into(), 0])
}

/// `int setgroups(int gidsetsize, const gid_t *gidset)`
fn setgroups(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (count, addr) = (run.int(0), run.word(1));
    let count = usize::try_from(count).ok().filter(|&count| count <= GROUPS_MAX);
    let mut bytes = vec![0; 4 * count.ok_or(Errno::EINVAL)?];
    if !bytes.is_empty() {
        run.memory().copyin(addr, &mut bytes)?;
    }
    let groups: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|gid| u32::from_le_bytes([gid[0], gid[1], gid[2], gid[3]]))
        .collect();
    run.proc.change_credentials(|now| {
        now.check_superuser()?;
        Ok(Some(Credentials { groups: groups.clone(), ..now.clone() }))
    })?;
    Ok([0, 0])
}

/// `int issetugid(void)`: whether users or groups were changed since the program was started.
fn issetugid(run: &mut SyscallContext<'_, '_>) -> Answer {
    Ok([run.proc.is_tainted().into(), 0])
}
