//! Fairness: all connections but the last are busy with getpid, and the last one calls it now and then.
//!
//! The latency of the last connection is the time that the server makes it wait for the others. Its
//! calls have a schedule of their own, and their latency counts from when they were due.

/// Calls of the slow connection a second: one every 10 ms.
pub const SLOW_RATE: u64 = 100;

/// The parts that are counted apart.
pub const PARTS: [&str; 2] = ["busy", "slow"];

pub const BUSY: usize = 0;
pub const SLOW: usize = 1;
