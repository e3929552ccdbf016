//! Wait queues: calls that wait run again when something has changed.
//!
//! A call that cannot go on registers its waker, checks its condition once more, and ends its run. Code
//! that changes the condition does so under the object's own lock and then wakes the queue, so one of the
//! two sees the other. A registration lasts until it is woken or dropped: it is dropped when the call runs
//! again or ends, so a queue holds no waker of a call that does not wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::call::{Result, SyscallContext};
use super::limits::ResourceGroup;
use super::sync::lock;
use super::work;
use kernel::Errno;

/// Something that calls wait for, with a queue for each side of it.
pub(super) trait Waitable: Send + Sync {
    fn queue(&self, side: Side) -> &WaitQueue;
}

/// The side of an object that a call waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The call waits for something to take.
    Read,
    /// The call waits for room to put something.
    Write,
}

/// The calls waiting for one thing. An empty queue costs no heap.
#[derive(Default)]
pub(super) struct WaitQueue {
    /// The number of waiting calls, with which an empty queue is woken without its lock.
    waiting: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// The number of times the slots were emptied: a registration of an earlier round is spent.
    round: u32,
    /// The first free slot plus one, or 0.
    free: u32,
    slots: Vec<Slot>,
}

enum Slot {
    Waiting(Waker),
    /// The next free slot plus one, or 0.
    Free(u32),
}

impl WaitQueue {
    /// Wakes every call that waits, in no particular order, and empties the queue. Call it without
    /// any lock held.
    pub fn wake(&self) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let woken = {
            let mut slots = lock(&self.slots);
            self.waiting.store(0, Ordering::Release);
            slots.clear()
        };
        // There may be as many as all clients have calls: a worker wakes those beyond the bound later.
        let mut left = woken.into_iter();
        while let Some(slot) = left.next() {
            if work::is_full() {
                return work::later(move || wake_all(Some(slot).into_iter().chain(left)));
            }
            work::count(4);
            wake_all([slot]);
        }
    }

    /// Returns the number of waiting calls.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn enter(&self, waker: &Waker) -> (u32, u32) {
        let mut slots = lock(&self.slots);
        let slot = Slot::Waiting(waker.clone());
        let key = match slots.free {
            0 => {
                // Most queues have one waiter: make room for one, not for the four a vector begins with.
                if slots.slots.is_empty() {
                    slots.slots.reserve_exact(1);
                }
                slots.slots.push(slot);
                slots.slots.len() as u32 - 1
            }
            free => {
                let key = free - 1;
                let was = std::mem::replace(&mut slots.slots[key as usize], slot);
                if let Slot::Free(next) = was {
                    slots.free = next;
                }
                key
            }
        };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        (slots.round, key)
    }

    fn leave(&self, round: u32, key: u32) {
        let mut slots = lock(&self.slots);
        if slots.round != round {
            return;
        }
        // The slot's waker is dropped once the lock is free again.
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            let left = slots.clear();
            drop(slots);
            work::free(left.len() / 16, left);
        } else {
            let free = Slot::Free(std::mem::replace(&mut slots.free, key + 1));
            let left = std::mem::replace(&mut slots.slots[key as usize], free);
            drop(slots);
            drop(left);
        }
    }
}

fn wake_all(slots: impl IntoIterator<Item = Slot>) {
    for slot in slots {
        if let Slot::Waiting(waker) = slot {
            waker.wake();
        }
    }
}

impl Slots {
    fn clear(&mut self) -> Vec<Slot> {
        self.round = self.round.wrapping_add(1);
        self.free = 0;
        std::mem::take(&mut self.slots)
    }
}

/// A call's place in a queue. Dropping it leaves the queue.
pub(super) struct Registration {
    source: Arc<dyn Waitable>,
    side: Side,
    round: u32,
    key: u32,
}

