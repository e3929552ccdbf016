//! One connection of the load, without its socket: bytes in, bytes out.
//!
//! - [`link`]: a banner, a handshake, then frames; [`send_queue`]: what is to be sent.
//! - [`client`]: what a connection does with its link: [`setup`] first, then calls.

mod client;
mod link;
mod send_queue;
mod setup;

pub use client::{Client, Note, Role};
pub use link::{Heard, Hello, Link};
pub use send_queue::SendQueue;

use std::io::{self, Read, Write};
use std::time::Duration;

use rumpsp::url::Url;
use rumpsp::wire;

use crate::socket::Socket;

/// How long a server may take for anything before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Connects and shakes hands: a server that answers this is up.
pub fn greet(url: &Url) -> io::Result<Socket> {
    let mut socket = Socket::connect(url, PATIENCE)?;
    socket.read_banner()?;
    let mut out = Vec::new();
    crate::workload::connect::handshake(&mut out);
    socket.write_all(&out)?;
    let mut answer = wire::handshake_response(0);
    socket.read_exact(&mut answer)?;
    if answer != wire::handshake_response(0) {
        return Err(io::Error::other("the server refused the handshake"));
    }
    Ok(socket)
}

fn unexpected(what: &str, number: u64) -> io::Error {
    io::Error::other(format!("the server sent what was not expected: {what} {number:#x}"))
}
