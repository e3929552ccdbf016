//! Changing the attributes of an inode, and checking who may: mode, owner, flags, times and size.
//!
//! Sources: NetBSD `sys/fs/tmpfs/tmpfs_subr.c`, `sys/miscfs/genfs/genfs_vnops.c`,
//! `sys/kern/vfs_syscalls.c`; chmod(2), chown(2), chflags(2), utimes(2).

use std::sync::atomic::Ordering::Relaxed;

use super::super::abi::mode;
use super::super::kqueue::note;
use super::super::process::Credentials;
use super::super::sync::lock;
use super::Inode;
use super::inode::{Kind, flags};
use kernel::Errno;

/// The set-user-ID and set-group-ID bits that are cleared when a file changes its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Handover {
    /// The bit of the ID that changes (`chown`).
    Native,
    /// Both bits, unless the superuser makes the change (`__posix_chown`).
    Posix,
}

impl Inode {
    /// Sets the mode. NetBSD: `tmpfs_chmod`.
    pub fn change_mode(&self, credentials: &Credentials, mode: u32) -> Result<(), Errno> {
        let one_at_a_time = lock(&self.changing);
        self.set_mode(credentials, mode)?;
        drop(one_at_a_time);
        self.note(note::ATTRIB);
        Ok(())
    }

    fn set_mode(&self, credentials: &Credentials, mode: u32) -> Result<(), Errno> {
        self.check_frozen()?;
        self.may_set_mode(credentials, mode)?;
        self.mode.store(mode & mode::PERMISSIONS, Relaxed);
        self.changed();
        Ok(())
    }

    /// Returns an error unless the caller may set this mode. NetBSD: `genfs_can_chmod`.
    fn may_set_mode(&self, credentials: &Credentials, mode: u32) -> Result<(), Errno> {
        if credentials.euid == 0 {
            return Ok(());
        }
        if credentials.euid != self.uid.load(Relaxed) {
            return Err(Errno::EPERM);
        }
        if !self.is_directory() && mode & mode::STICKY != 0 {
            return Err(Errno::EFTYPE);
        }
        let group = self.gid.load(Relaxed);
        if mode & mode::SET_GID != 0 && !credentials.groups.contains(&group) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Changes the owner and group, where given. NetBSD: `change_owner`.
    pub fn change_owner(
        &self,
        credentials: &Credentials,
        uid: Option<u32>,
        gid: Option<u32>,
        handover: Handover,
    ) -> Result<(), Errno> {
        let one_at_a_time = lock(&self.changing);
        let before = self.mode.load(Relaxed);
        let lost = match handover {
            Handover::Posix if credentials.euid == 0 => 0,
            Handover::Posix => mode::SET_UID | mode::SET_GID,
            Handover::Native => uid.map_or(0, |_| mode::SET_UID) | gid.map_or(0, |_| mode::SET_GID),
        };
        if uid.is_some() || gid.is_some() {
            self.set_owner(credentials, uid, gid)?;
        }
        if before & lost != 0 {
            self.set_mode(credentials, before & !lost)?;
        }
        drop(one_at_a_time);
        if uid.is_some() || gid.is_some() || before & lost != 0 {
            self.note(note::ATTRIB);
        }
        Ok(())
    }

    /// NetBSD: `tmpfs_chown`, `genfs_can_chown`.
    fn set_owner(
        &self,
        credentials: &Credentials,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        let (owner, group) = (self.uid.load(Relaxed), self.gid.load(Relaxed));
        let (uid, gid) = (uid.unwrap_or(owner), gid.unwrap_or(group));
        self.check_frozen()?;
        let member = gid == group || credentials.egid == gid || credentials.groups.contains(&gid);
        let own = credentials.euid == owner && uid == owner && member;
        if credentials.euid != 0 && !own {
            return Err(Errno::EPERM);
        }
        self.uid.store(uid, Relaxed);
        self.gid.store(gid, Relaxed);
        self.changed();
        Ok(())
    }

    /// Sets the flags. NetBSD: `tmpfs_chflags`, `genfs_can_chflags`.
    pub fn change_flags(&self, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
        let one_at_a_time = lock(&self.changing);
        self.check_writable()?;
        let before = self.flags.load(Relaxed);
        let system = (wanted ^ before) & !flags::OWNERS != 0;
        if credentials.euid != 0
            && (credentials.euid != self.uid.load(Relaxed) || system || self.is_node())
        {
            return Err(Errno::EPERM);
        }
        self.flags.store(wanted, Relaxed);
        self.changed();
        drop(one_at_a_time);
        self.note(note::ATTRIB);
        Ok(())
    }

    /// Sets the times, where given, in nanoseconds since 1970; `now` if both are set to the present. A
    /// modification time before the creation time also becomes the creation time. NetBSD:
    /// `do_sys_utimensat`, `tmpfs_chtimes`.
    pub fn change_times(
        &self,
        credentials: &Credentials,
        accessed: Option<i64>,
        modified: Option<i64>,
        now: bool,
    ) -> Result<(), Errno> {
        if accessed.is_none() && modified.is_none() {
            return Ok(());
        }
        let one_at_a_time = lock(&self.changing);
        self.check_frozen()?;
        if credentials.euid != 0 && credentials.euid != self.uid.load(Relaxed) {
            if !now {
                return Err(Errno::EPERM);
            }
            self.check(credentials, mode::WRITE)?;
        }
        if let Some(time) = accessed {
            self.accessed.store(time, Relaxed);
        }
        if let Some(time) = modified {
            self.modified.store(time, Relaxed);
            self.born.fetch_min(time, Relaxed);
        }
        drop(one_at_a_time);
        self.note(note::ATTRIB);
        Ok(())
    }

    /// Truncates a regular file, or extends it with a hole. Devices and fifos have no size to change.
    /// NetBSD: `tmpfs_chsize`.
    pub fn resize(&self, size: u64) -> Result<(), Errno> {
        match &self.kind {
            Kind::Device { .. } | Kind::Fifo => return Ok(()),
            Kind::File(_) => self.check_frozen()?,
            _ => {}
        }
        let content = self.content()?;
        let before = content.size();
        if content.truncate(size)? {
            self.modified();
            if size > before {
                self.note(note::EXTEND);
            }
        }
        Ok(())
    }

    /// Returns EPERM if the file is append-only and this open would write elsewhere. Applies to files and
    /// directories, not to devices or fifos. NetBSD: `tmpfs_open`.
    pub fn check_append(&self, writes_anywhere: bool) -> Result<(), Errno> {
        let holds = matches!(self.kind, Kind::File(_) | Kind::Directory(_));
        if holds && writes_anywhere && self.has(flags::APPEND) { Err(Errno::EPERM) } else { Ok(()) }
    }
}
