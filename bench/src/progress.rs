//! The progress of a long run: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rumpring::output;

use crate::load::Measured;

/// The way the progress of a run is shown.
pub enum Progress {
    Bar(ProgressBar),
    Lines { total: Duration },
}

impl Progress {
    /// Returns the way to show a run of this length, warm-up included, if it is to be shown.
    pub fn of(total: Duration) -> Option<Progress> {
        let is_terminal = io::stderr().is_terminal();
        if is_terminal && total > Duration::from_secs(2) {
            return Some(Progress::Bar(bar(total)));
        }
        let is_worth_lines = !is_terminal && total > Duration::from_secs(20);
        is_worth_lines.then_some(Progress::Lines { total })
    }

    /// Returns the time between two updates.
    pub fn every(&self) -> Duration {
        match self {
            Progress::Bar(_) => Duration::from_millis(500),
            Progress::Lines { .. } => Duration::from_secs(10),
        }
    }

    pub fn show(&self, measured: &Measured, elapsed: Duration) {
        let text = text(measured);
        match self {
            Progress::Bar(bar) => {
                bar.set_position(elapsed.as_millis() as u64);
                bar.set_message(text);
            }
            Progress::Lines { total } => {
                let (elapsed, total) = (elapsed.as_secs_f64(), total.as_secs_f64());
                output::say(format_args!("{elapsed:.0} of {total:.0} s: {text}"));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Duration) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(total.as_millis() as u64), target);
    let style = ProgressStyle::with_template("[{wide_bar}] {elapsed} of {prefix}  {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("{:.0}s", total.as_secs_f64()));
    bar
}

/// Returns the rate and p99 so far.
fn text(measured: &Measured) -> String {
    if measured.calls == 0 {
        return "warming up".into();
    }
    let (rate, p99) = (measured.rate(), measured.quantile_us(0.99));
    format!("{rate:.0} calls/s, p99 {p99:.1} us")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_the_rate_and_the_p99() {
        let mut measured = Measured::nothing(0).unwrap();
        assert_eq!(text(&measured), "warming up");
        measured.calls = 200;
        measured.elapsed = Duration::from_secs(2);
        measured.latencies.record_n(1000, 200).unwrap();
        assert_eq!(text(&measured), "100 calls/s, p99 1.0 us");
        // Showing must not fail, whatever stderr is.
        Progress::Bar(bar(Duration::from_secs(3))).show(&measured, Duration::from_secs(1));
    }
}
