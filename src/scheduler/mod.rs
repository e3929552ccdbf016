//! The scheduler: deques that belong to cores, and threads that borrow cores.
//!
//! Each core has one deque of tasks. One thread, the owner of the [`Dispatcher`], fills them all. To run
//! a core's tasks, a worker thread has to hold that core ([`idle::Core`]). A thread with a core is pinned
//! to the core's CPU, takes tasks from the core's deque first, and steals from the others when it is
//! empty. There are as many cores as CPUs, so no more threads than that run calls, however many exist.
//!
//! A thread gives its core back when it finds no task, and parks. It also gives the core back when it is
//! about to sleep inside a task ([`blocking`]): another thread may then take the core, a parked one or a
//! new one. Parking and hand-off are thus the same thing, and neither moves any tasks: tasks wait in
//! deques, never in threads.
//!
//! Tasks that become ready on other threads than the dispatcher's (a pipe was written, a reader wakes)
//! come in through the [`Injector`].
//!
//! Some tasks are short and go ahead of others ([`Dispatcher::push_priority`]). While long tasks have all
//! cores, one more thread runs the short ones, on a core of its own: the *reserve*.
//!
//! The system may have no thread for a core while all existing threads sleep. So that these are woken,
//! one thread never runs a task that may sleep: the *rescuer*. It takes a core for which no thread can be
//! started, runs the tasks that cannot sleep, and leaves the rest to the others. This is rare: some
//! threads are started before they are needed and, if none can be started, the blocking limit is lowered
//! to what there are threads for (see [`blocking_limit`]).
//!
//! A wake-up costs more than many a task takes. So tasks that come while a worker is awake are left to
//! that worker, and another one is woken only when some tasks have waited for too long: see
//! [`queue_delay`].
//!
//! - [`idle`]: which threads have which cores, and the argument why no wake-up is lost.
//! - [`worker`]: what a thread does with a core.
//! - [`blocking_limit`]: the bound of sleeping tasks, and the tasks that have to wait because of it.
//! - [`room`]: the number of threads that the system has room for.
//! - [`queue_delay`]: the check for tasks that have waited for too long.

mod blocking_limit;
mod idle;
#[cfg(all(loom, test))]
mod loom_tests;
mod queue_delay;
mod room;
mod worker;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_deque as deque;

pub use worker::{blocking, release_core, take_core_again};

use blocking_limit::BlockingLimit;
use idle::Idle;
use queue_delay::QueueDelay;

/// A client of a scheduler, whose sleeping tasks are counted.
#[derive(Debug, Default)]
pub struct Client {
    asleep: AtomicUsize,
}

/// A piece of work: run once, to its end, on some worker.
pub trait Task: Send + 'static {
    /// The state that all tasks of a scheduler use.
    type Context: Send + Sync + 'static;

    /// The number of kinds of tasks.
    const KINDS: usize = 0;

    /// Returns the kind of the task, if too many sleepers of that kind are to keep it from starting.
    /// Tasks of one kind tend to sleep alike.
    fn kind(&self) -> Option<usize> {
        None
    }

    /// Returns the client of a task that has a kind. Of the last places for sleepers, each client gets
    /// only a few.
    fn client(&self) -> Arc<Client> {
        Arc::default()
    }

    /// Does the work. A panic is caught and counted, and the worker goes on.
    fn run(self, context: &Self::Context);

    /// Called when the task has to wait for others to wake before it starts.
    fn held(&self, _context: &Self::Context) {}

    /// Called when a thread that has run tasks finds no more, or is about to sleep in one. What the tasks
    /// put off has to be done now.
    fn pause(_context: &Self::Context) {}

    /// Called when a worker's thread ends while the scheduler goes on. What the thread holds has to be
    /// given back.
    fn thread_end(_context: &Self::Context) {}

    /// Called when a worker has panicked outside of any task. The scheduler can no longer be relied on.
    fn worker_panicked(_context: &Self::Context) {}
}

