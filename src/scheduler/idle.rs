//! The idle list: the cores that no thread has, the threads without a core, and how the two meet.
//!
//! # Why no wake-up is lost
//!
//! Two things race: a producer puts a task into a deque and looks for a free core; a worker that found no
//! task frees its core and parks. Each writes first and looks second, with a sequentially consistent
//! fence between: the producer writes the deque, then reads the number of free cores; the worker writes
//! the number of free cores, then reads the deques. So at least one of them sees what the other wrote. If
//! the producer does, it gives the core to a thread. If the worker does, it does the same in the
//! producer's stead. If both do, one of them finds the core taken.
//!
//! A thread that is given a core may not have gone to sleep yet. So the core is put into its [`Parker`]
//! under that parker's lock, and the thread looks there before it sleeps.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Stats;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The most threads that wait for a core. After a burst of sleepers, as many threads exist as slept;
/// those over this bound end with their task.
pub const MOST_WAITING: usize = 256;

/// The number of threads that wait for a core for as long as it takes. Those over this bound wait only
/// for [`super::Config::keep_alive`], so that the threads of a burst end eventually.
pub const KEPT_WAITING: usize = 16;

/// The right to run on a CPU. As many exist as CPUs are configured, and one more, the reserve: it runs
/// only priority tasks, while long tasks have all the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Core {
    /// The index of the core's deque. The reserve has no deque: its index is the number of cores.
    pub index: usize,
    /// The CPU of the core.
    pub cpu: usize,
}

/// The place where one thread waits for a core.
#[derive(Default)]
pub struct Parker {
    given: Mutex<Given>,
    wake: Condvar,
}

#[derive(Default)]
enum Given {
    #[default]
    Nothing,
    Core(Core),
    End,
}

/// The result of waiting in a [`Parker`].
pub enum Waited {
    /// The thread was given a core.
    Core(Core),
    /// The thread is to end.
    End,
    /// Nothing has come in that time.
    TimedOut,
}

