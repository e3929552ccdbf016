//! Pipes: a bounded buffer with a read end and a write end.
//!
//! Source: NetBSD `sys/kern/sys_pipe.c`; pipe(2).

pub(super) mod fifo;

use crate::owner::Owner;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::abi::{self, PIPE_BUF, Stat, open, poll};
use super::call::{Answer, Result, Stop, SyscallContext};
use super::file::{FileOps, OpenFile, Seen};
use super::io::{Buffer, Transfer};
use super::ioctl;
use super::limits::ResourceGroup;
use super::listed::{Listed, Runs, call};
use super::process::Credentials;
use super::sync::lock;
use super::time;
use super::wait::{Side, WaitQueue, Waitable};
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] =
    &[call(sys::PIPE, Runs::Inline, pipe), call(sys::PIPE2, Runs::Inline, pipe2)];

/// The bytes a pipe holds (`PIPE_SIZE`).
pub(super) const CAPACITY: usize = 16 * 1024;

/// The bytes a pipe holds after a write of more than `CAPACITY` has found it empty (`BIG_PIPE_SIZE`), as
/// long as there are not too many such pipes (`LIMITBIGPIPES`).
const LARGE: usize = 4 * CAPACITY;
pub(super) const MOST_LARGE: u64 = 32;

/// Waiting writers go on once a read has left fewer bytes than this (`MINPIPESIZE`).
const DRAINED: usize = CAPACITY / 3;

/// The largest buffer that an empty pipe keeps for the next bytes. It is paid for when the pipe is made,
/// and is all the pipe holds while its family cannot pay for more.
const SPARE: usize = 1024;

/// A pipe.
pub(super) struct Pipe {
    state: Mutex<State>,
    readers: WaitQueue,
    writers: WaitQueue,
    born: i64,
    /// The user and group of the process that made the pipe.
    uid: u32,
    gid: u32,
    resource_group: Arc<ResourceGroup>,
}

struct State {
    bytes: VecDeque<u8>,
    /// The bytes the pipe may hold when all of them are paid for, and the least room with which a larger
    /// write begins.
    most: usize,
    low_water: usize,
    /// Waiting writers go on once there are fewer bytes than this.
    drained: usize,
    /// One more than the number of times that writers were told to go on, and that readers were told of
    /// bytes.
    writers_told: u64,
    readers_told: u64,
    /// True if a waiting call fails with EAGAIN when `O_NONBLOCK` is set meanwhile.
    listens: bool,
    /// The bytes the pipe may hold now: those that are paid for.
    capacity: usize,
    reader: bool,
    writer: bool,
    accessed: i64,
    modified: i64,
}

