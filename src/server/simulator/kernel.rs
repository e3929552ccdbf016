//! A simulated kernel whose calls do what a schedule needs: copy, sleep, wake each other, fail, panic.
//! They restart, as the embedded kernel's do, or wait on their threads, as librump's do.
//!
//! The kernel keeps account of its processes, and notes if the server breaks a rule that every kernel may
//! rely on: a process is released once, when none of its calls runs, and not entered afterwards.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::turns::wait_until;
use kernel::{Args, Call, Client, CopyError, Errno, Identity, Kernel, Outcome, Process};

/// The calls, by number.
pub mod sys {
    /// `x`: returns it.
    pub const NOP: i32 = 0;
    /// `from, len, to`: copies in, and out again.
    pub const ECHO: i32 = 1;
    /// `milliseconds`: sleeps so long.
    pub const SLEEP: i32 = 2;
    /// Waits for a [`SIGNAL`].
    pub const WAIT: i32 = 3;
    pub const SIGNAL: i32 = 4;
    /// `to, len`: copies out many zeros.
    pub const FLOOD: i32 = 5;
    pub const PANIC: i32 = 6;
    /// `from`: copies in a string, and returns its length.
    pub const STRING: i32 = 7;
    /// `len`: returns the address of new memory.
    pub const MAP: i32 = 8;
    /// `signo`: raises a signal for the caller itself.
    pub const RAISE: i32 = 9;
    /// `client`: halts the kernel.
    pub const HALT: i32 = 10;
    /// The first number without a call.
    pub const END: i32 = 11;
}

/// The size of the buffer for the string of a [`sys::STRING`].
pub const STRING: usize = 32;

/// The most bytes that a flood copies out at once.
const PIECE: u64 = 3000;

/// A panic that prints nothing.
struct Simulated;

/// The state that all processes share.
pub struct World {
    start: Instant,
    /// The nanoseconds since the start.
    now: AtomicU64,
    pub processes: AtomicI64,
    /// The number of things that inline calls have left to workers and that are not done.
    pub left: AtomicI64,
    next_pid: AtomicI32,
    signals: Mutex<Signals>,
    random: Mutex<fastrand::Rng>,
    /// True if calls run again from the top, and do not wait on their threads.
    pub restarts: bool,
    /// The clients (named by the call's first argument) whose calls have halted a kernel that does not
    /// return to its caller, and know that they were answered. Each of these calls would end the program.
    pub halted_by: Mutex<Vec<u64>>,
    /// The time of the first halt by such a call.
    pub halting: Mutex<Option<Instant>>,
    /// True if nothing fails any more.
    pub is_calm: AtomicBool,
    /// The rule that the server broke. It is kept here because the server would catch a panic in a call.
    pub broken: Mutex<Option<&'static str>>,
}

#[derive(Default)]
struct Signals {
    pending: u64,
    waiters: Vec<Waker>,
}

impl World {
    /// Creates a world without processes, whose failures follow from this seed.
    pub fn new(start: Instant, seed: u64, restarts: bool) -> Arc<World> {
        Arc::new(World {
            start,
            now: AtomicU64::new(0),
            processes: AtomicI64::new(0),
            left: AtomicI64::new(0),
            next_pid: AtomicI32::new(1),
            signals: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            restarts,
            halted_by: Mutex::default(),
            halting: Mutex::default(),
            is_calm: AtomicBool::new(false),
            broken: Mutex::default(),
        })
    }

