//! A call on its way through the scheduler, and how it sleeps without a thread.
//!
//! A task is queued, runs, and then either has a message for the submission thread or sleeps. Any thread
//! may use its waker at any time. A wake-up during a run makes the task run once more, so no wake-up is
//! lost between a call's look at what it waits for and its sleep.
//!
//! An inline call, which runs on the submission thread, goes to a worker if it finds that it may take
//! long: it is queued again. If its outcome is known already, a worker does what is left, and then goes
//! on with that outcome as if the run had been its own.
//!
//! ```text
//!            run            Outcome::Sleep
//! QUEUED ----------> RUNNING ----------> ASLEEP
//!   ^                 |  ^  \             | wake
//!   |                 |  |   wake         v
//!   |   other outcome |  +-- WOKEN      QUEUED (injected, or left to this thread)
//!   +---------------- IDLE
//!       submission thread
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};
use std::time::Instant;

use ring::{Arena, Socket};

use super::holding::answer_cost;
use super::inline::Inline;
use super::job::{Context, Job};
use super::mailbox::{Mailbox, Message};
use super::memory::{CallMemory, MayAsk};
use super::quota::ClientQuota;
use super::reply_slot::ReplySlot;
use crate::scheduler::{Client, Injector};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use crate::sync::{Mutex, MutexGuard};
use kernel::{Args, Call, Errno, Kernel, MAX_ARGS, Outcome, Process, Progress};
use rumpsp::session::{Answer, CallKey, CallRequest, CopyRequest};

/// The submission thread has the task.
const IDLE: u8 = 0;
/// The task is in a deque.
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// The task is running, and has to run again before it may sleep.
const WOKEN: u8 = 3;
const ASLEEP: u8 = 4;

/// No interrupt: the call goes on.
const GO_ON: u8 = 0;
/// An interrupt: the call ends where it would sleep.
const END_FOR_SLEEP: u8 = 1;
/// An interrupt: the call ends where it would wait for anything.
const END: u8 = 2;

/// The number of kinds of calls. A kind is a call number, and all high numbers are one kind. NetBSD has
/// some five hundred.
pub const CALL_KINDS: usize = 512;

/// A call on its way. After the call's end, the task is used for another.
pub struct Task {
    state: AtomicU8,
    /// One of [`GO_ON`], [`END_FOR_SLEEP`], [`END`].
    interrupt: AtomicU8,
    /// True if the call counts among its client's queued calls.
    counted: AtomicBool,
    /// True if the call is an inline call: the submission thread runs it, also after a wake-up on that
    /// thread.
    inline: AtomicBool,
    /// The number of the call.
    number: AtomicI32,
    body: Mutex<Body>,
    injector: Injector<Job>,
    /// The reply slot at which the call's copies wait, if they wait on the thread.
    reply_slot: Option<Arc<ReplySlot>>,
}

/// The part of a task that only one thread at a time looks at: the worker that runs it, or the submission
/// thread.
pub struct Body {
    pub socket: Socket,
    pub key: CallKey,
    pub memory: CallMemory,
    /// The outcome of the last run.
    pub outcome: Option<Outcome>,
    /// The outcome of an inline run that has left work to do before the outcome counts.
    unfinished: Option<Outcome>,
    process: Option<Arc<dyn Process>>,
    args: Args,
    progress: Progress,
    /// The end of the call's sleep, as the submission thread knows it.
    until: Option<Instant>,
}

impl Body {
    /// Does what an inline run has left to do.
    fn finish(&mut self, outcome: Outcome) -> Outcome {
        for work in self.progress.later.drain(..) {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!("what a system call left to a worker panicked");
            }
        }
        outcome
    }

    /// Returns the arguments of the call.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Returns the descriptor of a call that was expected to copy in, and `true` if it did.
    pub fn predictor(&self) -> Option<(u64, bool)> {
        self.memory.expects().then(|| (self.args[0], self.memory.has_copied_in()))
    }
}

impl Task {
    /// Creates a task without a call.
    pub fn new(socket: Socket, arena: Arena, injector: Injector<Job>, restarts: bool) -> Task {
        Task {
            state: AtomicU8::new(IDLE),
            interrupt: AtomicU8::new(GO_ON),
            counted: AtomicBool::new(false),
            inline: AtomicBool::new(false),
            number: AtomicI32::new(0),
            body: Mutex::new(Body {
                socket,
                key: CallKey(0),
                memory: CallMemory::new(arena),
                outcome: None,
                unfinished: None,
                process: None,
                args: [0; MAX_ARGS],
                progress: Progress::default(),
                until: None,
            }),
            injector,
            reply_slot: (!restarts).then(Arc::default),
        }
    }

