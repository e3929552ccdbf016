//! Advisory locks: of bytes of a file, which a process holds (fcntl), and of a whole file, which an open
//! file holds (flock, `O_SHLOCK`, `O_EXLOCK`). The two kinds conflict with each other.
//!
//! A call that has to wait is woken when the conflicting lock has changed, and tries again from the top.
//! The first call to try gets the lock, as in NetBSD, which grants a lock at once if no held lock
//! conflicts.
//!
//! Sources: NetBSD `sys/kern/{vfs_lockf,sys_descrip,kern_descrip}.c`; fcntl(2), flock(2).

mod deadlock;
mod list;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

pub(super) use deadlock::WaitGraph;

use super::abi::{fcntl, i32_at, i64_at, open};
use super::call::{Answer, Result, Stop, SyscallContext};
use super::file::OpenFile;
use super::listed::{Listed, Runs, call};
use super::memfs::Inode;
use super::process::Proc;
use super::sync::lock;
use super::wait::Side;
use super::work;
use kernel::{Errno, sys};
use list::{END, List, Owner, Range, Ticket, Wish, Woken};

pub(super) const CALLS: &[Listed] = &[call(sys::FLOCK, Runs::OnWorker, flock)];

/// The locks of a file.
#[derive(Default)]
pub(super) struct FileLocks(Mutex<List>);

/// The most locks of a user (`maxlocksperuid`), here applied to each family that is not the superuser.
/// NetBSD has no bound for the superuser, which is what every client begins as.
const MOST: u64 = 1024;
const MOST_OF_ROOT: u64 = 16 * MOST;

/// `fcntl.h`: `l_type`.
const READ: i16 = 1;
const UNLOCK: i16 = 2;
const WRITE: i16 = 3;

/// `fcntl.h`: operations of flock(2).
const SHARED: i32 = 1;
const EXCLUSIVE: i32 = 2;
const NOT_BLOCKING: i32 = 4;
const RELEASE: i32 = 8;

/// `struct flock`
#[derive(Clone, Copy)]
struct Flock {
    start: i64,
    len: i64,
    pid: i32,
    kind: i16,
    whence: i16,
}

impl Flock {
    fn decode(bytes: &[u8; 24]) -> Flock {
        let kind_and_whence = i32_at(bytes, 20);
        Flock {
            start: i64_at(bytes, 0),
            len: i64_at(bytes, 8),
            pid: i32_at(bytes, 16),
            kind: kind_and_whence as i16,
            whence: (kind_and_whence >> 16) as i16,
        }
    }

    fn encode(&self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.start.to_le_bytes());
        out[8..16].copy_from_slice(&self.len.to_le_bytes());
        out[16..20].copy_from_slice(&self.pid.to_le_bytes());
        out[20..22].copy_from_slice(&self.kind.to_le_bytes());
        out[22..].copy_from_slice(&self.whence.to_le_bytes());
        out
    }

    /// Returns the locked range in a file of this size; `None` if its last byte is past the largest offset,
    /// for which NetBSD returns success. EINVAL if the first byte is before the file.
    fn range(&self, size: i64) -> Result<Option<Range>, Errno> {
        let from = match self.whence {
            0 | 1 => self.start,
            2 => size.wrapping_add(self.start),
            _ => return Err(Errno::EINVAL),
        };
        let (start, end) = match self.len {
            0 => (Some(from), Some(END)),
            len @ 1.. => (Some(from), from.checked_add(len - 1).map(|end| end as u64)),
            len => (from.checked_add(len), Some((from as u64).wrapping_sub(1))),
        };
        let start = start.and_then(|start| u64::try_from(start).ok()).ok_or(Errno::EINVAL)?;
        Ok(end.map(|end| Range { start, end }))
    }
}

