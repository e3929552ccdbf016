//! Tests of what workers and the submission thread do to a call, a mailbox and a reply slot, in every
//! order that loom finds: `scripts/loom`.
//!
//! [`Task::interrupt`] is not tested here. It relies on the single order of all sequentially consistent
//! loads and stores, which loom has only for fences: loom would find a lost interrupt that cannot happen.

use std::sync::Arc;
use std::task::Waker;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::job::{Context, Job};
use super::limits::Limits;
use super::mailbox::{Mailbox, Message};
use super::quota::{ClientQuota, GlobalQuota};
use super::reply_slot::ReplySlot;
use super::task::Task;
use crate::scheduler::Injector;
use crate::sync::Mutex;
use kernel::{Args, Call, Client, Errno, Identity, Kernel, Outcome, Process};
use rumpsp::session::{CallKey, CallRequest};
use rumpsp::wire::Body;

/// A kernel with one process, whose calls wait for a flag.
#[derive(Default)]
struct Flag {
    is_up: AtomicBool,
    waits: Mutex<Option<Waker>>,
    /// True once a call has found the flag up.
    ends: AtomicBool,
}

impl Flag {
    fn raise(&self) {
        self.is_up.store(true, Ordering::Release);
        let waiting = self.waits.lock().unwrap().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

impl Process for Flag {
    fn pid(&self) -> i32 {
        2
    }
    /// Does as calls of a kernel do: registers, looks, sleeps.
    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        *self.waits.lock().unwrap() = Some(call.waker.clone());
        if call.interrupted {
            return Outcome::Done(Err(Errno::EINTR));
        }
        if !self.is_up.load(Ordering::Acquire) {
            return Outcome::Sleep(None);
        }
        assert!(!self.ends.swap(true, Ordering::Relaxed), "a call ends once");
        Outcome::Done(Ok([1, 0]))
    }
    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        unreachable!("nobody forks here")
    }
    fn adopt(&self, _: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        unreachable!("nobody forks here")
    }
    fn exec(&self, _: &[u8]) {}
    fn release(&self) {}
}

/// A kernel that no call enters.
struct Nothing;

impl Kernel for Nothing {
    fn identity(&self) -> Identity {
        unreachable!("nobody asks")
    }
    fn runs_inline(&self, _: i32, _: &Args) -> bool {
        false
    }
    fn spawn(&self, _: Arc<dyn Client>, _: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        unreachable!("nobody connects")
    }
}

/// A queued call of a flag's process, and where its wake-ups and its end go.
struct Queued {
    flag: Arc<Flag>,
    task: Arc<Task>,
    injector: Injector<Job>,
    context: Context,
}

impl Queued {
    fn new() -> Queued {
        let context = Context {
            kernel: Arc::new(Nothing),
            mailbox: Arc::new(Mailbox::new(Box::new(|| {}))),
            panics: Arc::default(),
        };
        let injector = Injector::without_cores(context.clone());
        let flag = Arc::new(Flag::default());
        let socket = ring::loom_tests::socket();
        let task = Task::new(socket, ring::loom_tests::arena(), injector.clone(), true);
        let request = CallRequest { reqno: 1, number: 3, args: &[] };
        let process: Arc<dyn Process> = flag.clone();
        let quota = Arc::new(ClientQuota::new(Arc::new(GlobalQuota::new(&Limits::default()))));
        task.set(socket, CallKey(0), &process, &request, &quota, &Nothing);
        task.queue(&quota);
        Queued { flag, task: Arc::new(task), injector, context }
    }

    /// Runs the call as a worker does.
    fn run(&self) {
        self.task.clone().run(&self.context, false);
        self.context.mailbox.deliver();
    }

    /// Runs what has been injected, and returns how often the call ran.
    fn run_injected(&self) -> usize {
        let mut times = 0;
        while let Some(Job::Call(task)) = self.injector.take() {
            task.run(&self.context, false);
            times += 1;
        }
        self.context.mailbox.deliver();
        times
    }

