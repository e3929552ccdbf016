//! Seats and threads in every order of what they do that loom finds: `scripts/loom`.
//!
//! A worker here does about its seat what [`super::worker`] does, and so does a producer; the deque is
//! a counter that orders as little as a deque does. A lost wake-up leaves nobody who can go on, and
//! loom calls that a deadlock.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::roster::{Berth, Need, Roster, Seat, Waited};
use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex};

/// A deque of tasks that are all the same. As in crossbeam's, a push releases and a look acquires, and
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

/// A pool whose tasks count.
struct Model {
    roster: Roster,
    deque: Deque,
    /// Threads with a seat.
    seated: AtomicUsize,
    seats: usize,
    /// Tasks that have run, and threads that have ended.
    ends: Mutex<(usize, usize)>,
    changed: Condvar,
    started: AtomicUsize,
    /// What a task does on its thread.
    task: fn(&Arc<Model>, Seat) -> Option<Seat>,
}

impl Model {
    fn new(seats: usize, task: fn(&Arc<Model>, Seat) -> Option<Seat>) -> Arc<Model> {
        Arc::new(Model {
            roster: Roster::new((0..seats).collect()),
            deque: Deque::default(),
            seated: AtomicUsize::new(0),
            seats,
            ends: Mutex::default(),
            changed: Condvar::default(),
            started: AtomicUsize::new(0),
            task,
        })
    }

    fn fill(self: &Arc<Model>, need: Need) {
        if let Need::Thread(seat) = need {
            self.started.fetch_add(1, Ordering::Relaxed);
            let model = self.clone();
            thread::spawn(move || model.worker(seat));
        }
    }

    /// As the dispatcher does.
    fn push(self: &Arc<Model>) {
        self.deque.push();
        self.fill(self.roster.fill_the_first_seat());
    }

    /// As an injector does.
    fn inject(self: &Arc<Model>) {
        self.deque.push();
        self.fill(self.roster.fill_a_seat());
    }

    /// A worker's thread.
    fn worker(self: Arc<Model>, seat: Seat) {
        let berth = Arc::new(Berth::default());
        let mut given = Some(seat);
        while let Some(seat) = given {
            let core = seat.core;
            match self.run_tasks(seat) {
                Some(seat) => self.roster.stand_up(seat, &berth),
                None => self.roster.join_bench(core, &berth),
            }
            if !self.deque.is_empty() {
                self.fill(self.roster.fill_a_seat());
            }
            given = match berth.wait_for(Duration::MAX) {
                Waited::Seat(seat) => Some(seat),
                Waited::End => None,
                // Loom has no time: as if it had passed, when it wakes for nothing.
                Waited::TimedOut => berth.wait(),
            };
        }
        self.roster.thread_ended();
        self.note(|ends| ends.1 += 1);
    }

    /// Runs tasks until there are none or the seat is gone.
    fn run_tasks(self: &Arc<Model>, seat: Seat) -> Option<Seat> {
        self.sit_down();
        let mut seat = Some(seat);
        while let Some(taken) = seat.take() {
            if !self.deque.take() {
                self.seated.fetch_sub(1, Ordering::Relaxed);
                return Some(taken);
            }
            seat = (self.task)(self, taken);
            self.note(|ends| ends.0 += 1);
        }
        None
    }

    fn sit_down(&self) {
        let seated = self.seated.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(seated <= self.seats, "{seated} threads on {} seats", self.seats);
    }

    fn note(&self, change: impl FnOnce(&mut (usize, usize))) {
        change(&mut self.ends.lock().unwrap());
        self.changed.notify_all();
    }

    /// Waits until so many tasks have run, then sends all threads home.
    fn end(&self, tasks: usize) {
        let mut ends = self.ends.lock().unwrap();
        while ends.0 < tasks {
            ends = self.changed.wait(ends).unwrap();
        }
        drop(ends);
        self.roster.close();
        let threads = self.started.load(Ordering::Relaxed);
        let mut ends = self.ends.lock().unwrap();
        while ends.1 < threads {
            ends = self.changed.wait(ends).unwrap();
        }
        assert_eq!(*ends, (tasks, threads), "each task is run once");
    }
}

/// A task that does nothing.
fn short(_: &Arc<Model>, seat: Seat) -> Option<Seat> {
    Some(seat)
}

/// A task that sleeps on its thread.
fn sleeping(model: &Arc<Model>, seat: Seat) -> Option<Seat> {
    let core = seat.core;
    model.seated.fetch_sub(1, Ordering::Relaxed);
    model.roster.leave(seat);
    fence(Ordering::SeqCst);
    if !model.deque.is_empty() {
        model.fill(model.roster.fill_a_seat());
    }
    let seat = model.roster.come_back(core);
    if seat.is_some() {
        model.sit_down();
    }
    seat
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
fn tasks_from_two_sides_find_one_seat() {
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
fn two_seats_are_filled_and_none_twice() {
    loom::model(|| {
        let model = Model::new(2, short);
        model.inject();
        model.inject();
        model.end(2);
    });
}

#[test]
fn a_seat_left_for_a_sleep_is_handed_on() {
    loom::model(|| {
        let model = Model::new(1, sleeping);
        model.push();
        model.push();
        model.end(2);
    });
}
