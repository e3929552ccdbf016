//! The calls that the submission thread runs itself ("inline calls").
//!
//! Handing a call to a worker and its result back takes two wake-ups of some microseconds each, while
//! most calls take far less. So the submission thread runs a call itself, between the events that brought
//! it and the sends that follow, if the kernel says that the call never sleeps on its thread and that its
//! work is bounded (see [`kernel::Kernel::runs_inline`]). The calls that are left when a turn's
//! [`BUDGET`] is spent go to the workers, so that many short calls do not keep the ring waiting either.
//!
//! Calls that wake up on this thread, through an inline call or a timer, are run here as well.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::task::Task;

/// The time that the submission thread may run calls in one turn: about as long as waking a worker takes.
pub const BUDGET: Duration = Duration::from_micros(50);

thread_local! {
    /// The calls woken on this thread, or `None` if it runs no calls. Each call is in the queue at most
    /// once.
    static WOKEN: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// A guard: while it lives, the calls woken on this thread are queued for this thread.
pub struct Inline(());

impl Inline {
    /// Begins to queue woken calls on this thread.
    pub fn begin() -> Inline {
        WOKEN.set(Some(VecDeque::new()));
        Inline(())
    }

    /// Returns `true` if any calls have been woken.
    pub fn has_woken() -> bool {
        WOKEN.with_borrow(|woken| woken.as_ref().is_some_and(|woken| !woken.is_empty()))
    }

    /// Returns the next woken call.
    pub fn next_woken() -> Option<Arc<Task>> {
        WOKEN.with_borrow_mut(|woken| woken.as_mut()?.pop_front())
    }

    /// Queues a woken call for this thread, or returns it if this thread runs no calls.
    pub fn wake(task: Arc<Task>) -> Option<Arc<Task>> {
        WOKEN.with_borrow_mut(|woken| match woken {
            Some(woken) => {
                woken.push_back(task);
                None
            }
            None => Some(task),
        })
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        // The calls that are left are dropped outside of the borrow, because their ends may wake others.
        drop(WOKEN.take());
    }
}
