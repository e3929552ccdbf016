//! A storm of connections: each is greeted, shakes hands as a guest and hangs up.
//!
//! It is done when the handshake is answered. The next of this call slot begins when the connection has
//! been closed.

use rumpsp::wire::{self, Handshake};

/// The handshake of a client without a history.
pub fn handshake(out: &mut Vec<u8>) {
    wire::handshake_request(out, 0, Handshake::Guest, "rumpring-bench");
}
