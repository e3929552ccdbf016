//! The locks of one file: the list, conflicts between locks, and how a new lock changes those its owner
//! has.
//!
//! The order of the list is visible (`F_GETLK` returns the first conflicting lock), so it is NetBSD's: an
//! owner's locks are sorted among themselves, and adjacent locks are not merged.
//!
//! Source: NetBSD `sys/kern/vfs_lockf.c`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::super::limits::ResourceGroup;
use super::super::wait::WaitQueue;

/// The last byte of a lock that reaches to the end of the file, however long the file becomes.
pub(super) const END: u64 = u64::MAX;

/// The bytes a lock is charged to its family.
const COST: u64 = 64;

/// The owner of a lock: a process (`F_POSIX`), by pid, or an open file (`F_FLOCK`), by address. Both give
/// up their locks before the pid or address can be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Process(i32),
    File(usize),
}

/// A range of bytes of a file, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub start: u64,
    pub end: u64,
}

impl Range {
    /// The whole file.
    pub const ALL: Range = Range { start: 0, end: END };

    fn overlaps(self, other: Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// A lock that a process or open file requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub owner: Owner,
    pub range: Range,
    pub exclusive: bool,
}

/// The payment for one lock.
pub(super) struct Ticket {
    resource_group: Arc<ResourceGroup>,
}

impl Ticket {
    /// Pays for one more lock, if the family has fewer than `most` and can pay.
    pub fn take(resource_group: &Arc<ResourceGroup>, most: u64) -> Option<Ticket> {
        if !resource_group.locks.take(1, most) {
            return None;
        }
        if !resource_group.take_bytes(COST) {
            resource_group.locks.give(1);
            return None;
        }
        Some(Ticket { resource_group: resource_group.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.resource_group.give_bytes(COST);
        self.resource_group.locks.give(1);
    }
}

/// The calls that wait for one lock to go. When they are woken, they leave the queue for good.
pub(super) struct Queue {
    /// The owner of the lock.
    pub owner: Owner,
    over: AtomicBool,
    pub calls: WaitQueue,
}

impl Queue {
    /// Returns `true` while the calls still have something to wait for.
    pub fn lasts(&self) -> bool {
        !self.over.load(Relaxed)
    }
}

/// A lock that is held.
struct Held {
    owner: Owner,
    range: Range,
    exclusive: bool,
    queue: Option<Arc<Queue>>,
    _ticket: Ticket,
}

/// The position of a lock of the same owner relative to a range that it overlaps.
enum Lies {
    /// The lock covers the same bytes.
    Same,
    /// The lock covers more on one side or both.
    Around,
    /// The lock covers less.
    Within,
    /// The lock begins before the range and ends within, or neither has an end.
    Before,
    /// The lock begins within the range and ends after it.
    After,
}

fn lies(held: Range, range: Range) -> Lies {
    if held == range {
        Lies::Same
    } else if held.start <= range.start && range.end != END && held.end >= range.end {
        Lies::Around
    } else if held.start >= range.start && held.end <= range.end {
        Lies::Within
    } else if held.start < range.start {
        Lies::Before
    } else {
        Lies::After
    }
}

/// Queues to be woken once no lock is held.
#[derive(Default)]
pub(super) struct Woken(Vec<Arc<Queue>>);

impl Woken {
    pub fn wake(self) {
        for queue in self.0 {
            queue.calls.wake();
        }
    }

    fn add(&mut self, held: &mut Held) {
        self.retire(held.queue.take());
    }

    fn retire(&mut self, queue: Option<Arc<Queue>>) {
        if let Some(queue) = queue {
            queue.over.store(true, Relaxed);
            self.0.push(queue);
        }
    }
}

/// The locks of a file.
#[derive(Default)]
pub(super) struct List(Vec<Held>);

/// The lock that conflicts with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blocker {
    pub owner: Owner,
    pub range: Range,
    pub exclusive: bool,
}

impl List {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first lock of another owner that `wish` conflicts with.
    pub fn blocker(&self, wish: &Wish) -> Option<Blocker> {
        let held = &self.0[self.find_blocker(wish)?];
        Some(Blocker { owner: held.owner, range: held.range, exclusive: held.exclusive })
    }

