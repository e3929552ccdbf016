//! The load: connections that are kept busy by threads, of one process or more.
//!
//! A [`Plan`] is divided into [`share`]s, one for each thread. A thread is an [`engine`]: a ring, with
//! a [`dialer`] for its connections, a [`tally`] of answers, and a [`pace`] if calls are to be made at
//! a given rate. Where the open files of one process do not suffice ([`room`]), the load has several
//! processes: [`process`] starts them, [`worker`] is the code they run, [`frame`] the format of their
//! reports. [`Load`] treats threads and processes alike as [`member`]s, whose results ([`measured`]) it
//! adds up. [`args`] has the command line options.

mod args;
mod dialer;
mod engine;
mod frame;
mod measured;
mod member;
mod pace;
mod process;
mod room;
mod share;
mod tally;
mod worker;

pub use args::LoadArgs;
pub use measured::{Measured, Part, histogram};
pub use worker::Worker;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rumpsp::url::Url;

use crate::connection::PATIENCE;
use crate::workload::Call;
use engine::{Run, Task};
use member::{Member, Report};
use share::Share;

/// The time between two looks for an interrupt.
const TICK: Duration = Duration::from_millis(50);

/// The time before their start at which threads, and processes, are told of it.
const HEAD_START: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// The most calls in flight of a load.
const MAX_IN_FLIGHT: u64 = 16 << 20;

/// A load, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub call: Call,
    pub connections: u32,
    pub in_flight: u32,
}

/// The settings of a load.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Threads in all.
    pub threads: u32,
    /// Calls a second in all; with `None`, a call follows as soon as the one before is answered.
    pub rate: Option<u64>,
    /// The time a thread looks for answers before it sleeps.
    pub spin: Duration,
    /// The time between two progress reports.
    pub progress: Option<Duration>,
    /// The most open files of one process, if the limit is to be lowered.
    pub files: Option<u64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { threads: 1, rate: None, spin: Duration::ZERO, progress: None, files: None }
    }
}

/// An observer of a running load.
pub trait Watch {
    /// Returns `true` if the load is to end now.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Called at the end of the warm-up.
    fn begins(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called at the end of the time. Not called if the warm-up was not over.
    fn ends(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called with the results so far, and the time since the start, warm-up included.
    fn so_far(&mut self, _measured: &Measured, _elapsed: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// A load whose connections are made.
pub struct Load {
    members: Vec<Member>,
    reports: Receiver<(usize, Report)>,
    parts: usize,
    threads: u32,
    processes: u32,
}

impl Load {
    /// Connects. Starts more processes of this program if one process may not have enough open files.
    pub fn connect(
        url: &Url,
        plan: Plan,
        settings: &Settings,
        watch: &impl Watch,
    ) -> io::Result<Load> {
        let Plan { call, connections, in_flight } = plan;
        call.check(connections).map_err(invalid)?;
        if settings.rate.is_some() {
            call.check_rate().map_err(invalid)?;
        }
        if u64::from(connections) * u64::from(in_flight) > MAX_IN_FLIGHT {
            return Err(invalid(format!("more than {MAX_IN_FLIGHT} calls in flight in all")));
        }
        let files = crate::files::raise(settings.files)?;
        let processes = room::processes(plan, files).map_err(invalid)?;
        let all = Share { first: 0, count: connections };
        let task = task(url, plan, settings, all);
        if processes == 1 {
            return Load::of_threads(&task, settings.threads, watch);
        }
        let threads = settings.threads.div_ceil(processes);
        let shares = all.divide(processes, unit(call));
        let start = |number: usize, reports: &SyncSender<_>| {
            let task = Task { share: shares[number], ..task.clone() };
            Ok(Member::Process(process::start(&task, threads, number, reports)?))
        };
        let mut load = Load::of(shares.len(), call, start)?;
        // With few connections some threads may have none.
        let counts = shares.iter().map(|share| share.divide(threads, unit(call)).len() as u32);
        (load.threads, load.processes) = (counts.sum(), shares.len() as u32);
        load.wait_until_ready(watch)?;
        Ok(load)
    }

    /// Connects on threads of this process.
    fn of_threads(task: &Task, threads: u32, watch: &impl Watch) -> io::Result<Load> {
        let call = task.plan.call;
        let shares = task.share.divide(threads, unit(call));
        let start = |number: usize, reports: &SyncSender<_>| {
            let task = Task { share: shares[number], ..task.clone() };
            Ok(Member::Thread(member::start(task, number, reports)?))
        };
        let mut load = Load::of(shares.len(), call, start)?;
        load.threads = shares.len() as u32;
        load.wait_until_ready(watch)?;
        Ok(load)
    }

    /// Starts all members.
    fn of(
        count: usize,
        call: Call,
        start: impl Fn(usize, &SyncSender<(usize, Report)>) -> io::Result<Member>,
    ) -> io::Result<Load> {
        let (sender, reports) = sync_channel(count * 4);
        let parts = call.parts().len();
        let mut load = Load { members: Vec::new(), reports, parts, threads: 0, processes: 1 };
        for number in 0..count {
            load.members.push(start(number, &sender)?);
        }
        Ok(load)
    }

    /// Returns the number of threads that make the calls, and the number of processes they are in.
    pub fn threads_and_processes(&self) -> (u32, u32) {
        (self.threads, self.processes)
    }

    fn wait_until_ready(&mut self, watch: &impl Watch) -> io::Result<()> {
        let mut ready = 0;
        while ready < self.members.len() {
            if watch.is_interrupted() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "ended while connecting"));
            }
            match self.report(TICK)? {
                Some((_, Report::Ready)) => ready += 1,
                Some((number, report)) => return Err(self.surprise(number, &report)),
                None => {}
            }
        }
        Ok(())
    }

    /// Makes calls, counts them when the warm-up is over, and ends: the connections cannot be used
    /// afterwards.
    pub fn run(
        mut self,
        warm_up: Duration,
        length: Duration,
        watch: &mut impl Watch,
    ) -> io::Result<Measured> {
        let start = Instant::now() + HEAD_START[usize::from(self.processes > 1)];
        self.run_from(Run { start, warm_up, length }, watch)
    }

    /// Runs as [`Load::run`] does, and begins at `run.start`. The connections stay until this is
    /// dropped.
    fn run_from(&mut self, run: Run, watch: &mut impl Watch) -> io::Result<Measured> {
        self.go(run)?;
        let Run { start, warm_up, length } = run;
        let (warm, end) = (start + warm_up, start + warm_up + length);
        let mut so_far = vec![None; self.members.len()];
        let (mut done, mut has_begun, mut has_ended, mut is_stopped) = (0, false, false, false);
        while done < self.members.len() {
            let now = Instant::now();
            if !has_begun && now >= warm {
                has_begun = true;
                watch.begins()?;
            }
            if has_begun && !has_ended && (now >= end || done > 0) {
                has_ended = true;
                watch.ends()?;
            }
            if !is_stopped && watch.is_interrupted() {
                is_stopped = true;
                self.members.iter_mut().for_each(Member::stop);
            }
            if now > end + PATIENCE * 2 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the load does not end"));
            }
            let next = if has_begun { end } else { warm };
            let patience = next.checked_duration_since(now).filter(|left| !left.is_zero());
            match self.report(patience.map_or(TICK, |left| left.min(TICK)))? {
                Some((number, Report::Progress(measured))) => {
                    so_far[number] = Some(measured);
                    watch.so_far(&self.sum(&so_far)?, start.elapsed())?;
                }
                Some((number, Report::Done(measured))) => {
                    so_far[number] = Some(measured);
                    done += 1;
                }
                Some((number, report)) => return Err(self.surprise(number, &report)),
                None => {}
            }
        }
        if has_begun && !has_ended {
            watch.ends()?;
        }
        self.sum(&so_far)
    }

