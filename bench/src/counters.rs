//! The counters that a server prints: rumpring and the baseline servers print a line of counters to
//! stderr at SIGUSR1.
//!
//! A program that does not expect the signal dies of it, so it is sent only to servers that are marked
//! with `+stats`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The time a server has to print its counters.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most bytes of output that are read meanwhile.
const MOST: u64 = 1 << 20;

/// A server that prints counters.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'a> {
    pub pid: Pid,
    /// The file of its stderr.
    pub output: &'a Path,
}

/// Some of the counters, since the server's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Calls answered.
    pub calls: u64,
    /// The number of times the server entered the kernel for its ring.
    pub enters: u64,
}

impl Counters {
    /// Asks the server for its counters.
    pub fn ask(teller: Teller<'_>) -> io::Result<Counters> {
        ask(teller, parse)
    }

    /// Returns the enters for each call since `before`, if there was a call.
    pub fn enters_per_call(self, before: Counters) -> Option<f64> {
        let calls = self.calls.checked_sub(before.calls).filter(|&calls| calls > 0)?;
        Some(self.enters.checked_sub(before.enters)? as f64 / calls as f64)
    }
}

/// Asks a server for its counters, and returns the parse of the first line of counters.
pub fn ask<T>(teller: Teller<'_>, parse: impl Fn(&str) -> Option<T>) -> io::Result<T> {
    let mut output = File::open(teller.output)?;
    let end = output.seek(SeekFrom::End(0))?;
    kill_process(teller.pid, Signal::USR1)?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        output.seek(SeekFrom::Start(end))?;
        let mut text = String::new();
        (&output).take(MOST).read_to_string(&mut text)?;
        if let Some(counters) = whole_lines(&text).find_map(&parse) {
            return Ok(counters);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("SIGUSR1 made it print no line with \"calls N\" and \"enters N\""))
}

/// Returns the lines that have an end.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter(|line| line.ends_with('\n'))
}

/// Parses a line of names, each followed by its number.
fn parse(line: &str) -> Option<Counters> {
    Some(Counters { calls: number(line, "calls")?, enters: number(line, "enters")? })
}

/// Returns the number behind a name.
pub fn number(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    words.find(|&word| word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_among_others() {
        let line = "connections 1 calls 20 in_flight 0 enters 7 enters_per_call 0.350 sqes 9\n";
        assert_eq!(parse(line), Some(Counters { calls: 20, enters: 7 }));
        assert_eq!(parse("calls 20 enters\n"), None);
        assert_eq!(parse("calls 20 in_flight 0\n"), None);
        assert_eq!(whole_lines("calls 1\nent").collect::<Vec<_>>(), ["calls 1\n"]);
    }

    #[test]
    fn enters_are_for_calls_that_were() {
        let before = Counters { calls: 10, enters: 100 };
        let after = Counters { calls: 30, enters: 110 };
        assert_eq!(after.enters_per_call(before), Some(0.5));
        assert_eq!(before.enters_per_call(before), None);
        assert_eq!(before.enters_per_call(after), None);
    }
}
