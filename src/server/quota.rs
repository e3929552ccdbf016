//! One client's use of the shared resources, counted in atomics because its calls run on any thread. A
//! single call's use is in [`super::holding`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::limits::Limits;
use crate::scheduler::Client;

/// Bytes at which a client has to wait while all clients together are owed, or have sent, much.
const PRESSED: usize = 64 * 1024;

/// The use of all clients together, and the bounds of each.
#[derive(Debug)]
pub struct GlobalQuota {
    bounds: Bounds,
    /// The bytes that clients have sent and the server holds.
    kept: AtomicUsize,
    /// True if clients are owed so much that each has to wait earlier.
    backpressure: AtomicBool,
}

impl GlobalQuota {
    /// Creates a `GlobalQuota` that has counted nothing.
    pub fn new(limits: &Limits) -> GlobalQuota {
        let bounds = Bounds {
            unsent: limits.send_queue_pause.max(1),
            kept: limits.copyin_cache,
            kept_in_all: limits.copyin_cache_total,
            queued: limits.queued.max(1),
        };
        GlobalQuota { bounds, kept: AtomicUsize::new(0), backpressure: AtomicBool::new(false) }
    }

    /// Returns the bytes that clients have sent and the server holds.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Sets whether each client has to wait earlier than its own bound says.
    pub fn set_backpressure(&self, backpressure: bool) {
        self.backpressure.store(backpressure, Ordering::Relaxed);
    }
}

/// The counters of one client:
///
/// - *copied*: bytes copied out to the client that it has not taken yet, in its send queue or still in a
///   call. Calls of one client run side by side, so each looks here before it copies out more.
/// - *kept*: memory for what the client has sent: answers that its calls hold, and what its connection
///   holds of frames that are incomplete or not yet looked at.
/// - *asked*: bytes that the client's calls have asked it for, from then until they have released the
///   answer. Their bound is half of the client's bound for *kept*. Beyond it, one call at a time gets
///   more, and the others wait.
/// - *resting*: such bytes of calls that sleep, perhaps for long. Their bound is the other half.
/// - *queued*: the client's calls that wait for a thread.
/// - *sleepers*: the client's calls that sleep on a thread, which the scheduler counts.
#[derive(Debug)]
pub struct ClientQuota {
    copied: AtomicUsize,
    kept: AtomicUsize,
    asked: AtomicUsize,
    resting: AtomicUsize,
    /// True if a call goes over the bound of what is asked.
    over: AtomicBool,
    /// True if the core has put off questions to the client until some call has released memory.
    put_off: AtomicBool,
    queued: AtomicUsize,
    /// True if the core takes no calls of this client until some of the queued ones have started.
    full: AtomicBool,
    sleepers: Arc<Client>,
    all: Arc<GlobalQuota>,
}

#[derive(Debug)]
struct Bounds {
    unsent: usize,
    kept: usize,
    kept_in_all: usize,
    queued: usize,
}

impl ClientQuota {
    /// Creates the quota of a client that uses nothing.
    pub fn new(all: Arc<GlobalQuota>) -> ClientQuota {
        ClientQuota {
            copied: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            put_off: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            sleepers: Arc::default(),
            all,
        }
    }

