//! rumpring serves a kernel's system calls to remote clients over sockets.
//!
//! # The way of a call
//!
//! bytes -> `ring` -> `rumpsp`'s wire (a frame) -> its session (is it allowed?) -> [`scheduler`] (a deque) -> a kernel ->
//! reply -> the session (still alive?) -> [`server`] (the connection's send queue) -> `ring` -> bytes.
//!
//! Calls that cannot sleep and are short pass the scheduler by: the server's thread runs them, for waking a worker
//! would take longer.
//!
//! # What depends on what
//!
//! [`cli`] -> [`librump`] (NetBSD's kernel: what it is asked, and the C surface that it calls) -> [`options`] (a
//! server in words) -> [`server`] -> [`scheduler`] and the crates `rumpsp`, `ring` and `kernel`; [`output`] (what is
//! printed) is used by all.

// Only what talks to C may do otherwise, and says so.
#![deny(unsafe_code)]
// They panic when nobody takes what they print: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]
// The documentation is for those who read the source, too: `--document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

pub mod cli;
mod fairness;
#[allow(unsafe_code)]
pub mod librump;
pub mod options;
pub mod output;
pub mod scheduler;
#[cfg(test)]
#[path = "../tests/support/seeds.rs"]
mod seeds;
pub mod server;
mod sync;
