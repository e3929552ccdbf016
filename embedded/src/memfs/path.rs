//! Paths: from a string of the client to what it names, through symbolic links and no further up than
//! the root of the process.
//!
//! Sources: NetBSD `sys/kern/vfs_lookup.c`, `sys/fs/tmpfs/tmpfs_vnops.c` (`tmpfs_lookup`); namei(9).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use super::super::abi::mode;
use super::super::call::PATH_MAX;
use super::super::process::Credentials;
use super::super::work;
use super::{Fs, Inode, NAME_MAX};
use kernel::Errno;

/// How many symbolic links one path may lead through (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 32;

/// What a path is looked up for: what is checked of its last component (`cn_nameiop`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Aim {
    /// What is there.
    Lookup,
    /// A name to make something under.
    Create,
    /// The same, and that will be a directory: a slash may follow.
    CreateDirectory,
    /// A name to take away.
    Delete,
    /// A name to move something to.
    Rename,
    /// The same, for a directory.
    RenameDirectory,
}

impl Aim {
    /// Whether the name need not be there yet.
    fn makes(self) -> bool {
        !matches!(self, Aim::Lookup | Aim::Delete)
    }

    /// Whether what is there will lose the name.
    fn takes(self) -> bool {
        matches!(self, Aim::Delete | Aim::Rename | Aim::RenameDirectory)
    }

    fn renames(self) -> bool {
        matches!(self, Aim::Rename | Aim::RenameDirectory)
    }

    fn of_directory(self) -> bool {
        matches!(self, Aim::CreateDirectory | Aim::RenameDirectory)
    }
}

/// A way through the file system, of one process.
pub(in super::super) struct Walk<'w> {
    pub fs: &'w Fs,
    /// The root of the process, if it is not the file system's.
    pub root: Option<&'w Arc<Inode>>,
    /// Where a relative path begins.
    pub from: &'w Arc<Inode>,
    pub credentials: &'w Credentials,
    pub aim: Aim,
    /// Whether a symbolic link at the end of the path is followed. With a slash behind it it always is.
    pub follow: bool,
}

/// What a path leads to.
pub(in super::super) struct Found<'p> {
    /// The directory of the last component.
    pub dir: Arc<Inode>,
    pub last: Last<'p>,
    /// What is there, if anything.
    pub inode: Option<Arc<Inode>>,
    /// The path ends in a slash.
    pub slash: bool,
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Last<'p> {
    Name(Cow<'p, [u8]>),
    Dot,
    DotDot,
    /// There was none: nothing but slashes.
    Root,
}

impl Found<'_> {
    /// The directory, and the name in it: EEXIST for what is no name to make something under.
    pub fn entry(&self) -> Result<(&Arc<Inode>, &[u8]), Errno> {
        match &self.last {
            Last::Name(name) => Ok((&self.dir, name)),
            Last::Dot | Last::DotDot | Last::Root => Err(Errno::EEXIST),
        }
    }

    /// What is there: ENOENT if nothing.
    pub fn existing(&self) -> Result<&Arc<Inode>, Errno> {
        self.inode.as_ref().ok_or(Errno::ENOENT)
    }
}

