//! Who sits where: the seats nobody has, the threads without one, and how the two meet.
//!
//! # Why no wake-up is lost
//!
//! Two things race: a producer puts a task into a deque and looks for a free seat; a worker that
//! found no task frees its seat and parks. Each writes first and looks second, with a sequentially
//! consistent fence between the two: the producer writes the deque, then reads the number of free
//! seats; the worker writes the number of free seats, then reads the deques. So at least one of them
//! sees what the other wrote. If it is the producer, it gives the seat to a thread; if it is the
//! worker, it does the same in the producer's stead. When both see it, one finds the seat taken.
//!
//! A thread that is given a seat may not have gone to sleep yet: the seat is put into its
//! [`Berth`] under that berth's lock, and it looks there before it sleeps.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Stats;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Threads that wait for a seat, at most. After a burst of sleepers there are as many as slept; those
/// over this bound end when their task has.
pub const MOST_WAITING: usize = 256;

/// Threads that wait for a seat for as long as it takes. Those over this bound wait for
/// [`super::Config::keep_alive`] only, so that the threads of a burst go in the end.
pub const KEPT_WAITING: usize = 16;

/// The right to run on a core. As many exist as there are cores, and one more, the reserve: it runs tasks
/// of priority only, while long tasks have all the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Seat {
    /// Index of the core's deque. The reserve has none: its index is the number of cores.
    pub core: usize,
    /// The CPU it stands on.
    pub cpu: usize,
}

/// Where one thread waits for a seat.
#[derive(Default)]
pub struct Berth {
    given: Mutex<Given>,
    wake: Condvar,
}

#[derive(Default)]
enum Given {
    #[default]
    Nothing,
    Seat(Seat),
    End,
}

/// How waiting in a [`Berth`] has ended.
pub enum Waited {
    /// A seat was given.
    Seat(Seat),
    /// The thread is to end.
    End,
    /// Nothing has come in that time.
    TimedOut,
}

