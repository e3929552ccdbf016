//! The file system in memory: inodes, directories and the root with `/dev` and `/tmp` in it. It behaves as
//! NetBSD's tmpfs does, except for files with holes, which cost nothing here.
//!
//! A directory keeps its entries alive, and an open file keeps itself alive. So an unlinked file lives
//! until it is closed, and its bytes go with it. Lock order: a directory before what is in it.
//!
//! - `inode`, `attributes`: inodes, their attributes, and who may change those
//! - `content`, `directory`: the contents of files and directories
//! - `path`: from names to inodes; `rename`: moving a name
//!
//! Sources: NetBSD `sys/fs/tmpfs/*.c`, `sys/rump/librump/rumpvfs/{rump_vfs,devnodes}.c`.

mod attributes;
mod content;
mod directory;
mod inode;
mod path;
mod rename;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

pub(super) use attributes::Handover;
pub(super) use content::{Content, PAGE};
pub(super) use inode::{FILE_SYSTEM, Inode, LINK_MAX, Make};
pub(super) use path::{Aim, Found, Walk};

use super::abi::mode;
use super::device::Device;
use super::kqueue::note;
use super::limits::{Counters, ResourceGroup};
use super::paid::Paid;
use super::process::Credentials;
use super::sync::{lock, write};
use directory::Entry;
use inode::{Kind, flags};
use kernel::Errno;
use path::Last;

/// The longest name of a directory entry (`TMPFS_MAXNAMLEN`).
pub(super) const NAME_MAX: usize = 255;

/// The bytes that one more name of a file is charged, rounded up from what its directory holds for it.
const NAME_COST: u64 = 512;

/// The file system.
pub(super) struct Fs {
    root: Arc<Inode>,
    /// True while the initial files are being made, which no bound stops.
    furnishing: bool,
    next: AtomicU64,
    /// The lock held while names are moved, so that no directory ends up inside itself.
    renaming: Mutex<()>,
    /// A counter raised before and after each move of a directory into another: odd during one.
    moves: AtomicU64,
}

impl Fs {
    pub fn new(counters: &Arc<Counters>) -> Self {
        let (rootly, resource_group) = (Credentials::default(), ResourceGroup::new(counters));
        let root = match Inode::new(2, Make::Directory, 0o755, &rootly, 0, &resource_group) {
            Ok(root) => root,
            Err(_) => unreachable!("a directory is paid for by nobody"),
        };
        resource_group.add_inode();
        let mut fs = Fs {
            root: Arc::new(root),
            furnishing: true,
            next: AtomicU64::new(3),
            renaming: Mutex::new(()),
            moves: AtomicU64::new(0),
        };
        fs.furnish(&rootly, &resource_group);
        fs.furnishing = false;
        fs
    }

    fn furnish(&self, rootly: &Credentials, resource_group: &Arc<ResourceGroup>) {
        let make = |dir: &Arc<Inode>, name: &str, what, mode| {
            self.make(dir, name.as_bytes(), what, mode, rootly, resource_group)
        };
        let _ = make(&self.root, "tmp", Make::Directory, 0o1777);
        if let Ok(dev) = make(&self.root, "dev", Make::Directory, 0o755) {
            for (name, device) in Device::ALL {
                let node = Make::Device { block: false, number: device.number() };
                let _ = make(&dev, name, node, 0o666);
            }
        }
    }

    pub fn root(&self) -> Arc<Inode> {
        self.root.clone()
    }

    fn is_root(&self, inode: &Arc<Inode>) -> bool {
        Arc::ptr_eq(inode, &self.root)
    }

