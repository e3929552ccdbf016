//! The limits on what a client may send and have under way.

use crate::wire::{Class, FORK_BODY_LEN, Header, Kind};
use kernel::MAX_ARGS;

/// Bounds of a session. Lengths are of bodies, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest argument structure. At most as long as that of [`kernel::Args`].
    pub args: usize,
    /// The longest command name of a handshake, its NUL included.
    pub command: usize,
    /// The longest body of a request of an unknown kind: the request is answered with an error, and one
    /// with a longer body with an error and a hang-up.
    pub unknown: usize,
    /// The most calls in flight. A further call is answered "try again".
    pub calls: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { args: MAX_ARGS * 8, command: 1024, unknown: 4096, calls: 4096 }
    }
}

impl Limits {
    /// Returns the most bytes of this request's body.
    pub fn request_body(&self, header: &Header) -> usize {
        if header.class() != Some(Class::Request) {
            return self.unknown;
        }
        match header.kind() {
            Some(Kind::Handshake) => self.command.max(FORK_BODY_LEN),
            Some(Kind::Syscall) => self.args.min(MAX_ARGS * 8),
            _ => self.unknown,
        }
    }
}
