//! Who sits where: the cores nobody has, the threads without one, and how the two meet.
//!
//! # Why no wake-up is lost
//!
//! Two things race: a producer puts a task into a deque and looks for a free core; a worker that
//! found no task frees its core and parks. Each writes first and looks second, with a sequentially
//! consistent fence between the two: the producer writes the deque, then reads the number of free
//! cores; the worker writes the number of free cores, then reads the deques. So at least one of them
//! sees what the other wrote. If it is the producer, it gives the core to a thread; if it is the
//! worker, it does the same in the producer's stead. When both see it, one finds the core taken.
//!
//! A thread that is given a core may not have gone to sleep yet: the core is put into its
//! [`Parker`] under that parker's lock, and it looks there before it sleeps.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Stats;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Threads that wait for a core, at most. After a burst of sleepers there are as many as slept; those
/// over this bound end when their task has.
pub const MOST_WAITING: usize = 256;

/// Threads that wait for a core for as long as it takes. Those over this bound wait for
/// [`super::Config::keep_alive`] only, so that the threads of a burst go in the end.
pub const KEPT_WAITING: usize = 16;

/// The right to run on a core. As many exist as there are cores, and one more, the reserve: it runs tasks
/// of priority only, while long tasks have all the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Core {
    /// Index of the core's deque. The reserve has none: its index is the number of cores.
    pub index: usize,
    /// The CPU it stands on.
    pub cpu: usize,
}

/// Where one thread waits for a core.
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

/// How waiting in a [`Parker`] has ended.
pub enum Waited {
    /// A core was given.
    Core(Core),
    /// The thread is to end.
    End,
    /// Nothing has come in that time.
    TimedOut,
}

impl Parker {
    /// Waits until a core is given, or the thread is to end.
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

    /// Waits for this long, or until it is woken for nothing.
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

/// Seats and threads of one pool.
pub struct Idle {
    /// How many there are.
    cores: usize,
    /// Copy of `state.cores.len()`, to be read without the lock.
    free: AtomicUsize,
    /// Copy of `state.closed`, likewise.
    closed: AtomicBool,
    /// How many there are, the rescuer apart.
    threads: AtomicUsize,
    state: Mutex<State>,
    wakes: AtomicU64,
    hand_offs: AtomicU64,
    panics: AtomicU64,
}

struct State {
    cores: Vec<Core>,
    /// The core for tasks of priority, if nobody has it.
    reserve: Option<Core>,
    /// Threads that wait for a core, with the core each sat on last.
    parked: Vec<(usize, Arc<Parker>)>,
    /// Where the rescuer waits, if there is one and it has no core.
    rescuer: Option<Arc<Parker>>,
    closed: bool,
}

/// What a producer has to do so that its task is run.
pub enum Need {
    /// Nothing: all cores are taken, and who sits there looks before leaving. Or the scheduler ends.
    Nothing,
    /// A core is free and no thread waits for one: start a thread for it.
    Thread(Core),
}

impl Idle {
    /// A core on each of these CPUs, and no thread yet.
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

    /// Fills a free core, if there is one, because there is work. To be called after the work has
    /// become visible.
    pub fn fill_a_core(&self) -> Need {
        self.fill_from(1)
    }

    /// The same, if all cores are free: else whoever has one looks for work before leaving it.
    pub fn fill_the_first_core(&self) -> Need {
        self.fill_from(self.cores)
    }

    /// Fills a core if at least so many are free.
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

    /// Fills the reserve, because tasks of priority wait and nobody who has a core gets to them.
    pub fn fill_the_reserve(&self) -> Need {
        let mut state = lock(&self.state);
        match state.reserve.take().filter(|_| !state.closed) {
            Some(core) => self.give(state, core),
            None => Need::Nothing,
        }
    }

    /// Gives a core to a thread that waits for one, if any does.
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

    /// A worker found nothing to do: its core is free, and it waits in `parker` from here on, or is sent
    /// home. The caller then looks at the deques once more.
    pub fn stand_up(&self, core: Core, parker: &Arc<Parker>) {
        self.free_core(core, Some(parker));
        fence(Ordering::SeqCst);
    }

    /// A thread without a core has ended its task and waits for one, or is sent home if many do. The
    /// caller then looks at the deques: there may have been nobody to take a free core, if the system had
    /// no more threads.
    pub fn add_parked(&self, last_core: usize, parker: &Arc<Parker>) {
        let mut state = lock(&self.state);
        state.wait_at(last_core, parker);
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// A thread is about to sleep inside a task: its core is free. The caller then has it filled if
    /// there is work.
    pub fn leave(&self, core: Core) {
        self.hand_offs.fetch_add(1, Ordering::Relaxed);
        self.free_core(core, None);
    }

    /// A thread woke up inside a task: the core it had, or another, if one is free.
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

    /// A thread has waited for long: whether it is to end, and waits no more. If not it has been given
    /// something, or few enough wait.
    pub fn retire(&self, parker: &Arc<Parker>) -> bool {
        let mut state = lock(&self.state);
        if state.parked.len() <= KEPT_WAITING {
            return false;
        }
        let at = state.parked.iter().position(|(_, other)| Arc::ptr_eq(other, parker));
        at.map(|at| state.parked.remove(at)).is_some()
    }

    /// A thread that was to be started could not be: the rescuer takes its core, or if it has one, or
    /// there is none, that core is free again. Returns how many threads there are.
    pub fn thread_failed(&self, core: Core) -> usize {
        let mut state = lock(&self.state);
        match state.rescuer.take() {
            Some(parker) => parker.give(Given::Core(core)),
            None => self.put_back(&mut state, core),
        }
        drop(state);
        self.thread_ended()
    }

    /// A thread is to be started without a core.
    pub fn thread_begins(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// The rescuer waits in `parker` until a thread cannot be started, and its core is free if it had one.
    /// The caller then looks at the deques once more.
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

    /// How many threads wait for a core.
    pub fn waiting(&self) -> usize {
        lock(&self.state).parked.len()
    }

    /// How many cores there are, but for the reserve.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// The scheduler ends: every waiting thread is sent home, every other one goes when it would wait.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.closed.store(true, Ordering::Relaxed);
        let rescuer = state.rescuer.take();
        for parker in state.parked.drain(..).map(|(_, parker)| parker).chain(rescuer) {
            parker.give(Given::End);
        }
    }

    /// Whether the scheduler ends.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A thread has ended, or one without a core could not be started. Returns how many are left.
    pub fn thread_ended(&self) -> usize {
        self.threads.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Counts a task that panicked.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Counters.
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
    /// Has a thread wait for a core, or sends it home if the scheduler ends or many wait already.
    fn wait_at(&mut self, last_core: usize, parker: &Arc<Parker>) {
        if self.closed || self.parked.len() >= MOST_WAITING {
            parker.give(Given::End);
        } else {
            self.parked.push((last_core, parker.clone()));
        }
    }

    /// The waiting thread that sat on this core last, else the one that waited least.
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
