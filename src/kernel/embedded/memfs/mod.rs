//! The file system in memory: inodes, directories and the root with `/dev` and `/tmp` in it.
//!
//! A directory holds what is in it; what is open holds itself. So an unlinked file lives until it is
//! closed, and its bytes go with it. Locks: a directory is locked before what is in it.
//!
//! Sources: NetBSD `sys/rump/librump/rumpvfs/{rumpfs,rump_vfs,devnodes}.c`.

mod content;
mod path;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock, Weak};

pub(super) use content::Content;
pub(super) use path::{Found, find};

use super::abi::{self, Stat};
use super::device::Device;
use super::limits::{Counters, Family};
use super::locks::FileLocks;
use super::pipe::fifo;
use super::process::Credentials;
use super::sync::{lock, read, write};
use super::time;
use crate::kernel::Errno;

/// The longest name of a directory entry (`RUMPFS_MAXNAMLEN`).
pub(super) const NAME_MAX: usize = 255;

/// The number of the only file system (`st_dev`).
const FILE_SYSTEM: u64 = 1;

/// The file system.
pub(super) struct Fs {
    root: Arc<Inode>,
    /// How many inodes there may be.
    most: u64,
    counters: Arc<Counters>,
    next: AtomicU64,
    /// Held while directories change places, so that none ends up inside itself.
    renaming: Mutex<()>,
}

/// A file, directory, device or name of a socket.
pub(super) struct Inode {
    number: u64,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    links: AtomicU32,
    /// Times, in nanoseconds since 1970.
    accessed: AtomicI64,
    modified: AtomicI64,
    changed: AtomicI64,
    born: AtomicI64,
    /// It came from the host, to be read only.
    read_only: AtomicBool,
    kind: Kind,
    locks: FileLocks,
    fifo: fifo::Slot,
    counters: Arc<Counters>,
}

enum Kind {
    File(Content),
    Directory(Directory),
    Device(Device),
    Socket,
    Fifo,
}

/// What a directory holds.
pub(super) struct Directory {
    entries: RwLock<Entries>,
    /// The directory it is in; the root and a removed one are in none.
    parent: Mutex<Weak<Inode>>,
}

#[derive(Default)]
struct Entries {
    /// The directory was removed: nothing may come into it.
    removed: bool,
    by_name: BTreeMap<Box<[u8]>, Arc<Inode>>,
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    File,
    Directory,
    Device(Device),
    Socket,
    Fifo,
}

impl Fs {
    pub fn new(counters: &Arc<Counters>) -> Self {
        let (rootly, payer) = (Credentials::default(), Family::new(counters));
        let root = Inode::new(2, Make::Directory, 0o755, &rootly, 0, &payer);
        counters.inodes.take(1, u64::MAX);
        let mut fs = Fs {
            root: Arc::new(root),
            most: u64::MAX,
            counters: counters.clone(),
            next: AtomicU64::new(3),
            renaming: Mutex::new(()),
        };
        // What is there from the start is so whatever the bound.
        fs.furnish(&rootly, &payer);
        fs.most = counters.limits.inodes;
        fs
    }

    fn furnish(&self, rootly: &Credentials, payer: &Arc<Family>) {
        let make = |dir: &Arc<Inode>, name: &str, what, mode| {
            self.make(dir, name.as_bytes(), what, mode, rootly, payer)
        };
        let _ = make(&self.root, "tmp", Make::Directory, 0o1777);
        if let Ok(dev) = make(&self.root, "dev", Make::Directory, 0o755) {
            for (name, device) in Device::ALL {
                let _ = make(&dev, name, Make::Device(device), 0o666);
            }
        }
    }

    pub fn root(&self) -> Arc<Inode> {
        self.root.clone()
    }

    /// Makes something in directory `dir`. What it will hold is paid for by `payer`.
    pub fn make(
        &self,
        dir: &Arc<Inode>,
        name: &[u8],
        what: Make,
        mode: u32,
        credentials: &Credentials,
        payer: &Arc<Family>,
    ) -> Result<Arc<Inode>, Errno> {
        dir.check(credentials, abi::mode::WRITE)?;
        let directory = dir.directory()?;
        let mut entries = write(&directory.entries);
        if entries.removed {
            return Err(Errno::ENOENT);
        }
        if entries.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if !self.counters.inodes.take(1, self.most) {
            return Err(Errno::ENOSPC);
        }
        let number = self.next.fetch_add(1, Relaxed);
        let group = dir.gid.load(Relaxed);
        let inode = Arc::new(Inode::new(number, what, mode, credentials, group, payer));
        if let Kind::Directory(made) = &inode.kind {
            *lock(&made.parent) = Arc::downgrade(dir);
            dir.links.fetch_add(1, Relaxed);
        }
        entries.by_name.insert(name.into(), inode.clone());
        drop(entries);
        dir.modified();
        Ok(inode)
    }

