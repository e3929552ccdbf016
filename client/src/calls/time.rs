//! Calls about clocks and sleep. `struct timespec` and `struct timeval` are two 64-bit words each.

use std::time::Duration;

use super::{Result, int};
use crate::Client;
use crate::numbers::sys;

impl Client {
    /// Returns the time of a clock.
    pub fn clock_gettime(&self, clock: i32) -> Result<Duration> {
        let time = self.space().buffer(16)?;
        self.call(sys::CLOCK_GETTIME, &[int(clock), time.addr()])?;
        Ok(duration(time.i64_at(0), time.i64_at(8)))
    }

    /// Returns the time of day, since 1970.
    pub fn gettimeofday(&self) -> Result<Duration> {
        let time = self.space().buffer(16)?;
        self.call(sys::GETTIMEOFDAY, &[time.addr(), 0])?;
        Ok(duration(time.i64_at(0), time.i64_at(8).saturating_mul(1000)))
    }

    /// Sleeps in the kernel. [`Builder::timeout`](crate::Builder::timeout) should be longer.
    pub fn nanosleep(&self, time: Duration) -> Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&time.as_secs().to_le_bytes());
        bytes[8..].copy_from_slice(&u64::from(time.subsec_nanos()).to_le_bytes());
        let time = self.space().buffer_from(&bytes)?;
        self.call(sys::NANOSLEEP, &[time.addr(), 0]).map(drop)
    }
}

/// Makes a duration of a server's seconds and nanoseconds; values out of range are cut.
fn duration(secs: i64, nanos: i64) -> Duration {
    Duration::new(secs.max(0) as u64, nanos.clamp(0, 999_999_999) as u32)
}
