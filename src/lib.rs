//! rumpring serves a kernel's system calls to remote clients over sockets.
//!
//! # The path of a call
//!
//! bytes -> `ring` -> `rumpsp`'s wire (a frame) -> its session (is it allowed?) -> [`scheduler`] (a
//! deque) -> a kernel -> reply -> the session (still alive?) -> [`server`] (the connection's send queue)
//! -> `ring` -> bytes.
//!
//! Calls that cannot sleep and are short bypass the scheduler: the submission thread runs them, because
//! waking a worker would take longer.
//!
//! # Dependencies
//!
//! [`cli`] -> [`librump`] (NetBSD's kernel: the calls into it, and the C functions that it calls) ->
//! [`options`] (a server's options) -> [`server`] -> [`scheduler`] and the crates `rumpsp`, `ring` and
//! `kernel`. All of them use [`output`] (what is printed).

// Only the modules that talk to C may be unsafe, and they allow it.
#![deny(unsafe_code)]
// These macros panic when nobody reads what they print: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]
// The documentation is also for those who read the source: `--document-private-items`.
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
