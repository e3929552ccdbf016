//! Limits on what the embedded kernel may hold, and counts of what it holds: every process, open file,
//! inode and stored byte is counted here when it is made and when it goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::sync::lock;

/// Limits on what clients may make the kernel hold, all together and each family by itself. A family is a
/// client that connected on its own, and all clients forked from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most open descriptors of one process, `RLIMIT_NOFILE`: EMFILE beyond.
    pub files_per_process: usize,
    /// The most open files of all processes together, `kern.maxfiles`: ENFILE beyond.
    pub files: u64,
    /// The most open files of one family: those it has opened and those it has been sent. Half as many may
    /// be in flight in messages, both of those it has sent and of those it has not received.
    pub files_per_family: u64,
    /// The most files, directories and bound local sockets in the file system: ENOSPC beyond.
    pub inodes: u64,
    /// The most inodes that one family has made.
    pub inodes_per_family: u64,
    /// The most bytes in file contents and pipes. Beyond, a file gets ENOSPC, a new pipe ENOMEM, and an
    /// existing pipe holds less.
    pub bytes: u64,
    /// The most bytes of one family: the contents of its pipes and of the files it made, whoever wrote
    /// them. Files that outlive their family count against [`Limits::bytes`] only.
    pub bytes_per_family: u64,
    /// The most processes, preforked ones included, `kern.maxproc`: EAGAIN beyond.
    pub processes: u64,
    /// The most processes of one family.
    pub processes_per_family: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            files_per_process: 1024,
            files: 1 << 20,
            files_per_family: 1 << 18,
            inodes: 1 << 18,
            inodes_per_family: 1 << 16,
            bytes: 1 << 30,
            bytes_per_family: 1 << 28,
            processes: 200_000,
            processes_per_family: 1024,
        }
    }
}

/// The amounts that the embedded kernel holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes, preforked ones included.
    pub processes: u64,
    /// Open files, each counted once however many descriptors point to it.
    pub files: u64,
    /// Open files on their way in messages.
    pub flights: u64,
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
    /// Open files on their way in messages.
    pub flights: Counter,
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

/// The part of all open files, and of those of a family, that may be in flight is one in so many
/// (`unp_rights_ratio`).
const FLIGHT_RATIO: u64 = 2;

/// The resource group of a family: what the family holds is charged to it and to the system. Everything
/// charged keeps its resource group alive, so nothing is given back to another group, and what an ended
/// family has left behind is still charged to it.
#[derive(Debug)]
pub(super) struct ResourceGroup {
    pub system: Arc<Counters>,
    processes: Counter,
    files: Counter,
    flights: Counter,
    inodes: Counter,
    bytes: Counter,
    /// Ports from the range used when a client asks for no particular port.
    ports: Counter,
    /// The most inodes and bytes of the group.
    most_inodes: u64,
    most_bytes: AtomicU64,
    /// Locks on files.
    pub locks: Counter,
    /// The open files of other families that this family has descriptors of. Boxed, as few families have
    /// any.
    foreign: Mutex<Option<Box<Foreign>>>,
}

/// The number of descriptors of each open file, by the address of the file.
#[derive(Debug, Default)]
struct Foreign(HashMap<usize, usize>);

impl ResourceGroup {
    pub fn new(system: &Arc<Counters>) -> Arc<ResourceGroup> {
        let limits = &system.limits;
        ResourceGroup::with(system, limits.inodes_per_family, limits.bytes_per_family)
    }

    /// Returns the group for what is made before there are clients. The group has no bound of its own until
    /// `settle`.
    pub fn of_the_system(system: &Arc<Counters>) -> Arc<ResourceGroup> {
        ResourceGroup::with(system, u64::MAX, u64::MAX)
    }

    /// Bounds the group from now on: it may have as many bytes more as a family may have.
    pub fn settle(&self) {
        let most = self.bytes.get().saturating_add(self.system.limits.bytes_per_family);
        self.most_bytes.store(most, Relaxed);
    }

    fn with(system: &Arc<Counters>, most_inodes: u64, most_bytes: u64) -> Arc<ResourceGroup> {
        Arc::new(ResourceGroup {
            system: system.clone(),
            processes: Counter::default(),
            files: Counter::default(),
            flights: Counter::default(),
            inodes: Counter::default(),
            bytes: Counter::default(),
            ports: Counter::default(),
            most_inodes,
            most_bytes: AtomicU64::new(most_bytes),
            locks: Counter::default(),
            foreign: Mutex::default(),
        })
    }

    /// Counts one more process, and returns `true`, unless that would be too many.
    pub fn take_process(&self) -> bool {
        let limits = &self.system.limits;
        let own = (&self.processes, limits.processes_per_family);
        take_both(1, own, (&self.system.processes, limits.processes))
    }

    pub fn give_process(&self) {
        self.system.processes.give(1);
        self.processes.give(1);
    }

    /// Counts one more open file, and returns `true`, unless that would be too many.
    pub fn take_file(&self) -> bool {
        let limits = &self.system.limits;
        let own = (&self.files, limits.files_per_family);
        take_both(1, own, (&self.system.files, limits.files))
    }

    /// Counts an open file that exists whatever the limits.
    pub fn add_file(&self) {
        self.system.files.add(1);
        self.files.add(1);
    }

