//! Fifos: pipes with a name, which any number of processes may open at either end. NetBSD makes a fifo of
//! two sockets, so its bounds and its end of file differ from a pipe's.
//!
//! Source: NetBSD `sys/miscfs/fifofs/fifo_vnops.c`; mkfifo(2), open(2).

use std::sync::{Arc, Mutex};

use super::{Bounds, Pipe, State};
use crate::abi::{Stat, open, poll};
use crate::call::{Result, Stop, SyscallContext};
use crate::file::{FileOps, OpenFile, Seen};
use crate::io::Transfer;
use crate::ioctl;
use crate::limits::ResourceGroup;
use crate::memfs::Inode;
use crate::process::Credentials;
use crate::sync::lock;
use crate::wait::{Side, Waitable};
use kernel::Errno;

/// The bytes a fifo holds (`PIPSIZ`, `unpst_sendspace`).
const CAPACITY: usize = 4096;

/// The least room that lets a part of a larger write in, and that counts as writable (`sb_lowat`,
/// `MCLBYTES`).
const LOW_WATER: usize = 2048;

/// The fifo state of an inode, present while the fifo is open or being opened (`v_fifoinfo`).
#[derive(Default)]
pub(in super::super) struct Slot(Mutex<Option<Box<Fifo>>>);

/// An open fifo. Its bytes are dropped when its last end is closed.
struct Fifo {
    /// The pipe behind the fifo. Its `writer` is false from the last writer's close until a reader has seen
    /// the end of file, or there is another writer.
    pipe: Arc<Pipe>,
    readers: u64,
    writers: u64,
}

/// An end of a fifo, as an open file.
pub(in super::super) struct End {
    inode: Arc<Inode>,
    pipe: Arc<Pipe>,
    /// `FREAD` and `FWRITE`, as opened.
    access: u32,
}

impl End {
    /// Opens an end as reader, writer, or both. It counts for the other side at once, though it may have to
    /// wait for that side ([`FileOps::opened`]). The first process to open the fifo pays for what it holds.
    pub fn open(
        inode: &Arc<Inode>,
        flags: u32,
        own: &Credentials,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<End, Errno> {
        let mut slot = lock(&inode.fifo().0);
        let fifo = match &mut *slot {
            Some(fifo) => fifo,
            none => {
                let bounds = Bounds {
                    most: CAPACITY,
                    low_water: LOW_WATER,
                    drained: usize::MAX,
                    listens: false,
                };
                let pipe = Pipe::new(resource_group, own, bounds)?;
                lock(&pipe.state).reader = false;
                none.insert(Box::new(Fifo { pipe, readers: 0, writers: 0 }))
            }
        };
        {
            let mut state = lock(&fifo.pipe.state);
            if flags & open::FREAD != 0 {
                fifo.readers += 1;
                state.reader = true;
            }
            if flags & open::FWRITE != 0 {
                if fifo.writers == 0 {
                    state.writer = true;
                }
                fifo.writers += 1;
            }
        }
        let pipe = fifo.pipe.clone();
        drop(slot);
        pipe.wake();
        let access = flags & (open::FREAD | open::FWRITE);
        Ok(End { inode: inode.clone(), pipe, access })
    }

    /// Runs `at` on the counts of readers and writers, and on the state of the pipe.
    fn look<T>(&self, at: impl FnOnce(&Fifo, &mut State) -> T) -> Option<T> {
        let slot = lock(&self.inode.fifo().0);
        let fifo = slot.as_ref()?;
        let mut state = lock(&fifo.pipe.state);
        Some(at(fifo, &mut state))
    }

    /// Returns the side on which an open has to wait, if any. ENXIO for a writer that does not block.
    fn lacks(&self, blocks: bool) -> Result<Option<Side>, Errno> {
        let (reads, writes) = (self.access & open::FREAD != 0, self.access & open::FWRITE != 0);
        let lacks = self.look(|fifo, state| {
            if reads && blocks && fifo.writers == 0 && !readable(state) {
                return Ok(Some(Side::Read));
            }
            match writes && fifo.readers == 0 {
                true if blocks => Ok(Some(Side::Write)),
                true => Err(Errno::ENXIO),
                false => Ok(None),
            }
        });
        lacks.unwrap_or(Ok(None))
    }
}

/// Returns `true` if the call has not waited yet.
fn begins(run: &SyscallContext<'_, '_>) -> bool {
    run.done() == 0 && run.kept().is_none_or(|kept| kept.since == 0)
}

/// Returns `true` if a read would not wait.
fn readable(state: &State) -> bool {
    !state.bytes.is_empty() || !state.writer
}

impl FileOps for End {
    /// NetBSD: `fifo_open`.
    fn opened(&self, run: &mut SyscallContext<'_, '_>, file: &OpenFile) -> Result<()> {
        let blocks = !file.has(open::NONBLOCK);
        if let Some(side) = self.lacks(blocks)? {
            run.wait_for(self.pipe.clone(), side);
            if self.lacks(blocks)?.is_some() {
                return Err(Stop::Sleep(None));
            }
        }
        Ok(())
    }

