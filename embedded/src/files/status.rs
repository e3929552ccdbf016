//! Asking about files and their file system: stat, access, pathconf, statvfs.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,sys_descrip}.c`, `sys/fs/tmpfs/{tmpfs_vnops,tmpfs_vfsops}.c`,
//! `sys/sys/{unistd,statvfs}.h`; stat(2), access(2), pathconf(2), statvfs(2).

use super::super::abi::{PIPE_BUF, mode};
use super::super::call::{Answer, PATH_MAX, Result, SyscallContext};
use super::super::listed::{Listed, Runs, call};
use super::super::memfs::{Aim, FILE_SYSTEM, Inode, LINK_MAX, NAME_MAX, PAGE};
use super::super::process::Credentials;
use super::{Named, at, here, there};
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::ACCESS, Runs::Inline, |run| access(run, here(0), 0)),
    call(sys::PATHCONF, Runs::Inline, pathconf),
    call(sys::FPATHCONF, Runs::Inline, fpathconf),
    call(sys::GETVFSSTAT, Runs::Inline, getvfsstat),
    call(sys::STATVFS1, Runs::Inline, statvfs),
    call(sys::FSTATVFS1, Runs::Inline, fstatvfs),
    call(sys::STAT, Runs::Inline, |run| stat(run, here(0), true)),
    call(sys::FSTAT, Runs::Inline, fstat),
    call(sys::LSTAT, Runs::Inline, |run| stat(run, here(0), false)),
    call(sys::FACCESSAT, Runs::Inline, faccessat),
    call(sys::FSTATAT, Runs::Inline, fstatat),
];

/// `int __stat50(const char *path, struct stat *ub)`, `__lstat50`
fn stat(run: &mut SyscallContext<'_, '_>, named: Named, follow: bool) -> Answer {
    let out = run.word(named.after(1));
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::Lookup, follow)?;
    let stat = found.existing()?.stat();
    run.copyout(&stat.encode(), out)?;
    Ok([0, 0])
}

/// `int fstatat(int fd, const char *path, struct stat *buf, int flag)`
fn fstatat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let follow = run.follows(3);
    stat(run, there(0), follow)
}

/// `int __fstat50(int fd, struct stat *sb)`
fn fstat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let out = run.word(1);
    let file = run.file(run.int(0))?;
    let stat = file.ops.stat()?;
    run.copyout(&stat.encode(), out)?;
    Ok([0, 0])
}

/// `int faccessat(int fd, const char *path, int amode, int flag)`
fn faccessat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let flags = run.uint(3);
    access(run, there(0), flags)
}

