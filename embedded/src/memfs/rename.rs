//! Rename: moving a file from one name to another.
//!
//! Sources: NetBSD `sys/kern/vfs_syscalls.c` (`do_sys_renameat`), `sys/miscfs/genfs/genfs_rename.c`,
//! `sys/fs/tmpfs/tmpfs_rename.c`; rename(2).

use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::{Arc, Weak};

use super::super::abi::mode;
use super::super::kqueue::note;
use super::super::process::Credentials;
use super::super::sync::{lock, read, write};
use super::directory::Entries;
use super::inode::{Kind, flags};
use super::path::{Found, Last};
use super::{Fs, Inode};
use kernel::Errno;

/// A rename under way: the inode, its old and new directory and name, and the inode it replaces.
struct Move<'m> {
    inode: &'m Arc<Inode>,
    source: &'m Arc<Inode>,
    old: &'m [u8],
    target: &'m Arc<Inode>,
    new: &'m [u8],
    over: Option<&'m Arc<Inode>>,
}

impl Fs {
    /// Moves `from` to `to`, replacing the file there if that is allowed. For two names of one file, `keep`
    /// leaves both, as POSIX has it; otherwise the old one goes.
    pub fn rename(
        &self,
        from: &Found<'_>,
        to: &Found<'_>,
        credentials: &Credentials,
        keep: bool,
    ) -> Result<(), Errno> {
        let (Last::Name(old), Last::Name(new)) = (&from.last, &to.last) else {
            return Err(Errno::EINVAL);
        };
        let inode = from.existing()?;
        let (source, target, over) = (&from.dir, &to.dir, to.inode.as_ref());
        let it = Move { inode, source, old, target, new, over };
        let _one_at_a_time = lock(&self.renaming);
        it.check_kinds()?;
        if over.is_some_and(|over| Arc::ptr_eq(over, inode)) {
            let same = Arc::ptr_eq(source, target) && old == new;
            return if keep || same { Ok(()) } else { it.drop_old(credentials) };
        }
        it.check_possible()?;
        it.check_permitted(credentials)?;
        let moves = u64::from(inode.is_directory() && !Arc::ptr_eq(source, target));
        self.moves.fetch_add(moves, AcqRel);
        let exchanged = it.exchange();
        self.moves.fetch_add(moves, AcqRel);
        exchanged?;
        it.tell();
        Ok(())
    }
}

