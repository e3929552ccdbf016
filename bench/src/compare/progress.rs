//! The progress of a comparison on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use rumpring::output::{self, PrintError};

pub struct Progress {
    way: Way,
    rounds: u64,
    begun: u64,
    start: Instant,
}

enum Way {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

impl Progress {
    /// Makes the progress display of `rounds` turns.
    pub fn new(rounds: u64, is_quiet: bool) -> Progress {
        let way = match () {
            () if is_quiet => Way::Quiet,
            () if std::io::stderr().is_terminal() => Way::Bar(ProgressBar::new(rounds)),
            () => Way::Lines,
        };
        if let Way::Bar(bar) = &way
            && let Ok(style) = ProgressStyle::with_template("[{bar:30}] {msg}")
        {
            bar.set_style(style);
        }
        Progress { way, rounds, begun: 0, start: Instant::now() }
    }

    /// Shows that a turn begins.
    pub fn begin(&mut self, what: &str) {
        let done = self.begun;
        self.begun += 1;
        let mut text = format!("turn {} of {}: {what}", self.begun, self.rounds);
        if done > 0 {
            let each = self.start.elapsed().as_secs_f64() / done as f64;
            text += &format!(", about {:.0} s left", each * (self.rounds - done) as f64);
        }
        match &self.way {
            Way::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(text);
            }
            Way::Lines => output::say(text),
            Way::Quiet => {}
        }
    }

    /// Prints to stdout without damaging the bar.
    pub fn print(&self, text: &str) -> Result<(), PrintError> {
        self.around(|| output::print(text))
    }

    /// Prints a line to stderr, even if quiet.
    pub fn complain(&self, text: &str) {
        self.around(|| output::say(text));
    }

    fn around<R>(&self, print: impl FnOnce() -> R) -> R {
        match &self.way {
            Way::Bar(bar) => bar.suspend(print),
            Way::Lines | Way::Quiet => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Way::Bar(bar) = &self.way {
            bar.finish_and_clear();
        }
    }
}