    /// Checks that the call has ended once, and returns its outcome.
    fn end(self) -> Outcome {
        let mut messages = Vec::new();
        self.context.mailbox.take(&mut messages);
        assert!(matches!(messages[..], [Message::Ran(_)]), "{} messages", messages.len());
        *self.flag.waits.lock().unwrap() = None;
        let outcome = self.task.body().outcome.take();
        // Wakers that still wait hold the task, which holds the injector.
        self.task.clear();
        outcome.expect("a call that has ended")
    }
}

#[test]
fn a_wake_up_between_look_and_sleep_is_not_lost() {
    loom::model(|| {
        let call = Queued::new();
        let flag = call.flag.clone();
        let other = thread::spawn(move || flag.raise());
        call.run();
        other.join().unwrap();
        assert!(call.run_injected() <= 1, "one wake-up queues it once");
        assert_eq!(call.end(), Outcome::Done(Ok([1, 0])));
    });
}

#[test]
fn two_that_wake_a_call_queue_it_once() {
    loom::model(|| {
        let call = Queued::new();
        let (flag, task) = (call.flag.clone(), call.task.clone());
        let first = thread::spawn(move || flag.raise());
        let second = thread::spawn(move || Waker::from(task).wake());
        call.run();
        first.join().unwrap();
        second.join().unwrap();
        call.run_injected();
        assert_eq!(call.end(), Outcome::Done(Ok([1, 0])));
    });
}

/// A mailbox, whose reader sleeps as the ring's thread does, loses no message.
#[test]
fn a_mailbox_loses_no_message_and_keeps_their_order() {
    loom::model(|| {
        let bell = Arc::new(ring::loom_tests::Bell::default());
        let rings = bell.clone();
        let mailbox = Arc::new(Mailbox::new(Box::new(move || rings.ring())));
        let (one, two) = (mailbox.clone(), mailbox.clone());
        let first = thread::spawn(move || {
            one.post_later(Message::Stop);
            one.post(Message::KernelGone);
        });
        let second = thread::spawn(move || {
            let socket = ring::loom_tests::socket();
            two.post_later(Message::Raise { socket, signo: 15, signals: Default::default() });
            two.deliver();
        });
        let (mut got, mut batch) = (Vec::new(), Vec::new());
        while got.len() < 3 {
            mailbox.take(&mut batch);
            got.append(&mut batch);
            if got.len() < 3 && mailbox.is_empty() {
                bell.wait();
            }
        }
        first.join().unwrap();
        second.join().unwrap();
        let at = |predictor: fn(&Message) -> bool| got.iter().position(predictor).expect("it came");
        let stop = at(|message| matches!(message, Message::Stop));
        let disconnect = at(|message| matches!(message, Message::KernelGone));
        assert!(stop < disconnect, "those of one thread come in order");
        assert!(mailbox.is_empty());
    });
}

/// A thread that waits gets the answer, whenever it comes.
#[test]
fn a_reply_slot_brings_the_answer() {
    loom::model(|| {
        let place = Arc::new(ReplySlot::default());
        place.prepare(Vec::new());
        let bringing = bring(&place, Ok(b"abc"));
        assert_eq!(place.wait(), Ok(b"abc".to_vec()));
        assert!(bringing.join().unwrap(), "it was taken");
        assert!(place.answer(Err(())).is_some(), "nobody waits any more");
        place.prepare(Vec::new());
        let bringing = bring(&place, Err(()));
        assert_eq!(place.wait(), Err(()));
        assert!(bringing.join().unwrap(), "it was taken");
    });
}

/// Of two answers, the thread gets one, and the other is given back.
#[test]
fn a_reply_slot_takes_one_answer() {
    loom::model(|| {
        let place = Arc::new(ReplySlot::default());
        place.prepare(Vec::new());
        let bringing = [bring(&place, Ok(b"abc")), bring(&place, Err(()))];
        let heard = place.wait();
        let taken = bringing.map(|thread| thread.join().unwrap());
        let expected = if heard.is_ok() { [true, false] } else { [false, true] };
        assert_eq!(taken, expected, "{heard:?} was heard");
    });
}

/// Brings an answer on a thread of its own, which returns `true` if the answer was taken.
fn bring(place: &Arc<ReplySlot>, what: Result<&'static [u8], ()>) -> thread::JoinHandle<bool> {
    let place = place.clone();
    thread::spawn(move || place.answer(what.map(Body::Lent)).is_none())
}
