//! Processes: the home of each client, the table that finds them by pid, and how they begin, fork,
//! become another program and end.
//!
//! Sources: fork(2); NetBSD `sys/rump/librump/rumpkern/lwproc.c`, `sys/rump/kern/lib/libsysproxy/sysproxy.c`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use super::System;
use super::call;
use super::descriptors::FdTable;
use super::kqueue::{Event, Watched};
use super::limits::Family;
use super::memfs::Inode;
use super::sync::{lock, read};
use super::table;
use super::timers::Timers;
use crate::kernel::{Call, Client, Errno, Outcome, Process};

/// The process that parentless ones belong to.
pub(super) const INIT: i32 = 1;

/// The longest command name that is kept (`MAXCOMLEN`).
const COMMAND_MAX: usize = 16;

/// Whose rights a process has. One is shared by all who have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub groups: Vec<u32>,
}

/// What few processes have.
#[derive(Default)]
pub(super) struct Extras {
    /// The knotes on it.
    pub watched: Watched,
    pub timers: Timers,
}

/// A process.
pub(super) struct Task {
    pub system: Arc<System>,
    pub pid: i32,
    credentials: RwLock<Arc<Credentials>>,
    /// Who pays for it, and for what it makes.
    pub family: Arc<Family>,
    /// Whether it was paid for and has not been given back: a prefork hands that on.
    paid: AtomicBool,
    pub files: Arc<FdTable>,
    pub cwd: Mutex<Arc<Inode>>,
    pub umask: AtomicU32,
    /// Its process group and session, by number.
    pub group: AtomicI32,
    pub session: AtomicI32,
    /// A preforked process has no client yet.
    client: Option<Arc<dyn Client>>,
    /// What its parent answers to; none is init.
    parent: Option<Arc<AtomicI32>>,
    /// What it answers to towards its children, once it has any: its pid, and init's when it is gone.
    parenthood: OnceLock<Arc<AtomicI32>>,
    command: Mutex<Box<[u8]>>,
    extras: OnceLock<Box<Extras>>,
    released: AtomicBool,
}

impl Task {
    /// A process for a client that comes from nowhere. It has the console as descriptors 0, 1 and 2,
    /// as every process that a rump server forks off init for a client.
    pub fn spawn(
        system: &Arc<System>,
        client: Arc<dyn Client>,
        command: &[u8],
    ) -> Result<Arc<Task>, Errno> {
        let family = Family::new(&system.counters);
        if !family.take_process() {
            return Err(Errno::EAGAIN);
        }
        Ok(Task::publish(system, |pid| Task {
            system: system.clone(),
            pid,
            credentials: RwLock::new(system.root.clone()),
            family,
            paid: AtomicBool::new(true),
            files: Arc::new(FdTable::with_console(&system.limits, system.counters.clone())),
            cwd: Mutex::new(system.fs.root()),
            umask: AtomicU32::new(0o022),
            group: AtomicI32::new(0),
            session: AtomicI32::new(0),
            client: Some(client),
            parent: None,
            parenthood: OnceLock::new(),
            command: Mutex::new(shortened(command)),
            extras: OnceLock::new(),
            released: AtomicBool::new(false),
        }))
    }

    /// A child with these descriptors, everything else as here. The caller has paid for it.
    fn fork(
        &self,
        client: Option<Arc<dyn Client>>,
        files: impl FnOnce() -> Arc<FdTable>,
    ) -> Arc<Task> {
        let me = self.parenthood.get_or_init(|| Arc::new(AtomicI32::new(self.pid)));
        let child = Task::publish(&self.system, |pid| Task {
            system: self.system.clone(),
            pid,
            credentials: RwLock::new(self.credentials()),
            family: self.family.clone(),
            paid: AtomicBool::new(true),
            files: files(),
            cwd: Mutex::new(lock(&self.cwd).clone()),
            umask: AtomicU32::new(self.umask.load(Relaxed)),
            group: AtomicI32::new(self.group.load(Relaxed)),
            session: AtomicI32::new(self.session.load(Relaxed)),
            client,
            parent: Some(me.clone()),
            parenthood: OnceLock::new(),
            command: Mutex::new(lock(&self.command).clone()),
            extras: OnceLock::new(),
            released: AtomicBool::new(false),
        });
        self.tell(Event::Fork(&child));
        child
    }

    fn publish(system: &Arc<System>, make: impl FnOnce(i32) -> Task) -> Arc<Task> {
        let task = Arc::new(make(system.processes.reserve()));
        system.processes.publish(&task);
        task
    }

    /// The pid of its parent, init's once the parent is gone.
    pub fn parent(&self) -> i32 {
        self.parent.as_ref().map_or(INIT, |parent| parent.load(Relaxed))
    }

