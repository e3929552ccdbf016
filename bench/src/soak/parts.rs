//! Runs all parts of a soak at once, and samples the server now and then.

use std::io;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::busy::keep_busy;
use super::canary::{self, Seen};
use super::run::{Counts, Run};
use super::sample::Sample;
use super::{churn, clock, hostile, victims};
use crate::compare::Server;
use crate::load::{Measured, Plan};

/// The longest that a part may take to end. Clients give up on an answer earlier than that.
const OVERDUE: Duration = Duration::from_secs(90);

/// The time between two looks at a condition.
const POLL: Duration = Duration::from_millis(250);

/// The number of clients of each kind.
#[derive(Clone, Debug)]
pub struct Cast {
    pub plan: Plan,
    pub rate: u64,
    pub hostile: usize,
    /// The text that the names of the attacks to run contain.
    pub attacks: String,
    pub churn: usize,
    pub victims: usize,
}

/// The results of all parts.
pub struct Done {
    pub samples: Vec<Sample>,
    pub load: Measured,
    pub canary: Seen,
    /// The latencies, in nanoseconds, of waking a thread that only slept.
    pub clock: Histogram<u64>,
    pub counts: Vec<(&'static str, Counts)>,
}

/// Runs all parts until the end, which comes early if the server has ended.
pub fn run_all(
    run: &Run,
    cast: &Cast,
    server: &mut Server,
    every: Duration,
    look: impl FnMut(&Sample),
) -> io::Result<Done> {
    std::thread::scope(|scope| {
        let load = start(scope, "load", || keep_busy(run, cast.plan, cast.rate))?;
        let canary = start(scope, "canary", || canary::sing(run))?;
        let clock = start(scope, "clock", || clock::tick(run))?;
        let counted = [
            ("churn", start(scope, "churn", || churn::come_and_go(run, cast.churn))?),
            ("victims", start(scope, "victims", || victims::kill(run, cast.victims))?),
            (
                "hostile",
                start(scope, "hostile", || hostile::attack(run, cast.hostile, &cast.attacks))?,
            ),
        ];
        let samples = watch(run, server, every, look);
        let is_done = || {
            let are_counted_done = counted.iter().all(|(_, thread)| thread.is_finished());
            load.is_finished() && canary.is_finished() && are_counted_done
        };
        if !becomes_true(OVERDUE, is_done) {
            run.wrong("soak", format!("not all clients have ended after {OVERDUE:?}"));
            server.kill();
        }
        Ok(Done {
            samples,
            load: join(load)?,
            canary: join(canary)?,
            clock: join(clock)?,
            counts: counted.into_iter().map(|(name, thread)| (name, join(thread))).collect(),
        })
    })
}

/// Takes samples until the run is over or the server has ended.
fn watch(
    run: &Run,
    server: &mut Server,
    every: Duration,
    mut look: impl FnMut(&Sample),
) -> Vec<Sample> {
    let mut samples = Vec::new();
    loop {
        let start = Instant::now();
        match Sample::take(server.books(), &server.url, run.elapsed().as_secs_f64()) {
            Ok(sample) => {
                look(&sample);
                samples.push(sample);
            }
            Err(_) if has_ended(run, server) => return samples,
            Err(error) => run.wrong("server", format!("nothing to be seen of it: {error}")),
        }
        while start.elapsed() < every {
            if has_ended(run, server) {
                return samples;
            }
            let left = every.saturating_sub(start.elapsed());
            if !run.sleep(left.min(Duration::from_millis(200))) {
                return samples;
            }
        }
    }
}

/// Returns `true` if the server has ended, which ends the soak.
fn has_ended(run: &Run, server: &mut Server) -> bool {
    let how = match server.has_ended() {
        Ok(None) => return false,
        Ok(Some(status)) => format!("it has ended: {status}"),
        Err(error) => format!("it cannot be waited for: {error}"),
    };
    run.give_up();
    run.wrong("server", server.explain(&io::Error::other(how)));
    true
}

fn start<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    part: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().name(name.into()).spawn_scoped(scope, part)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Polls a condition until it is true or `time` has passed.
pub fn becomes_true(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > time {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
