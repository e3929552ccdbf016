//! Opening files, and making files: regular files, fifos and device nodes.
//!
//! Sources: NetBSD `sys/kern/{vfs_syscalls,vfs_vnops}.c`, `sys/fs/tmpfs/tmpfs_vnops.c`,
//! `sys/miscfs/specfs/spec_vnops.c`; open(2), mkfifo(2), mknod(2).

use std::sync::Arc;

use super::super::abi::{mode, open};
use super::super::call::{Answer, PathName, Result, Stop, SyscallContext};
use super::super::file::OpenFile;
use super::super::listed::{Listed, Runs, call, partly};
use super::super::locks;
use super::super::memfs::{Aim, Inode, Make};
use super::super::pipe::fifo;
use super::super::vnode::Vnode;
use super::super::work;
use super::{Named, TRIES, here, there};
use kernel::{Errno, sys};

pub(in super::super) const CALLS: &[Listed] = &[
    call(sys::OPEN, Runs::Inline, |run| open_call(run, here(0))),
    call(sys::MKFIFO, Runs::Inline, |run| mkfifo(run, here(0))),
    partly(sys::MKNOD, Runs::Inline, |run| mknod(run, here(0), 2), NO_WHITEOUTS),
    call(sys::MKFIFOAT, Runs::Inline, |run| mkfifo(run, there(0))),
    partly(sys::MKNODAT, Runs::Inline, |run| mknod(run, there(0), 4), NO_WHITEOUTS),
    call(sys::OPENAT, Runs::Inline, |run| open_call(run, there(0))),
];

const NO_WHITEOUTS: &str = "whiteouts (S_IFWHT) answer EOPNOTSUPP";

/// `int open(const char *path, int flags, ... mode_t mode)`, `openat`
fn open_call(run: &mut SyscallContext<'_, '_>, named: Named) -> Answer {
    let (flags, mode) = (run.uint(named.after(1)), run.uint(named.after(2)));
    let flags = (flags & !open::SEARCH).wrapping_add(1);
    let close_on_exec = flags & open::CLOEXEC != 0;
    if run.kept().is_some_and(|kept| kept.opened.is_some()) {
        return go_on(run, flags, close_on_exec);
    }
    if flags & (open::SHLOCK | open::EXLOCK) != 0 {
        // The file may have very many locks: move to a worker before anything is made.
        work::elsewhere()?;
    }
    let path = run.path_of(named)?;
    run.base(named)?;
    if flags & (open::FREAD | open::FWRITE) == 0 {
        return Err(Errno::EINVAL.into());
    }
    run.proc.files.check_room()?;
    let file = open_file(run, named, &path, flags, mode)?;
    if let Err(stop) = settle(run, &file, flags) {
        if let Stop::Sleep(_) = stop {
            run.keep().opened = Some((file, run.proc.files.reserve()?));
        }
        return Err(stop);
    }
    Ok([run.proc.files.insert(file, 0, close_on_exec)?.into(), 0])
}

/// Continues an open call that had to wait: returns the descriptor, or waits on.
fn go_on(run: &mut SyscallContext<'_, '_>, flags: u32, close_on_exec: bool) -> Answer {
    let Some((file, number)) = run.keep().opened.take() else { return Err(Errno::EBADF.into()) };
    if let Err(stop) = settle(run, &file, flags) {
        run.keep().opened = Some((file, number));
        return Err(stop);
    }
    Ok([number.fill(file, close_on_exec)?.into(), 0])
}

/// Returns the open file. It is counted first, so that no file is made that then cannot be opened. NetBSD:
/// `do_open`.
fn open_file(
    run: &mut SyscallContext<'_, '_>,
    named: Named,
    path: &PathName,
    flags: u32,
    mode: u32,
) -> Result<Arc<OpenFile>> {
    if !run.proc.family.take_file() {
        return Err(Errno::ENFILE.into());
    }
    open_or_make(run, named, path, flags, mode)
        .and_then(|inode| open_inode(run, inode, flags & open::KEPT))
        .inspect_err(|_| run.proc.family.give_file())
}

