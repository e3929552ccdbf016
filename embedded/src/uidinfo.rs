//! How much of something each user has: processes by real uid, bytes of socket buffers by the effective
//! uid of who made the socket (`struct uidinfo`).
//!
//! Source: NetBSD `sys/kern/kern_uidinfo.c`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sync::lock;

const SHARDS: usize = 64;

/// The counts. The superuser's, which most processes begin as, takes no lock.
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

    /// One more, and how many there are then. NetBSD: `chgproccnt`.
    pub fn add(&self, uid: u32) -> u64 {
        if uid == 0 {
            return self.root.fetch_add(1, Relaxed) + 1;
        }
        let mut shard = lock(self.shard(uid));
        let count = shard.entry(uid).or_default();
        *count += 1;
        *count
    }

    /// One less.
    pub fn remove(&self, uid: u32) {
        self.give(uid, 1);
    }

    /// `n` more, unless that would be more than `most`. NetBSD: `chgsbsize`.
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

    /// `n` less.
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

    /// A process changes hands.
    pub fn moved(&self, from: u32, to: u32) {
        if from != to {
            self.remove(from);
            self.add(to);
        }
    }

    /// How much a user has.
    pub fn count(&self, uid: u32) -> u64 {
        match uid {
            0 => self.root.load(Relaxed),
            _ => lock(self.shard(uid)).get(&uid).copied().unwrap_or(0),
        }
    }
}
