//! The contents of files: setting the size, moving the offset, and syncing.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,sys_descrip}.c`, `sys/sys/{fcntl,unistd}.h`; truncate(2),
//! lseek(2), fsync(2), posix_fadvise(2), posix_fallocate(2).

use std::sync::Arc;

use super::super::abi::{mode, open};
use super::super::call::{Answer, Result, Stop, SyscallContext};
use super::super::listed::{Listed, Runs, call};
use super::super::memfs::Inode;
use super::here;
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::SYNC, Runs::Inline, |_| Ok([0, 0])),
    call(sys::FSYNC, Runs::Inline, fsync),
    call(sys::LSEEK, Runs::Inline, lseek),
    call(sys::TRUNCATE, Runs::OnWorker, truncate),
    call(sys::FTRUNCATE, Runs::OnWorker, ftruncate),
    call(sys::FDATASYNC, Runs::Inline, fdatasync),
    call(sys::FSYNC_RANGE, Runs::Inline, fsync_range),
    call(sys::POSIX_FADVISE, Runs::Inline, posix_fadvise),
    call(sys::POSIX_FALLOCATE, Runs::Inline, posix_fallocate),
    call(sys::FDISCARD, Runs::Inline, fdiscard),
];

/// `int truncate(const char *path, int PAD, off_t length)`
fn truncate(run: &mut SyscallContext<'_, '_>) -> Answer {
    let length = u64::try_from(run.offset(2)).map_err(|_| Errno::EINVAL)?;
    let inode = run.look_up(here(0), true)?;
    if inode.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    inode.check(&run.proc.credentials(), mode::WRITE)?;
    inode.resize(length)?;
    Ok([0, 0])
}

/// `int ftruncate(int fd, int PAD, off_t length)`
fn ftruncate(run: &mut SyscallContext<'_, '_>) -> Answer {
    let length = u64::try_from(run.offset(2)).map_err(|_| Errno::EINVAL)?;
    let (file, inode) = run.vnode(run.int(0))?;
    file.check(open::FWRITE).map_err(|_| Errno::EINVAL)?;
    inode.resize(length)?;
    Ok([0, 0])
}

/// `int fsync(int fd)`: does nothing, as memory is the only storage.
fn fsync(run: &mut SyscallContext<'_, '_>) -> Answer {
    run.vnode(run.int(0))?;
    Ok([0, 0])
}

/// `int fdatasync(int fd)`
fn fdatasync(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (file, _) = run.vnode(run.int(0))?;
    file.check(open::FWRITE)?;
    Ok([0, 0])
}

/// The flags of `fsync_range(2)`: exactly one of these two is required.
const FDATASYNC: u32 = 0x10;
const FFILESYNC: u32 = 0x20;

/// `int fsync_range(int fd, int flags, off_t start, off_t length)`
fn fsync_range(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (file, _) = run.vnode(run.int(0))?;
    file.check(open::FWRITE)?;
    let how = run.uint(1) & (FDATASYNC | FFILESYNC);
    let (start, length) = (run.offset(2), run.offset(3));
    let backwards = length != 0 && start.wrapping_add(length) < start;
    if how.count_ones() != 1 || backwards {
        return Err(Errno::EINVAL.into());
    }
    Ok([0, 0])
}

/// The last advice of `posix_fadvise(2)`, `POSIX_FADV_NOREUSE`.
const ADVICE_MAX: u32 = 5;

/// `int __posix_fadvise50(int fd, int PAD, off_t offset, off_t len, int advice)`: its error is its return
/// value. The advice is ignored, as files are in memory.
fn posix_fadvise(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (offset, len, advice) = (run.offset(2), run.offset(3), run.uint(4));
    if len < 0 || len > 0 && i64::MAX.wrapping_sub(offset) < len {
        return Ok([Errno::EINVAL.0.into(), 0]);
    }
    let Ok(file) = run.file(run.int(0)) else { return Ok([Errno::EBADF.0.into(), 0]) };
    let refused = match file.ops.stat()?.mode & mode::TYPE {
        _ if file.ops.inode().is_some() && advice <= ADVICE_MAX => return Ok([0, 0]),
        _ if file.ops.inode().is_some() => Errno::EINVAL,
        mode::FIFO | mode::SOCKET => Errno::ESPIPE,
        _ => Errno::EOPNOTSUPP,
    };
    Ok([refused.0.into(), 0])
}

/// `int posix_fallocate(int fd, int PAD, off_t pos, off_t len)`: its error is its return value. A tmpfs
/// cannot allocate in advance.
fn posix_fallocate(run: &mut SyscallContext<'_, '_>) -> Answer {
    match set_aside(run) {
        Ok(_) => Ok([Errno::EOPNOTSUPP.0.into(), 0]),
        Err(Stop::Errno(errno)) => Ok([errno.0.into(), 0]),
        Err(stop) => Err(stop),
    }
}

/// `int fdiscard(int fd, int PAD, off_t pos, off_t len)`: a tmpfs makes no holes, and neither do the
/// devices here.
fn fdiscard(run: &mut SyscallContext<'_, '_>) -> Answer {
    let inode = set_aside(run)?;
    Err(if inode.is_node() { Errno::ENODEV } else { Errno::EOPNOTSUPP }.into())
}

/// Checks a range for `fallocate` or `fdiscard`.
fn set_aside(run: &SyscallContext<'_, '_>) -> Result<Arc<Inode>> {
    let (from, len) = (run.offset(2), run.offset(3));
    if from < 0 || len < 0 || from.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    let (file, inode) = run.vnode(run.int(0))?;
    file.check(open::FWRITE)?;
    if inode.is_directory() {
        return Err(Errno::EISDIR.into());
    }
    Ok(inode)
}

/// `off_t lseek(int fd, int PAD, off_t offset, int whence)`
fn lseek(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (by, whence) = (run.offset(2), run.int(3));
    let file = run.file(run.int(0))?;
    let inode = file.ops.inode().filter(|inode| !inode.is_fifo()).ok_or(Errno::ESPIPE)?;
    let mut offset = file.offset.lock()?;
    let from = match whence {
        0 => 0,
        1 => offset.get(),
        2 => inode.stat().size,
        _ => return Err(Errno::EINVAL.into()),
    };
    let to = from.wrapping_add(by);
    // Devices decide for themselves, and accept any offset.
    if to < 0 && !inode.is_node() {
        return Err(Errno::EINVAL.into());
    }
    offset.set(to);
    Ok([to, 0])
}
