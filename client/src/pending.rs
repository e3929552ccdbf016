//! A call in flight, to be finished later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::CallResult;
use super::link::{Asked, Link};
use super::patience::Patience;

/// A call that was begun.
///
/// Calls may be finished in any order, on any thread. Dropping a `Pending` leaves the call running in
/// the kernel; its answer is dropped when it comes.
#[must_use = "dropping it drops the call's answer"]
pub struct Pending {
    link: Arc<Link>,
    asked: Asked,
    result: Option<CallResult>,
}

impl Pending {
    pub(super) fn new(link: Arc<Link>, asked: Asked) -> Pending {
        Pending { link, asked, result: None }
    }

    /// Returns the number of the request on the wire.
    pub fn id(&self) -> u64 {
        self.asked.reqno
    }

    /// Waits for the call's end, however long it takes.
    pub fn finish(mut self) -> CallResult {
        self.end(Patience::Forever).expect("patience without end")
    }

    /// Waits for the call's end, at most for `timeout`; returns `None` if the call still runs then. The
    /// result stays here: a further call returns it again.
    pub fn finish_timeout(&mut self, timeout: Duration) -> Option<CallResult> {
        self.end(Patience::from_timeout(Some(timeout)))
    }

    /// Returns the call's result, if it is here or in the socket. Does not wait.
    pub fn try_finish(&mut self) -> Option<CallResult> {
        self.end(Patience::None)
    }

    pub(super) fn end(&mut self, patience: Patience) -> Option<CallResult> {
        if self.result.is_none() {
            self.result = self.link.wait(self.asked, patience).map(super::link::call);
        }
        self.result.clone()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.result.is_none() {
            self.link.forget(self.asked.reqno);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("id", &self.id()).field("result", &self.result).finish()
    }
}
