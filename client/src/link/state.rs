//! The state of a connection: open requests, queued bytes, waiting threads. Pure bookkeeping under one
//! lock.

use std::collections::HashMap;
use std::thread::Thread;

use super::Completed;
use super::send::SendQueue;
use crate::error::{CallError, Lost, ProtocolError};
use kernel::Errno;
use rumpsp::wire::{Kind, Token};

/// The answer to a request.
pub type Answer = Result<Reply, CallError>;

/// A response's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Handshake,
    Syscall([i64; 2]),
    Prefork(Token),
}

/// A request, from its number to its answer.
enum Slot {
    Waiting(Kind),
    /// A call whose answer goes to [`State::completed`].
    Posted,
    /// The answer is to be dropped when it comes.
    Forgotten(Kind),
    Answered(Answer),
}

/// The goal of a thread that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The request whose answer the thread waits for; `None` if it waits only until its bytes are sent.
    pub reqno: Option<u64>,
    /// The end of the thread's own bytes: see [`SendQueue::push`].
    pub end: u64,
}

/// The state of the receiver's role, and whether its holder also sends when the socket has room again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receiver {
    #[default]
    Nobody,
    /// A thread has it that waits for room, too, or that will look before it waits.
    Alert,
    /// A thread has it that waits only for something to receive: its nap has this number.
    Napping(u64),
}

/// Everything under way on a connection.
#[derive(Default)]
pub struct State {
    last: u64,
    slots: HashMap<u64, Slot>,
    /// Answers to posted calls.
    pub completed: Vec<Completed>,
    pub send_queue: SendQueue,
    pub receiver: Receiver,
    naps: u64,
    /// The end of the receiver's last answers to the server's requests.
    pub served: u64,
    /// Threads parked until they reach their goal or are to receive.
    parked: Vec<(Goal, Thread)>,
    /// Signals not delivered yet.
    pub signals: Vec<i32>,
    /// The reason why the connection ended.
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

    /// Takes the answer to a request, if it is here or will never come.
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

    /// Returns `true` if [`State::take`] has an answer.
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

    /// Files an answer, and returns the thread parked for it, which the caller wakes once the lock is
    /// free.
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

    /// Returns `true` if the thread need not wait for this goal any more.
    pub fn is_reached(&self, goal: Goal) -> bool {
        match goal.reqno {
            Some(reqno) => self.is_settled(reqno),
            None => self.send_queue.is_sent(goal.end) || self.lost.is_some(),
        }
    }

    fn parked_for(&self, reqno: u64) -> Option<Thread> {
        let parked = self.parked.iter().find(|(goal, _)| goal.reqno == Some(reqno));
        parked.map(|(_, thread)| thread.clone())
    }

    /// Notes that this thread is going to park.
    pub fn enlist(&mut self, goal: Goal) {
        self.parked.push((goal, std::thread::current()));
    }

    /// Notes that this thread no longer parks, if it did.
    pub fn delist(&mut self) {
        if !self.parked.is_empty() {
            let me = std::thread::current().id();
            self.parked.retain(|(_, thread)| thread.id() != me);
        }
    }

    /// Returns `true` if the receiver, about to wait, must wait for room in the socket, too: if there
    /// is none, or if the thread that sends the receiver's bytes might leave them.
    pub fn look(&mut self, goal: Goal) -> bool {
        let is_sent = self.send_queue.is_sent(goal.end.max(self.served));
        let is_alert = self.send_queue.full || !is_sent;
        self.receiver = if is_alert {
            Receiver::Alert
        } else {
            self.naps += 1;
            Receiver::Napping(self.naps)
        };
        is_alert
    }

    /// Returns `true` if another thread is about to send the bytes of this goal. That thread will
    /// receive, too, or wake one that does.
    pub fn is_being_sent(&self, goal: Goal) -> bool {
        !self.send_queue.full && !self.send_queue.is_sent(goal.end)
    }

    /// Returns `true` if a thread must wait for room, because the receiver naps and bytes of this goal
    /// are not sent. Its answer cannot come meanwhile: only this thread sends.
    pub fn may_await_room(&self, goal: Goal) -> bool {
        let send_queue = &self.send_queue;
        let is_open = send_queue.full && !send_queue.awaited && !send_queue.is_sent(goal.end);
        is_open && matches!(self.receiver, Receiver::Napping(_))
    }

    /// Returns the parked thread to wake if no thread has a duty: to receive or to wait for room.
    pub fn next_on_duty(&self) -> Option<Thread> {
        let is_fit = |goal| match self.receiver {
            Receiver::Nobody => !self.is_being_sent(goal),
            _ => self.may_await_room(goal),
        };
        let parked = self.parked.iter().find(|(goal, _)| is_fit(*goal));
        parked.map(|(_, thread)| thread.clone())
    }

    /// Adds the threads to wake after bytes were sent, or were not for lack of room.
    pub fn wake_after_sending(&self, wake: &mut Vec<Thread>) {
        let is_over = |goal: &Goal| goal.reqno.is_none() && self.send_queue.is_sent(goal.end);
        let over = self.parked.iter().filter(|(goal, _)| is_over(goal));
        wake.extend(over.map(|(_, thread)| thread.clone()));
        if self.send_queue.full {
            wake.extend(self.next_on_duty());
        }
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

/// Returns the result in the answer to a call.
pub fn call(answer: Answer) -> Result<[i64; 2], CallError> {
    match answer? {
        Reply::Syscall(values) => Ok(values),
        Reply::Handshake | Reply::Prefork(_) => unreachable!("settled by kind"),
    }
}

/// Returns the error in the error word of a response, if any.
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
    fn somebody_parked_is_to_receive_if_nobody_does() {
        let mut state = State::default();
        let goal = Goal { reqno: Some(state.ask(Kind::Syscall)), end: 0 };
        state.receiver = Receiver::Alert;
        state.enlist(goal);
        assert!(state.next_on_duty().is_none());
        state.receiver = Receiver::Nobody;
        assert!(state.next_on_duty().is_some());
        state.delist();
        assert!(state.next_on_duty().is_none());
    }

    #[test]
    fn a_napping_receiver_leaves_the_full_socket_to_whose_bytes_wait() {
        let mut state = State::default();
        let end = state.send_queue.push(|out| out.push(1));
        let waits = Goal { reqno: Some(1), end };
        assert!(state.look(waits), "its own bytes wait");
        assert!(!state.look(Goal { reqno: Some(2), end: 0 }));
        state.send_queue.full = true;
        assert!(state.may_await_room(waits));
        assert!(!state.may_await_room(Goal { reqno: Some(2), end: 0 }));
        state.enlist(waits);
        assert!(state.next_on_duty().is_some());
        state.send_queue.awaited = true;
        assert!(state.next_on_duty().is_none());
        state.send_queue.awaited = false;
        assert!(state.look(Goal { reqno: Some(2), end: 0 }), "it sees the full socket");
        assert!(state.next_on_duty().is_none());
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
