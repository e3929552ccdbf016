//! The calls that change and return the current directory and the root of a process.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,vfs_getcwd}.c`; chdir(2), chroot(2), getcwd(3).

use std::sync::Arc;

use super::super::abi::mode;
use super::super::call::{Answer, PATH_MAX, Result, SyscallContext};
use super::super::listed::{Listed, Runs, call};
use super::super::memfs::{Aim, Inode};
use super::here;
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::CHDIR, Runs::Inline, chdir),
    call(sys::FCHDIR, Runs::Inline, fchdir),
    call(sys::CHROOT, Runs::Inline, chroot),
    call(sys::GETCWD, Runs::Inline, getcwd),
    call(sys::FCHROOT, Runs::Inline, fchroot),
];

/// `int chdir(const char *path)`
fn chdir(run: &mut SyscallContext<'_, '_>) -> Answer {
    let dir = directory(run)?;
    run.proc.cwd.change(&dir);
    Ok([0, 0])
}

/// `int fchdir(int fd)`: fails for a directory outside of the root.
fn fchdir(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (_, dir) = run.vnode(run.int(0))?;
    check(run, &dir)?;
    if let Some(root) = &run.proc.cwd.places().root
        && !dir.is_inside(root)?
    {
        return Err(Errno::EPERM.into());
    }
    run.proc.cwd.change(&dir);
    Ok([0, 0])
}

/// `int chroot(const char *dirname)`: for the superuser only.
fn chroot(run: &mut SyscallContext<'_, '_>) -> Answer {
    check_superuser(run)?;
    let dir = directory(run)?;
    run.proc.cwd.change_root(&dir)?;
    Ok([0, 0])
}

/// `int fchroot(int fd)`: for the superuser only; the descriptor may lead out of the root.
fn fchroot(run: &mut SyscallContext<'_, '_>) -> Answer {
    check_superuser(run)?;
    let (_, dir) = run.vnode(run.int(0))?;
    check(run, &dir)?;
    run.proc.cwd.change_root(&dir)?;
    Ok([0, 0])
}

fn check_superuser(run: &SyscallContext<'_, '_>) -> Result<(), Errno> {
    if run.proc.credentials().euid == 0 { Ok(()) } else { Err(Errno::EPERM) }
}

/// Returns the directory at the path in the first argument. NetBSD: `chdir_lookup`.
fn directory(run: &mut SyscallContext<'_, '_>) -> Result<Arc<Inode>> {
    let path = run.path_of(here(0))?;
    let found = run.find(here(0), &path, Aim::Lookup, true)?;
    let dir = found.existing()?;
    check(run, dir)?;
    Ok(dir.clone())
}

/// Returns an error unless `dir` is a directory that the caller may search.
fn check(run: &SyscallContext<'_, '_>, dir: &Inode) -> Result<(), Errno> {
    dir.directory()?;
    dir.check(&run.proc.credentials(), mode::EXECUTE)
}

/// `int __getcwd(char *bufp, size_t length)`: returns the length of the path with its NUL.
fn getcwd(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, len) = (run.word(0), run.int(1));
    let len = usize::try_from(len).ok().filter(|&len| len >= 2).ok_or(Errno::ERANGE)?;
    let len = len.min(4 * PATH_MAX);
    let places = run.proc.cwd.places();
    let (fs, root) = (&run.system().fs, places.root.as_ref());
    let mut path = places.current.path(fs, root, &run.proc.credentials(), len - 1)?;
    path.push(0);
    run.copyout(&path, addr)?;
    Ok([path.len() as i64, 0])
}
