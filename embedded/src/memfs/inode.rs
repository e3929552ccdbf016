//! Inodes: what there is in the file system, whatever its names, and who may do what with it.
//!
//! Sources: NetBSD `sys/fs/tmpfs/{tmpfs_subr,tmpfs_vnops}.c`, `sys/miscfs/genfs/genfs_vnops.c`,
//! `sys/secmodel/suser/secmodel_suser.c`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::super::abi::{Stat, mode};
use super::super::device::Device;
use super::super::kqueue::{Watched, note};
use super::super::limits::ResourceGroup;
use super::super::locks::FileLocks;
use super::super::paid::Paid;
use super::super::pipe::fifo;
use super::super::process::Credentials;
use super::super::sync::read;
use super::super::time;
use super::content::{Content, PAGE};
use super::directory::Directory;
use kernel::Errno;

/// The number of the only file system (`st_dev`).
pub(in super::super) const FILE_SYSTEM: u64 = 1;

/// Names an inode can have, and with its own `.` and `..` the directories one can hold (`LINK_MAX`).
pub(in super::super) const LINK_MAX: u32 = 32767;

/// What an entry adds to the size of its directory (`struct tmpfs_dirent`).
const ENTRY: u64 = 48;

/// Flags of a file that `chflags(2)` sets (`stat.h`).
pub(super) mod flags {
    /// Nothing of it may change (`UF_IMMUTABLE`, `SF_IMMUTABLE`).
    pub const IMMUTABLE: u32 = 0x2_0002;
    /// It may only grow (`UF_APPEND`, `SF_APPEND`).
    pub const APPEND: u32 = 0x4_0004;
    /// What the owner sets (`UF_SETTABLE`).
    pub const OWNERS: u32 = 0xffff;
}

/// A file, directory, device or whatever else has names.
pub(in super::super) struct Inode {
    number: u64,
    /// Held while mode, owner and flags are checked and changed; reading them takes no lock.
    pub(super) changing: Mutex<()>,
    pub(super) mode: AtomicU32,
    pub(super) uid: AtomicU32,
    pub(super) gid: AtomicU32,
    pub(super) flags: AtomicU32,
    pub(super) links: AtomicU32,
    /// Times, in nanoseconds since 1970.
    pub(super) accessed: AtomicI64,
    pub(super) modified: AtomicI64,
    changed: AtomicI64,
    pub(super) born: AtomicI64,
    /// It came from the host, to be read only.
    read_only: AtomicBool,
    pub(super) kind: Kind,
    locks: FileLocks,
    fifo: fifo::Slot,
    watched: Watched,
    /// Who has made it.
    resource_group: Arc<ResourceGroup>,
}

pub(super) enum Kind {
    File(Content),
    Directory(Directory),
    Symlink(Target),
    Device { block: bool, number: u64 },
    Socket,
    Fifo,
}

