//! One measurement: a load on a server, with a warm-up that does not count, and the server's cost.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumpsp::url::Url;

use crate::counters::{Counters, Teller};
use crate::cpu_usage::{CpuUsage, Usage};
use crate::load::{Load, Measured, Plan, Settings, Watch};
use crate::memory::resident_kib;
use crate::progress::Progress;

/// The sources of a server's cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Books<'a> {
    /// The server's process, if it is known.
    pub pid: Option<u32>,
    /// The server's process, if it prints counters when asked.
    pub teller: Option<Teller<'a>>,
}

/// The results of a load and its server.
pub struct Measurement {
    pub load: Measured,
    /// The server's CPU time, if its process is known.
    pub cpu_usage: Option<CpuUsage>,
    /// The server's memory and threads, if they can be read.
    pub holdings: Option<Holdings>,
    /// `io_uring_enter` calls of the server for a call, if the server prints counters.
    pub enters: Option<f64>,
    /// The number of threads that made the load, and the number of processes they were in.
    pub threads: u32,
    pub processes: u32,
}

/// The resources that a server's process held under a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// KiB of resident user memory before the load connected.
    pub memory_before: u64,
    /// KiB right after the measured time, with the load's connections open.
    pub memory: u64,
    /// The number of threads, at that moment too.
    pub threads: usize,
}

impl Measurement {
    /// Returns the microseconds of the server's CPU time for a call.
    pub fn cpu_us(&self) -> Option<f64> {
        Some(self.cpu_usage?.cpu.as_secs_f64() * 1e6 / self.load.calls.max(1) as f64)
    }

    /// Returns the context switches of the server for a call.
    pub fn switches(&self) -> Option<f64> {
        Some(self.cpu_usage?.switches as f64 / self.load.calls.max(1) as f64)
    }
}

/// Connects, warms up, and measures for this long.
pub fn measure(
    url: &Url,
    plan: Plan,
    settings: &Settings,
    warm_up: Duration,
    length: Duration,
    mut onlooker: Onlooker<'_>,
) -> io::Result<Measurement> {
    let memory_before = onlooker.memory();
    let load = Load::connect(url, plan, settings, &onlooker)?;
    let (threads, processes) = load.threads_and_processes();
    let measured = load.run(warm_up, length, &mut onlooker)?;
    let mut measurement = Measurement {
        load: measured,
        cpu_usage: None,
        holdings: None,
        enters: None,
        threads,
        processes,
    };
    if let (Some(before), Some(after)) = (&onlooker.before, &onlooker.after) {
        measurement.cpu_usage = after.bill_since(before);
        measurement.enters = after.enters_since(before);
        measurement.holdings = after.holdings(memory_before, onlooker.memory_after);
    }
    Ok(measurement)
}

/// The observer of a measurement: it reads the server's costs, checks for interrupts, and shows
/// progress.
pub struct Onlooker<'a> {
    books: Books<'a>,
    before: Option<Entry>,
    after: Option<Entry>,
    memory_after: Option<u64>,
    interrupted: &'a AtomicBool,
    progress: Option<&'a Progress>,
}

/// The server's costs at one moment.
struct Entry {
    usage: Option<Usage>,
    counters: Option<Counters>,
}

impl Entry {
    fn of(books: Books<'_>) -> io::Result<Entry> {
        // The usage comes first: it must be that of the load's time, while counters have their own
        // count of calls.
        let usage = books.pid.map(Usage::of).transpose().map_err(in_the_bill)?;
        let counters = books.teller.map(Counters::ask).transpose().map_err(in_the_bill)?;
        Ok(Entry { usage, counters })
    }

    fn bill_since(&self, before: &Entry) -> Option<CpuUsage> {
        Some(self.usage.as_ref()?.since(before.usage.as_ref()?))
    }

    fn enters_since(&self, before: &Entry) -> Option<f64> {
        self.counters?.enters_per_call(before.counters?)
    }

    fn holdings(&self, memory_before: Option<u64>, memory: Option<u64>) -> Option<Holdings> {
        let threads = self.usage.as_ref()?.threads();
        Some(Holdings { memory_before: memory_before?, memory: memory?, threads })
    }
}

fn in_the_bill(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the server's bill: {error}"))
}

impl<'a> Onlooker<'a> {
    /// Makes an observer that reads these books, and ends the load when `interrupted` is set.
    pub fn new(books: Books<'a>, interrupted: &'a AtomicBool) -> Onlooker<'a> {
        let progress = None;
        Onlooker { books, before: None, after: None, memory_after: None, interrupted, progress }
    }

    /// Adds a progress display.
    pub fn with_progress(self, progress: Option<&'a Progress>) -> Onlooker<'a> {
        Onlooker { progress, ..self }
    }

    /// Returns the KiB that the server has resident. Another user's process does not show them, though
    /// it shows the other costs.
    fn memory(&self) -> Option<u64> {
        resident_kib(self.books.pid?).ok()
    }
}

impl Watch for Onlooker<'_> {
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn begins(&mut self) -> io::Result<()> {
        self.before = Some(Entry::of(self.books)?);
        Ok(())
    }

    fn ends(&mut self) -> io::Result<()> {
        self.after = Some(Entry::of(self.books)?);
        self.memory_after = self.memory();
        Ok(())
    }

    fn so_far(&mut self, measured: &Measured, elapsed: Duration) -> io::Result<()> {
        if let Some(progress) = self.progress {
            progress.show(measured, elapsed);
        }
        Ok(())
    }
}
