//! The blocking limit: it counts the tasks that sleep, and holds back tasks when too many do.
//!
//! A task that sleeps inside a kernel keeps a thread, so the number of sleepers has a bound. Nobody can
//! say which task will sleep next, but tasks of one kind tend to sleep alike. So a task waits before it
//! starts if a task of its kind is asleep and its client has its share of sleepers: of the last quarter,
//! or the last [`MOST_RESERVED`] if those are fewer, each client gets only a little, and at the bound, nobody gets more. All other tasks go on. The first
//! task of a kind may still fall asleep. So the number of sleepers over the bound is at most the number
//! of kinds times the number of cores, because that many tasks start at once.
//!
//! A task that has waited counts as asleep from the moment it may go on, whether it then sleeps or not.
//! So no more tasks go on than there is room for, and a task that ends without having slept makes room
//! for the next.
//!
//! If the system has no thread for one more sleeper, the bound is lowered to what there are threads for.
//! It rises again when a task waits and a thread can be started.
//!
//! No task is left behind: a task that is to wait first counts itself and then looks once more if it has
//! to, and a task that wakes first makes room and then looks for waiting tasks. So one of the two sees
//! the other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_deque::Injector;

use super::{Client, Task};
use crate::fairness::leaves_some_of;

/// The most sleepers of which each client gets only a little. They are a quarter of the bound if that is
/// less: a client that sleeps does so for long, and a few hundred places are enough for those who come.
const MOST_RESERVED: usize = 512;

/// The time for which no thread is started ahead of need, after one could not be started.
const REST: Duration = Duration::from_secs(1);

/// The kind and the client under which a sleeping task is counted.
#[derive(Clone, Debug)]
pub struct Sleeper {
    kind: usize,
    client: Arc<Client>,
}

impl Sleeper {
    /// Returns what this task counts as, or `None` if it may not sleep.
    pub fn of<T: Task>(task: &T) -> Option<Sleeper> {
        task.kind().map(|kind| Sleeper { kind, client: task.client() })
    }

    fn key(&self) -> Key {
        (Arc::as_ptr(&self.client) as usize, self.kind)
    }
}

/// A client, by its address in memory, and a kind. The address stays valid because a waiting task keeps
/// its client.
type Key = (usize, usize);

/// The blocking limit: the sleepers of a scheduler, and the tasks that wait for one of them to wake.
pub struct BlockingLimit<T> {
    bound: Bound,
    total: AtomicUsize,
    by_kind: Box<[AtomicUsize]>,
    /// The number of tasks that wait, or are about to.
    waiters: AtomicUsize,
    waiting: Mutex<Waiting<T>>,
    /// The tasks that have waited and may go on.
    ready: Injector<(T, Sleeper)>,
}

impl<T: Task> BlockingLimit<T> {
    /// Creates a limit of `most` sleepers.
    pub fn new(most: usize) -> BlockingLimit<T> {
        BlockingLimit {
            bound: Bound::new(most),
            total: AtomicUsize::new(0),
            by_kind: (0..T::KINDS).map(|_| AtomicUsize::new(0)).collect(),
            waiters: AtomicUsize::new(0),
            waiting: Mutex::new(Waiting { tasks: HashMap::new(), turns: VecDeque::new() }),
            ready: Injector::new(),
        }
    }

