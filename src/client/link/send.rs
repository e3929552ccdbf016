//! The writer's work: whole frames, queued by any thread, written by one.
//!
//! The socket is in blocking mode with a short timeout for writes ([`PATIENCE`]), or in non-blocking
//! mode while somebody polls. Either way a full socket shows as "not now". The writer then reads,
//! if nobody else does, and tries again: the server may be waiting for us to read before it reads.
//! What its patience does not suffice for stays in the outbox, for the next who writes; the receiver
//! looks for it once in a while ([`TICK`](super::receive::TICK)).

use std::io;
use std::net::Shutdown;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::receive::Receiving;
use super::{Link, Patience};
use crate::client::socket::is_not_now;

/// How long one write may block before its thread looks whether it should read.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// The longest pause between two attempts when neither direction moves.
const MAX_PAUSE: Duration = Duration::from_millis(1);

/// Capacity that an idle outbox may keep.
const KEEP: usize = 1024;

/// Frames on their way to the server.
#[derive(Default)]
pub struct Outbox {
    queue: Vec<u8>,
    /// Bytes the writer has taken from the queue and not written yet.
    in_hand: usize,
    /// Whether some thread writes.
    writing: bool,
    /// Writing failed; what is queued from here on is dropped.
    failed: bool,
}

impl Outbox {
    fn owed(&self) -> usize {
        self.queue.len() + self.in_hand
    }
}

impl Link {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame.
    pub(super) fn queue(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut outbox = self.outbox();
        if !outbox.failed {
            encode(&mut outbox.queue);
        }
    }

    /// Appends frames that are encoded already and returns how many bytes are owed now.
    pub(super) fn queue_all(&self, frames: &mut Vec<u8>) -> usize {
        let mut outbox = self.outbox();
        if outbox.failed {
            frames.clear();
        } else if outbox.queue.is_empty() {
            std::mem::swap(&mut outbox.queue, frames);
        } else {
            outbox.queue.append(frames);
        }
        outbox.owed()
    }

    /// Bytes queued and not written yet.
    pub fn owed(&self) -> usize {
        self.outbox().owed()
    }

    /// Writes what is queued, unless another thread is writing: that one will. `receiving` is given
    /// by whoever has the receiver's role.
    pub fn flush(&self, mut receiving: Option<&mut Receiving>, patience: Patience) {
        let mut outbox = self.outbox();
        if outbox.writing || outbox.queue.is_empty() {
            return;
        }
        outbox.writing = true;
        let mut writer = Writer { link: self, batch: Vec::new(), at: 0, given_up: false };
        writer.refill(&mut outbox);
        drop(outbox);
        let mut pause = Duration::ZERO;
        loop {
            match self.socket.write(&writer.batch[writer.at..]) {
                Ok(n) if n > 0 => {
                    pause = Duration::ZERO;
                    writer.at += n;
                    if writer.at == writer.batch.len() && !writer.next_batch() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_not_now(&error) => {
                    if patience.is_over() {
                        return;
                    }
                    if self.read_instead(receiving.as_deref_mut()) {
                        pause = Duration::ZERO;
                    } else {
                        std::thread::sleep(pause);
                        pause = (pause * 2).clamp(MAX_PAUSE / 50, MAX_PAUSE);
                    }
                }
                Ok(_) | Err(_) => return writer.fail(),
            }
        }
    }

    /// Reads what is there, while the socket takes no bytes. Whether anything came.
    fn read_instead(&self, receiving: Option<&mut Receiving>) -> bool {
        let read = match receiving {
            Some(receiving) => Some(self.read_once(receiving, Patience::None)),
            None => self.as_receiver(|receiving| self.read_once(receiving, Patience::None)),
        };
        match read {
            Some(Err(lost)) => {
                self.lose(lost);
                true
            }
            Some(Ok(came)) => came.bytes > 0,
            None => false,
        }
    }
}

/// The writer's role. Dropping it before all is written puts the rest back, in front of what came
/// since.
struct Writer<'a> {
    link: &'a Link,
    batch: Vec<u8>,
    at: usize,
    given_up: bool,
}

impl Writer<'_> {
    /// Takes the queue; the written batch becomes the new, empty one.
    fn refill(&mut self, outbox: &mut Outbox) {
        self.batch.clear();
        self.batch.shrink_to(KEEP);
        self.at = 0;
        std::mem::swap(&mut self.batch, &mut outbox.queue);
        outbox.in_hand = self.batch.len();
    }

    /// Whether there is another batch. If not, the role is given up under the same lock: what is
    /// queued later finds nobody writing.
    fn next_batch(&mut self) -> bool {
        let mut outbox = self.link.outbox();
        let more = !outbox.queue.is_empty();
        self.refill(&mut outbox);
        if !more {
            std::mem::swap(&mut self.batch, &mut outbox.queue);
            outbox.writing = false;
            self.given_up = true;
        }
        more
    }

    /// Nothing can be written any more. Answers may still lie in the socket, so the readers get those
    /// and then the end of the stream.
    fn fail(mut self) {
        let mut outbox = self.link.outbox();
        *outbox = Outbox { failed: true, ..Outbox::default() };
        drop(outbox);
        self.given_up = true;
        let _ = self.link.socket.shutdown(Shutdown::Read);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if self.given_up {
            return;
        }
        let mut outbox = self.link.outbox();
        self.batch.drain(..self.at);
        self.batch.append(&mut outbox.queue);
        outbox.queue = std::mem::take(&mut self.batch);
        outbox.in_hand = 0;
        outbox.writing = false;
    }
}
