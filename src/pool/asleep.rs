//! How many tasks sleep, and which tasks have to wait because too many do.
//!
//! A task that sleeps inside a kernel keeps a thread, so the number of sleepers has a bound. At the
//! bound nobody can say which task will sleep next; but tasks of one kind tend to sleep alike. So a
//! task waits before it starts if the bound is reached and one of its kind is asleep; all others go
//! on. The first of a kind may still fall asleep: there are at most as many sleepers over the bound
//! as there are kinds, times the seats, for that many start at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_deque::Injector;

use super::Task;

/// The sleepers of a pool, and the tasks that wait for one of them to wake.
pub struct Asleep<T> {
    most: usize,
    total: AtomicUsize,
    by_kind: Box<[AtomicUsize]>,
    waiting: Injector<T>,
}

impl<T: Task> Asleep<T> {
    /// Nobody, and at most so many.
    pub fn new(most: usize) -> Asleep<T> {
        let by_kind = (0..T::KINDS).map(|_| AtomicUsize::new(0)).collect();
        Asleep { most, total: AtomicUsize::new(0), by_kind, waiting: Injector::new() }
    }

    /// A task of this kind falls asleep.
    pub fn enter(&self, kind: Option<usize>) {
        self.total.fetch_add(1, Ordering::SeqCst);
        if let Some(kind) = kind {
            self.by_kind[kind].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task of this kind wakes. Hands those that may go on to `go_on`.
    pub fn leave(&self, kind: Option<usize>, go_on: impl FnMut(T)) {
        let last = kind.is_some_and(|kind| self.by_kind[kind].fetch_sub(1, Ordering::SeqCst) == 1);
        let total = self.total.fetch_sub(1, Ordering::SeqCst) - 1;
        let most = if last { usize::MAX } else { self.most.saturating_sub(total) };
        self.release(most, go_on);
    }

    /// Keeps the task if it has to wait, and says so to `held`; returns it if it may start.
    pub fn admit(&self, task: T, held: impl FnOnce(&T), go_on: impl FnMut(T)) -> Option<T> {
        let Some(kind) = task.kind() else {
            return Some(task);
        };
        if !self.is_full_for(kind) {
            return Some(task);
        }
        held(&task);
        self.waiting.push(task);
        // Whoever woke meanwhile may have looked before the task was there.
        if !self.is_full_for(kind) {
            self.release(usize::MAX, go_on);
        }
        None
    }

    /// Has at most so many waiting tasks looked at again.
    pub fn release(&self, most: usize, mut go_on: impl FnMut(T)) {
        // No more than wait now: some will come back at once.
        for _ in 0..most.min(self.waiting.len()) {
            let Some(task) = super::worker::take(|| self.waiting.steal()) else {
                return;
            };
            go_on(task);
        }
    }

    /// How many sleep.
    pub fn count(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn is_full_for(&self, kind: usize) -> bool {
        self.total.load(Ordering::SeqCst) >= self.most
            && self.by_kind[kind].load(Ordering::SeqCst) > 0
    }
}
