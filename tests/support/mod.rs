//! Parts that the tests over real sockets share: a server with its kernel, and a client that speaks the
//! protocol frame by frame.

// Each test file uses its own part of this.
#![allow(dead_code, unused_imports)]

// Some test files have both this and `process`.
#[allow(clippy::duplicate_mod)]
#[path = "../process/files.rs"]
mod files;
pub mod frame_client;
pub mod frames;
pub mod test_server;

pub use frame_client::*;
pub use frames::*;
pub use test_server::*;

/// Returns the slot of an `int`, for arguments of `size_t` and the like.
pub fn int(value: i64) -> u64 {
    value as u64
}