/// The configuration of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// The CPUs to run on, one core each. Empty: all that the process may run on.
    pub cpus: Vec<usize>,
    /// The most tasks that may sleep at once, each on a thread of its own. At this bound, a task whose
    /// kind is among the sleepers waits before it starts; near it, so does one whose client has its
    /// share (see [`blocking_limit`]). All others go on. See [`Task::kind`] and [`Task::client`]. The bound is
    /// lowered to what the system has room for.
    pub max_asleep: NonZeroUsize,
    /// The time that a worker looks for tasks before it gives its core back, as long as that pays (see
    /// [`ring::Spin`]).
    pub spin: Duration,
    /// The time that a thread waits for something to do before it ends. A few threads wait for ever.
    pub keep_alive: Duration,
    /// True if there is one more thread, the *rescuer*, which runs only tasks that have no kind. These
    /// then run even when all other threads sleep and the system has no more. Threads for sleepers are
    /// then started before they are needed.
    pub rescuer: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cpus: Vec::new(),
            max_asleep: NonZeroUsize::new(10_000).expect("not zero"),
            spin: Duration::ZERO,
            keep_alive: Duration::from_secs(5),
            rescuer: false,
        }
    }
}

/// The reason why a scheduler could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system did not tell which CPUs there are.
    #[error("cannot tell which CPUs this process may run on; name them")]
    UnknownCpus,
    /// A CPU that was asked for is not available to this process.
    #[error("this process may not run on CPU {0}; it may on {1:?}")]
    NoSuchCpu(usize, Vec<usize>),
    /// A thread could not be made.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The state that all threads of a scheduler share.
struct Shared<T: Task> {
    context: T::Context,
    /// The taking ends of the cores' deques.
    stealers: Vec<deque::Stealer<T>>,
    /// The tasks that do not come from the dispatcher.
    injector: deque::Injector<T>,
    /// The tasks that go ahead of those in the deques.
    priority: deque::Injector<T>,
    /// The tasks that the rescuer leaves to the workers.
    passed_over: deque::Injector<T>,
    /// Held while the rescuer finds out if a task may sleep, and puts it into `passed_over` if so.
    passing: Mutex<()>,
    idle: Idle,
    asleep: BlockingLimit<T>,
    spin: Duration,
    keep_alive: Duration,
    has_rescuer: bool,
    /// True if tasks have waited for too long and no worker has run out of tasks since.
    backpressure: AtomicBool,
    /// True if the system is to be treated as having no room for another thread.
    #[cfg(test)]
    refuses_threads: AtomicBool,
}

impl<T: Task> Shared<T> {
    /// Creates the shared state of a scheduler with these deques, and a core on each of these CPUs.
    fn new(
        context: T::Context,
        deques: &[deque::Worker<T>],
        cpus: Vec<usize>,
        most_asleep: usize,
        config: &Config,
    ) -> Arc<Shared<T>> {
        Arc::new(Shared {
            context,
            stealers: deques.iter().map(deque::Worker::stealer).collect(),
            injector: deque::Injector::new(),
            priority: deque::Injector::new(),
            passed_over: deque::Injector::new(),
            passing: Mutex::new(()),
            idle: Idle::new(cpus),
            asleep: BlockingLimit::new(most_asleep),
            spin: config.spin,
            keep_alive: config.keep_alive,
            has_rescuer: config.rescuer,
            backpressure: AtomicBool::new(false),
            #[cfg(test)]
            refuses_threads: AtomicBool::new(false),
        })
    }

    fn lock_passing(&self) -> MutexGuard<'_, ()> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_under_backpressure(&self) -> bool {
        self.backpressure.load(Ordering::Relaxed)
    }

    /// Ends the backpressure, because a worker has run out of tasks.
    fn relieve(&self) {
        if self.is_under_backpressure() {
            self.backpressure.store(false, Ordering::Relaxed);
        }
    }

    fn has_tasks(&self) -> bool {
        self.has_new_tasks() || self.asleep.has_ready() || !self.passed_over.is_empty()
    }

    /// Returns `true` if there are tasks that no thread has looked at yet.
    fn has_new_tasks(&self) -> bool {
        !self.priority.is_empty()
            || !self.injector.is_empty()
            || self.stealers.iter().any(|deque| !deque.is_empty())
    }
}

