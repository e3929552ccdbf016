//! `rumpring-bench URL`: one load on a server that runs already.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rumpring::url::Url;

use crate::histogram::{self, About};
use crate::interrupt;
use crate::load::{Plan, Settings};
use crate::measure::{Books, Measurement, Onlooker, measure};
use crate::progress::Progress;
use crate::workload::{self, Call};

#[derive(Args)]
pub struct Once {
    /// The server's URL.
    #[arg(env = "RUMP_SERVER", value_name = "URL", required = true)]
    url: Option<Url>,

    /// What to call.
    ///
    /// getpid; read:SIZE and pwrite:SIZE, as in read:4k, of a file of the connection's own; copyinstr: open
    /// and close of such a file; pipe: a byte to and fro between connections that share pipes; fork; connect:
    /// connect, shake hands, hang up; mixed, or mixed:getpid=60+read:4k=20 for parts and weights of your own.
    /// Files are in the root of the server's kernel and go when the load ends.
    #[arg(long, value_name = "CALL", default_value = "getpid")]
    call: Call,

    /// How many connections.
    #[arg(short, long, default_value = "64", value_parser = workload::connections_from)]
    connections: u32,

    /// How many calls each keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

    /// How many calls a second, of all connections; without, as many as are answered.
    ///
    /// They are made on a fixed schedule, whether those before are answered or not, and their latency counts
    /// from when they were due.
    #[arg(short, long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,

    /// How many threads make the load.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// How many microseconds a load thread looks for answers before it sleeps, as long as that pays: an
    /// answer is seen sooner, and more of a CPU is used.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    spin: u64,

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

    /// Print a JSON object.
    #[arg(long)]
    json: bool,

    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,

    /// How many open files each process of the load may have.
    #[arg(long, hide = true)]
    files: Option<u64>,
}

impl Once {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        let url = self.url.as_ref().ok_or("no URL")?;
        let result = self.measure(url)?;
        if result.load.is_cut_short && result.load.elapsed.is_zero() {
            return Err("ended while warming up: nothing was measured".into());
        }
        if let Some(file) = &self.histogram {
            let Plan { call, connections, in_flight } = self.plan();
            let words = format!("{call} {connections} x {in_flight}");
            histogram::write(
                file,
                &result.load.latencies,
                &About { words, length: result.load.elapsed },
            )?;
        }
        let asked = report::Asked { url, plan: self.plan(), rate: self.rate };
        if self.json {
            println!("{:#}", report::json(&asked, &result));
        } else {
            print!("{}", report::text(&asked, &result));
        }
        Ok(())
    }

    fn measure(&self, url: &Url) -> std::io::Result<Measurement> {
        let interrupted = interrupt::flag(|| ())?;
        let total = self.warm_up + self.seconds;
        let progress = if self.quiet { None } else { Progress::of(total) };
        let settings = Settings {
            threads: self.threads,
            rate: self.rate,
            spin: Duration::from_micros(self.spin),
            progress: progress.as_ref().map(Progress::every),
            files: self.files,
        };
        let books = Books { pid: self.pid, teller: None };
        let onlooker = Onlooker::new(books, &interrupted).with_progress(progress.as_ref());
        measure(url, self.plan(), &settings, self.warm_up, self.seconds, onlooker)
    }

    fn plan(&self) -> Plan {
        let Once { call, connections, in_flight, .. } = *self;
        Plan { call, connections, in_flight }
    }
}

/// A time from nothing to a day.
pub fn seconds_from(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no number of seconds from 0 to 86400")),
    }
}
