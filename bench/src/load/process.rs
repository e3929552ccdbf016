//! Another process of this program that has some of the connections: its start, its orders, its end.

use std::io::{self, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::engine::{Run, Task};
use super::frame;
use super::member::Report;

/// The longest that a process may take to end once it was told to.
const END: Duration = Duration::from_secs(15);

/// A process that has some of the connections.
pub struct Process {
    child: Child,
    /// The pipe of orders, one a line. Closing it tells the process to end.
    orders: Option<ChildStdin>,
    /// The thread that reads the process's reports.
    reader: JoinHandle<()>,
}

/// Starts a process, which connects. It is this program with the hidden command `share`.
pub fn start(
    task: &Task,
    threads: u32,
    number: usize,
    reports: &SyncSender<(usize, Report)>,
) -> io::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(super::worker::arguments(task, threads));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("RUMP_SERVER");
    let mut child = command.spawn()?;
    let orders = child.stdin.take();
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
    let reports = reports.clone();
    let reader = std::thread::Builder::new()
        .name(format!("reports-{number}"))
        .spawn(move || read(output, number, &reports))?;
    Ok(Process { child, orders, reader })
}

/// Passes the process's reports on. A process that ends without a final report has failed.
fn read(output: ChildStdout, number: usize, reports: &SyncSender<(usize, Report)>) {
    let mut output = BufReader::new(output);
    loop {
        let report = match frame::read(&mut output) {
            Ok(Some(report)) => report,
            Ok(None) => Report::Failed("it ended without a result".into()),
            Err(error) => Report::Failed(format!("its report cannot be read: {error}")),
        };
        let is_last = matches!(report, Report::Done(_) | Report::Failed(_));
        // Progress that cannot be sent at once is dropped: a later report says more.
        let is_sent = match report {
            Report::Progress(_) => {
                drop(reports.try_send((number, report)));
                true
            }
            report => reports.send((number, report)).is_ok(),
        };
        if is_last || !is_sent {
            return;
        }
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the process ended, or an empty string if it ended with success or has not ended.
    pub fn how_it_ended(&mut self) -> String {
        let limit = Instant::now() + Duration::from_secs(1);
        while Instant::now() < limit {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return String::new(),
                Ok(Some(status)) => return format!(" ({status})"),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        String::new()
    }

    /// Tells the process when to run, by the clock that all processes of a machine share.
    pub fn go(&mut self, run: Run) -> io::Result<()> {
        let start = monotonic() + run.start.saturating_duration_since(Instant::now());
        let nanos = |time: Duration| time.as_nanos();
        let (start, warm_up, length) = (nanos(start), nanos(run.warm_up), nanos(run.length));
        self.order(&format!("go {start} {warm_up} {length}\n"))
    }

    /// Tells the process to end its run now.
    pub fn stop(&mut self) {
        // A process that is gone needs no order.
        let _ = self.order("stop\n");
    }

    fn order(&mut self, line: &str) -> io::Result<()> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        orders.write_all(line.as_bytes())
    }

    /// Tells the process to hang up and end.
    pub fn dismiss(&mut self) {
        self.orders = None;
    }

    /// Waits for the process's end, and kills it if need be.
    pub fn end(mut self) {
        let limit = Instant::now() + END;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= limit {
                drop(self.child.kill());
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self.child.wait());
        // Further reports are not wanted.
        drop(self.reader);
    }
}

/// Returns the time of the clock that all processes of a machine share.
pub fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
