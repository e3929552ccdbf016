//! What a ring tells its user, and the handles it is told by.

use std::io;

use crate::{Peer, RecvBuffer};

/// A socket of a ring: its slot in the direct descriptor table, and which of the slot's lives.
///
/// Handles of closed sockets are harmless: what is asked of them is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Socket {
    /// A handle made up, for code that is tested without a ring. No ring knows it.
    pub fn made_up(index: u32, generation: u32) -> Socket {
        Socket { index, generation }
    }

    /// The slot: dense, smaller than [`Config::sockets`](crate::Config::sockets), used again after
    /// [`Event::Closed`].
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

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// A connection came. Nothing is received from it yet: [`Ring::resume`](crate::Ring::resume) or
    /// [`Then::Receive`] starts that.
    Accepted {
        /// Where it came.
        listener: Listener,
        /// The connection.
        socket: Socket,
        /// Who is at its other end, if the listener asks: see [`Ring::listen_for`](crate::Ring::listen_for).
        peer: Option<Peer>,
    },
    /// A connection could not be accepted. The ring goes on accepting: at once if the connection
    /// itself was at fault, when a socket was closed if the table was full (ENFILE), and otherwise
    /// after a pause that doubles from 10 ms to 1 s. Only on EBADF, EINVAL, ENOTSOCK and EOPNOTSUPP,
    /// where the listener is no listener, it does not.
    AcceptFailed {
        /// Where.
        listener: Listener,
        /// Why.
        error: io::Error,
    },
    /// Bytes arrived, at least one.
    Received {
        /// From whom.
        socket: Socket,
        /// The bytes.
        data: RecvBuffer,
    },
    /// Nothing more will arrive: `None` at the end of the stream.
    RecvEnded {
        /// From whom.
        socket: Socket,
        /// What is wrong, if anything.
        error: Option<io::Error>,
    },
    /// The peer has gone: see [`Ring::watch_hang_up`](crate::Ring::watch_hang_up).
    HungUp {
        /// Which.
        socket: Socket,
    },
    /// A [`Ring::send`](crate::Ring::send) is over, as a whole: all of it is sent, or it failed.
    Sent {
        /// To whom.
        socket: Socket,
        /// How many bytes.
        result: io::Result<usize>,
    },
    /// The last that is heard of a socket after [`Ring::close`](crate::Ring::close).
    Closed {
        /// Which.
        socket: Socket,
    },
}

/// What follows a send, linked behind it.
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