    pub fn give_file(&self) {
        self.system.files.give(1);
        self.files.give(1);
    }

    /// Counts a descriptor of another family's open file at this address, and returns `true`, unless that
    /// would be one file too many.
    pub fn take_foreign(&self, address: usize) -> bool {
        let mut foreign = lock(&self.foreign);
        let Foreign(foreign) = &mut **foreign.get_or_insert_default();
        if let Some(descriptors) = foreign.get_mut(&address) {
            *descriptors += 1;
            return true;
        }
        let taken = self.files.take(1, self.system.limits.files_per_family);
        if taken {
            foreign.insert(address, 1);
        }
        taken
    }

    pub fn give_foreign(&self, address: usize) {
        let mut foreign = lock(&self.foreign);
        let Some(Foreign(files)) = foreign.as_deref_mut() else { return };
        let Some(descriptors) = files.get_mut(&address) else { return };
        *descriptors -= 1;
        if *descriptors == 0 {
            files.remove(&address);
            if files.is_empty() {
                *foreign = None;
            }
            self.files.give(1);
        }
    }

    /// Counts `n` open files that the family puts into flight, and returns `true`, unless that would be too
    /// many.
    pub fn take_flights(&self, n: u64) -> bool {
        let limits = &self.system.limits;
        let own = (&self.flights, limits.files_per_family / FLIGHT_RATIO);
        take_both(n, own, (&self.system.flights, limits.files / FLIGHT_RATIO))
    }

    pub fn give_flights(&self, n: u64) {
        self.system.flights.give(n);
        self.flights.give(n);
    }

    /// Counts `n` open files that another family has sent and that wait in a socket of this one, and
    /// returns `true`, unless that would be too many.
    pub fn take_arrivals(&self, n: u64) -> bool {
        self.flights.take(n, self.system.limits.files_per_family / FLIGHT_RATIO)
    }

    pub fn give_arrivals(&self, n: u64) {
        self.flights.give(n);
    }

    /// Counts one more inode, and returns `true`, unless that would be too many.
    pub fn take_inode(&self) -> bool {
        let limits = &self.system.limits;
        let own = (&self.inodes, self.most_inodes);
        take_both(1, own, (&self.system.inodes, limits.inodes))
    }

    /// Counts an inode that exists whatever the limits.
    pub fn add_inode(&self) {
        self.system.inodes.add(1);
        self.inodes.add(1);
    }

    pub fn give_inode(&self) {
        self.system.inodes.give(1);
        self.inodes.give(1);
    }

    /// Counts one more port of the `limit` of one kind, of which `taken` are in use, and returns `true`,
    /// unless that would be too many.
    pub fn take_port(&self, taken: &Counter, limit: u64) -> bool {
        take_both(1, (&self.ports, limit / LAST), (taken, limit))
    }

    pub fn give_port(&self, taken: &Counter) {
        taken.give(1);
        self.ports.give(1);
    }

    /// Counts `n` more bytes, and returns `true`, unless that would be too many.
    pub fn take_bytes(&self, n: u64) -> bool {
        let limits = &self.system.limits;
        let own = (&self.bytes, self.most_bytes.load(Relaxed));
        take_both(n, own, (&self.system.bytes, limits.bytes))
    }

    /// Counts `n` bytes that were charged to another group until now.
    pub fn add_bytes(&self, n: u64) {
        self.system.bytes.add(n);
        self.bytes.add(n);
    }

    pub fn give_bytes(&self, n: u64) {
        self.system.bytes.give(n);
        self.bytes.give(n);
    }

    /// Returns the number of bytes the family could take now.
    pub fn free_bytes(&self) -> u64 {
        let (all, limit) = (self.system.bytes.get(), self.system.limits.bytes);
        let (own, most) = (self.bytes.get(), self.most_bytes.load(Relaxed));
        let free = most.saturating_sub(own).min(limit.saturating_sub(all));
        let easy = (limit - limit / LAST).saturating_sub(all);
        match most < limit && free > easy {
            true => easy.max(little(limit.saturating_sub(all)).saturating_sub(own)).min(free),
            false => free,
        }
    }
}

/// The last part of every resource, one in so many, is reserved for families that have little.
const LAST: u64 = 4;

/// Returns the amount that counts as little while `free` is left. As it shrinks with `free`, each of many
/// families leaves something to the next.
fn little(free: u64) -> u64 {
    1 + free / 256
}

/// Takes `n` from two counters with their bounds, or from neither. If a family may not have everything, it
/// gets no more than a little of the last part.
fn take_both(n: u64, own: (&Counter, u64), all: (&Counter, u64)) -> bool {
    if !own.0.take(n, own.1) {
        return false;
    }
    if !all.0.take(n, all.1) {
        own.0.give(n);
        return false;
    }
    let (taken, limit) = (all.0.get(), all.1);
    let is_last = own.1 < limit && taken > limit - limit / LAST;
    if is_last && own.0.get() > little(limit.saturating_sub(taken)) {
        all.0.give(n);
        own.0.give(n);
        return false;
    }
    true
}

/// A count that `take` never raises above its bound.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, and returns `true`, unless that would pass `limit`.
    pub fn take(&self, n: u64, limit: u64) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |now| now.checked_add(n).filter(|&then| then <= limit))
            .is_ok()
    }

    /// Adds `n`, whatever the bound.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
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