impl Move<'_> {
    /// Returns an error for moves that nobody may make: a directory over a file or the other way round, a
    /// directory into itself, or anything over the directory it is in.
    fn check_kinds(&self) -> Result<(), Errno> {
        if let Some(over) = self.over {
            match (self.inode.is_directory(), over.is_directory()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if self.inode.is_directory() && self.target.is_inside(self.inode)? {
            return Err(Errno::EINVAL);
        }
        if let Some(over) = self.over.filter(|over| over.is_directory())
            && self.source.is_inside(over)?
        {
            return Err(Errno::ENOTEMPTY);
        }
        Ok(())
    }

    /// NetBSD: `genfs_rename_remove`.
    fn drop_old(&self, credentials: &Credentials) -> Result<(), Errno> {
        self.source.check_frozen()?;
        self.inode.check_frozen()?;
        self.source.check(credentials, mode::WRITE)?;
        self.source.check_sticky(credentials, self.inode)?;
        super::take(self.source, self.old, self.inode)?;
        self.inode.unlink();
        self.inode.note_unlinked();
        self.source.modified();
        self.source.note(note::WRITE);
        Ok(())
    }

    /// NetBSD: `genfs_ufslike_rename_check_possible`, after the target was found empty.
    fn check_possible(&self) -> Result<(), Errno> {
        if let Some(Kind::Directory(over)) = self.over.map(|over| &over.kind)
            && !read(&over.entries).is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.source.check_frozen()?;
        self.inode.check_frozen()?;
        let append = if self.over.is_some() { flags::APPEND } else { 0 };
        if self.target.has(flags::IMMUTABLE | append) {
            return Err(Errno::EPERM);
        }
        self.over.map_or(Ok(()), |over| over.check_frozen())
    }

    /// NetBSD: `genfs_ufslike_rename_check_permitted`.
    fn check_permitted(&self, credentials: &Credentials) -> Result<(), Errno> {
        self.source.check(credentials, mode::WRITE)?;
        if !Arc::ptr_eq(self.source, self.target) {
            self.target.check(credentials, mode::WRITE)?;
            // The `..` entry of the directory changes.
            if self.inode.is_directory() {
                self.inode.check(credentials, mode::WRITE)?;
            }
        }
        self.source.check_sticky(credentials, self.inode)?;
        self.over.map_or(Ok(()), |over| self.target.check_sticky(credentials, over))
    }

    /// Makes the move with both directories locked. As everywhere, an ancestor is locked before what is
    /// below it; unrelated directories are locked by number.
    fn exchange(&self) -> Result<(), Errno> {
        let (from, to) = (self.source.directory()?, self.target.directory()?);
        if Arc::ptr_eq(self.source, self.target) {
            let mut entries = write(&from.entries);
            self.settle(&entries, &entries)?;
            let gone = entries.remove(self.new);
            entries.rename(self.old, self.new);
            self.settle_links();
            drop(entries);
            drop(gone);
            return Ok(());
        }
        let source_first = if self.target.is_inside(self.source)? {
            true
        } else {
            !self.source.is_inside(self.target)? && self.source.number() < self.target.number()
        };
        let (mut taken, mut given);
        if source_first {
            taken = write(&from.entries);
            given = write(&to.entries);
        } else {
            given = write(&to.entries);
            taken = write(&from.entries);
        }
        self.settle(&taken, &given)?;
        let gone = given.remove(self.new);
        taken.hand_over(self.old, &mut given, self.new);
        if let Kind::Directory(moved) = &self.inode.kind {
            *lock(&moved.parent) = Arc::downgrade(self.target);
        }
        self.settle_links();
        drop((taken, given));
        drop(gone);
        Ok(())
    }

    /// Checks under the locks that names and inodes are still as looked up, and that a replaced directory
    /// is empty; marks that directory as removed.
    fn settle(&self, source: &Entries, target: &Entries) -> Result<(), Errno> {
        let still = source.is(self.old, Some(self.inode)) && target.is(self.new, self.over);
        if target.removed || !still {
            return Err(Errno::ENOENT);
        }
        if let Some(Kind::Directory(directory)) = self.over.map(|over| &over.kind) {
            let mut within = write(&directory.entries);
            if !within.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            within.removed = true;
            *lock(&directory.parent) = Weak::new();
        }
        Ok(())
    }

    /// Updates the link counts while both directories are locked: either may be removed next, and then has
    /// no links.
    fn settle_links(&self) {
        if self.inode.is_directory() && !Arc::ptr_eq(self.source, self.target) {
            self.source.links.fetch_sub(1, Relaxed);
            self.target.links.fetch_add(1, Relaxed);
        }
        match self.over {
            Some(over) if over.is_directory() => {
                self.target.links.fetch_sub(1, Relaxed);
                over.links.store(0, Relaxed);
            }
            Some(over) => {
                over.unlink();
            }
            None => {}
        }
    }

    /// Updates the times after the move, and tells the knotes: an inode that moves to another directory
    /// loses a name and gains one. NetBSD: `tmpfs_gro_rename`.
    fn tell(&self) {
        self.source.modified();
        self.target.modified();
        self.inode.changed();
        let moved = !Arc::ptr_eq(self.source, self.target);
        let held = if self.inode.is_directory() { note::LINK } else { 0 };
        if moved {
            let left = held != 0 || self.inode.links.load(Relaxed) > 1;
            self.inode.note(if left { note::LINK } else { note::DELETE });
            self.source.note(note::WRITE | held);
            self.target.note(note::WRITE | held);
        } else if self.over.is_none() {
            self.source.note(note::WRITE);
        }
        if let Some(over) = self.over {
            over.note_unlinked();
            self.target.note(note::WRITE | held);
        }
        self.inode.note(note::RENAME);
    }
}
