//! Where a worker's thread in a call and the submission thread meet: one waits for what the other
//! brings.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};
use rumpsp::session::Answer;

/// A place for one answer at a time.
#[derive(Default)]
pub struct ReplySlot {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
enum State {
    /// Nobody waits.
    #[default]
    Idle,
    /// The thread waits, or is about to; the buffer is for the answer.
    Waiting(Vec<u8>),
    Answered(Result<Vec<u8>, ()>),
}

impl ReplySlot {
    /// The thread will wait. To be called before anybody is told to bring something.
    pub fn prepare(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        *self.lock() = State::Waiting(buffer);
    }

    /// Waits for what was asked for.
    pub fn wait(&self) -> Result<Vec<u8>, ()> {
        #[cfg(test)]
        super::simulator::wait_until(|| matches!(*self.lock(), State::Answered(_)));
        let mut state = self.lock();
        loop {
            match std::mem::take(&mut *state) {
                State::Answered(answer) => return answer,
                waiting => *state = waiting,
            }
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Brings the answer, and gives it back if the thread is not waiting for one.
    pub fn answer<'a>(&self, answer: Answer<'a>) -> Option<Answer<'a>> {
        let mut state = self.lock();
        let State::Waiting(buffer) = &mut *state else {
            return Some(answer);
        };
        let mut buffer = std::mem::take(buffer);
        *state = State::Answered(answer.map(|bytes| {
            bytes.move_into(&mut buffer);
            buffer
        }));
        self.came.notify_one();
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
