//! A client's memory as a call sees it.
//!
//! In a kernel whose calls restart, nothing here waits for the client. A copy in that has no bytes yet is
//! noted as a [`CopyRequest`] and ends the run of the call. Once the client has answered, the call runs
//! again from the top and finds the bytes. In other kernels, the copy waits on the worker's thread at a
//! [`ReplySlot`], and the worker gives its core away meanwhile.
//!
//! The bytes that a call copies out are written as frames into arena chunks, which are sent to the client
//! as they are.

use std::sync::{Arc, mpsc};

use ring::{Arena, Chunk, Socket};

use super::holding::{ANSWER_COST, Holding, answer_cost};
use super::mailbox::{Mailbox, Message, Out};
use super::prefetch::Prefetch;
use super::quota::ClientQuota;
use super::reply_slot::ReplySlot;
use super::send_queue::write;
use crate::scheduler;
use kernel::{CopyError, UserMemory};
use rumpsp::session::{Answer, CallKey, CopyRequest};
use rumpsp::wire::{self, HEADER_LEN, Kind, SYSCALL_RESPONSE_LEN};

/// The number of bytes that a run of a call may copy out before it should have them sent.
pub const ROOM: usize = 64 * 1024;

/// The longest copy in. A kernel that wants more asks in pieces.
pub const MAX_ASK: usize = 1024 * 1024;

/// The capacity that a buffer may keep between calls, and while its call sleeps.
const KEEP: usize = 4 * 1024;
const KEEP_ASLEEP: usize = 256;

/// The copies of one call.
pub struct CallMemory {
    arena: Arena,
    /// The memory that the call takes of its client's quota.
    holding: Holding,
    /// The frames that this run has copied out.
    out: Vec<Chunk>,
    out_len: usize,
    /// The client's answers so far.
    answers: Vec<Answered>,
    /// The next question to the client.
    ask: Option<CopyRequest>,
    /// A buffer for the next answer.
    spare: Vec<u8>,
    /// The means to wait for the client on the thread, or `None` if copies do not wait there.
    waits: Option<Waits>,
    prefetch: Prefetch,
}

/// The means of a copy to wait for its client.
struct Waits {
    mailbox: Arc<Mailbox>,
    reply_slot: Arc<ReplySlot>,
    socket: Socket,
    key: CallKey,
}

/// The answer to whether a client may be asked: see [`CallMemory::may_ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayAsk {
    Yes,
    /// Not yet.
    Later,
    /// Not yet, and the call then runs from the top and asks for so many bytes.
    FromTheTop {
        bytes: usize,
    },
}

struct Answered {
    ask: CopyRequest,
    bytes: Result<Vec<u8>, ()>,
}

impl CallMemory {
    /// Creates the memory of a call that has made no copies.
    pub fn new(arena: Arena) -> CallMemory {
        CallMemory {
            arena,
            holding: Holding::default(),
            out: Vec::new(),
            out_len: 0,
            answers: Vec::new(),
            ask: None,
            spare: Vec::new(),
            waits: None,
            prefetch: Prefetch::default(),
        }
    }

    /// Begins a call of this client.
    pub fn begin(&mut self, quota: &Arc<ClientQuota>) {
        self.holding.begin(quota);
    }

    /// Returns the client's use of the shared resources.
    pub fn quota(&self) -> Option<&Arc<ClientQuota>> {
        self.holding.quota()
    }

    /// Notes that the call is going to copy in this range, if it copies in at all.
    pub fn expect(&mut self, addr: u64, len: u64) {
        self.prefetch.expect(addr, len);
    }

    /// Returns what to ask the client for before the call runs: the range that the call is expected to
    /// copy in, unless it is longer than one question may be. So a client is never asked for an absurd
    /// length.
    pub fn ask_ahead(&mut self) -> Option<CopyRequest> {
        let (addr, len) = self.prefetch.whole().filter(|whole| self.holding.rest(whole.1))?;
        self.ask = Some(CopyRequest::Copyin { addr, len });
        self.ask
    }

