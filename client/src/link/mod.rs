//! One connection: its open requests, the threads that wait on it, and its end.
//!
//! A connection has no thread of its own. A thread that waits for an answer becomes the *receiver* if
//! there is none: it receives for all threads and serves the server's requests until its own answer is
//! here, then hands the role to a parked thread. Any thread queues whole frames in the
//! [`SendQueue`](send::SendQueue), and a thread that finds no other thread sending sends everything there,
//! its own bytes and others'. Sending never blocks; for a full socket some thread must wait:
//!
//! - A receiver that sees the socket full waits for room, too, and is *alert*.
//! - A receiver that has not seen the socket full *naps* in recv(2), one system call, and cannot be
//!   told. Then one thread whose own bytes are queued waits for room or for something to receive. The
//!   latter ends the nap: the receiver looks again, and that thread parks. Meanwhile only that thread
//!   sends, so that its answer cannot come unnoticed while it waits.
//!
//! So bytes that a thread waits for are sent when there is room. Bytes that a thread leaves queued when
//! its patience ends go out with the next send or receive.
//!
//! This cannot deadlock: no thread holds the lock while it waits, and no thread waits for room in the
//! socket unless it, or the receiver, also waits for something to receive. So when both directions of
//! the socket are full and the server reads nothing before its own bytes are read, they are read.

mod receive;
mod send;
mod state;
mod wait;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::Shutdown;

use super::builder::Settings;
use super::error::{CallResult, Lost};
use super::memory::Memory;
use super::socket::Socket;
use receive::Receiving;
use rumpsp::wire::Kind;
use state::State;

pub(super) use state::{Reply, call};

/// A posted call that was answered: see [`Client::post`](super::Client::post).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The id that [`Client::post`](super::Client::post) returned.
    pub id: u64,
    /// The result of the call.
    pub result: CallResult,
}

/// A connection and everything that is under way on it.
pub(super) struct Link {
    socket: Socket,
    settings: Arc<Settings>,
    memory: Arc<dyn Memory>,
    state: Mutex<State>,
    /// The receiver's state, locked by the holder of the role, which [`State`] keeps: no thread waits
    /// for this lock.
    receiving: Mutex<Receiving>,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub reqno: u64,
    /// The end of its frame in the send queue: see [`Link::flush`].
    pub end: u64,
}

impl Link {
    /// Takes over a socket whose banner has been read.
    pub fn new(socket: Socket, settings: Arc<Settings>, memory: Arc<dyn Memory>) -> Link {
        let (state, receiving) = (Mutex::default(), Mutex::default());
        Link { socket, settings, memory, state, receiving }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> &Arc<dyn Memory> {
        &self.memory
    }

    /// Registers a request and queues its frame, which `encode` appends. [`Link::wait`] sends the frame
    /// and returns the answer, also if the connection has ended already.
    pub fn ask(&self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>, u64)) -> Asked {
        let mut state = self.state();
        let reqno = state.ask(kind);
        Asked { reqno, end: state.send_queue.push(|out| encode(out, reqno)) }
    }

    /// Registers a call whose answer goes to [`Link::take_completed`], and queues its frame.
    pub fn post(&self, encode: impl FnOnce(&mut Vec<u8>, u64)) -> u64 {
        let mut state = self.state();
        let reqno = state.post();
        state.send_queue.push(|out| encode(out, reqno));
        reqno
    }

    /// Returns the end of the bytes queued so far, for [`Link::flush`].
    pub fn end(&self) -> u64 {
        self.state().send_queue.end()
    }

    /// Returns the number of bytes queued and not sent yet.
    pub fn owed(&self) -> usize {
        self.state().send_queue.owed()
    }

    /// Notes that nobody will ask for this answer.
    pub fn forget(&self, reqno: u64) {
        self.state().forget(reqno);
    }

    /// Appends the answers to posted requests to `into`.
    pub fn take_completed(&self, into: &mut Vec<Completed>) {
        into.append(&mut self.state().completed);
    }

    /// Returns the number of requests without an answer so far.
    pub fn outstanding(&self) -> usize {
        self.state().outstanding()
    }

    /// Returns the reason why the connection ended, if it has.
    pub fn lost(&self) -> Option<Lost> {
        self.state().lost.clone()
    }

    /// Ends the connection: every waiter gets this reason, unless there was an earlier one.
    pub fn lose(&self, why: Lost) {
        let parked = self.state().lose(why);
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in parked {
            thread.unpark();
        }
    }

    /// Wakes a parked thread for a duty that no thread has.
    fn wake_next(&self, state: MutexGuard<'_, State>) {
        let next = state.next_on_duty();
        drop(state);
        if let Some(next) = next {
            next.unpark();
        }
    }

    /// Runs the handler for the signals that came, with no lock and no role held: the handler may make
    /// calls.
    fn deliver_signals(&self) {
        let signals = std::mem::take(&mut self.state().signals);
        for signo in signals {
            match &self.settings.on_signal {
                Some(handler) => handler(signo),
                None => tracing::debug!(signo, "a signal for a client without a handler"),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
