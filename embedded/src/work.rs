//! How much a run of a call may do where all clients are served.
//!
//! What runs inline ([`kernel::Call::inline`]) has to be bounded whatever clients have built. So each
//! loop whose length a client can choose counts its steps here, and there are two ways for one that gets
//! too long:
//!
//! - [`spend`], before anything has changed: the run ends, and a worker runs the call from the top.
//! - [`now_or_later`], for what has to be done in any case, as waking those who wait or freeing what a file
//!   held: what is too much is done by a worker before the call is answered.
//!
//! A worker may do both for as long as it takes; but it holds no lock meanwhile that an inline run waits for.
//! [`BATCH`] is how many steps are done under one lock at a time.

use std::cell::{Cell, RefCell};

use kernel::{Errno, Later};

/// Steps of an inline run: some tens of microseconds, if each is a cache miss or two.
pub(super) const MOST: usize = 256;

/// Steps that are done before a lock is let go of.
pub(super) const BATCH: usize = 256;

/// An inline run has found out that it may take long. No client sees this: it becomes `Stop::Elsewhere`,
/// as NetBSD's kernel has negative errors of its own.
pub(super) const ELSEWHERE: Errno = Errno(-100);

thread_local! {
    /// Whether an inline run is under way on this thread.
    static INLINE: Cell<bool> = const { Cell::new(false) };
    /// Steps it has done.
    static SPENT: Cell<usize> = const { Cell::new(0) };
    /// What it has left undone.
    static LATER: RefCell<Vec<Later>> = const { RefCell::new(Vec::new()) };
}

/// An inline run, until it is dropped.
pub(super) struct Inline(());

impl Inline {
    pub fn begin() -> Inline {
        INLINE.set(true);
        SPENT.set(0);
        #[cfg(test)]
        LOCKS.set(0);
        Inline(())
    }

    /// What it has left undone.
    pub fn take_later(&self) -> Vec<Later> {
        LATER.with_borrow_mut(std::mem::take)
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        INLINE.set(false);
        // None is left unless the run panicked.
        for work in LATER.with_borrow_mut(std::mem::take) {
            work();
        }
    }
}

/// Whether this thread runs a call inline.
pub(super) fn is_inline() -> bool {
    INLINE.get()
}

/// Counts steps that are done in any case: their number is bounded.
pub(super) fn count(steps: usize) {
    SPENT.set(SPENT.get().saturating_add(steps));
}

/// Counts steps before they are done: [`ELSEWHERE`] if they are too many for an inline run.
pub(super) fn spend(steps: usize) -> Result<(), Errno> {
    if INLINE.get() && SPENT.get().saturating_add(steps) > MOST {
        return Err(ELSEWHERE);
    }
    count(steps);
    Ok(())
}

/// Leaves a run that is inline to a worker.
pub(super) fn elsewhere() -> Result<(), Errno> {
    if INLINE.get() { Err(ELSEWHERE) } else { Ok(()) }
}

/// Whether an inline run has done as many steps as it may.
pub(super) fn is_full() -> bool {
    INLINE.get() && SPENT.get() >= MOST
}

/// Leaves something to a worker. The run is inline.
pub(super) fn later(work: impl FnOnce() + Send + 'static) {
    LATER.with_borrow_mut(|later| later.push(Box::new(work)));
}

/// Does so many steps now; or later, once the run has ended, if they are too many for an inline one.
pub(super) fn now_or_later(steps: usize, work: impl FnOnce() + Send + 'static) {
    if INLINE.get() && SPENT.get().saturating_add(steps) > MOST {
        later(work);
    } else {
        count(steps);
        work();
    }
}

/// Frees what takes so many steps to free, now or later.
pub(super) fn free<T: Send + 'static>(steps: usize, what: T) {
    now_or_later(steps, move || drop(what));
}

#[cfg(test)]
thread_local! {
    /// Locks that were taken since an inline run last began.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
}

/// A lock is taken: whoever goes through many things takes one of most.
#[cfg(test)]
pub(super) fn locked() {
    LOCKS.set(LOCKS.get() + 1);
}

/// What was done on this thread since an inline run last began: steps that were counted, and locks that were
/// taken whether anybody counted or not.
#[cfg(test)]
pub(super) fn spent() -> [usize; 2] {
    [SPENT.get(), LOCKS.get()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn an_inline_run_does_so_much_and_leaves_the_rest() {
        assert_eq!(spend(10 * MOST), Ok(()), "a worker may");
        let (few, many) = (Arc::new(()), Arc::new(()));
        let later = {
            let inline = Inline::begin();
            assert_eq!(spend(MOST), Ok(()));
            assert_eq!(spend(1), Err(ELSEWHERE));
            drop(inline);
            let inline = Inline::begin();
            free(MOST, few.clone());
            free(1, many.clone());
            assert_eq!((Arc::strong_count(&few), Arc::strong_count(&many)), (1, 2));
            inline.take_later()
        };
        assert_eq!(later.len(), 1);
        later.into_iter().for_each(|work| work());
        assert_eq!(Arc::strong_count(&many), 1);
        free(10 * MOST, few.clone());
        assert_eq!(Arc::strong_count(&few), 1, "nothing is inline any more");
    }
}
