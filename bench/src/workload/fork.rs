//! Fork: a prefork on the connection, then one of the child's, which shows its token and hangs up.
//!
//! It is done when the child's handshake is answered. The next of this call slot begins when the child has
//! hung up.

use rumpsp::wire;

/// Asks for a token.
pub fn prefork(out: &mut Vec<u8>, reqno: u64) {
    wire::prefork_request(out, reqno);
}

/// The child's handshake.
pub fn handshake(out: &mut Vec<u8>, token: &wire::Token) {
    wire::fork_request(out, 0, token, false);
}
