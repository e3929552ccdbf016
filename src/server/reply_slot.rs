//! The reply slot: a worker's thread waits there, inside a call, for an answer from the submission
//! thread.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard};
use rumpsp::session::Answer;

/// A slot for one answer at a time.
#[derive(Default)]
pub struct ReplySlot {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
enum State {
    /// No thread waits.
    #[default]
    Idle,
    /// The thread waits, or is about to. The buffer is for the answer.
    Waiting(Vec<u8>),
    Answered(Result<Vec<u8>, ()>),
}

impl ReplySlot {
    /// Prepares for a wait. This has to be called before anybody is told to bring an answer.
    pub fn prepare(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        *self.lock() = State::Waiting(buffer);
    }

    /// Waits for the answer.
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

    /// Hands the answer to the waiting thread, or returns the answer if no thread waits.
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
