//! A system call as its family lists it: its number, where it may run, and its function.

use kernel::Args;

use super::call::{Answer, SyscallContext};

/// The function of a system call.
pub(super) type Body = fn(&mut SyscallContext<'_, '_>) -> Answer;

/// The thread a call may run on.
#[derive(Clone, Copy)]
pub(super) enum Runs {
    /// The submission thread, which serves all clients: the call's work is bounded whatever clients have
    /// built, or the call finds out in time that it is not (see [`super::work`]).
    Inline,
    /// The submission thread, if the function returns `true` for the arguments; otherwise a worker.
    InlineIf(fn(&Args) -> bool),
    /// A worker: the call may take long, and may hold locks that no inline call waits for.
    OnWorker,
}

/// A call as its family lists it.
pub(super) struct Listed {
    pub number: i32,
    pub runs: Runs,
    pub run: Body,
    /// The missing parts in words, or an empty string.
    pub missing: &'static str,
}

/// Returns a call that is completely implemented.
pub(super) const fn call(number: i32, runs: Runs, run: Body) -> Listed {
    Listed { number, runs, run, missing: "" }
}

/// Returns a call that is partly implemented.
pub(super) const fn partly(number: i32, runs: Runs, run: Body, missing: &'static str) -> Listed {
    Listed { number, runs, run, missing }
}
