//! Sockets over one io_uring.

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

mod accept;
mod arena;
mod buffers;
mod close;
mod config;
mod error;
mod event;
mod features;
mod freelist;
mod queue;
mod recv;
mod ring;
mod send;
mod setup;
mod slots;
mod stats;
mod token;
mod wake;

pub use arena::{Arena, Chunk};
pub use buffers::RecvBuffer;
pub use config::{ArenaClass, ArenaConfig, CLASSES, Config};
pub use error::{Error, SendRefused};
pub use event::{Event, Listener, Socket, Then};
pub use features::Features;
pub use ring::Ring;
pub use stats::Stats;
pub use wake::Waker;
