//! One measurement: a load on a server, with a warm-up that does not count, and the server's bill.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumpring::url::Url;

use crate::bill::{Bill, Usage};
use crate::load::{Load, Measured, Plan, Settings, Watch};
use crate::progress::Progress;

/// What a load and its server have shown.
pub struct Measurement {
    pub load: Measured,
    /// What it cost the server, if it is known which process that is.
    pub bill: Option<Bill>,
    /// How many threads made the load, and in how many processes.
    pub threads: u32,
    pub processes: u32,
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
    pid: Option<u32>,
) -> io::Result<Measurement> {
    measure_with(url, plan, &Settings::default(), warm_up, length, &mut Onlooker::new(pid))
}

/// As [`measure`], with a load made as it is set, and somebody who may end it early.
pub fn measure_with(
    url: &Url,
    plan: Plan,
    settings: &Settings,
    warm_up: Duration,
    length: Duration,
    onlooker: &mut Onlooker<'_>,
) -> io::Result<Measurement> {
    let load = Load::connect(url, plan, settings, onlooker)?;
    let (threads, processes) = load.threads_and_processes();
    let measured = load.run(warm_up, length, onlooker)?;
    Ok(Measurement { load: measured, bill: onlooker.bill(), threads, processes })
}

/// Who looks on: at the server's use of the CPU, at interrupts, and at the progress.
pub struct Onlooker<'a> {
    pid: Option<u32>,
    before: Option<Usage>,
    after: Option<Usage>,
    interrupted: Option<&'a AtomicBool>,
    progress: Option<&'a Progress>,
}

impl<'a> Onlooker<'a> {
    /// Who looks at this server process only.
    pub fn new(pid: Option<u32>) -> Onlooker<'a> {
        Onlooker { pid, before: None, after: None, interrupted: None, progress: None }
    }

    /// And has the load end when this is raised.
    pub fn with_interrupt(self, interrupted: &'a AtomicBool) -> Onlooker<'a> {
        Onlooker { interrupted: Some(interrupted), ..self }
    }

    /// And shows how far it has come.
    pub fn with_progress(self, progress: Option<&'a Progress>) -> Onlooker<'a> {
        Onlooker { progress, ..self }
    }

    fn usage(&self) -> io::Result<Option<Usage>> {
        let usage = self.pid.map(Usage::of).transpose();
        usage.map_err(|error| io::Error::new(error.kind(), format!("the server's bill: {error}")))
    }

    fn bill(&self) -> Option<Bill> {
        Some(self.after.as_ref()?.since(self.before.as_ref()?))
    }
}

impl Watch for Onlooker<'_> {
    fn is_interrupted(&self) -> bool {
        self.interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn begins(&mut self) -> io::Result<()> {
        self.before = self.usage()?;
        Ok(())
    }

    fn ends(&mut self) -> io::Result<()> {
        self.after = self.usage()?;
        Ok(())
    }

    fn so_far(&mut self, measured: &Measured, elapsed: Duration) -> io::Result<()> {
        if let Some(progress) = self.progress {
            progress.show(measured, elapsed);
        }
        Ok(())
    }
}
