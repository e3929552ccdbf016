//! Files by name: open, directories, removing, moving, cutting off, asking about.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,vfs_vnops,vfs_getcwd}.c`; open(2), mkdir(2), unlink(2),
//! rename(2), stat(2), access(2), truncate(2), lseek(2), getcwd(3).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::abi::{mode, open};
use super::call::{Answer, PathName, Result, Run, Stop};
use super::file::OpenFile;
use super::locks;
use super::memfs::{Found, Inode, Make, find};
use super::pipe::fifo;
use super::sync::lock;
use super::table::{Listed, call};
use super::vnode::Vnode;
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[
    call(5, open_call),
    call(10, unlink),
    call(12, chdir),
    call(13, fchdir),
    call(33, access),
    call(36, |_| Ok([0, 0])),
    call(95, fsync),
    call(128, rename),
    call(132, mkfifo),
    call(136, mkdir),
    call(137, rmdir),
    call(199, lseek),
    call(200, truncate),
    call(201, ftruncate),
    call(241, fdatasync),
    call(270, rename),
    call(296, getcwd),
    call(439, stat),
    call(440, fstat),
    call(441, stat),
];

impl Run<'_, '_> {
    /// What `path` leads to for this process.
    fn find<'p>(&self, path: &'p PathName) -> Result<Found<'p>> {
        let task = self.task;
        Ok(find(&task.system.fs, task.cwd(), &task.credentials(), path.as_bytes())?)
    }

    /// Makes something at `found`, with the mode the umask leaves.
    pub fn make_at(&self, found: &Found<'_>, what: Make, mode: u32) -> Result<Arc<Inode>> {
        let task = self.task;
        let (dir, name) = found.entry()?;
        let mode = mode & !task.umask.load(Relaxed);
        Ok(task.system.fs.make(dir, name, what, mode, &task.credentials(), &task.family)?)
    }

    /// What the name of a new local socket leads to. NetBSD: `unp_bind`.
    pub fn socket_name<'p>(&self, path: &'p [u8]) -> Result<Found<'p>> {
        let task = self.task;
        Ok(find(&task.system.fs, task.cwd(), &task.credentials(), path)?)
    }
}

/// `int open(const char *path, int flags, ... mode_t mode)`
fn open_call(run: &mut Run<'_, '_>) -> Answer {
    let (addr, flags, mode) = (run.word(0), run.uint(1), run.uint(2));
    let path = run.path(addr)?;
    let flags = (flags & !open::SEARCH).wrapping_add(1);
    if flags & (open::FREAD | open::FWRITE) == 0 {
        return Err(Errno::EINVAL.into());
    }
    run.task.files.check_room()?;
    if flags & open::CREAT != 0 && flags & open::DIRECTORY != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = match run.kept().and_then(|kept| kept.opened.clone()) {
        Some(file) => file,
        None => {
            let inode = open_or_make(run, &path, flags, mode)?;
            let (limits, counters) = (&run.system().limits, &run.system().counters);
            let kept = flags & open::KEPT;
            if inode.is_fifo() {
                OpenFile::new(
                    fifo::End::open(&inode, kept, &run.task.family)?,
                    kept,
                    limits,
                    counters,
                )?
            } else {
                OpenFile::new(Vnode(inode), kept, limits, counters)?
            }
        }
    };
    settle(run, &file, flags)?;
    let fd = run.task.files.insert(file, 0, flags & open::CLOEXEC != 0)?;
    Ok([fd.into(), 0])
}

/// Waits for what it takes to have opened `file`. It stays open meanwhile. NetBSD: `open_setfp`.
fn settle(run: &mut Run<'_, '_>, file: &Arc<OpenFile>, flags: u32) -> Result<()> {
    let settled = file.ops.opened(run, file).and_then(|()| locks::at_open(run, file, flags));
    if let Err(Stop::Sleep(_)) = settled {
        run.keep().opened = Some(file.clone());
    }
    settled
}

