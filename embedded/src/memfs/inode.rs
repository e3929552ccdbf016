//! Inodes: the files of the file system, independent of their names, and the checks of access to them.
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

/// The most names of an inode, and with its own `.` and `..` the most subdirectories of a directory
/// (`LINK_MAX`).
pub(in super::super) const LINK_MAX: u32 = 32767;

/// The bytes an entry adds to the size of its directory (`struct tmpfs_dirent`).
const ENTRY: u64 = 48;

/// Flags of a file that `chflags(2)` sets (`stat.h`).
pub(super) mod flags {
    /// The file may not change at all (`UF_IMMUTABLE`, `SF_IMMUTABLE`).
    pub const IMMUTABLE: u32 = 0x2_0002;
    /// The file may only grow (`UF_APPEND`, `SF_APPEND`).
    pub const APPEND: u32 = 0x4_0004;
    /// The flags that the owner can set (`UF_SETTABLE`).
    pub const OWNERS: u32 = 0xffff;
}

/// A file, directory, device or anything else that can have names.
pub(in super::super) struct Inode {
    number: u64,
    /// The lock held while mode, owner and flags are checked and changed; reading them takes no lock.
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
    /// True for a read-only copy of a host file.
    read_only: AtomicBool,
    pub(super) kind: Kind,
    locks: FileLocks,
    fifo: fifo::Slot,
    watched: Watched,
    /// The resource group of the process that made the inode.
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

/// The target of a symbolic link.
pub(super) struct Target {
    path: Box<[u8]>,
    _paid: Paid,
}

/// The kind of inode to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Make<'t> {
    File,
    Directory,
    /// A symbolic link to this path.
    Symlink(&'t [u8]),
    /// A device node with this number, whether that device exists or not.
    Device {
        block: bool,
        number: u64,
    },
    Socket,
    Fifo,
}

impl Inode {
    /// Makes an inode, which the caller has counted. ENOSPC if `resource_group` cannot pay for it.
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

    /// Returns the type, as in a mode.
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

    /// Returns `true` for a device node, whether its device exists or not.
    pub fn is_node(&self) -> bool {
        matches!(self.kind, Kind::Device { .. })
    }

    /// Returns the locks held on the inode.
    pub fn locks(&self) -> &FileLocks {
        &self.locks
    }

    /// Returns the state of the inode as a fifo, empty unless it is an open fifo.
    pub fn fifo(&self) -> &fifo::Slot {
        &self.fifo
    }

    /// Returns the klist of an inode on which `EVFILT_VNODE` works. NetBSD: `genfs_kqfilter`.
    pub fn watched(&self) -> Option<&Watched> {
        matches!(self.kind, Kind::File(_) | Kind::Directory(_)).then_some(&self.watched)
    }

    /// Tells the knotes what has happened to the inode, by the bits of `note`. The caller holds no lock.
    pub fn note(&self, hints: u32) {
        self.watched.note(hints);
    }

    /// Tells the knotes that a name of the inode was removed. NetBSD: `tmpfs_dir_detach`.
    pub(super) fn note_unlinked(&self) {
        self.note(if self.links.load(Relaxed) > 0 { note::LINK } else { note::DELETE });
    }

    /// Returns the directory. ENOTDIR for anything else.
    pub fn directory(&self) -> Result<&Directory, Errno> {
        match &self.kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Returns the contents of a regular file. EISDIR for a directory, EOPNOTSUPP for anything else.
    pub fn content(&self) -> Result<&Content, Errno> {
        match &self.kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Returns the target of a symbolic link, `None` for anything else.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Symlink(target) => Some(&target.path),
            _ => None,
        }
    }

    /// Returns the device of a device node, if it exists.
    pub fn device(&self) -> Option<Device> {
        match self.kind {
            Kind::Device { block: false, number } => Device::by_number(number),
            _ => None,
        }
    }

    /// Returns EACCES unless these credentials may do all of `wanted` (`READ`, `WRITE`, `EXECUTE`). The
    /// superuser may, but executes only what some user may execute; nobody writes to an immutable file.
    /// NetBSD: `tmpfs_access`, `genfs_can_access`.
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

    /// Returns EPERM if this directory is sticky and the user owns neither it nor `inode`: then `inode` may
    /// not be removed from it. NetBSD: `genfs_can_sticky`.
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

    /// Returns `true` if any of these flags is set.
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags.load(Relaxed) & flags != 0
    }

    /// Returns EPERM if the inode is immutable or append-only.
    pub(super) fn check_frozen(&self) -> Result<(), Errno> {
        self.check_writable()?;
        if self.has(flags::IMMUTABLE | flags::APPEND) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Adds a link. EMLINK past [`LINK_MAX`], ENOENT if the inode has lost its last link.
    pub(super) fn link(&self) -> Result<(), Errno> {
        let more = |links| (1..LINK_MAX).contains(&links).then_some(links + 1);
        match self.links.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(0) => Err(Errno::ENOENT),
            Err(_) => Err(Errno::EMLINK),
        }
    }

    /// Removes a link, and returns the number of links left.
    pub(super) fn unlink(&self) -> u32 {
        self.links.fetch_sub(1, Relaxed).saturating_sub(1)
    }

    /// Returns EROFS for a read-only copy of a host file, whose name, bytes and attributes cannot change.
    pub(super) fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only.load(Relaxed) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Sets the times of a copy of a host file to those on the host, and makes it read-only if asked.
    pub fn imported(&self, times: [i64; 3], read_only: bool) {
        let [accessed, modified, changed] = times;
        self.accessed.store(accessed, Relaxed);
        self.modified.store(modified, Relaxed);
        self.changed.store(changed, Relaxed);
        self.born.store(modified, Relaxed);
        self.read_only.store(read_only, Relaxed);
    }

    /// Sets the access time: the contents were read.
    pub fn accessed(&self) {
        if self.read_only.load(Relaxed) {
            return;
        }
        self.accessed.store(time::now(), Relaxed);
    }

    /// Sets the modification and change times: the contents, or the entries of a directory, have changed.
    pub fn modified(&self) {
        let now = time::now();
        self.modified.store(now, Relaxed);
        self.changed.store(now, Relaxed);
    }

    /// Sets the modification time: something was written to the device or fifo, whose bytes the inode does
    /// not hold.
    pub fn written(&self) {
        self.modified.store(time::now(), Relaxed);
    }

    /// Sets the change time: something other than the contents has changed.
    pub(super) fn changed(&self) {
        self.changed.store(time::now(), Relaxed);
    }

    /// Returns the size, and the bytes that hold the contents.
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
