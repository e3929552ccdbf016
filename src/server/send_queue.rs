//! The send queue of a connection: the bytes owed to the client, in arena chunks. One part is being sent,
//! the rest waits behind it.
//!
//! One send is under way at a time. Whatever becomes owed meanwhile is collected and sent in the next
//! one, so a busy connection costs fewer sends than replies.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use ring::{Arena, Chunk};

use super::quota::ClientQuota;

/// The bytes taken from the arena at once for frames of unknown size.
const CHUNK: usize = 256;

/// Appends bytes to a stream of chunks. A new chunk has room for `hint` bytes, so that what is known to
/// follow fits in.
pub fn write(stream: &mut Vec<Chunk>, arena: &Arena, mut bytes: &[u8], hint: usize) {
    if let Some(last) = stream.last_mut() {
        let taken = last.put(bytes);
        bytes = &bytes[taken..];
    }
    while !bytes.is_empty() {
        let mut chunk = arena.chunk(hint.max(bytes.len()));
        let taken = chunk.put(bytes);
        bytes = &bytes[taken..];
        stream.push(chunk);
    }
}

/// The bytes owed to one connection.
pub struct SendQueue {
    waiting: Vec<Chunk>,
    waiting_len: usize,
    /// The bytes of the send under way; 0 if there is none.
    sending: usize,
    /// The bytes owed to all clients.
    send_queue_total: Rc<Cell<usize>>,
    /// The client's quota, which counts what calls have copied out.
    quota: Arc<ClientQuota>,
    /// The copied-out bytes that wait in this queue (`copied`), and those of the send under way.
    copied: usize,
    sending_copied: usize,
}

impl SendQueue {
    /// Creates an empty queue.
    pub fn new(quota: Arc<ClientQuota>, send_queue_total: Rc<Cell<usize>>) -> SendQueue {
        SendQueue {
            waiting: Vec::new(),
            waiting_len: 0,
            sending: 0,
            send_queue_total,
            quota,
            copied: 0,
            sending_copied: 0,
        }
    }

    /// Returns this client's use of the shared resources.
    pub fn quota(&self) -> &Arc<ClientQuota> {
        &self.quota
    }

    /// Adds a frame.
    pub fn push(&mut self, arena: &Arena, frame: &[u8]) {
        write(&mut self.waiting, arena, frame, CHUNK);
        self.more(frame.len());
    }

    /// Adds what a call has copied out: `len` bytes in chunks.
    pub fn push_chunks(&mut self, chunks: impl Iterator<Item = Chunk>, len: usize) {
        self.waiting.extend(chunks);
        self.more(len);
        self.copied += len;
    }

    /// Returns the number of bytes owed, including those of the send under way.
    pub fn unsent(&self) -> usize {
        self.waiting_len + self.sending
    }

    /// Returns `true` if a send is under way.
    pub fn is_sending(&self) -> bool {
        self.sending > 0
    }

    /// Takes what is to be sent next. Returns `None` if there is nothing, or if a send is under way.
    pub fn next(&mut self) -> Option<std::vec::Drain<'_, Chunk>> {
        if self.sending > 0 || self.waiting_len == 0 {
            return None;
        }
        self.sending = std::mem::take(&mut self.waiting_len);
        self.sending_copied = std::mem::take(&mut self.copied);
        Some(self.waiting.drain(..))
    }

    /// Notes that the send under way has ended.
    pub fn sent(&mut self) {
        let len = std::mem::take(&mut self.sending);
        self.less(len);
        self.quota.taken(std::mem::take(&mut self.sending_copied));
    }

    /// Drops everything that is not yet being sent.
    pub fn clear(&mut self) {
        self.waiting = Vec::new();
        let len = std::mem::take(&mut self.waiting_len);
        self.less(len);
        self.quota.taken(std::mem::take(&mut self.copied));
    }

    fn more(&mut self, len: usize) {
        self.waiting_len += len;
        self.send_queue_total.update(|unsent| unsent + len);
    }

    fn less(&self, len: usize) {
        self.send_queue_total.update(|unsent| unsent - len);
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.less(self.waiting_len + self.sending);
    }
}