    /// Returns the time of this world.
    pub fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.now.load(SeqCst))
    }

    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_nanos() as u64, SeqCst);
    }

    /// Notes a rule that is broken.
    fn check(&self, holds: bool, rule: &'static str) {
        if !holds {
            *self.broken.lock().expect("no poison") = Some(rule);
        }
    }

    /// Takes a signal, and returns `true`, if there is one.
    fn take_signal(&self) -> bool {
        let mut signals = self.signals.lock().expect("no poison");
        let is_there = signals.pending > 0;
        signals.pending -= u64::from(is_there);
        is_there
    }

    fn has_signal(&self) -> bool {
        self.signals.lock().expect("no poison").pending > 0
    }

    /// Returns `true` once in `times` calls, at random.
    fn one_in(&self, times: u32) -> bool {
        !self.is_calm.load(SeqCst) && self.random.lock().expect("no poison").u32(..times) == 0
    }

    /// Adds a signal, and wakes all that wait.
    pub fn signal(&self) {
        let mut signals = self.signals.lock().expect("no poison");
        signals.pending += 1;
        for waker in std::mem::take(&mut signals.waiters) {
            waker.wake();
        }
    }

    /// Makes a process; sometimes fails or panics.
    fn make(self: &Arc<World>, client: Option<Arc<dyn Client>>) -> Result<Arc<dyn Process>, Errno> {
        if self.one_in(40) {
            return Err(Errno::ENOMEM);
        }
        if self.one_in(80) {
            resume_unwind(Box::new(Simulated));
        }
        self.processes.fetch_add(1, SeqCst);
        Ok(Arc::new(FakeProcess {
            world: self.clone(),
            pid: self.next_pid.fetch_add(1, SeqCst),
            client,
            running: AtomicI64::new(0),
            is_interrupted: AtomicBool::new(false),
            released: AtomicBool::new(false),
        }))
    }
}

/// The simulated kernel.
pub struct FakeKernel {
    pub world: Arc<World>,
    /// The calls that the submission thread may run, one bit each.
    pub prompt: u32,
}

impl Kernel for FakeKernel {
    fn identity(&self) -> Identity {
        Identity { ostype: "Fake".into(), osrelease: "1".into(), machine: "none".into() }
    }

    fn restarts(&self) -> bool {
        self.world.restarts
    }

    fn runs_inline(&self, number: i32, _: &Args) -> bool {
        // Calls that may wait on their threads are not for the submission thread.
        let never_waits = [sys::NOP, sys::SIGNAL, sys::PANIC, sys::RAISE].contains(&number);
        (self.world.restarts || never_waits)
            && (0..sys::END).contains(&number)
            && self.prompt >> number & 1 == 1
    }

    fn copies_in(&self, number: i32, args: &Args) -> Option<(u64, u64)> {
        (number == sys::ECHO).then_some((args[0], args[1]))
    }

    fn spawn(&self, client: Arc<dyn Client>, _: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        self.world.make(Some(client))
    }
}

struct FakeProcess {
    world: Arc<World>,
    pid: i32,
    client: Option<Arc<dyn Client>>,
    running: AtomicI64,
    /// True if calls that sleep on their threads are to wake.
    is_interrupted: AtomicBool,
    released: AtomicBool,
}

impl FakeProcess {
    fn is_alive(&self) {
        self.world.check(!self.released.load(SeqCst), "a released process is not entered");
    }

    fn run(&self, call: &mut Call<'_>) -> Result<Outcome, CopyError> {
        let args = *call.args;
        Ok(match call.number {
            sys::NOP => Outcome::Done(Ok([args[0] as i64, i64::from(self.pid)])),
            sys::ECHO => {
                let mut bytes = vec![0; args[1] as usize];
                call.memory.copyin(args[0], &mut bytes)?;
                call.memory.copyout(&bytes, args[2])?;
                Outcome::Done(Ok([bytes.len() as i64, 0]))
            }
            sys::SLEEP => {
                let now = self.world.now();
                let deadline = now + Duration::from_millis(args[0]);
                let deadline = *call.progress.deadline.get_or_insert(deadline);
                if !self.world.restarts {
                    return Ok(self.sleep_here(|| self.world.now() >= deadline));
                }
                if now >= deadline { done(0) } else { sleep(call, Some(deadline)) }
            }
            sys::WAIT => self.wait(call),
            sys::SIGNAL => {
                self.world.signal();
                done(0)
            }
            sys::FLOOD => flood(call, self.world.restarts, args[0], args[1])?,
            sys::PANIC => resume_unwind(Box::new(Simulated)),
            sys::STRING => {
                let mut bytes = [0; STRING];
                done(call.memory.copyinstr(args[0], &mut bytes)? as i64)
            }
            sys::MAP => done(call.memory.anonmmap(args[0])? as i64),
            sys::RAISE => {
                if let Some(client) = &self.client {
                    client.raise(args[0] as i32);
                }
                done(0)
            }
            sys::HALT if !self.world.restarts => {
                let now = self.world.now();
                self.world.halting.lock().expect("no poison").get_or_insert(now);
                call.memory.halted();
                self.world.halted_by.lock().expect("no poison").push(args[0]);
                // The call's thread does not come back to the server.
                wait_until(|| false);
                Outcome::Halt
            }
            sys::HALT => Outcome::Halt,
            _ => Outcome::Done(Err(Errno::ENOSYS)),
        })
    }