/// Opens the file at the path, or makes it. NetBSD: `vn_open`.
fn open_or_make(
    run: &SyscallContext<'_, '_>,
    named: Named,
    path: &PathName,
    flags: u32,
    mode: u32,
) -> Result<Arc<Inode>> {
    let create = flags & open::CREAT != 0;
    if create && flags & open::DIRECTORY != 0 {
        return Err(Errno::EINVAL.into());
    }
    let exclusive = create && flags & open::EXCL != 0;
    let follow = flags & open::NOFOLLOW == 0 && !exclusive;
    let aim = if create { Aim::Create } else { Aim::Lookup };
    for _ in 0..TRIES {
        let found = run.find(named, path, aim, follow)?;
        if let Some(inode) = found.inode {
            if exclusive {
                return Err(Errno::EEXIST.into());
            }
            check_open(run, &inode, flags)?;
            return Ok(inode);
        }
        let mode = mode & mode::PERMISSIONS & !mode::STICKY;
        match run.make_at(&found, Make::File, mode) {
            // Another call has made the file first: open that one.
            Err(stop) if stop == Errno::EEXIST.into() => {}
            made => return made,
        }
    }
    Err(Errno::EEXIST.into())
}

/// Checks that `inode` may be opened with `flags`, and truncates it if they say so. NetBSD: `vn_openchk`.
fn check_open(run: &SyscallContext<'_, '_>, inode: &Inode, flags: u32) -> Result<()> {
    match inode.kind() {
        mode::SOCKET => return Err(Errno::EOPNOTSUPP.into()),
        mode::LINK => return Err(Errno::EFTYPE.into()),
        _ => {}
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
    inode.check(&run.proc.credentials(), wanted)?;
    if flags & open::TRUNC != 0 {
        inode.resize(0)?;
    }
    Ok(inode.check_append(flags & (open::FWRITE | open::APPEND) == open::FWRITE)?)
}

/// Opens the vnode that was found or made, with the flags that are kept; the caller has counted the open
/// file. NetBSD: `VOP_OPEN`.
fn open_inode(
    run: &mut SyscallContext<'_, '_>,
    inode: Arc<Inode>,
    flags: u32,
) -> Result<Arc<OpenFile>> {
    if inode.is_fifo() {
        return open_fifo(run, &inode, flags);
    }
    if inode.is_node() && inode.device().is_none() {
        return Err(Errno::ENXIO.into());
    }
    Ok(OpenFile::counted(Vnode(inode), flags, &run.proc.family))
}

/// Opens a fifo; the caller has counted the open file.
fn open_fifo(
    run: &mut SyscallContext<'_, '_>,
    inode: &Arc<Inode>,
    flags: u32,
) -> Result<Arc<OpenFile>> {
    let end = fifo::End::open(inode, flags, &run.proc.credentials(), &run.proc.family)?;
    Ok(OpenFile::counted(end, flags, &run.proc.family))
}

/// Waits until `file` is completely open; it stays open meanwhile. NetBSD: `open_setfp`.
fn settle(run: &mut SyscallContext<'_, '_>, file: &Arc<OpenFile>, flags: u32) -> Result<()> {
    file.ops.opened(run, file)?;
    locks::at_open(run, file, flags)
}

/// `int mkfifo(const char *path, mode_t mode)`, `mkfifoat`
fn mkfifo(run: &mut SyscallContext<'_, '_>, named: Named) -> Answer {
    let mode = run.uint(named.after(1));
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::Create, false)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    run.make_at(&found, Make::Fifo, mode & mode::PERMISSIONS)?;
    Ok([0, 0])
}

/// `int __mknod50(const char *path, mode_t mode, dev_t dev)`, and `mknodat`, which has a slot of padding
/// before the device number. For the superuser only.
fn mknod(run: &mut SyscallContext<'_, '_>, named: Named, device: usize) -> Answer {
    let (mode, number) = (run.uint(named.after(1)), run.word(device));
    if run.proc.credentials().euid != 0 {
        return Err(Errno::EPERM.into());
    }
    let path = run.path_of(named)?;
    let found = run.find(named, &path, Aim::Create, false)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST.into());
    }
    let what = match mode & mode::TYPE {
        mode::REGULAR => Make::File,
        mode::WHITEOUT => return Err(Errno::EOPNOTSUPP.into()),
        mode::CHARACTER | mode::BLOCK if number != u64::MAX => {
            Make::Device { block: mode & mode::TYPE == mode::BLOCK, number }
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    run.make_at(&found, what, mode & mode::PERMISSIONS)?;
    Ok([0, 0])
}
