//! One server's side of a sequence: its actors, the values that the sequence's names have there, and
//! the calls in flight.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client::numbers::sys;
use client::{CallError, Client, ConnectError, OutOfMemory, Pending};
use embedded::by_name;
use kernel::Errno;
use rumpsp::url::Url;

use crate::mask::mask;
use crate::outcome::{Ending, Outcome};
use crate::step::{Act, Arg, Block, Call, Layout, Part, Slots, Step, Target, UNTOUCHED, Value};

/// The time for operations that cannot block: connecting, forking, making a directory.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most actors of a sequence.
const MOST_ACTORS: usize = 32;

/// The most calls in flight in a sequence.
const MOST_PENDING: usize = 256;

/// An address where no memory is.
const NOWHERE: u64 = 0xdead_0000;

/// The name of the directory of all sequences inside the work directory: the latter may be the root of
/// a file system, which behaves differently from other directories.
const SEQUENCES: &str = "s";

/// `sys/fcntl.h`
const F_GETOWN: i64 = 5;
const F_CLOSEM: i64 = 10;

/// The number that stands for a process id in comparisons, less the actor's place.
const FIRST_PID: i64 = 1_000_000_000;

/// Ports: the number for each sequence, the first, and the number of sequences before ports are used
/// again.
const PORTS: u16 = 8;
const FIRST_PORT: u16 = 10_000;
const SEQUENCES_OF_PORTS: u64 = 4_000;

/// An error after which a server cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{url}: {what}: {error}")]
    Call { url: Url, what: String, error: CallError },
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    #[error("a sequence has more than {0}; make it smaller")]
    Bound(String),
}

/// A process in the server.
struct Actor {
    client: Client,
    pid: i64,
    signals: Arc<Mutex<Vec<i32>>>,
}

/// A piece of a client's memory that a call may write to.
struct Region {
    addr: u64,
    len: usize,
    layout: Layout,
    /// The ranges of addresses and process ids in it: they are the server's own, so they are not
    /// compared.
    own: Vec<Range<usize>>,
}

/// A call in flight.
struct Running {
    step: usize,
    actor: String,
    call: Call,
    /// The call's first argument, which is the descriptor in calls that have one.
    first: Option<u64>,
    pending: Pending,
    regions: Vec<Region>,
}

/// A server, and the things a sequence has made there.
pub struct Side {
    url: Url,
    control: Client,
    /// The directory that has those of all sequences.
    work: String,
    directory: String,
    sequence: u64,
    actors: BTreeMap<String, Actor>,
    /// Process ids in the order in which their actors came, including those that are gone.
    pids: Vec<i64>,
    slots: BTreeMap<String, i64>,
    running: Vec<Running>,
    ended: BTreeMap<usize, Outcome>,
}

impl Side {
    /// Connects, and makes the directory `work` for all sequences.
    pub fn new(url: &Url, work: &str) -> Result<Side, Broken> {
        let control = Client::builder().name("control").timeout(PATIENCE).connect(url)?;
        let side = Side {
            url: url.clone(),
            control,
            work: work.into(),
            directory: String::new(),
            sequence: 0,
            actors: BTreeMap::new(),
            pids: Vec::new(),
            slots: BTreeMap::new(),
            running: Vec::new(),
            ended: BTreeMap::new(),
        };
        side.check(format!("mkdir {work}"), side.control.mkdir(work, 0o755))?;
        Ok(side)
    }

    /// Makes room for the sequences' directories.
    pub fn make_room(&self) -> Result<(), Broken> {
        let path = format!("{}/{SEQUENCES}", self.work);
        self.check(format!("mkdir {path}"), self.control.mkdir(&path, 0o755))
    }

    /// Returns the client that belongs to no sequence.
    pub fn control(&self) -> &Client {
        &self.control
    }

    /// Returns the server's address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the directory of all sequences.
    pub fn work(&self) -> &str {
        &self.work
    }

    fn check<T>(&self, what: String, result: Result<T, CallError>) -> Result<T, Broken> {
        result.map_err(|error| Broken::Call { url: self.url.clone(), what, error })
    }

    /// Begins a sequence, in a directory of its own.
    pub fn enter(&mut self, sequence: u64) -> Result<(), Broken> {
        self.sequence = sequence;
        self.directory = format!("{}/{SEQUENCES}/{sequence}", self.work);
        let made = self.control.mkdir(&self.directory, 0o755);
        self.check(format!("mkdir {}", self.directory), made)
    }