    /// Removes what is not a directory.
    pub fn unlink(&self, found: &Found, credentials: &Credentials) -> Result<(), Errno> {
        let (dir, name) = found.entry()?;
        let Some(inode) = &found.inode else { return Err(Errno::ENOENT) };
        if inode.is_directory() {
            return Err(Errno::EPERM);
        }
        dir.check_delete(credentials, inode)?;
        let gone = take(dir, name, inode)?;
        gone.links.fetch_sub(1, Relaxed);
        gone.changed();
        dir.modified();
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, found: &Found, credentials: &Credentials) -> Result<(), Errno> {
        let (dir, name) = found.entry()?;
        let Some(inode) = &found.inode else { return Err(Errno::ENOENT) };
        let inside = inode.directory()?;
        dir.check_delete(credentials, inode)?;
        let mut entries = write(&dir.directory()?.entries);
        if !entries.by_name.get(name).is_some_and(|there| Arc::ptr_eq(there, inode)) {
            return Err(Errno::ENOENT);
        }
        let mut within = write(&inside.entries);
        if !within.by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        within.removed = true;
        *lock(&inside.parent) = Weak::new();
        let gone = entries.by_name.remove(name);
        drop((within, entries));
        inode.links.store(0, Relaxed);
        dir.links.fetch_sub(1, Relaxed);
        dir.modified();
        drop(gone);
        Ok(())
    }

