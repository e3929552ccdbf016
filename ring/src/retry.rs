//! Trying again later what the host could not do just now.
//!
//! For want of memory (ENOMEM, ENOBUFS) a request fails that would succeed in a moment. To make it again
//! at once is to spin, and to give up loses what is owed; so it is made again after a pause, and given
//! up after so many pauses that a second has passed without any progress.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::token::{Op, Token};
use crate::{Ring, Socket};

/// How often in a row something is tried again.
pub(crate) const MOST_TRIES: u8 = 100;

/// The time between two tries. It is always the same, so who comes first is due first.
const PAUSE: Duration = Duration::from_millis(10);

/// Requests to make again, oldest first. What is gone when its time comes is passed over. Bounded: a
/// socket has at most a recv or the poll that follows its end, and a send or a close, here.
#[derive(Default)]
pub(crate) struct Retry {
    queue: VecDeque<(Instant, Token)>,
}

impl Retry {
    /// When the next is due.
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
    /// Makes this request again after a pause.
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
