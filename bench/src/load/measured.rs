//! The results of a run, and the sum of several runs' results.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::histogram::us;

/// The longest latency that is recorded exactly; longer ones count as this one.
const LONGEST: Duration = Duration::from_secs(2 * 86_400);

/// The results of a run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Calls answered.
    pub calls: u64,
    pub elapsed: Duration,
    /// The latency of each call, in nanoseconds. At a given rate, calls that were not answered are
    /// included.
    pub latencies: Histogram<u64>,
    /// The fraction of the time that the busiest load thread was on a CPU. Near 1, the load was
    /// measured and not the server.
    pub client_busy: f64,
    /// CPU time of all load threads.
    pub client_cpu: Duration,
    /// Calls that were due and had no answer when the time was up: only at a given rate.
    pub unanswered: u64,
    /// True if the run was ended before its time.
    pub is_cut_short: bool,
    /// The parts of the load, in its order, if it has parts.
    pub parts: Vec<Part>,
}

/// The results of one part of a load.
#[derive(Clone, Debug)]
pub struct Part {
    /// Calls answered.
    pub calls: u64,
    /// The latency of each call, in nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Measured {
    /// Returns an empty result of a load of `parts` parts.
    pub fn nothing(parts: usize) -> io::Result<Measured> {
        let parts: io::Result<Vec<Part>> = (0..parts).map(|_| Part::nothing()).collect();
        Ok(Measured {
            calls: 0,
            elapsed: Duration::ZERO,
            latencies: histogram()?,
            client_busy: 0.0,
            client_cpu: Duration::ZERO,
            unanswered: 0,
            is_cut_short: false,
            parts: parts?,
        })
    }

    /// Adds the results of another run in the same time.
    pub fn add(&mut self, other: &Measured) -> io::Result<()> {
        self.calls += other.calls;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies.add(&other.latencies).map_err(io::Error::other)?;
        self.client_busy = self.client_busy.max(other.client_busy);
        self.client_cpu += other.client_cpu;
        self.unanswered += other.unanswered;
        self.is_cut_short |= other.is_cut_short;
        if self.parts.len() != other.parts.len() {
            return Err(io::Error::other("measurements of different loads"));
        }
        for (part, other) in self.parts.iter_mut().zip(&other.parts) {
            part.calls += other.calls;
            part.latencies.add(&other.latencies).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Returns the calls answered a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the calls answered a second in one part of the load.
    pub fn rate_of(&self, part: &Part) -> f64 {
        part.calls as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the microseconds that this fraction of the calls did not exceed.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        us(&self.latencies, quantile)
    }

    /// Returns the microseconds of the load's own CPU time for a call.
    pub fn client_cpu_us(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.calls.max(1) as f64
    }
}

impl Part {
    pub fn nothing() -> io::Result<Part> {
        Ok(Part { calls: 0, latencies: histogram()? })
    }
}

/// Returns an empty histogram of latencies in nanoseconds. All have the same bounds, so that they can
/// be added.
pub fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_max(LONGEST.as_nanos() as u64, 3).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(calls: u64, latency: u64, parts: usize) -> Measured {
        let mut measured = Measured::nothing(parts).unwrap();
        measured.calls = calls;
        measured.elapsed = Duration::from_secs(calls);
        measured.latencies.record_n(latency, calls).unwrap();
        for part in &mut measured.parts {
            part.calls = calls;
            part.latencies.record_n(latency, calls).unwrap();
        }
        measured.client_busy = calls as f64 / 10.0;
        measured.client_cpu = Duration::from_millis(calls);
        measured.unanswered = calls;
        measured
    }

    #[test]
    fn sums_are_of_calls_and_the_longest_time() {
        let mut all = measured(1, 1000, 2);
        all.add(&measured(3, 5000, 2)).unwrap();
        assert_eq!((all.calls, all.unanswered, all.elapsed.as_secs()), (4, 4, 3));
        assert_eq!((all.latencies.len(), all.client_cpu.as_millis()), (4, 4));
        assert_eq!(all.client_busy, 0.3);
        assert!((4.9..5.1).contains(&all.quantile_us(0.5)) && all.quantile_us(0.25) < 1.1);
        assert!(all.parts.iter().all(|part| (part.calls, part.latencies.len()) == (4, 4)));
        assert!(all.add(&measured(1, 1, 3)).is_err());
    }
}