    /// Delivers a signal to its client, if it has one.
    pub fn raise(&self, signo: i32) {
        self.tell(Event::Signal(signo));
        if let Some(client) = &self.client {
            client.raise(signo);
        }
    }

    /// What few processes have.
    pub fn extras(&self) -> &Extras {
        self.extras.get_or_init(Box::default)
    }

    /// Its timers, if it has had one.
    pub fn timers(&self) -> Option<&Timers> {
        self.extras.get().map(|extras| &extras.timers)
    }

    /// Tells the knotes on it.
    fn tell(&self, event: Event<'_>) {
        if let Some(extras) = self.extras.get() {
            extras.watched.tell(event);
        }
    }

    /// Whose rights it has now.
    pub fn credentials(&self) -> Arc<Credentials> {
        read(&self.credentials).clone()
    }

    /// The directory its relative paths begin at.
    pub fn cwd(&self) -> Arc<Inode> {
        lock(&self.cwd).clone()
    }

    /// The name of its program.
    #[cfg(test)]
    pub fn command(&self) -> Vec<u8> {
        lock(&self.command).to_vec()
    }
}

impl Process for Task {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        match table::body(call.number) {
            Some(body) => call::run(self, call, body),
            None => {
                self.system.missing.note(call.number);
                Outcome::Done(Err(Errno::ENOSYS))
            }
        }
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        if !self.family.take_process() {
            return Err(Errno::EAGAIN);
        }
        Ok(self.fork(None, || Arc::new(self.files.copy())))
    }

    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        // It takes the prefork's place: who has a token is not turned away.
        if !self.paid.swap(false, AcqRel) && !self.family.take_process() {
            return Err(Errno::EAGAIN);
        }
        Ok(self.fork(Some(client), || self.files.share()))
    }

    fn exec(&self, command: &[u8]) {
        self.files.close_on_exec();
        *lock(&self.command) = shortened(command);
        if let Some(extras) = self.extras.get() {
            extras.timers.exec();
        }
        self.tell(Event::Exec);
    }

    fn release(&self) {
        if self.released.swap(true, AcqRel) {
            return;
        }
        if let Some(extras) = self.extras.get() {
            extras.timers.clear();
        }
        self.files.release();
        if let Some(me) = self.parenthood.get() {
            me.store(INIT, Relaxed);
        }
        self.system.processes.remove(self.pid);
        // Once it cannot be found: who begins to watch it now finds that out.
        self.tell(Event::Exit);
        if self.paid.swap(false, AcqRel) {
            self.family.give_process();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.release();
    }
}

fn shortened(command: &[u8]) -> Box<[u8]> {
    command[..command.len().min(COMMAND_MAX)].into()
}

/// Finds processes by pid. Touched when one begins or ends and by `kill`, by nothing else.
pub(super) struct ProcessTable {
    next: AtomicU32,
    /// How many pids there are: more than twice as many as processes, so that a free one is near.
    span: u32,
    shards: Vec<Shard>,
}

type Shard = Mutex<HashMap<i32, Weak<Task>>>;

const SHARDS: usize = 64;

impl ProcessTable {
    /// A table in which at most `most` processes live at once.
    pub fn new(most: u64) -> Self {
        let span = most.saturating_mul(2).clamp(30_000, i32::MAX as u64 - 2) as u32;
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        ProcessTable { next: AtomicU32::new(0), span, shards }
    }

    fn shard(&self, pid: i32) -> &Shard {
        &self.shards[pid as usize % SHARDS]
    }

    /// Takes the next pid nobody has. The caller has made sure that there are enough.
    fn reserve(&self) -> i32 {
        loop {
            let turn = self.next.fetch_add(1, Relaxed) % self.span;
            let pid = INIT + 1 + turn as i32;
            if let Entry::Vacant(free) = lock(self.shard(pid)).entry(pid) {
                free.insert(Weak::new());
                return pid;
            }
        }
    }

    fn publish(&self, task: &Arc<Task>) {
        lock(self.shard(task.pid)).insert(task.pid, Arc::downgrade(task));
    }

    fn remove(&self, pid: i32) {
        let mut shard = lock(self.shard(pid));
        shard.remove(&pid);
        if shard.is_empty() {
            *shard = HashMap::new();
        }
    }

    /// The process with this pid.
    pub fn find(&self, pid: i32) -> Option<Arc<Task>> {
        if pid <= INIT {
            return None;
        }
        lock(self.shard(pid)).get(&pid)?.upgrade()
    }

    /// Every process, a shard at a time.
    pub fn all(&self) -> impl Iterator<Item = Arc<Task>> + '_ {
        self.shards.iter().flat_map(|shard| {
            let shard: Vec<_> = lock(shard).values().filter_map(Weak::upgrade).collect();
            shard
        })
    }
}
