//! One measurement: a load on a server, with a warm-up that does not count, and the server's bill.

use std::io;
use std::time::Duration;

use rumpring::url::Url;

use crate::bill::{Bill, Usage};
use crate::load::{Load, Measured, Plan};

/// What a load and its server have shown.
pub struct Measurement {
    pub load: Measured,
    /// What it cost the server, if it is known which process that is.
    pub bill: Option<Bill>,
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
    let usage = || {
        pid.map(Usage::of)
            .transpose()
            .map_err(|error| io::Error::new(error.kind(), format!("the server's bill: {error}")))
    };
    let mut load = Load::connect(url, plan)?;
    load.run(warm_up)?;
    let before = usage()?;
    let measured = load.run(length)?;
    let bill = usage()?.zip(before).map(|(after, before)| after.since(&before));
    Ok(Measurement { load: measured, bill })
}
