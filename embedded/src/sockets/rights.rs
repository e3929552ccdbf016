//! Open files in flight from one process to another, inside messages (`SCM_RIGHTS`).
//!
//! Their number is bounded. A socket in flight may be inside a socket that nobody can reach any more, such
//! as itself. [`Flights::collect`] finds and empties such sockets; it runs when descriptors of local
//! sockets are closed and when such sockets are sent.
//!
//! Lock order: a message with files is moved under the lock `moving`, which is taken before the lock of any
//! socket. `Rights` are dropped without the lock of a socket held.
//!
//! A collection takes time for each socket in flight, so a worker does it, and no thread waits for it:
//! during a collection no message with files enters or leaves a socket, and calls that would move one
//! sleep. So the messages hold still while the collector looks at them, a few sockets at a time. Files may
//! be closed and messages dropped meanwhile, which only makes fewer sockets reachable.
//!
//! Source: NetBSD `sys/kern/uipc_usrreq.c` (`unp_internalize`, `unp_externalize`, `unp_gc`).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Socket;
use super::buffer::{Control, Record};
use crate::call::{Stop, SyscallContext};
use crate::file::OpenFile;
use crate::limits::ResourceGroup;
use crate::sync::lock;
use crate::wait::{Side, WaitQueue, Waitable};
use crate::work::{self, BATCH};
use kernel::Errno;

/// The number of local sockets in flight for each event that it takes to start a collection, as it looks at
/// every one of them.
const SHARE: usize = 16;

/// The open files in flight.
pub(super) struct Flights {
    /// The local sockets in flight by address, each with the number of its flights.
    sockets: Mutex<BTreeMap<usize, (Weak<OpenFile>, usize)>>,
    /// The number of local sockets in flight, readable without the lock.
    known: AtomicUsize,
    /// The events since the last collection.
    events: AtomicUsize,
    moving: Mutex<Moving>,
    /// The calls that wait for the end of a collection.
    waiting: WaitQueue,
}

/// The lock under which a message with files may be moved, unless a collection runs.
#[derive(Default)]
pub(super) struct Moving {
    collects: bool,
}

impl Waitable for Flights {
    fn queue(&self, _side: Side) -> &WaitQueue {
        &self.waiting
    }
}

impl Flights {
    pub fn new() -> Arc<Flights> {
        Arc::new(Flights {
            sockets: Mutex::default(),
            known: AtomicUsize::new(0),
            events: AtomicUsize::new(0),
            moving: Mutex::default(),
            waiting: WaitQueue::default(),
        })
    }

