//! Processes: the process behind each client, the table that finds processes by pid, and how they begin,
//! fork, exec and end.
//!
//! Sources: fork(2); NetBSD `sys/rump/librump/rumpkern/lwproc.c`, `sys/rump/kern/lib/libsysproxy/sysproxy.c`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI32, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Instant;

use super::call;
pub(super) use super::credentials::Credentials;
use super::cwd::CwdInfo;
use super::descriptors::FdTable;
use super::groups::Group;
use super::kqueue::{Event, Watched};
use super::limits::ResourceGroup;
use super::locks;
use super::rlimits::{NPROC, Rlimits};
use super::sync::lock;
use super::table;
use super::timers::Timers;
use super::usage::Spent;
use super::work;
use super::{System, TICK};
use kernel::{Call, Client, Errno, Outcome, Process};

/// The process that adopts orphans.
pub(super) const INIT: i32 = 1;

/// The longest command name that is kept (`MAXCOMLEN`).
const COMMAND_MAX: usize = 16;

/// The attributes a process inherits from its parent.
#[derive(Clone)]
struct Common {
    credentials: Arc<Credentials>,
    group: Arc<Group>,
    rlimits: Arc<Rlimits>,
    command: Box<[u8]>,
}

/// The process has changed its users or groups since its program began (`PK_SUGID`).
const TAINTED: u8 = 1;
/// The process has executed another program (`PK_EXEC`).
const EXECED: u8 = 2;

/// The parts that few processes have.
#[derive(Default)]
pub(super) struct Extras {
    /// The knotes on the process.
    pub watched: Watched,
    pub timers: Timers,
}

/// A process.
pub(super) struct Proc {
    pub system: Arc<System>,
    pub pid: i32,
    common: Mutex<Common>,
    flags: AtomicU8,
    /// The nice value, -20 to 20, as `getpriority` returns it.
    pub nice: AtomicI8,
    /// The signals that wait for a client, one a bit.
    pending: AtomicU64,
    pub spent: Spent,
    /// The start time, in ticks since boot.
    began: u32,
    /// The resource group that pays for the process, and for what it makes.
    pub family: Arc<ResourceGroup>,
    /// True if the process was paid for and the payment not given back: a prefork hands it on.
    paid: AtomicBool,
    pub files: Arc<FdTable>,
    pub cwd: CwdInfo,
    /// The client; `None` for a preforked process, which has none yet.
    client: Option<Arc<dyn Client>>,
    /// True if the process may hold locks on files (`PK_ADVLOCK`).
    pub locker: AtomicBool,
    /// The parent's `parenthood`; `None` if the parent is init.
    parent: Option<Arc<AtomicI32>>,
    /// The pid that the children see as their parent's, once there are any: this process's, or init's after
    /// it has ended.
    parenthood: OnceLock<Arc<AtomicI32>>,
    extras: OnceLock<Box<Extras>>,
    released: AtomicBool,
}

impl Proc {
    /// Makes a process for a client that connects on its own. It has the console as descriptors 0, 1 and 2,
    /// like every process that a rump server forks off init for a client.
    pub fn spawn(
        system: &Arc<System>,
        client: Arc<dyn Client>,
        command: &[u8],
    ) -> Result<Arc<Proc>, Errno> {
        let family = ResourceGroup::new(&system.counters);
        if !family.take_process() {
            return Err(Errno::EAGAIN);
        }
        system.uidinfo.add(system.root.uid);
        Ok(Proc::publish(system, |pid| Proc {
            system: system.clone(),
            pid,
            common: Mutex::new(Common {
                credentials: system.root.clone(),
                group: system.groups.zero(),
                rlimits: system.rlimits.clone(),
                command: shortened(command),
            }),
            began: system.tick(),
            flags: AtomicU8::new(0),
            nice: AtomicI8::new(0),
            pending: AtomicU64::new(0),
            spent: Spent::default(),
            files: Arc::new(FdTable::with_console(family.clone())),
            family,
            paid: AtomicBool::new(true),
            cwd: CwdInfo::new(&system.places),
            client: Some(client),
            locker: AtomicBool::new(false),
            parent: None,
            parenthood: OnceLock::new(),
            extras: OnceLock::new(),
            released: AtomicBool::new(false),
        }))
    }

