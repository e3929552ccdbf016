//! Sockets over one io_uring.
//!
//! A [`Ring`] accepts connections, receives and sends for all of them on one thread, and reports in
//! [`Event`]s. It is a small layer: what it adds to `io_uring(7)` is the care for all that is normal
//! though rare. A short send goes on where it stopped. A full SQ is submitted in between, without
//! tearing a chain apart. An overflown CQ, a spent buffer ring, a full descriptor table or a cancel
//! that comes too late lose nothing and never make the ring spin. A closed socket leaves nothing
//! behind.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! use rumpring_ring::{Config, Event, Ring, Then};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("socket");
//! let mut ring = Ring::new(&Config::default())?;
//! let arena = ring.arena();
//! ring.listen(std::os::unix::net::UnixListener::bind(&path)?.into())?;
//!
//! let client = std::thread::spawn(move || -> std::io::Result<String> {
//!     let mut stream = UnixStream::connect(path)?;
//!     stream.write_all(b"marco")?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!     Ok(answer)
//! });
//!
//! 'serve: loop {
//!     // Submits the requests that the events before led to, and sleeps until there are more.
//!     ring.wait(None, || true)?;
//!     while let Some(event) = ring.next_event() {
//!         match event {
//!             Event::Accepted { socket, .. } => ring.resume(socket),
//!             Event::Received { socket, data } if &*data == b"marco" => {
//!                 let mut chunk = arena.chunk(4);
//!                 chunk.put(b"polo");
//!                 ring.send(socket, [chunk], Then::Shutdown)?;
//!             }
//!             Event::RecvEnded { socket, .. } => ring.close(socket),
//!             Event::Closed { .. } => break 'serve,
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(client.join().unwrap()?, "polo");
//! # Ok(())
//! # }
//! ```
//!
//! # The loop
//!
//! [`Ring::wait`] is the only call that sleeps, and nearly the only one that enters the kernel: the
//! other calls queue requests, which go with the next wait. So one `io_uring_enter(2)` submits all
//! requests that a batch of events led to, and fetches the next batch. Other threads end the sleep with
//! a [`Waker`].
//!
//! A [`Socket`] is a direct descriptor: it is never in the process's descriptor table, only in the
//! ring's. Nothing is received from it until [`Ring::resume`] or [`Then::Receive`], and one send of it
//! is in flight at a time. Received bytes are lent in a [`RecvBuffer`]; bytes to send are given in
//! [`Chunk`]s of an [`Arena`], which other threads can fill.
//!
//! # Sending
//!
//! The requests were chosen by measuring (`cargo run --release --example send_costs`; Linux 6.18 in a
//! virtual machine of two cores, one message at a time, wall clock, times the cost of SEND):
//!
//! | | 48 B | 4 KiB | 64 KiB |
//! |---|---|---|---|
//! | unix: SEND | 1 (1.4 us) | 1 (2.2 us) | 1 (9 us) |
//! | unix: SENDMSG of two iovecs | 1.08 to 1.13 | 1.08 to 1.11 | 1.00 to 1.04 |
//! | unix: WRITE_FIXED, registered buffer | 1.06 to 1.10 | 1.05 to 1.09 | 0.97 to 1.07 |
//! | unix: WRITEV_FIXED, registered buffer | 1.12 to 1.17 | 1.11 to 1.13 | 0.98 to 1.04 |
//! | TCP: SEND | 1 (4 us) | 1 (6 us) | 1 (19 us) |
//! | TCP: SENDMSG of two iovecs | 1.2 to 1.5 | 1.03 | 0.92 to 1.01 |
//! | TCP: WRITE_FIXED, registered buffer | 1.0 to 1.2 | 1.01 to 1.06 | 0.94 to 1.11 |
//! | TCP: WRITEV_FIXED, registered buffer | 1.0 to 1.7 | 0.99 to 1.07 | 0.96 to 1.03 |
//! | TCP: SEND_ZC, registered buffer | 1.3 to 1.5 | 1.1 | 1.1 to 1.5 |
//! | TCP: SENDMSG_ZC, registered buffer | 1.3 to 2.0 | 1.0 to 1.1 | 2.0 to 2.7 |
//!
//! So one chunk goes by SEND and several by SENDMSG, and neither uses a registered buffer: a write from
//! a registered buffer is copied all the same, costs rather a little more, has no `MSG_NOSIGNAL`, and
//! its memory is pinned. The arena is registered only for zero copy sends ([`Config::zero_copy_from`]).
//! Over loopback zero copy sends lose at any size, because the kernel copies after all when a packet
//! turns around to a local reader ([`Stats::zero_copy_copied`] counts that), and a chunk comes back
//! only when TCP has seen the acknowledgement, which may be delayed for 40 ms. Set `zero_copy_from` for
//! large messages over a network card that can gather, after measuring there.
//!
//! # Peers
//!
//! A listener can make a peer query for each connection ([`Ring::listen_for`], with [`Config::peers`]).
//! Then each connection is reported with its [`Peer`]: the user at the other end of a unix socket, or
//! the address at the other end of a TCP socket. A connection whose query fails is closed and not
//! reported.
//!
//! # Faults of the host
//!
//! | fault | what the ring does | counter |
//! |---|---|---|
//! | accept: EMFILE, ENFILE, ENOMEM, ENOBUFS, EAGAIN | [`Event::AcceptFailed`]; accepts again after a pause of 10 ms to 1 s | [`accept_errors`](Stats::accept_errors) |
//! | accept: the connection itself failed (ECONNABORTED and such) | [`Event::AcceptFailed`]; accepts the next at once | [`accept_errors`](Stats::accept_errors) |
//! | the table of sockets is full | connections wait in the listener's backlog | |
//! | a peer query: any error | closes the connection without an event | [`unknown_peers`](Stats::unknown_peers) |
//! | recv: ENOBUFS, no receive buffer | the socket waits in line for one | [`recv_buffers_exhausted`](Stats::recv_buffers_exhausted) |
//! | recv: ENOMEM | tries again each 10 ms; after 100 times in a row [`Event::RecvEnded`] | [`put_off`](Stats::put_off) |
//! | recv: EAGAIN (someone who shares the socket made it nonblocking) | tries again each 10 ms | [`put_off`](Stats::put_off) |
//! | send: short | goes on where it stopped | [`short_sends`](Stats::short_sends) |
//! | send: ENOMEM, ENOBUFS, EAGAIN | goes on where it stopped, each 10 ms; after 100 times without a byte [`Event::Sent`] has the error | [`put_off`](Stats::put_off) |
//! | zero copy send: ENOMEM, ENOBUFS, EOPNOTSUPP | goes on with a copy | |
//! | send: EINTR | goes on at once; after 8 times without a byte [`Event::Sent`] has the error | |
//! | send: EPIPE, ECONNRESET, any other | [`Event::Sent`] has the error | |
//! | a multishot recv is not told of the end of its stream | looks at sockets that have become quiet | [`ends_found`](Stats::ends_found) |
//! | watching for a hang-up: any error | tries again each 10 ms; after 100 times [`Event::HungUp`] | [`put_off`](Stats::put_off) |
//! | close: ENOMEM, EAGAIN, EINTR | tries again each 10 ms, 100 times | [`put_off`](Stats::put_off) |
//! | the SQ is full | submits in between; what still finds no room waits in order | [`sq_full`](Stats::sq_full) |
//! | the CQ is full | the kernel keeps completions until there is room | [`cq_overflows`](Stats::cq_overflows) |
//! | `io_uring_enter`: EINTR | [`Ring::wait`] returns early | |
//! | `io_uring_enter`: EAGAIN, ENOMEM, EBUSY | [`Ring::wait`] returns early, after 1 ms for want of memory; what is queued stays queued | [`refused_enters`](Stats::refused_enters) |
//! | `io_uring_enter` takes a part of a chain (no memory for the next request) | cancels the rest of the chain, which is made again once the part has ended | [`cut_chains`](Stats::cut_chains) |
//! | `io_uring_enter`: EBADR, a completion was lost | [`Error::CompletionLost`]: the ring cannot go on | |
//!
//! # What is needed
//!
//! The ring needs Linux 5.19, for provided buffer rings and allocated direct descriptors. It uses what
//! newer kernels add ([`Features`]), and [`Config::without`] makes the ring do without it. Each
//! [`Error`] says what to do about a system that refuses.
//!
//! # The modules
//!
//! In reading order: `ring` (the parts of a ring, the wait, the dispatch of completions), `queue` (SQ,
//! CQ and the system call), `token` (the contents of `user_data`), `setup`, `features` and `restrict`
//! (the features the kernel is asked for, and the requests it is told to allow), `slots` (the state of
//! a socket), `accept`, `peer_query` and `peer` (the peers of connections), `adopt`, `recv`, `send`
//! with `send_chain`, `quiet`, `hangup` and `close` (the operations on a socket), `buffers` (receive
//! memory), `arena` and `freelist` (send memory), `retry` (requests that failed for want of memory),
//! `wake`, `spin`. `loom_tests` tries every order of the threads' steps, with the types of `sync`.

#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]
#![warn(missing_docs)]

mod accept;
mod adopt;
mod arena;
mod buffers;
mod close;
mod config;
mod error;
mod event;
#[cfg(test)]
mod faults;
mod features;
mod freelist;
mod hangup;
#[cfg(loom)]
pub mod loom_tests;
mod peer;
mod peer_query;
mod queue;
mod quiet;
mod recv;
mod restrict;
mod retry;
mod ring;
mod send;
mod send_chain;
mod setup;
mod slots;
mod spin;
mod stats;
mod sync;
mod token;
mod wake;

pub use arena::{Arena, Chunk};
pub use buffers::RecvBuffer;
pub use config::{ArenaClass, ArenaConfig, CLASSES, Config};
pub use error::{Error, SendRefused};
pub use event::{Event, Listener, Socket, Then};
pub use features::Features;
pub use peer::{Peer, PeerQuery};
pub use ring::Ring;
pub use spin::Spin;
pub use stats::Stats;
pub use wake::Waker;
