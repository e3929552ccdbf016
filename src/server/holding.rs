//! The memory that one call holds of its client's answers, as the client's [`ClientQuota`] counts it.
//!
//! A call counts what it is going to ask for before the client is asked, so the memory for answers is
//! bounded at every moment. At the bound, a call releases what it holds, waits until others have released
//! theirs, and asks again. One call of a client at a time goes over the bound and keeps what it has. That
//! call ends, falls asleep, or waits for nobody but its client. So the next call gets its turn, and no
//! call waits for ever on a client that answers.

use std::sync::Arc;

use super::quota::ClientQuota;
use rumpsp::session::CopyRequest;

/// The cost of each answer besides its bytes.
pub const ANSWER_COST: usize = 64;

/// Returns the number of bytes that the answer counts for.
pub fn answer_cost(ask: &CopyRequest) -> usize {
    match *ask {
        CopyRequest::Copyin { len, .. } | CopyRequest::Copyinstr { len, .. } => len + ANSWER_COST,
        CopyRequest::Anonmmap { .. } => 8 + ANSWER_COST,
    }
}

/// The memory that a call holds, in bytes. Dropping it releases the memory.
#[derive(Default)]
pub struct Holding {
    /// The quota of the client that made the call.
    quota: Option<Arc<ClientQuota>>,
    /// The memory that is taken now.
    kept: usize,
    /// The bytes that are counted as asked (`asked`) and as held while the call lasts (`resting`).
    asked: usize,
    resting: usize,
    /// The part of `asked` that the client has not been asked for yet: the call had to release it, and
    /// wants it again.
    again: usize,
    /// True if this is the call that may go over the bound.
    goes_over: bool,
}

impl Holding {
    /// Begins a call of this client.
    pub fn begin(&mut self, quota: &Arc<ClientQuota>) {
        self.end();
        self.quota = Some(quota.clone());
    }

    /// Returns the client's use of the shared resources.
    pub fn quota(&self) -> Option<&Arc<ClientQuota>> {
        self.quota.as_ref()
    }

    /// Counts what the client is to be asked for, and returns `true`, if the client may be asked. A call
    /// that holds nothing has to wait if other calls wait.
    pub fn ask(&mut self, bytes: usize, others_wait: bool) -> bool {
        let Some(quota) = &self.quota else {
            return true;
        };
        if bytes <= self.again {
            self.again -= bytes;
            return true;
        }
        let holds = self.asked + self.resting > 0;
        if !self.goes_over && (holds || !others_wait) && quota.ask(bytes) {
            self.asked += bytes;
            return true;
        }
        self.goes_over = self.goes_over || holds && quota.go_over();
        if self.goes_over {
            quota.ask_over(bytes);
            self.asked += bytes;
        }
        self.goes_over
    }

    /// Counts what the call has released and will ask for again. Returns `true` if there is room for all
    /// of it, or if no other call goes over the bound.
    pub fn ask_again(&mut self, bytes: usize) -> bool {
        let Some(quota) = &self.quota else {
            return true;
        };
        if quota.ask(bytes) {
            self.asked += bytes;
            self.again = bytes;
            return true;
        }
        self.goes_over = quota.go_over();
        self.goes_over
    }

    /// Returns the bytes that are counted as asked or resting.
    pub fn counted(&self) -> usize {
        self.asked + self.resting
    }

    /// Notes that the core has counted what a call asked for that waits on its thread.
    pub fn was_asked(&mut self, bytes: usize) {
        self.asked += bytes;
    }

    /// Sets the memory that is taken now.
    pub fn set_kept(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.kept, bytes);
        let Some(quota) = &self.quota else {
            return;
        };
        if bytes > before {
            quota.keep(bytes - before);
        } else if bytes < before {
            quota.let_go(before - bytes);
        }
    }

    /// Returns the memory that is taken now.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Prepares for the call's sleep. Returns `true` if the call may keep what it holds.
    pub fn fall_asleep(&mut self) -> bool {
        let bytes = self.asked;
        if bytes == 0 {
            return true;
        }
        if !self.quota.as_ref().is_some_and(|quota| quota.rest(bytes)) {
            return false;
        }
        self.end_asked();
        self.resting += bytes;
        true
    }

    /// Counts `bytes` as held while the call lasts, and returns `true`, if there is room for them.
    pub fn rest(&mut self, bytes: usize) -> bool {
        if bytes <= self.resting {
            return true;
        }
        let more = bytes - self.resting;
        let may = self.quota.as_ref().is_some_and(|quota| quota.rest(more));
        if may {
            self.resting = bytes;
        }
        may
    }

    /// Notes that the call has released what it asked for, except what it holds while it lasts.
    pub fn end_asked(&mut self) {
        let Some(quota) = &self.quota else {
            return;
        };
        self.again = 0;
        let asked = std::mem::take(&mut self.asked);
        if asked > 0 {
            quota.asked_less(asked);
        }
        if std::mem::take(&mut self.goes_over) {
            quota.end_over();
        }
    }

    /// Releases everything.
    pub fn let_go(&mut self) {
        self.set_kept(0);
        self.end_asked();
        let resting = std::mem::take(&mut self.resting);
        if resting > 0
            && let Some(quota) = &self.quota
        {
            quota.rest_less(resting);
        }
    }

    /// Ends the call.
    pub fn end(&mut self) {
        self.let_go();
        self.quota = None;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::Limits;
    use crate::server::quota::GlobalQuota;

    fn two(kept: usize) -> (Holding, Holding, Arc<ClientQuota>) {
        let all = Arc::new(GlobalQuota::new(&Limits { copyin_cache: kept, ..Limits::default() }));
        let quota = Arc::new(ClientQuota::new(all));
        let (mut one, mut other) = (Holding::default(), Holding::default());
        one.begin(&quota);
        other.begin(&quota);
        (one, other, quota)
    }

    #[test]
    fn of_two_calls_at_the_bound_one_goes_over_it() {
        let (mut one, mut other, quota) = two(200);
        assert!(one.ask(50, false) && other.ask(50, false));
        assert!(one.ask(50, false), "it goes over the bound");
        assert!(one.ask(50, true), "as far as it likes");
        assert!(!other.ask(50, false), "one at a time");
        other.let_go();
        assert!(!other.ask(50, false), "nor from the start");
        one.let_go();
        assert!(other.ask_again(90) && other.ask(50, true) && other.ask(40, true));
        assert!(!one.ask_again(20) || one.goes_over, "only beyond the bound");
        one.let_go();
        assert!(!one.ask(50, true), "others came first");
        drop((one, other));
        assert!(quota.ask(1000) && quota.go_over(), "all is given back");
    }

    #[test]
    fn a_sleeper_holds_on_to_what_there_is_room_for() {
        let (mut one, mut other, quota) = two(200);
        assert!(one.ask(80, false));
        one.set_kept(90);
        assert!(one.fall_asleep());
        assert!(other.ask(80, false), "a sleeper is in nobody's way");
        assert!(!other.fall_asleep());
        other.let_go();
        assert_eq!(quota.kept(), 90);
        one.let_go();
        assert_eq!(quota.kept(), 0);
        assert!(quota.rest(100));
    }

    #[test]
    fn what_lasts_is_counted_once() {
        let (mut one, mut other, _) = two(200);
        assert!(one.rest(60) && one.rest(60) && one.rest(40));
        assert!(other.rest(40) && !other.rest(41));
        one.let_go();
        assert!(other.rest(100));
    }
}
