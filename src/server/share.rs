//! What one client takes of what all share: counted here, for its calls run on any thread. What a single
//! call takes of it: [`super::holding`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::limits::Limits;
use crate::pool::Client;

/// Bytes at which a client waits when all clients together are owed, or have sent, much.
const PRESSED: usize = 64 * 1024;

/// What all clients together take, and how much each may.
#[derive(Debug)]
pub struct All {
    bounds: Bounds,
    /// Bytes that clients have sent and the server holds.
    kept: AtomicUsize,
    /// Clients are owed so much that each is to wait earlier.
    pressed: AtomicBool,
}

impl All {
    /// Nothing yet.
    pub fn new(limits: &Limits) -> All {
        let bounds = Bounds {
            owed: limits.owed.max(1),
            kept: limits.kept,
            kept_in_all: limits.kept_in_all,
            queued: limits.queued.max(1),
        };
        All { bounds, kept: AtomicUsize::new(0), pressed: AtomicBool::new(false) }
    }

    /// Bytes that clients have sent and the server holds.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whether each client is to wait earlier than its own bound says.
    pub fn press(&self, pressed: bool) {
        self.pressed.store(pressed, Ordering::Relaxed);
    }
}

/// What one client takes.
///
/// - *copied*: bytes copied out to it that it has not taken yet, whether its outbox has them or a call.
///   Calls of one client run side by side, so each looks here before it copies out more.
/// - *kept*: memory for what it has sent: answers that its calls hold, and what its connection holds of
///   frames that are not whole or not looked at.
/// - *asked*: bytes that its calls have asked it for, from then until they have let go of the answer. Up
///   to half of its bound for what is kept; beyond it one call at a time gets more, the others wait.
/// - *resting*: the same of calls that sleep, perhaps for long: up to the other half.
/// - *queued*: its calls that wait for a thread.
/// - *sleepers*: its calls that sleep on a thread, which the pool counts.
#[derive(Debug)]
pub struct Share {
    copied: AtomicUsize,
    kept: AtomicUsize,
    asked: AtomicUsize,
    resting: AtomicUsize,
    /// A call may go over the bound of what is asked.
    over: AtomicBool,
    /// The board has put off asks until some call has let go of what it holds.
    put_off: AtomicBool,
    queued: AtomicUsize,
    /// The board takes no calls of this client until some of those queued have started.
    full: AtomicBool,
    sleepers: Arc<Client>,
    all: Arc<All>,
}

#[derive(Debug)]
struct Bounds {
    owed: usize,
    kept: usize,
    kept_in_all: usize,
    queued: usize,
}

