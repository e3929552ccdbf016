//! What one client takes of what all share: counted here, for its calls run on any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::limits::Limits;

/// Bytes owed at which a client waits when all clients together are owed much.
const PRESSED: usize = 64 * 1024;

/// What all clients together take, and how much each may.
#[derive(Debug)]
pub struct All {
    bounds: Bounds,
    /// Bytes that clients have answered with and sleeping calls may hold on to.
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

    /// Whether each client is to wait earlier than its own bound says.
    pub fn press(&self, pressed: bool) {
        self.pressed.store(pressed, Ordering::Relaxed);
    }
}

/// What one client takes.
///
/// - *copied*: bytes copied out to it that it has not taken yet, whether its outbox has them or a call.
///   Calls of one client run side by side, so each looks here before it copies out more.
/// - *kept*: bytes it has answered with, which its calls hold on to.
/// - *queued*: its calls that wait for a thread.
#[derive(Debug)]
pub struct Share {
    copied: AtomicUsize,
    kept: AtomicUsize,
    queued: AtomicUsize,
    /// The board takes no calls of this client until some of those queued have started.
    full: AtomicBool,
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
            queued: AtomicUsize::new(0),
            full: AtomicBool::new(false),
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

    /// A call keeps so many bytes of an answer.
    pub fn keep(&self, bytes: usize) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.all.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A call has let go of them.
    pub fn let_go(&self, bytes: usize) {
        if bytes > 0 {
            self.kept.fetch_sub(bytes, Ordering::Relaxed);
            self.all.kept.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether a call that falls asleep should keep none, and ask again when it wakes.
    pub fn keeps_too_much(&self) -> bool {
        self.kept.load(Ordering::Relaxed) > self.all.bounds.kept
            || self.all.kept.load(Ordering::Relaxed) > self.all.bounds.kept_in_all
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
    fn what_all_keep_counts_too() {
        let limits = Limits { kept: 10, kept_in_all: 15, ..Limits::default() };
        let (one, all) = share(&limits);
        let other = Share::new(all);
        one.keep(10);
        assert!(!one.keeps_too_much());
        one.keep(1);
        assert!(one.keeps_too_much() && !other.keeps_too_much());
        other.keep(5);
        assert!(other.keeps_too_much(), "16 bytes in all");
        one.let_go(11);
        assert!(!other.keeps_too_much() && !one.keeps_too_much());
    }
}
