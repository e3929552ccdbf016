//! The protocol of rump kernel clients: [`wire`] has its frames, [`session`] the server's side of a
//! connection without a socket or a thread, [`url`] the addresses of servers.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod session;
pub mod url;
pub mod wire;
