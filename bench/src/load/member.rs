//! One of those who make a load together: a thread here, or another process.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::JoinHandle;

use rumpring::output;

use super::engine::{Control, Engine, Run, Task};
use super::measured::Measured;
use super::process::Process;

/// What a member has to say.
#[derive(Clone, Debug)]
pub enum Report {
    /// Its connections are set up.
    Ready,
    /// What it has measured so far.
    Progress(Measured),
    /// What it has measured.
    Done(Measured),
    /// Why it ends.
    Failed(String),
}

pub enum Member {
    Thread(Thread),
    Process(Process),
}

impl Member {
    /// Tells it when to run.
    pub fn go(&mut self, run: Run) -> io::Result<()> {
        match self {
            Member::Thread(thread) => thread.go(run),
            Member::Process(process) => process.go(run),
        }
    }

    /// Has it end its run now.
    pub fn stop(&mut self) {
        match self {
            Member::Thread(thread) => thread.control.stop(),
            Member::Process(process) => process.stop(),
        }
    }

    /// Has it hang up: until then its connections stay.
    pub fn dismiss(&mut self) {
        match self {
            Member::Thread(thread) => thread.runs = None,
            Member::Process(process) => process.dismiss(),
        }
    }

    /// Waits for its end.
    pub fn end(self) {
        match self {
            Member::Thread(thread) => thread.end(),
            Member::Process(process) => process.end(),
        }
    }

    /// How a process ended that did not say why: what errors end with.
    pub fn how_it_ended(&mut self) -> String {
        match self {
            Member::Thread(_) => String::new(),
            Member::Process(process) => process.how_it_ended(),
        }
    }

    /// What errors begin with, so that it is known whose they are.
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
    /// Its end lets the thread hang up.
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
            // If nobody listens any more, nobody needs to know.
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
        // Who is behind with reading gets a later one.
        let progress = |so_far| drop(reports.try_send((number, Report::Progress(so_far))));
        let measured = engine.run(run, progress)?;
        report(Report::Done(measured));
        // Somebody may want to look at the server while it has them all.
        let _ = runs.recv();
    }
    // The measurement is good whatever becomes of this, and a server that has gone has kept nothing.
    let _ = engine.leave();
    Ok(())
}