impl State {
    fn space(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    /// Returns the room of the pipe if it grows as far as `resource_group` can pay now.
    fn room(&self, resource_group: &ResourceGroup) -> usize {
        let payable = self.capacity.saturating_add(resource_group.free_bytes() as usize);
        let grown = self.sizes().find(|&size| size <= payable);
        grown.map_or(self.capacity, |size| size.max(self.capacity)).saturating_sub(self.bytes.len())
    }

    /// Returns the sizes the pipe may grow to, the best first.
    fn sizes(&self) -> impl Iterator<Item = usize> + use<> {
        [self.most, self.most.min(CAPACITY)].into_iter()
    }

    /// Grows the pipe as far as `resource_group` can pay.
    fn grow(&mut self, resource_group: &ResourceGroup) {
        let capacity = self.capacity;
        let paid =
            |&size: &usize| size > capacity && resource_group.take_bytes((size - capacity) as u64);
        if let Some(size) = self.sizes().find(paid) {
            self.capacity = size;
        }
    }

    /// Records that bytes were taken out. Returns `true` if writers are to go on.
    fn tell(&mut self) -> bool {
        let told = self.bytes.len() < self.drained;
        self.writers_told += u64::from(told);
        told
    }

    /// Returns `true` if both ends are open.
    fn both(&self) -> bool {
        self.reader && self.writer
    }

    /// Returns how many of `left` bytes fit now; few bytes go as one piece (`PIPE_BUF`). If `left` is more
    /// than the pipe may hold, the pipe grows if `resource_group` can pay.
    fn fits(&mut self, left: u64, resource_group: &ResourceGroup) -> usize {
        if (self.space() as u64) < left {
            self.grow(resource_group);
        }
        let space = self.space();
        let too_little = left <= PIPE_BUF as u64 || space < self.low_water;
        if too_little && (space as u64) < left {
            return 0;
        }
        usize::try_from(left).unwrap_or(usize::MAX).min(space)
    }

    /// Shrinks a pipe that is empty, or that nobody will read, to what it always holds.
    fn shrink(&mut self, resource_group: &ResourceGroup) {
        if self.bytes.capacity() > SPARE {
            self.bytes = VecDeque::new();
        }
        resource_group.give_bytes((self.capacity - SPARE) as u64);
        self.capacity = SPARE;
    }
}

impl Waitable for Pipe {
    fn queue(&self, side: Side) -> &WaitQueue {
        match side {
            Side::Read => &self.readers,
            Side::Write => &self.writers,
        }
    }
}

/// The limits by which a full pipe behaves.
struct Bounds {
    /// The bytes the pipe may hold.
    most: usize,
    /// The least room with which a larger write begins.
    low_water: usize,
    /// Waiting writers go on once there are fewer bytes than this.
    drained: usize,
    /// True if a waiting call fails with EAGAIN when `O_NONBLOCK` is set meanwhile.
    listens: bool,
}

impl Pipe {
    /// Makes a pipe. ENOMEM if `resource_group` cannot pay for it.
    fn new(
        resource_group: &Arc<ResourceGroup>,
        own: &Credentials,
        bounds: Bounds,
    ) -> Result<Arc<Pipe>, Errno> {
        if !resource_group.take_bytes(SPARE as u64) {
            return Err(Errno::ENOMEM);
        }
        let born = time::now();
        let Bounds { most, low_water, drained, listens } = bounds;
        Ok(Arc::new(Pipe {
            state: Mutex::new(State {
                bytes: VecDeque::new(),
                most,
                low_water,
                drained,
                writers_told: 1,
                readers_told: 1,
                listens,
                capacity: SPARE,
                reader: true,
                writer: true,
                accessed: born,
                modified: born,
            }),
            readers: WaitQueue::default(),
            writers: WaitQueue::default(),
            born,
            uid: own.euid,
            gid: own.egid,
            resource_group: resource_group.clone(),
        }))
    }

    /// Closes one end. Calls waiting at the other end see end of file, or the broken pipe.
    pub fn close(&self, side: Side) {
        {
            let mut state = lock(&self.state);
            match side {
                Side::Read => {
                    state.reader = false;
                    state.bytes.clear();
                    state.shrink(&self.resource_group);
                    if std::mem::replace(&mut state.most, CAPACITY) > CAPACITY {
                        self.resource_group.system.large_pipes.give(1);
                    }
                }
                Side::Write => state.writer = false,
            }
            state.readers_told += 1;
        }
        self.wake();
    }

    fn wake(&self) {
        self.readers.wake();
        self.writers.wake();
    }

    /// Takes out the bytes there are, at least one. NetBSD: `pipe_read`.
    pub fn read(
        self: &Arc<Self>,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
    ) -> Result<()> {
        let mut waiting = false;
        loop {
            if transfer.total == 0 || self.take(run, transfer)? {
                return Ok(());
            }
            let (told, listens) = {
                let state = lock(&self.state);
                (state.readers_told, state.listens)
            };
            self.check_blocking(run, file, told, listens)?;
            run.keep().since = told;
            if waiting {
                return Err(Stop::Sleep(None));
            }
            run.wait_for(self.clone(), Side::Read);
            waiting = true;
        }
    }

