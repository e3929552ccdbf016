//! Waiting: as the receiver, for room in the socket, or parked while other threads do those two.

use rustix::event::PollFlags;

use super::state::{Answer, Goal, Receiver};
use super::{Asked, Link};
use crate::error::Lost;
use crate::patience::Patience;

/// The receiver's role. Dropping it gives the role to the first parked thread; or ends the connection,
/// if the memory has panicked and the rest of the bytes read is gone.
struct Role<'a>(&'a Link);

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiver = Receiver::Nobody;
        self.0.wake_next(state);
        if std::thread::panicking() {
            self.0.lose(Lost::Disconnected);
        }
    }
}

/// The next step of a thread that waits.
enum Turn<'a> {
    Over,
    Receive(Role<'a>),
    /// The thread waits for room in the socket while the receiver takes the nap of this number.
    AwaitRoom(u64),
    Park,
}

impl Link {
    /// Returns the answer to a request, or `None` when patience ends first. A thread without patience
    /// still receives the bytes that are there.
    pub fn wait(&self, asked: Asked, patience: Patience) -> Option<Answer> {
        self.reach(Goal { reqno: Some(asked.reqno), end: asked.end }, patience);
        self.state().take(asked.reqno)
    }

    /// Sends the queued bytes up to `end`, and receives while the socket is full.
    pub fn flush(&self, end: u64, patience: Patience) {
        self.reach(Goal { reqno: None, end }, patience);
    }

    /// Sends and receives until the goal is reached or patience ends.
    fn reach(&self, goal: Goal, patience: Patience) {
        let mut last_turn = false;
        let mut ended_nap = None;
        loop {
            self.send();
            match self.turn(goal, last_turn, ended_nap) {
                Turn::Over => return self.deliver_signals(),
                Turn::Receive(role) => {
                    self.receive_until(goal, patience);
                    drop(role);
                    self.deliver_signals();
                }
                Turn::AwaitRoom(nap) => {
                    let came = self.socket.poll(PollFlags::IN | PollFlags::OUT, patience);
                    let is_ended = !came.difference(PollFlags::OUT).is_empty();
                    ended_nap = is_ended.then_some(nap);
                    self.state().send_queue.awaited = false;
                }
                Turn::Park => match patience.left() {
                    Some(left) => std::thread::park_timeout(left),
                    None => std::thread::park(),
                },
            }
            last_turn = patience.is_over();
        }
    }

    /// Decides the next step under the lock, and wakes a thread for a duty that no thread has then.
    fn turn(&self, goal: Goal, last: bool, ended_nap: Option<u64>) -> Turn<'_> {
        let mut state = self.state();
        state.delist();
        let turn = match state.receiver {
            _ if last || state.is_reached(goal) => Turn::Over,
            Receiver::Nobody if !state.is_being_sent(goal) => {
                state.receiver = Receiver::Alert;
                return Turn::Receive(Role(self));
            }
            Receiver::Napping(nap) if state.may_await_room(goal) && ended_nap != Some(nap) => {
                state.send_queue.awaited = true;
                return Turn::AwaitRoom(nap);
            }
            _ => Turn::Park,
        };
        if let Turn::Park = turn {
            state.enlist(goal);
            // The receiver's nap is ending: the receiver will look at the queue itself.
            if ended_nap.is_some_and(|nap| state.receiver == Receiver::Napping(nap)) {
                return turn;
            }
        }
        self.wake_next(state);
        turn
    }

    /// Receives until the goal is reached, a signal is to be delivered, or patience ends. The caller
    /// has the receiver's role.
    fn receive_until(&self, goal: Goal, patience: Patience) {
        let mut rx = self.receiving();
        loop {
            let mut state = self.state();
            if state.is_reached(goal) || !state.signals.is_empty() {
                return;
            }
            let is_alert = state.look(goal);
            drop(state);
            let received = if is_alert {
                self.socket.poll(PollFlags::IN | PollFlags::OUT, patience);
                self.receive(&mut rx, Patience::None)
            } else {
                self.receive(&mut rx, patience)
            };
            if let Err(lost) = received {
                return self.lose(lost);
            }
            self.send();
            if patience.is_over() {
                return;
            }
        }
    }

    /// Takes the receiver's role, unless another thread has it.
    fn role(&self) -> Option<Role<'_>> {
        let mut state = self.state();
        let is_free = state.receiver == Receiver::Nobody;
        is_free.then(|| {
            state.receiver = Receiver::Alert;
            Role(self)
        })
    }

    /// Sends and receives without waiting, and returns the number of frames that came.
    pub fn pump(&self) -> Result<usize, Lost> {
        self.send();
        let received = match self.role() {
            Some(_role) => self.receive_all(&mut self.receiving()),
            None => Ok(0),
        };
        if let Err(lost) = &received {
            self.lose(lost.clone());
        }
        self.send();
        self.wake_next(self.state());
        self.deliver_signals();
        self.lost().map_or(received, Err)
    }
}