    /// Returns `true` if the call is expected to copy in a range that could be asked for ahead.
    pub fn expects(&self) -> bool {
        self.prefetch.whole().is_some()
    }

    /// Returns `true` if the call has copied in what it was expected to.
    pub fn has_copied_in(&self) -> bool {
        self.prefetch.was_used()
    }

    /// Makes the copies of this call wait on the thread that makes them, at `reply_slot`.
    pub fn wait_at(
        &mut self,
        reply_slot: Arc<ReplySlot>,
        mailbox: Arc<Mailbox>,
        socket: Socket,
        key: CallKey,
    ) {
        self.waits = Some(Waits { mailbox, reply_slot, socket, key });
    }

    /// Prepares for a run of the call.
    pub fn start_run(&mut self) {
        self.drop_out();
        self.ask = None;
    }

    /// Discards what the last run copied out: the call will do it again.
    pub fn drop_out(&mut self) {
        self.out.clear();
        let len = std::mem::take(&mut self.out_len);
        if let Some(quota) = self.holding.quota() {
            quota.taken(len);
        }
    }

    /// Prepares for the call's sleep, which may be long. If the client's calls hold too much already,
    /// this call forgets its answers and asks again when it wakes.
    pub fn fall_asleep(&mut self) {
        if !self.holding.fall_asleep() {
            self.start_again();
        }
        if self.spare.capacity() > KEEP_ASLEEP {
            self.spare = Vec::new();
        }
    }

    /// Decides if the client may be asked for what the last run wants. If not, the call has to wait:
    /// until the client may be asked or, if the call had to release what it holds, until it may [ask
    /// again](CallMemory::ask_again).
    pub fn may_ask(&mut self, others_wait: bool) -> MayAsk {
        let Some(ask) = self.ask else {
            return MayAsk::Yes;
        };
        if self.holding.ask(answer_cost(&ask), others_wait) {
            return MayAsk::Yes;
        }
        if self.answers.is_empty() {
            return MayAsk::Later;
        }
        let bytes = self.holding.counted() + answer_cost(&ask);
        self.start_again();
        MayAsk::FromTheTop { bytes }
    }

    /// Returns `true` if this call, which had to release `bytes`, may ask for them again.
    pub fn ask_again(&mut self, bytes: usize) -> bool {
        self.holding.ask_again(bytes)
    }

    /// Forgets what the client has answered. The call asks again.
    fn start_again(&mut self) {
        self.forget();
        (self.spare, self.ask) = (Vec::new(), None);
    }

    /// Returns what the last run wants from the client.
    pub fn ask(&self) -> Option<CopyRequest> {
        self.ask
    }

    /// Takes the client's answer to the last run's question.
    pub fn answer(&mut self, answer: Answer<'_>) {
        let Some(ask) = self.ask.take() else {
            return;
        };
        let bytes = answer.map(|bytes| {
            let mut buffer = std::mem::take(&mut self.spare);
            bytes.move_into(&mut buffer);
            buffer
        });
        match (ask, bytes) {
            // If the bytes cannot be had ahead, the call asks for them again when it wants them.
            (CopyRequest::Copyin { addr, .. }, bytes) if self.prefetch.is_in(addr) => {
                if let Ok(bytes) = bytes {
                    self.spare = self.prefetch.keep(addr, bytes);
                    self.holding.set_kept(self.spare.capacity() + self.prefetch.capacity());
                }
            }
            (ask, bytes) => {
                let taken = bytes.as_ref().map_or(0, Vec::capacity) + ANSWER_COST;
                self.holding.set_kept(self.holding.kept() + taken);
                self.answers.push(Answered { ask, bytes });
            }
        }
    }