    /// Returns EAGAIN for a non-blocking call. A waiting call checks the flag again only when it is told to
    /// go on, not when something else wakes it, such as a close in another process.
    fn check_blocking(
        &self,
        run: &SyscallContext<'_, '_>,
        file: &OpenFile,
        told: u64,
        listens: bool,
    ) -> Result<(), Errno> {
        let since = run.kept().map_or(0, |kept| kept.since);
        let looks = since == 0 || listens && since != told && !run.call.interrupted;
        if looks && file.has(open::NONBLOCK) { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// Copies out the bytes there are. Returns `false` if there are none now but may be later.
    fn take(&self, run: &mut SyscallContext<'_, '_>, transfer: &Transfer) -> Result<bool> {
        let (go_on, more) = {
            let mut state = lock(&self.state);
            if state.bytes.is_empty() {
                return Ok(!state.writer);
            }
            let wanted = usize::try_from(transfer.total).unwrap_or(usize::MAX);
            let count = state.bytes.len().min(wanted).min(run.memory().room());
            if count == 0 {
                return Err(Stop::Flush);
            }
            transfer.copyout(run, &state.bytes.make_contiguous()[..count])?;
            state.bytes.drain(..count);
            if state.bytes.is_empty() {
                state.shrink(&self.resource_group);
            }
            let told = state.tell();
            state.accessed = time::now();
            (told || state.space() >= PIPE_BUF, !state.bytes.is_empty())
        };
        // Otherwise there is too little room for any waiting writer and for polls.
        if go_on {
            self.writers.wake();
            // No reader waits while there are bytes: this wakes knotes with EV_CLEAR, which report every
            // change.
            if more {
                self.readers.wake();
            }
        }
        Ok(true)
    }

    /// Puts in all bytes of the transfer. A writer that has to wait goes on when enough was read, though
    /// there may be room before. NetBSD: `pipe_write`.
    pub fn write(
        self: &Arc<Self>,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
    ) -> Result<()> {
        let mut waiting = false;
        loop {
            // Ask the client for bytes only once there is room for them.
            let left = transfer.total - run.done();
            let since = run.kept().map_or(0, |kept| kept.since);
            let (told, listens, room, size) = {
                let mut state = lock(&self.state);
                if !state.reader {
                    return Err(Errno::EPIPE.into());
                }
                if since == 0 && run.done() == 0 {
                    self.enlarge(&mut state, left);
                }
                let room = left > 0 && state.fits(left, &self.resource_group) > 0;
                (state.writers_told, state.listens, room, state.most.max(CAPACITY))
            };
            if left == 0 {
                return Ok(());
            }
            if room && since != told {
                self.put(run, transfer, left, size as u64)?;
                waiting = false;
                continue;
            }
            self.check_blocking(run, file, told, listens)?;
            run.keep().since = told;
            if waiting {
                return Err(Stop::Sleep(None));
            }
            run.wait_for(self.clone(), Side::Write);
            waiting = true;
        }
    }

    /// Enlarges an empty pipe at the beginning of a write of more than `CAPACITY` bytes.
    fn enlarge(&self, state: &mut State, bytes: u64) {
        let takes = bytes > CAPACITY as u64 && state.bytes.is_empty() && state.most == CAPACITY;
        if takes && self.resource_group.system.large_pipes.take(1, MOST_LARGE) {
            state.most = LARGE;
        }
    }

    /// Puts in what fits of the next piece of this size, which may be nothing by now.
    fn put(
        &self,
        run: &mut SyscallContext<'_, '_>,
        transfer: &Transfer,
        left: u64,
        size: u64,
    ) -> Result<()> {
        let mut buffer = Buffer::default();
        let piece = transfer.copyin(run, size, &mut buffer)?;
        let (count, space) = {
            let mut state = lock(&self.state);
            if !state.reader {
                return Err(Errno::EPIPE.into());
            }
            let count = state.fits(left, &self.resource_group).min(piece.len());
            state.bytes.extend(&piece[..count]);
            state.readers_told += u64::from(count > 0);
            state.modified = time::now();
            (count, state.space())
        };
        transfer.consumed(run, size, count);
        if count > 0 {
            self.readers.wake();
            if space >= PIPE_BUF {
                // As above: no writer waits while there is room.
                self.writers.wake();
            }
        }
        Ok(())
    }

    /// NetBSD: `pipe_stat`; there the write end has a buffer of its own that is never used.
    fn stat(&self, side: Side) -> Stat {
        let state = lock(&self.state);
        let size = if side == Side::Read { state.bytes.len() as i64 } else { 0 };
        Stat {
            mode: abi::mode::FIFO | 0o600,
            uid: self.uid,
            gid: self.gid,
            accessed: state.accessed,
            modified: state.modified,
            changed: self.born,
            born: self.born,
            size,
            blocks: (size > 0).into(),
            block_size: state.most as i32,
            ..Stat::default()
        }
    }
}

/// An end of a pipe, as an open file.
struct PipeEnd {
    pipe: Arc<Pipe>,
    side: Side,
    /// The owner, who gets the signals of this end (`pipe_pgid`).
    owner: Owner,
}

impl FileOps for PipeEnd {
    fn read(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        match self.side {
            Side::Read => self.pipe.read(run, file, transfer),
            Side::Write => Err(Errno::EBADF.into()),
        }
    }

    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        match self.side {
            Side::Write => self.pipe.write(run, file, transfer),
            Side::Read => Err(Errno::EBADF.into()),
        }
    }

    fn stat(&self) -> Result<Stat> {
        Ok(self.pipe.stat(self.side))
    }

    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        let (held, space) = {
            let state = lock(&self.pipe.state);
            let held = state.bytes.len();
            (held, if state.both() { state.most.saturating_sub(held) } else { 0 })
        };
        // Only the read end has a buffer in use: the write end's has no bytes and no room.
        let count = match (request, self.side) {
            (ioctl::FIONREAD, Side::Read) | (ioctl::FIONWRITE, Side::Write) => held,
            (ioctl::FIONSPACE, Side::Write) => space,
            (ioctl::FIONREAD | ioctl::FIONWRITE | ioctl::FIONSPACE, _) => 0,
            (ioctl::FIONBIO | ioctl::FIOASYNC, _) => return Ok(()),
            _ => return Err(Errno::ENOTTY.into()),
        };
        run.copyout(&(count as i32).to_le_bytes(), addr)
    }

