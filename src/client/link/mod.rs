//! One connection: who waits for what on it, and what has become of it.
//!
//! No thread of its own serves a connection. A thread that waits for an answer becomes the
//! *receiver* if there is none: it reads for everybody and serves the server's requests until its
//! own answer is here, then hands over to the first of those parked. Bytes to send are appended to
//! the [`outbox`](send) whole frames at a time; a thread that finds nobody writing becomes the
//! *writer* and writes what is there, its own bytes and others'.
//!
//! Why this cannot deadlock: no thread holds a lock while it waits for the socket. The receiver
//! never waits for another writer, it only appends; and a writer that the full socket stops reads,
//! or knows that somebody else does, between its attempts ([`send`]). So when both directions of the
//! socket are full and the server reads nothing until it is read from, it is read from.

mod receive;
mod send;
mod state;
mod wait;

pub(super) use wait::Patience;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::builder::Settings;
use super::error::{CallResult, Lost};
use super::memory::Memory;
use super::socket::Socket;
use crate::wire::Kind;
use receive::Receiving;
use send::Outbox;
use state::State;

pub(super) use state::{Reply, call};

/// An answered call that was posted: see [`Client::post`](super::Client::post).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What [`Client::post`](super::Client::post) returned.
    pub id: u64,
    /// How the call ended.
    pub result: CallResult,
}

/// A connection and everything that is under way on it.
pub(super) struct Link {
    socket: Socket,
    settings: Arc<Settings>,
    memory: Arc<dyn Memory>,
    state: Mutex<State>,
    outbox: Mutex<Outbox>,
    /// Locked by whoever has the receiver's role, which [`State`] keeps: nobody waits for this lock.
    receiving: Mutex<Receiving>,
}

impl Link {
    /// Takes over a socket whose banner has been read.
    pub fn new(
        socket: Socket,
        settings: Arc<Settings>,
        memory: Arc<dyn Memory>,
    ) -> io::Result<Link> {
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(Some(send::PATIENCE))?;
        Ok(Link {
            socket,
            settings,
            memory,
            state: Mutex::default(),
            outbox: Mutex::default(),
            receiving: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn memory(&self) -> &Arc<dyn Memory> {
        &self.memory
    }

    /// Registers a request and puts its frame, which `encode` appends, on its way. Its answer is for
    /// [`Link::wait`], also if the connection has ended already.
    pub fn ask(
        &self,
        kind: Kind,
        patience: Patience,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> u64 {
        let reqno = self.state().ask(kind);
        self.queue(|out| encode(out, reqno));
        self.flush(None, patience);
        reqno
    }

    /// Registers a request whose answer goes to [`Link::take_completed`], and leaves its frame in the
    /// outbox.
    pub fn post(&self, encode: impl FnOnce(&mut Vec<u8>, u64)) -> u64 {
        let reqno = self.state().post();
        self.queue(|out| encode(out, reqno));
        reqno
    }

    /// Nobody will ask for this answer.
    pub fn forget(&self, reqno: u64) {
        self.state().forget(reqno);
    }

    /// Moves the answers to posted requests behind what is in `into`.
    pub fn take_completed(&self, into: &mut Vec<Completed>) {
        into.append(&mut self.state().completed);
    }

    /// Requests without an answer so far.
    pub fn outstanding(&self) -> usize {
        self.state().outstanding()
    }

    /// Why the connection ended, if it has.
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

    /// Runs the handler for the signals that came, with no lock and no role held: it may call.
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