    /// Makes a child with these descriptors and otherwise a copy of this process. The caller has paid for
    /// it, for the user in `common`, which stays locked until the child is in its group.
    fn fork(
        &self,
        common: MutexGuard<'_, Common>,
        client: Option<Arc<dyn Client>>,
        files: impl FnOnce() -> Arc<FdTable>,
    ) -> Arc<Proc> {
        let me = self.parenthood.get_or_init(|| Arc::new(AtomicI32::new(self.pid)));
        let child = Proc::publish(&self.system, |pid| Proc {
            system: self.system.clone(),
            pid,
            common: Mutex::new(common.clone()),
            began: self.system.tick(),
            flags: AtomicU8::new(self.flags.load(Relaxed) & TAINTED),
            nice: AtomicI8::new(self.nice.load(Relaxed)),
            pending: AtomicU64::new(0),
            spent: Spent::default(),
            family: self.family.clone(),
            paid: AtomicBool::new(true),
            files: files(),
            cwd: self.cwd.copy(),
            client,
            locker: AtomicBool::new(false),
            parent: Some(me.clone()),
            parenthood: OnceLock::new(),
            extras: OnceLock::new(),
            released: AtomicBool::new(false),
        });
        self.tell(Event::Fork(&child));
        child
    }

    fn publish(system: &Arc<System>, make: impl FnOnce(i32) -> Proc) -> Arc<Proc> {
        let proc = Arc::new(make(system.processes.reserve(|pid| system.groups.has(pid))));
        lock(&proc.common).group.add(proc.pid);
        system.processes.publish(&proc);
        proc
    }

    /// Returns the pid of the parent, init's once the parent has ended.
    pub fn parent(&self) -> i32 {
        self.parent.as_ref().map_or(INIT, |parent| parent.load(Relaxed))
    }

    /// Delivers a signal to the client, or keeps it for the client to come.
    pub fn raise(&self, signo: i32) {
        self.spent.signal();
        self.tell(Event::Signal(signo));
        match &self.client {
            Some(client) => client.raise(signo),
            None => {
                self.pending.fetch_or(1 << signo, Relaxed);
            }
        }
    }

    /// Returns `true` if this signal waits to be delivered.
    pub fn is_pending(&self, signo: i32) -> bool {
        match &self.client {
            Some(client) => client.is_pending(signo),
            None => self.pending.load(Relaxed) >> signo & 1 != 0,
        }
    }

    /// Sends a signal; 0 sends none.
    pub fn send(&self, signo: i32) {
        if signo != 0 {
            self.raise(signo);
        }
    }

    /// Delivers the signals sent before there was a client.
    fn deliver(&self) {
        let Some(client) = &self.client else { return };
        let pending = self.pending.swap(0, Relaxed);
        (1..64).filter(|signo| pending >> signo & 1 != 0).for_each(|signo| client.raise(signo));
    }

    /// Returns the rare parts, made if necessary.
    pub fn extras(&self) -> &Extras {
        self.extras.get_or_init(Box::default)
    }

    /// Returns the timers, if the process has had any.
    pub fn timers(&self) -> Option<&Timers> {
        self.extras.get().map(|extras| &extras.timers)
    }

    /// Tells the knotes on the process.
    fn tell(&self, event: Event<'_>) {
        if let Some(extras) = self.extras.get() {
            extras.watched.tell(event);
        }
    }

    /// Returns the present credentials.
    pub fn credentials(&self) -> Arc<Credentials> {
        lock(&self.common).credentials.clone()
    }

