//! How much the embedded kernel may hold, and how much it holds: every process, open file, inode
//! and stored byte is counted here when it is made and when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bounds on what clients may make the kernel hold, all together and each family by itself. A family is
/// a client that came from nowhere, and all that were forked from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors of one process, `RLIMIT_NOFILE`: past it EMFILE.
    pub files_per_process: usize,
    /// Open files of all processes together, `kern.maxfiles`: past it ENFILE.
    pub files: u64,
    /// Files, directories and bound local sockets in the file system: past it ENOSPC.
    pub inodes: u64,
    /// Bytes of file contents and in pipes: past it ENOSPC for a file and ENOMEM for a new pipe; a pipe
    /// that there is holds less then.
    pub bytes: u64,
    /// The same of one family: what its pipes and the files it made hold, whoever wrote it. Files that
    /// outlive their family count against [`Limits::bytes`] only.
    pub bytes_per_family: u64,
    /// Processes, preforked ones included, `kern.maxproc`: past it EAGAIN.
    pub processes: u64,
    /// The same of one family.
    pub processes_per_family: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            files_per_process: 1024,
            files: 1 << 20,
            inodes: 1 << 18,
            bytes: 1 << 30,
            bytes_per_family: 1 << 28,
            processes: 200_000,
            processes_per_family: 1024,
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
    /// Bytes that hold the contents of files, and those in pipes.
    pub bytes: u64,
    /// Ports that sockets are bound to.
    pub ports: u64,
}

/// The counters behind [`Usage`], and their bounds.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub limits: Limits,
    pub processes: Counter,
    pub files: Counter,
    pub inodes: Counter,
    pub bytes: Counter,
    pub ports: Counter,
    /// Pipes that hold more than others.
    pub large_pipes: Counter,
}

impl Counters {
    pub fn new(limits: Limits) -> Self {
        Counters { limits, ..Counters::default() }
    }
}

/// Who pays for processes and bytes: a family, and with it the system. Whatever it has paid for keeps
/// it, so nothing is given back to a stranger.
#[derive(Debug)]
pub(super) struct Family {
    pub system: Arc<Counters>,
    processes: Counter,
    bytes: Counter,
    /// How many bytes it may have of those there are.
    most_bytes: AtomicU64,
    /// Locks on files.
    pub locks: Counter,
}

impl Family {
    pub fn new(system: &Arc<Counters>) -> Arc<Family> {
        Family::with(system, system.limits.bytes_per_family)
    }

    /// What is made before there are clients: for itself it has no bound until it is settled.
    pub fn of_the_system(system: &Arc<Counters>) -> Arc<Family> {
        Family::with(system, u64::MAX)
    }

    /// From now on it may have as many bytes more as a family may have.
    pub fn settle(&self) {
        let most = self.bytes.get().saturating_add(self.system.limits.bytes_per_family);
        self.most_bytes.store(most, Relaxed);
    }

    fn with(system: &Arc<Counters>, most_bytes: u64) -> Arc<Family> {
        let (processes, bytes, locks) = Default::default();
        let most_bytes = AtomicU64::new(most_bytes);
        Arc::new(Family { system: system.clone(), processes, bytes, most_bytes, locks })
    }

    /// Counts a process more, unless that would be one too many.
    pub fn take_process(&self) -> bool {
        let limits = &self.system.limits;
        let own = (&self.processes, limits.processes_per_family);
        take_both(1, own, (&self.system.processes, limits.processes))
    }

    pub fn give_process(&self) {
        self.system.processes.give(1);
        self.processes.give(1);
    }

    /// Counts `n` bytes more, unless that would be too many.
    pub fn take_bytes(&self, n: u64) -> bool {
        let limits = &self.system.limits;
        let own = (&self.bytes, self.most_bytes.load(Relaxed));
        take_both(n, own, (&self.system.bytes, limits.bytes))
    }

    pub fn give_bytes(&self, n: u64) {
        self.system.bytes.give(n);
        self.bytes.give(n);
    }

    /// How many bytes it could take now.
    pub fn free_bytes(&self) -> u64 {
        let limits = &self.system.limits;
        let own = self.most_bytes.load(Relaxed).saturating_sub(self.bytes.get());
        own.min(limits.bytes.saturating_sub(self.system.bytes.get()))
    }
}

/// Takes `n` from two counters with their bounds, or from neither.
fn take_both(n: u64, own: (&Counter, u64), all: (&Counter, u64)) -> bool {
    if !own.0.take(n, own.1) {
        return false;
    }
    let taken = all.0.take(n, all.1);
    if !taken {
        own.0.give(n);
    }
    taken
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
