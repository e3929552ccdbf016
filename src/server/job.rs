//! The jobs that the scheduler runs for the server: calls, and the other entries into the kernel.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ring::Socket;

use super::mailbox::{ClientAt, Done, Mailbox, Message};
use super::task::{CALL_KINDS, Task};
use crate::scheduler::{self, Client};
use kernel::{Errno, Kernel, Process};
use rumpsp::session::KernelOp;

/// A task of the scheduler.
pub enum Job {
    /// A system call.
    Call(Arc<Task>),
    /// Calls that are to end, and how to interrupt each. There may be thousands.
    Interrupt(Vec<Arc<Task>>, fn(&Arc<Task>)),
    /// The release of a process that belongs to no session.
    Discard(Arc<dyn Process>),
    /// Any other operation. These are rare compared to calls, hence boxed.
    KernelOp(Box<WorkFor>),
}

/// An operation for the session of this socket.
pub struct WorkFor {
    pub socket: Socket,
    pub work: KernelOp,
}

/// The kernel that jobs work on, and the mailbox that they report to.
#[derive(Clone)]
pub struct Context {
    pub kernel: Arc<dyn Kernel>,
    pub mailbox: Arc<Mailbox>,
    /// The number of calls that panicked.
    pub panics: Arc<AtomicU64>,
}

impl scheduler::Task for Job {
    type Context = Context;

    const KINDS: usize = CALL_KINDS;

    fn kind(&self) -> Option<usize> {
        match self {
            Job::Call(task) => task.may_sleep().then(|| task.kind()),
            Job::Interrupt(..) | Job::Discard(_) | Job::KernelOp(_) => None,
        }
    }

    fn client(&self) -> Arc<Client> {
        match self {
            Job::Call(task) => task.client(),
            Job::Interrupt(..) | Job::Discard(_) | Job::KernelOp(_) => Arc::default(),
        }
    }

    fn run(self, context: &Context) {
        match self {
            Job::Call(task) => task.run(context, false),
            Job::Interrupt(tasks, how) => tasks.iter().for_each(how),
            Job::Discard(process) => process.release(),
            Job::KernelOp(work) => (*work).run(context),
        }
    }

    fn held(&self, context: &Context) {
        if let Job::Call(task) = self {
            task.leave_queue(&task.body(), &context.mailbox);
        }
    }

    fn pause(context: &Context) {
        context.mailbox.deliver();
    }

    fn thread_end(context: &Context) {
        context.kernel.thread_end();
    }

    fn worker_panicked(context: &Context) {
        context.mailbox.fail("a worker panicked".into());
    }
}

impl WorkFor {
    fn run(self, Context { kernel, mailbox, .. }: &Context) {
        let WorkFor { socket, work } = self;
        let answered = Answered { socket, mailbox, done: Some(failure(&work)) };
        let client = || {
            let signals = Arc::default();
            Arc::new(ClientAt { socket, mailbox: mailbox.clone(), signals })
        };
        let done = match work {
            KernelOp::Spawn { command } => Done::Spawned(kernel.spawn(client(), &command)),
            KernelOp::Adopt { prefork } => {
                let prefork = Released(prefork);
                Done::Spawned(prefork.0.adopt(client()))
            }
            KernelOp::Prefork { parent } => Done::Preforked(parent.prefork()),
            KernelOp::Interrupt { process } => {
                process.interrupt();
                Done::Interrupted
            }
            KernelOp::Exec { process, command } => {
                process.exec(&command);
                Done::Executed
            }
            KernelOp::Release { process } => {
                process.release();
                Done::Released
            }
        };
        answered.with(done);
    }
}

/// A process that is released in the end, even if the kernel panics before.
struct Released(Arc<dyn Process>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Returns the result that a session gets if the kernel panics in this operation.
fn failure(work: &KernelOp) -> Done {
    match work {
        KernelOp::Spawn { .. } | KernelOp::Adopt { .. } => Done::Spawned(Err(Errno::EIO)),
        KernelOp::Prefork { .. } => Done::Preforked(Err(Errno::EIO)),
        KernelOp::Interrupt { .. } => Done::Interrupted,
        KernelOp::Exec { .. } => Done::Executed,
        KernelOp::Release { .. } => Done::Released,
    }
}

/// A guard that posts the result of an operation to its session, however the operation ends.
struct Answered<'a> {
    socket: Socket,
    mailbox: &'a Mailbox,
    /// The result to post. Until the operation is done, this is a failure.
    done: Option<Done>,
}

impl Answered<'_> {
    fn with(mut self, done: Done) {
        self.done = Some(done);
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.mailbox.post(Message::Done(self.socket, done));
        }
    }
}
