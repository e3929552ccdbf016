//! The server's cost: CPU time and context switches of a process, from /proc.

use std::collections::HashMap;
use std::time::Duration;
use std::{fs, io};

/// The resources a process had used at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, including those that have ended. Counted in clock ticks of
    /// 10 ms.
    coarse: Duration,
    /// The resources each thread has used.
    threads: HashMap<String, Thread>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Thread {
    /// CPU time in nanoseconds, updated at least with every tick.
    cpu: Duration,
    /// Context switches, voluntary or not.
    switches: u64,
}

/// The resources a process used between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuUsage {
    pub cpu: Duration,
    /// Context switches, without those of threads that ended meanwhile.
    pub switches: u64,
}

impl Usage {
    /// Returns the resources the process has used until now.
    pub fn of(pid: u32) -> io::Result<Usage> {
        let coarse = coarse_time(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::other("/proc/PID/stat is not as expected"))?;
        let mut threads = HashMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may be gone by now.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            let cpu = fs::read_to_string(task.path().join("schedstat"))
                .ok()
                .and_then(|schedstat| fine_time(&schedstat));
            // Not all kernels keep this time; without it there is only the coarse time.
            let Some(cpu) = cpu else { continue };
            let thread = Thread { cpu, switches: switches(&status) };
            threads.insert(task.file_name().to_string_lossy().into_owned(), thread);
        }
        Ok(Usage { coarse, threads })
    }

    /// Returns user and system time of all threads, to 10 ms.
    pub fn cpu(&self) -> Duration {
        self.coarse
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Returns the resources used since `before`: the sum of the threads' own times, unless a thread
    /// ended and took its time with it. In that case the CPU time is the coarse one.
    pub fn since(&self, before: &Usage) -> CpuUsage {
        let mut cpu_usage = CpuUsage { cpu: Duration::ZERO, switches: 0 };
        for (id, now) in &self.threads {
            let then = before.threads.get(id).copied().unwrap_or_default();
            cpu_usage.cpu += now.cpu.saturating_sub(then.cpu);
            cpu_usage.switches += now.switches.saturating_sub(then.switches);
        }
        let has_all = before.threads.keys().all(|id| self.threads.contains_key(id));
        if self.threads.is_empty() || !has_all {
            cpu_usage.cpu = self.coarse.saturating_sub(before.coarse);
        }
        cpu_usage
    }
}

/// Parses user and system time from the text of /proc/PID/stat. A command's name may hold any
/// characters, so the fields begin behind the last parenthesis.
fn coarse_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64((user + system) as f64 / ticks as f64))
}

/// Parses the time on a CPU from the text of schedstat.
fn fine_time(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Parses the context switches of both kinds from the text of status.
fn switches(status: &str) -> u64 {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| name.ends_with("voluntary_ctxt_switches"))
        .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_s_name_does_not_move_the_fields() {
        for name in ["rumpring", "a b) S 1 2 3 (x"] {
            let stat =
                format!("42 ({name}) S 1 42 42 0 -1 4194304 171 0 0 0 150 50 7 9 20 0 9 0 1");
            let seconds = 200.0 / rustix::param::clock_ticks_per_second() as f64;
            assert_eq!(coarse_time(&stat), Some(Duration::from_secs_f64(seconds)));
        }
        assert_eq!(coarse_time("42 (x) S 1"), None);
        assert_eq!(coarse_time(""), None);
    }

    #[test]
    fn times_and_switches_are_read() {
        assert_eq!(fine_time("710120 5598620 3\n"), Some(Duration::from_nanos(710_120)));
        assert_eq!(fine_time(""), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches(status), 695);
    }

    #[test]
    fn a_thread_that_ended_makes_the_bill_coarse() {
        let usage = |coarse, threads: &[(&str, u64, u64)]| Usage {
            coarse: Duration::from_millis(coarse),
            threads: threads
                .iter()
                .map(|&(id, cpu, switches)| {
                    (id.into(), Thread { cpu: Duration::from_nanos(cpu), switches })
                })
                .collect(),
        };
        let before = usage(100, &[("1", 5, 1), ("2", 7, 2)]);
        let more = usage(130, &[("1", 15, 2), ("2", 8, 3), ("3", 100, 4)]);
        let cpu_usage = CpuUsage { cpu: Duration::from_nanos(111), switches: 6 };
        assert_eq!(more.since(&before), cpu_usage);
        let fewer = usage(130, &[("1", 15, 2)]);
        assert_eq!(fewer.since(&before), CpuUsage { cpu: Duration::from_millis(30), switches: 1 });
    }

    #[test]
    fn this_process_has_used_something() {
        let before = Usage::of(std::process::id()).unwrap();
        // If a thread of the process has ended, the kernel counts by ticks; and other processes may
        // have the CPU.
        let start = std::time::Instant::now();
        while Usage::of(std::process::id()).unwrap().since(&before).cpu == Duration::ZERO {
            assert!(start.elapsed() < Duration::from_secs(20), "it has used nothing");
        }
    }
}
