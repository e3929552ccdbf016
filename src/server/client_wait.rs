//! The time that a call waits for its client: for answers, and until the client takes what is owed to it.
//!
//! In a kernel whose calls wait inside the kernel, a waiting call may hold locks, such as that of a file.
//! So a client that keeps one call waiting keeps others waiting. The time is the sum over all waits of a
//! call. Each byte that the client moves adds to it, so that long calls over slow lines come to their
//! end.

use std::time::{Duration, Instant};

use ring::Socket;

use super::shared::{Shared, Timer};
use super::timers::TimerId;

/// Bytes per second that a client has to move so that its call does not run out of time.
const RATE: usize = 64 * 1024;

/// The time that one call has left.
#[derive(Default)]
pub struct ClientWait {
    /// The time left, or `None` if the call has not waited yet.
    left: Option<Duration>,
    /// Set while the call waits: the start of the wait, and the timer that ends it.
    waiting: Option<(Instant, TimerId)>,
}

impl ClientWait {
    /// Begins a wait of the call for its client. Sets a timer if the time is bounded.
    pub fn begin(&mut self, socket: Socket, shared: &mut Shared) {
        let Some(time) = shared.answer_time else { return };
        self.end(0, shared);
        let left = *self.left.get_or_insert(time);
        let timer = shared.timers.set(shared.now + left, Timer::ClientWait(socket));
        self.waiting = Some((shared.now, timer));
    }

    /// Ends the wait. The client has moved `moved` bytes, and the call goes on.
    pub fn end(&mut self, moved: usize, shared: &mut Shared) {
        let Some((since, timer)) = self.waiting.take() else { return };
        shared.timers.cancel(timer);
        let time = shared.answer_time.unwrap_or_default();
        let left = self.left.unwrap_or(time).saturating_sub(shared.now.duration_since(since));
        self.left = Some(time.min(left + Duration::from_secs_f64(moved as f64 / RATE as f64)));
    }
}
