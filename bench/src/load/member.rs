//! A member of a load: a thread of this process, or another process.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::JoinHandle;

use rumpring::output;

use super::engine::{Control, Engine, Run, Task};
use super::measured::Measured;
use super::process::Process;

/// A report of a member.
#[derive(Clone, Debug)]
pub enum Report {
    /// The connections are set up.
    Ready,
    /// Results so far.
    Progress(Measured),
    /// The final results.
    Done(Measured),
    /// The reason why the member ends.
    Failed(String),
}

pub enum Member {
    Thread(Thread),
    Process(Process),
}

impl Member {
    /// Tells the member when to run.
    pub fn go(&mut self, run: Run) -> io::Result<()> {
        match self {
            Member::Thread(thread) => thread.go(run),
            Member::Process(process) => process.go(run),
        }
    }

    /// Ends the member's run now.
    pub fn stop(&mut self) {
        match self {
            Member::Thread(thread) => thread.control.stop(),
            Member::Process(process) => process.stop(),
        }
    }

    /// Tells the member to hang up: until then its connections stay.
    pub fn dismiss(&mut self) {
        match self {
            Member::Thread(thread) => thread.runs = None,
            Member::Process(process) => process.dismiss(),
        }
    }

    /// Waits for the member's end.
    pub fn end(self) {
        match self {
            Member::Thread(thread) => thread.end(),
            Member::Process(process) => process.end(),
        }
    }

    /// Returns how a process ended that did not say why, to append to an error.
    pub fn how_it_ended(&mut self) -> String {
        match self {
            Member::Thread(_) => String::new(),
            Member::Process(process) => process.how_it_ended(),
        }
    }

    /// Returns the member's name, to put before an error.
    pub fn name(&self, number: usize, of: usize) -> String {
        match self {
            Member::Thread(_) if of == 1 => String::new(),
            Member::Thread(_) => format!("thread {} of {of}: ", number + 1),
            Member::Process(process) => {
                format!("process {} of {of} (pid {}): ", number + 1, process.pid())
            }
        }
    }
}

/// A load thread.
pub struct Thread {
    control: Arc<Control>,
    /// The sender of runs. Dropping it lets the thread hang up.
    runs: Option<Sender<Run>>,
    handle: JoinHandle<()>,
}

impl Thread {
    fn go(&mut self, run: Run) -> io::Result<()> {
        let sent = self.runs.as_ref().is_some_and(|runs| runs.send(run).is_ok());
        if sent { Ok(()) } else { Err(io::Error::other("a load thread has ended")) }
    }

    fn end(self) {
        if self.handle.join().is_err() {
            output::say("rumpring-bench: a load thread panicked");
        }
    }
}

/// Starts a thread, which connects.
pub fn start(
    task: Task,
    number: usize,
    reports: &SyncSender<(usize, Report)>,
) -> io::Result<Thread> {
    let control = Arc::new(Control::default());
    let (runs, waiting) = channel();
    let (reports, its_control) = (reports.clone(), Arc::clone(&control));
    let body = move || {
        if let Err(error) = work(&task, &its_control, &waiting, number, &reports) {
            // If nobody listens any more, the error is of no interest.
            let _ = reports.send((number, Report::Failed(error.to_string())));
        }
    };
    let handle = std::thread::Builder::new().name(format!("load-{number}")).spawn(body)?;
    Ok(Thread { control, runs: Some(runs), handle })
}

fn work(
    task: &Task,
    control: &Arc<Control>,
    runs: &Receiver<Run>,
    number: usize,
    reports: &SyncSender<(usize, Report)>,
) -> io::Result<()> {
    let mut engine = Engine::connect(task, control)?;
    let report = |report| reports.send((number, report)).is_ok();
    if report(Report::Ready)
        && let Ok(run) = runs.recv()
    {
        // If the reader is behind, it gets a later report.
        let progress = |so_far| drop(reports.try_send((number, Report::Progress(so_far))));
        let measured = engine.run(run, progress)?;
        report(Report::Done(measured));
        // The connections stay while the reader may want to look at the server.
        let _ = runs.recv();
    }
    // The measurement is valid even if this fails, and a server that is gone has kept nothing.
    let _ = engine.leave();
    Ok(())
}
