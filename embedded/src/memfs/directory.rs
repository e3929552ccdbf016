//! The entries of a directory, by name and by place. An entry keeps its place until it is removed, so that
//! a directory can be read in pieces while it changes.
//!
//! Sources: NetBSD `sys/fs/tmpfs/tmpfs_subr.c`, `sys/sys/dirent.h`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, Weak};

use super::super::abi::mode;
use super::super::paid::Paid;
use super::super::process::Credentials;
use super::super::sync::{lock, read};
use super::super::work::{self, BATCH};
use super::{Fs, Inode};
use kernel::Errno;

/// Places that are not of an entry (`TMPFS_DIRSEQ_*`).
const DOT: i64 = 0;
const DOT_DOT: i64 = 1;
const END: i64 = 2;
const FIRST: i64 = 3;

/// A directory.
pub(in super::super) struct Directory {
    pub(super) entries: RwLock<Entries>,
    /// The parent directory; the root and removed directories have none.
    pub(super) parent: Mutex<Weak<Inode>>,
}

/// The entries of a directory.
pub(super) struct Entries {
    /// True once the directory was removed: no entry may be added.
    pub removed: bool,
    /// The place of the next entry.
    next: i64,
    by_name: BTreeMap<Arc<[u8]>, Entry>,
    by_place: BTreeMap<i64, Arc<[u8]>>,
}

/// A name of an inode.
pub(super) struct Entry {
    place: i64,
    pub inode: Arc<Inode>,
    /// The payment for the entry; `None` for a file's first name, which is paid for with its inode.
    paid: Option<Paid>,
}

impl Default for Directory {
    fn default() -> Self {
        Directory { entries: RwLock::new(Entries::new()), parent: Mutex::new(Weak::new()) }
    }
}

impl Entries {
    fn new() -> Self {
        let (by_name, by_place) = (BTreeMap::new(), BTreeMap::new());
        Entries { removed: false, next: FIRST, by_name, by_place }
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<Inode>> {
        self.by_name.get(name).map(|entry| &entry.inode)
    }

    /// Returns `true` if `name` is the name of `inode`, or, if that is `None`, of no inode.
    pub fn is(&self, name: &[u8], inode: Option<&Arc<Inode>>) -> bool {
        self.get(name).map(Arc::as_ptr) == inode.map(Arc::as_ptr)
    }

    /// Adds a name that is not there yet, at the last place.
    pub fn insert(&mut self, name: &[u8], inode: Arc<Inode>, paid: Option<Paid>) {
        let (name, place): (Arc<[u8]>, _) = (name.into(), self.next);
        self.next += 1;
        self.by_place.insert(place, name.clone());
        self.by_name.insert(name, Entry { place, inode, paid });
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let entry = self.by_name.remove(name)?;
        self.by_place.remove(&entry.place);
        Some(entry)
    }

    /// Renames an entry and keeps its place.
    pub fn rename(&mut self, old: &[u8], new: &[u8]) {
        let Some(entry) = self.by_name.remove(old) else { return };
        let name: Arc<[u8]> = new.into();
        self.by_place.insert(entry.place, name.clone());
        self.by_name.insert(name, entry);
    }

    /// Moves an entry into another directory, under another name.
    pub fn hand_over(&mut self, old: &[u8], to: &mut Entries, new: &[u8]) {
        if let Some(Entry { inode, paid, .. }) = self.remove(old) {
            to.insert(new, inode, paid);
        }
    }

    /// Takes out and returns all inodes.
    pub fn take_all(&mut self) -> impl Iterator<Item = Arc<Inode>> + use<> {
        self.by_place.clear();
        std::mem::take(&mut self.by_name).into_values().map(|entry| entry.inode)
    }

    /// Looks for the name of an inode among some entries from `place` on. Advances `place`, to `None` past
    /// the last entry.
    fn name_of(&self, inode: &Arc<Inode>, place: &mut Option<i64>) -> Option<Arc<[u8]>> {
        let mut some = self.by_place.range(place.take()?..).take(BATCH);
        some.find(|(at, name)| {
            *place = Some(**at + 1);
            self.get(name).is_some_and(|named| Arc::ptr_eq(named, inode))
        })
        .map(|(_, name)| name.clone())
    }

    /// Returns the place of the first entry from `place` on.
    fn from(&self, place: i64) -> i64 {
        self.by_place.range(place..).next().map_or(END, |(&place, _)| place)
    }
}

/// An entry as it is read.
pub(in super::super) struct Listing<'e> {
    pub number: u64,
    /// The type of the named file, as in a mode.
    pub kind: u32,
    pub name: &'e [u8],
}