    /// Reads. The end of file is returned once; after that a reader waits for the next writer. NetBSD:
    /// `fifo_read`, `tmpfs_fifo_read`.
    fn read(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        if begins(run) {
            self.inode.accessed();
        }
        if transfer.total == 0 {
            return Ok(());
        }
        match self.pipe.read(run, file, transfer) {
            Ok(()) if run.done() == 0 => lock(&self.pipe.state).writer = true,
            Ok(()) => {}
            Err(Stop::Errno(Errno::EAGAIN))
                if self.look(|fifo, _| fifo.writers == 0) == Some(true) => {}
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    /// NetBSD: `fifo_write`, `tmpfs_fifo_write`.
    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        if begins(run) {
            self.inode.written();
        }
        self.pipe.write(run, file, transfer)
    }

    fn stat(&self) -> Result<Stat> {
        Ok(self.inode.stat())
    }

    /// Asks the read socket, the write socket or both; of both, the write socket's answer counts. NetBSD:
    /// `fifo_ioctl`, `soo_ioctl`.
    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        let (reads, writes) = (self.access & open::FREAD != 0, self.access & open::FWRITE != 0);
        let held = lock(&self.pipe.state).bytes.len();
        let count = match request {
            ioctl::FIONREAD if reads && !writes => held,
            ioctl::FIONSPACE => CAPACITY.saturating_sub(if writes { held } else { 0 }),
            ioctl::FIONREAD | ioctl::FIONWRITE | ioctl::SIOCATMARK => 0,
            ioctl::FIONBIO | ioctl::FIOASYNC => return Ok(()),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        run.copyout(&(count as i32).to_le_bytes(), addr)
    }

    /// Returns the events of both sides, however the fifo was opened. NetBSD: `fifo_poll`.
    fn poll(&self, _file: &OpenFile) -> u32 {
        let state = lock(&self.pipe.state);
        let mut events = 0;
        if readable(&state) {
            events |= poll::IN | poll::RDNORM;
        }
        if state.room(&self.pipe.resource_group) >= LOW_WATER || !state.reader {
            events |= poll::OUT;
        }
        events
    }

    /// NetBSD: `fifo_kqfilter`, except for writing, for which NetBSD looks at the wrong one of its two
    /// sockets.
    fn filter(&self, _file: &OpenFile, side: Side, _low_water: Option<i64>) -> Option<Seen> {
        let state = lock(&self.pipe.state);
        let (data, eof, least) = match side {
            Side::Read => (state.bytes.len(), !state.writer, 1),
            Side::Write => (state.room(&self.pipe.resource_group), !state.reader, LOW_WATER),
        };
        Some(Seen { ready: eof || data >= least, data: data as i64, eof, flags: 0 })
    }

    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        Some(self.pipe.clone())
    }

    fn restart(&self) {
        self.pipe.wake();
    }

    /// NetBSD: `fifo_close`.
    fn close(&self) {
        let gone = {
            let mut slot = lock(&self.inode.fifo().0);
            let Some(fifo) = &mut *slot else { return };
            let mut state = lock(&fifo.pipe.state);
            if self.access & open::FREAD != 0 {
                fifo.readers -= 1;
                state.reader = fifo.readers > 0;
            }
            if self.access & open::FWRITE != 0 {
                fifo.writers -= 1;
                state.writer &= fifo.writers > 0;
            }
            drop(state);
            if fifo.readers + fifo.writers == 0 { slot.take() } else { None }
        };
        self.pipe.wake();
        drop(gone);
    }

    fn inode(&self) -> Option<&Arc<Inode>> {
        Some(&self.inode)
    }
}
