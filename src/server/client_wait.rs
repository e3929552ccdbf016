//! How long a call waits for its client: to answer what it is asked for, and to take what is owed to it.
//!
//! On a kernel whose calls wait inside it they may do so with its locks taken, those of a file for one, so a
//! client that keeps a call waiting keeps others waiting. The time is a call's for all of its waits together;
//! what the client moves meanwhile gives it more, so that long calls over slow lines come to their end.

use std::time::{Duration, Instant};

use ring::Socket;

use super::shared::{Shared, Timer};
use super::timers::TimerId;

/// Bytes that a client has to move in a second if it is not to run out of time.
const RATE: usize = 64 * 1024;

/// The time that one call has left.
#[derive(Default)]
pub struct ClientWait {
    /// `None` if it has not waited yet.
    left: Option<Duration>,
    /// It waits: since when, and what ends that.
    waiting: Option<(Instant, TimerId)>,
}

impl ClientWait {
    /// The call begins to wait for its client. Sets a timer, if that is bounded.
    pub fn begin(&mut self, socket: Socket, shared: &mut Shared) {
        let Some(time) = shared.answer_time else { return };
        self.end(0, shared);
        let left = *self.left.get_or_insert(time);
        let timer = shared.timers.set(shared.now + left, Timer::ClientWait(socket));
        self.waiting = Some((shared.now, timer));
    }

    /// The client has moved so many bytes, and the call goes on.
    pub fn end(&mut self, moved: usize, shared: &mut Shared) {
        let Some((since, timer)) = self.waiting.take() else { return };
        shared.timers.cancel(timer);
        let time = shared.answer_time.unwrap_or_default();
        let left = self.left.unwrap_or(time).saturating_sub(shared.now.duration_since(since));
        self.left = Some(time.min(left + Duration::from_secs_f64(moved as f64 / RATE as f64)));
    }
}
