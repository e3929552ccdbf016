//! Fork: a prefork on the connection, then a connection of the child, which shows its token and hangs
//! up.
//!
//! The call is done when the child's handshake is answered. The next call of this slot begins when the
//! child has hung up.

use rumpsp::wire;

/// Appends the request for a token.
pub fn prefork(out: &mut Vec<u8>, reqno: u64) {
    wire::prefork_request(out, reqno);
}

/// Appends the child's handshake.
pub fn handshake(out: &mut Vec<u8>, token: &wire::Token) {
    wire::fork_request(out, 0, token, false);
}