    /// Takes on a call. Arguments that the client did not send are zero; surplus ones are ignored.
    pub fn set(
        &self,
        socket: Socket,
        key: CallKey,
        process: &Arc<dyn Process>,
        request: &CallRequest<'_>,
        quota: &Arc<ClientQuota>,
        kernel: &dyn Kernel,
    ) {
        self.interrupt.store(GO_ON, Ordering::Relaxed);
        self.number.store(request.number, Ordering::Relaxed);
        let mut body = self.body();
        body.socket = socket;
        body.key = key;
        body.process = Some(process.clone());
        body.args = decode_args(request.args);
        body.memory.begin(quota);
        self.inline.store(kernel.runs_inline(request.number, &body.args), Ordering::Relaxed);
    }

    /// Hands a call that waits on its thread the answer that it waits for. Returns the answer if no
    /// thread waits for it.
    pub fn answer_thread<'a>(&self, answer: Answer<'a>) -> Option<Answer<'a>> {
        match &self.reply_slot {
            Some(reply_slot) => reply_slot.answer(answer),
            None => Some(answer),
        }
    }

    /// Decides if the client may be asked for `ask`, which the call's last run wants or its thread waits
    /// for. If so, counts it as asked. `others_wait` is `true` if other calls of the client wait for
    /// their turn.
    pub fn may_ask(&self, ask: CopyRequest, quota: &ClientQuota, others_wait: bool) -> MayAsk {
        match self.reply_slot {
            None => self.body().memory.may_ask(others_wait),
            // The call's thread has the body, and holds nothing while it waits.
            Some(_) if !others_wait && quota.ask(answer_cost(&ask)) => MayAsk::Yes,
            Some(_) => MayAsk::Later,
        }
    }

    /// Counts what was to be asked as asked, because it will be released. The client has gone.
    pub fn is_refused(&self, ask: CopyRequest, quota: &ClientQuota) {
        if self.reply_slot.is_some() {
            quota.ask_over(answer_cost(&ask));
        }
    }

    /// Releases the call, so that the task may take on another.
    pub fn clear(&self) {
        let mut body = self.body();
        body.process = None;
        body.outcome = None;
        body.unfinished = None;
        body.until = None;
        body.progress.clear();
        body.memory.clear();
    }

    /// Returns `true` if nobody else holds this task, so that no wake-up meant for one call can reach the
    /// next.
    pub fn is_unshared(self: &mut Arc<Task>) -> bool {
        Arc::get_mut(self).is_some()
    }

    /// Marks the task as queued. To be called before the submission thread puts it into a deque or runs
    /// it.
    pub fn queue(&self, quota: &ClientQuota) {
        let before = self.state.swap(QUEUED, Ordering::AcqRel);
        debug_assert_eq!(before, IDLE, "a task is queued once");
        quota.queue();
        self.counted.store(true, Ordering::Relaxed);
    }

    /// Takes the call out of its client's queue count: it has a thread, or waits for other calls to wake
    /// before it gets one. Other calls of its client may take its place in the queue.
    pub fn leave_queue(&self, body: &Body, mailbox: &Mailbox) {
        if self.counted.swap(false, Ordering::Relaxed)
            && body.memory.quota().is_some_and(|quota| quota.start())
        {
            mailbox.post(Message::HasRoom(body.socket));
        }
    }

    /// Returns the number of the call, unchecked.
    pub fn number(&self) -> i32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Returns the kind of the call: its number, because calls of one number tend to be alike.
    pub fn kind(&self) -> usize {
        usize::try_from(self.number()).unwrap_or(usize::MAX).min(CALL_KINDS - 1)
    }

    /// Returns the client of the call, as the scheduler knows it.
    pub fn client(&self) -> Arc<Client> {
        let body = self.body();
        body.memory.quota().map(|quota| quota.sleepers().clone()).unwrap_or_default()
    }

    /// Returns `true` if the call is to be run on the submission thread.
    pub fn is_inline(&self) -> bool {
        self.inline.load(Ordering::Relaxed)
    }

    /// Returns `true` if the call may sleep on its thread.
    pub fn may_sleep(&self) -> bool {
        self.reply_slot.is_some() && !self.is_interrupted()
    }

    /// Returns the body. Only the holder of the task locks it, so this never waits.
    pub fn body(&self) -> MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the call end rather than sleep: the client has gone or becomes another program.
    pub fn interrupt(self: &Arc<Task>) {
        self.interrupt.store(END, Ordering::SeqCst);
        self.clone().wake();
    }

    /// Makes the call end if it sleeps or is about to: the client may have gone. A call that sleeps on
    /// its thread is left to the kernel to wake.
    pub fn interrupt_sleep(self: &Arc<Task>) {
        self.interrupt.fetch_max(END_FOR_SLEEP, Ordering::SeqCst);
        self.clone().wake();
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst) == END
    }

    /// Runs the call, again and again until it ends, sleeps, or needs another thread: the submission
    /// thread or, if the run is `inline` and the call may take long, a worker.
    pub fn run(self: Arc<Task>, context: &Context, inline: bool) {
        let mailbox = &context.mailbox;
        let waker = Waker::from(self.clone());
        loop {
            let mut body = self.body();
            if !inline {
                self.leave_queue(&body, mailbox);
            }
            let outcome = match body.unfinished.take() {
                // The task still counts as running.
                Some(outcome) => body.finish(outcome),
                None => {
                    self.state.store(RUNNING, Ordering::SeqCst);
                    self.run_once(&mut body, &waker, context, inline)
                }
            };
            if outcome == Outcome::Elsewhere {
                drop(body);
                self.state.store(QUEUED, Ordering::SeqCst);
                return self.go_elsewhere();
            }
            // This is not done before it is certain that no worker has to run the call: until then, the
            // call counts as queued.
            self.leave_queue(&body, mailbox);
            if !body.progress.later.is_empty() {
                body.unfinished = Some(outcome);
                drop(body);
                return self.go_elsewhere();
            }
            let Outcome::Sleep(until) = outcome else {
                body.outcome = Some(outcome);
                drop(body);
                self.state.store(IDLE, Ordering::Release);
                // When the submission thread gets the task, nothing of this run holds it any more.
                drop(waker);
                return mailbox.post_later(Message::Ran(self));
            };
            if self.interrupt.load(Ordering::SeqCst) == END_FOR_SLEEP {
                self.interrupt.fetch_max(END, Ordering::SeqCst);
                continue;
            }
            body.memory.fall_asleep();
            if body.memory.quota().is_some_and(|quota| quota.has_room()) {
                mailbox.post_later(Message::HasRoom(body.socket));
            }
            if let Some(until) = until
                && body.until != Some(until)
            {
                body.until = Some(until);
                let (socket, key) = (body.socket, body.key);
                mailbox.post_later(Message::SleepsUntil { socket, key, until });
            }
            drop(body);
            if self.change(RUNNING, ASLEEP) {
                return;
            }
        }
    }

    /// Hands this call to a worker.
    fn go_elsewhere(self: Arc<Task>) {
        self.inline.store(false, Ordering::Relaxed);
        let injector = self.injector.clone();
        injector.inject(Job::Call(self));
    }

    /// Runs the call once. A panic of the kernel becomes an I/O error to the client, and the scheduler
    /// goes on.
    fn run_once(&self, body: &mut Body, waker: &Waker, context: &Context, inline: bool) -> Outcome {
        let interrupted = self.is_interrupted();
        if interrupted && self.reply_slot.is_some() {
            // The call has not started, and would only delay the one that waits for its end.
            return Outcome::Done(Err(Errno::EINTR));
        }
        let process = body.process.take().expect("a queued task has a call");
        body.memory.start_run();
        if let Some(reply_slot) = &self.reply_slot {
            let (socket, key) = (body.socket, body.key);
            body.memory.wait_at(reply_slot.clone(), context.mailbox.clone(), socket, key);
        }
        let mut call = Call {
            number: self.number(),
            args: &body.args,
            memory: &mut body.memory,
            progress: &mut body.progress,
            waker,
            interrupted,
            inline,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| process.syscall(&mut call)));
        body.process = Some(process);
        let outcome = outcome.unwrap_or_else(|_| {
            tracing::error!(number = self.number(), "a system call panicked");
            context.panics.fetch_add(1, Ordering::Relaxed);
            Outcome::Done(Err(Errno::EIO))
        });
        debug_assert!(inline || outcome != Outcome::Elsewhere, "there is no other place for it");
        if matches!(outcome, Outcome::Sleep(_) | Outcome::Copy | Outcome::Elsewhere) {
            // This is done now, not when the call runs again, because until then these bytes would count
            // as copied.
            body.memory.drop_out();
        }
        outcome
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        loop {
            if self.change(ASLEEP, QUEUED) {
                let injector = self.injector.clone();
                let left = match self.is_inline() {
                    true => Inline::wake(self),
                    false => Some(self),
                };
                if let Some(task) = left {
                    injector.inject(Job::Call(task));
                }
                return;
            }
            if self.change(RUNNING, WOKEN) {
                return;
            }
            // A task that is queued, woken or idle will look anyway. If it is asleep or running, it just
            // became so.
            if !matches!(self.state.load(Ordering::SeqCst), ASLEEP | RUNNING) {
                return;
            }
        }
    }
}

/// Returns the argument slots of a call, zero where the client sent less.
fn decode_args(bytes: &[u8]) -> Args {
    let mut args = [0; MAX_ARGS];
    for (slot, bytes) in args.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *slot = u64::from_le_bytes(whole);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_arguments_are_zero_behind_their_end() {
        let args = decode_args(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff]);
        assert_eq!(args[..3], [1, 0xff_ffff, 0]);
        assert_eq!(decode_args(&[7; 8 * MAX_ARGS + 5])[MAX_ARGS - 1], u64::from_le_bytes([7; 8]));
    }
}
