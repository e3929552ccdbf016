//! Calls that the submission thread runs itself.
//!
//! To hand a call to a worker and its result back takes two wake-ups, of some microseconds each; most
//! calls take far less. So a call that never sleeps on its thread and whose work is bounded, which its kernel
//! says of it (see [`kernel::Kernel::runs_inline`]), is run between the events that brought it and
//! the sends that come of it. What is left when a turn's [`BUDGET`] is spent goes to the workers, so that
//! many short calls do not keep the ring waiting either.
//!
//! Calls that are woken on this thread, by the one it runs or by a timer, are run here as well.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::task::Task;

/// How long the submission thread may run calls in one turn: about what waking a worker takes.
pub const BUDGET: Duration = Duration::from_micros(50);

thread_local! {
    /// Calls woken on this thread, if it is one that runs calls itself. Each is there once at most.
    static WOKEN: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Calls woken on this thread wait for it, as long as this lives.
pub struct Inline(());

impl Inline {
    /// From here on.
    pub fn begin() -> Inline {
        WOKEN.set(Some(VecDeque::new()));
        Inline(())
    }

    /// Whether any were woken.
    pub fn has_woken() -> bool {
        WOKEN.with_borrow(|woken| woken.as_ref().is_some_and(|woken| !woken.is_empty()))
    }

    /// The next that was.
    pub fn next_woken() -> Option<Arc<Task>> {
        WOKEN.with_borrow_mut(|woken| woken.as_mut()?.pop_front())
    }

    /// Leaves a woken call to this thread, or gives it back if it is not one that runs calls.
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
        // Those left are dropped outside the borrow: their ends may wake others.
        drop(WOKEN.take());
    }
}
