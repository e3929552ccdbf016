//! Tests that try the steps of several threads, on the free list and the waker, in every order that
//! loom finds: `scripts/loom`. They are built only with `--cfg loom`.
//!
//! A model fails if an assertion fails, or if no thread can go on.

use loom::sync::{Condvar, Mutex};

use crate::{Arena, ArenaClass, ArenaConfig, CLASSES, Socket};

/// Returns a socket of no ring.
pub fn socket() -> Socket {
    Socket { index: 0, generation: 0 }
}

/// Returns an arena without a ring and without chunks: all its chunks come from the heap.
pub fn arena() -> Arena {
    let classes = [ArenaClass { capacity: 64, count: 0 }; CLASSES];
    Arena::new(&ArenaConfig { classes }).expect("a mapping of a page")
}

/// A bell that a thread sleeps for: it stays rung until somebody has slept for it, as an eventfd stays
/// readable.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    /// Ends the sleep, or the next one.
    pub fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.rings.notify_one();
    }

    /// Sleeps until the bell rings.
    pub fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.rings.wait(rung).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::thread;

    use crate::Waker;
    use crate::freelist::FreeList;

    /// A queue that hands over work as lock-free queues do: only the waker's fences order the work
    /// against the parked flag.
    #[derive(Default)]
    struct Queue {
        put: AtomicU32,
    }

    impl Queue {
        fn put(&self) {
            self.put.fetch_add(1, Ordering::Release);
        }

        /// Returns how many have been put, as far as this thread sees.
        fn seen(&self) -> u32 {
            self.put.load(Ordering::Acquire)
        }
    }

    /// Parks and sleeps as `Ring::wait` does, until `much` has come.
    fn wait_for(waker: &Waker, queue: &Queue, much: u32) {
        while queue.seen() < much {
            waker.park();
            if queue.seen() < much {
                waker.sleep();
            }
            waker.unpark();
        }
    }

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let waker = Waker::new().expect("an eventfd");
            let queue = Arc::new(Queue::default());
            let (other, its_queue) = (waker.clone(), queue.clone());
            let waking = thread::spawn(move || {
                its_queue.put();
                other.wake();
            });
            wait_for(&waker, &queue, 1);
            waking.join().unwrap();
        });
    }

    #[test]
    fn one_of_two_wakers_is_enough() {
        loom::model(|| {
            let waker = Waker::new().expect("an eventfd");
            let queue = Arc::new(Queue::default());
            let waking = [0, 1].map(|_| {
                let (waker, queue) = (waker.clone(), queue.clone());
                thread::spawn(move || {
                    queue.put();
                    waker.wake();
                })
            });
            wait_for(&waker, &queue, 2);
            for thread in waking {
                thread.join().unwrap();
            }
        });
    }

    /// Has two threads take and give back indices; each index has one holder at a time.
    #[test]
    fn an_index_is_taken_by_one() {
        loom::model(|| {
            let list = Arc::new(FreeList::new(2));
            let holders = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            let take = move |list: &FreeList| {
                let index = list.take()?;
                let before = holders[index as usize].swap(1, Ordering::Relaxed);
                assert_eq!(before, 0, "taken twice");
                Some((index, holders.clone()))
            };
            let give = |list: &FreeList, (index, holders): (u32, Arc<[AtomicU32; 2]>)| {
                holders[index as usize].store(0, Ordering::Relaxed);
                list.give(index);
            };
            let both = [take(&list), take(&list)];
            both.into_iter().flatten().for_each(|taken| give(&list, taken));
            let (its_list, its_take) = (list.clone(), take.clone());
            let other = thread::spawn(move || {
                let first = its_take(&its_list).expect("no more than two are taken");
                let second = its_take(&its_list);
                give(&its_list, first);
                second.into_iter().for_each(|taken| give(&its_list, taken));
            });
            let mine = take(&list);
            mine.into_iter().for_each(|taken| give(&list, taken));
            other.join().unwrap();
            assert!(take(&list).is_some() && take(&list).is_some(), "both are back");
            assert!(take(&list).is_none(), "there are no more");
        });
    }
}
