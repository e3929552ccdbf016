//! `rumpring-bench share`: a process that has some of another process's connections. Orders come in as
//! lines, reports go out as [`frame`]s.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use clap::Args;
use rumpsp::url::Url;
use signal_hook::consts::SIGINT;

use super::engine::{Run, Task};
use super::member::Report;
use super::process::monotonic;
use super::{Load, Measured, Plan, Share, Watch, frame};
use crate::workload::Call;

/// A share of a load. Started by this program itself.
#[derive(Args)]
pub struct Worker {
    url: Url,
    #[arg(long)]
    call: Call,
    #[arg(long)]
    connections: u32,
    #[arg(long)]
    in_flight: u32,
    #[arg(long)]
    first: u32,
    #[arg(long)]
    count: u32,
    #[arg(long)]
    threads: u32,
    #[arg(long)]
    rate: Option<u64>,
    /// Microseconds.
    #[arg(long)]
    spin: u64,
    /// Milliseconds.
    #[arg(long)]
    progress: Option<u64>,
}

/// Returns the arguments for a process with this task.
pub fn arguments(task: &Task, threads: u32) -> Vec<String> {
    let Task { url, plan, share, rate, spin, progress } = task;
    let Plan { call, connections, in_flight } = plan;
    let mut arguments = vec![
        "share".to_string(),
        url.to_string(),
        format!("--call={call}"),
        format!("--connections={connections}"),
        format!("--in-flight={in_flight}"),
        format!("--first={}", share.first),
        format!("--count={}", share.count),
        format!("--threads={threads}"),
        format!("--spin={}", spin.as_micros()),
    ];
    arguments.extend(rate.map(|rate| format!("--rate={rate}")));
    arguments.extend(progress.map(|every| format!("--progress={}", every.as_millis())));
    arguments
}

/// The state set by orders other than a run.
#[derive(Clone, Default)]
struct Orders {
    is_stopped: Arc<AtomicBool>,
    /// True once the result is sent: the end of the orders is then no reason to exit at once.
    is_done: Arc<AtomicBool>,
}

impl Worker {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        // The terminal sends SIGINT to all processes of the load; the first of them decides.
        signal_hook::flag::register(SIGINT, Arc::default())?;
        let (orders, (sender, runs)) = (Orders::default(), channel());
        let its_orders = orders.clone();
        std::thread::Builder::new()
            .name("orders".into())
            .spawn(move || obey(&sender, &its_orders))?;
        if let Err(error) = self.work(&runs, &orders) {
            frame::write(&mut io::stdout(), &Report::Failed(error.to_string()))?;
        }
        Ok(())
    }

    fn work(&self, runs: &Receiver<Run>, orders: &Orders) -> io::Result<()> {
        let mut watch = Forward { is_stopped: Arc::clone(&orders.is_stopped) };
        let mut load = Load::of_threads(&self.task(), self.threads, &watch)?;
        report(&Report::Ready)?;
        let run = runs.recv().map_err(io::Error::other)?;
        let measured = load.run_from(run, &mut watch)?;
        orders.is_done.store(true, Ordering::Relaxed);
        report(&Report::Done(measured))?;
        // The connections stay until there are no more orders.
        let _ = runs.recv();
        Ok(())
    }

    fn task(&self) -> Task {
        let Worker { call, connections, in_flight, rate, .. } = *self;
        Task {
            url: self.url.clone(),
            plan: Plan { call, connections, in_flight },
            share: Share { first: self.first, count: self.count },
            rate,
            spin: Duration::from_micros(self.spin),
            progress: self.progress.map(Duration::from_millis),
        }
    }
}

/// Takes orders until there are no more. If that is before the work is done, the process that gave them
/// is gone.
fn obey(runs: &Sender<Run>, orders: &Orders) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match run_from(&line) {
            Some(run) => drop(runs.send(run)),
            None => orders.is_stopped.store(true, Ordering::Relaxed),
        }
    }
    if !orders.is_done.load(Ordering::Relaxed) {
        std::process::exit(1);
    }
}

/// Parses the run that is ordered; returns `None` for all other orders, which are to stop.
fn run_from(line: &str) -> Option<Run> {
    let mut times = line.strip_prefix("go ")?.split(' ').map(|nanos| nanos.parse().ok());
    let mut time = || times.next().flatten().map(Duration::from_nanos);
    let (start, warm_up, length) = (time()?, time()?, time()?);
    let start = Instant::now() + start.saturating_sub(monotonic());
    Some(Run { start, warm_up, length })
}

/// A watcher that passes intermediate results on.
struct Forward {
    is_stopped: Arc<AtomicBool>,
}

impl Watch for Forward {
    fn is_interrupted(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn so_far(&mut self, measured: &Measured, _: Duration) -> io::Result<()> {
        report(&Report::Progress(measured.clone()))
    }
}

fn report(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    frame::write(&mut out, report)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        worker: Worker,
    }

    #[test]
    fn a_task_survives_the_command_line() {
        let task = Task {
            url: "unix:///run/s".parse().unwrap(),
            plan: Plan {
                call: "mixed:getpid=1+read:4k=2".parse().unwrap(),
                connections: 9,
                in_flight: 3,
            },
            share: Share { first: 4, count: 5 },
            rate: Some(1000),
            spin: Duration::from_micros(20),
            progress: Some(Duration::from_millis(500)),
        };
        let Cli { worker } = Cli::parse_from(arguments(&task, 2));
        assert_eq!(worker.threads, 2);
        assert_eq!(format!("{:?}", worker.task()), format!("{task:?}"));
    }

    #[test]
    fn orders_are_read() {
        let run = run_from("go 0 1000 2000000000").unwrap();
        assert_eq!((run.warm_up.as_nanos(), run.length.as_secs()), (1000, 2));
        assert!(run.start <= Instant::now(), "a start that has passed is now");
        for line in ["stop", "", "go", "go 1", "go 1 2", "go x 2 3", "go -1 2 3"] {
            assert!(run_from(line).is_none(), "{line}");
        }
    }
}
