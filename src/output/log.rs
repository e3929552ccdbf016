//! The log: lines on stderr. Of one kind, there are no more in a second than somebody can read.
//!
//! An action of a client may be worth a line each time, and a client may do it a million times.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, Command, FromArgMatches};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::{Lines, say};

/// The options of the log, besides its verbosity.
#[derive(Args)]
pub struct LogOptions {
    /// Lines of one kind in a second of the log; the others are counted.
    #[arg(long, global = true, env = "RUMPRING_LOG_LINES", value_name = "N", default_value_t = 10)]
    log_lines: u32,
}

impl LogOptions {
    /// Reads the options from the environment.
    pub fn from_env() -> Result<LogOptions, clap::Error> {
        let command = LogOptions::augment_args(Command::new("rumpring"));
        LogOptions::from_arg_matches(&command.try_get_matches_from(["rumpring"])?)
    }
}

/// Starts the log. Its verbosity is the number of `-v` options; RUST_LOG decides if it is set. A program
/// into which this is preloaded may have a log already, which is then used here, too.
pub fn start(verbose: u8, options: &LogOptions) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = log(filter, options.log_lines, || Lines, std::io::stderr().is_terminal());
    let _ = log.try_init();
}

/// Returns the log on `writer`. Lines are left out by layers before the one that writes. A filter of that
/// layer which rejects a single event would, in tracing-subscriber 0.3, reject all later ones, too.
fn log<W>(filter: EnvFilter, lines: u32, writer: W, ansi: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let written = fmt::layer().with_writer(writer).with_ansi(ansi).with_target(false);
    // The layer would report errors by `eprintln!`.
    let written = written.log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(Throttle::new(lines)).with(written)
}

/// Lets a bounded number of lines of each kind through in a second. A kind is a place in the source.
struct Throttle {
    most: u32,
    kinds: Mutex<HashMap<Identifier, Second>>,
}

/// The second of a kind's latest lines.
struct Second {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    fn new(most: u32) -> Throttle {
        Throttle { most, kinds: Mutex::default() }
    }

    /// Returns `true` if one more line of a kind may come now, and the number of lines left out before
    /// it.
    fn pass(&self, kind: Identifier, now: Instant) -> (bool, u64) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Second { began: now, lines: 0, left_out: 0 };
        let second = kinds.entry(kind).or_insert_with(new);
        let mut left_out = 0;
        if now.saturating_duration_since(second.began) >= Duration::from_secs(1) {
            left_out = second.left_out;
            *second = new();
        }
        second.lines = second.lines.saturating_add(1);
        let passes = second.lines <= self.most;
        second.left_out += u64::from(!passes);
        (passes, left_out)
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let (passes, left_out) = self.pass(event.metadata().callsite(), Instant::now());
        if left_out > 0 {
            // This is not logged by the log itself, which is in the middle of a line.
            say(format_args!(
                "rumpring: {left_out} more lines like the next were left out before it"
            ));
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing::subscriber::Interest;
    use tracing::{Callsite, Metadata};

    use super::*;

    /// A writer that keeps what is written to it.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_is_left_out_takes_no_others_with_it() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = log(EnvFilter::new("warn"), 3, move || writer.clone(), false);
        tracing::subscriber::with_default(log, || {
            for turn in 0..10 {
                tracing::warn!(turn, "often");
            }
            tracing::warn!("once");
            tracing::info!("not so important");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("often").count(), 3, "three a second: {text}");
        assert_eq!(text.matches("once").count(), 1, "another kind has its own bound: {text}");
        assert!(!text.contains("important"), "{text}");
    }

    struct Place(#[allow(dead_code, reason = "places have addresses of their own")] u8);

    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("nothing is logged here")
        }
    }

    static ONE: Place = Place(1);
    static OTHER: Place = Place(2);

    #[test]
    fn of_one_kind_only_so_many_lines_come_in_a_second() {
        let throttle = Throttle::new(3);
        let (one, other) = (Identifier(&ONE), Identifier(&OTHER));
        let start = Instant::now();
        for line in 0..10 {
            assert_eq!(throttle.pass(one.clone(), start), (line < 3, 0));
        }
        assert_eq!(throttle.pass(other, start), (true, 0), "another kind has its own bound");
        let late = start + Duration::from_millis(999);
        assert_eq!(throttle.pass(one.clone(), late), (false, 0));
        let next = start + Duration::from_secs(1);
        assert_eq!(throttle.pass(one.clone(), next), (true, 8), "and says what was left out");
        assert_eq!(throttle.pass(one, next), (true, 0), "once");
    }
}