impl Parker {
    /// Waits until a core is given (`Some`), or the thread is to end (`None`).
    pub fn wait(&self) -> Option<Core> {
        let mut given = lock(&self.given);
        loop {
            match std::mem::take(&mut *given) {
                Given::Core(core) => return Some(core),
                Given::End => return None,
                Given::Nothing => {
                    given = self.wake.wait(given).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits for this long. May return early, after a spurious wake-up.
    pub fn wait_for(&self, time: Duration) -> Waited {
        let mut given = lock(&self.given);
        if matches!(*given, Given::Nothing) {
            let waited = self.wake.wait_timeout(given, time);
            given = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match std::mem::take(&mut *given) {
            Given::Core(core) => Waited::Core(core),
            Given::End => Waited::End,
            Given::Nothing => Waited::TimedOut,
        }
    }

    fn give(&self, what: Given) {
        *lock(&self.given) = what;
        self.wake.notify_one();
    }
}

/// The idle list of one scheduler: its free cores and its threads.
pub struct Idle {
    /// The number of cores, without the reserve.
    cores: usize,
    /// A copy of `state.cores.len()`, which is read without the lock.
    free: AtomicUsize,
    /// A copy of `state.closed`, likewise.
    closed: AtomicBool,
    /// The number of threads, without the rescuer.
    threads: AtomicUsize,
    state: Mutex<State>,
    wakes: AtomicU64,
    hand_offs: AtomicU64,
    panics: AtomicU64,
}

struct State {
    cores: Vec<Core>,
    /// The core for priority tasks, unless a thread has it.
    reserve: Option<Core>,
    /// The threads that wait for a core, each with the core that it had last.
    parked: Vec<(usize, Arc<Parker>)>,
    /// The rescuer's parker, if there is a rescuer and it has no core.
    rescuer: Option<Arc<Parker>>,
    closed: bool,
}

/// The step that a producer has to take so that its task is run.
pub enum Need {
    /// Nothing: all cores are taken, and their threads look for tasks before they leave. Or the scheduler
    /// ends.
    Nothing,
    /// A core is free and no thread waits for one: a thread has to be started for it.
    Thread(Core),
}

impl Idle {
    /// Creates a list with a core on each of these CPUs, and no threads.
    pub fn new(cpus: Vec<usize>) -> Idle {
        let cores: Vec<Core> =
            cpus.into_iter().enumerate().map(|(index, cpu)| Core { index, cpu }).collect();
        let reserve = cores.last().map(|last| Core { index: cores.len(), cpu: last.cpu });
        Idle {
            cores: cores.len(),
            free: AtomicUsize::new(cores.len()),
            closed: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            state: Mutex::new(State {
                cores,
                reserve,
                parked: Vec::new(),
                rescuer: None,
                closed: false,
            }),
            wakes: AtomicU64::new(0),
            hand_offs: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Fills a free core, if there is one, because there is work. To be called after the work has become
    /// visible.
    pub fn fill_a_core(&self) -> Need {
        self.fill_from(1)
    }

    /// Fills a core if all are free. Otherwise the thread that has one looks for work before it leaves.
    pub fn fill_the_first_core(&self) -> Need {
        self.fill_from(self.cores)
    }

    /// Fills a core if at least `least` are free.
    fn fill_from(&self, least: usize) -> Need {
        fence(Ordering::SeqCst);
        if self.free.load(Ordering::Relaxed) < least {
            return Need::Nothing;
        }
        let mut state = lock(&self.state);
        if state.closed {
            return Need::Nothing;
        }
        let Some(core) = state.cores.pop() else {
            return Need::Nothing;
        };
        self.free.store(state.cores.len(), Ordering::Relaxed);
        self.give(state, core)
    }

    /// Fills the reserve, because priority tasks wait and no thread that has a core gets to them.
    pub fn fill_the_reserve(&self) -> Need {
        let mut state = lock(&self.state);
        match state.reserve.take().filter(|_| !state.closed) {
            Some(core) => self.give(state, core),
            None => Need::Nothing,
        }
    }

    /// Gives a core to a waiting thread, or asks for a new thread if none waits.
    fn give(&self, mut state: MutexGuard<'_, State>, core: Core) -> Need {
        if let Some(parker) = state.take_parked(core.index) {
            drop(state);
            self.wakes.fetch_add(1, Ordering::Relaxed);
            parker.give(Given::Core(core));
            return Need::Nothing;
        }
        drop(state);
        self.thread_begins();
        Need::Thread(core)
    }

    /// Frees the core of a worker that found no task. The worker waits in `parker` from here on, or is
    /// told to end. The caller then looks at the deques once more.
    pub fn give_back(&self, core: Core, parker: &Arc<Parker>) {
        self.free_core(core, Some(parker));
        fence(Ordering::SeqCst);
    }

    /// Adds a thread that has ended its task without a core. It waits in `parker`, or is told to end if
    /// many threads wait. The caller then looks at the deques: if the system had no more threads, nobody
    /// may have taken a free core.
    pub fn add_parked(&self, last_core: usize, parker: &Arc<Parker>) {
        let mut state = lock(&self.state);
        state.wait_at(last_core, parker);
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// Frees the core of a thread that is about to sleep inside a task. If there is work, the caller then
    /// has the core filled.
    pub fn leave(&self, core: Core) {
        self.hand_offs.fetch_add(1, Ordering::Relaxed);
        self.free_core(core, None);
    }

    /// Takes a core for a thread that woke up inside a task: the core it had, or another, if one is free.
    pub fn come_back(&self, last_core: usize) -> Option<Core> {
        let mut state = lock(&self.state);
        let at = state.cores.iter().position(|core| core.index == last_core);
        let core = match at {
            Some(at) => Some(state.cores.swap_remove(at)),
            None => state.cores.pop(),
        };
        self.free.store(state.cores.len(), Ordering::Relaxed);
        core
    }

    /// Returns `true` if a thread that has waited for long is to end; it then no longer waits. Otherwise
    /// the thread has just been given something, or few enough threads wait.
    pub fn retire(&self, parker: &Arc<Parker>) -> bool {
        let mut state = lock(&self.state);
        if state.parked.len() <= KEPT_WAITING {
            return false;
        }
        let at = state.parked.iter().position(|(_, other)| Arc::ptr_eq(other, parker));
        at.map(|at| state.parked.remove(at)).is_some()
    }

    /// Notes that a thread for this core could not be started. The rescuer takes the core. If the rescuer
    /// has a core already, or there is no rescuer, the core is free again. Returns the number of threads.
    pub fn thread_failed(&self, core: Core) -> usize {
        let mut state = lock(&self.state);
        match state.rescuer.take() {
            Some(parker) => parker.give(Given::Core(core)),
            None => self.put_back(&mut state, core),
        }
        drop(state);
        self.thread_ended()
    }

    /// Counts a thread that is about to be started.
    pub fn thread_begins(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the rescuer wait in `parker` until a thread cannot be started, and frees its core if it had
    /// one. The caller then looks at the deques once more.
    pub fn retire_rescuer(&self, core: Option<Core>, parker: &Arc<Parker>) {
        let mut state = lock(&self.state);
        if state.closed {
            parker.give(Given::End);
        } else {
            state.rescuer = Some(parker.clone());
        }
        if let Some(core) = core {
            self.put_back(&mut state, core);
        }
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// Returns the number of threads that wait for a core.
    pub fn waiting(&self) -> usize {
        lock(&self.state).parked.len()
    }

    /// Returns the number of cores, without the reserve.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Ends the scheduler: every waiting thread is told to end, and every other one ends when it would
    /// wait.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.closed.store(true, Ordering::Relaxed);
        let rescuer = state.rescuer.take();
        for parker in state.parked.drain(..).map(|(_, parker)| parker).chain(rescuer) {
            parker.give(Given::End);
        }
    }

    /// Returns `true` if the scheduler ends.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Counts a thread that has ended, or that could not be started. Returns the number of threads left.
    pub fn thread_ended(&self) -> usize {
        self.threads.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Returns the number of threads.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Counts a task that panicked.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        Stats {
            threads: self.threads(),
            wakes: self.wakes.load(Ordering::Relaxed),
            hand_offs: self.hand_offs.load(Ordering::Relaxed),
            asleep: 0,
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    fn free_core(&self, core: Core, parker: Option<&Arc<Parker>>) {
        let mut state = lock(&self.state);
        if let Some(parker) = parker {
            state.wait_at(core.index, parker);
        }
        self.put_back(&mut state, core);
    }

    fn put_back(&self, state: &mut MutexGuard<'_, State>, core: Core) {
        if core.index == self.cores {
            state.reserve = Some(core);
            return;
        }
        state.cores.push(core);
        self.free.store(state.cores.len(), Ordering::Relaxed);
    }
}

impl State {
    /// Makes a thread wait for a core. Tells it to end if the scheduler ends or many threads wait
    /// already.
    fn wait_at(&mut self, last_core: usize, parker: &Arc<Parker>) {
        if self.closed || self.parked.len() >= MOST_WAITING {
            parker.give(Given::End);
        } else {
            self.parked.push((last_core, parker.clone()));
        }
    }

    /// Takes the waiting thread that had this core last, or else the one that has waited for the shortest
    /// time.
    fn take_parked(&mut self, index: usize) -> Option<Arc<Parker>> {
        let at = self.parked.iter().rposition(|(last, _)| *last == index);
        match at {
            Some(at) => Some(self.parked.remove(at).1),
            None => self.parked.pop().map(|(_, parker)| parker),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
