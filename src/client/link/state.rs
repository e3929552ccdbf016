//! What is asked and not answered, and who is parked until it is. Pure bookkeeping under one lock.

use std::collections::HashMap;
use std::thread::Thread;

use super::Completed;
use crate::client::error::{CallError, Lost, ProtocolError};
use crate::kernel::Errno;
use crate::wire::{Kind, Token};

/// The answer to a request.
pub type Answer = Result<Reply, CallError>;

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Handshake,
    Syscall([i64; 2]),
    Prefork(Token),
}

/// A request on its way through.
enum Slot {
    Waiting(Kind),
    /// A call whose answer goes to [`State::completed`].
    Posted,
    /// Its answer is to be dropped when it comes.
    Forgotten(Kind),
    Answered(Answer),
}

/// All requests of a connection.
#[derive(Default)]
pub struct State {
    last: u64,
    slots: HashMap<u64, Slot>,
    /// Answers to posted calls.
    pub completed: Vec<Completed>,
    /// Whether some thread has the receiver's role.
    pub receiving: bool,
    /// Threads parked for the answer to a request or for the receiver's role.
    parked: Vec<(u64, Thread)>,
    /// Signals not delivered yet.
    pub signals: Vec<i32>,
    /// Why the connection ended.
    pub lost: Option<Lost>,
}

impl State {
    fn number(&mut self, slot: Slot) -> u64 {
        self.last += 1;
        self.slots.insert(self.last, slot);
        self.last
    }

    pub fn ask(&mut self, kind: Kind) -> u64 {
        self.number(Slot::Waiting(kind))
    }

    pub fn post(&mut self) -> u64 {
        if let Some(lost) = &self.lost {
            self.last += 1;
            let result = Err(CallError::Lost(lost.clone()));
            self.completed.push(Completed { id: self.last, result });
            return self.last;
        }
        self.number(Slot::Posted)
    }

    pub fn outstanding(&self) -> usize {
        let open = |slot: &&Slot| matches!(slot, Slot::Waiting(_) | Slot::Posted);
        self.slots.values().filter(open).count()
    }

    /// The answer to a request, if it is here or will never come.
    pub fn take(&mut self, reqno: u64) -> Option<Answer> {
        if !self.is_settled(reqno) {
            return None;
        }
        match (self.slots.remove(&reqno), &self.lost) {
            (Some(Slot::Answered(answer)), _) => Some(answer),
            (_, Some(lost)) => Some(Err(lost.clone().into())),
            (_, None) => unreachable!("an answer is taken once"),
        }
    }

    /// Whether [`State::take`] has an answer.
    pub fn is_settled(&self, reqno: u64) -> bool {
        self.lost.is_some() || matches!(self.slots.get(&reqno), Some(Slot::Answered(_)))
    }

    pub fn forget(&mut self, reqno: u64) {
        match self.slots.remove(&reqno) {
            Some(Slot::Waiting(kind)) if self.lost.is_none() => {
                self.slots.insert(reqno, Slot::Forgotten(kind));
            }
            _ => {}
        }
    }

    /// Files an answer, and returns the thread parked for it, to be woken once the lock is free.
    pub fn settle(
        &mut self,
        reqno: u64,
        kind: Option<Kind>,
        answer: Answer,
    ) -> Result<Option<Thread>, ProtocolError> {
        let asked = match self.slots.get(&reqno) {
            Some(Slot::Waiting(kind) | Slot::Forgotten(kind)) => *kind,
            Some(Slot::Posted) => Kind::Syscall,
            Some(Slot::Answered(_)) | None => return Err(ProtocolError::Unasked(reqno)),
        };
        if let Some(got) = kind.filter(|got| *got != asked) {
            return Err(ProtocolError::OtherKind { reqno, asked, got });
        }
        match self.slots.remove(&reqno) {
            Some(Slot::Posted) => {
                self.completed.push(Completed { id: reqno, result: call(answer) })
            }
            Some(Slot::Waiting(_)) => {
                self.slots.insert(reqno, Slot::Answered(answer));
                return Ok(self.parked_for(reqno));
            }
            _ => {}
        }
        Ok(None)
    }