    /// Takes what the last run copied out, and its length in bytes. The bytes stay counted as copied.
    pub fn take_out(&mut self) -> (std::vec::Drain<'_, Chunk>, usize) {
        let len = std::mem::take(&mut self.out_len);
        (self.out.drain(..), len)
    }

    /// Forgets everything, for the next call.
    pub fn clear(&mut self) {
        self.waits = None;
        self.prefetch.clear();
        self.start_run();
        self.forget();
        if self.spare.capacity() > KEEP {
            self.spare = Vec::new();
        }
        self.holding.end();
    }

    /// Returns the answer to this question. If there is none yet, notes or asks the question.
    fn answered(&mut self, ask: CopyRequest) -> Result<&[u8], CopyError> {
        if self.waits.is_some() {
            return self.wait_for(ask);
        }
        match self.answers.iter().position(|answered| answered.ask == ask) {
            Some(at) => self.answers[at].bytes.as_deref().map_err(|()| CopyError::Fault),
            None => {
                self.ask = Some(ask);
                Err(CopyError::Asked)
            }
        }
    }

    /// Asks the client and waits for its answer. What was copied out before is sent first, because the
    /// kernel may rely on that order.
    fn wait_for(&mut self, ask: CopyRequest) -> Result<&[u8], CopyError> {
        let out = self.take_all_out();
        let waits = self.waits.as_ref().expect("the caller has looked");
        let (socket, key) = (waits.socket, waits.key);
        waits.reply_slot.prepare(std::mem::take(&mut self.spare));
        waits.mailbox.post(Message::Asks { socket, key, ask, out });
        let answer = scheduler::blocking(|| waits.reply_slot.wait());
        self.holding.was_asked(answer_cost(&ask));
        match answer {
            Ok(bytes) => {
                self.holding.set_kept(bytes.capacity() + self.prefetch.capacity());
                self.spare = bytes;
                Ok(&self.spare)
            }
            Err(()) => {
                self.used();
                Err(CopyError::Fault)
            }
        }
    }

    /// Notes that the bytes that were waited for have been used, so that others may be asked for.
    fn used(&mut self) {
        if self.waits.is_none() {
            return;
        }
        if self.spare.capacity() > KEEP {
            self.spare = Vec::new();
        }
        self.holding.set_kept(self.spare.capacity() + self.prefetch.capacity());
        self.holding.end_asked();
        if let (Some(quota), Some(waits)) = (self.holding.quota(), &self.waits)
            && quota.has_room()
        {
            waits.mailbox.post(Message::HasRoom(waits.socket));
        }
    }

    /// Copies in from the prefetched bytes, or fetches the bytes and those that will be needed after
    /// them.
    fn copyin_ahead(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        if let Some(bytes) = self.prefetch.get(addr, buf.len()) {
            buf.copy_from_slice(bytes);
            self.prefetch.note_use(addr);
            return Ok(());
        }
        self.prefetch.note_use(addr);
        let mut worth = self.prefetch.worth(addr, buf.len());
        if worth > buf.len() && !self.holding.rest(worth) {
            worth = buf.len();
        }
        match self.wait_for(CopyRequest::Copyin { addr, len: worth }) {
            Ok(bytes) => buf.copy_from_slice(&bytes[..buf.len()]),
            // The client may have only some of the range, so it is asked for what is needed now.
            Err(_) if worth > buf.len() => {
                let bytes = self.wait_for(CopyRequest::Copyin { addr, len: buf.len() })?;
                buf.copy_from_slice(bytes);
            }
            Err(error) => return Err(error),
        }
        if self.spare.len() > buf.len() {
            let bytes = std::mem::take(&mut self.spare);
            self.spare = self.prefetch.keep(addr, bytes);
        }
        self.used();
        Ok(())
    }

