//! One connection of the load, without its socket: bytes in, bytes out.
//!
//! - [`link`]: a banner, a handshake, then frames; [`send_queue`]: the bytes to be sent.
//! - [`client`]: the client behind the link: its [`setup`] first, then its calls.

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

/// The time a server has for anything before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Connects and does the handshake: a server that answers it is up.
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
