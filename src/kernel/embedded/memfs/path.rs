//! Paths: from a string of the client to what it names.
//!
//! Source: NetBSD `sys/kern/vfs_lookup.c`; namei(9).

use std::sync::Arc;

use super::super::abi::mode;
use super::super::process::Credentials;
use super::{Fs, Inode, NAME_MAX};
use crate::kernel::Errno;

/// What a path leads to.
pub(in super::super) struct Found<'p> {
    /// The directory of the last component.
    pub dir: Arc<Inode>,
    pub last: Last<'p>,
    /// What is there, if anything.
    pub inode: Option<Arc<Inode>>,
    /// The path ends in a slash: it can only be a directory.
    pub slash: bool,
}

/// The last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Last<'p> {
    Name(&'p [u8]),
    Dot,
    DotDot,
    /// There was none: nothing but slashes.
    Root,
}

impl<'p> Found<'p> {
    /// Directory and name of what is to be removed or moved. EINVAL for `.`, EBUSY for the root,
    /// ENOTEMPTY for `..`, since that one holds the way it was come by.
    pub fn entry(&self) -> Result<(&Arc<Inode>, &'p [u8]), Errno> {
        match self.last {
            Last::Name(name) => Ok((&self.dir, name)),
            Last::Dot => Err(Errno::EINVAL),
            Last::DotDot => Err(Errno::ENOTEMPTY),
            Last::Root => Err(Errno::EBUSY),
        }
    }

    /// What is there: ENOENT if nothing.
    pub fn existing(&self) -> Result<&Arc<Inode>, Errno> {
        self.inode.as_ref().ok_or(Errno::ENOENT)
    }
}

/// Follows `path` from `cwd`. Every component but the last must be there.
pub(in super::super) fn find<'p>(
    fs: &Fs,
    cwd: Arc<Inode>,
    credentials: &Credentials,
    path: &'p [u8],
) -> Result<Found<'p>, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut dir = if path[0] == b'/' { fs.root() } else { cwd };
    let slash = path.ends_with(b"/");
    let mut components = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    let Some(mut component) = components.next() else {
        return Ok(Found { inode: Some(dir.clone()), dir, last: Last::Root, slash });
    };
    loop {
        let (last, inode) = step(fs, &dir, credentials, component)?;
        let Some(next) = components.next() else {
            if slash && inode.as_ref().is_some_and(|inode| !inode.is_directory()) {
                return Err(Errno::ENOTDIR);
            }
            return Ok(Found { dir, last, inode, slash });
        };
        dir = inode.ok_or(Errno::ENOENT)?;
        component = next;
    }
}

/// One component: what it is and what is there.
fn step<'p>(
    fs: &Fs,
    dir: &Arc<Inode>,
    credentials: &Credentials,
    component: &'p [u8],
) -> Result<(Last<'p>, Option<Arc<Inode>>), Errno> {
    if component.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    dir.directory()?;
    dir.check(credentials, mode::EXECUTE)?;
    Ok(match component {
        b"." => (Last::Dot, Some(dir.clone())),
        b".." => (Last::DotDot, Some(dir.parent(&fs.root())?)),
        name => (Last::Name(name), dir.lookup(name)?),
    })
}
