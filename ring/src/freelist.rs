//! A free list of indices that any thread may take from and give to, without locks.
//!
//! This is a Treiber stack whose links are an array beside the things they stand for. Its head carries
//! a tag that changes with every exchange, so a head that a thread read before others took and gave
//! back the same index is not mistaken for the present head (the ABA problem). Indices never handed out
//! yet are not in the list: a counter says how many have been handed out, so that memory nobody needed
//! is never touched.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A free list: see the module's documentation.
pub(crate) struct FreeList {
    /// A tag in the upper half, the first free index plus one in the lower; 0 ends the list.
    head: AtomicU64,
    /// For each free index, the one below it in the stack, plus one.
    next: Box<[AtomicU32]>,
    /// The first index that has never been taken. It may run past the end, by at most one per thread.
    fresh: AtomicU32,
}

impl FreeList {
    /// Makes a list in which all of `0..count` is free.
    pub fn new(count: u32) -> FreeList {
        let next = (0..count).map(|_| AtomicU32::new(0)).collect();
        FreeList { head: AtomicU64::new(0), next, fresh: AtomicU32::new(0) }
    }

    /// Takes a free index: the one given back last, or a fresh one.
    pub fn take(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        while head as u32 != 0 {
            let index = head as u32 - 1;
            let below = self.next[index as usize].load(Ordering::Relaxed);
            let taken = retag(head, below);
            match self.head.compare_exchange_weak(head, taken, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
        self.take_fresh()
    }

    fn take_fresh(&self) -> Option<u32> {
        let count = self.next.len() as u32;
        if self.fresh.load(Ordering::Relaxed) >= count {
            return None;
        }
        let index = self.fresh.fetch_add(1, Ordering::Relaxed);
        (index < count).then_some(index)
    }

    /// Gives back an index that was taken.
    pub fn give(&self, index: u32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[index as usize].store(head as u32, Ordering::Relaxed);
            let given = retag(head, index + 1);
            match self.head.compare_exchange_weak(head, given, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// Returns a head with a new tag that points to `first`.
fn retag(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_index_once() {
        let list = FreeList::new(3);
        assert_eq!(
            (0..4).map(|_| list.take()).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), None]
        );
        list.give(1);
        list.give(0);
        assert_eq!((0..3).map(|_| list.take()).collect::<Vec<_>>(), [Some(0), Some(1), None]);
        assert_eq!(FreeList::new(0).take(), None);
    }

    #[test]
    fn threads_never_share_an_index() {
        let list = FreeList::new(5);
        let taken: Vec<AtomicU32> = (0..5).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(index) = list.take() {
                            assert_eq!(taken[index as usize].swap(1, Ordering::Relaxed), 0);
                            taken[index as usize].store(0, Ordering::Relaxed);
                            list.give(index);
                        }
                    }
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| list.take()).count(), 5);
    }
}