/// NetBSD: `vn_open`.
fn open_or_make(run: &Run<'_, '_>, path: &PathName, flags: u32, mode: u32) -> Result<Arc<Inode>> {
    loop {
        let found = run.find(path)?;
        if let Some(inode) = found.inode {
            if flags & open::CREAT != 0 && flags & open::EXCL != 0 {
                return Err(Errno::EEXIST.into());
            }
            check_open(run, &inode, flags)?;
            return Ok(inode);
        }
        if flags & open::CREAT == 0 || found.slash {
            return Err(Errno::ENOENT.into());
        }
        let mode = mode & mode::PERMISSIONS & !mode::STICKY;
        match run.make_at(&found, Make::File, mode) {
            // Somebody was faster: open theirs.
            Err(stop) if stop == Errno::EEXIST.into() => continue,
            made => return made,
        }
    }
}

/// Whether what is there may be opened so; cuts it off if asked. NetBSD: `vn_openchk`.
fn check_open(run: &Run<'_, '_>, inode: &Inode, flags: u32) -> Result<()> {
    if inode.is_socket() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if flags & open::DIRECTORY != 0 {
        inode.directory()?;
    }
    let mut wanted = 0;
    if flags & open::FREAD != 0 {
        wanted |= mode::READ;
    }
    if flags & (open::FWRITE | open::TRUNC) != 0 {
        wanted |= mode::WRITE;
        if inode.is_directory() {
            return Err(Errno::EISDIR.into());
        }
    }
    inode.check(&run.task.credentials(), wanted)?;
    if flags & open::TRUNC != 0 && inode.device().is_none() && !inode.is_fifo() {
        inode.content()?.truncate(0);
        inode.modified();
    }
    Ok(())
}

/// `int mkdir(const char *path, mode_t mode)`
fn mkdir(run: &mut Run<'_, '_>) -> Answer {
    let (addr, mode) = (run.word(0), run.uint(1));
    let path = run.path(addr)?;
    let found = run.find(&path)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    run.make_at(&found, Make::Directory, mode & 0o777)?;
    Ok([0, 0])
}

/// `int mkfifo(const char *path, mode_t mode)`
fn mkfifo(run: &mut Run<'_, '_>) -> Answer {
    let (addr, mode) = (run.word(0), run.uint(1));
    let path = run.path(addr)?;
    let found = run.find(&path)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    run.make_at(&found, Make::Fifo, mode & mode::PERMISSIONS)?;
    Ok([0, 0])
}

/// `int rmdir(const char *path)`
fn rmdir(run: &mut Run<'_, '_>) -> Answer {
    let path = run.path(run.word(0))?;
    let found = run.find(&path)?;
    found.existing()?;
    run.system().fs.rmdir(&found, &run.task.credentials())?;
    Ok([0, 0])
}

/// `int unlink(const char *path)`
fn unlink(run: &mut Run<'_, '_>) -> Answer {
    let path = run.path(run.word(0))?;
    let found = run.find(&path)?;
    found.existing()?;
    run.system().fs.unlink(&found, &run.task.credentials())?;
    Ok([0, 0])
}

/// `int rename(const char *from, const char *to)`, and `__posix_rename`: the same without hard links.
fn rename(run: &mut Run<'_, '_>) -> Answer {
    let (from, to) = (run.word(0), run.word(1));
    let from = run.path(from)?;
    let to = run.path(to)?;
    let from = run.find(&from)?;
    let inode = from.existing()?;
    let to = run.find(&to)?;
    if to.slash && !inode.is_directory() {
        return Err(if to.inode.is_some() { Errno::EISDIR } else { Errno::ENOENT }.into());
    }
    // A way up or back is no name to move from or to.
    from.entry().map_err(|_| Errno::EINVAL)?;
    to.entry().map_err(|_| Errno::EINVAL)?;
    run.system().fs.rename(&from, &to, &run.task.credentials())?;
    Ok([0, 0])
}

/// `int chdir(const char *path)`
fn chdir(run: &mut Run<'_, '_>) -> Answer {
    let path = run.path(run.word(0))?;
    let found = run.find(&path)?;
    change_directory(run, found.existing()?)
}

/// `int fchdir(int fd)`
fn fchdir(run: &mut Run<'_, '_>) -> Answer {
    let file = run.file(run.int(0))?;
    change_directory(run, file.ops.inode().ok_or(Errno::EINVAL)?)
}

fn change_directory(run: &Run<'_, '_>, inode: &Arc<Inode>) -> Answer {
    inode.directory()?;
    inode.check(&run.task.credentials(), mode::EXECUTE)?;
    let before = std::mem::replace(&mut *lock(&run.task.cwd), inode.clone());
    drop(before);
    Ok([0, 0])
}