/// The filling end of all deques. It belongs to one thread.
pub struct Dispatcher<T: Task> {
    deques: Vec<deque::Worker<T>>,
    shared: Arc<Shared<T>>,
    queue_delay: QueueDelay,
}

impl<T: Task> Dispatcher<T> {
    /// Puts a task at the end of a core's deque. `index` is taken modulo the number of cores. The task
    /// may stay there until [`Dispatcher::notify`].
    pub fn push(&mut self, index: usize, task: T) {
        let index = index % self.deques.len();
        self.deques[index].push(task);
        self.queue_delay.pushed();
    }

    /// Puts a task ahead of those in the deques: a worker takes tasks from here and from its deque in
    /// turn. The task must not run for long. If it has waited for too long, because long tasks have all
    /// cores, another thread runs it beside them.
    pub fn push_priority(&mut self, task: T) {
        self.shared.priority.push(task);
        self.queue_delay.pushed();
    }

    /// Makes sure that some thread runs what was pushed: wakes one worker if none is awake. One call
    /// after a batch of pushes is enough. [`Dispatcher::look`] has to follow in time.
    pub fn notify(&mut self, now: Instant) {
        worker::notify_if_idle(&self.shared);
        self.queue_delay.begin(now);
    }

    /// Returns the time of the next [`look`](Dispatcher::look), if tasks may be waiting.
    pub fn next_look(&self) -> Option<Instant> {
        self.queue_delay.next()
    }

    /// Wakes another worker if tasks have waited for too long.
    pub fn look(&mut self, now: Instant) {
        let priority = self.shared.priority.len();
        let queued: usize = self.deques.iter().map(|deque| deque.len()).sum();
        if self.queue_delay.has_seen_too_long_a_wait(now, (priority + queued) as u64) {
            self.shared.backpressure.store(true, Ordering::Relaxed);
            worker::notify(&self.shared);
            if priority > 0 {
                worker::notify_reserve(&self.shared);
            }
        }
    }

    /// Looks again at the tasks that wait for sleepers to wake, because the kind of some may have
    /// changed.
    pub fn reconsider(&self) {
        let mut changed = self.shared.asleep.take_changed();
        changed.extend(self.take_passed_over());
        if !changed.is_empty() {
            changed.into_iter().for_each(|task| self.shared.injector.push(task));
            worker::notify(&self.shared);
        }
    }

    /// Takes the tasks that the rescuer has passed over.
    fn take_passed_over(&self) -> impl Iterator<Item = T> {
        // After this, what the rescuer found before the tasks changed is in the queue.
        drop(self.shared.lock_passing());
        // Takes only as many as there are now: the rescuer may pass them over again.
        let count = self.shared.passed_over.len();
        (0..count).map_while(|_| worker::take_passed_over(&self.shared))
    }

    /// Returns the number of cores.
    pub fn cores(&self) -> usize {
        self.deques.len()
    }
}

/// A handle that puts tasks into the scheduler from any thread.
pub struct Injector<T: Task>(Arc<Shared<T>>);

impl<T: Task> Clone for Injector<T> {
    fn clone(&self) -> Self {
        Injector(self.0.clone())
    }
}

impl<T: Task> Injector<T> {
    /// Queues a task behind those already injected.
    pub fn inject(&self, task: T) {
        self.0.injector.push(task);
        worker::notify(&self.0);
    }
}

#[cfg(all(loom, test))]
impl<T: Task> Injector<T> {
    /// Creates an injector of a scheduler without cores, which runs nothing.
    pub fn without_cores(context: T::Context) -> Injector<T> {
        let config = Config { keep_alive: Duration::MAX, ..Config::default() };
        Injector(Shared::new(context, &[], Vec::new(), 1, &config))
    }

    /// Takes the next task that was injected.
    pub fn take(&self) -> Option<T> {
        worker::take(|| self.0.injector.steal())
    }
}

/// The threads of a scheduler. Dropping it ends each thread once its current task has ended. Tasks still
/// in deques are dropped.
pub struct Scheduler<T: Task> {
    shared: Arc<Shared<T>>,
}