    /// Makes an inode in directory `dir`. `resource_group` pays for its contents. NetBSD:
    /// `tmpfs_construct_node`.
    pub fn make(
        &self,
        dir: &Arc<Inode>,
        name: &[u8],
        what: Make<'_>,
        mode: u32,
        credentials: &Credentials,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<Arc<Inode>, Errno> {
        dir.check(credentials, mode::WRITE)?;
        let directory = dir.directory()?;
        let mut entries = write(&directory.entries);
        if entries.removed {
            return Err(Errno::ENOENT);
        }
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        if what == Make::Directory && dir.links.load(Relaxed) >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        if self.furnishing {
            resource_group.add_inode();
        } else if !resource_group.take_inode() {
            return Err(Errno::ENOSPC);
        }
        let number = self.next.fetch_add(1, Relaxed);
        let group = dir.gid.load(Relaxed);
        let inode = Inode::new(number, what, mode, credentials, group, resource_group);
        let inode = Arc::new(inode.inspect_err(|_| resource_group.give_inode())?);
        if let Kind::Directory(made) = &inode.kind {
            *lock(&made.parent) = Arc::downgrade(dir);
            dir.links.fetch_add(1, Relaxed);
        }
        entries.insert(name, inode.clone(), None);
        drop(entries);
        dir.modified();
        dir.note(note::WRITE | if inode.is_directory() { note::LINK } else { 0 });
        Ok(inode)
    }

    /// Gives `inode` one more name, which `resource_group` pays for. NetBSD: `do_sys_linkat`, `tmpfs_link`.
    pub fn link(
        &self,
        inode: &Arc<Inode>,
        to: &Found<'_>,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<(), Errno> {
        let (dir, name) = to.entry()?;
        let mut entries = write(&dir.directory()?.entries);
        if entries.removed {
            return Err(Errno::ENOENT);
        }
        if entries.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        if inode.is_directory() {
            return Err(Errno::EPERM);
        }
        inode.link()?;
        let frozen = inode.check_frozen();
        let paid = frozen
            .and_then(|()| Paid::new(resource_group, NAME_COST, Errno::ENOSPC))
            .inspect_err(|_| {
                inode.unlink();
            })?;
        entries.insert(name, inode.clone(), Some(paid));
        drop(entries);
        dir.modified();
        dir.note(note::WRITE);
        inode.changed();
        inode.note(note::LINK);
        Ok(())
    }

    /// Removes a name: of a directory if `directory`, else of anything but a directory. NetBSD:
    /// `do_sys_unlinkat`.
    pub fn remove(&self, found: &Found<'_>, directory: bool) -> Result<(), Errno> {
        let inode = found.existing()?;
        if self.is_root(inode) {
            return Err(Errno::EBUSY);
        }
        if Arc::ptr_eq(inode, &found.dir) {
            return Err(Errno::EINVAL);
        }
        inode.check_writable()?;
        match (inode.is_directory(), directory) {
            (true, false) => Err(Errno::EPERM),
            (false, true) => Err(Errno::ENOTDIR),
            (true, true) => self.rmdir(found, inode),
            (false, false) => self.unlink(found, inode),
        }
    }

    /// NetBSD: `tmpfs_remove`.
    fn unlink(&self, found: &Found<'_>, inode: &Arc<Inode>) -> Result<(), Errno> {
        let (dir, name) = found.entry()?;
        inode.check_frozen()?;
        if dir.has(flags::APPEND) {
            return Err(Errno::EPERM);
        }
        let gone = take(dir, name, inode)?;
        if inode.unlink() > 0 {
            inode.changed();
        }
        inode.note_unlinked();
        dir.modified();
        dir.note(note::WRITE);
        drop(gone);
        Ok(())
    }

    /// NetBSD: `tmpfs_rmdir`.
    fn rmdir(&self, found: &Found<'_>, inode: &Arc<Inode>) -> Result<(), Errno> {
        let Last::Name(name) = &found.last else {
            // `..` of a directory is not empty, as it contains that directory.
            return Err(Errno::ENOTEMPTY);
        };
        let dir = &found.dir;
        let mut entries = write(&dir.directory()?.entries);
        if !entries.is(name, Some(inode)) {
            return Err(Errno::ENOENT);
        }
        let inside = inode.directory()?;
        let mut within = write(&inside.entries);
        if !within.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        inode.check_frozen()?;
        if dir.has(flags::APPEND) {
            return Err(Errno::EPERM);
        }
        within.removed = true;
        *lock(&inside.parent) = Weak::new();
        let gone = entries.remove(name);
        // Both are still locked: the directory may be removed next, and then has no links.
        inode.links.store(0, Relaxed);
        dir.links.fetch_sub(1, Relaxed);
        drop((within, entries));
        inode.note_unlinked();
        dir.modified();
        dir.note(note::WRITE | note::LINK);
        drop(gone);
        Ok(())
    }
}

/// Takes `inode` out of `dir`. Fails if it does not have that name there any more.
fn take(dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<Entry, Errno> {
    let mut entries = write(&dir.directory()?.entries);
    if !entries.is(name, Some(inode)) {
        return Err(Errno::ENOENT);
    }
    entries.remove(name).ok_or(Errno::ENOENT)
}

/// Takes the tree apart from the top, so that dropping it takes no deep stack however deep the tree is.
impl Drop for Fs {
    fn drop(&mut self) {
        let mut left = vec![self.root.clone()];
        while let Some(inode) = left.pop() {
            if let Kind::Directory(directory) = &inode.kind {
                let entries = write(&directory.entries).take_all();
                left.extend(entries);
            }
        }
    }
}
