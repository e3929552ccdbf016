//! Tries again later the requests that the host could not serve just now.
//!
//! For want of memory (ENOMEM, ENOBUFS) a request fails that would succeed in a moment. Making it again
//! at once would spin, and giving up would lose data; so the ring makes it again after a pause, and
//! gives up after so many pauses that a second has passed without any progress.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::token::{Op, Token};
use crate::{Ring, Socket};

/// The number of tries in a row before the ring gives up.
pub(crate) const MOST_TRIES: u8 = 100;

/// The time between two tries. It is always the same, so the queue is in the order of due times.
const PAUSE: Duration = Duration::from_millis(10);

/// Requests to make again, oldest first. A request whose socket is gone when its time comes is skipped.
/// Bounded: a socket has at most a recv or the poll that follows its end, and a send or a close, here.
#[derive(Default)]
pub(crate) struct Retry {
    queue: VecDeque<(Instant, Token)>,
}

impl Retry {
    /// Returns the time at which the next request is due.
    pub fn next(&self) -> Option<Instant> {
        self.queue.front().map(|&(due, _)| due)
    }

    fn pop(&mut self, now: Instant) -> Option<Token> {
        let &(due, token) = self.queue.front()?;
        (due <= now).then(|| self.queue.pop_front())?;
        Some(token)
    }
}

impl Ring {
    /// Queues this request to be made again after a pause.
    pub(crate) fn try_later(&mut self, token: Token) {
        self.stats.put_off += 1;
        self.retry.queue.push_back((Instant::now() + PAUSE, token));
    }

    /// Makes the requests whose pause is over.
    pub(crate) fn make_delayed(&mut self) {
        if self.retry.queue.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(token) = self.retry.pop(now) {
            match token.op {
                Op::Recv => self.recv_again(token),
                Op::Send => self.send_again(token),
                Op::Close => self.close_again(token),
                Op::Wake => self.arm_waker(),
                Op::HangUp => self.watch_hang_up(Socket::of(token)),
                _ => debug_assert!(false, "{token:?} is never put off"),
            }
        }
    }
}
