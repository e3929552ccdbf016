//! Samples of the server's process at one moment: memory, descriptors, threads, CPU time, and the
//! server's own counters.

use std::time::Duration;
use std::{fs, io};

use client::Client;
use client::numbers::CTL_KERN;
use rumpsp::url::Url;

use serde_json::{Value, json};

use crate::counters::{self, number};
use crate::cpu_usage::Usage;
use crate::measure::Books;
use crate::memory::resident_and_anonymous_kib;

/// The time a kernel has to report its number of lwps.
const LOOK: Duration = Duration::from_secs(5);

/// The number of tries to read a ring's files.
const TRIES: u32 = 100;

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// KiB of resident user memory, and the part of that which belongs to no file.
    pub resident: u64,
    pub anonymous: u64,
    /// Open files, including those that only the process's rings hold.
    pub descriptors: u64,
    pub threads: u64,
    /// Threads of the kernel's first process, as ps(1) would show them, if the kernel tells.
    pub lwps: Option<u64>,
    /// Seconds of CPU time since the process's start.
    pub cpu: f64,
    /// The server's own counters, if it prints them.
    pub counted: Option<Counted>,
}

/// Some of the counters of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub connections: u64,
    pub accepted: u64,
    pub calls: u64,
    pub in_flight: u64,
    pub hang_ups: u64,
    pub preforks: u64,
    pub asleep: u64,
    pub panics: u64,
}

impl Sample {
    /// Samples the process, and the kernel of the server at `url`.
    pub fn take(books: Books<'_>, url: &Url, at: f64) -> io::Result<Sample> {
        let pid = books.pid.ok_or_else(|| io::Error::other("which process it is is not known"))?;
        let [resident, anonymous] = resident_and_anonymous_kib(pid)?;
        let usage = Usage::of(pid)?;
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count() as u64;
        let counted = books.teller.map(|teller| counters::ask(teller, parse)).transpose()?;
        Ok(Sample {
            at,
            resident,
            anonymous,
            descriptors: descriptors(pid)?,
            threads,
            lwps: lwps_of_init(url),
            cpu: usage.cpu().as_secs_f64(),
            counted,
        })
    }

    pub fn json(&self) -> Value {
        let counted = self.counted.map(|counted| {
            json!({
                "connections": counted.connections,
                "accepted": counted.accepted,
                "calls": counted.calls,
                "in_flight": counted.in_flight,
                "hang_ups": counted.hang_ups,
                "preforks": counted.preforks,
                "asleep": counted.asleep,
                "panics": counted.panics,
            })
        });
        json!({
            "seconds": (self.at * 10.0).round() / 10.0,
            "resident_kib": self.resident,
            "anonymous_kib": self.anonymous,
            "descriptors": self.descriptors,
            "threads": self.threads,
            "lwps": self.lwps,
            "cpu_seconds": self.cpu,
            "counters": counted,
        })
    }
}

/// Returns the number of lwps of process 1: a server that makes one for each of its threads must free
/// them, too.
///
/// Source: NetBSD `sys/sys/sysctl.h`, `KERN_PROC2` and `struct kinfo_proc2`.
fn lwps_of_init(url: &Url) -> Option<u64> {
    const KERN_PROC2: i32 = 47;
    const KERN_PROC_PID: i32 = 1;
    const INIT: i32 = 1;
    const LEN: usize = 680;
    const NLWPS: usize = 616;
    let client = Client::builder().name("soak").timeout(LOOK).connect(url).ok()?;
    let name = [CTL_KERN, KERN_PROC2, KERN_PROC_PID, INIT, LEN as i32, 1];
    let info = client.sysctl(&name, LEN, None).ok()?;
    info.get(NLWPS..NLWPS + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Returns the number of open files of a process. A ring's own table of files is not among the
/// process's descriptors.
///
/// Source: proc(5); for the fdinfo of a ring, Linux `io_uring/fdinfo.c`.
fn descriptors(pid: u32) -> io::Result<u64> {
    let mut count = 0;
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let fd = fd?;
        count += 1;
        // The descriptor may be closed by now.
        let Ok(target) = fs::read_link(fd.path()) else { continue };
        if target.to_str() == Some("anon_inode:[io_uring]") {
            let info = format!("/proc/{pid}/fdinfo/{}", fd.file_name().display());
            count +=
                (0..TRIES).find_map(|_| ring_files(&fs::read_to_string(&info).ok()?)).unwrap_or(0);
        }
    }
    Ok(count)
}

/// Returns the number of files in a ring's table: below their heading there is a line for each, with
/// its place. The lines are missing while the ring is in use.
fn ring_files(info: &str) -> Option<u64> {
    let mut lines = info.lines();
    lines.find(|line| line.starts_with("UserFiles:"))?;
    let is_file = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    Some(lines.take_while(is_file).count() as u64)
}

fn parse(line: &str) -> Option<Counted> {
    Some(Counted {
        connections: number(line, "connections")?,
        accepted: number(line, "accepted")?,
        calls: number(line, "calls")?,
        in_flight: number(line, "in_flight")?,
        hang_ups: number(line, "hang_ups")?,
        preforks: number(line, "preforks")?,
        asleep: number(line, "asleep")?,
        panics: number(line, "panics")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_server_is_read() {
        let stats = rumpring::server::Stats::default();
        let counted = parse(&format!("{stats}\n")).unwrap();
        assert_eq!(counted, Counted::default());
        assert_eq!(parse("calls 1 enters 2\n"), None);
    }

    #[test]
    fn files_of_a_ring_are_counted() {
        let info = "SqTotalTime:\t0\nUserFiles:\t200\n    2: socket:[1]\n12345: socket:[2]\n\
                    UserBufs:\t1\n    0: 0x1/1\n";
        assert_eq!(ring_files(info), Some(2));
        assert_eq!(ring_files("UserFiles:\t0\nUserBufs:\t0\n"), Some(0));
        assert_eq!(ring_files("pos:\t0\n"), None);
    }

    #[test]
    fn this_process_has_something_of_each() {
        let books = Books { pid: Some(std::process::id()), teller: None };
        let nowhere = "unix:///nowhere".parse().unwrap();
        let sample = Sample::take(books, &nowhere, 1.0).unwrap();
        assert_eq!(sample.lwps, None, "nobody tells");
        assert!(sample.resident > 100 && sample.anonymous > 10, "{sample:?}");
        assert!(sample.descriptors >= 3 && sample.threads >= 1, "{sample:?}");
        assert!(Sample::take(Books::default(), &nowhere, 1.0).is_err());
    }
}