    fn go(&mut self, run: Run) -> io::Result<()> {
        for number in 0..self.members.len() {
            if let Err(error) = self.members[number].go(run) {
                // The member's own report says best why it is gone.
                return match self.report(TICK)? {
                    Some((number, report)) => Err(self.surprise(number, &report)),
                    None => Err(error),
                };
            }
        }
        Ok(())
    }

    /// Returns the next report, if one comes in time. A report of failure is an error.
    fn report(&mut self, patience: Duration) -> io::Result<Option<(usize, Report)>> {
        match self.reports.recv_timeout(patience) {
            Ok((number, Report::Failed(why))) => {
                let name = self.members[number].name(number, self.members.len());
                let end = self.members[number].how_it_ended();
                Err(io::Error::other(format!("{name}{why}{end}")))
            }
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("all load threads have ended"))
            }
        }
    }

    fn surprise(&self, number: usize, report: &Report) -> io::Error {
        let name = self.members[number].name(number, self.members.len());
        io::Error::other(format!("{name}it said {report:?} when nobody had asked"))
    }

    fn sum(&self, measured: &[Option<Measured>]) -> io::Result<Measured> {
        let mut all = Measured::nothing(self.parts)?;
        for one in measured.iter().flatten() {
            all.add(one)?;
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::stop);
        self.members.iter_mut().for_each(Member::dismiss);
        self.members.drain(..).for_each(Member::end);
    }
}

/// Returns the number of connections that must stay together.
fn unit(call: Call) -> u32 {
    if call.is_in_pairs() { 2 } else { 1 }
}

fn task(url: &Url, plan: Plan, settings: &Settings, share: Share) -> Task {
    let Settings { rate, spin, progress, .. } = *settings;
    Task { url: url.clone(), plan, share, rate, spin, progress }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use embedded::Embedded;
    use rumpring::server::{Config, Running};

    use super::*;

    /// An observer that counts the server's connections at the end, and takes time for that.
    struct Counter {
        server: Running,
        seen: Option<u64>,
    }

    impl Watch for Counter {
        fn ends(&mut self) -> io::Result<()> {
            std::thread::sleep(Duration::from_millis(100));
            self.seen = Some(self.server.control().stats().unwrap().core.connections as u64);
            Ok(())
        }
    }

    #[test]
    fn connections_stay_until_whoever_looks_on_has_looked() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(Url::Unix(dir.path().join("s")));
        config.ring.sockets = 64;
        let server = Running::start(config, Arc::new(Embedded::default())).unwrap();
        let plan = Plan { call: Call::Getpid, connections: 6, in_flight: 1 };
        let settings = Settings { threads: 2, ..Settings::default() };
        let url = server.url().clone();
        let mut counter = Counter { server, seen: None };
        let load = Load::connect(&url, plan, &settings, &counter).unwrap();
        let measured = load.run(Duration::ZERO, Duration::from_millis(500), &mut counter).unwrap();
        assert!(measured.calls > 0);
        assert_eq!(counter.seen, Some(6));
    }
}