    fn find_blocker(&self, wish: &Wish) -> Option<usize> {
        self.0.iter().position(|held| {
            held.owner != wish.owner
                && held.range.overlaps(wish.range)
                && (wish.exclusive || held.exclusive)
        })
    }

    /// Returns the queue of the lock that `wish` conflicts with.
    pub fn queue(&mut self, wish: &Wish) -> Option<Arc<Queue>> {
        let at = self.find_blocker(wish)?;
        let held = &mut self.0[at];
        let owner = held.owner;
        let fresh =
            || Arc::new(Queue { owner, over: AtomicBool::new(false), calls: WaitQueue::default() });
        Some(held.queue.get_or_insert_with(fresh).clone())
    }

    /// Returns, from `at` on, the first lock of `owner` that overlaps `range`; `Err` with the place for a
    /// new lock if there is none.
    fn next(&self, at: usize, owner: Owner, range: Range) -> Result<usize, usize> {
        for (at, held) in self.0.iter().enumerate().skip(at) {
            if held.owner != owner {
                continue;
            }
            if held.range.overlaps(range) {
                return Ok(at);
            }
            if held.range.start > range.end {
                return Err(at);
            }
        }
        Err(self.0.len())
    }

    /// Grants `wish`, which conflicts with no lock. `spare` pays for a lock that is cut in two.
    pub fn set(&mut self, wish: &Wish, ticket: Ticket, spare: Option<Ticket>, woken: &mut Woken) {
        let &Wish { owner, range, exclusive } = wish;
        let mut new = Some(Held { owner, range, exclusive, queue: None, _ticket: ticket });
        // The place of the new lock once it is inserted.
        let mut place = 0;
        let mut at = 0;
        loop {
            at = match self.next(at, owner, range) {
                Ok(at) => at,
                Err(at) => {
                    self.0.splice(at..at, new.take());
                    return;
                }
            };
            let held = &mut self.0[at];
            let downgraded = held.exclusive && !exclusive;
            match lies(held.range, range) {
                Lies::Same => {
                    if downgraded {
                        woken.add(held);
                    }
                    held.exclusive = exclusive;
                    return;
                }
                Lies::Around => {
                    if held.exclusive != exclusive {
                        woken.add(held);
                        self.cut(at, range, new, spare);
                    }
                    return;
                }
                Lies::Within => {
                    if downgraded {
                        woken.add(held);
                    }
                    let queue = self.0.remove(at).queue;
                    if let Some(new) = new.take() {
                        self.0.insert(at, new);
                        place = at;
                        at += 1;
                    }
                    // The calls that waited for the old lock wait for the new one.
                    let heir = &mut self.0[place].queue;
                    if heir.is_none() {
                        *heir = queue;
                    } else {
                        woken.retire(queue);
                    }
                }
                Lies::Before => {
                    held.range.end = range.start - 1;
                    woken.add(held);
                    place = at + 1;
                    self.0.splice(place..place, new.take());
                    at = place + 1;
                }
                Lies::After => {
                    held.range.start = range.end + 1;
                    woken.add(held);
                    self.0.splice(at..at, new.take());
                    return;
                }
            }
        }
    }

    /// Takes `range` away from `owner`. `spare` pays for a lock that is cut in two.
    pub fn clear(&mut self, owner: Owner, range: Range, spare: Option<Ticket>, woken: &mut Woken) {
        let mut at = 0;
        while let Ok(here) = self.next(at, owner, range) {
            at = here;
            let held = &mut self.0[at];
            woken.add(held);
            match lies(held.range, range) {
                Lies::Same => {
                    self.0.remove(at);
                    return;
                }
                Lies::Around => return self.cut(at, range, None, spare),
                Lies::Within => {
                    self.0.remove(at);
                }
                Lies::Before => {
                    held.range.end = range.start - 1;
                    at += 1;
                }
                Lies::After => {
                    held.range.start = range.end + 1;
                    return;
                }
            }
        }
    }

