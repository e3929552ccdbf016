//! Measures how late the machine wakes a thread that has nothing to do with the server: any client may
//! be served as late as that, whatever the server does.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::run::Run;
use crate::load::histogram;

/// The length of a sleep.
const SLEEP: Duration = Duration::from_millis(20);

/// Sleeps again and again until the end, and returns the nanoseconds by which the sleeps were too long.
pub fn tick(run: &Run) -> io::Result<Histogram<u64>> {
    let mut late = histogram()?;
    while !run.is_over() {
        let start = Instant::now();
        std::thread::sleep(SLEEP);
        late.saturating_record(start.elapsed().saturating_sub(SLEEP).as_nanos() as u64);
    }
    Ok(late)
}
