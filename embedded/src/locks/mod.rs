//! Advisory locks: of bytes of a file, which a process holds (fcntl), and of a whole file, which an
//! open file holds (flock, `O_SHLOCK`, `O_EXLOCK`). The two kinds are in each other's way.
//!
//! A call that has to wait is woken when the lock in its way has changed, and tries again from the top:
//! whoever is first then has it, as with NetBSD, where who asks for what may be held has it at once.
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
use super::memfs::Inode;
use super::process::Proc;
use super::sync::lock;
use super::table::{Listed, Runs, call};
use super::wait::Side;
use super::work;
use kernel::Errno;
use kernel::sys;
use list::{END, List, Owner, Range, Ticket, Wish, Woken};

pub(super) const CALLS: &[Listed] = &[call(sys::FLOCK, Runs::OnWorker, flock)];

/// The locks of a file.
#[derive(Default)]
pub(super) struct FileLocks(Mutex<List>);

/// Locks a user may hold (`maxlocksperuid`): here those of a family that are not the superuser, each
/// family by itself. NetBSD has no bound for the superuser, whom every client begins as.
const MOST: u64 = 1024;
const MOST_OF_ROOT: u64 = 16 * MOST;

/// `fcntl.h`: `l_type`.
const READ: i16 = 1;
const UNLOCK: i16 = 2;
const WRITE: i16 = 3;

/// `fcntl.h`: what flock(2) is asked for.
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

    /// The bytes that are meant, of a file of this size; none if the last is past the largest offset,
    /// which NetBSD takes for an answer too. EINVAL if the first is before the file.
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

/// The open file of `fd`, if it is still the one that the call began to wait with.
fn the_file(run: &SyscallContext<'_, '_>, fd: i32) -> Result<Arc<OpenFile>> {
    let file = run.file(fd)?;
    match run.kept().and_then(|kept| kept.file.as_ref()) {
        Some(earlier) if earlier.as_ptr() != Arc::as_ptr(&file) => Err(Errno::EBADF.into()),
        _ => Ok(file),
    }
}

/// The size of what can be locked. A fifo cannot (`genfs_einval`).
fn lockable(inode: &Inode) -> Result<i64, Errno> {
    if inode.is_fifo() { Err(Errno::EINVAL) } else { Ok(inode.stat().size) }
}

/// What is in the way of what is wanted. NetBSD: `lf_getlock`.
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

/// How many locks the process may come to hold, with its family.
fn most(proc: &Proc) -> u64 {
    if proc.credentials().euid == 0 { MOST_OF_ROOT } else { MOST }
}

/// Grants `wish`, now or later: EAGAIN if it would have to wait and should not, EDEADLK if for ever.
/// NetBSD: `lf_advlock`, `lf_setlock`.
fn take(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    inode: &Inode,
    wish: &Wish,
    wait: bool,
) -> Result<()> {
    let (resource_group, most) = (&run.proc.family, most(run.proc));
    // A lock of bytes may cut another in two.
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

/// Something was in the way: looks again with an eye on who waits for whom, and waits.
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
        // What is shared is let go, or two that want it alone would wait for each other.
        Owner::File(_) if wish.exclusive => list.clear(wish.owner, Range::ALL, None, woken),
        _ => {}
    }
    let waiting = graph.enter(&waits, pid, queue);
    run.wait_for(waiting, Side::Write);
    Err(Stop::Sleep(None))
}

/// Gives up what the process has of `range`. NetBSD: `lf_advlock`.
fn unlock(proc: &Proc, inode: &Inode, range: Range) -> Result<(), Errno> {
    let spare = if range.start == 0 || range.end == END {
        None
    } else {
        // What is cut out of the middle leaves two; a bit more than the bound is let go that way.
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

/// A thread may have closed the descriptor meanwhile, and with it have given up the locks: then
/// those of this call go as well.
fn still_open(run: &SyscallContext<'_, '_>, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
    if run.file(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
        return Ok(());
    }
    closed(run.proc, file);
    Err(Errno::EBADF.into())
}

/// The process has closed a descriptor of this file, and with it given up all its locks there, whatever
/// other descriptors it has. NetBSD: `fd_close`.
pub(super) fn closed(proc: &Proc, file: &OpenFile) {
    if !proc.locker.load(Relaxed) {
        return;
    }
    if let Some(inode) = file.ops.inode() {
        let (inode, owner) = (inode.clone(), Owner::Process(proc.pid));
        // There may be very many, of others too.
        work::now_or_later(work::MOST + 1, move || clear(&inode, owner, Range::ALL, None));
    }
}

/// The process ends: its locks are those of files it still has open.
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

/// The lock that `O_SHLOCK` and `O_EXLOCK` among the flags of an open ask for. NetBSD: `open_setfp`.
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

/// The last descriptor of an open file is gone. NetBSD: `closef`.
pub(super) fn gone(file: &OpenFile) {
    if let Some(inode) = file.ops.inode().filter(|_| file.has(open::HASLOCK)) {
        clear(inode, owner(file), Range::ALL, None);
    }
}