    /// Changes the credentials to those `decide` returns, if it returns any.
    pub fn change_credentials(
        &self,
        decide: impl FnOnce(&Credentials) -> Result<Option<Credentials>, Errno>,
    ) -> Result<(), Errno> {
        let mut common = lock(&self.common);
        let Some(new) = decide(&common.credentials)? else { return Ok(()) };
        self.system.uidinfo.moved(common.credentials.uid, new.uid);
        common.credentials = Arc::new(new);
        self.flags.fetch_or(TAINTED, Relaxed);
        Ok(())
    }

    /// Returns `true` if users or groups have changed since the program began.
    pub fn is_tainted(&self) -> bool {
        self.flags.load(Relaxed) & TAINTED != 0
    }

    /// Returns `true` if the process has executed another program.
    pub fn has_execed(&self) -> bool {
        self.flags.load(Relaxed) & EXECED != 0
    }

    /// Returns the process group.
    pub fn group(&self) -> Arc<Group> {
        lock(&self.common).group.clone()
    }

    /// Moves the process to another process group.
    pub fn join(&self, group: Arc<Group>) {
        let mut common = lock(&self.common);
        group.add(self.pid);
        let before = std::mem::replace(&mut common.group, group.clone());
        drop(common);
        before.remove(self.pid);
        if self.released.load(Acquire) {
            // The process may have looked for its group before this.
            group.remove(self.pid);
        }
    }

    /// Returns the resource limits.
    pub fn rlimits(&self) -> Arc<Rlimits> {
        lock(&self.common).rlimits.clone()
    }

    /// Changes the limits to those `decide` returns, if it returns any.
    pub fn change_rlimits(
        &self,
        decide: impl FnOnce(&Rlimits, &Credentials) -> Result<Option<Rlimits>, Errno>,
    ) -> Result<(), Errno> {
        let mut common = lock(&self.common);
        let Some(new) = decide(&common.rlimits, &common.credentials)? else { return Ok(()) };
        self.files.set_limit(new.open_files());
        common.rlimits = Arc::new(new);
        Ok(())
    }

    /// Counts one more process of the user and the family. EAGAIN if that would be too many. NetBSD:
    /// `fork1`.
    fn take_process(&self, common: &Common) -> Result<(), Errno> {
        if !self.family.take_process() {
            return Err(Errno::EAGAIN);
        }
        let count = self.system.uidinfo.add(common.credentials.uid);
        if count > common.rlimits.soft(NPROC) && !common.credentials.is_superuser() {
            self.system.uidinfo.remove(common.credentials.uid);
            self.family.give_process();
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Returns the name of the program.
    pub fn command(&self) -> Vec<u8> {
        lock(&self.common).command.to_vec()
    }

    /// Returns the start time, in nanoseconds since 1970.
    pub fn began(&self) -> i64 {
        self.system.boot_time + i64::from(self.began) * TICK
    }
}

impl Process for Proc {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        if self.pending.load(Relaxed) != 0 {
            self.deliver();
        }
        match table::body(call.number) {
            Some(body) => {
                let begun = Instant::now();
                let outcome = call::run(self, call, body);
                self.spent.call(begun.elapsed(), outcome);
                outcome
            }
            None => {
                self.system.missing.note(call.number);
                Outcome::Done(Err(Errno::ENOSYS))
            }
        }
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        let common = lock(&self.common);
        self.take_process(&common)?;
        match self.files.copy() {
            Ok(files) => Ok(self.fork(common, None, || Arc::new(files))),
            Err(errno) => {
                self.family.give_process();
                self.system.uidinfo.remove(common.credentials.uid);
                Err(errno)
            }
        }
    }

    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        let common = lock(&self.common);
        // The process takes the prefork's place: a client with a token is not turned away.
        if !self.paid.swap(false, AcqRel) {
            self.take_process(&common)?;
        }
        let proc = self.fork(common, Some(client), || self.files.share());
        proc.pending.fetch_or(self.pending.swap(0, Relaxed), Relaxed);
        Ok(proc)
    }

