//! Bounds of the server, each with what a client sees at it.

use std::time::Duration;

use crate::session;

/// How much the server takes on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of each session.
    pub session: session::Limits,
    /// Bytes owed to a client at which it is not read from any more, until it has taken half.
    pub owed: usize,
    /// Bytes owed to a client at which it is hung up on: it asks and does not read.
    pub owed_most: usize,
    /// Bytes of a client kept unread while a handshake or a prefork is under way; beyond, it is not
    /// read from until that has ended.
    pub backlog: usize,
    /// Preforks that wait for their child, of all clients. One more is refused with "no memory".
    pub preforks: usize,
    /// How long an unused prefork stays good after its parent has gone. A parent may exit before its
    /// child has connected, as daemon(3) does.
    pub orphan: Duration,
    /// How long a client that is hung up on has to take what is owed to it.
    pub linger: Duration,
    /// How long calls in flight have when the server is to stop.
    pub drain: Duration,
    /// Tasks kept for calls to come.
    pub spare_tasks: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session: session::Limits::default(),
            owed: 1 << 20,
            owed_most: 32 << 20,
            backlog: 16 << 10,
            preforks: 4096,
            orphan: Duration::from_secs(10),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            spare_tasks: 4096,
        }
    }
}
