//! Directories: making and reading them.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,vfs_vnops}.c`, `sys/sys/dirent.h`; mkdir(2), getdents(2).

use super::super::abi::open;
use super::super::call::{Answer, PIECE, Stop, SyscallContext};
use super::super::listed::{Listed, Runs, call};
use super::super::memfs::{Aim, Make, NAME_MAX};
use super::{Named, here, there};
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::MKDIR, Runs::Inline, |run| mkdir(run, here(0))),
    call(sys::GETDENTS, Runs::InlineIf(|args| args[2] <= 8192), getdents),
    call(sys::MKDIRAT, Runs::Inline, |run| mkdir(run, there(0))),
];

/// `int mkdir(const char *path, mode_t mode)`, `mkdirat`
fn mkdir(run: &mut SyscallContext<'_, '_>, named: Named) -> Answer {
    let mode = run.uint(named.after(1));
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::CreateDirectory, false)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    run.make_at(&found, Make::Directory, mode & 0o777)?;
    Ok([0, 0])
}

/// The offset of the name in a `struct dirent`.
const NAME: usize = 13;

/// Returns the length of a `struct dirent` with a name of `len` bytes (`_DIRENT_RECLEN`).
const fn record(len: usize) -> usize {
    (NAME + len + 1).next_multiple_of(8)
}

/// `int __getdents30(int fd, char *buf, size_t count)`: copies out as many whole entries as fit.
fn getdents(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (fd, addr, count) = (run.int(0), run.word(1), run.uint(2));
    let (file, inode) = run.vnode(fd)?;
    file.check(open::FREAD)?;
    inode.directory().map_err(|_| Errno::EINVAL)?;
    let count = PIECE.min(count as usize);
    let room = run.memory().room();
    if room < count.min(record(NAME_MAX)) {
        return Err(Stop::Flush);
    }
    let mut out = Vec::new();
    let mut offset = file.offset.lock()?;
    let next = inode.list(&run.system().fs, offset.get(), |entry| {
        let len = record(entry.name.len());
        let fits = out.len() + len <= count.min(room);
        if fits {
            let begin = out.len();
            out.extend(entry.number.to_le_bytes());
            out.extend((len as u16).to_le_bytes());
            out.extend((entry.name.len() as u16).to_le_bytes());
            out.push((entry.kind >> 12) as u8);
            out.extend(entry.name);
            out.resize(begin + len, 0);
        }
        fits
    })?;
    if !out.is_empty() {
        run.copyout(&out, addr)?;
    }
    offset.set(next);
    Ok([out.len() as i64, 0])
}
