//! A storm of connections: each reads the banner, does a guest's handshake and hangs up.
//!
//! The call is done when the handshake is answered. The next call of this slot begins when the
//! connection has been closed.

use rumpsp::wire::{self, Handshake};

/// Appends the handshake of a new client.
pub fn handshake(out: &mut Vec<u8>) {
    wire::handshake_request(out, 0, Handshake::Guest, "rumpring-bench");
}
