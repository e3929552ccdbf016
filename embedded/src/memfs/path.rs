//! Paths: from a string of the client to the inode it names, through symbolic links and no further up than
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

/// The most symbolic links that one path may lead through (`MAXSYMLINKS`).
const LINKS_MAX: u32 = 32;

/// The purpose of a lookup, by which the last component is checked (`cn_nameiop`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Aim {
    /// Find an existing file.
    Lookup,
    /// Create a file under the name.
    Create,
    /// Create a directory under the name: a slash may follow.
    CreateDirectory,
    /// Remove the name.
    Delete,
    /// Move a file to the name.
    Rename,
    /// Move a directory to the name: a slash may follow.
    RenameDirectory,
}

impl Aim {
    /// Returns `true` if the name need not exist yet.
    fn makes(self) -> bool {
        !matches!(self, Aim::Lookup | Aim::Delete)
    }

    /// Returns `true` if an existing file will lose the name.
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

/// A lookup on behalf of one process.
pub(in super::super) struct Walk<'w> {
    pub fs: &'w Fs,
    /// The root of the process, `None` for the file system's.
    pub root: Option<&'w Arc<Inode>>,
    /// The directory at which a relative path begins.
    pub from: &'w Arc<Inode>,
    pub credentials: &'w Credentials,
    pub aim: Aim,
    /// True if a symbolic link at the end of the path is followed. A link with a slash behind it always is.
    pub follow: bool,
}

/// The result of a lookup.
pub(in super::super) struct Found<'p> {
    /// The directory of the last component.
    pub dir: Arc<Inode>,
    pub last: Last<'p>,
    /// The inode at the path, if there is one.
    pub inode: Option<Arc<Inode>>,
    /// True if the path ends in a slash.
    pub slash: bool,
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Last<'p> {
    Name(Cow<'p, [u8]>),
    Dot,
    DotDot,
    /// The path has no components, only slashes.
    Root,
}

impl Found<'_> {
    /// Returns the directory, and the name in it. EEXIST if the last component is not a name to make
    /// something under.
    pub fn entry(&self) -> Result<(&Arc<Inode>, &[u8]), Errno> {
        match &self.last {
            Last::Name(name) => Ok((&self.dir, name)),
            Last::Dot | Last::DotDot | Last::Root => Err(Errno::EEXIST),
        }
    }

    /// Returns the inode. ENOENT if there is none.
    pub fn existing(&self) -> Result<&Arc<Inode>, Errno> {
        self.inode.as_ref().ok_or(Errno::ENOENT)
    }
}

impl Walk<'_> {
    /// Follows `path`. Every component must exist, except the last one when it is to be made.
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
        // Only slashes, in the path or in a symbolic link.
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

    /// Returns `true` if `dir` is in the root. Then what is reached from it is too, as long as no directory
    /// has moved: `seen` keeps the count of moves at which that was so. So a path with many `..` deep down
    /// checks this once.
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

    /// Follows one component, and returns the inode there, if any. A walk that has left the root is put
    /// back there. NetBSD: `lookup_once`, `tmpfs_lookup`.
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

    /// Checks that the last component fits the aim.
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

/// The rest of a path: the client's own bytes until a symbolic link was followed.
struct Rest<'p> {
    bytes: Cow<'p, [u8]>,
    at: usize,
}

/// The next component of a path: its begin and end, and the begin of the one after it.
struct Part {
    begin: usize,
    end: usize,
    next: usize,
    last: bool,
}

impl Part {
    /// Returns `true` if a slash follows, so that the component must be a directory, or lead to one.
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

    /// Puts the target of a symbolic link in the place of `part` and all before it. NetBSD: `namei_follow`.
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

    /// Returns the result for the last component.
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
