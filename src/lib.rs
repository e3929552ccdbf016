//! rumpring serves a kernel's system calls to remote clients over sockets.
//!
//! # The map of the house
//!
//! A call takes one way through the rooms and enters none twice:
//!
//! bytes -> `ring` -> [`wire`] (a frame) -> [`session`] (is it allowed? which job?) -> [`pool`]
//! (a deque) -> [`kernel`] -> reply -> [`session`] (still alive?) -> [`server`] (the connection's
//! outbox) -> `ring` -> bytes.
//!
//! Calls that cannot sleep and are short pass the pool by: the server's thread runs them, for waking a
//! worker would take longer.
//!
//! Rooms depend on those below them only, from the top: [`cli`], [`hypercall`] (the C surface that
//! NetBSD's kernel calls), [`options`] (a server in words), [`server`], [`session`] and [`client`] (the other side of the protocol),
//! [`kernel`], and on the ground [`output`] (lines on stderr), [`pool`], [`wire`], [`url`] and the crate `ring`.

// Only what talks to C may do otherwise, and says so.
#![deny(unsafe_code)]
// They panic when nobody takes what they print: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]
// The documentation is for those who read the source, too: `--document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

pub mod cli;
pub mod client;
#[allow(unsafe_code)]
pub mod hypercall;
pub mod kernel;
pub mod options;
pub mod output;
pub mod pool;
#[cfg(test)]
mod seeds;
pub mod server;
pub mod session;
mod sync;
pub mod url;
pub mod wire;
