//! The send queue: whole frames, queued by any thread, sent by one thread at a time.

use std::thread::Thread;

use rustix::net::Shutdown;

use super::Link;

/// Capacity that an idle send queue may keep.
const KEEP: usize = 1024;

/// Frames on their way to the server.
#[derive(Default)]
pub struct SendQueue {
    queue: Vec<u8>,
    /// Frames whose end is still to be sent; taken out while a thread sends them.
    batch: Vec<u8>,
    /// Bytes ever queued and ever sent.
    queued: u64,
    sent: u64,
    /// True while some thread is sending.
    sending: bool,
    /// True if the socket had no room when a thread last tried.
    pub full: bool,
    /// True while a thread waits for room; only that thread sends until it has looked again.
    pub awaited: bool,
    /// True once sending has failed; frames queued from then on are dropped.
    failed: bool,
}

impl SendQueue {
    /// Queues the frame that `encode` appends, and returns the number of bytes ever queued.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> u64 {
        if !self.failed {
            let before = self.queue.len();
            encode(&mut self.queue);
            self.queued += (self.queue.len() - before) as u64;
        }
        self.queued
    }

    /// Returns `true` if everything is sent that had been queued when [`SendQueue::push`] returned
    /// `end`.
    pub fn is_sent(&self, end: u64) -> bool {
        self.sent >= end
    }

    /// Returns the number of bytes ever queued.
    pub fn end(&self) -> u64 {
        self.queued
    }

    /// Returns the number of bytes queued and not sent yet.
    pub fn owed(&self) -> usize {
        (self.queued - self.sent) as usize
    }

    /// Takes frames out, with the offset of the bytes to send next. Returns `None` if nothing is
    /// queued, or if another thread sends: that thread will take the bytes queued meanwhile.
    fn take(&mut self) -> Option<(Vec<u8>, usize)> {
        if self.sending || self.awaited || self.owed() == 0 {
            return None;
        }
        if self.batch.is_empty() {
            std::mem::swap(&mut self.batch, &mut self.queue);
        }
        self.sending = true;
        let left = self.owed() - self.queue.len();
        let batch = std::mem::take(&mut self.batch);
        let start = batch.len() - left;
        Some((batch, start))
    }

    /// Puts back the frames taken out, of which `sent` bytes were sent; `None` if there was no room.
    fn put_back(&mut self, batch: Vec<u8>, sent: Option<usize>) {
        self.sending = false;
        self.full = sent.is_none();
        self.sent += sent.unwrap_or(0) as u64;
        self.batch = batch;
        if self.owed() == self.queue.len() {
            self.batch.clear();
            self.batch.shrink_to(KEEP);
        }
    }

    fn fail(&mut self) {
        *self = SendQueue {
            failed: true,
            queued: self.queued,
            sent: self.queued,
            ..SendQueue::default()
        };
    }
}

impl Link {
    /// Sends the queued bytes, as far as the socket has room.
    pub(super) fn send(&self) {
        let mut state = self.state();
        let mut wake = Vec::new();
        while let Some((batch, start)) = state.send_queue.take() {
            drop(state);
            let sent = self.socket.send(&batch[start..]);
            state = self.state();
            let is_full = matches!(sent, Ok(None));
            match sent {
                Ok(sent) => state.send_queue.put_back(batch, sent),
                // Answers may still lie in the socket, so the receiver gets those and then the end.
                Err(_) => {
                    state.send_queue.fail();
                    let _ = self.socket.shutdown(Shutdown::Read);
                }
            }
            state.wake_after_sending(&mut wake);
            if is_full {
                break;
            }
        }
        drop(state);
        wake.iter().for_each(Thread::unpark);
    }
}
