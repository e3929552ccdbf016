//! `rumpring-bench URL`: one load on a server that runs already.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rumpring::output;
use rumpsp::url::Url;

use crate::histogram::{self, About};
use crate::interrupt;
use crate::load::{LoadArgs, Plan, Settings};
use crate::measure::{Books, Measurement, Onlooker, measure};
use crate::progress::Progress;
use crate::workload::{self, Call};

#[derive(Args)]
pub struct Once {
    /// The server's URL.
    #[arg(env = "RUMP_SERVER", value_name = "URL", required = true)]
    url: Option<Url>,

    /// The call to make.
    ///
    /// getpid; read:SIZE and pwrite:SIZE, as in read:4k, of a file of the connection's own; copyinstr: open
    /// and close of such a file; pipe: a byte to and fro between connections that share pipes; fork; connect:
    /// connect, shake hands, hang up; mixed, or mixed:getpid=60+read:4k=20 for parts and weights of your own;
    /// fair: getpid of all connections but one, which makes one call every 10 ms and is counted apart.
    /// Files are in the root of the server's kernel and go when the load ends.
    #[arg(long, value_name = "CALL", default_value = "getpid")]
    call: Call,

    /// Number of connections.
    #[arg(short, long, default_value = "64", value_parser = workload::connections_from)]
    connections: u32,

    /// Number of calls each connection keeps in flight.
    #[arg(short, long, default_value = "1", value_parser = workload::in_flight_from)]
    in_flight: u32,

    #[command(flatten)]
    load: LoadArgs,

    /// Seconds to measure.
    #[arg(short, long, default_value = "5", value_parser = some_seconds_from)]
    seconds: Duration,

    /// Seconds of warm-up before that, which do not count.
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

    /// Number of open files each process of the load may have.
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
        let asked = report::Asked { url, plan: self.plan(), rate: self.load.rate };
        output::print(match self.json {
            true => format!("{:#}\n", report::json(&asked, &result)),
            false => report::text(&asked, &result).to_string(),
        })?;
        if let Some(file) = &self.histogram {
            let Plan { call, connections, in_flight } = self.plan();
            let words = format!("{call} {connections} x {in_flight}");
            let about = About { words, length: result.load.elapsed };
            histogram::write(file, &result.load.latencies, &about)?;
        }
        Ok(())
    }

    fn measure(&self, url: &Url) -> std::io::Result<Measurement> {
        let interrupted = interrupt::flag(|| ())?;
        let total = self.warm_up + self.seconds;
        let progress = if self.quiet { None } else { Progress::of(total) };
        let settings = Settings {
            progress: progress.as_ref().map(Progress::every),
            files: self.files,
            ..self.load.settings()
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

/// Parses a time from zero to a day.
pub fn seconds_from(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text:?} is no number of seconds from 0 to 86400")),
    }
}

/// Parses a time long enough to measure something: a hundredth of a second at least.
pub fn some_seconds_from(text: &str) -> Result<Duration, String> {
    match seconds_from(text)? {
        time if time < Duration::from_millis(10) => {
            Err("in that time nothing can be measured; 0.01 at least".into())
        }
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_takes_some_time_and_a_warm_up_need_not() {
        assert_eq!(some_seconds_from("0.01"), Ok(Duration::from_millis(10)));
        assert_eq!(some_seconds_from("86400"), Ok(Duration::from_secs(86_400)));
        for bad in ["0", "0.009", "-1", "86401", "NaN", "inf", "soon", ""] {
            assert!(some_seconds_from(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds_from("0"), Ok(Duration::ZERO));
    }
}
