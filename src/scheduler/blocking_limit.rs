//! How many tasks sleep, and which tasks have to wait because too many do.
//!
//! A task that sleeps inside a kernel keeps a thread, so the number of sleepers has a bound. Near the
//! bound nobody can say which task will sleep next; but tasks of one kind tend to sleep alike. So a
//! task waits before it starts if one of its kind is asleep and its client has its share of sleepers:
//! of the last quarter each client gets only a little, and at the bound nobody gets more. All others go
//! on. The first of a kind may still fall asleep: there are at most as many sleepers over the bound
//! as there are kinds, times the cores, for that many start at once.
//!
//! A task that has waited counts as asleep from when it may go on, whether it then sleeps or not. So no
//! more go on than there is room for, and one that ends without having slept makes room for the next.
//!
//! Where the system has no thread for one more sleeper, the bound becomes what there are threads for. It
//! grows again when a task waits and a thread can be started.
//!
//! Who is to wait counts itself first and then looks once more whether it has to; who wakes makes room
//! first and then looks whether anybody waits. One of the two sees the other, and no task is left behind.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_deque::Injector;

use super::{Client, Task};
use crate::fairness::leaves_some;

/// How long no thread is started before it is needed, after one could not be.
const REST: Duration = Duration::from_secs(1);

/// What a task counts as while it sleeps.
#[derive(Clone, Debug)]
pub struct Sleeper {
    kind: usize,
    client: Arc<Client>,
}

impl Sleeper {
    /// What this task counts as, if it may sleep.
    pub fn of<T: Task>(task: &T) -> Option<Sleeper> {
        task.kind().map(|kind| Sleeper { kind, client: task.client() })
    }

    fn key(&self) -> Key {
        (Arc::as_ptr(&self.client) as usize, self.kind)
    }
}

/// A client, by where it is in memory, and a kind. Whoever waits keeps its client where it is.
type Key = (usize, usize);

/// The sleepers of a scheduler, and the tasks that wait for one of them to wake.
pub struct BlockingLimit<T> {
    bound: Bound,
    total: AtomicUsize,
    by_kind: Box<[AtomicUsize]>,
    /// How many tasks wait, or are about to.
    waiters: AtomicUsize,
    waiting: Mutex<Waiting<T>>,
    /// Tasks that have waited and may go on.
    ready: Injector<(T, Sleeper)>,
}

impl<T: Task> BlockingLimit<T> {
    /// Nobody, and at most so many.
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

    /// A task falls asleep.
    pub fn enter(&self, sleeper: Option<&Sleeper>) {
        self.total.fetch_add(1, Ordering::SeqCst);
        if let Some(Sleeper { kind, client }) = sleeper {
            self.by_kind[*kind].fetch_add(1, Ordering::SeqCst);
            client.asleep.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task wakes. Whether others may go on because of that.
    pub fn leave(&self, sleeper: Option<&Sleeper>) -> bool {
        let mut was_last = false;
        if let Some(Sleeper { kind, client }) = sleeper {
            client.asleep.fetch_sub(1, Ordering::SeqCst);
            was_last = self.by_kind[*kind].fetch_sub(1, Ordering::SeqCst) == 1;
        }
        let total = self.total.fetch_sub(1, Ordering::SeqCst) - 1;
        (was_last || total < self.bound.now()) && self.release()
    }

    /// Keeps the task if it has to wait, and says so to `held`; returns it if it may start.
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

    /// A task that has waited, may start, and counts as asleep already.
    pub fn next_ready(&self) -> Option<(T, Sleeper)> {
        if self.ready.is_empty() { None } else { super::worker::take(|| self.ready.steal()) }
    }

    /// Whether there is such a task.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the waiting tasks that are of no kind any more.
    pub fn take_changed(&self) -> Vec<T> {
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let changed = self.lock().take_changed();
        self.waiters.fetch_sub(changed.len(), Ordering::SeqCst);
        changed
    }

    /// No thread can be started beyond those that there are, and so many sleepers leave enough of them.
    pub fn lower(&self, most: usize, now: Instant) {
        self.bound.lower(most, now);
    }

    /// Whether fewer may sleep than were to.
    pub fn is_lowered(&self) -> bool {
        self.bound.is_lowered()
    }

    /// Whether it is some time ago that a thread could not be started, if it ever was so.
    pub fn has_rested(&self, now: Instant) -> bool {
        self.bound.has_rested(now)
    }

    /// A thread more could be started. Whether tasks may go on because of that.
    pub fn raise(&self) -> bool {
        self.bound.raise(self.count());
        self.release()
    }

    /// How many sleep.
    pub fn count(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Has those of the waiting tasks go on that may, a client's after another's. Whether there were any.
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
        leaves_some(own, self.total.load(Ordering::SeqCst), self.bound.now())
            || self.by_kind[sleeper.kind].load(Ordering::SeqCst) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many may sleep: as many as were asked for, or fewer if no thread could be started for more.
struct Bound {
    asked: usize,
    now: AtomicUsize,
    /// When a thread could not be started.
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

    /// Whether the last thread that could not be started is long enough ago.
    fn has_rested(&self, now: Instant) -> bool {
        let lowered = *self.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        lowered.is_none_or(|then| now.saturating_duration_since(then) >= REST)
    }

    /// Lets one more sleep than may, or than do.
    fn raise(&self, asleep: usize) {
        let more = |now: usize| Some((now.max(asleep) + 1).min(self.asked));
        // It always changes.
        let _ = self.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
    }
}

/// Tasks that wait, apart by client and kind: of those that are alike either the first may go on or none.
struct Waiting<T> {
    tasks: HashMap<Key, VecDeque<T>>,
    /// Whose tasks are to be looked at, the next one first. Each is there once.
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

    /// The first task of the next that may start, whose turn is over then.
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