/// `F_GETLK`, `F_SETLK` and `F_SETLKW` of fcntl. NetBSD: `do_fcntl_lock`.
pub(super) fn record(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (fd, command, addr) = (run.int(0), run.int(1), run.word(2));
    let mut wanted = Flock::decode(&run.copyin(addr)?);
    let file = the_file(run, fd)?;
    let inode = file.ops.inode().ok_or(Errno::EINVAL)?;
    if wanted.whence == 1 {
        wanted.start = wanted.start.wrapping_add(file.offset.get());
    }
    match (command, wanted.kind) {
        (fcntl::GETLK, READ | UNLOCK | WRITE) => {
            let found = look(run.proc, inode, &wanted)?;
            run.copyout(&found.encode(), addr)?;
        }
        (fcntl::SETLK | fcntl::SETLKW, READ | WRITE) => {
            let access = if wanted.kind == READ { open::FREAD } else { open::FWRITE };
            file.check(access)?;
            run.proc.locker.store(true, Relaxed);
            if let Some(range) = wanted.range(lockable(inode)?)? {
                let owner = Owner::Process(run.proc.pid);
                let wish = Wish { owner, range, exclusive: wanted.kind == WRITE };
                take(run, &file, inode, &wish, command == fcntl::SETLKW)?;
                still_open(run, fd, &file)?;
            }
        }
        (fcntl::SETLK | fcntl::SETLKW, UNLOCK) => {
            if let Some(range) = wanted.range(lockable(inode)?)? {
                unlock(run.proc, inode, range)?;
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok([0, 0])
}

/// Returns the open file of `fd`, if it is still the one with which the call began to wait.
fn the_file(run: &SyscallContext<'_, '_>, fd: i32) -> Result<Arc<OpenFile>> {
    let file = run.file(fd)?;
    match run.kept().and_then(|kept| kept.file.as_ref()) {
        Some(earlier) if earlier.as_ptr() != Arc::as_ptr(&file) => Err(Errno::EBADF.into()),
        _ => Ok(file),
    }
}

/// Returns the size of a file that can be locked. EINVAL for a fifo (`genfs_einval`).
fn lockable(inode: &Inode) -> Result<i64, Errno> {
    if inode.is_fifo() { Err(Errno::EINVAL) } else { Ok(inode.stat().size) }
}

/// Returns the lock that conflicts with `wanted`. NetBSD: `lf_getlock`.
fn look(proc: &Proc, inode: &Inode, wanted: &Flock) -> Result<Flock, Errno> {
    let nothing = Flock { kind: UNLOCK, ..*wanted };
    let Some(range) = wanted.range(lockable(inode)?)? else { return Ok(nothing) };
    let owner = Owner::Process(proc.pid);
    let wish = Wish { owner, range, exclusive: wanted.kind == WRITE };
    let Some(blocker) = lock(&inode.locks().0).blocker(&wish) else { return Ok(nothing) };
    let Range { start, end } = blocker.range;
    Ok(Flock {
        start: start as i64,
        len: if end == END { 0 } else { (end - start + 1) as i64 },
        pid: match blocker.owner {
            Owner::Process(pid) => pid,
            Owner::File(_) => -1,
        },
        kind: if blocker.exclusive { WRITE } else { READ },
        whence: 0,
    })
}

/// Returns the most locks that the process's family may hold.
fn most(proc: &Proc) -> u64 {
    if proc.credentials().euid == 0 { MOST_OF_ROOT } else { MOST }
}

/// Grants `wish`, now or later. EAGAIN if it conflicts and `wait` is false, EDEADLK if it would wait for
/// ever. NetBSD: `lf_advlock`, `lf_setlock`.
fn take(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    inode: &Inode,
    wish: &Wish,
    wait: bool,
) -> Result<()> {
    let (resource_group, most) = (&run.proc.family, most(run.proc));
    // A new byte-range lock may cut another in two.
    let spare = match wish.owner {
        Owner::Process(_) => Some(Ticket::take(resource_group, u64::MAX).ok_or(Errno::ENOMEM)?),
        Owner::File(_) => None,
    };
    let ticket = Ticket::take(resource_group, most).ok_or(Errno::ENOMEM)?;
    let mut woken = Woken::default();
    let granted = {
        let mut list = lock(&inode.locks().0);
        match list.blocker(wish) {
            Some(_) if !wait => return Err(Errno::EAGAIN.into()),
            Some(_) => Err((ticket, spare)),
            None => {
                list.set(wish, ticket, spare, &mut woken);
                Ok(())
            }
        }
    };
    let granted = match granted {
        Ok(()) => Ok(()),
        Err((ticket, spare)) => {
            run.keep().file = Some(Arc::downgrade(file));
            take_or_wait(run, inode, wish, ticket, spare, &mut woken)
        }
    };
    woken.wake();
    granted
}

/// Checks for the conflicting lock again with the wait graph locked, and waits for it.
fn take_or_wait(
    run: &mut SyscallContext<'_, '_>,
    inode: &Inode,
    wish: &Wish,
    ticket: Ticket,
    spare: Option<Ticket>,
    woken: &mut Woken,
) -> Result<()> {
    let waits = run.system().waits.clone();
    let pid = run.proc.pid;
    let mut graph = waits.look();
    let mut list = lock(&inode.locks().0);
    let Some(queue) = list.queue(wish) else {
        list.set(wish, ticket, spare, woken);
        return Ok(());
    };
    match wish.owner {
        Owner::Process(_) if graph.closes_circle(pid, queue.owner) => {
            return Err(Errno::EDEADLK.into());
        }
        // A shared lock is released first; otherwise two upgrades to exclusive would wait for each other.
        Owner::File(_) if wish.exclusive => list.clear(wish.owner, Range::ALL, None, woken),
        _ => {}
    }
    let waiting = graph.enter(&waits, pid, queue);
    run.wait_for(waiting, Side::Write);
    Err(Stop::Sleep(None))
}

/// Unlocks `range` for the process. NetBSD: `lf_advlock`.
fn unlock(proc: &Proc, inode: &Inode, range: Range) -> Result<(), Errno> {
    let spare = if range.start == 0 || range.end == END {
        None
    } else {
        // Unlocking the middle of a lock leaves two, so this may go a little beyond the bound.
        Some(Ticket::take(&proc.family, 2 * most(proc) - 1).ok_or(Errno::ENOMEM)?)
    };
    clear(inode, Owner::Process(proc.pid), range, spare);
    Ok(())
}

fn clear(inode: &Inode, owner: Owner, range: Range, spare: Option<Ticket>) {
    let mut woken = Woken::default();
    {
        let mut list = lock(&inode.locks().0);
        if !list.is_empty() {
            list.clear(owner, range, spare, &mut woken);
        }
    }
    woken.wake();
}

/// Releases the locks of this call if another thread has closed the descriptor meanwhile, as its close
/// released the others.
fn still_open(run: &SyscallContext<'_, '_>, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
    if run.file(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
        return Ok(());
    }
    closed(run.proc, file);
    Err(Errno::EBADF.into())
}

/// Releases all locks of the process on this file after it has closed a descriptor of the file, whatever
/// other descriptors it has. NetBSD: `fd_close`.
pub(super) fn closed(proc: &Proc, file: &OpenFile) {
    if !proc.locker.load(Relaxed) {
        return;
    }
    if let Some(inode) = file.ops.inode() {
        let (inode, owner) = (inode.clone(), Owner::Process(proc.pid));
        // There may be very many locks, including those of others.
        work::now_or_later(work::MOST + 1, move || clear(&inode, owner, Range::ALL, None));
    }
}

/// Releases the locks of a process that ends: they are on files it still has open.
pub(super) fn end(proc: &Proc) {
    if proc.locker.load(Relaxed) {
        proc.files.all().iter().for_each(|file| closed(proc, file));
    }
}

/// `int flock(int fd, int how)`
fn flock(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (fd, how) = (run.int(0), run.int(1));
    let file = the_file(run, fd)?;
    let inode = file.ops.inode().ok_or(Errno::EOPNOTSUPP)?;
    match how & !NOT_BLOCKING {
        RELEASE => {
            file.set(open::HASLOCK, false);
            lockable(inode)?;
            clear(inode, owner(&file), Range::ALL, None);
        }
        kind @ (SHARED | EXCLUSIVE) => {
            file.set(open::HASLOCK, true);
            whole(run, &file, kind == EXCLUSIVE, how & NOT_BLOCKING == 0)?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok([0, 0])
}

fn owner(file: &OpenFile) -> Owner {
    Owner::File(std::ptr::from_ref(file).addr())
}

/// Locks the whole of an open file.
fn whole(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    exclusive: bool,
    wait: bool,
) -> Result<()> {
    let inode = file.ops.inode().ok_or(Errno::EINVAL)?;
    lockable(inode)?;
    let wish = Wish { owner: owner(file), range: Range::ALL, exclusive };
    take(run, file, inode, &wish, wait)
}

/// Takes the lock that `O_SHLOCK` or `O_EXLOCK` in the flags of an open asks for. NetBSD: `open_setfp`.
pub(super) fn at_open(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    flags: u32,
) -> Result<()> {
    if flags & (open::SHLOCK | open::EXLOCK) != 0 {
        whole(run, file, flags & open::EXLOCK != 0, flags & open::NONBLOCK == 0)?;
        file.set(open::HASLOCK, true);
    }
    Ok(())
}

/// Releases the lock of an open file whose last descriptor is gone. NetBSD: `closef`.
pub(super) fn gone(file: &OpenFile) {
    if let Some(inode) = file.ops.inode().filter(|_| file.has(open::HASLOCK)) {
        clear(inode, owner(file), Range::ALL, None);
    }
}
