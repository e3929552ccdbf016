//! One measurement: a load on a server, with a warm-up that does not count, and the server's bill.

use std::io;
use std::time::Duration;

use rumpring::url::Url;

use crate::bill::{Bill, Usage};
use crate::counters::{Counters, Teller};
use crate::load::{Load, Measured, Plan};
use crate::memory::resident_kib;

/// Where a server's bill is found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Books<'a> {
    /// Its process, if that is known.
    pub pid: Option<u32>,
    /// The same, if it prints counters when asked.
    pub teller: Option<Teller<'a>>,
}

/// What a load and its server have shown.
pub struct Measurement {
    pub load: Measured,
    /// What it cost the server, if it is known which process that is.
    pub bill: Option<Bill>,
    /// What the server held, if that can be read.
    pub holdings: Option<Holdings>,
    /// `io_uring_enter` calls of the server for a call, if it tells.
    pub enters: Option<f64>,
}

/// What a server's process held under a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// KiB of resident user memory before the load connected.
    pub memory_before: u64,
    /// The same right after the measured time, with the load's connections open.
    pub memory: u64,
    /// Threads, at that moment too.
    pub threads: usize,
}

impl Measurement {
    /// Microseconds of the server's CPU time for a call.
    pub fn cpu_us(&self) -> Option<f64> {
        Some(self.bill?.cpu.as_secs_f64() * 1e6 / self.load.calls.max(1) as f64)
    }

    /// Context switches of the server for a call.
    pub fn switches(&self) -> Option<f64> {
        Some(self.bill?.switches as f64 / self.load.calls.max(1) as f64)
    }
}

/// Connects, warms up, and measures for this long.
pub fn measure(
    url: &Url,
    plan: Plan,
    warm_up: Duration,
    length: Duration,
    books: Books<'_>,
) -> io::Result<Measurement> {
    let usage = || books.pid.map(Usage::of).transpose().map_err(in_the_bill);
    let counters = || books.teller.map(Counters::ask).transpose().map_err(in_the_bill);
    // That of a process of somebody else cannot be read, though the rest can.
    let memory = || books.pid.and_then(|pid| resident_kib(pid).ok());
    let memory_before = memory();
    let mut load = Load::connect(url, plan)?;
    load.run(warm_up)?;
    let (counted, before) = (counters()?, usage()?);
    let measured = load.run(length)?;
    let after = usage()?;
    let enters = counters()?.zip(counted).and_then(|(after, before)| after.enters_per_call(before));
    let held = after.as_ref().map(Usage::threads).zip(memory().zip(memory_before));
    let holdings =
        held.map(|(threads, (memory, memory_before))| Holdings { memory_before, memory, threads });
    let bill = after.zip(before).map(|(after, before)| after.since(&before));
    Ok(Measurement { load: measured, bill, holdings, enters })
}

fn in_the_bill(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the server's bill: {error}"))
}