    /// Moves `from` to `to`, over what is there if that may be. NetBSD: `do_sys_rename`.
    pub fn rename(&self, from: &Found, to: &Found, credentials: &Credentials) -> Result<(), Errno> {
        let _one_at_a_time = lock(&self.renaming);
        let (source, old_name) = from.entry()?;
        let (target, new_name) = to.entry()?;
        let Some(inode) = &from.inode else { return Err(Errno::ENOENT) };
        if let Some(over) = &to.inode {
            if Arc::ptr_eq(over, inode) {
                return Ok(());
            }
            match (inode.is_directory(), over.is_directory()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
            if source.is_inside(over) {
                return Err(Errno::ENOTEMPTY);
            }
            target.check_delete(credentials, over)?;
        }
        if inode.is_directory() && target.is_inside(inode) {
            return Err(Errno::EINVAL);
        }
        source.check_delete(credentials, inode)?;
        target.check(credentials, abi::mode::WRITE)?;
        let gone = self.exchange(source, old_name, inode, target, new_name, to.inode.as_ref())?;
        if inode.is_directory() {
            source.links.fetch_sub(1, Relaxed);
            target.links.fetch_add(1, Relaxed);
        }
        if let Some(gone) = &gone {
            if gone.is_directory() {
                target.links.fetch_sub(1, Relaxed);
                gone.links.store(0, Relaxed);
            } else {
                gone.links.fetch_sub(1, Relaxed);
            }
            gone.changed();
        }
        inode.changed();
        source.modified();
        target.modified();
        Ok(())
    }

    /// The part of a rename under the locks of both directories: an ancestor is locked before what
    /// is below it, as everywhere, and strangers by number.
    fn exchange(
        &self,
        source: &Arc<Inode>,
        old_name: &[u8],
        inode: &Arc<Inode>,
        target: &Arc<Inode>,
        new_name: &[u8],
        over: Option<&Arc<Inode>>,
    ) -> Result<Option<Arc<Inode>>, Errno> {
        let (from, to) = (source.directory()?, target.directory()?);
        if Arc::ptr_eq(source, target) {
            let mut entries = write(&from.entries);
            settle(&entries, old_name, inode, &entries, new_name, over)?;
            entries.by_name.remove(old_name);
            // Within one directory the moved one stays where it is.
            return Ok(entries.by_name.insert(new_name.into(), inode.clone()));
        }
        let source_first = if target.is_inside(source) {
            true
        } else {
            !source.is_inside(target) && source.number < target.number
        };
        let (mut taken, mut given);
        if source_first {
            taken = write(&from.entries);
            given = write(&to.entries);
        } else {
            given = write(&to.entries);
            taken = write(&from.entries);
        }
        settle(&taken, old_name, inode, &given, new_name, over)?;
        taken.by_name.remove(old_name);
        if let Kind::Directory(moved) = &inode.kind {
            *lock(&moved.parent) = Arc::downgrade(target);
        }
        Ok(given.by_name.insert(new_name.into(), inode.clone()))
    }
}

/// Checks under the locks that a rename still finds what it was told, and that a directory it goes
/// over is empty; that one takes nothing any more.
fn settle(
    source: &Entries,
    old_name: &[u8],
    inode: &Arc<Inode>,
    target: &Entries,
    new_name: &[u8],
    over: Option<&Arc<Inode>>,
) -> Result<(), Errno> {
    let still = |entries: &Entries, name: &[u8], what: Option<&Arc<Inode>>| {
        entries.by_name.get(name).map(Arc::as_ptr) == what.map(Arc::as_ptr)
    };
    if target.removed || !still(source, old_name, Some(inode)) || !still(target, new_name, over) {
        return Err(Errno::ENOENT);
    }
    if let Some(Kind::Directory(directory)) = over.map(|over| &over.kind) {
        let mut within = write(&directory.entries);
        if !within.by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        within.removed = true;
        *lock(&directory.parent) = Weak::new();
    }
    Ok(())
}

/// Takes `inode` out of `dir`, if it is still there under that name.
fn take(dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<Arc<Inode>, Errno> {
    let mut entries = write(&dir.directory()?.entries);
    if !entries.by_name.get(name).is_some_and(|there| Arc::ptr_eq(there, inode)) {
        return Err(Errno::ENOENT);
    }
    entries.by_name.remove(name).ok_or(Errno::ENOENT)
}

/// Takes the tree apart from the top: however deep it is, dropping it takes no deep stack.
impl Drop for Fs {
    fn drop(&mut self) {
        let mut left = vec![self.root.clone()];
        while let Some(inode) = left.pop() {
            if let Kind::Directory(directory) = &inode.kind {
                let entries = std::mem::take(&mut write(&directory.entries).by_name);
                left.extend(entries.into_values());
            }
        }
    }
}

impl Inode {
    /// The caller has counted it.
    fn new(
        number: u64,
        what: Make,
        mode: u32,
        credentials: &Credentials,
        group: u32,
        payer: &Arc<Family>,
    ) -> Inode {
        let now = time::now();
        let kind = match what {
            Make::File => Kind::File(Content::new(payer)),
            Make::Directory => Kind::Directory(Directory {
                entries: RwLock::default(),
                parent: Mutex::new(Weak::new()),
            }),
            Make::Device(device) => Kind::Device(device),
            Make::Socket => Kind::Socket,
            Make::Fifo => Kind::Fifo,
        };
        Inode {
            number,
            mode: AtomicU32::new(mode & abi::mode::PERMISSIONS),
            uid: AtomicU32::new(credentials.euid),
            gid: AtomicU32::new(group),
            links: AtomicU32::new(if what == Make::Directory { 2 } else { 1 }),
            accessed: AtomicI64::new(now),
            modified: AtomicI64::new(now),
            changed: AtomicI64::new(now),
            born: AtomicI64::new(now),
            read_only: AtomicBool::new(false),
            kind,
            locks: FileLocks::default(),
            fifo: fifo::Slot::default(),
            counters: payer.system.clone(),
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

    /// The locks that are held on it.
    pub fn locks(&self) -> &FileLocks {
        &self.locks
    }

    /// What it has of a fifo, if it is one.
    pub fn fifo(&self) -> &fifo::Slot {
        &self.fifo
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
            Kind::Device(_) | Kind::Socket | Kind::Fifo => Err(Errno::EOPNOTSUPP),
        }
    }

    pub fn device(&self) -> Option<Device> {
        match self.kind {
            Kind::Device(device) => Some(device),
            _ => None,
        }
    }

    /// The entry of a directory with this name.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Arc<Inode>>, Errno> {
        Ok(read(&self.directory()?.entries).by_name.get(name).cloned())
    }

    /// The directory this one is in: itself for the root.
    fn parent(self: &Arc<Self>, root: &Arc<Inode>) -> Result<Arc<Inode>, Errno> {
        if Arc::ptr_eq(self, root) {
            return Ok(self.clone());
        }
        lock(&self.directory()?.parent).upgrade().ok_or(Errno::ENOENT)
    }

    /// Whether this directory is `other` or below it.
    fn is_inside(self: &Arc<Self>, other: &Arc<Inode>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            let Kind::Directory(directory) = &at.kind else { return false };
            let Some(up) = lock(&directory.parent).upgrade() else { return false };
            at = up;
        }
    }

    /// The path of this directory from the root, at most `most` bytes of it. NetBSD: `getcwd_common`.
    pub fn path(self: &Arc<Self>, root: &Arc<Inode>, most: usize) -> Result<Vec<u8>, Errno> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let (mut at, mut len) = (self.clone(), 0);
        while !Arc::ptr_eq(&at, root) {
            let up = at.parent(root)?;
            let name = {
                let entries = read(&up.directory()?.entries);
                let mut named = entries.by_name.iter();
                named.find(|(_, inode)| Arc::ptr_eq(inode, &at)).map(|(name, _)| name.clone())
            };
            let name = name.ok_or(Errno::ENOENT)?;
            len += name.len() + 1;
            if len > most {
                return Err(Errno::ERANGE);
            }
            names.push(name);
            at = up;
        }
        let mut path: Vec<u8> = Vec::with_capacity(len.max(1));
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(path)
    }