    fn parked_for(&self, reqno: u64) -> Option<Thread> {
        self.parked.iter().find(|(waits, _)| *waits == reqno).map(|(_, thread)| thread.clone())
    }

    /// Notes that this thread is going to park.
    pub fn enlist(&mut self, reqno: u64) {
        if self.parked_for(reqno).is_none() {
            self.parked.push((reqno, std::thread::current()));
        }
    }

    /// Notes that a thread no longer parks. It may have been woken to receive and leave instead, so
    /// somebody else is to be woken for that: the thread returned.
    #[must_use]
    pub fn delist(&mut self, reqno: u64) -> Option<Thread> {
        self.parked.retain(|(waits, _)| *waits != reqno);
        self.next_receiver()
    }

    /// Who is to receive next, if nobody does.
    pub fn next_receiver(&self) -> Option<Thread> {
        self.parked.first().filter(|_| !self.receiving).map(|(_, thread)| thread.clone())
    }

    /// Ends all requests, and returns the threads to wake.
    pub fn lose(&mut self, why: Lost) -> Vec<Thread> {
        let why = self.lost.get_or_insert(why).clone();
        let completed = &mut self.completed;
        self.slots.retain(|&id, slot| match slot {
            Slot::Posted => {
                completed.push(Completed { id, result: Err(why.clone().into()) });
                false
            }
            Slot::Forgotten(_) => false,
            Slot::Waiting(_) | Slot::Answered(_) => true,
        });
        self.parked.iter().map(|(_, thread)| thread.clone()).collect()
    }
}

/// The answer to a call.
pub fn call(answer: Answer) -> Result<[i64; 2], CallError> {
    match answer? {
        Reply::Syscall(values) => Ok(values),
        Reply::Handshake | Reply::Prefork(_) => unreachable!("settled by kind"),
    }
}

/// The error word of a response.
pub fn error_word(error: i32) -> Result<(), CallError> {
    if error == 0 { Ok(()) } else { Err(CallError::Errno(Errno(error))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_filed_once() {
        let mut state = State::default();
        let reqno = state.ask(Kind::Syscall);
        assert_eq!(state.outstanding(), 1);
        let answer = || Ok(Reply::Syscall([1, 2]));
        assert!(state.settle(reqno, Some(Kind::Syscall), answer()).is_ok());
        let again = state.settle(reqno, Some(Kind::Syscall), answer());
        assert_eq!(again.unwrap_err(), ProtocolError::Unasked(reqno));
        assert_eq!(state.take(reqno), Some(answer()));
        assert_eq!(state.outstanding(), 0);
    }

    #[test]
    fn the_answer_to_a_forgotten_request_is_dropped() {
        let mut state = State::default();
        let reqno = state.ask(Kind::Syscall);
        state.forget(reqno);
        assert!(state.settle(reqno, Some(Kind::Syscall), Ok(Reply::Syscall([0; 2]))).is_ok());
        assert!(state.slots.is_empty());
    }

    #[test]
    fn an_answer_of_another_kind_is_refused() {
        let mut state = State::default();
        let reqno = state.ask(Kind::Prefork);
        let got = state.settle(reqno, Some(Kind::Handshake), Ok(Reply::Handshake));
        assert!(matches!(got, Err(ProtocolError::OtherKind { asked: Kind::Prefork, .. })));
    }

    #[test]
    fn whoever_leaves_wakes_the_next_receiver() {
        let mut state = State::default();
        let (one, two) = (state.ask(Kind::Syscall), state.ask(Kind::Syscall));
        state.receiving = true;
        state.enlist(one);
        state.enlist(two);
        assert!(state.delist(one).is_none());
        state.enlist(one);
        state.receiving = false;
        assert!(state.delist(one).is_some());
        assert!(state.delist(two).is_none());
    }

    #[test]
    fn a_lost_connection_answers_everything() {
        let mut state = State::default();
        let (asked, posted) = (state.ask(Kind::Syscall), state.post());
        state.lose(Lost::Closed);
        state.lose(Lost::Disconnected);
        let late = state.post();
        assert_eq!(state.take(asked), Some(Err(Lost::Closed.into())));
        let ids: Vec<_> = state.completed.iter().map(|done| done.id).collect();
        assert_eq!(ids, [posted, late]);
        assert_eq!(state.outstanding(), 0);
    }
}
