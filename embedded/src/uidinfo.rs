//! Counts by user: processes by real uid, and bytes of socket buffers by the effective uid of the process
//! that made the socket (`struct uidinfo`).
//!
//! Source: NetBSD `sys/kern/kern_uidinfo.c`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sync::lock;

const SHARDS: usize = 64;

/// Counts by user. The superuser's, which most processes begin as, takes no lock.
pub(super) struct UidTable {
    root: AtomicU64,
    others: Vec<Mutex<HashMap<u32, u64>>>,
}

impl UidTable {
    pub fn new() -> Self {
        let others = (0..SHARDS).map(|_| Mutex::default()).collect();
        UidTable { root: AtomicU64::new(0), others }
    }

    fn shard(&self, uid: u32) -> &Mutex<HashMap<u32, u64>> {
        &self.others[uid as usize % SHARDS]
    }

    /// Adds one, and returns the new count. NetBSD: `chgproccnt`.
    pub fn add(&self, uid: u32) -> u64 {
        if uid == 0 {
            return self.root.fetch_add(1, Relaxed) + 1;
        }
        let mut shard = lock(self.shard(uid));
        let count = shard.entry(uid).or_default();
        *count += 1;
        *count
    }

    /// Subtracts one.
    pub fn remove(&self, uid: u32) {
        self.give(uid, 1);
    }

    /// Adds `n`, and returns `true`, unless the count would exceed `most`. NetBSD: `chgsbsize`.
    pub fn take(&self, uid: u32, n: u64, most: u64) -> bool {
        let more = |now: u64| now.checked_add(n).filter(|&then| then <= most);
        if uid == 0 {
            return self.root.fetch_update(Relaxed, Relaxed, more).is_ok();
        }
        let mut shard = lock(self.shard(uid));
        let then = more(shard.get(&uid).copied().unwrap_or(0));
        then.is_some_and(|then| {
            shard.insert(uid, then);
            true
        })
    }

    /// Subtracts `n`.
    pub fn give(&self, uid: u32, n: u64) {
        if uid == 0 {
            self.root.fetch_sub(n, Relaxed);
            return;
        }
        let mut shard = lock(self.shard(uid));
        if let Some(count) = shard.get_mut(&uid) {
            debug_assert!(*count >= n, "gave back more than was taken");
            *count -= n;
            if *count == 0 {
                shard.remove(&uid);
            }
        }
    }

    /// Moves one process from one user to another.
    pub fn moved(&self, from: u32, to: u32) {
        if from != to {
            self.remove(from);
            self.add(to);
        }
    }

    /// Returns the count of a user.
    pub fn count(&self, uid: u32) -> u64 {
        match uid {
            0 => self.root.load(Relaxed),
            _ => lock(self.shard(uid)).get(&uid).copied().unwrap_or(0),
        }
    }
}