    /// Cuts `range` out of the lock at `at`, which covers more, and puts `new` in its place.
    fn cut(&mut self, at: usize, range: Range, new: Option<Held>, spare: Option<Ticket>) {
        let held = &mut self.0[at];
        if held.range.start == range.start {
            held.range.start = range.end + 1;
            self.0.splice(at..at, new);
            return;
        }
        let last = held.range.end;
        held.range.end = range.start - 1;
        let (owner, exclusive) = (held.owner, held.exclusive);
        let rest = spare.filter(|_| last > range.end).map(|ticket| Held {
            owner,
            range: Range { start: range.end + 1, end: last },
            exclusive,
            queue: None,
            _ticket: ticket,
        });
        self.0.splice(at + 1..at + 1, new.into_iter().chain(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::{Counters, Limits};
    use super::*;

    const ME: Owner = Owner::Process(2);
    const YOU: Owner = Owner::Process(3);

    struct Bench {
        list: List,
        resource_group: Arc<ResourceGroup>,
    }

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    impl Bench {
        fn new() -> Bench {
            let resource_group = ResourceGroup::new(&Arc::new(Counters::new(Limits::default())));
            Bench { list: List::default(), resource_group }
        }

        fn ticket(&self) -> Option<Ticket> {
            Ticket::take(&self.resource_group, u64::MAX)
        }

        fn set(&mut self, owner: Owner, start: u64, end: u64, exclusive: bool) -> usize {
            let mut woken = Woken::default();
            let wish = Wish { owner, range: range(start, end), exclusive };
            let (ticket, spare) = (self.ticket().unwrap(), self.ticket());
            self.list.set(&wish, ticket, spare, &mut woken);
            woken.0.len()
        }

        fn clear(&mut self, owner: Owner, start: u64, end: u64) -> usize {
            let mut woken = Woken::default();
            let spare = self.ticket();
            self.list.clear(owner, range(start, end), spare, &mut woken);
            woken.0.len()
        }

        fn wait(&mut self, start: u64, end: u64) -> Arc<Queue> {
            let wish = Wish { owner: Owner::File(1), range: range(start, end), exclusive: true };
            self.list.queue(&wish).expect("something to wait for")
        }

        /// Checks that the list reads like `expected` (`r0-9`, `w5-`), and that every lock is paid for.
        fn shows(&self, expected: &str) {
            let one = |held: &Held| {
                let end = Some(held.range.end).filter(|&end| end != END);
                let end = end.map_or(String::new(), |end| end.to_string());
                let who = if held.owner == ME { "" } else { "you:" };
                let how = if held.exclusive { 'w' } else { 'r' };
                format!("{who}{how}{}-{end}", held.range.start)
            };
            let all: Vec<String> = self.list.0.iter().map(one).collect();
            assert_eq!(all.join(" "), expected);
            assert_eq!(self.resource_group.locks.get(), all.len() as u64);
            assert_eq!(self.resource_group.system.bytes.get(), all.len() as u64 * COST);
        }
    }

    #[test]
    fn new_locks_take_the_place_of_old_ones() {
        let mut bench = Bench::new();
        bench.set(ME, 10, 19, false);
        bench.set(ME, 30, 39, false);
        bench.set(ME, 0, 9, true);
        bench.shows("w0-9 r10-19 r30-39");
        // The same range; the same kind within; the other kind at the front, the back, in the middle.
        bench.set(ME, 10, 19, true);
        bench.set(ME, 32, 33, false);
        bench.shows("w0-9 w10-19 r30-39");
        bench.set(ME, 10, 11, false);
        bench.set(ME, 18, 19, false);
        bench.set(ME, 34, 35, true);
        bench.shows("w0-9 r10-11 w12-17 r18-19 r30-33 w34-35 r36-39");
        // Over the end of one lock, all of another, the beginning of a third.
        bench.set(ME, 14, 30, true);
        bench.shows("w0-9 r10-11 w12-13 w14-30 r31-33 w34-35 r36-39");
        bench.set(ME, 5, END, true);
        bench.shows("w0-4 w5-");
        // The end of a lock without an end: not within that lock, but after its beginning.
        bench.set(ME, 8, END, true);
        bench.shows("w0-4 w5-7 w8-");
        bench.set(ME, 9, 9, false);
        bench.shows("w0-4 w5-7 w8-8 r9-9 w10-");
        bench.set(ME, 0, END, false);
        bench.shows("r0-");
    }

    #[test]
    fn strangers_locks_stay_and_new_ones_go_behind_them() {
        let mut bench = Bench::new();
        bench.set(YOU, 50, 59, false);
        bench.set(ME, 60, 69, false);
        bench.set(ME, 0, 9, false);
        bench.set(YOU, 0, END, false);
        bench.shows("you:r0- r0-9 r60-69");
        bench.clear(YOU, 5, 6);
        bench.shows("you:r0-4 you:r7- r0-9 r60-69");
        let wish = |owner, exclusive| Wish { owner, range: range(8, 8), exclusive };
        assert_eq!(bench.list.blocker(&wish(ME, false)), None);
        let first = bench.list.blocker(&wish(ME, true)).unwrap();
        assert_eq!((first.owner, first.range, first.exclusive), (YOU, range(7, END), false));
        assert_eq!(bench.list.blocker(&wish(YOU, true)).unwrap().owner, ME);
    }

    #[test]
    fn unlocking_cuts() {
        let mut bench = Bench::new();
        bench.set(ME, 0, END, true);
        bench.clear(ME, 10, 19);
        bench.shows("w0-9 w20-");
        bench.clear(ME, 0, 4);
        bench.clear(ME, 8, 9);
        bench.clear(ME, 30, END);
        bench.shows("w5-7 w20-29");
        bench.clear(ME, 100, END);
        bench.clear(YOU, 0, END);
        bench.clear(ME, 7, 20);
        bench.shows("w5-6 w21-29");
        bench.clear(ME, 21, 29);
        bench.clear(ME, 0, END);
        bench.shows("");
    }

    #[test]
    fn who_waits_is_woken_when_something_comes_free_and_else_inherited() {
        let mut bench = Bench::new();
        bench.set(ME, 0, 9, true);
        let queue = bench.wait(0, 0);
        // All of the lock and more is still exclusive.
        assert_eq!(bench.set(ME, 0, 19, true), 0);
        assert!(Arc::ptr_eq(&queue, &bench.wait(0, 0)) && queue.lasts());
        assert_eq!(bench.set(ME, 0, 19, false), 1);
        assert!(!queue.lasts());
        let queue = bench.wait(0, 0);
        assert!(queue.lasts());
        assert_eq!(bench.set(ME, 0, 19, true), 0);
        assert_eq!(bench.clear(ME, 5, 5), 1);
        assert!(!queue.lasts());
        // Two locks with waiters become one: the waiters of the second try again.
        let queues = [bench.wait(0, 0), bench.wait(6, 6)];
        assert_eq!(bench.set(ME, 0, END, true), 1);
        assert_eq!(queues.map(|queue| queue.lasts()), [true, false]);
    }

    #[test]
    fn bytes_keep_their_last_lock() {
        // Compare with a plain model: a kind of lock for each of 32 bytes.
        for seed in 0..200u64 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut bench, mut model) = (Bench::new(), [[None; 33]; 2]);
            for _ in 0..60 {
                let who = random.usize(..2);
                let (start, end) = (random.u64(..32), random.u64(..34));
                let (start, end) = (start.min(end), if end > 31 { END } else { start.max(end) });
                let bytes = start as usize..=end.min(32) as usize;
                let kind = [None, Some(false), Some(true)][random.usize(..3)];
                let owner = [ME, YOU][who];
                match kind {
                    Some(exclusive) => {
                        let wish = Wish { owner, range: range(start, end), exclusive };
                        let other = &model[1 - who][bytes.clone()];
                        let blocked = other.iter().flatten().any(|&other| other || exclusive);
                        assert_eq!(bench.list.blocker(&wish).is_some(), blocked);
                        if blocked {
                            continue;
                        }
                        bench.set(owner, start, end, exclusive);
                    }
                    None => _ = bench.clear(owner, start, end),
                }
                model[who][bytes].fill(kind);
                for (byte, expected) in model[who].iter().enumerate() {
                    let here = range(byte as u64, byte as u64);
                    let mine = |held: &&Held| held.owner == owner && held.range.overlaps(here);
                    let mut found = bench.list.0.iter().filter(mine).map(|held| held.exclusive);
                    assert_eq!((found.next(), found.next()), (*expected, None));
                }
            }
            let held = bench.list.0.len() as u64;
            assert_eq!(bench.resource_group.locks.get(), held);
        }
    }
}