    /// Locks `moving`, while a message with files enters or leaves a socket. During a collection the call
    /// sleeps.
    pub fn moving(
        self: &Arc<Self>,
        run: &mut SyscallContext<'_, '_>,
    ) -> Result<MutexGuard<'_, Moving>, Stop> {
        for waiting in [false, true] {
            if waiting {
                run.wait_for(self.clone(), Side::Read);
            }
            let moving = lock(&self.moving);
            if !moving.collects {
                return Ok(moving);
            }
        }
        Err(Stop::Sleep(None))
    }

    /// Puts files into flight, sent by this family. EAGAIN if that would be too many.
    pub fn send(
        self: &Arc<Self>,
        files: Vec<Arc<OpenFile>>,
        sender: &Arc<ResourceGroup>,
    ) -> Result<Rights, Errno> {
        if !sender.take_flights(files.len() as u64) {
            return Err(Errno::EAGAIN);
        }
        let rights = Rights { files, flights: self.clone(), sender: sender.clone(), at: None };
        let files = &rights.files;
        if !files.iter().any(carries) {
            return Ok(rights);
        }
        let mut sockets = lock(&self.sockets);
        for file in files.iter().filter(|file| carries(file)) {
            let flight = sockets.entry(address(file));
            flight.or_insert_with(|| (Arc::downgrade(file), 0)).1 += 1;
        }
        self.known.store(sockets.len(), Relaxed);
        drop(sockets);
        Ok(rights)
    }

    /// Ends the flight of files that have arrived, or were dropped on the way.
    fn landed(&self, files: &[Arc<OpenFile>]) {
        if !files.iter().any(carries) {
            return;
        }
        let mut sockets = lock(&self.sockets);
        for file in files.iter().filter(|file| carries(file)) {
            if let Some(flight) = sockets.get_mut(&address(file)) {
                flight.1 -= 1;
                if flight.1 == 0 {
                    sockets.remove(&address(file));
                }
            }
        }
        self.known.store(sockets.len(), Relaxed);
        // A socket that was reachable through one of these files may be unreachable now.
        self.events.fetch_add(1, Relaxed);
    }

    /// Collects unreachable sockets, now or a little later, as a local socket may have become unreachable.
    pub fn noticed(self: &Arc<Self>) {
        let known = self.known.load(Relaxed);
        if known == 0 {
            return;
        }
        if (self.events.fetch_add(1, Relaxed) + 1) * SHARE < known {
            return;
        }
        self.events.store(0, Relaxed);
        let flights = self.clone();
        work::now_or_later(2 * known, move || {
            flights.empty_unreachable();
        });
    }

    /// Returns `true` if any local socket is in flight.
    pub fn any(&self) -> bool {
        self.known.load(Relaxed) > 0
    }

    /// Empties the sockets in flight that nobody can receive any more. Returns `false` if nothing has
    /// happened since the last collection, so that a client that is refused again and again does not start
    /// one each time. An inline run moves to a worker.
    pub fn collect(&self) -> Result<bool, Errno> {
        if self.events.load(Relaxed) == 0 {
            return Ok(false);
        }
        work::elsewhere()?;
        Ok(self.empty_unreachable())
    }

    /// Empties the sockets that nobody can reach any more. Returns `false` if another thread is doing so.
    fn empty_unreachable(&self) -> bool {
        let Some(collecting) = Collecting::begin(self) else { return false };
        self.events.store(0, Relaxed);
        let emptied: Vec<Record> =
            self.unreachable().iter().flat_map(|socket| socket.empty()).collect();
        drop(collecting);
        drop(emptied);
        true
    }

    /// Returns the local sockets in flight of which no descriptor is open, by address, with the number of
    /// flights of each. Looks at a few at a time.
    fn held(&self) -> HashMap<usize, (Arc<Socket>, usize)> {
        let mut held = HashMap::new();
        let mut from = Some(0);
        while let Some(first) = from.take() {
            let some: Vec<(usize, Arc<OpenFile>, usize)> = {
                let sockets = lock(&self.sockets);
                let some = sockets.range(first..).take(BATCH);
                some.inspect(|(at, _)| from = Some(**at + 1))
                    .filter_map(|(&at, (file, flights))| Some((at, file.upgrade()?, *flights)))
                    .collect()
            };
            // Without the lock: one of these may hold the last reference to its file.
            for (at, file, flights) in some {
                if Arc::strong_count(&file) == flights + 1
                    && let Some(socket) = file.ops.socket()
                {
                    held.insert(at, (socket.clone(), flights));
                }
            }
        }
        held
    }

    /// Returns the sockets in flight that nobody can reach: only messages hold them, and those messages are
    /// in sockets that nobody can reach either.
    fn unreachable(&self) -> Vec<Arc<Socket>> {
        let mut held = self.held();
        let inside: HashMap<usize, Vec<usize>> =
            held.iter().map(|(&at, (socket, _))| (at, socket.carried())).collect();
        let mut within: HashMap<usize, usize> = HashMap::new();
        for at in inside.values().flatten() {
            *within.entry(*at).or_default() += 1;
        }
        let mut reached: HashSet<usize> = HashSet::new();
        let mut next: Vec<usize> = held
            .iter()
            .filter(|(at, (_, flights))| within.get(at).copied().unwrap_or(0) < *flights)
            .map(|(&at, _)| at)
            .collect();
        while let Some(at) = next.pop() {
            if reached.insert(at) {
                next.extend(
                    inside.get(&at).into_iter().flatten().filter(|at| held.contains_key(at)),
                );
            }
        }
        held.retain(|at, _| !reached.contains(at));
        held.into_values().map(|(socket, _)| socket).collect()
    }
}

