//! The other thread of `hop`: calls come in batches, responses go back in batches.
//!
//! Either side sleeps when it has no work, and a wake-up costs a system call only then. The ring's side
//! uses its [`Waker`]; this side does the same with a flag and the thread's own parking, in the same
//! order: the thread that hands work over does so first and then checks whether the other is parked,
//! and the thread that parks sets its flag first and then looks for work. Between the two steps of each
//! there is a SeqCst fence, so one of them sees the other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::{Arena, Spin, Waker};

use super::Wishes;
use super::answers::{Answer, Call, answer};

/// A handle of the thread, for the ring's side. The thread ends when the handle is dropped.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    calls: Batch<Call>,
    answers: Batch<Answer>,
    is_parked: AtomicBool,
    has_ended: AtomicBool,
}

/// Items that one thread hands to the other. Bounded by the bytes that clients may be owed.
struct Batch<T> {
    items: Mutex<Vec<T>>,
    /// True if `items` is not empty. It changes under the lock only, so that a look needs no lock.
    is_filled: AtomicBool,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { items: Mutex::new(Vec::new()), is_filled: AtomicBool::new(false) }
    }
}

impl<T> Batch<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::Acquire)
    }

    /// Moves all of `more` into the batch.
    fn give(&self, more: &mut Vec<T>) {
        let mut items = self.lock();
        items.append(more);
        self.is_filled.store(true, Ordering::Release);
    }

    /// Moves all items of the batch into `empty`, which should be empty.
    fn take(&self, empty: &mut Vec<T>) {
        if self.is_filled() {
            let mut items = self.lock();
            std::mem::swap(&mut *items, empty);
            self.is_filled.store(false, Ordering::Release);
        }
    }
}

impl Worker {
    /// Starts the thread. It looks for work for `spin` before it sleeps, as long as that pays.
    pub fn start(
        arena: Arena,
        waker: Waker,
        spin: Duration,
        wishes: &Arc<Wishes>,
    ) -> io::Result<Worker> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let work = move || work(&of_thread, &arena, &waker, Spin::new(spin));
        let thread = Wishes::run_for_good(wishes, "worker", work)?;
        Ok(Worker { shared, thread: Some(thread) })
    }

    /// Hands calls over to the thread.
    pub fn give(&self, calls: &mut Vec<Call>) {
        self.shared.calls.give(calls);
        self.wake();
    }

    /// Takes the answers that are ready.
    pub fn take(&self, answers: &mut Vec<Answer>) {
        self.shared.answers.take(answers);
    }

    /// Returns `true` if no answers are ready.
    pub fn has_no_answers(&self) -> bool {
        !self.shared.answers.is_filled()
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        let is_parked = &self.shared.is_parked;
        if is_parked.load(Ordering::Relaxed)
            && is_parked.swap(false, Ordering::Relaxed)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been caught.
            drop(thread.join());
        }
    }
}

fn work(shared: &Shared, arena: &Arena, waker: &Waker, mut spin: Spin) {
    let (mut calls, mut answers) = (Vec::new(), Vec::new());
    while !shared.has_ended.load(Ordering::Acquire) {
        shared.calls.take(&mut calls);
        if calls.is_empty() {
            wait(shared, &mut spin);
            continue;
        }
        answer(arena, &calls, &mut answers);
        calls.clear();
        shared.answers.give(&mut answers);
        waker.wake();
    }
}

/// Waits until there may be work.
fn wait(shared: &Shared, spin: &mut Spin) {
    let has_work = || shared.calls.is_filled() || shared.has_ended.load(Ordering::Acquire);
    if spin.pays() && spin.look(has_work) {
        return;
    }
    shared.is_parked.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    if !has_work() {
        thread::park();
    }
    shared.is_parked.store(false, Ordering::Relaxed);
}
