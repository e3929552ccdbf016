//! Measures the stages of a call, one by one: `cargo bench -p rumpring-bench`.
//!
//! - [`frames`]: from bytes to frames; [`feed`]: from frames to the session's work; [`scheduler`]: a
//!   batch of tasks to the workers and back; [`kernel`]: calls of the embedded kernel.

mod feed;
mod frames;
mod kernel;
mod scheduler;

use criterion::{criterion_group, criterion_main};

criterion_group!(pieces, frames::benches, feed::benches, scheduler::benches, kernel::benches);
criterion_main!(pieces);
