//! What the tests over real sockets share: a server with its kernel, and a client that speaks the
//! protocol frame by frame.

// Each test file uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod frames;
pub mod house;
pub mod speaker;

pub use frames::*;
pub use house::*;
pub use speaker::*;

/// `size_t` and friends, from an `int`.
pub fn int(value: i64) -> u64 {
    value as u64
}
