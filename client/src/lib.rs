//! The client's side of the protocol, for tests, the benchmark and the command line.
//!
//! A [`Client`] is a process in a server's kernel. It makes calls, raw ([`Client::call`]) or typed
//! ([`Client::getpid`] and the others in `calls/`), serves its [`Memory`] to the server's copies,
//! passes signals to a handler, forks, execs and connects anew.
//!
//! # One thread, many threads, many clients
//!
//! A client has no thread of its own, and an idle client holds a socket and some hundred bytes. A
//! thread that waits for a call receives for all waiting threads of that connection and serves the
//! server's copies meanwhile; the other threads are parked. So a client that no thread waits on answers
//! no copies: its calls that need copies stand still until a thread waits. There are three ways to
//! drive calls:
//!
//! - [`Client::call`] waits. Any number of threads may do so on one client.
//! - [`Client::begin`] gives a [`Pending`], to be finished later, with a time limit or without
//!   waiting. One thread can have thousands of them, over thousands of clients; their answers wait in
//!   the sockets, or in memory once read.
//! - [`Client::post`], [`Client::pump`] and [`Client::take_completed`] never wait: for a load
//!   generator with its own poll(2) or epoll(7) on the sockets ([`Client`] is `AsFd`).
//!
//! # Memory
//!
//! Addresses of the protocol are no addresses of this process. A client has an [`AddressSpace`] of
//! regions, and a copy to or from anywhere else is refused; the server makes EFAULT of that. The memory
//! a server can make a client keep is bounded: a copy in by the regions, a copy out by the region it
//! goes to and [`Builder::max_copy`], mappings by the space's limit, unread answers by
//! [`Builder::max_unread`].
//!
//! # A first call
//!
//! The server here is a thread with two answers.
//!
//! ```
//! use rumpring_client::Client;
//! use rumpsp::url::Url;
//! # use std::io::{Read, Write};
//! # use rumpsp::wire;
//!
//! # let dir = tempfile::tempdir()?;
//! # let url = Url::Unix(dir.path().join("sock"));
//! # let listener = std::os::unix::net::UnixListener::bind(url.path().unwrap())?;
//! # let server = std::thread::spawn(move || -> std::io::Result<()> {
//! #     let (mut socket, _) = listener.accept()?;
//! #     socket.write_all(&wire::banner("NetBSD", "7.99.34", "amd64"))?;
//! #     let mut frame = [0; 24 + 5]; // a header and "demo" with its NUL
//! #     socket.read_exact(&mut frame)?;
//! #     socket.write_all(&wire::handshake_response(wire::read_u64(&frame, 8)))?;
//! #     let mut frame = [0; 24];
//! #     socket.read_exact(&mut frame)?;
//! #     socket.write_all(&wire::syscall_response(wire::read_u64(&frame, 8), 0, [42, 0]))
//! # });
//! let client = Client::builder().name("demo").connect(&url)?;
//! assert_eq!(client.banner(), "RUMPSP-0.4-NetBSD-7.99.34/amd64");
//! assert_eq!(client.getpid()?, 42);
//! # server.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source of the behaviour: NetBSD `lib/librumpclient/rumpclient.c`.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod builder;
mod calls;
mod error;
mod fork;
mod handle;
mod link;
mod memory;
pub mod numbers;
mod patience;
mod pending;
pub mod raw;
mod socket;
mod space;

pub use builder::{Builder, DEFAULT_MAX_COPY, DEFAULT_MAX_UNREAD, SignalHandler};
pub use calls::{Stat, sockaddr_in, sockaddr_un};
pub use error::{
    BannerError, CallError, CallResult, ConnectError, Lost, ProtocolError, refused_errno,
};
pub use fork::ForkToken;
pub use handle::Client;
pub use link::Completed;
pub use memory::{Memory, Refusal};
pub use pending::Pending;
pub use space::{AddressSpace, Buffer, DEFAULT_LIMIT, Fault, OutOfMemory};

#[cfg(test)]
mod tests;