impl Registration {
    /// Puts `waker` into the queue of `source`. Check the condition again after this.
    pub fn new(source: Arc<dyn Waitable>, side: Side, waker: &Waker) -> Self {
        let (round, key) = source.queue(side).enter(waker);
        Registration { source, side, round, key }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.source.queue(self.side).leave(self.round, self.key);
    }
}

/// The places that every call may have without paying, and the bytes each further one is charged: here, and
/// in its queue.
pub(super) const FREE_PLACES: usize = 64;
const PLACE_BYTES: u64 = (size_of::<Registration>() + size_of::<Slot>()) as u64;

/// The payment for the many places of one call, by its family: a client may have very many waiting calls.
pub(super) struct Places {
    resource_group: Arc<ResourceGroup>,
    bytes: u64,
}

impl Places {
    /// Returns a payment for no places.
    pub fn none(resource_group: &Arc<ResourceGroup>) -> Box<Places> {
        Box::new(Places { resource_group: resource_group.clone(), bytes: 0 })
    }

    /// Pays for up to `count` places. ENOMEM if the family cannot pay.
    pub fn pay(&mut self, count: usize) -> Result<(), Errno> {
        let more = (count as u64 * PLACE_BYTES).saturating_sub(self.bytes);
        if !self.resource_group.take_bytes(more) {
            return Err(Errno::ENOMEM);
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.resource_group.give_bytes(self.bytes);
    }
}

impl SyscallContext<'_, '_> {
    /// Returns the deadline of a call that waits for at most `timeout`, seconds and nanoseconds; `None`
    /// without a timeout. The time runs from the first run that asks. NetBSD: `inittimeleft`.
    pub fn deadline(&mut self, timeout: Option<(i64, i64)>) -> Result<Option<Instant>> {
        let Some((seconds, nanos)) = timeout else { return Ok(None) };
        let (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) =
            (u64::try_from(seconds), u32::try_from(nanos))
        else {
            return Err(Errno::EINVAL.into());
        };
        let deadline = &mut self.call.progress.deadline;
        if deadline.is_none() {
            // A time beyond the range of the clock never comes.
            *deadline = Instant::now().checked_add(Duration::new(seconds, nanos));
        }
        Ok(*deadline)
    }
}

/// Returns `true` if the deadline has passed.
pub(super) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Pair([WaitQueue; 2]);

    impl Waitable for Pair {
        fn queue(&self, side: Side) -> &WaitQueue {
            &self.0[side as usize]
        }
    }

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_registration_is_woken_once_and_leaves_when_dropped() {
        let pair = Arc::new(Pair::default());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let first = Registration::new(pair.clone(), Side::Read, &waker);
        let second = Registration::new(pair.clone(), Side::Read, &waker);
        drop(first);
        assert_eq!(pair.queue(Side::Read).len(), 1);
        let third = Registration::new(pair.clone(), Side::Read, &waker);
        pair.queue(Side::Write).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        pair.queue(Side::Read).wake();
        pair.queue(Side::Read).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        // A new round: dropping the old registrations removes nothing from it.
        let fourth = Registration::new(pair.clone(), Side::Read, &waker);
        drop((second, third));
        assert_eq!(pair.queue(Side::Read).len(), 1);
        drop(fourth);
        assert_eq!(pair.queue(Side::Read).len(), 0);
        assert!(lock(&pair.0[0].slots).slots.is_empty());
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_place_costs_48_bytes() {
        assert_eq!(size_of::<Registration>(), 32);
        assert_eq!(size_of::<Slot>(), 16);
    }

    #[test]
    fn leaving_costs_the_same_in_a_long_queue() {
        let pair = Arc::new(Pair::default());
        let waker = Waker::noop();
        let all: Vec<_> =
            (0..50_000).map(|_| Registration::new(pair.clone(), Side::Read, waker)).collect();
        assert_eq!(pair.queue(Side::Read).len(), 50_000);
        drop(all);
        assert_eq!(pair.queue(Side::Read).len(), 0);
    }
}