impl Walk<'_> {
    /// Follows `path`. Every component must be there, but for the last of a name to be made.
    pub fn find<'p>(&self, path: &'p [u8]) -> Result<Found<'p>, Errno> {
        let mut rest = Rest { bytes: Cow::Borrowed(path), at: 0 };
        let first = *path.first().ok_or(Errno::ENOENT)?;
        let mut dir = if first == b'/' { self.root().clone() } else { self.from.clone() };
        dir.directory()?;
        let (mut links, mut inside) = (0, None);
        while let Some(part) = rest.part() {
            work::spend(2)?;
            let inode = self.step(&mut dir, &mut inside, &rest, &part)?;
            let Some(inode) = inode else { return Ok(rest.found(&part, dir, None)) };
            if let Some(target) = inode.target()
                && (part.slash() || self.follow)
            {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP);
                }
                inode.accessed();
                rest.follow(target, &part)?;
                if target[0] == b'/' {
                    dir = self.root().clone();
                }
                continue;
            }
            if part.slash() && !inode.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            if part.last {
                return Ok(rest.found(&part, dir, Some(inode)));
            }
            dir = inode;
            rest.at = part.next;
        }
        // Nothing but slashes, in the path or in a symbolic link.
        match self.aim {
            Aim::Lookup => {
                let inode = Some(dir.clone());
                Ok(Found { dir, last: Last::Root, inode, slash: true })
            }
            Aim::Create | Aim::CreateDirectory => Err(Errno::EEXIST),
            Aim::Delete | Aim::Rename | Aim::RenameDirectory => Err(Errno::EBUSY),
        }
    }

    fn root(&self) -> &Arc<Inode> {
        self.root.unwrap_or(&self.fs.root)
    }

    /// Whether `dir` is in the root. What is reached from there is, too, as long as no directory has moved:
    /// `seen` is how many moves there were when it was. So a path that goes up many times out of the
    /// depths counts them once.
    fn is_inside(
        &self,
        dir: &Arc<Inode>,
        root: &Arc<Inode>,
        seen: &mut Option<u64>,
    ) -> Result<bool, Errno> {
        let moves = self.fs.moves.load(Acquire);
        if *seen == Some(moves) {
            return Ok(true);
        }
        let inside = dir.is_inside(root)?;
        *seen = (inside && moves.is_multiple_of(2)).then_some(moves);
        Ok(inside)
    }

    /// One component: what is there, if anything. Who has got out of the root is put back there.
    /// NetBSD: `lookup_once`, `tmpfs_lookup`.
    fn step(
        &self,
        dir: &mut Arc<Inode>,
        inside: &mut Option<u64>,
        rest: &Rest<'_>,
        part: &Part,
    ) -> Result<Option<Arc<Inode>>, Errno> {
        let name = &rest.bytes[part.begin..part.end];
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if name == b".." {
            if let Some(root) = self.root
                && !self.is_inside(dir, root, inside)?
            {
                *dir = root.clone();
            }
            if Arc::ptr_eq(dir, self.root()) || self.fs.is_root(dir) {
                return Ok(Some(dir.clone()));
            }
        }
        dir.check(self.credentials, mode::EXECUTE)?;
        let there = dir.lookup(name)?;
        let renames = part.last && self.aim.renames();
        match name {
            b".." if renames => Err(Errno::EINVAL),
            b".." => dir.parent(self.fs).map(Some),
            b"." if renames => Err(Errno::EISDIR),
            b"." => Ok(Some(dir.clone())),
            _ if part.last => {
                self.check_last(dir, there.as_ref(), part)?;
                Ok(there)
            }
            _ => there.map(Some).ok_or(Errno::ENOENT),
        }
    }

    /// Whether the last component may be what the aim wants of it.
    fn check_last(
        &self,
        dir: &Arc<Inode>,
        inode: Option<&Arc<Inode>>,
        part: &Part,
    ) -> Result<(), Errno> {
        match inode {
            Some(inode) if self.aim.takes() => {
                dir.check(self.credentials, mode::WRITE)?;
                dir.check_sticky(self.credentials, inode)
            }
            Some(_) => Ok(()),
            None if self.aim.makes() => {
                dir.check(self.credentials, mode::WRITE)?;
                let fits = !part.slash() || self.aim.of_directory();
                if fits { Ok(()) } else { Err(Errno::ENOENT) }
            }
            None => Err(Errno::ENOENT),
        }
    }
}

/// What is left of a path: the client's own until a symbolic link was followed.
struct Rest<'p> {
    bytes: Cow<'p, [u8]>,
    at: usize,
}

/// The next component of a path: where it begins and ends, and where the one after it begins.
struct Part {
    begin: usize,
    end: usize,
    next: usize,
    last: bool,
}

impl Part {
    /// Whether a slash follows: it must be a directory, or lead to one.
    fn slash(&self) -> bool {
        self.next > self.end
    }
}

impl<'p> Rest<'p> {
    fn part(&self) -> Option<Part> {
        let len = self.bytes.len();
        let until = |from: usize, slash: bool| {
            let more = self.bytes[from..].iter().position(|&byte| (byte == b'/') == slash);
            more.map_or(len, |more| from + more)
        };
        let begin = until(self.at, false);
        let end = until(begin, true);
        let next = until(end, false);
        (begin < len).then_some(Part { begin, end, next, last: next == len })
    }

    /// Puts the target of a symbolic link in the place of `part` and all before it. NetBSD:
    /// `namei_follow`.
    fn follow(&mut self, target: &[u8], part: &Part) -> Result<(), Errno> {
        let after = &self.bytes[part.end..];
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() + after.len() + 1 >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        *self = Rest { bytes: Cow::Owned([target, after].concat()), at: 0 };
        Ok(())
    }

    /// What was found at the last component.
    fn found(&self, part: &Part, dir: Arc<Inode>, inode: Option<Arc<Inode>>) -> Found<'p> {
        let name = match &self.bytes {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[part.begin..part.end]),
            Cow::Owned(bytes) => Cow::Owned(bytes[part.begin..part.end].to_vec()),
        };
        let last = match &*name {
            b"." => Last::Dot,
            b".." => Last::DotDot,
            _ => Last::Name(name),
        };
        Found { dir, last, inode, slash: part.slash() }
    }
}