    fn exec(&self, command: &[u8]) {
        for file in self.files.close_on_exec() {
            locks::closed(self, &file);
            file.let_go();
        }
        self.flags.fetch_or(EXECED, Relaxed);
        let mut common = lock(&self.common);
        common.command = shortened(command);
        let own = &common.credentials;
        if own.euid == own.uid && own.egid == own.gid {
            self.flags.fetch_and(!TAINTED, Relaxed);
        }
        if let Some(new) = own.after_exec() {
            common.credentials = Arc::new(new);
        }
        drop(common);
        if let Some(extras) = self.extras.get() {
            extras.timers.exec();
        }
        self.tell(Event::Exec);
    }

    fn release(&self) {
        if self.released.swap(true, AcqRel) {
            return;
        }
        locks::end(self);
        if let Some(extras) = self.extras.get() {
            extras.timers.clear();
        }
        self.files.release();
        if let Some(me) = self.parenthood.get() {
            me.store(INIT, Relaxed);
        }
        let (group, credentials) = (self.group(), self.credentials());
        group.remove(self.pid);
        self.system.processes.remove(self.pid);
        // Only once the process cannot be found any more: a call that begins to watch it now notices that
        // itself.
        self.tell(Event::Exit);
        if self.paid.swap(false, AcqRel) {
            self.family.give_process();
            self.system.uidinfo.remove(credentials.uid);
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.release();
    }
}

fn shortened(command: &[u8]) -> Box<[u8]> {
    command[..command.len().min(COMMAND_MAX)].into()
}

/// The processes by pid. Touched only when a process begins or ends, and by calls that look one up, such as
/// `kill`.
pub(super) struct ProcessTable {
    next: AtomicU32,
    /// The number of pids: more than twice the number of processes, so that a free pid is near.
    span: u32,
    shards: Vec<Shard>,
}

type Shard = Mutex<BTreeMap<i32, Weak<Proc>>>;

const SHARDS: usize = 64;

impl ProcessTable {
    /// Returns a table in which at most `most` processes live at once.
    pub fn new(most: u64) -> Self {
        let span = most.saturating_mul(2).clamp(30_000, i32::MAX as u64 - 2) as u32;
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        ProcessTable { next: AtomicU32::new(0), span, shards }
    }

    fn shard(&self, pid: i32) -> &Shard {
        &self.shards[pid as usize % SHARDS]
    }

    /// Takes the next pid that no process, process group or session has. The caller has made sure that
    /// there are enough.
    fn reserve(&self, named: impl Fn(i32) -> bool) -> i32 {
        loop {
            let turn = self.next.fetch_add(1, Relaxed) % self.span;
            let pid = INIT + 1 + turn as i32;
            if named(pid) {
                continue;
            }
            if let Entry::Vacant(free) = lock(self.shard(pid)).entry(pid) {
                free.insert(Weak::new());
                return pid;
            }
        }
    }

    fn publish(&self, proc: &Arc<Proc>) {
        lock(self.shard(proc.pid)).insert(proc.pid, Arc::downgrade(proc));
    }

    fn remove(&self, pid: i32) {
        lock(self.shard(pid)).remove(&pid);
    }

    /// Returns the process with this pid.
    pub fn find(&self, pid: i32) -> Option<Arc<Proc>> {
        if pid <= INIT {
            return None;
        }
        lock(self.shard(pid)).get(&pid)?.upgrade()
    }

    /// Returns every process, a few at a time. Only for workers, as there may be very many.
    pub fn all(&self) -> impl Iterator<Item = Arc<Proc>> + '_ {
        self.shards.iter().flat_map(|shard| {
            let mut from = Some(i32::MIN);
            std::iter::from_fn(move || some_of(shard, &mut from)).flatten()
        })
    }
}

/// Returns some processes of a shard from pid `from` on, and advances `from`; `None` if there are no more.
fn some_of(shard: &Shard, from: &mut Option<i32>) -> Option<Vec<Arc<Proc>>> {
    let first = from.take()?;
    let tasks = lock(shard);
    let some = tasks.range(first..).take(work::BATCH);
    Some(
        some.inspect(|(pid, _)| *from = Some(**pid + 1))
            .filter_map(|(_, proc)| proc.upgrade())
            .collect(),
    )
}