/// `int access(const char *path, int flags)`: checks for the real user and group, on the whole path, unless
/// the flags ask for the effective ones.
fn access(run: &mut SyscallContext<'_, '_>, named: Named, flags: u32) -> Answer {
    let wanted = run.uint(named.after(1));
    if wanted & !(mode::READ | mode::WRITE | mode::EXECUTE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = run.path_of(named)?;
    let mut own = Credentials::clone(&run.proc.credentials());
    if flags & at::EACCESS == 0 {
        (own.euid, own.egid) = (own.uid, own.gid);
    }
    let follow = flags & at::SYMLINK_NOFOLLOW == 0;
    let base = run.base(named)?;
    let found = run.find_as(&own, base, path.as_bytes(), Aim::Lookup, follow)?;
    let inode = found.existing()?;
    if wanted != 0 {
        inode.check(&own, wanted)?;
    }
    Ok([0, 0])
}

/// The names of values that `pathconf(2)` returns (`_PC_*`).
mod name {
    pub const LINK_MAX: i32 = 1;
    pub const MAX_CANON: i32 = 2;
    pub const MAX_INPUT: i32 = 3;
    pub const NAME_MAX: i32 = 4;
    pub const PATH_MAX: i32 = 5;
    pub const PIPE_BUF: i32 = 6;
    pub const CHOWN_RESTRICTED: i32 = 7;
    pub const NO_TRUNC: i32 = 8;
    pub const VDISABLE: i32 = 9;
    pub const SYNC_IO: i32 = 10;
    pub const FILESIZEBITS: i32 = 11;
}

/// `long pathconf(const char *path, int name)`
fn pathconf(run: &mut SyscallContext<'_, '_>) -> Answer {
    let inode = run.look_up(here(0), true)?;
    Ok([limit(&inode, run.int(1))?, 0])
}

/// `long fpathconf(int fd, int name)`
fn fpathconf(run: &mut SyscallContext<'_, '_>) -> Answer {
    let file = run.file(run.int(0))?;
    let name = run.int(1);
    if let Some(inode) = file.ops.inode() {
        return Ok([limit(inode, name)?, 0]);
    }
    if file.ops.kqueue().is_some() {
        return Err(Errno::EINVAL.into());
    }
    match file.ops.stat()?.mode & mode::TYPE {
        mode::FIFO | mode::SOCKET if name == name::PIPE_BUF => Ok([PIPE_BUF as i64, 0]),
        mode::FIFO | mode::SOCKET => Err(Errno::EINVAL.into()),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// Returns the value of `name` for `inode`. NetBSD: `tmpfs_pathconf`, `spec_pathconf`, `fifo_pathconf`.
fn limit(inode: &Inode, name: i32) -> Result<i64, Errno> {
    let (device, fifo) = (inode.is_node(), inode.is_fifo());
    Ok(match name {
        name::LINK_MAX => LINK_MAX.into(),
        name::PIPE_BUF => PIPE_BUF as i64,
        name::CHOWN_RESTRICTED | name::SYNC_IO => 1,
        name::MAX_CANON | name::MAX_INPUT | name::VDISABLE if device => 255,
        name::NAME_MAX if !device && !fifo => NAME_MAX as i64,
        name::PATH_MAX if !device && !fifo => PATH_MAX as i64,
        name::NO_TRUNC if !device && !fifo => 1,
        name::FILESIZEBITS if !device && !fifo => 64,
        _ => return Err(Errno::EINVAL),
    })
}

/// The size of `struct statvfs`.
const STATVFS: usize = 2256;
/// The file system is on this machine (`ST_LOCAL`).
const LOCAL: u64 = 0x1000;

/// `int statvfs1(const char *path, struct statvfs *buf, int flags)`
fn statvfs(run: &mut SyscallContext<'_, '_>) -> Answer {
    run.look_up(here(0), true)?;
    run.copyout(&file_system(run), run.word(1))?;
    Ok([0, 0])
}

/// `int fstatvfs1(int fd, struct statvfs *buf, int flags)`
fn fstatvfs(run: &mut SyscallContext<'_, '_>) -> Answer {
    run.vnode(run.int(0))?;
    run.copyout(&file_system(run), run.word(1))?;
    Ok([0, 0])
}

/// `int getvfsstat(struct statvfs *buf, size_t bufsize, int flags)`: there is one file system.
fn getvfsstat(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, size) = (run.word(0), run.word(1));
    if addr != 0 {
        if size < STATVFS as u64 {
            return Ok([0, 0]);
        }
        run.copyout(&file_system(run), addr)?;
    }
    Ok([1, 0])
}

/// Returns the file system as a `struct statvfs`: its size, and how much of it the caller's family could
/// still take. NetBSD: `tmpfs_statvfs`.
fn file_system(run: &SyscallContext<'_, '_>) -> [u8; STATVFS] {
    let counters = &run.system().counters;
    let limits = &counters.limits;
    let free = limits.bytes.saturating_sub(counters.bytes.get()) / PAGE;
    let available = run.proc.family.free_bytes() / PAGE;
    let nodes = counters.inodes.get();
    let free_nodes = limits.inodes.saturating_sub(nodes);
    let words = [
        LOCAL,
        PAGE,
        PAGE,
        PAGE,
        limits.bytes / PAGE,
        free,
        available,
        0,
        nodes + free_nodes,
        free_nodes,
        free_nodes,
        0,
    ];
    let mut out = [0; STATVFS];
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    for (n, word) in words.iter().enumerate() {
        put(8 * n, &word.to_le_bytes());
    }
    // The four counts of reads and writes stay zero, as does the owner.
    put(128, &(FILE_SYSTEM as u32).to_le_bytes());
    put(136, &FILE_SYSTEM.to_le_bytes());
    put(144, &(NAME_MAX as u64).to_le_bytes());
    put(172, b"tmpfs");
    put(204, b"/");
    put(1228, b"tmpfs");
    out
}
