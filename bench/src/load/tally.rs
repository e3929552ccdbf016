//! Counts the calls of one thread, from the end of the warm-up.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::measured::{Measured, Part, histogram};

/// The counts of one thread.
pub struct Tally {
    /// The counts of each part of the load, or one for all.
    parts: Vec<Part>,
    has_parts: bool,
    /// The times that calls have waited that were not even sent and belong to no part yet.
    unsent: Histogram<u64>,
    unanswered: u64,
    /// The time at which counting began, and the CPU time that this thread had used by then.
    since: Option<(Instant, Duration)>,
}

impl Tally {
    /// Makes a tally for a load of `parts` parts, or of none, that does not count yet. It must be made
    /// and used on one thread.
    pub fn new(parts: usize) -> io::Result<Tally> {
        let has_parts = parts > 0;
        let parts: io::Result<Vec<Part>> = (0..parts.max(1)).map(|_| Part::nothing()).collect();
        Ok(Tally { parts: parts?, has_parts, unsent: histogram()?, unanswered: 0, since: None })
    }

    pub fn is_counting(&self) -> bool {
        self.since.is_some()
    }

    /// Starts counting.
    pub fn begin(&mut self, now: Instant) {
        self.since = Some((now, thread_time()));
    }

    /// Counts a call that was answered.
    pub fn answered(&mut self, part: u32, latency: Duration) {
        if self.is_counting() {
            let part = &mut self.parts[part as usize];
            part.calls += 1;
            part.latencies.saturating_record(nanos(latency));
        }
    }

    /// Counts a call that was sent and is not answered, with its latency so far.
    pub fn unanswered(&mut self, part: u32, latency: Duration) {
        if self.is_counting() {
            self.unanswered += 1;
            self.parts[part as usize].latencies.saturating_record(nanos(latency));
        }
    }

    /// Counts `count` calls, of this part if it is known, that were due for `latency` nanoseconds and
    /// not sent.
    pub fn unsent(&mut self, part: Option<usize>, latency: u64, count: u64) {
        if self.is_counting() {
            self.unanswered += count;
            let latencies = part.map_or(&mut self.unsent, |part| &mut self.parts[part].latencies);
            latencies.saturating_record_n(latency, count);
        }
    }

    /// Returns the counts until now.
    pub fn so_far(&self, now: Instant) -> io::Result<Measured> {
        let mut measured = Measured::nothing(0)?;
        for part in &self.parts {
            measured.calls += part.calls;
            measured.latencies.add(&part.latencies).map_err(io::Error::other)?;
        }
        measured.latencies.add(&self.unsent).map_err(io::Error::other)?;
        measured.unanswered = self.unanswered;
        if self.has_parts {
            measured.parts = self.parts.clone();
        }
        if let Some((since, cpu)) = self.since {
            measured.elapsed = now.saturating_duration_since(since);
            measured.client_cpu = thread_time().saturating_sub(cpu);
            let elapsed = measured.elapsed.as_secs_f64().max(1e-9);
            measured.client_busy = measured.client_cpu.as_secs_f64() / elapsed;
        }
        Ok(measured)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the CPU time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_after_the_warm_up_counts() {
        let mut tally = Tally::new(2).unwrap();
        let start = Instant::now();
        let us = Duration::from_micros;
        tally.answered(0, us(1));
        tally.unsent(None, 1, 1);
        assert_eq!(tally.so_far(start).unwrap().latencies.len(), 0);
        tally.begin(start);
        tally.answered(0, us(10));
        tally.answered(1, us(20));
        tally.answered(1, us(30));
        tally.unanswered(1, us(40));
        tally.unsent(None, 50_000, 3);
        tally.unsent(Some(0), 60_000, 1);
        let measured = tally.so_far(start + Duration::from_secs(2)).unwrap();
        assert_eq!((measured.calls, measured.unanswered, measured.latencies.len()), (3, 5, 8));
        assert_eq!((measured.elapsed.as_secs(), measured.rate()), (2, 1.5));
        let parts: Vec<_> = measured.parts.iter().map(|p| (p.calls, p.latencies.len())).collect();
        assert_eq!(parts, [(1, 2), (2, 3)]);
        assert!(measured.quantile_us(1.0) >= 60.0);
    }
}
