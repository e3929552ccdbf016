//! The mailbox: messages from workers and other threads to the submission thread.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ring::{Chunk, Socket};

use super::signals::Signals;
use super::stats::Stats;
use super::task::Task;
#[cfg(loom)]
use crate::sync::modelled::Local as _;
use crate::sync::{Mutex, MutexGuard, thread_local};
use kernel::{self, Errno, Process};
use rumpsp::session::{CallKey, CopyRequest};

/// A message to the submission thread.
pub enum Message {
    /// A run of a call has ended; the task has the outcome.
    Ran(Arc<Task>),
    /// Some of this client's queued calls have started, or have released memory: see
    /// [`super::quota::ClientQuota::is_full`] and [`super::quota::ClientQuota::put_off`].
    HasRoom(Socket),
    /// A call sleeps until this time at the latest.
    SleepsUntil { socket: Socket, key: CallKey, until: Instant },
    /// A call that waits on its thread needs something from its client. What it has copied out so far is
    /// sent first.
    Asks { socket: Socket, key: CallKey, ask: CopyRequest, out: Out },
    /// A call that waits on its thread has copied out much. It goes on once the client has taken enough
    /// of it.
    Flushes { socket: Socket, key: CallKey, out: Out },
    /// The kernel has halted in this call, which does not come back. `done` is told when the answer is
    /// out.
    Halted { socket: Socket, key: CallKey, out: Out, done: mpsc::Sender<()> },
    /// An operation of a session has been done.
    Done(Socket, Done),
    /// The kernel sends a client a signal, which is pending in `signals`.
    Raise { socket: Socket, signo: i32, signals: Arc<Signals> },
    /// Somebody asks for the counters.
    Stats(mpsc::Sender<Stats>),
    /// The server is to stop: calls in flight get their time to end.
    Stop,
    /// The kernel has halted by itself: no call can enter it any more, and none ends.
    KernelGone,
}

/// The frames that a call has copied out.
pub struct Out {
    pub chunks: Vec<Chunk>,
    /// The number of bytes in all chunks.
    pub len: usize,
}

/// The result of [`rumpsp::session::KernelOp`].
pub enum Done {
    Spawned(Result<Arc<dyn Process>, Errno>),
    Preforked(Result<Arc<dyn Process>, Errno>),
    Interrupted,
    Executed,
    Released,
}

/// The most messages that are delivered together, and the longest time that the first waits for others.
const MOST_LATER: usize = 32;
const LATER: Duration = if cfg!(loom) { Duration::MAX } else { Duration::from_micros(20) };

thread_local! {
    /// The messages that this thread has put off. Empty when the thread parks: see [`Mailbox::deliver`].
    static PUT_OFF: RefCell<PutOff> = const { RefCell::new(PutOff { messages: Vec::new(), since: None }) };
}

struct PutOff {
    messages: Vec<Message>,
    since: Option<Instant>,
}

/// A queue from many threads to one thread, which is woken if it sleeps.
///
/// One wake-up can serve several messages: a message that is not urgent goes by [`Mailbox::post_later`].
///
/// The queue is a vector under a lock that is held for a push or for a swap. Its length is bounded by
/// what was sent out: one message for each task, operation and sleeping call, and one for each signal
/// number that is pending for a client.
pub struct Mailbox {
    messages: Mutex<Vec<Message>>,
    wake: Box<dyn Fn() + Send + Sync>,
    failure: OnceLock<String>,
}

