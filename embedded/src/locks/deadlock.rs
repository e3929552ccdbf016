//! The graph of processes that wait for locks of other processes, to detect deadlocks. Only calls that have
//! to wait for a lock touch it.
//!
//! Source: NetBSD `sys/kern/vfs_lockf.c` (`lf_setlock`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::sync::lock;
use super::super::wait::{Side, WaitQueue, Waitable};
use super::list::{Owner, Queue};

/// A chain of this many processes counts as a deadlock (`maxlockdepth`).
pub(super) const DEPTH: usize = 50;

/// The queues in which the calls of each process wait.
#[derive(Default)]
pub(in super::super) struct WaitGraph(Mutex<Graph>);

#[derive(Default)]
pub(super) struct Graph(HashMap<i32, Vec<Arc<Queue>>>);

impl WaitGraph {
    /// Locks the graph while a call begins to wait. What is found to be waiting under this lock was waiting
    /// all at once when the lock was taken: no other call begins to wait, and calls that were woken no
    /// longer count.
    pub(super) fn look(&self) -> MutexGuard<'_, Graph> {
        lock(&self.0)
    }

    /// Returns the number of processes that wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.look().0.len()
    }
}

impl Graph {
    /// Returns `true` if `pid`, by waiting for a lock of `owner`, would wait for itself.
    pub fn closes_circle(&self, pid: i32, owner: Owner) -> bool {
        let Owner::Process(mut at) = owner else { return false };
        for _ in 1..DEPTH {
            match self.next(at) {
                None => return false,
                Some(next) if next == pid => return true,
                Some(next) => at = next,
            }
        }
        true
    }

    /// Returns the process that `pid` waits for. If several of its calls wait, `pid` has several threads,
    /// and another thread may still release its locks: then returns `None`.
    fn next(&self, pid: i32) -> Option<i32> {
        let mut live = self.0.get(&pid)?.iter().filter(|queue| queue.lasts());
        match (live.next()?.owner, live.next()) {
            (Owner::Process(next), None) => Some(next),
            _ => None,
        }
    }

    /// Records that a call of `pid` begins to wait in `queue`.
    pub fn enter(&mut self, waits: &Arc<WaitGraph>, pid: i32, queue: Arc<Queue>) -> Arc<Waiting> {
        self.0.entry(pid).or_default().push(queue.clone());
        Arc::new(Waiting { waits: waits.clone(), pid, queue })
    }
}

/// A call that waits for a lock, until this is dropped.
pub(super) struct Waiting {
    waits: Arc<WaitGraph>,
    pid: i32,
    queue: Arc<Queue>,
}

impl Waitable for Waiting {
    fn queue(&self, _side: Side) -> &WaitQueue {
        &self.queue.calls
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut graph = self.waits.look();
        let Some(queues) = graph.0.get_mut(&self.pid) else { return };
        if let Some(at) = queues.iter().position(|queue| Arc::ptr_eq(queue, &self.queue)) {
            queues.swap_remove(at);
        }
        if queues.is_empty() {
            graph.0.remove(&self.pid);
        }
        if graph.0.is_empty() {
            graph.0 = HashMap::new();
        }
    }
}