    /// Counts bytes that have been copied out.
    pub fn copied(&self, bytes: usize) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts copied bytes that the client has taken, or that have been dropped.
    pub fn taken(&self, bytes: usize) {
        if bytes > 0 {
            self.copied.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Returns the number of bytes owed at which this client has to wait.
    pub fn unsent_bound(&self) -> usize {
        match self.all.backpressure.load(Ordering::Relaxed) {
            true => self.all.bounds.unsent.min(PRESSED),
            false => self.all.bounds.unsent,
        }
    }

    /// Returns `true` if no call should copy out more.
    pub fn has_enough_unsent(&self) -> bool {
        self.copied.load(Ordering::Relaxed) >= self.unsent_bound()
    }

    /// Counts memory that is taken by what the client has sent.
    pub fn keep(&self, bytes: usize) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.all.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts memory that has been released.
    pub fn let_go(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
        self.all.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the memory taken by what the client has sent.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Returns the bound of what sleeping calls may hold, and of what the others may ask for: half of the
    /// bound for *kept*.
    fn half(&self) -> usize {
        let bounds = &self.all.bounds;
        match self.all.kept() > bounds.kept_in_all / 2 {
            true => (bounds.kept / 2).min(PRESSED),
            false => bounds.kept / 2,
        }
    }

    /// Counts what a call wants to ask for, and returns `true`, if there is room. If no other call has
    /// asked for anything, there always is.
    pub fn ask(&self, bytes: usize) -> bool {
        let half = self.half();
        let fits = |asked: usize| (asked == 0 || asked + bytes <= half).then_some(asked + bytes);
        self.asked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Counts what a call asks for that may go over the bound.
    pub fn ask_over(&self, bytes: usize) {
        self.asked.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Counts bytes that a call has asked for and released.
    pub fn asked_less(&self, bytes: usize) {
        self.asked.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Lets a call go over the bound, and returns `true`, unless another call does.
    pub fn go_over(&self) -> bool {
        !self.over.swap(true, Ordering::SeqCst)
    }

    /// Notes that the call which went over the bound does so no more.
    pub fn end_over(&self) {
        self.over.store(false, Ordering::SeqCst);
    }

    /// Counts what a call is to hold while it sleeps, and returns `true`, if there is room.
    pub fn rest(&self, bytes: usize) -> bool {
        let half = self.half();
        let fits = |resting: usize| (resting + bytes <= half).then_some(resting + bytes);
        self.resting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Counts bytes that a call has held and released.
    pub fn rest_less(&self, bytes: usize) {
        self.resting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Notes that the core has put off questions, so that the next [`ClientQuota::has_room`] returns
    /// `true`. The core looks for room once more after this.
    pub fn put_off(&self) {
        self.put_off.store(true, Ordering::SeqCst);
    }

    /// Returns `true` if the core waits to be told that a call has released memory, as the caller just
    /// has. Returns it only once.
    pub fn has_room(&self) -> bool {
        self.put_off.load(Ordering::SeqCst) && self.put_off.swap(false, Ordering::SeqCst)
    }

    /// Returns this client as the scheduler knows it.
    pub fn sleepers(&self) -> &Arc<Client> {
        &self.sleepers
    }

    /// Counts a call that waits for a thread.
    pub fn queue(&self) {
        self.queued.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a call that has got its thread. Returns `true` if the core waits to be told so, see
    /// [`ClientQuota::is_full`].
    pub fn start(&self) -> bool {
        let left = self.queued.fetch_sub(1, Ordering::SeqCst) - 1;
        left <= self.all.bounds.queued / 2 && self.full.swap(false, Ordering::SeqCst)
    }

    /// Returns `true` if the client's queue is full. A later [`ClientQuota::start`] then tells when there
    /// is room again.
    pub fn is_full(&self) -> bool {
        let is_full = || self.queued.load(Ordering::SeqCst) >= self.all.bounds.queued;
        if !is_full() {
            return false;
        }
        // This is before the second look, so that a call which starts after that look sees it.
        self.full.store(true, Ordering::SeqCst);
        is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(limits: &Limits) -> (ClientQuota, Arc<GlobalQuota>) {
        let all = Arc::new(GlobalQuota::new(limits));
        (ClientQuota::new(all.clone()), all)
    }

    #[test]
    fn a_full_queue_says_when_half_of_it_has_started() {
        let (quota, _) = quota(&Limits { queued: 4, ..Limits::default() });
        for _ in 0..3 {
            quota.queue();
            assert!(!quota.is_full(), "there is room for one more");
        }
        assert!(!quota.start(), "nobody waits for it");
        quota.queue();
        quota.queue();
        assert!(quota.is_full());
        assert!(!quota.start(), "three are left");
        assert!(quota.start(), "two are left");
        assert!(!quota.start(), "once");
    }

    #[test]
    fn many_with_much_unsent_wait_earlier() {
        let (quota, all) = quota(&Limits { send_queue_pause: 1 << 20, ..Limits::default() });
        quota.copied(PRESSED);
        assert!(!quota.has_enough_unsent());
        all.set_backpressure(true);
        assert!(quota.has_enough_unsent());
        quota.taken(1);
        assert!(!quota.has_enough_unsent());
        all.set_backpressure(false);
        quota.copied((1 << 20) - PRESSED);
        assert!(!quota.has_enough_unsent());
        quota.copied(1);
        assert!(quota.has_enough_unsent());
    }

    #[test]
    fn half_of_what_is_kept_is_for_calls_that_sleep() {
        let (quota, _) = quota(&Limits { copyin_cache: 20, ..Limits::default() });
        assert!(quota.rest(10) && !quota.rest(1));
        assert!(quota.ask(10) && !quota.ask(1));
        quota.rest_less(10);
        assert!(!quota.ask(1), "what sleeps and what does not have bounds of their own");
        quota.asked_less(10);
        assert!(quota.ask(1000), "alone, any call may ask");
        assert!(quota.go_over() && !quota.go_over(), "one at a time");
        quota.end_over();
        assert!(quota.go_over());
    }

    #[test]
    fn who_let_go_is_told_of_once_if_somebody_waits_for_it() {
        let (quota, _) = quota(&Limits::default());
        assert!(!quota.has_room());
        quota.put_off();
        assert!(quota.has_room() && !quota.has_room());
    }

    #[test]
    fn many_who_keep_much_ask_for_less() {
        let limits =
            Limits { copyin_cache: 1 << 20, copyin_cache_total: 1 << 20, ..Limits::default() };
        let (one, all) = quota(&limits);
        let other = ClientQuota::new(all);
        one.keep((1 << 19) + 1);
        assert!(other.ask(PRESSED) && !other.ask(1));
        assert!(!other.rest(PRESSED + 1));
        one.let_go(1);
        assert!(other.ask(1) && other.rest(PRESSED + 1));
    }
}