impl Berth {
    /// Waits until a seat is given, or the thread is to end.
    pub fn wait(&self) -> Option<Seat> {
        let mut given = lock(&self.given);
        loop {
            match std::mem::take(&mut *given) {
                Given::Seat(seat) => return Some(seat),
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
            Given::Seat(seat) => Waited::Seat(seat),
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
pub struct Roster {
    /// How many there are.
    seats: usize,
    /// Copy of `state.seats.len()`, to be read without the lock.
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
    seats: Vec<Seat>,
    /// The seat for tasks of priority, if nobody has it.
    reserve: Option<Seat>,
    /// Threads that wait for a seat, with the core each sat on last.
    bench: Vec<(usize, Arc<Berth>)>,
    /// Where the rescuer waits, if there is one and it has no seat.
    rescuer: Option<Arc<Berth>>,
    closed: bool,
}

/// What a producer has to do so that its task is run.
pub enum Need {
    /// Nothing: all seats are taken, and who sits there looks before leaving. Or the pool ends.
    Nothing,
    /// A seat is free and no thread waits for one: start a thread for it.
    Thread(Seat),
}

impl Roster {
    /// A seat on each of these CPUs, and no thread yet.
    pub fn new(cpus: Vec<usize>) -> Roster {
        let seats: Vec<Seat> =
            cpus.into_iter().enumerate().map(|(core, cpu)| Seat { core, cpu }).collect();
        let reserve = seats.last().map(|last| Seat { core: seats.len(), cpu: last.cpu });
        Roster {
            seats: seats.len(),
            free: AtomicUsize::new(seats.len()),
            closed: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            state: Mutex::new(State {
                seats,
                reserve,
                bench: Vec::new(),
                rescuer: None,
                closed: false,
            }),
            wakes: AtomicU64::new(0),
            hand_offs: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Fills a free seat, if there is one, because there is work. To be called after the work has
    /// become visible.
    pub fn fill_a_seat(&self) -> Need {
        self.fill_from(1)
    }

    /// The same, if all seats are free: else whoever has one looks for work before leaving it.
    pub fn fill_the_first_seat(&self) -> Need {
        self.fill_from(self.seats)
    }

    /// Fills a seat if at least so many are free.
    fn fill_from(&self, least: usize) -> Need {
        fence(Ordering::SeqCst);
        if self.free.load(Ordering::Relaxed) < least {
            return Need::Nothing;
        }
        let mut state = lock(&self.state);
        if state.closed {
            return Need::Nothing;
        }
        let Some(seat) = state.seats.pop() else {
            return Need::Nothing;
        };
        self.free.store(state.seats.len(), Ordering::Relaxed);
        self.give(state, seat)
    }

    /// Fills the reserve, because tasks of priority wait and nobody who has a seat gets to them.
    pub fn fill_the_reserve(&self) -> Need {
        let mut state = lock(&self.state);
        match state.reserve.take().filter(|_| !state.closed) {
            Some(seat) => self.give(state, seat),
            None => Need::Nothing,
        }
    }

    /// Gives a seat to a thread that waits for one, if any does.
    fn give(&self, mut state: MutexGuard<'_, State>, seat: Seat) -> Need {
        if let Some(berth) = state.take_from_bench(seat.core) {
            drop(state);
            self.wakes.fetch_add(1, Ordering::Relaxed);
            berth.give(Given::Seat(seat));
            return Need::Nothing;
        }
        drop(state);
        self.thread_begins();
        Need::Thread(seat)
    }

    /// A worker found nothing to do: its seat is free, and it waits in `berth` from here on, or is sent
    /// home. The caller then looks at the deques once more.
    pub fn stand_up(&self, seat: Seat, berth: &Arc<Berth>) {
        self.free_seat(seat, Some(berth));
        fence(Ordering::SeqCst);
    }

    /// A thread without a seat has ended its task and waits for one, or is sent home if many do. The
    /// caller then looks at the deques: there may have been nobody to take a free seat, if the system had
    /// no more threads.
    pub fn join_bench(&self, last_core: usize, berth: &Arc<Berth>) {
        let mut state = lock(&self.state);
        state.wait_at(last_core, berth);
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// A thread is about to sleep inside a task: its seat is free. The caller then has it filled if
    /// there is work.
    pub fn leave(&self, seat: Seat) {
        self.hand_offs.fetch_add(1, Ordering::Relaxed);
        self.free_seat(seat, None);
    }

    /// A thread woke up inside a task: the seat it had, or another, if one is free.
    pub fn come_back(&self, last_core: usize) -> Option<Seat> {
        let mut state = lock(&self.state);
        let at = state.seats.iter().position(|seat| seat.core == last_core);
        let seat = match at {
            Some(at) => Some(state.seats.swap_remove(at)),
            None => state.seats.pop(),
        };
        self.free.store(state.seats.len(), Ordering::Relaxed);
        seat
    }

    /// A thread has waited for long: whether it is to end, and waits no more. If not it has been given
    /// something, or few enough wait.
    pub fn retire(&self, berth: &Arc<Berth>) -> bool {
        let mut state = lock(&self.state);
        if state.bench.len() <= KEPT_WAITING {
            return false;
        }
        let at = state.bench.iter().position(|(_, other)| Arc::ptr_eq(other, berth));
        at.map(|at| state.bench.remove(at)).is_some()
    }

    /// A thread that was to be started could not be: the rescuer takes its seat, or if it has one, or
    /// there is none, that seat is free again. Returns how many threads there are.
    pub fn thread_failed(&self, seat: Seat) -> usize {
        let mut state = lock(&self.state);
        match state.rescuer.take() {
            Some(berth) => berth.give(Given::Seat(seat)),
            None => self.put_back(&mut state, seat),
        }
        drop(state);
        self.thread_ended()
    }

    /// A thread is to be started without a seat.
    pub fn thread_begins(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// The rescuer waits in `berth` until a thread cannot be started, and its seat is free if it had one.
    /// The caller then looks at the deques once more.
    pub fn retire_rescuer(&self, seat: Option<Seat>, berth: &Arc<Berth>) {
        let mut state = lock(&self.state);
        if state.closed {
            berth.give(Given::End);
        } else {
            state.rescuer = Some(berth.clone());
        }
        if let Some(seat) = seat {
            self.put_back(&mut state, seat);
        }
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// How many threads wait for a seat.
    pub fn waiting(&self) -> usize {
        lock(&self.state).bench.len()
    }

    /// How many seats there are, but for the reserve.
    pub fn seats(&self) -> usize {
        self.seats
    }

    /// The pool ends: every waiting thread is sent home, every other one goes when it would wait.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.closed.store(true, Ordering::Relaxed);
        let rescuer = state.rescuer.take();
        for berth in state.bench.drain(..).map(|(_, berth)| berth).chain(rescuer) {
            berth.give(Given::End);
        }
    }

    /// Whether the pool ends.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A thread has ended, or one without a seat could not be started. Returns how many are left.
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

    fn free_seat(&self, seat: Seat, berth: Option<&Arc<Berth>>) {
        let mut state = lock(&self.state);
        if let Some(berth) = berth {
            state.wait_at(seat.core, berth);
        }
        self.put_back(&mut state, seat);
    }

    fn put_back(&self, state: &mut MutexGuard<'_, State>, seat: Seat) {
        if seat.core == self.seats {
            state.reserve = Some(seat);
            return;
        }
        state.seats.push(seat);
        self.free.store(state.seats.len(), Ordering::Relaxed);
    }
}

impl State {
    /// Has a thread wait for a seat, or sends it home if the pool ends or many wait already.
    fn wait_at(&mut self, last_core: usize, berth: &Arc<Berth>) {
        if self.closed || self.bench.len() >= MOST_WAITING {
            berth.give(Given::End);
        } else {
            self.bench.push((last_core, berth.clone()));
        }
    }

    /// The waiting thread that sat on this core last, else the one that waited least.
    fn take_from_bench(&mut self, core: usize) -> Option<Arc<Berth>> {
        let at = self.bench.iter().rposition(|(last, _)| *last == core);
        match at {
            Some(at) => Some(self.bench.remove(at).1),
            None => self.bench.pop().map(|(_, berth)| berth),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