    /// EACCES unless these credentials may do all of `wanted` (`READ`, `WRITE`, `EXECUTE`). The
    /// superuser may, but execute only what anyone may execute. NetBSD: `genfs_can_access`.
    pub fn check(&self, credentials: &Credentials, wanted: u32) -> Result<(), Errno> {
        self.check_as(credentials.euid, credentials.egid, &credentials.groups, wanted)
    }

    /// As [`Inode::check`], for this user and these groups.
    pub fn check_as(&self, uid: u32, gid: u32, groups: &[u32], wanted: u32) -> Result<(), Errno> {
        if wanted & abi::mode::WRITE != 0 {
            self.check_writable()?;
        }
        let mode = self.mode.load(Relaxed);
        if uid == 0 {
            let runs = wanted & abi::mode::EXECUTE == 0 || self.is_directory() || mode & 0o111 != 0;
            return if runs { Ok(()) } else { Err(Errno::EACCES) };
        }
        let group = self.gid.load(Relaxed);
        let granted = if uid == self.uid.load(Relaxed) {
            mode >> 6
        } else if gid == group || groups.contains(&group) {
            mode >> 3
        } else {
            mode
        };
        if granted & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether `inode` may be taken out of this directory: EPERM for another's in a sticky one.
    fn check_delete(&self, credentials: &Credentials, inode: &Inode) -> Result<(), Errno> {
        self.check(credentials, abi::mode::WRITE)?;
        inode.check_writable()?;
        let user = credentials.euid;
        let sticky = self.mode.load(Relaxed) & abi::mode::STICKY != 0;
        let owns = |what: &Inode| what.uid.load(Relaxed) == user;
        if user != 0 && sticky && !owns(self) && !owns(inode) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// EROFS if it is to be read only: it keeps its name, bytes and attributes.
    pub fn check_writable(&self) -> Result<(), Errno> {
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

    /// Something else of it has changed.
    fn changed(&self) {
        self.changed.store(time::now(), Relaxed);
    }

    /// NetBSD: `vn_stat`.
    pub fn stat(&self) -> Stat {
        let (kind, size, blocks) = match &self.kind {
            Kind::File(content) => {
                let (size, blocks) = content.extent();
                (abi::mode::REGULAR, size, blocks)
            }
            Kind::Directory(_) => (abi::mode::DIRECTORY, content::BLOCK as u64, 1),
            Kind::Device(_) => (abi::mode::CHARACTER, 0, 0),
            Kind::Socket => (abi::mode::SOCKET, 0, 0),
            Kind::Fifo => (abi::mode::FIFO, 0, 0),
        };
        Stat {
            dev: FILE_SYSTEM,
            mode: kind | self.mode.load(Relaxed),
            ino: self.number,
            nlink: self.links.load(Relaxed),
            uid: self.uid.load(Relaxed),
            gid: self.gid.load(Relaxed),
            rdev: self.device().map_or(0, Device::number),
            accessed: self.accessed.load(Relaxed),
            modified: self.modified.load(Relaxed),
            changed: self.changed.load(Relaxed),
            born: self.born.load(Relaxed),
            size: size as i64,
            blocks: blocks as i64,
            block_size: super::call::PIECE as i32,
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.counters.inodes.give(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::mode::{EXECUTE, READ, WRITE};

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials { uid, euid: uid, gid, egid: gid, groups: groups.into(), ..Default::default() }
    }

    #[test]
    fn the_mode_says_who_may() {
        let counters = Arc::default();
        let (fs, payer) = (Fs::new(&counters), Family::new(&counters));
        let (owner, mate, stranger) = (user(100, 10, &[]), user(101, 9, &[0]), user(102, 9, &[]));
        let tmp = fs.root().lookup(b"tmp").unwrap().unwrap();
        let file = fs.make(&tmp, b"file", Make::File, 0o640, &owner, &payer).unwrap();
        // The group of a new file is its directory's.
        assert_eq!((file.stat().uid, file.stat().gid), (100, 0));
        assert_eq!(file.check(&owner, READ | WRITE), Ok(()));
        assert_eq!(file.check(&owner, EXECUTE), Err(Errno::EACCES));
        assert_eq!(file.check(&mate, READ), Ok(()));
        assert_eq!(file.check(&mate, READ | WRITE), Err(Errno::EACCES));
        assert_eq!(file.check(&stranger, READ), Err(Errno::EACCES));
        assert_eq!(file.check(&stranger, 0), Ok(()));
        assert_eq!(file.check(&user(0, 0, &[]), READ | WRITE), Ok(()));
        let refused = fs.make(&fs.root(), b"file", Make::File, 0o640, &owner, &payer);
        assert_eq!(refused.err(), Some(Errno::EACCES));
        // Others' files in a sticky directory stay.
        let found = |who| find(&fs, fs.root(), who, b"/tmp/file").unwrap();
        assert_eq!(fs.unlink(&found(&stranger), &stranger), Err(Errno::EPERM));
        assert_eq!(fs.unlink(&found(&owner), &owner), Ok(()));
        fs.make(&tmp, b"closed", Make::Directory, 0o600, &owner, &payer).unwrap();
        let inside = find(&fs, fs.root(), &owner, b"/tmp/closed/file");
        assert_eq!(inside.err(), Some(Errno::EACCES));
    }

    #[test]
    fn renames_and_removals_at_once_neither_hang_nor_lose_anything() {
        let counters = Arc::default();
        let (fs, payer) = (Fs::new(&counters), Family::new(&counters));
        let rootly = Credentials::default();
        let before = counters.inodes.get();
        let at = |path: &str| {
            find(&fs, fs.root(), &rootly, path.as_bytes()).ok().map(|found| {
                let name = match found.last {
                    path::Last::Name(name) => name.to_vec(),
                    _ => Vec::new(),
                };
                (found.dir, name, found.inode, found.slash)
            })
        };
        let names = ["/tmp/a", "/tmp/b", "/tmp/a/x", "/tmp/b/x", "/tmp/a/x/y", "/tmp/b/x/y"];
        std::thread::scope(|scope| {
            for who in 0..4usize {
                let (fs, rootly, payer, at) = (&fs, &rootly, &payer, &at);
                scope.spawn(move || {
                    let mut seed = who + 1;
                    let mut any = |below: usize| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (seed >> 33) % below
                    };
                    for _ in 0..5_000 {
                        let picked = [names[any(names.len())], names[any(names.len())]];
                        let [Some(one), Some(two)] = picked.map(at) else { continue };
                        let one_found = again(&one);
                        match any(3) {
                            0 => {
                                drop(fs.make(&one.0, &one.1, Make::Directory, 0o755, rootly, payer))
                            }
                            1 => drop(fs.rename(&one_found, &again(&two), rootly)),
                            _ => drop(fs.rmdir(&one_found, rootly)),
                        }
                    }
                });
            }
        });
        // Whatever is left hangs together: it can be removed from below.
        let tmp = fs.root().lookup(b"tmp").unwrap().unwrap();
        clear(&fs, &tmp, &rootly);
        assert_eq!(counters.inodes.get(), before);
        assert_eq!(tmp.stat().nlink, 2);
    }

    fn clear(fs: &Fs, dir: &Arc<Inode>, rootly: &Credentials) {
        let entries = read(&dir.directory().unwrap().entries).by_name.clone();
        for (name, inode) in entries {
            clear(fs, &inode, rootly);
            assert!(Arc::ptr_eq(&inode.parent(&fs.root()).unwrap(), dir));
            assert_eq!(inode.stat().nlink, 2);
            let last = path::Last::Name(&name);
            let found = Found { dir: dir.clone(), last, inode: Some(inode), slash: false };
            fs.rmdir(&found, rootly).unwrap();
        }
    }

    type Kept = (Arc<Inode>, Vec<u8>, Option<Arc<Inode>>, bool);

    fn again(kept: &Kept) -> Found<'_> {
        Found {
            dir: kept.0.clone(),
            last: path::Last::Name(&kept.1),
            inode: kept.2.clone(),
            slash: kept.3,
        }
    }
}