/// A collection under way, until this is dropped.
struct Collecting<'f>(&'f Flights);

impl Collecting<'_> {
    fn begin(flights: &Flights) -> Option<Collecting<'_>> {
        let mut moving = lock(&flights.moving);
        let first = !std::mem::replace(&mut moving.collects, true);
        first.then(|| Collecting(flights))
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        lock(&self.0.moving).collects = false;
        self.0.waiting.wake();
    }
}

/// Returns `true` if an open file can carry others.
fn carries(file: &Arc<OpenFile>) -> bool {
    file.ops.socket().is_some_and(|socket| socket.family == super::LOCAL)
}

fn address(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file) as usize
}

/// Returns the sockets inside these records, by address.
pub(super) fn carried<'r>(records: impl Iterator<Item = &'r Record>) -> Vec<usize> {
    let mut found = Vec::new();
    for control in records.flat_map(|record| &record.control) {
        if let Control::Rights(rights) = control {
            found.extend(rights.files().iter().filter(|file| carries(file)).map(address));
        }
    }
    found
}

/// The open files inside a message.
pub(super) struct Rights {
    files: Vec<Arc<OpenFile>>,
    flights: Arc<Flights>,
    sender: Arc<ResourceGroup>,
    /// The family whose socket the files wait in, if it is not the sender.
    at: Option<Arc<ResourceGroup>>,
}

impl Rights {
    pub fn files(&self) -> &[Arc<OpenFile>] {
        &self.files
    }

    /// Charges the files to the family in whose socket they will wait. Returns `false` if too many wait
    /// there.
    pub fn arrive(&mut self, at: &Arc<ResourceGroup>) -> bool {
        if Arc::ptr_eq(at, &self.sender) || self.at.is_some() {
            return true;
        }
        let taken = at.take_arrivals(self.files.len() as u64);
        if taken {
            self.at = Some(at.clone());
        }
        taken
    }
}

thread_local! {
    /// The files that this thread is dropping.
    static DROPPING: RefCell<Option<Vec<Arc<OpenFile>>>> = const { RefCell::new(None) };
}

/// Drops files one after the other, not recursively, as a file may be a socket that holds messages with
/// files, and so on in a long chain.
impl Drop for Rights {
    fn drop(&mut self) {
        self.flights.landed(&self.files);
        let count = self.files.len();
        work::count(count);
        let count = count as u64;
        self.sender.give_flights(count);
        if let Some(at) = &self.at {
            at.give_arrivals(count);
        }
        let files = std::mem::take(&mut self.files);
        // Dropping these files may take long, as they may hold many messages with files.
        if files.iter().any(|file| Arc::strong_count(file) == 1) {
            work::now_or_later(work::MOST, move || close_all(files));
        }
    }
}

/// Closes files that were in a message, and drops what they hold.
fn close_all(files: Vec<Arc<OpenFile>>) {
    let first = DROPPING.with_borrow_mut(|dropping| match dropping {
        Some(later) => {
            later.extend(files);
            false
        }
        None => {
            *dropping = Some(files);
            true
        }
    });
    if !first {
        return;
    }
    loop {
        let next = DROPPING.with_borrow_mut(|dropping| {
            let next = dropping.as_mut().and_then(Vec::pop);
            if next.is_none() {
                *dropping = None;
            }
            next
        });
        match next {
            Some(file) => drop(file),
            None => break,
        }
    }
}