    /// NetBSD: `pipe_poll`. There each end is a pipe of its own with the other end as its peer; without a
    /// peer, every operation is ready and has no effect.
    fn poll(&self, _file: &OpenFile) -> u32 {
        let state = lock(&self.pipe.state);
        match self.side {
            _ if !state.both() => poll::IN | poll::RDNORM | poll::OUT | poll::HUP,
            Side::Read if !state.bytes.is_empty() => poll::IN | poll::RDNORM,
            Side::Write if state.room(&self.pipe.resource_group) >= PIPE_BUF => poll::OUT,
            _ => 0,
        }
    }

    /// NetBSD: `filt_piperead`, `filt_pipewrite`, which have no low-water mark. An end may be watched for
    /// what only the other end can do; that reports the end of the pipe.
    fn filter(&self, _file: &OpenFile, side: Side, _low_water: Option<i64>) -> Option<Seen> {
        let state = lock(&self.pipe.state);
        let eof = !state.both();
        let (data, least) = match side {
            Side::Read if self.side == Side::Read => (state.bytes.len(), 1),
            Side::Write if self.side == Side::Write && !eof => {
                (state.room(&self.pipe.resource_group), PIPE_BUF)
            }
            _ => (0, 1),
        };
        Some(Seen { ready: eof || data >= least, data: data as i64, eof, flags: 0 })
    }

    /// NetBSD: `pipe_kqfilter`.
    fn check_filter(&self, side: Option<Side>) -> Result<(), Errno> {
        match side {
            Some(Side::Write) if !lock(&self.pipe.state).both() => Err(Errno::EBADF),
            _ => Ok(()),
        }
    }

    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        Some(self.pipe.clone())
    }

    fn restart(&self) {
        self.pipe.queue(self.side).wake();
    }

    fn owner(&self) -> Option<&Owner> {
        Some(&self.owner)
    }

    fn close(&self) {
        self.pipe.close(self.side);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        lock(&self.state).shrink(&self.resource_group);
        self.resource_group.give_bytes(SPARE as u64);
    }
}

/// `int pipe(void)`: returns the descriptors as its two values.
fn pipe(run: &mut SyscallContext<'_, '_>) -> Answer {
    let [reader, writer] = make(run, 0)?;
    Ok([reader.into(), writer.into()])
}

/// `int pipe2(int *fildes, int flags)`
fn pipe2(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, flags) = (run.word(0), run.uint(1));
    let [reader, writer] = make(run, flags)?;
    let mut fds = [0; 8];
    fds[..4].copy_from_slice(&reader.to_le_bytes());
    fds[4..].copy_from_slice(&writer.to_le_bytes());
    run.copyout(&fds, addr)?;
    Ok([0, 0])
}

/// NetBSD: `pipe1`. As in NetBSD, `F_GETFL` returns all of the flags, close-on-exec among them.
fn make(run: &mut SyscallContext<'_, '_>, flags: u32) -> Result<[i32; 2]> {
    if flags & !(open::CLOEXEC | open::NONBLOCK | open::NOSIGPIPE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let bounds = Bounds { most: CAPACITY, low_water: 1, drained: DRAINED, listens: true };
    let pipe = Pipe::new(&run.proc.family, &run.proc.credentials(), bounds)?;
    let writer = PipeEnd { pipe: pipe.clone(), side: Side::Write, owner: Owner::default() };
    let reader = PipeEnd { pipe, side: Side::Read, owner: Owner::default() };
    // Each end reserves its number before it becomes an open file.
    run.proc.files.check_room()?;
    let reader = OpenFile::new(reader, open::FREAD | flags, &run.proc.family)?;
    run.proc.files.check_room_for_two()?;
    let writer = OpenFile::new(writer, open::FWRITE | flags, &run.proc.family)?;
    Ok(run.proc.files.insert_pair([reader, writer], flags & open::CLOEXEC != 0)?)
}