    /// Ends a sequence: removes its processes, and its directory as far as that can be emptied.
    pub fn leave(&mut self) {
        self.running.clear();
        for (_, actor) in std::mem::take(&mut self.actors) {
            actor.client.disconnect();
        }
        self.slots.clear();
        self.pids.clear();
        self.ended.clear();
        crate::tidy::remove_all(&self.control, &self.directory);
    }

    /// Begins a step; [`Side::outcome`] returns its outcome later.
    pub fn begin(&mut self, number: usize, step: &Step) -> Result<(), Broken> {
        self.connect(&step.actor)?;
        match &step.act {
            Act::Call(call) => self.begin_call(number, &step.actor, call),
            Act::Fork(child) => {
                let ending = self.fork(&step.actor, child)?;
                self.ends(number, ending);
                Ok(())
            }
            Act::Exec => {
                let ending = match self.actors[&step.actor].client.exec("other") {
                    Ok(()) => Ending::Values([0, 0]),
                    Err(error) => Ending::of(&error),
                };
                self.ends(number, ending);
                Ok(())
            }
            Act::Exit => {
                self.exit(&step.actor);
                self.ends(number, Ending::Values([0, 0]));
                Ok(())
            }
        }
    }

    fn ends(&mut self, step: usize, ending: Ending) {
        self.ended.insert(step, Outcome { ending, memory: Vec::new() });
    }

    /// Connects an actor if it is not connected.
    fn connect(&mut self, name: &str) -> Result<(), Broken> {
        if self.actors.contains_key(name) {
            return Ok(());
        }
        let signals = Arc::new(Mutex::new(Vec::new()));
        let heard = signals.clone();
        let hear = move |signo| heard.lock().unwrap_or_else(PoisonError::into_inner).push(signo);
        let builder = Client::builder().name(name).timeout(PATIENCE).on_signal(hear);
        let client = builder.connect(&self.url)?;
        let path = client.space().alloc_str(&self.directory)?;
        let chdir = client.call(by_name("chdir").map_or(12, |entry| entry.number), &[path]);
        self.check(format!("chdir {}", self.directory), chdir)?;
        self.add(name, client, signals)
    }

    fn add(
        &mut self,
        name: &str,
        client: Client,
        signals: Arc<Mutex<Vec<i32>>>,
    ) -> Result<(), Broken> {
        if self.actors.len() == MOST_ACTORS {
            return Err(Broken::Bound(format!("{MOST_ACTORS} actors")));
        }
        let pid = self.check("getpid".into(), client.getpid())?;
        self.pids.push(i64::from(pid));
        self.actors.insert(name.into(), Actor { client, pid: i64::from(pid), signals });
        Ok(())
    }

    /// Forks an actor. A child has its parent's signal handler, so signals of the child count as the
    /// parent's.
    fn fork(&mut self, parent: &str, child: &str) -> Result<Ending, Broken> {
        self.exit(child);
        let parent = &self.actors[parent];
        let signals = parent.signals.clone();
        let forked = match parent.client.prefork() {
            Ok(token) => token.connect(),
            Err(error) => return Ok(Ending::of(&error)),
        };
        match forked {
            Ok(client) => {
                self.add(child, client, signals)?;
                Ok(Ending::Values([0, 0]))
            }
            Err(error) => Ok(Ending::Failed(error.to_string())),
        }
    }

