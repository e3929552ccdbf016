//! Files by name: the helpers shared by the calls of this folder. Each module has a family of calls.
//!
//! - `open`: opening files, and making those that open can make
//! - `links`, `directories`: names, and directories
//! - `attributes`: mode, owner, flags and times; `status`: the calls that return them
//! - `cwd`: the current directory and the root
//! - `contents`: size, offset, and the calls to sync, which have nothing to do
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

/// The most times a call looks a path up, if each time another call changes what was found before this one
/// uses it. Each of those times the other call has made progress.
const TRIES: u32 = 1000;

/// Flags of the calls that take a directory descriptor.
mod at {
    /// Check access for the effective user and group.
    pub const EACCESS: u32 = 0x100;
    pub const SYMLINK_NOFOLLOW: u32 = 0x200;
    pub const SYMLINK_FOLLOW: u32 = 0x400;
    pub const REMOVEDIR: u32 = 0x800;
}

/// The number of the argument that is a path, and of the one that is the directory it begins at.
#[derive(Clone, Copy)]
struct Named {
    dir: Option<usize>,
    path: usize,
}

/// Returns the argument of a path that begins at the current directory.
const fn here(path: usize) -> Named {
    Named { dir: None, path }
}

/// Returns the arguments of a directory descriptor and a path that begins there.
const fn there(dir: usize) -> Named {
    Named { dir: Some(dir), path: dir + 1 }
}

impl Named {
    /// Returns the number of the `n`th argument after the path.
    const fn after(self, n: usize) -> usize {
        self.path + n
    }
}

impl SyscallContext<'_, '_> {
    /// Returns the open file and vnode of descriptor `fd`. EINVAL if it is not open on the file system.
    /// NetBSD: `fd_getvnode`.
    fn vnode(&self, fd: i32) -> Result<(Arc<OpenFile>, Arc<Inode>)> {
        let file = self.file(fd)?;
        let inode = file.ops.inode().ok_or(Errno::EINVAL)?.clone();
        Ok((file, inode))
    }

    /// Copies in a path.
    fn path_of(&mut self, named: Named) -> Result<PathName> {
        self.path(self.word(named.path))
    }

    /// Returns the directory at which a relative path begins, `None` for the current directory.
    fn base(&self, named: Named) -> Result<Option<Arc<Inode>>> {
        match named.dir.map(|dir| self.int(dir)) {
            None | Some(AT_FDCWD) => Ok(None),
            Some(fd) => Ok(Some(self.vnode(fd)?.1)),
        }
    }

    /// Looks up `path` for this process. NetBSD: `fd_nameiat`.
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

    /// Looks up `path` with other credentials.
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

    /// Returns the vnode at the path. NetBSD: `fd_nameiat_simple_user`, which checks the descriptor first.
    fn look_up(&mut self, named: Named, follow: bool) -> Result<Arc<Inode>> {
        self.base(named)?;
        let path = self.path_of(named)?;
        let found = self.find(named, &path, Aim::Lookup, follow)?;
        Ok(found.existing()?.clone())
    }

    /// Returns `true` if, by the flags at argument `n`, a symbolic link at the end of the path is followed.
    fn follows(&self, n: usize) -> bool {
        self.uint(n) & at::SYMLINK_NOFOLLOW == 0
    }

    /// Makes a file at `found`, with the mode that the umask leaves.
    pub fn make_at(&self, found: &Found<'_>, what: Make<'_>, mode: u32) -> Result<Arc<Inode>> {
        let proc = self.proc;
        let (dir, name) = found.entry()?;
        let mode = mode & !proc.cwd.umask();
        Ok(proc.system.fs.make(dir, name, what, mode, &proc.credentials(), &proc.family)?)
    }

    /// Looks up the name of a local socket: with `new`, a name to create, otherwise an existing one.
    /// NetBSD: `unp_bind`, `unp_connect`.
    pub fn socket_name<'p>(&self, path: &'p [u8], new: bool) -> Result<Found<'p>> {
        let aim = if new { Aim::Create } else { Aim::Lookup };
        self.find_as(&self.proc.credentials(), None, path, aim, true)
    }
}
