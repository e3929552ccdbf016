//! The events a ring reports to its user, and the handles in them.

use std::io;

use crate::{Peer, RecvBuffer};

/// A socket of a ring: its slot in the direct descriptor table, and the slot's generation.
///
/// Handles of closed sockets are harmless: requests for them are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Socket {
    /// Makes up a handle that no ring knows, for code that is tested without a ring.
    pub fn made_up(index: u32, generation: u32) -> Socket {
        Socket { index, generation }
    }

    /// Returns the slot: dense, smaller than [`Config::sockets`](crate::Config::sockets), used again
    /// after [`Event::Closed`].
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A listening socket of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted. Nothing is received from it yet:
    /// [`Ring::resume`](crate::Ring::resume) or [`Then::Receive`] starts that.
    Accepted {
        /// The listener that accepted it.
        listener: Listener,
        /// The connection.
        socket: Socket,
        /// The peer, if the listener makes peer queries: see
        /// [`Ring::listen_for`](crate::Ring::listen_for).
        peer: Option<Peer>,
    },
    /// A connection could not be accepted. The ring goes on accepting: at once if the connection itself
    /// was at fault, when a socket was closed if the table was full (ENFILE), and otherwise after a
    /// pause that doubles from 10 ms to 1 s. The ring stops accepting only on EBADF, EINVAL, ENOTSOCK
    /// and EOPNOTSUPP, where the listener is no listening socket.
    AcceptFailed {
        /// The listener whose accept failed.
        listener: Listener,
        /// The error of the accept.
        error: io::Error,
    },
    /// Bytes arrived, at least one.
    Received {
        /// The socket they came from.
        socket: Socket,
        /// The bytes.
        data: RecvBuffer,
    },
    /// The socket will receive nothing more: `error` is `None` at the end of the stream.
    RecvEnded {
        /// The socket that receives no more.
        socket: Socket,
        /// The error that ended receiving, or `None`.
        error: Option<io::Error>,
    },
    /// The peer is gone: see [`Ring::watch_hang_up`](crate::Ring::watch_hang_up).
    HungUp {
        /// The socket whose peer is gone.
        socket: Socket,
    },
    /// A [`Ring::send`](crate::Ring::send) is over as a whole: all of it is sent, or it failed.
    Sent {
        /// The socket that sent.
        socket: Socket,
        /// The number of bytes sent, or the error.
        result: io::Result<usize>,
    },
    /// A socket is closed, after [`Ring::close`](crate::Ring::close). This is its last event.
    Closed {
        /// The socket that is closed.
        socket: Socket,
    },
}

/// The request that follows a send, linked behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    #[default]
    Nothing,
    /// Receiving starts, as by [`Ring::resume`](crate::Ring::resume), if the send succeeds.
    Receive,
    /// Both directions are shut down, if the send succeeds.
    Shutdown,
}