impl Inode {
    /// Hands the entries of this directory from place `from` on to `take` until it returns `false`. Returns
    /// the place to go on at. EINVAL for a place that no entry ever had. Removed entries are skipped.
    /// NetBSD: `tmpfs_dir_getdents`.
    pub fn list(
        self: &Arc<Self>,
        fs: &Fs,
        from: i64,
        mut take: impl FnMut(Listing<'_>) -> bool,
    ) -> Result<i64, Errno> {
        let directory = self.directory()?;
        let entries = read(&directory.entries);
        self.accessed();
        if entries.removed {
            return Ok(from);
        }
        let mut at = from;
        for (place, name, next) in
            [(DOT, &b"."[..], DOT_DOT), (DOT_DOT, b"..", entries.from(FIRST))]
        {
            if at == place {
                let up = if place == DOT { self.number() } else { self.above(fs) };
                if !take(Listing { number: up, kind: mode::DIRECTORY, name }) {
                    return Ok(at);
                }
                at = next;
            }
        }
        if at == END {
            return Ok(END);
        }
        if !(FIRST..entries.next).contains(&at) {
            return Err(Errno::EINVAL);
        }
        for (&place, name) in entries.by_place.range(at..) {
            work::count(1);
            let Some(inode) = entries.get(name) else { continue };
            if !take(Listing { number: inode.number(), kind: inode.kind(), name }) {
                return Ok(place);
            }
        }
        Ok(END)
    }

    /// Returns the inode number of the parent directory; its own for the root.
    fn above(self: &Arc<Self>, fs: &Fs) -> u64 {
        self.parent(fs).map_or(self.number(), |parent| parent.number())
    }

    /// Returns the inode with this name in this directory. ENOENT if the directory was removed: then it
    /// does not even contain itself.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Arc<Inode>>, Errno> {
        let entries = read(&self.directory()?.entries);
        if entries.removed { Err(Errno::ENOENT) } else { Ok(entries.get(name).cloned()) }
    }

    /// Returns the name of an inode in this directory. Looks at a few entries at a time, as there may be
    /// very many.
    fn name_of(&self, inode: &Arc<Inode>) -> Result<Option<Arc<[u8]>>, Errno> {
        let entries = &self.directory()?.entries;
        let mut place = Some(FIRST);
        while place.is_some() {
            work::spend(read(entries).len().min(BATCH))?;
            let name = read(entries).name_of(inode, &mut place);
            if name.is_some() {
                return Ok(name);
            }
        }
        Ok(None)
    }

    /// Returns the parent directory; the root itself for the root.
    pub(super) fn parent(self: &Arc<Self>, fs: &Fs) -> Result<Arc<Inode>, Errno> {
        if fs.is_root(self) {
            return Ok(self.clone());
        }
        lock(&self.directory()?.parent).upgrade().ok_or(Errno::ENOENT)
    }

    /// Returns `true` if this directory is `other` or below it. It may be very deep. NetBSD: `vn_isunder`.
    pub fn is_inside(self: &Arc<Self>, other: &Arc<Inode>) -> Result<bool, Errno> {
        let mut at = self.clone();
        loop {
            work::spend(1)?;
            if Arc::ptr_eq(&at, other) {
                return Ok(true);
            }
            let Ok(directory) = at.directory() else { return Ok(false) };
            let Some(up) = lock(&directory.parent).upgrade() else { return Ok(false) };
            at = up;
        }
    }

    /// Returns the path of this directory from `root`, or from the file system's, in at most `most` bytes.
    /// ENOENT if it is not below. The caller must be able to search this directory, and to read and search
    /// those between. At most half as many components as bytes are looked at, so the root may not be
    /// reached and the path be wrong, as in NetBSD (`getcwd_common`).
    pub fn path(
        self: &Arc<Self>,
        fs: &Fs,
        root: Option<&Arc<Inode>>,
        credentials: &Credentials,
        most: usize,
    ) -> Result<Vec<u8>, Errno> {
        let root = root.unwrap_or(&fs.root);
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let (mut at, mut len) = (self.clone(), 0);
        while !Arc::ptr_eq(&at, root) && names.len() < most.div_ceil(2) {
            let between = if names.is_empty() { 0 } else { mode::READ };
            at.check(credentials, mode::EXECUTE | between)?;
            if fs.is_root(&at) {
                return Err(Errno::ENOENT);
            }
            let up = at.parent(fs)?;
            let name = up.name_of(&at)?.ok_or(Errno::ENOENT)?;
            len += name.len() + 1;
            if len > most {
                return Err(Errno::ERANGE);
            }
            names.push(name);
            at = up;
        }
        if names.is_empty() {
            return Ok(b"/".to_vec());
        }
        let mut path: Vec<u8> = Vec::with_capacity(len);
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(path)
    }
}
