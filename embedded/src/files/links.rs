//! Names of files: adding, removing and moving them; and symbolic links.
//!
//! Source: NetBSD `sys/kern/vfs_syscalls.c`; link(2), symlink(2), readlink(2), unlink(2), rename(2).

use super::super::call::{Answer, Result, SyscallContext};
use super::super::listed::{Listed, Runs, call};
use super::super::memfs::{Aim, Make};
use super::{Named, TRIES, at, here, there};
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::LINK, Runs::Inline, |run| link(run, here(0), here(1), true)),
    call(sys::UNLINK, Runs::Inline, |run| unlink(run, here(0), false)),
    call(sys::SYMLINK, Runs::Inline, |run| symlink(run, here(1))),
    call(sys::READLINK, Runs::Inline, |run| readlink(run, here(0))),
    call(sys::RENAME, Runs::OnWorker, |run| rename(run, here(0), here(1), false)),
    call(sys::RMDIR, Runs::Inline, |run| unlink(run, here(0), true)),
    call(sys::POSIX_RENAME, Runs::OnWorker, |run| rename(run, here(0), here(1), true)),
    call(sys::LINKAT, Runs::Inline, linkat),
    call(sys::RENAMEAT, Runs::OnWorker, |run| rename(run, there(0), there(2), false)),
    call(sys::READLINKAT, Runs::Inline, |run| readlink(run, there(0))),
    call(sys::SYMLINKAT, Runs::Inline, |run| symlink(run, there(1))),
    call(sys::UNLINKAT, Runs::Inline, unlinkat),
];

/// `int linkat(int fd1, const char *name1, int fd2, const char *name2, int flags)`
fn linkat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let follow = run.uint(4) & at::SYMLINK_FOLLOW != 0;
    link(run, there(0), there(2), follow)
}

/// `int link(const char *path, const char *link)`
fn link(run: &mut SyscallContext<'_, '_>, old: Named, new: Named, follow: bool) -> Answer {
    run.look_up(old, follow)?;
    let path = run.path_of(new)?;
    until_settled(|| {
        let inode = run.look_up(old, follow)?;
        let found = run.find(new, &path, Aim::Create, false)?;
        Ok(run.system().fs.link(&inode, &found, &run.proc.family))
    })
}

/// `int unlinkat(int fd, const char *path, int flag)`
fn unlinkat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let directory = run.uint(2) & at::REMOVEDIR != 0;
    unlink(run, there(0), directory)
}

/// `int unlink(const char *path)`, `int rmdir(const char *path)`
fn unlink(run: &mut SyscallContext<'_, '_>, named: Named, directory: bool) -> Answer {
    let path = run.path_of(named)?;
    until_settled(|| {
        let found = run.find(named, &path, Aim::Delete, false)?;
        Ok(run.system().fs.remove(&found, directory))
    })
}

/// Runs `attempt`, which looks up a file and changes it, again while another call removes the file in
/// between. NetBSD keeps the directory locked meanwhile, or repeats the lookup itself.
fn until_settled(mut attempt: impl FnMut() -> Result<Result<(), Errno>>) -> Answer {
    for _ in 1..TRIES {
        match attempt()? {
            Err(Errno::ENOENT) => {}
            done => return Ok(done.map(|()| [0, 0])?),
        }
    }
    Ok(attempt()?.map(|()| [0, 0])?)
}

/// `int symlink(const char *path, const char *link)`, `symlinkat`: the first path is not looked up.
fn symlink(run: &mut SyscallContext<'_, '_>, named: Named) -> Answer {
    let target = run.path(run.word(0))?;
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::Create, false)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    run.make_at(&found, Make::Symlink(target.as_bytes()), 0o777)?;
    Ok([0, 0])
}

/// `ssize_t readlink(const char *path, char *buf, size_t count)`, `readlinkat`
fn readlink(run: &mut SyscallContext<'_, '_>, named: Named) -> Answer {
    let (addr, count) = (run.word(named.after(1)), run.word(named.after(2)));
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::Lookup, false)?;
    let inode = found.existing()?;
    let target = inode.target().ok_or(Errno::EINVAL)?;
    let part = &target[..target.len().min(usize::try_from(count).unwrap_or(usize::MAX))];
    if !part.is_empty() {
        run.copyout(part, addr)?;
    }
    inode.accessed();
    Ok([part.len() as i64, 0])
}

/// `int rename(const char *from, const char *to)`, `renameat`, and `__posix_rename`, which keeps both names
/// if they are of one file.
fn rename(run: &mut SyscallContext<'_, '_>, old: Named, new: Named, keep: bool) -> Answer {
    let from = run.path_of(old)?;
    let to = run.path_of(new)?;
    until_settled(|| {
        let from = run.find(old, &from, Aim::Delete, false)?;
        let inode = from.existing()?;
        // `.` and `..` are not names to move from.
        from.entry().map_err(|_| Errno::EINVAL)?;
        let aim = if inode.is_directory() { Aim::RenameDirectory } else { Aim::Rename };
        let to = run.find(new, &to, aim, false)?;
        Ok(run.system().fs.rename(&from, &to, &run.proc.credentials(), keep))
    })
}
