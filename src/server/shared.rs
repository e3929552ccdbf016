//! The state that all connections share on the submission thread.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::{Arena, Socket};

use super::connection::ConnectionIo;
use super::inline::Inline;
use super::job::{Context, Job, WorkFor};
use super::limits::Limits;
use super::predictor::PrefetchPredictor;
use super::preforks::Preforks;
use super::quota::{ClientQuota, GlobalQuota};
use super::stats::CoreStats;
use super::task::Task;
use super::timers::{TimerId, Timers};
use crate::scheduler::{Dispatcher, Injector};
use kernel::{Kernel, Process};
use rumpsp::session::{CallKey, CopyRequest, KernelOp};
use rumpsp::wire::Token;

/// The number of calls run here between two looks at the clock. A look costs a tenth of the shortest
/// call.
const LOOK_EVERY: usize = 4;

/// The most calls that are interrupted here, where each of them is woken. More are left to a worker.
const FEW: usize = 64;

/// The events that a timer stands for.
pub enum Timer {
    /// A call has slept long enough.
    Call(Socket, CallKey),
    /// A client that the server hung up on has had time enough to take what was owed.
    Linger(Socket),
    /// Preforks whose parents have gone expire.
    Preforks,
    /// A client has had time enough for its handshake.
    Handshake(Socket),
    /// A call has waited long enough for this client.
    ClientWait(Socket),
    /// The server stops, even if clients are still being served.
    Drain,
}

/// The shared part of the core.
pub struct Shared {
    pub arena: Arena,
    pub limits: Limits,
    /// The time that a call waits for its client, if that is bounded.
    pub answer_time: Option<Duration>,
    preforks: Preforks,
    /// The timer of the first orphan among the preforks.
    orphans: Option<TimerId>,
    pub timers: Timers<Timer>,
    pub stats: CoreStats,
    /// The connections to look at before the next submission.
    pub dirty: Vec<Socket>,
    /// The time of this turn.
    pub now: Instant,
    /// The use of all clients together. (`unsent` has the bytes owed to them.)
    pub all: Arc<GlobalQuota>,
    pub unsent: Rc<Cell<usize>>,
    dispatcher: Dispatcher<Job>,
    injector: Injector<Job>,
    /// The context of calls that run here.
    context: Context,
    /// See [`kernel::Kernel::restarts`].
    pub restarts: bool,
    /// The calls that are to be run here.
    ready: VecDeque<Arc<Task>>,
    /// True if a task was put into a deque since workers were last told.
    pushed: bool,
    /// True if the kernel has halted in a call that is still in it. Processes are then left as they are.
    halted: bool,
    spare: Vec<Arc<Task>>,
}

impl Shared {
    /// Creates the shared state of a server without connections.
    pub fn new(
        arena: Arena,
        limits: Limits,
        dispatcher: Dispatcher<Job>,
        injector: Injector<Job>,
        context: Context,
    ) -> Shared {
        Shared {
            arena,
            preforks: Preforks::new(limits.preforks, limits.preforks_in_all),
            orphans: None,
            all: Arc::new(GlobalQuota::new(&limits)),
            answer_time: limits.answer.for_kernel(&*context.kernel),
            limits,
            timers: Timers::default(),
            stats: CoreStats::default(),
            dirty: Vec::new(),
            now: Instant::now(),
            unsent: Rc::default(),
            dispatcher,
            injector,
            restarts: context.kernel.restarts(),
            context,
            ready: VecDeque::new(),
            pushed: false,
            halted: false,
            spare: Vec::new(),
        }
    }

    /// Returns the kernel that is served.
    pub fn kernel(&self) -> &dyn Kernel {
        &*self.context.kernel
    }