    /// Sends what was copied out, and waits until the client has taken enough of it.
    fn flush(&mut self) -> Result<(), CopyError> {
        let out = self.take_all_out();
        let Some(waits) = &self.waits else {
            return Ok(());
        };
        let (socket, key) = (waits.socket, waits.key);
        waits.reply_slot.prepare(Vec::new());
        waits.mailbox.post(Message::Flushes { socket, key, out });
        scheduler::blocking(|| waits.reply_slot.wait()).map(drop).map_err(|()| CopyError::Fault)
    }

    fn take_all_out(&mut self) -> Out {
        let (chunks, len) = self.take_out();
        Out { chunks: chunks.collect(), len }
    }

    fn put(&mut self, kind: Kind, data: &[u8], addr: u64) -> Result<(), CopyError> {
        let head = wire::copyout_head(0, kind, data.len(), addr);
        // The response is to fit behind the data.
        let hint = head.len() + data.len() + HEADER_LEN + SYSCALL_RESPONSE_LEN;
        write(&mut self.out, &self.arena, &head, hint);
        write(&mut self.out, &self.arena, data, data.len());
        let len = head.len() + data.len();
        self.out_len += len;
        if let Some(quota) = self.holding.quota() {
            quota.copied(len);
        }
        Ok(())
    }
}

/// Returns an error for a null pointer. A client is not asked for it, because a stock client would not
/// survive that. NetBSD: `sys/rump/librump/rumpkern/rumpcopy.c`.
fn not_null(addr: u64) -> Result<(), CopyError> {
    if addr == 0 { Err(CopyError::Fault) } else { Ok(()) }
}

impl UserMemory for CallMemory {
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        if buf.is_empty() {
            return Ok(());
        }
        not_null(addr)?;
        if buf.len() > MAX_ASK {
            return Err(CopyError::Fault);
        }
        if self.waits.is_some() {
            return self.copyin_ahead(addr, buf);
        }
        let bytes = self.answered(CopyRequest::Copyin { addr, len: buf.len() })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn is_here(&self, addr: u64, len: usize) -> bool {
        self.prefetch.get(addr, len).is_some()
    }

    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError> {
        not_null(addr)?;
        let len = buf.len().min(MAX_ASK);
        let bytes = self.answered(CopyRequest::Copyinstr { addr, len })?;
        let end = bytes.iter().position(|&byte| byte == 0);
        if let Some(end) = end {
            buf[..end].copy_from_slice(&bytes[..end]);
        }
        self.used();
        end.ok_or(CopyError::TooLong)
    }

    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        not_null(addr)?;
        self.put(Kind::Copyout, data, addr)
    }

    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        not_null(addr)?;
        self.put(Kind::Copyoutstr, data, addr)
    }

    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError> {
        let bytes = self.answered(CopyRequest::Anonmmap { len })?;
        let addr = wire::read_u64(bytes, 0);
        self.used();
        match addr {
            0 => Err(CopyError::NoMemory),
            addr => Ok(addr),
        }
    }

    fn room(&self) -> usize {
        match self.holding.quota() {
            Some(quota) if quota.has_enough_unsent() => 0,
            _ => ROOM.saturating_sub(self.out_len),
        }
    }

    fn wait_for_room(&mut self) -> Result<(), CopyError> {
        if self.waits.is_some() && self.room() == 0 {
            self.flush()?;
        }
        Ok(())
    }

    fn halted(&mut self) {
        let out = self.take_all_out();
        if let Some(Waits { mailbox, socket, key, .. }) = &self.waits {
            let (done, is_out) = mpsc::channel();
            mailbox.post(Message::Halted { socket: *socket, key: *key, out, done });
            #[cfg(test)]
            super::simulator::wait_until(|| is_out.try_recv() != Err(mpsc::TryRecvError::Empty));
            // An error says that the server has ended, which is as good.
            let _ = is_out.recv();
        }
    }

    fn forget(&mut self) {
        self.holding.let_go();
        for mut bytes in self.answers.drain(..).filter_map(|answered| answered.bytes.ok()) {
            if bytes.capacity() <= KEEP && bytes.capacity() > self.spare.capacity() {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}
