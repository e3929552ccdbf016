//! What all connections share on the submission thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ring::{Arena, Socket};

use super::connection::Link;
use super::here::Here;
use super::job::{Context, Job, WorkFor};
use super::limits::Limits;
use super::preforks::Preforks;
use super::stats::BoardStats;
use super::task::Task;
use super::timers::{TimerId, Timers};
use super::wanted::Wanted;
use crate::kernel::Process;
use crate::pool::{self, Dispatcher, Injector};
use crate::session::{Ask, CallKey, Work};

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
    /// What calls are run with here.
    context: Context,
    /// See [`crate::kernel::Kernel::restarts`].
    restarts: bool,
    /// Calls that are to be run here.
    ready: VecDeque<Job>,
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
        context: Context,
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
            restarts: context.kernel.restarts(),
            context,
            ready: VecDeque::new(),
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

    /// Finds out what a call will copy in, and what of it the client is to be asked for before it runs.
    pub fn expect(&self, task: &Task, wanted: &Wanted) -> Option<Ask> {
        if self.restarts {
            return None;
        }
        let mut body = task.body();
        let (addr, len) = self.context.kernel.copies_in(task.number(), body.args())?;
        body.memory.expect(addr, len);
        if wanted.has(task.number(), body.args()[0]) { body.memory.ask_ahead() } else { None }
    }

    /// Has a call run: here, or by the core its connection is bound to.
    pub fn dispatch(&mut self, socket: Socket, task: Arc<Task>) {
        task.queue();
        let is_prompt = self.context.kernel.is_prompt(task.number());
        if is_prompt && self.context.costs.is_short(task.kind()) {
            self.ready.push_back(Job::Call(task));
        } else {
            self.push(socket.index(), Job::Call(task));
        }
    }

    /// Whether calls are to be run here.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || Here::has_woken()
    }

    /// Runs calls here until `until`, and leaves those behind to the workers. What comes of them is in
    /// the mailbox then. Whether there were any.
    pub fn run_ready(&mut self, until: Instant) -> bool {
        let had_any = self.has_ready();
        while let Some(job) = self.ready.pop_front().or_else(Here::next_woken) {
            if Instant::now() < until {
                pool::Task::run(job, &self.context);
            } else {
                self.push(0, job);
            }
        }
        self.context.mailbox.deliver();
        had_any
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

    /// When to see whether tasks wait for too long.
    pub fn next_look(&self) -> Option<Instant> {
        self.dispatcher.next_look()
    }

    /// Sees to it that they do not.
    pub fn look_at_workers(&mut self, now: Instant) {
        self.dispatcher.look(now);
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