    /// Returns what jobs are run with.
    #[cfg(test)]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Puts a connection into the list of those to look at before the next submission.
    pub fn mark_dirty(&mut self, link: &mut ConnectionIo) {
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(link.socket);
        }
    }

    /// Notes what a call will copy in, and returns what of it the client is to be asked for before the
    /// call runs.
    pub fn expect(&self, task: &Task, predictor: &PrefetchPredictor) -> Option<CopyRequest> {
        if self.restarts {
            return None;
        }
        let mut body = task.body();
        let (addr, len) = self.context.kernel.copies_in(task.number(), body.args())?;
        body.memory.expect(addr, len);
        if predictor.has(task.number(), body.args()[0]) { body.memory.ask_ahead() } else { None }
    }

    /// Dispatches a call: to this thread, or to the core that its connection is bound to.
    pub fn dispatch(&mut self, socket: Socket, task: Arc<Task>, quota: &ClientQuota) {
        task.queue(quota);
        if task.is_inline() {
            self.ready.push_back(task);
        } else {
            self.push(socket.index(), Job::Call(task));
        }
    }

    /// Returns `true` if there are calls to run here.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || Inline::has_woken()
    }

    /// Runs calls here until `is_late`, and leaves the rest to the workers. The results are in the
    /// mailbox afterwards. Returns `true` if there were any calls.
    pub fn run_ready(&mut self, mut is_late: impl FnMut() -> bool) -> bool {
        let had_any = self.has_ready();
        let mut late = false;
        let mut count = 0;
        while let Some(task) = self.ready.pop_front().or_else(Inline::next_woken) {
            late = late || (count % LOOK_EVERY == 0 && is_late());
            count += 1;
            if late {
                self.push(count, Job::Call(task));
            } else {
                task.run(&self.context, true);
            }
        }
        self.context.mailbox.deliver();
        had_any
    }

    /// Notes that the kernel has halted. The program ends with it, so no process has to be ended before.
    pub fn halted(&mut self) {
        self.halted = true;
    }

    /// Dispatches another operation of the kernel, unless the kernel has halted. New clients and children
    /// go ahead of everything, so that long calls of others do not keep them out.
    pub fn work(&mut self, socket: Socket, work: KernelOp) {
        if self.halted {
            return;
        }
        let is_new = matches!(
            work,
            KernelOp::Spawn { .. } | KernelOp::Adopt { .. } | KernelOp::Prefork { .. }
        );
        let job = Job::KernelOp(Box::new(WorkFor { socket, work }));
        if is_new {
            self.dispatcher.push_priority(job);
            self.pushed = true;
        } else {
            self.push(socket.index(), job);
        }
    }

    /// Has a process released that belongs to no session.
    pub fn discard(&mut self, process: Arc<dyn Process>) {
        if self.halted {
            return;
        }
        self.push(0, Job::Discard(process));
    }

    fn push(&mut self, core: usize, job: Job) {
        self.dispatcher.push(core, job);
        self.pushed = true;
    }

    /// Has these calls of a connection end, whether they wait or have not started.
    pub fn interrupt(&mut self, socket: Socket, tasks: Vec<Arc<Task>>, how: fn(&Arc<Task>)) {
        if !self.restarts {
            tasks.iter().for_each(how);
            self.dispatcher.reconsider();
        } else if tasks.len() <= FEW {
            tasks.iter().for_each(how);
        } else {
            self.push(socket.index(), Job::Interrupt(tasks, how));
        }
    }

    /// Tells the workers what was pushed since the last time.
    pub fn notify(&mut self) {
        if std::mem::take(&mut self.pushed) {
            self.dispatcher.notify(self.now);
        }
    }

    /// Returns the time of the next check for tasks that have waited too long.
    pub fn next_look(&self) -> Option<Instant> {
        self.dispatcher.next_look()
    }

    /// Wakes workers if tasks have waited too long.
    pub fn look_at_workers(&mut self, now: Instant) {
        self.dispatcher.look(now);
    }

    /// Returns a task for a new call.
    pub fn take_task(&mut self, socket: Socket) -> Arc<Task> {
        self.spare.pop().unwrap_or_else(|| {
            let (arena, injector) = (self.arena.clone(), self.injector.clone());
            Arc::new(Task::new(socket, arena, injector, self.restarts))
        })
    }

    /// Keeps the task of an ended call for another call, unless a stale waker still holds it.
    pub fn give_back(&mut self, mut task: Arc<Task>) {
        task.clear();
        if self.spare.len() < self.limits.spare_tasks && task.is_unshared() {
            self.spare.push(task);
        }
    }

    /// Sets the timer of a client that has to take what is owed to it.
    pub fn set_linger(&mut self, socket: Socket) -> TimerId {
        self.timers.set(self.now + self.limits.linger, Timer::Linger(socket))
    }

    /// Sets the timer of a new client's handshake.
    pub fn set_handshake_time(&mut self, socket: Socket) -> TimerId {
        self.timers.set(self.now + self.limits.handshake, Timer::Handshake(socket))
    }

    /// Keeps a prefork, if there are not too many. Evicts one whose parent has gone if that makes room.
    pub fn keep_prefork(
        &mut self,
        parent: Socket,
        prefork: Arc<dyn Process>,
    ) -> Result<Token, Arc<dyn Process>> {
        if let Some(oldest) = self.preforks.make_room(parent) {
            self.discard(oldest);
            self.watch_orphans();
        }
        self.preforks.keep(parent, prefork)
    }

    /// Takes the prefork of this token, which is invalid from here on.
    pub fn take_prefork(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        let prefork = self.preforks.take(token);
        self.watch_orphans();
        prefork
    }

    /// Notes that the parent of these preforks has gone, so that they expire.
    pub fn orphan_preforks(&mut self, parent: Socket) {
        self.preforks.orphan(parent, self.now + self.limits.orphan);
        self.watch_orphans();
    }

    /// Returns the number of preforks that wait for their children.
    pub fn preforks(&self) -> usize {
        self.preforks.len()
    }

    /// Takes out the preforks that have expired.
    pub fn expired_preforks(&mut self) -> Vec<Arc<dyn Process>> {
        let over = self.preforks.expire(self.now);
        self.watch_orphans();
        over
    }

    /// Takes out all preforks.
    pub fn all_preforks(&mut self) -> Vec<Arc<dyn Process>> {
        let all = self.preforks.drain();
        self.watch_orphans();
        all
    }

    /// Sets the timer of the first orphan among the preforks. There is one timer for all of them, or
    /// none.
    fn watch_orphans(&mut self) {
        let next = self.preforks.next_to_expire();
        if self.orphans.map(|timer| timer.at()) == next {
            return;
        }
        if let Some(before) = self.orphans.take() {
            self.timers.cancel(before);
        }
        self.orphans = next.map(|at| self.timers.set(at, Timer::Preforks));
    }
}