    /// Disconnects an actor, and waits until the kernel has no such process any more.
    fn exit(&mut self, name: &str) {
        let Some(actor) = self.actors.remove(name) else { return };
        self.running.retain(|running| running.actor != name);
        actor.client.disconnect();
        drop(actor.client);
        let number = by_name("getpgid").map_or(207, |entry| entry.number);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.control.call(number, &[actor.pid as u64]) {
                Ok(_) => thread::sleep(Duration::from_millis(1)),
                Err(_) => return,
            }
        }
    }

    fn begin_call(&mut self, number: usize, actor: &str, call: &Call) -> Result<(), Broken> {
        if self.running.len() == MOST_PENDING {
            return Err(Broken::Bound(format!("{MOST_PENDING} calls under way")));
        }
        let mut regions = Vec::new();
        let client = &self.actors[actor].client;
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(match arg {
                Arg::Value(value) => self.value(value) as u64,
                Arg::Pointer(target) => self.place(client, target, &mut regions)?,
            });
        }
        let pending = client.begin(call.entry.number, &args);
        let actor = actor.to_string();
        let first = args.first().copied();
        let call = call.clone();
        self.running.push(Running { step: number, actor, call, first, pending, regions });
        Ok(())
    }

    /// Returns `true` if a step closes a descriptor on which a call of the same process waits. NetBSD's
    /// close then waits for that call, and if the process goes meanwhile a rump kernel hangs: the close
    /// keeps the table of descriptors locked, which the other call needs to end.
    pub fn closes_in_use(&self, step: &Step) -> bool {
        let Act::Call(call) = &step.act else { return false };
        let (at, is_from) = match call.entry.alias {
            "close" => (0, false),
            "dup2" | "dup3" => (1, false),
            "fcntl" if is_number(call.args.get(1), F_CLOSEM) => (0, true),
            _ => return false,
        };
        let Some(Arg::Value(value)) = call.args.get(at) else { return false };
        let closed = self.value(value) as i32;
        self.running.iter().filter(|running| running.actor == step.actor).any(|running| {
            running.first.is_some_and(|fd| fd as i32 == closed || is_from && fd as i32 > closed)
        })
    }

    fn value(&self, value: &Value) -> i64 {
        match value {
            Value::Number(number) => *number,
            Value::Slot(name) => self.slots.get(name).copied().unwrap_or(-1),
            Value::Pid { actor, is_negative } => {
                let pid = self.actors.get(actor).map_or(i64::from(i32::MAX), |actor| actor.pid);
                if *is_negative { -pid } else { pid }
            }
            Value::Port(port) => {
                let of = (self.sequence % SEQUENCES_OF_PORTS) as u16;
                i64::from(FIRST_PORT + of * PORTS + port % PORTS)
            }
        }
    }

    /// Puts a pointer's target into the client's memory, and returns its address.
    fn place(
        &self,
        client: &Client,
        target: &Target,
        regions: &mut Vec<Region>,
    ) -> Result<u64, Broken> {
        let block = match target {
            Target::Null => return Ok(0),
            Target::Nowhere => return Ok(NOWHERE),
            Target::Block(block) => block,
        };
        let (bytes, own) = self.bytes(client, block, regions)?;
        let addr = client.space().alloc_from(&bytes)?;
        regions.push(Region { addr, len: bytes.len(), layout: block.layout, own });
        Ok(addr)
    }

    fn bytes(
        &self,
        client: &Client,
        block: &Block,
        regions: &mut Vec<Region>,
    ) -> Result<(Vec<u8>, Vec<Range<usize>>), Broken> {
        let (mut bytes, mut own) = (Vec::new(), Vec::new());
        for part in &block.parts {
            match part {
                Part::Int { value, width } => {
                    if let Value::Pid { .. } = value {
                        own.push(bytes.len()..bytes.len() + width);
                    }
                    bytes.extend_from_slice(&self.value(value).to_le_bytes()[..*width]);
                }
                Part::NetworkPort(value) => {
                    bytes.extend_from_slice(&(self.value(value) as u16).to_be_bytes());
                }
                Part::Bytes(text) => bytes.extend_from_slice(text),
                Part::Directory => bytes.extend_from_slice(self.directory.as_bytes()),
                Part::Descriptors(values) => {
                    let mut set = [0; 32];
                    for value in values {
                        let fd = self.value(value);
                        if (0..256).contains(&fd) {
                            set[fd as usize / 8] |= 1 << (fd % 8);
                        }
                    }
                    bytes.extend_from_slice(&set);
                }
                Part::Room(len) => bytes.resize(bytes.len() + len, UNTOUCHED),
                Part::Pointer(target) => {
                    own.push(bytes.len()..bytes.len() + 8);
                    let addr = self.place(client, target, regions)?;
                    bytes.extend_from_slice(&addr.to_le_bytes());
                }
            }
        }
        Ok((bytes, own))
    }

    /// Takes the messages that have come from the server, and files the calls that have ended.
    pub fn look(&mut self) {
        for actor in self.actors.values() {
            // A lost connection shows in the calls pending on it.
            let _ = actor.client.pump();
        }
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].pending.try_finish() {
                Some(result) => {
                    let running = self.running.remove(at);
                    self.finish(running, result);
                }
                None => at += 1,
            }
        }
    }

    /// Waits a moment for the end of a step's call.
    pub fn wait(&mut self, step: usize, time: Duration) {
        if let Some(running) = self.running.iter_mut().find(|running| running.step == step) {
            running.pending.finish_timeout(time);
        }
    }

    fn finish(&mut self, running: Running, result: Result<[i64; 2], CallError>) {
        let Running { step, actor, call, regions, .. } = running;
        let value = result.as_ref().map_or(-1, |values| values[0]);
        let client = &self.actors[&actor].client;
        let raw: Vec<Vec<u8>> = regions
            .iter()
            .map(|region| client.space().read(region.addr, region.len as u64).unwrap_or_default())
            .collect();
        for region in &regions {
            let _ = client.space().free(region.addr);
        }
        let named = match (&call.slots, &result) {
            (_, Err(_)) => Vec::new(),
            (Slots::Values(names), Ok(values)) => {
                names.iter().cloned().zip(values.iter().copied()).collect()
            }
            (Slots::Memory(names), Ok(_)) => {
                let ints = raw.last().into_iter().flat_map(|bytes| bytes.chunks_exact(4));
                let ints = ints.map(|int| i32::from_le_bytes([int[0], int[1], int[2], int[3]]));
                names.iter().cloned().zip(ints.map(i64::from)).collect::<Vec<_>>()
            }
        };
        self.slots.extend(named);
        let ending = match result {
            Ok(values) => Ending::Values(self.comparable(&call, values)),
            Err(error) => Ending::of(&error),
        };
        let pid = |pid| self.pid_number(pid);
        let memory = regions.iter().zip(raw).map(|(region, mut bytes)| {
            for range in &region.own {
                bytes[range.clone()].fill(0);
            }
            mask(region.layout, &mut bytes, value, &pid);
            bytes
        });
        let memory = memory.collect();
        self.ended.insert(step, Outcome { ending, memory });
    }

    /// Returns the return values in a form that can be compared: process ids become their actors'
    /// numbers. A second value is kept only if the call has one; otherwise it is whatever a register
    /// happened to hold.
    fn comparable(&self, call: &Call, [value, second]: [i64; 2]) -> [i64; 2] {
        let pid = |value| self.pid_number(value);
        match call.entry.name {
            "getpid" => [pid(value), pid(second)],
            "getppid" | "getpgrp" | "getpgid" | "getsid" | "setsid" => [pid(value), 0],
            "fcntl" if is_number(call.args.get(1), F_GETOWN) => [pid(value), 0],
            "pipe" | "getuid" | "getgid" => [value, second],
            _ => [value, 0],
        }
    }

    fn pid_number(&self, pid: i64) -> i64 {
        let of = |pid: i64| self.pids.iter().position(|&known| known == pid);
        match (of(pid), of(-pid)) {
            (Some(at), _) => FIRST_PID + at as i64,
            (None, Some(at)) => -FIRST_PID - at as i64,
            (None, None) => pid,
        }
    }

    /// Returns the outcomes of the steps that have ended so far.
    pub fn ended(&self) -> &BTreeMap<usize, Outcome> {
        &self.ended
    }

    /// Returns the outcome of a step, if it has ended.
    pub fn outcome(&self, step: usize) -> Option<&Outcome> {
        self.ended.get(&step)
    }

    /// Returns `true` if calls are in flight.
    pub fn is_waiting(&self) -> bool {
        !self.running.is_empty()
    }

    /// Returns the signals that each actor has had so far.
    pub fn signals(&self) -> BTreeMap<String, Vec<i32>> {
        let heard = self.actors.iter().map(|(name, actor)| {
            let signals = actor.signals.lock().unwrap_or_else(PoisonError::into_inner);
            (name.clone(), signals.clone())
        });
        heard.filter(|(_, signals)| !signals.is_empty()).collect()
    }

    /// Checks that the server still answers.
    pub fn is_alive(&self) -> Result<(), Broken> {
        match self.control.call(sys::GETPID, &[]) {
            Ok(_) => Ok(()),
            Err(CallError::Errno(Errno(_))) => Ok(()),
            Err(error) => self.check("getpid".into(), Err(error)),
        }
    }
}

fn is_number(arg: Option<&Arg>, number: i64) -> bool {
    matches!(arg, Some(Arg::Value(Value::Number(it))) if *it == number)
}
