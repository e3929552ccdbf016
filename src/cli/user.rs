//! `serve --user`: a server that was started as root, in order to bind, becomes another user for good,
//! before there is a ring, another thread or a client.
//!
//! Sources: credentials(7), capabilities(7), setresuid(2), setgroups(2).

use std::ffi::CString;
use std::path::Path;

use clap::Args;
use nix::unistd::{
    Gid, Group, ResGid, ResUid, Uid, User, getgroups, getresgid, getresuid, initgroups, setgroups,
    setresgid, setresuid, setuid,
};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{CapabilitySet, capabilities, no_new_privs, set_no_new_privs};

use super::Failure;
use crate::server::{Bound, Config, bind};

/// The option for the user to serve as.
#[derive(Args)]
pub struct RunAs {
    /// Become this user once the socket is bound, for a server that is started as root: with the
    /// group given and no other, or with all of the user's. A number will do for either; one without a
    /// user behind needs a group. What is opened after that must be readable to the user: librump's
    /// libraries, modules and drives. The socket file goes in the end only if the user may write its
    /// directory.
    #[arg(long, value_name = "NAME[:GROUP]")]
    user: Option<String>,
}

impl RunAs {
    /// Becomes the wanted user, if there is one. To be called before there is another thread.
    pub fn settle(&self, bound: &Bound) -> Result<(), Failure> {
        let Some(wanted) = &self.user else {
            return Ok(());
        };
        let identity = find(wanted).map_err(|error| format!("--user {wanted}: {error}"))?;
        identity.take_on().map_err(|error| format!("--user {wanted}: {error}"))?;
        verify(&identity).map_err(|error| format!("--user {wanted}: {error}"))?;
        if let Some(file) = bound.url.path() {
            look_after(file);
        }
        Ok(())
    }

    /// Binds and becomes the wanted user. If there is none, binds nothing and returns `None`.
    pub fn bind_and_settle(&self, config: &Config) -> Result<Option<Bound>, Failure> {
        if self.user.is_none() {
            return Ok(None);
        }
        let bound = bind(config)?;
        self.settle(&bound)?;
        Ok(Some(bound))
    }
}

/// A user to become.
#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Groups,
}

#[derive(Debug)]
enum Groups {
    /// All groups of the user with this name.
    Of(CString),
    /// Only the one group.
    One,
}

/// Finds the user of `NAME[:GROUP]`.
fn find(wanted: &str) -> Result<Identity, Failure> {
    let (name, group) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let number = name.parse().ok().map(Uid::from_raw);
    let user = match (User::from_name(name)?, number) {
        (None, Some(uid)) => User::from_uid(uid)?,
        (user, _) => user,
    };
    let uid = user.as_ref().map(|user| user.uid).or(number);
    let uid = uid.ok_or_else(|| format!("there is no user {name}; give one that id(1) knows"))?;
    let (gid, groups) = match (group, user) {
        (Some(group), _) => (find_group(group)?, Groups::One),
        (None, Some(user)) => (user.gid, Groups::Of(CString::new(user.name)?)),
        (None, None) => return Err("a number without a user needs a group: NUMBER:GROUP".into()),
    };
    if uid.is_root() || gid.as_raw() == 0 {
        return Err("that is root or its group, which is no less than now; take another".into());
    }
    Ok(Identity { uid, gid, groups })
}

fn find_group(name: &str) -> Result<Gid, Failure> {
    let number = name.parse().ok().map(Gid::from_raw);
    let gid = Group::from_name(name)?.map(|group| group.gid).or(number);
    gid.ok_or_else(|| format!("there is no group {name}").into())
}

impl Identity {
    /// Becomes this user. The groups are changed first, because that takes privileges.
    fn take_on(&self) -> Result<(), Failure> {
        if !Uid::effective().is_root() {
            return Err(
                "only root can become somebody else; start the server as root, or as that \
                        user without --user"
                    .into(),
            );
        }
        match &self.groups {
            Groups::Of(name) => initgroups(name, self.gid)?,
            Groups::One => setgroups(&[self.gid])?,
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        set_no_new_privs(true)?;
        Ok(())
    }
}

/// Checks that no privileges were kept, and that none can be had back.
fn verify(identity: &Identity) -> Result<(), Failure> {
    let Identity { uid, gid, .. } = *identity;
    let ResUid { real, effective, saved } = getresuid()?;
    if [real, effective, saved] != [uid; 3] {
        return Err("the system did not change the user".into());
    }
    let ResGid { real, effective, saved } = getresgid()?;
    if [real, effective, saved] != [gid; 3] || getgroups()?.contains(&Gid::from_raw(0)) {
        return Err("the system left root's group".into());
    }
    let capabilities = capabilities(None)?;
    if capabilities.effective | capabilities.permitted != CapabilitySet::empty() {
        return Err("capabilities are left (is SECBIT_NO_SETUID_FIXUP or keep-caps set?)".into());
    }
    if setuid(Uid::from_raw(0)).is_ok() || !no_new_privs()? {
        return Err("root can be had back".into());
    }
    Ok(())
}

/// Warns if the socket file will stay.
fn look_after(file: &Path) {
    if !may_remove(file) {
        tracing::warn!(
            "--user: that user may not remove {}: it will stay when the server ends, and the next \
             server replaces it; a directory that belongs to the user avoids that",
            file.display()
        );
    }
}

/// Returns `true` if this process may remove a file: if it may write to the directory and, in a sticky
/// one, owns the directory or the file.
fn may_remove(file: &Path) -> bool {
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let me = Uid::effective().as_raw();
    let writes = accessat(CWD, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    let (Ok(dir), Ok(file)) = (rustix::fs::stat(dir), rustix::fs::lstat(file)) else {
        return false;
    };
    let sticky = dir.st_mode & libc::S_ISVTX != 0;
    writes && (!sticky || dir.st_uid == me || file.st_uid == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_a_name_or_a_number_with_or_without_a_group() {
        let nobody = User::from_name("nobody").unwrap().expect("every system has nobody");
        let found = find("nobody").unwrap();
        assert_eq!((found.uid, found.gid), (nobody.uid, nobody.gid));
        assert!(matches!(found.groups, Groups::Of(name) if name.to_bytes() == b"nobody"));
        let found = find(&nobody.uid.to_string()).unwrap();
        assert_eq!((found.uid, found.gid), (nobody.uid, nobody.gid));
        let found = find("nobody:4321").unwrap();
        assert!(matches!(found.groups, Groups::One));
        assert_eq!((found.uid, found.gid.as_raw()), (nobody.uid, 4321));
        let found = find("54321:4321").unwrap();
        assert_eq!((found.uid.as_raw(), found.gid.as_raw()), (54321, 4321));
    }

    #[test]
    fn nobody_there_and_root_are_refused() {
        for (wanted, why) in [
            ("no-such-user", "no user no-such-user"),
            ("", "no user"),
            ("nobody:no-such-group", "no group no-such-group"),
            ("54321", "needs a group"),
            ("root", "root"),
            ("0:4321", "root"),
            ("nobody:0", "root"),
        ] {
            let error = find(wanted).map(drop).unwrap_err().to_string();
            assert!(error.contains(why), "{wanted:?}: {error}");
        }
    }
}
