//! Files by name: what the calls of this folder share. Each has a family of them.
//!
//! - `open`: opening, and making what is opened
//! - `links`, `directories`: names, and what holds them
//! - `attributes`: mode, owner, flags and times; `status`: asking about all that
//! - `places`: the current directory and the root
//! - `contents`: size, offset, and getting it to the disk there is not
//!
//! Sources: NetBSD `sys/kern/vfs_syscalls.c`, `sys/sys/fcntl.h`.

pub(super) mod attributes;
pub(super) mod contents;
pub(super) mod cwd;
pub(super) mod directories;
pub(super) mod links;
pub(super) mod open;
pub(super) mod status;

use std::sync::Arc;

use super::call::{PathName, Result, SyscallContext};
use super::file::OpenFile;
use super::memfs::{Aim, Found, Inode, Make, Walk};
use super::process::Credentials;
use kernel::Errno;

/// The directory descriptor that stands for the current directory (`AT_FDCWD`).
const AT_FDCWD: i32 = -100;

/// How often a call looks a path up, if each time another changes what it has found before it does. Each
/// time that other has come on.
const TRIES: u32 = 1000;

/// Flags of the calls that take a directory descriptor.
mod at {
    /// Check access for the effective user and group.
    pub const EACCESS: u32 = 0x100;
    pub const SYMLINK_NOFOLLOW: u32 = 0x200;
    pub const SYMLINK_FOLLOW: u32 = 0x400;
    pub const REMOVEDIR: u32 = 0x800;
}

/// Which argument of a call is a path, and which the directory it begins at.
#[derive(Clone, Copy)]
struct Named {
    dir: Option<usize>,
    path: usize,
}

/// A path that begins at the current directory.
const fn here(path: usize) -> Named {
    Named { dir: None, path }
}

/// A directory descriptor, and a path that begins there.
const fn there(dir: usize) -> Named {
    Named { dir: Some(dir), path: dir + 1 }
}

impl Named {
    /// The number of the argument `n` after the path.
    const fn after(self, n: usize) -> usize {
        self.path + n
    }
}

impl SyscallContext<'_, '_> {
    /// Descriptor `fd`, which must be open on the file system: EINVAL for anything else. NetBSD:
    /// `fd_getvnode`.
    fn vnode(&self, fd: i32) -> Result<(Arc<OpenFile>, Arc<Inode>)> {
        let file = self.file(fd)?;
        let inode = file.ops.inode().ok_or(Errno::EINVAL)?.clone();
        Ok((file, inode))
    }

    /// Copies in a path.
    fn path_of(&mut self, named: Named) -> Result<PathName> {
        self.path(self.word(named.path))
    }

    /// The directory a relative path begins at, if it is not the current one.
    fn base(&self, named: Named) -> Result<Option<Arc<Inode>>> {
        match named.dir.map(|dir| self.int(dir)) {
            None | Some(AT_FDCWD) => Ok(None),
            Some(fd) => Ok(Some(self.vnode(fd)?.1)),
        }
    }

    /// What `path` leads to for this process. NetBSD: `fd_nameiat`.
    fn find<'p>(
        &self,
        named: Named,
        path: &'p PathName,
        aim: Aim,
        follow: bool,
    ) -> Result<Found<'p>> {
        let base = self.base(named)?;
        self.find_as(&self.proc.credentials(), base, path.as_bytes(), aim, follow)
    }

    /// The same, for other credentials.
    fn find_as<'p>(
        &self,
        credentials: &Credentials,
        base: Option<Arc<Inode>>,
        path: &'p [u8],
        aim: Aim,
        follow: bool,
    ) -> Result<Found<'p>> {
        let places = self.proc.cwd.places();
        let from = base.as_ref().unwrap_or(&places.current);
        let (fs, root) = (&self.proc.system.fs, places.root.as_ref());
        Ok(Walk { fs, root, from, credentials, aim, follow }.find(path)?)
    }

    /// What is there. NetBSD: `fd_nameiat_simple_user`, which looks at the descriptor first.
    fn look_up(&mut self, named: Named, follow: bool) -> Result<Arc<Inode>> {
        self.base(named)?;
        let path = self.path_of(named)?;
        let found = self.find(named, &path, Aim::Lookup, follow)?;
        Ok(found.existing()?.clone())
    }

    /// Whether the flags at argument `n` leave a symbolic link at the end of the path to be followed.
    fn follows(&self, n: usize) -> bool {
        self.uint(n) & at::SYMLINK_NOFOLLOW == 0
    }

    /// Makes something at `found`, with the mode the umask leaves.
    pub fn make_at(&self, found: &Found<'_>, what: Make<'_>, mode: u32) -> Result<Arc<Inode>> {
        let proc = self.proc;
        let (dir, name) = found.entry()?;
        let mode = mode & !proc.cwd.umask();
        Ok(proc.system.fs.make(dir, name, what, mode, &proc.credentials(), &proc.family)?)
    }

    /// What the name of a local socket leads to, which is new or not. NetBSD: `unp_bind`, `unp_connect`.
    pub fn socket_name<'p>(&self, path: &'p [u8], new: bool) -> Result<Found<'p>> {
        let aim = if new { Aim::Create } else { Aim::Lookup };
        self.find_as(&self.proc.credentials(), None, path, aim, true)
    }
}
