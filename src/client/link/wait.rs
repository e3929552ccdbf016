//! Waiting for an answer: as the receiver, or parked while another thread receives.

use std::time::{Duration, Instant};

use super::Link;
use super::receive::Receiving;
use super::state::Answer;
use crate::client::error::Lost;

/// How long a thread is ready to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// As long as the connection lives.
    Forever,
}

impl Patience {
    /// From now on; for ever without a limit, or with one too long to count.
    pub fn from_timeout(timeout: Option<Duration>) -> Patience {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        deadline.map_or(Patience::Forever, Patience::Until)
    }

    /// What is left of it; `None` is for ever.
    pub fn left(self) -> Option<Duration> {
        match self {
            Patience::None => Some(Duration::ZERO),
            Patience::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            Patience::Forever => None,
        }
    }

    pub fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// The receiver's role. Dropping it gives it to the first of those parked; or, where the memory has
/// panicked and the rest of what was read is gone, ends the connection.
struct Role<'a>(&'a Link);

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiving = false;
        let next = state.next_receiver();
        drop(state);
        if let Some(next) = next {
            next.unpark();
        }
        if std::thread::panicking() {
            self.0.lose(Lost::Disconnected);
        }
    }
}

/// What a thread that waits is to do next.
enum Turn<'a> {
    Over(Option<Answer>),
    Receive(Role<'a>),
    Park,
}

impl Link {
    /// The answer to a request, or `None` when patience ends first. Whoever waits without patience
    /// still reads what is there.
    pub fn wait(&self, reqno: u64, patience: Patience) -> Option<Answer> {
        self.flush(None, patience);
        let mut last_turn = false;
        loop {
            match self.turn(reqno, last_turn) {
                Turn::Over(answer) => {
                    self.deliver_signals();
                    return answer;
                }
                Turn::Receive(role) => {
                    self.receive_until(Some(reqno), patience);
                    drop(role);
                    self.deliver_signals();
                }
                Turn::Park => match patience.left() {
                    Some(Duration::ZERO) => {}
                    Some(left) => std::thread::park_timeout(left),
                    None => std::thread::park(),
                },
            }
            last_turn = patience.is_over();
        }
    }

    /// Decides under the lock; wakes the next receiver where this thread leaves.
    fn turn(&self, reqno: u64, last: bool) -> Turn<'_> {
        let mut state = self.state();
        let answer = state.take(reqno);
        let (turn, wake) = if answer.is_some() || last {
            (Turn::Over(answer), state.delist(reqno))
        } else if state.receiving {
            state.enlist(reqno);
            (Turn::Park, None)
        } else {
            let _ = state.delist(reqno);
            state.receiving = true;
            (Turn::Receive(Role(self)), None)
        };
        drop(state);
        if let Some(next) = wake {
            next.unpark();
        }
        turn
    }

    /// Receives until that answer is here, a signal is to be delivered, the connection ends or
    /// patience does. For whoever has the role.
    fn receive_until(&self, reqno: Option<u64>, patience: Patience) {
        let mut receiving = self.receiving();
        loop {
            if let Err(lost) = self.read_once(&mut receiving, patience) {
                self.lose(lost);
                return;
            }
            self.flush(Some(&mut receiving), patience);
            let state = self.state();
            let settled = reqno.is_some_and(|reqno| state.is_settled(reqno));
            if settled || !state.signals.is_empty() || state.lost.is_some() {
                return;
            }
            drop(state);
            if patience.is_over() {
                return;
            }
        }
    }

    /// Runs `body` as the receiver, or returns `None` if another thread is.
    pub fn as_receiver<T>(&self, body: impl FnOnce(&mut Receiving) -> T) -> Option<T> {
        let mut state = self.state();
        if state.receiving {
            return None;
        }
        state.receiving = true;
        drop(state);
        let role = Role(self);
        let result = body(&mut self.receiving());
        drop(role);
        Some(result)
    }

    /// Moves what can be moved without waiting, both ways, and returns how many frames came.
    pub fn pump(&self) -> Result<usize, Lost> {
        let moved = self.as_receiver(|receiving| {
            self.prepare(receiving, Patience::None)?;
            self.flush(Some(receiving), Patience::None);
            let read = self.read_all(receiving);
            self.flush(Some(receiving), Patience::None);
            read
        });
        let moved = moved.unwrap_or(Ok(0));
        if let Err(lost) = &moved {
            self.lose(lost.clone());
        }
        self.deliver_signals();
        match self.lost() {
            Some(lost) => Err(lost),
            None => moved,
        }
    }
}