/// `int __getcwd(char *bufp, size_t length)`: the length with its NUL is the return value.
fn getcwd(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len) = (run.word(0), run.word(1));
    let len = len.min(4 * super::call::PATH_MAX as u64) as usize;
    if len < 2 {
        return Err(Errno::ERANGE.into());
    }
    let mut path = run.task.cwd().path(&run.system().fs.root(), len - 1)?;
    path.push(0);
    run.copyout(&path, addr)?;
    Ok([path.len() as i64, 0])
}

/// `int access(const char *path, int flags)`: asks for the real user and group.
fn access(run: &mut Run<'_, '_>) -> Answer {
    let (addr, wanted) = (run.word(0), run.uint(1));
    if wanted & !(mode::READ | mode::WRITE | mode::EXECUTE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = run.path(addr)?;
    let found = run.find(&path)?;
    let own = run.task.credentials();
    found.existing()?.check_as(own.uid, own.gid, &own.groups, wanted)?;
    Ok([0, 0])
}

/// `int __stat50(const char *path, struct stat *ub)`, and `__lstat50`: there are no symbolic links.
fn stat(run: &mut Run<'_, '_>) -> Answer {
    let (addr, out) = (run.word(0), run.word(1));
    let path = run.path(addr)?;
    let stat = run.find(&path)?.existing()?.stat();
    run.copyout(&stat.encode(), out)?;
    Ok([0, 0])
}

/// `int __fstat50(int fd, struct stat *sb)`
fn fstat(run: &mut Run<'_, '_>) -> Answer {
    let out = run.word(1);
    let file = run.file(run.int(0))?;
    let stat = file.ops.stat()?;
    run.copyout(&stat.encode(), out)?;
    Ok([0, 0])
}

/// `int truncate(const char *path, int PAD, off_t length)`
fn truncate(run: &mut Run<'_, '_>) -> Answer {
    let (addr, length) = (run.word(0), run.offset(2));
    let length = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
    let path = run.path(addr)?;
    let found = run.find(&path)?;
    let inode = found.existing()?;
    if inode.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    inode.check(&run.task.credentials(), mode::WRITE)?;
    cut(inode, length)
}

/// `int ftruncate(int fd, int PAD, off_t length)`
fn ftruncate(run: &mut Run<'_, '_>) -> Answer {
    let length = u64::try_from(run.offset(2)).map_err(|_| Errno::EINVAL)?;
    let file = run.file(run.int(0))?;
    let inode = file.ops.inode().ok_or(Errno::EINVAL)?;
    file.check(open::FWRITE).map_err(|_| Errno::EINVAL)?;
    cut(inode, length)
}

fn cut(inode: &Inode, length: u64) -> Answer {
    if inode.device().is_none() {
        inode.content()?.truncate(length);
        inode.modified();
    }
    Ok([0, 0])
}

/// `int fsync(int fd)`: memory is as far as bytes go.
fn fsync(run: &mut Run<'_, '_>) -> Answer {
    synced(&*run.file(run.int(0))?)
}

/// `int fdatasync(int fd)`
fn fdatasync(run: &mut Run<'_, '_>) -> Answer {
    let file = run.file(run.int(0))?;
    synced(&file)?;
    file.check(open::FWRITE)?;
    Ok([0, 0])
}

fn synced(file: &OpenFile) -> Answer {
    file.ops.inode().ok_or(Errno::EINVAL)?;
    Ok([0, 0])
}

/// `off_t lseek(int fd, int PAD, off_t offset, int whence)`
fn lseek(run: &mut Run<'_, '_>) -> Answer {
    let (by, whence) = (run.offset(2), run.int(3));
    let file = run.file(run.int(0))?;
    let inode = file.ops.inode().filter(|inode| !inode.is_fifo()).ok_or(Errno::ESPIPE)?;
    let mut offset = lock(&file.offset);
    let from = match whence {
        0 => 0,
        1 => *offset,
        2 => inode.stat().size,
        _ => return Err(Errno::EINVAL.into()),
    };
    let to = from.checked_add(by).filter(|&to| to >= 0).ok_or(Errno::EINVAL)?;
    *offset = to;
    Ok([to, 0])
}