impl Share {
    /// Nothing yet.
    pub fn new(all: Arc<All>) -> Share {
        Share {
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

    /// So many bytes more have been copied out.
    pub fn copied(&self, bytes: usize) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of them have been taken, or dropped.
    pub fn taken(&self, bytes: usize) {
        if bytes > 0 {
            self.copied.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes owed at which this client has to wait.
    pub fn owed_bound(&self) -> usize {
        match self.all.pressed.load(Ordering::Relaxed) {
            true => self.all.bounds.owed.min(PRESSED),
            false => self.all.bounds.owed,
        }
    }

    /// Whether nobody should copy out more.
    pub fn is_owed_enough(&self) -> bool {
        self.copied.load(Ordering::Relaxed) >= self.owed_bound()
    }

    /// So much memory more is taken by what the client has sent.
    pub fn keep(&self, bytes: usize) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.all.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much less.
    pub fn let_go(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
        self.all.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Memory taken by what the client has sent.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Bytes that calls which sleep may hold, and that others may ask for: half of what is kept each.
    fn half(&self) -> usize {
        let bounds = &self.all.bounds;
        match self.all.kept() > bounds.kept_in_all / 2 {
            true => (bounds.kept / 2).min(PRESSED),
            false => bounds.kept / 2,
        }
    }

    /// Counts what a call wants to ask for, if there is room for it. There is if no other holds any.
    pub fn ask(&self, bytes: usize) -> bool {
        let half = self.half();
        let fits = |asked: usize| (asked == 0 || asked + bytes <= half).then_some(asked + bytes);
        self.asked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// The same for a call that may go over the bound.
    pub fn ask_over(&self, bytes: usize) {
        self.asked.fetch_add(bytes, Ordering::SeqCst);
    }

    /// A call has let go of what it asked for.
    pub fn asked_less(&self, bytes: usize) {
        self.asked.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Lets a call go over the bound, unless another does.
    pub fn go_over(&self) -> bool {
        !self.over.swap(true, Ordering::SeqCst)
    }

    /// That call does so no more.
    pub fn end_over(&self) {
        self.over.store(false, Ordering::SeqCst);
    }

    /// Counts what a call is to hold while it sleeps, if there is room for it.
    pub fn rest(&self, bytes: usize) -> bool {
        let half = self.half();
        let fits = |resting: usize| (resting + bytes <= half).then_some(resting + bytes);
        self.resting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// That call has let go of it.
    pub fn rest_less(&self, bytes: usize) {
        self.resting.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The board has put off asks: the next [`Share::has_room`] is to say so. It looks again after this.
    pub fn put_off(&self) {
        self.put_off.store(true, Ordering::SeqCst);
    }

    /// Whether the board waits to hear that a call has let go of something, as one just has.
    pub fn has_room(&self) -> bool {
        self.put_off.load(Ordering::SeqCst) && self.put_off.swap(false, Ordering::SeqCst)
    }

    /// This client as the pool knows it.
    pub fn sleepers(&self) -> &Arc<Client> {
        &self.sleepers
    }

    /// A call waits for a thread.
    pub fn queue(&self) {
        self.queued.fetch_add(1, Ordering::SeqCst);
    }

    /// It has one. Whether the board waits to hear so, see [`Share::is_full`].
    pub fn start(&self) -> bool {
        let left = self.queued.fetch_sub(1, Ordering::SeqCst) - 1;
        left <= self.all.bounds.queued / 2 && self.full.swap(false, Ordering::SeqCst)
    }

    /// Whether as many calls wait as may. Then a later [`Share::start`] says when there is room again.
    pub fn is_full(&self) -> bool {
        let is_full = || self.queued.load(Ordering::SeqCst) >= self.all.bounds.queued;
        if !is_full() {
            return false;
        }
        // Before the second look: who starts after that sees it.
        self.full.store(true, Ordering::SeqCst);
        is_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(limits: &Limits) -> (Share, Arc<All>) {
        let all = Arc::new(All::new(limits));
        (Share::new(all.clone()), all)
    }

    #[test]
    fn a_full_queue_says_when_half_of_it_has_started() {
        let (share, _) = share(&Limits { queued: 4, ..Limits::default() });
        for _ in 0..3 {
            share.queue();
            assert!(!share.is_full(), "there is room for one more");
        }
        assert!(!share.start(), "nobody waits for it");
        share.queue();
        share.queue();
        assert!(share.is_full());
        assert!(!share.start(), "three are left");
        assert!(share.start(), "two are left");
        assert!(!share.start(), "once");
    }

    #[test]
    fn many_who_are_owed_much_wait_earlier() {
        let (share, all) = share(&Limits { owed: 1 << 20, ..Limits::default() });
        share.copied(PRESSED);
        assert!(!share.is_owed_enough());
        all.press(true);
        assert!(share.is_owed_enough());
        share.taken(1);
        assert!(!share.is_owed_enough());
        all.press(false);
        share.copied((1 << 20) - PRESSED);
        assert!(!share.is_owed_enough());
        share.copied(1);
        assert!(share.is_owed_enough());
    }

    #[test]
    fn half_of_what_is_kept_is_for_calls_that_sleep() {
        let (share, _) = share(&Limits { kept: 20, ..Limits::default() });
        assert!(share.rest(10) && !share.rest(1));
        assert!(share.ask(10) && !share.ask(1));
        share.rest_less(10);
        assert!(!share.ask(1), "what sleeps and what does not have bounds of their own");
        share.asked_less(10);
        assert!(share.ask(1000), "alone, any call may ask");
        assert!(share.go_over() && !share.go_over(), "one at a time");
        share.end_over();
        assert!(share.go_over());
    }

    #[test]
    fn who_let_go_is_told_of_once_if_somebody_waits_for_it() {
        let (share, _) = share(&Limits::default());
        assert!(!share.has_room());
        share.put_off();
        assert!(share.has_room() && !share.has_room());
    }

    #[test]
    fn many_who_keep_much_ask_for_less() {
        let limits = Limits { kept: 1 << 20, kept_in_all: 1 << 20, ..Limits::default() };
        let (one, all) = share(&limits);
        let other = Share::new(all);
        one.keep((1 << 19) + 1);
        assert!(other.ask(PRESSED) && !other.ask(1));
        assert!(!other.rest(PRESSED + 1));
        one.let_go(1);
        assert!(other.ask(1) && other.rest(PRESSED + 1));
    }
}
