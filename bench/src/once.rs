//! `rumpring-bench URL`: one load on a server that runs already.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rumpring::url::Url;

use crate::histogram::{self, About};
use crate::load::Plan;
use crate::measure::{Books, Holdings, measure};
use crate::workload::{self, Call};

#[derive(Args)]
pub struct Once {
    /// The server's URL.
    #[arg(env = "RUMP_SERVER", value_name = "URL", required = true)]
    url: Option<Url>,

    /// What to call: getpid, read:SIZE or pwrite:SIZE, as in read:4k. Files are in the root of the
    /// server's kernel and go with their connection.
    #[arg(long, value_name = "CALL", default_value = "getpid")]
    call: Call,

    /// How many connections.
    #[arg(short, long, default_value = "64", value_parser = workload::connections_from)]
    connections: u32,

    /// How many calls each keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

    /// For how many seconds.
    #[arg(short, long, default_value = "5", value_parser = seconds_from)]
    seconds: Duration,

    /// For how many seconds before that, which do not count.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds_from)]
    warm_up: Duration,

    /// The server's process, to say what a call costs it.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Write all latencies to this HdrHistogram log, and to it with .hgrm behind the text that
    /// HdrHistogram's plotters read.
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
}

impl Once {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let url = self.url.as_ref().ok_or("no URL")?;
        let Once { call, connections, in_flight, .. } = *self;
        let plan = Plan { call, connections, in_flight };
        let books = Books { pid: self.pid, ..Books::default() };
        let result = measure(url, plan, self.warm_up, self.seconds, books)?;
        let load = &result.load;
        let rate = load.rate();
        println!("{call} {connections} connections {in_flight} in flight: {rate:.0} calls/s");
        let us = |quantile| load.quantile_us(quantile);
        println!(
            "latency us: p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} p99.99 {:.1} max {:.1}",
            us(0.5),
            us(0.9),
            us(0.99),
            us(0.999),
            us(0.9999),
            us(1.0)
        );
        if let (Some(cpu), Some(switches)) = (result.cpu_us(), result.switches()) {
            println!("server: {cpu:.2} us of CPU and {switches:.3} context switches a call");
        }
        if let Some(Holdings { memory_before, memory, threads }) = result.holdings {
            println!(
                "server: {memory_before} KiB of user memory before, {memory} KiB with the load, \
                 {threads} threads"
            );
        }
        if let Some(file) = &self.histogram {
            let words = format!("{call} {connections} x {in_flight}");
            let about = About { words, length: load.elapsed };
            histogram::write(file, &load.latencies, &about)?;
        }
        println!("client: busy {:.0} % of one CPU", load.client_busy * 100.0);
        Ok(())
    }
}

/// A time from nothing to a day.
pub fn seconds_from(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no number of seconds from 0 to 86400")),
    }
}
