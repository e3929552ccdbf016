//! How much the embedded kernel may hold, and how much it holds: every process, open file, inode
//! and stored byte is counted here when it is made and when it goes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bounds on what clients together may make the kernel hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors of one process, `RLIMIT_NOFILE`: past it EMFILE.
    pub files_per_process: usize,
    /// Open files of all processes together, `kern.maxfiles`: past it ENFILE.
    pub files: u64,
    /// Files, directories and bound local sockets in the file system: past it ENOSPC.
    pub inodes: u64,
    /// Bytes of file contents: past it ENOSPC.
    pub bytes: u64,
    /// Processes, preforked ones included, `kern.maxproc`: past it EPROCLIM.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            files_per_process: 1024,
            files: 1 << 20,
            inodes: 1 << 18,
            bytes: 1 << 30,
            processes: 200_000,
        }
    }
}

/// What the embedded kernel holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes, preforked ones included.
    pub processes: u64,
    /// Open files: what descriptors point to, however many do.
    pub files: u64,
    /// Files, directories and devices of the file system, unlinked but open ones included.
    pub inodes: u64,
    /// Bytes that hold the contents of files.
    pub bytes: u64,
    /// Ports that sockets are bound to.
    pub ports: u64,
}

/// The counters behind [`Usage`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub processes: Counter,
    pub files: Counter,
    pub inodes: Counter,
    pub bytes: Counter,
    pub ports: Counter,
}

/// A count that never passes the bound it is raised against.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, unless that would pass `limit`.
    pub fn take(&self, n: u64, limit: u64) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |now| now.checked_add(n).filter(|&then| then <= limit))
            .is_ok()
    }

    /// Gives back `n` of what was taken.
    pub fn give(&self, n: u64) {
        let before = self.0.fetch_sub(n, Relaxed);
        debug_assert!(before >= n, "gave back more than was taken");
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