impl Mailbox {
    /// Creates an empty mailbox. `wake` is called after each message, and has to be cheap when the reader
    /// is awake.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Mailbox {
        Mailbox { messages: Mutex::default(), wake, failure: OnceLock::new() }
    }

    /// Posts a message. Messages of one thread arrive in order.
    pub fn post(&self, message: Message) {
        self.deliver();
        self.lock().push(message);
        (self.wake)();
    }

    /// Posts a signal, unless a signal of the same number is pending for that client. The message of the
    /// pending one comes before whatever is posted from here on, too.
    fn raise(&self, socket: Socket, signo: i32, signals: &Arc<Signals>) {
        self.deliver();
        let mut messages = self.lock();
        // This is under the lock so that a thread that finds the signal pending finds its message posted.
        if signals.add(signo) {
            messages.push(Message::Raise { socket, signo, signals: signals.clone() });
            drop(messages);
            (self.wake)();
        }
    }

    /// Posts a message soon, perhaps with others: when there are some, when a little time has passed, and
    /// at the latest with [`Mailbox::deliver`], which has to follow before the thread parks.
    pub fn post_later(&self, message: Message) {
        let is_time = PUT_OFF.with_borrow_mut(|put_off| {
            put_off.messages.push(message);
            put_off.messages.len() >= MOST_LATER
                || put_off.since.get_or_insert_with(Instant::now).elapsed() >= LATER
        });
        if is_time {
            self.deliver();
        }
    }

    /// Posts the messages that this thread has put off.
    pub fn deliver(&self) {
        let any = PUT_OFF.with_borrow_mut(|put_off| {
            put_off.since = None;
            let any = !put_off.messages.is_empty();
            if any {
                self.lock().append(&mut put_off.messages);
            }
            any
        });
        if any {
            (self.wake)();
        }
    }

    /// Swaps the posted messages with the empty vector `into`.
    pub fn take(&self, into: &mut Vec<Message>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.lock(), into);
    }

    /// Makes the server end at once, for this reason: something has gone that the server cannot do
    /// without.
    pub fn fail(&self, reason: String) {
        // The first reason is the one that is kept.
        drop(self.failure.set(reason));
        self.post(Message::Stop);
    }

    /// Returns the reason of the first [`Mailbox::fail`], if there was one.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Returns `true` if there are no messages.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's way to one client.
pub struct ClientAt {
    pub socket: Socket,
    pub mailbox: Arc<Mailbox>,
    /// The signals that the client is about to be sent.
    pub signals: Arc<Signals>,
}

impl kernel::Client for ClientAt {
    fn raise(&self, signo: i32) {
        self.mailbox.raise(self.socket, signo, &self.signals);
    }

    fn is_pending(&self, signo: i32) -> bool {
        self.signals.has(signo)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Returns a mailbox, and a count of the times that its reader was woken.
    fn mailbox() -> (Mailbox, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = wakes.clone();
        let wake = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        (Mailbox::new(Box::new(wake)), wakes)
    }

    fn taken(mailbox: &Mailbox) -> Vec<Message> {
        let mut messages = Vec::new();
        mailbox.take(&mut messages);
        messages
    }

    #[test]
    fn what_is_posted_at_once_comes_behind_what_was_put_off() {
        let (mailbox, _) = mailbox();
        mailbox.post_later(Message::Stop);
        mailbox.post(Message::KernelGone);
        assert!(matches!(taken(&mailbox)[..], [Message::Stop, Message::KernelGone]));
    }

    #[test]
    fn no_more_is_put_off_than_the_bound() {
        let (mailbox, wakes) = mailbox();
        for _ in 0..MOST_LATER {
            mailbox.post_later(Message::Stop);
        }
        // If time has passed meanwhile, some messages came earlier, and the last ones are still put off.
        let put_off = PUT_OFF.with_borrow_mut(|put_off| put_off.messages.len());
        assert!(put_off < MOST_LATER, "{put_off} are put off");
        assert_eq!(taken(&mailbox).len() + put_off, MOST_LATER);
        assert!(wakes.load(Ordering::SeqCst) > 0, "the reader is woken");
    }

    #[test]
    fn of_each_signal_one_message_is_there_until_it_has_left() {
        let (mailbox, wakes) = mailbox();
        let (mailbox, signals) = (Arc::new(mailbox), Arc::new(Signals::default()));
        let client = ClientAt {
            socket: Socket::made_up(0, 0),
            mailbox: mailbox.clone(),
            signals: signals.clone(),
        };
        for signo in (1..64).cycle().take(10_000) {
            kernel::Client::raise(&client, signo);
        }
        kernel::Client::raise(&client, 64);
        assert_eq!((taken(&mailbox).len(), wakes.load(Ordering::SeqCst)), (63, 63));
        assert!(kernel::Client::is_pending(&client, 1) && signals.has(63));
    }

    #[test]
    fn a_thread_that_delivers_keeps_nothing_and_wakes_for_something_only() {
        let (mailbox, wakes) = mailbox();
        mailbox.deliver();
        assert_eq!(wakes.load(Ordering::SeqCst), 0, "there was nothing to wake for");
        mailbox.post_later(Message::Stop);
        mailbox.deliver();
        assert!(matches!(taken(&mailbox)[..], [Message::Stop]));
        mailbox.deliver();
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        assert!(mailbox.is_empty());
    }
}
