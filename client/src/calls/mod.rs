//! Typed calls: one method for each call, with NetBSD/amd64's argument layout.
//!
//! Each argument has a slot of 8 bytes, and an empty slot precedes a file offset where the table says
//! `PAD`. The memory that a call points to lies in a [`Buffer`](super::Buffer) of the client's
//! [`AddressSpace`](super::AddressSpace) until the call ends.
//!
//! Source: NetBSD `sys/kern/syscalls.master`.

mod files;
mod process;
mod sockets;
mod sysctl;
mod time;

pub use files::Stat;
pub use sockets::{sockaddr_in, sockaddr_un};

use super::error::CallError;

/// The result of a typed call.
type Result<T> = std::result::Result<T, CallError>;

/// Returns the slot of an int.
fn int(value: i32) -> u64 {
    i64::from(value) as u64
}

/// The empty slot before a file offset.
const PAD: u64 = 0;