    /// Counts a task that falls asleep.
    pub fn enter(&self, sleeper: Option<&Sleeper>) {
        self.total.fetch_add(1, Ordering::SeqCst);
        if let Some(Sleeper { kind, client }) = sleeper {
            self.by_kind[*kind].fetch_add(1, Ordering::SeqCst);
            client.asleep.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Counts a task that wakes. Returns `true` if other tasks may go on because of that.
    pub fn leave(&self, sleeper: Option<&Sleeper>) -> bool {
        let mut was_last = false;
        if let Some(Sleeper { kind, client }) = sleeper {
            client.asleep.fetch_sub(1, Ordering::SeqCst);
            was_last = self.by_kind[*kind].fetch_sub(1, Ordering::SeqCst) == 1;
        }
        let total = self.total.fetch_sub(1, Ordering::SeqCst) - 1;
        (was_last || total < self.bound.now()) && self.release()
    }

    /// Returns the task if it may start. If it has to wait, passes it to `held` and keeps it.
    pub fn admit(&self, task: T, sleeper: &Sleeper, held: impl FnOnce(&T)) -> Option<T> {
        if self.may_start(sleeper) {
            return Some(task);
        }
        held(&task);
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut waiting = self.lock();
        if task.kind().is_none() || self.may_start(sleeper) {
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            return Some(task);
        }
        waiting.push(task, sleeper);
        None
    }

    /// Takes a task that has waited and may start. It counts as asleep already.
    pub fn next_ready(&self) -> Option<(T, Sleeper)> {
        if self.ready.is_empty() { None } else { super::worker::take(|| self.ready.steal()) }
    }

    /// Returns `true` if a task has waited and may start.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the waiting tasks that no longer have a kind.
    pub fn take_changed(&self) -> Vec<T> {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let changed = self.lock().take_changed();
        self.waiters.fetch_sub(changed.len(), Ordering::SeqCst);
        changed
    }

    /// Lowers the bound to `most`, because no more threads can be started. With so many sleepers, enough
    /// threads are left.
    pub fn lower(&self, most: usize, now: Instant) {
        self.bound.lower(most, now);
    }

    /// Returns `true` if the bound is lower than configured.
    pub fn is_lowered(&self) -> bool {
        self.bound.is_lowered()
    }

    /// Returns `true` unless a thread could not be started a short time ago.
    pub fn has_rested(&self, now: Instant) -> bool {
        self.bound.has_rested(now)
    }

    /// Raises the bound, because another thread was started. Returns `true` if tasks may go on because of
    /// that.
    pub fn raise(&self) -> bool {
        self.bound.raise(self.count());
        self.release()
    }

    /// Returns the number of sleepers.
    pub fn count(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Lets those waiting tasks go on that may, one client after the other. Returns `true` if there were
    /// any.
    fn release(&self) -> bool {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut waiting = self.lock();
        let mut any = false;
        while let Some((task, sleeper)) = waiting.next(|sleeper| self.may_start(sleeper)) {
            self.enter(Some(&sleeper));
            self.waiters.fetch_sub(1, Ordering::SeqCst);
            self.ready.push((task, sleeper));
            any = true;
        }
        any
    }

    fn may_start(&self, sleeper: &Sleeper) -> bool {
        let own = sleeper.client.asleep.load(Ordering::SeqCst);
        let (all, most) = (self.total.load(Ordering::SeqCst), self.bound.now());
        leaves_some_of((most / 4).min(MOST_RESERVED), own, all, most)
            || self.by_kind[sleeper.kind].load(Ordering::SeqCst) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bound of sleepers: as configured, or lower if no thread could be started for more.
struct Bound {
    asked: usize,
    now: AtomicUsize,
    /// The last time that a thread could not be started.
    lowered: Mutex<Option<Instant>>,
}

impl Bound {
    fn new(asked: usize) -> Bound {
        Bound { asked, now: AtomicUsize::new(asked), lowered: Mutex::new(None) }
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    fn is_lowered(&self) -> bool {
        self.now() < self.asked
    }

    fn lower(&self, most: usize, now: Instant) {
        self.now.fetch_min(most.max(1), Ordering::SeqCst);
        *self.lowered.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Returns `true` if [`REST`] has passed since a thread last could not be started.
    fn has_rested(&self, now: Instant) -> bool {
        let lowered = *self.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        lowered.is_none_or(|then| now.saturating_duration_since(then) >= REST)
    }

    /// Lets one more task sleep than may now, or than do.
    fn raise(&self, asleep: usize) {
        let more = |now: usize| Some((now.max(asleep) + 1).min(self.asked));
        // The update always succeeds.
        let _ = self.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
    }
}

/// The tasks that wait, by client and kind. Of the tasks of one key, either the first may go on or none
/// may.
struct Waiting<T> {
    tasks: HashMap<Key, VecDeque<T>>,
    /// The keys with waiting tasks, the next one to look at first. Each is there once.
    turns: VecDeque<Sleeper>,
}

impl<T: Task> Waiting<T> {
    fn push(&mut self, task: T, sleeper: &Sleeper) {
        let alike = self.tasks.entry(sleeper.key()).or_default();
        if alike.is_empty() {
            self.turns.push_back(sleeper.clone());
        }
        alike.push_back(task);
    }

    /// Takes the first task of the next key that may start. That key then goes to the end.
    fn next(&mut self, may_start: impl Fn(&Sleeper) -> bool) -> Option<(T, Sleeper)> {
        let at = self.turns.iter().position(may_start)?;
        let sleeper = self.turns.remove(at)?;
        let alike = self.tasks.get_mut(&sleeper.key())?;
        let task = alike.pop_front()?;
        if alike.is_empty() {
            self.tasks.remove(&sleeper.key());
        } else {
            self.turns.push_back(sleeper.clone());
        }
        Some((task, sleeper))
    }

    fn take_changed(&mut self) -> Vec<T> {
        let mut changed = Vec::new();
        for alike in self.tasks.values_mut() {
            let (same, other): (VecDeque<T>, VecDeque<T>) =
                alike.drain(..).partition(|task| task.kind().is_some());
            *alike = same;
            changed.extend(other);
        }
        self.tasks.retain(|_, alike| !alike.is_empty());
        self.turns.retain(|sleeper| self.tasks.contains_key(&sleeper.key()));
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Task for Nothing {
        type Context = ();

        const KINDS: usize = 1;

        fn run(self, (): &()) {}
    }

    #[test]
    fn of_many_sleepers_the_greedy_may_have_all_but_some_hundred() {
        const MOST: usize = 10_000;
        let limit = BlockingLimit::<Nothing>::new(MOST);
        let [greedy, stranger] = [0; 2].map(|_| Sleeper { kind: 0, client: Arc::default() });
        for asleep in 0..MOST - MOST_RESERVED {
            assert!(limit.may_start(&greedy), "{asleep} asleep");
            limit.enter(Some(&greedy));
        }
        assert!(!limit.may_start(&greedy));
        assert!(limit.may_start(&stranger));
    }
}