/// Where a symbolic link leads.
pub(super) struct Target {
    path: Box<[u8]>,
    _paid: Paid,
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Make<'t> {
    File,
    Directory,
    /// A symbolic link to this path.
    Symlink(&'t [u8]),
    /// A device node with this number, whether there is such a device or not.
    Device {
        block: bool,
        number: u64,
    },
    Socket,
    Fifo,
}

impl Inode {
    /// The caller has counted it. ENOSPC if `resource_group` cannot pay for it.
    pub(super) fn new(
        number: u64,
        what: Make<'_>,
        mode: u32,
        credentials: &Credentials,
        group: u32,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<Inode, Errno> {
        let now = time::now();
        let kind = match what {
            Make::File => Kind::File(Content::new(resource_group)),
            Make::Directory => Kind::Directory(Directory::default()),
            Make::Symlink(path) => {
                let paid = Paid::new(resource_group, path.len() as u64, Errno::ENOSPC);
                Kind::Symlink(Target { path: path.into(), _paid: paid? })
            }
            Make::Device { block, number } => Kind::Device { block, number },
            Make::Socket => Kind::Socket,
            Make::Fifo => Kind::Fifo,
        };
        Ok(Inode {
            number,
            changing: Mutex::new(()),
            mode: AtomicU32::new(mode & mode::PERMISSIONS),
            uid: AtomicU32::new(credentials.euid),
            gid: AtomicU32::new(group),
            flags: AtomicU32::new(0),
            links: AtomicU32::new(if what == Make::Directory { 2 } else { 1 }),
            accessed: AtomicI64::new(now),
            modified: AtomicI64::new(now),
            changed: AtomicI64::new(now),
            born: AtomicI64::new(now),
            read_only: AtomicBool::new(false),
            kind,
            locks: FileLocks::default(),
            fifo: fifo::Slot::default(),
            watched: Watched::default(),
            resource_group: resource_group.clone(),
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its type, as in a mode.
    pub fn kind(&self) -> u32 {
        match &self.kind {
            Kind::File(_) => mode::REGULAR,
            Kind::Directory(_) => mode::DIRECTORY,
            Kind::Symlink(_) => mode::LINK,
            Kind::Device { block: true, .. } => mode::BLOCK,
            Kind::Device { block: false, .. } => mode::CHARACTER,
            Kind::Socket => mode::SOCKET,
            Kind::Fifo => mode::FIFO,
        }
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Socket)
    }

    pub fn is_fifo(&self) -> bool {
        matches!(self.kind, Kind::Fifo)
    }

    /// Whether it is a device node, of a device that is there or not.
    pub fn is_node(&self) -> bool {
        matches!(self.kind, Kind::Device { .. })
    }

    /// The locks that are held on it.
    pub fn locks(&self) -> &FileLocks {
        &self.locks
    }

    /// What it has of a fifo, if it is one.
    pub fn fifo(&self) -> &fifo::Slot {
        &self.fifo
    }

    /// Where the knotes on it are, if it has `EVFILT_VNODE`. NetBSD: `genfs_kqfilter`.
    pub fn watched(&self) -> Option<&Watched> {
        matches!(self.kind, Kind::File(_) | Kind::Directory(_)).then_some(&self.watched)
    }

    /// Tells these what has happened to it, by the bits of `note`. To be called without a lock held.
    pub fn note(&self, hints: u32) {
        self.watched.note(hints);
    }

    /// The same of a name that was taken away from it. NetBSD: `tmpfs_dir_detach`.
    pub(super) fn note_unlinked(&self) {
        self.note(if self.links.load(Relaxed) > 0 { note::LINK } else { note::DELETE });
    }

    /// ENOTDIR for anything else.
    pub fn directory(&self) -> Result<&Directory, Errno> {
        match &self.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What a regular file holds; EISDIR for a directory.
    pub fn content(&self) -> Result<&Content, Errno> {
        match &self.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Where a symbolic link leads.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Symlink(target) => Some(&target.path),
            _ => None,
        }
    }

    /// The device that a node stands for, if there is one.
    pub fn device(&self) -> Option<Device> {
        match self.kind {
            Kind::Device { block: false, number } => Device::by_number(number),
            _ => None,
        }
    }

    /// EACCES unless these credentials may do all of `wanted` (`READ`, `WRITE`, `EXECUTE`). The
    /// superuser may, but execute only what anyone may execute; nobody writes what is immutable. NetBSD:
    /// `tmpfs_access`, `genfs_can_access`.
    pub fn check(&self, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
        if wanted & mode::WRITE != 0 {
            self.check_writable()?;
            if self.has(flags::IMMUTABLE) {
                return Err(Errno::EPERM);
            }
        }
        let mode = self.mode.load(Relaxed);
        if credentials.euid == 0 {
            let runs = wanted & mode::EXECUTE == 0 || self.is_directory() || mode & 0o111 != 0;
            return if runs { Ok(()) } else { Err(Errno::EACCES) };
        }
        let group = self.gid.load(Relaxed);
        let granted = if credentials.euid == self.uid.load(Relaxed) {
            mode >> 6
        } else if credentials.egid == group || credentials.groups.contains(&group) {
            mode >> 3
        } else {
            mode
        };
        if granted & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EPERM if this directory is sticky and neither it nor `inode` is the user's: then `inode` may not
    /// be taken out of it. NetBSD: `genfs_can_sticky`.
    pub(super) fn check_sticky(
        &self,
        credentials: &Credentials,
        inode: &Inode,
    ) -> Result<(), Errno> {
        let user = credentials.euid;
        let sticky = self.mode.load(Relaxed) & mode::STICKY != 0;
        let owns = |what: &Inode| what.uid.load(Relaxed) == user;
        if user != 0 && sticky && !owns(self) && !owns(inode) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Whether one of these flags is set.
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags.load(Relaxed) & flags != 0
    }

    /// EPERM if it is immutable or append-only.
    pub(super) fn check_frozen(&self) -> Result<(), Errno> {
        self.check_writable()?;
        if self.has(flags::IMMUTABLE | flags::APPEND) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// One name more: EMLINK past [`LINK_MAX`], ENOENT if it has lost its last.
    pub(super) fn link(&self) -> Result<(), Errno> {
        let more = |links| (1..LINK_MAX).contains(&links).then_some(links + 1);
        match self.links.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(0) => Err(Errno::ENOENT),
            Err(_) => Err(Errno::EMLINK),
        }
    }

    /// One name less; returns how many are left.
    pub(super) fn unlink(&self) -> u32 {
        self.links.fetch_sub(1, Relaxed).saturating_sub(1)
    }

    /// EROFS if it is to be read only: it keeps its name, bytes and attributes.
    pub(super) fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only.load(Relaxed) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// All of it was copied from the host, where it was accessed, modified and changed so.
    pub fn imported(&self, times: [i64; 3], read_only: bool) {
        let [accessed, modified, changed] = times;
        self.accessed.store(accessed, Relaxed);
        self.modified.store(modified, Relaxed);
        self.changed.store(changed, Relaxed);
        self.born.store(modified, Relaxed);
        self.read_only.store(read_only, Relaxed);
    }

    /// Its bytes were read.
    pub fn accessed(&self) {
        if self.read_only.load(Relaxed) {
            return;
        }
        self.accessed.store(time::now(), Relaxed);
    }

    /// Its bytes, or the entries of a directory, have changed.
    pub fn modified(&self) {
        let now = time::now();
        self.modified.store(now, Relaxed);
        self.changed.store(now, Relaxed);
    }

    /// Something was written through it that it does not hold itself: a device or a fifo.
    pub fn written(&self) {
        self.modified.store(time::now(), Relaxed);
    }

    /// Something else of it has changed.
    pub(super) fn changed(&self) {
        self.changed.store(time::now(), Relaxed);
    }

    /// How long it is, and the bytes that hold it.
    fn extent(&self) -> (u64, u64) {
        let whole = |size: u64| (size, size.next_multiple_of(PAGE));
        match &self.kind {
            Kind::File(content) => content.extent(),
            Kind::Directory(directory) => whole(read(&directory.entries).len() as u64 * ENTRY),
            Kind::Symlink(target) => whole(target.path.len() as u64),
            Kind::Device { .. } | Kind::Socket | Kind::Fifo => (0, 0),
        }
    }

    /// NetBSD: `vn_stat`, `tmpfs_getattr`.
    pub fn stat(&self) -> Stat {
        let (size, held) = self.extent();
        Stat {
            dev: FILE_SYSTEM,
            mode: self.kind() | self.mode.load(Relaxed),
            ino: self.number,
            nlink: self.links.load(Relaxed),
            uid: self.uid.load(Relaxed),
            gid: self.gid.load(Relaxed),
            rdev: match self.kind {
                Kind::Device { number, .. } => number,
                // `VNOVAL`
                _ => u64::MAX,
            },
            accessed: self.accessed.load(Relaxed),
            modified: self.modified.load(Relaxed),
            changed: self.changed.load(Relaxed),
            born: self.born.load(Relaxed),
            size: size as i64,
            blocks: (held / 512) as i64,
            block_size: PAGE as i32,
            flags: self.flags.load(Relaxed),
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.resource_group.give_inode();
    }
}
