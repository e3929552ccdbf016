//! The bound on the work of an inline run, a run on the thread that serves all clients.
//!
//! An inline run ([`kernel::Call::inline`]) has to be bounded whatever clients have built. So each loop
//! whose length a client can choose counts its steps here. A run that gets too long has two ways out:
//!
//! - [`spend`], before anything has changed: the run ends, and a worker runs the call from the top.
//! - [`now_or_later`], for work that has to be done in any case, such as waking waiters or freeing the
//!   contents of a file: a worker does the excess before the call is answered.
//!
//! A worker may do both for as long as it takes, but meanwhile holds no lock that an inline run waits for.
//! [`BATCH`] is the number of steps done under one lock at a time.

use std::cell::{Cell, RefCell};

use kernel::{Errno, Later};

/// The most steps of an inline run: some tens of microseconds, if each is a cache miss or two.
pub(super) const MOST: usize = 256;

/// The most steps between taking a lock and releasing it.
pub(super) const BATCH: usize = 256;

/// The error of an inline run that may take long. No client sees it: it becomes `Stop::Elsewhere`, as
/// NetBSD's kernel has negative errors of its own.
pub(super) const ELSEWHERE: Errno = Errno(-100);

thread_local! {
    /// True while an inline run is under way on this thread.
    static INLINE: Cell<bool> = const { Cell::new(false) };
    /// The steps the run has done.
    static SPENT: Cell<usize> = const { Cell::new(0) };
    /// The work that the run has left to a worker.
    static LATER: RefCell<Vec<Later>> = const { RefCell::new(Vec::new()) };
}

/// An inline run, until this is dropped.
pub(super) struct Inline(());

impl Inline {
    pub fn begin() -> Inline {
        INLINE.set(true);
        SPENT.set(0);
        #[cfg(test)]
        LOCKS.set(0);
        Inline(())
    }

    /// Takes the work that the run has left to a worker.
    pub fn take_later(&self) -> Vec<Later> {
        LATER.with_borrow_mut(std::mem::take)
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        INLINE.set(false);
        // No work is left unless the run panicked.
        for work in LATER.with_borrow_mut(std::mem::take) {
            work();
        }
    }
}

/// Returns `true` if this thread runs a call inline.
pub(super) fn is_inline() -> bool {
    INLINE.get()
}

/// Counts steps that are done in any case, as their number is bounded.
pub(super) fn count(steps: usize) {
    SPENT.set(SPENT.get().saturating_add(steps));
}

/// Counts steps before they are done. Returns [`ELSEWHERE`] if they are too many for an inline run.
pub(super) fn spend(steps: usize) -> Result<(), Errno> {
    if INLINE.get() && SPENT.get().saturating_add(steps) > MOST {
        return Err(ELSEWHERE);
    }
    count(steps);
    Ok(())
}

/// Returns [`ELSEWHERE`] in an inline run, so that a worker runs the call.
pub(super) fn elsewhere() -> Result<(), Errno> {
    if INLINE.get() { Err(ELSEWHERE) } else { Ok(()) }
}

/// Returns `true` if an inline run has done as many steps as it may.
pub(super) fn is_full() -> bool {
    INLINE.get() && SPENT.get() >= MOST
}

/// Leaves work of an inline run to a worker.
pub(super) fn later(work: impl FnOnce() + Send + 'static) {
    LATER.with_borrow_mut(|later| later.push(Box::new(work)));
}

/// Runs `work`, of so many steps, now; or, if those are too many for an inline run, later on a worker.
pub(super) fn now_or_later(steps: usize, work: impl FnOnce() + Send + 'static) {
    if INLINE.get() && SPENT.get().saturating_add(steps) > MOST {
        later(work);
    } else {
        count(steps);
        work();
    }
}

/// Frees `what`, which takes so many steps, now or later.
pub(super) fn free<T: Send + 'static>(steps: usize, what: T) {
    now_or_later(steps, move || drop(what));
}

#[cfg(test)]
thread_local! {
    /// The locks taken since an inline run last began.
    static LOCKS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a lock: most loops over many things take one for each.
#[cfg(test)]
pub(super) fn locked() {
    LOCKS.set(LOCKS.get() + 1);
}

/// Returns what was done on this thread since an inline run last began: the steps counted, and the locks
/// taken, whether counted as steps or not.
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