/// Counters of a scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Threads that exist now, including parked and sleeping ones, but not the rescuer.
    pub threads: usize,
    /// Times that a parked thread was given a core.
    pub wakes: u64,
    /// Times that a thread about to sleep gave its core back.
    pub hand_offs: u64,
    /// Tasks that sleep now.
    pub asleep: usize,
    /// Tasks that panicked.
    pub panics: u64,
}

impl<T: Task> Scheduler<T> {
    /// Creates a scheduler. Further threads start when there is something to do.
    pub fn new(
        config: &Config,
        context: T::Context,
    ) -> Result<(Scheduler<T>, Dispatcher<T>), Error> {
        let cpus = choose_cpus(&config.cpus)?;
        let deques: Vec<_> = cpus.iter().map(|_| deque::Worker::new_fifo()).collect();
        let most_asleep = most_asleep(config.max_asleep.get());
        let shared = Shared::new(context, &deques, cpus, most_asleep, config);
        // The first thread is started here, so that a machine which refuses threads is found out now.
        let scheduler = Scheduler { shared: shared.clone() };
        worker::start(&shared)?;
        if config.rescuer {
            worker::start_rescuer(&shared)?;
        }
        Ok((scheduler, Dispatcher { deques, shared, queue_delay: QueueDelay::default() }))
    }

    /// Creates a scheduler without threads: [`Scheduler::take_one`] takes its tasks.
    #[cfg(test)]
    pub fn without_threads(cores: usize, context: T::Context) -> (Scheduler<T>, Dispatcher<T>) {
        let deques: Vec<_> = (0..cores).map(|_| deque::Worker::new_fifo()).collect();
        let config = Config { keep_alive: Duration::MAX, ..Config::default() };
        let shared = Shared::new(context, &deques, Vec::new(), usize::MAX, &config);
        (
            Scheduler { shared: shared.clone() },
            Dispatcher { deques, shared, queue_delay: QueueDelay::default() },
        )
    }

    /// Takes a priority task, or else the oldest task of a core's deque. If `index` is past the last
    /// core, takes an injected one.
    #[cfg(test)]
    pub fn take_one(&self, index: usize) -> Option<T> {
        worker::take_priority(&self.shared).or_else(|| match self.shared.stealers.get(index) {
            Some(deque) => worker::take(|| deque.steal()),
            None => worker::take(|| self.shared.injector.steal()),
        })
    }

    /// Returns a handle that puts tasks into this scheduler from any thread.
    pub fn injector(&self) -> Injector<T> {
        Injector(self.shared.clone())
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        Stats { asleep: self.shared.asleep.count(), ..self.shared.idle.stats() }
    }
}

impl<T: Task> Drop for Scheduler<T> {
    fn drop(&mut self) {
        self.shared.idle.close();
    }
}

/// Returns the CPUs that this process may run on.
pub fn allowed_cpus() -> Result<Vec<usize>, Error> {
    let ids = core_affinity::get_core_ids().filter(|ids| !ids.is_empty());
    Ok(ids.ok_or(Error::UnknownCpus)?.iter().map(|id| id.id).collect())
}

/// Returns the number of sleepers asked for, or less if the system has no room for their threads.
fn most_asleep(asked: usize) -> usize {
    let bound = |asked| room::for_threads().filter(|room| room.threads < asked);
    // There is always room for one, even if this process cannot find out.
    let Some(room) = (asked > 1).then(|| bound(asked)).flatten() else {
        return asked;
    };
    let most = room.threads.max(1);
    tracing::warn!(
        "no more than {most} calls may sleep on threads at once, not {asked}: see {}",
        room.bound
    );
    most
}

/// Returns the CPUs asked for, each once, or all CPUs if none were named.
fn choose_cpus(asked: &[usize]) -> Result<Vec<usize>, Error> {
    let allowed = allowed_cpus()?;
    if asked.is_empty() {
        return Ok(allowed);
    }
    let mut cpus = asked.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(&cpu) => Err(Error::NoSuchCpu(cpu, allowed)),
        None => Ok(cpus),
    }
}

/// Parses a list of CPUs such as `0,2-3`.
pub fn parse_cpus(list: &str) -> Result<Vec<usize>, String> {
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no CPU number"));
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last - first >= 4096 {
            return Err(format!("`{part}` is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests;
