//! What all connections share on the submission thread.

use std::sync::Arc;
use std::time::Instant;

use ring::{Arena, Socket};

use super::connection::Link;
use super::job::{Job, WorkFor};
use super::limits::Limits;
use super::preforks::Preforks;
use super::stats::BoardStats;
use super::task::Task;
use super::timers::{TimerId, Timers};
use crate::kernel::Process;
use crate::pool::{Dispatcher, Injector};
use crate::session::{CallKey, Work};

/// What a time may have come for.
pub enum Timer {
    /// A call has slept long enough.
    Call(Socket, CallKey),
    /// A client that was hung up on has had time enough to take what was owed.
    Linger(Socket),
    /// Preforks of a gone parent.
    Preforks,
    /// The server stops, whoever is still served.
    Drain,
}

/// The shared part of the board.
pub struct Hub {
    pub arena: Arena,
    pub limits: Limits,
    pub preforks: Preforks,
    pub timers: Timers<Timer>,
    pub stats: BoardStats,
    /// Connections to look at before the next submission.
    pub dirty: Vec<Socket>,
    dispatcher: Dispatcher<Job>,
    injector: Injector<Job>,
    /// See [`crate::kernel::Kernel::restarts`].
    restarts: bool,
    /// Something was put into a deque since workers were last told.
    pushed: bool,
    spare: Vec<Arc<Task>>,
}

impl Hub {
    /// A hub without connections.
    pub fn new(
        arena: Arena,
        limits: Limits,
        dispatcher: Dispatcher<Job>,
        injector: Injector<Job>,
        restarts: bool,
    ) -> Hub {
        Hub {
            arena,
            preforks: Preforks::new(limits.preforks),
            limits,
            timers: Timers::default(),
            stats: BoardStats::default(),
            dirty: Vec::new(),
            dispatcher,
            injector,
            restarts,
            pushed: false,
            spare: Vec::new(),
        }
    }

    /// Has this connection looked at before the next submission.
    pub fn look_at(&mut self, link: &mut Link) {
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(link.socket);
        }
    }

    /// Puts a call into the deque of the core its connection is bound to.
    pub fn dispatch(&mut self, socket: Socket, task: Arc<Task>) {
        task.queue();
        self.push(socket.index(), Job::Call(task));
    }

    /// Has something else done inside the kernel.
    pub fn work(&mut self, socket: Socket, work: Work) {
        self.push(socket.index(), Job::Work(Box::new(WorkFor { socket, work })));
    }

    /// Has a process released that is no session's.
    pub fn discard(&mut self, process: Arc<dyn Process>) {
        self.push(0, Job::Discard(process));
    }

    fn push(&mut self, core: usize, job: Job) {
        self.dispatcher.push(core, job);
        self.pushed = true;
    }

    /// Calls were interrupted: those among them that wait to start are to end.
    pub fn reconsider(&self) {
        if !self.restarts {
            self.dispatcher.reconsider();
        }
    }

    /// Tells the workers what was pushed since the last time.
    pub fn notify(&mut self) {
        if std::mem::take(&mut self.pushed) {
            self.dispatcher.notify();
        }
    }

    /// A task for a new call.
    pub fn take_task(&mut self, socket: Socket) -> Arc<Task> {
        self.spare.pop().unwrap_or_else(|| {
            let (arena, injector) = (self.arena.clone(), self.injector.clone());
            Arc::new(Task::new(socket, arena, injector, self.restarts))
        })
    }

    /// Keeps the task of an ended call for another, unless a stale waker of it is still about.
    pub fn give_back(&mut self, mut task: Arc<Task>) {
        task.clear();
        if self.spare.len() < self.limits.spare_tasks && task.is_unshared() {
            self.spare.push(task);
        }
    }

    /// Gives the client of this connection some time to take what is owed to it.
    pub fn set_linger(&mut self, socket: Socket) -> TimerId {
        self.timers.set(Instant::now() + self.limits.linger, Timer::Linger(socket))
    }

    /// The preforks of this parent are good for a while only.
    pub fn orphan_preforks(&mut self, parent: Socket) {
        let until = Instant::now() + self.limits.orphan;
        if self.preforks.orphan(parent, until) {
            self.timers.set(until, Timer::Preforks);
        }
    }
}
