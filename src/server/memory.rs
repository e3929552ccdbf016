//! A client's memory as a call sees it, without ever waiting for the client.
//!
//! A copy in that is not here yet is noted as an [`Ask`] and ends the run of the call; once the
//! client has answered the call runs again from the top and finds the bytes. What a call copies out
//! is written as frames into arena chunks, which go to the client as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ring::{Arena, Chunk};

use super::outbox::write;
use crate::kernel::{CopyError, UserMemory};
use crate::session::{Answer, Ask};
use crate::wire::{self, HEADER_LEN, Kind, SYSCALL_RESPONSE_LEN};

/// Bytes a run of a call may copy out before it should have them sent.
pub const ROOM: usize = 64 * 1024;

/// The longest copy in. A kernel that wants more asks in pieces.
pub const MAX_ASK: usize = 1024 * 1024;

/// Capacity that a buffer between calls may keep.
const KEEP: usize = 16 * 1024;

/// Bytes copied out to one client that it has not taken yet, whether its outbox has them or a call.
///
/// Calls of one client run side by side, and what each has copied out is owed to it at once. So each
/// looks here before it copies out more.
#[derive(Debug)]
pub struct Owing {
    bytes: AtomicUsize,
    most: usize,
}

impl Owing {
    /// Nothing yet; full at `most` bytes.
    pub fn new(most: usize) -> Owing {
        Owing { bytes: AtomicUsize::new(0), most: most.max(1) }
    }

    fn more(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes have been taken, or dropped.
    pub fn less(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.most
    }
}

/// The copies of one call.
pub struct CallMemory {
    arena: Arena,
    /// Of the client that made the call.
    owing: Option<Arc<Owing>>,
    /// Frames copied out by this run.
    out: Vec<Chunk>,
    out_len: usize,
    /// What the client has answered so far.
    answers: Vec<Answered>,
    /// What it is to be asked next.
    ask: Option<Ask>,
    /// A buffer for the next answer.
    spare: Vec<u8>,
}

struct Answered {
    ask: Ask,
    bytes: Result<Vec<u8>, ()>,
}

impl CallMemory {
    /// No copies yet.
    pub fn new(arena: Arena) -> CallMemory {
        CallMemory {
            arena,
            owing: None,
            out: Vec::new(),
            out_len: 0,
            answers: Vec::new(),
            ask: None,
            spare: Vec::new(),
        }
    }

    /// A call of this client begins.
    pub fn begin(&mut self, owing: &Arc<Owing>) {
        self.owing = Some(owing.clone());
    }

    /// Before a run.
    pub fn start_run(&mut self) {
        self.drop_out();
        self.ask = None;
    }

    /// What the last run copied out is not to be sent: it will be done again.
    pub fn drop_out(&mut self) {
        self.out.clear();
        let len = std::mem::take(&mut self.out_len);
        if let Some(owing) = &self.owing {
            owing.less(len);
        }
    }

    /// What the last run wants from the client.
    pub fn ask(&self) -> Option<Ask> {
        self.ask
    }

    /// The client's answer to the last run's ask.
    pub fn answer(&mut self, answer: Answer<'_>) {
        let Some(ask) = self.ask.take() else {
            return;
        };
        let bytes = answer.map(|bytes| {
            let mut buffer = std::mem::take(&mut self.spare);
            buffer.extend_from_slice(bytes);
            buffer
        });
        self.answers.push(Answered { ask, bytes });
    }

    /// What the last run copied out, and its length in bytes: they stay counted as owing.
    pub fn take_out(&mut self) -> (std::vec::Drain<'_, Chunk>, usize) {
        let len = std::mem::take(&mut self.out_len);
        (self.out.drain(..), len)
    }

    /// Forgets everything, for the next call.
    pub fn clear(&mut self) {
        self.start_run();
        self.forget();
        self.owing = None;
    }

    /// The answer to this ask, or notes it.
    fn answered(&mut self, ask: Ask) -> Result<&[u8], CopyError> {
        match self.answers.iter().position(|answered| answered.ask == ask) {
            Some(at) => self.answers[at].bytes.as_deref().map_err(|()| CopyError::Fault),
            None => {
                self.ask = Some(ask);
                Err(CopyError::Asked)
            }
        }
    }

    fn put(&mut self, kind: Kind, data: &[u8], addr: u64) -> Result<(), CopyError> {
        let head = wire::copyout_head(0, kind, data.len(), addr);
        // The response is to fit behind it.
        let hint = head.len() + data.len() + HEADER_LEN + SYSCALL_RESPONSE_LEN;
        write(&mut self.out, &self.arena, &head, hint);
        write(&mut self.out, &self.arena, data, data.len());
        let len = head.len() + data.len();
        self.out_len += len;
        if let Some(owing) = &self.owing {
            owing.more(len);
        }
        Ok(())
    }
}

impl UserMemory for CallMemory {
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        if buf.is_empty() {
            return Ok(());
        }
        if buf.len() > MAX_ASK {
            return Err(CopyError::Fault);
        }
        let bytes = self.answered(Ask::Copyin { addr, len: buf.len() })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError> {
        let len = buf.len().min(MAX_ASK);
        let bytes = self.answered(Ask::Copyinstr { addr, len })?;
        let end = bytes.iter().position(|&byte| byte == 0).ok_or(CopyError::TooLong)?;
        buf[..end].copy_from_slice(&bytes[..end]);
        Ok(end)
    }

    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.put(Kind::Copyout, data, addr)
    }

    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.put(Kind::Copyoutstr, data, addr)
    }

    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError> {
        let bytes = self.answered(Ask::Anonmmap { len })?;
        match wire::read_u64(bytes, 0) {
            0 => Err(CopyError::NoMemory),
            addr => Ok(addr),
        }
    }

    fn room(&self) -> usize {
        match &self.owing {
            Some(owing) if owing.is_full() => 0,
            _ => ROOM.saturating_sub(self.out_len),
        }
    }

    fn forget(&mut self) {
        for mut bytes in self.answers.drain(..).filter_map(|answered| answered.bytes.ok()) {
            if bytes.capacity() <= KEEP && bytes.capacity() > self.spare.capacity() {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}
