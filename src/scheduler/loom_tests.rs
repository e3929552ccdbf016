//! Tests of the idle list, in every order of what threads do that loom finds: `scripts/loom`.
//!
//! A worker here does with its core what [`super::worker`] does, and so does a producer. The deque is a
//! counter with as weak an ordering as a deque has. After a lost wake-up, no thread can go on, which loom
//! calls a deadlock.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::idle::{Core, Idle, Need, Parker, Waited};
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex};

/// A deque of tasks that are all alike. As in crossbeam's, a push releases and a look acquires, and
/// nothing else orders them.
#[derive(Default)]
struct Deque {
    pushed: AtomicUsize,
    taken: AtomicUsize,
}

impl Deque {
    fn push(&self) {
        self.pushed.fetch_add(1, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.pushed.load(Ordering::Acquire) == self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let mut taken = self.taken.load(Ordering::Relaxed);
        while taken < self.pushed.load(Ordering::Acquire) {
            match self.taken.compare_exchange(taken, taken + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }
}

/// A scheduler that counts its tasks.
struct Model {
    idle: Idle,
    deque: Deque,
    /// The number of threads with a core.
    with_core: AtomicUsize,
    cores: usize,
    /// The number of tasks that have run, and of threads that have ended.
    ends: Mutex<(usize, usize)>,
    changed: Condvar,
    started: AtomicUsize,
    /// The work of a task on its thread.
    task: fn(&Arc<Model>, Core) -> Option<Core>,
}

impl Model {
    fn new(cores: usize, task: fn(&Arc<Model>, Core) -> Option<Core>) -> Arc<Model> {
        Arc::new(Model {
            idle: Idle::new((0..cores).collect()),
            deque: Deque::default(),
            with_core: AtomicUsize::new(0),
            cores,
            ends: Mutex::default(),
            changed: Condvar::default(),
            started: AtomicUsize::new(0),
            task,
        })
    }

    fn fill(self: &Arc<Model>, need: Need) {
        if let Need::Thread(core) = need {
            self.started.fetch_add(1, Ordering::Relaxed);
            let model = self.clone();
            thread::spawn(move || model.worker(core));
        }
    }

    /// Pushes a task as the dispatcher does.
    fn push(self: &Arc<Model>) {
        self.deque.push();
        self.fill(self.idle.fill_the_first_core());
    }

    /// Pushes a task as an injector does.
    fn inject(self: &Arc<Model>) {
        self.deque.push();
        self.fill(self.idle.fill_a_core());
    }

    /// Runs a worker's thread.
    fn worker(self: Arc<Model>, core: Core) {
        let parker = Arc::new(Parker::default());
        let mut given = Some(core);
        while let Some(core) = given {
            let index = core.index;
            match self.run_tasks(core) {
                Some(core) => self.idle.give_back(core, &parker),
                None => self.idle.add_parked(index, &parker),
            }
            if !self.deque.is_empty() {
                self.fill(self.idle.fill_a_core());
            }
            given = match parker.wait_for(Duration::MAX) {
                Waited::Core(core) => Some(core),
                Waited::End => None,
                // Loom has no time: the time is taken as over when the thread wakes up spuriously.
                Waited::TimedOut => parker.wait(),
            };
        }
        self.idle.thread_ended();
        self.note(|ends| ends.1 += 1);
    }

    /// Runs tasks until there are none or the core is gone.
    fn run_tasks(self: &Arc<Model>, core: Core) -> Option<Core> {
        self.note_core();
        let mut core = Some(core);
        while let Some(taken) = core.take() {
            if !self.deque.take() {
                self.with_core.fetch_sub(1, Ordering::Relaxed);
                return Some(taken);
            }
            core = (self.task)(self, taken);
            self.note(|ends| ends.0 += 1);
        }
        None
    }

    fn note_core(&self) {
        let with_core = self.with_core.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(with_core <= self.cores, "{with_core} threads on {} cores", self.cores);
    }

    fn note(&self, change: impl FnOnce(&mut (usize, usize))) {
        change(&mut self.ends.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits until so many tasks have run, then tells all threads to end.
    fn end(&self, tasks: usize) {
        let mut ends = self.ends.lock().unwrap();
        while ends.0 < tasks {
            ends = self.changed.wait(ends).unwrap();
        }
        drop(ends);
        self.idle.close();
        let threads = self.started.load(Ordering::Relaxed);
        let mut ends = self.ends.lock().unwrap();
        while ends.1 < threads {
            ends = self.changed.wait(ends).unwrap();
        }
        assert_eq!(*ends, (tasks, threads), "each task is run once");
    }
}

/// A task that does nothing.
fn short(_: &Arc<Model>, core: Core) -> Option<Core> {
    Some(core)
}

/// A task that sleeps on its thread.
fn sleeping(model: &Arc<Model>, core: Core) -> Option<Core> {
    let index = core.index;
    model.with_core.fetch_sub(1, Ordering::Relaxed);
    model.idle.leave(core);
    fence(Ordering::SeqCst);
    if !model.deque.is_empty() {
        model.fill(model.idle.fill_a_core());
    }
    let core = model.idle.come_back(index);
    if core.is_some() {
        model.note_core();
    }
    core
}

#[test]
fn a_worker_that_parks_misses_no_task() {
    loom::model(|| {
        let model = Model::new(1, short);
        model.push();
        model.push();
        model.end(2);
    });
}

#[test]
fn tasks_from_two_sides_find_one_core() {
    loom::model(|| {
        let model = Model::new(1, short);
        let other = model.clone();
        let producer = thread::spawn(move || other.inject());
        model.push();
        producer.join().unwrap();
        model.end(2);
    });
}

#[test]
fn two_cores_are_filled_and_none_twice() {
    loom::model(|| {
        let model = Model::new(2, short);
        model.inject();
        model.inject();
        model.end(2);
    });
}

#[test]
fn a_core_left_for_a_sleep_is_handed_on() {
    loom::model(|| {
        let model = Model::new(1, sleeping);
        model.push();
        model.push();
        model.end(2);
    });
}