    fn wait(&self, call: &mut Call<'_>) -> Outcome {
        if !self.world.restarts {
            let outcome = self.sleep_here(|| self.world.has_signal());
            if outcome == done(0) {
                self.world.take_signal();
            }
            return outcome;
        }
        if self.world.take_signal() {
            return done(0);
        }
        let mut signals = self.world.signals.lock().expect("no poison");
        signals.waiters.push(call.waker.clone());
        drop(signals);
        sleep(call, None)
    }

    /// Sleeps on this thread until `is_over`, or until the process is interrupted.
    fn sleep_here(&self, is_over: impl Fn() -> bool) -> Outcome {
        wait_until(|| is_over() || self.is_interrupted.load(SeqCst));
        if is_over() { done(0) } else { Outcome::Done(Err(Errno::EINTR)) }
    }
}

fn done(value: i64) -> Outcome {
    Outcome::Done(Ok([value, 0]))
}

fn sleep(call: &Call<'_>, until: Option<Instant>) -> Outcome {
    if call.interrupted { Outcome::Done(Err(Errno::EINTR)) } else { Outcome::Sleep(until) }
}

/// Copies out zeros piece by piece, as far as there is room.
fn flood(call: &mut Call<'_>, restarts: bool, to: u64, len: u64) -> Result<Outcome, CopyError> {
    while call.progress.done < len {
        // A call that can wait for room does. Others have what is there sent, and run again.
        call.memory.wait_for_room()?;
        if restarts && call.memory.room() == 0 {
            return Ok(Outcome::Flush);
        }
        let piece = (len - call.progress.done).min(PIECE);
        call.memory.copyout(&[0; PIECE as usize][..piece as usize], to + call.progress.done)?;
        call.progress.done += piece;
    }
    Ok(done(len as i64))
}

impl Process for FakeProcess {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        struct Running<'a>(&'a AtomicI64);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        self.is_alive();
        self.running.fetch_add(1, SeqCst);
        let _running = Running(&self.running);
        if call.inline && self.world.one_in(5) {
            return Outcome::Elsewhere;
        }
        if call.inline && self.world.one_in(10) {
            let world = self.world.clone();
            world.left.fetch_add(1, SeqCst);
            call.progress.later.push(Box::new(move || {
                world.left.fetch_sub(1, SeqCst);
            }));
        }
        match self.run(call) {
            Ok(outcome) => outcome,
            Err(CopyError::Asked) => Outcome::Copy,
            Err(_) => Outcome::Done(Err(Errno::EFAULT)),
        }
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        self.is_alive();
        self.world.make(None)
    }

    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        self.is_alive();
        self.world.make(Some(client))
    }

    fn exec(&self, _: &[u8]) {
        self.is_alive();
        self.world.check(self.running.load(SeqCst) == 0, "an exec is alone in its process");
        self.is_interrupted.store(false, SeqCst);
        if self.world.one_in(40) {
            resume_unwind(Box::new(Simulated));
        }
    }

    fn interrupt(&self) {
        self.is_alive();
        self.is_interrupted.store(true, SeqCst);
    }

    fn release(&self) {
        let is_alone = self.running.load(SeqCst) == 0;
        self.world.check(is_alone, "a process is released when no call of it runs");
        self.world.check(!self.released.swap(true, SeqCst), "a process is released once");
        self.world.processes.fetch_sub(1, SeqCst);
    }
}
