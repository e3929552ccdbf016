//! The simulator: the real core, sessions, send queues and dispatch, on a ring, a clock, a kernel and
//! clients that are only memory. A seed decides all that happens and in which order: how bytes are cut,
//! what completes when, which client is slow, wild or gone, which worker takes which task, what the
//! kernel refuses.
//!
//! One schedule is some hundred steps. Then everybody calms down, and the simulator checks these rules:
//!
//! - Every call is answered once, correctly, and after what it copied out, or its client is gone.
//! - Nothing that is owed to one client goes to another.
//! - A client that behaves is served to the end, and the server does not hang up on it.
//! - Every process, prefork, chunk of memory, timer and socket comes back.
//!
//! `cargo test` runs some thousand schedules. `SCHEDULES=1000000 cargo test --release --lib simulator`
//! runs more, and `SEED=n` runs one of them again. A failure names its seed.

mod client;
mod kernel;
mod net;
mod turns;

pub use turns::wait_until;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use ring::{Arena, ArenaClass, ArenaConfig, Peer, Socket};

use super::access::Access;
use super::core::ServerCore;
use super::inline::Inline;
use super::job::{Context, Job};
use super::limits::{AnswerTime, Limits};
use super::mailbox::{Mailbox, Message};
use super::shared::Shared;
use crate::scheduler::{Scheduler, Task as _};
use crate::seeds::on_all_cpus;
use rumpsp::wire;

use client::{Broken, FakeClient, Manners};
use kernel::{FakeKernel, World};
use net::{Event, FakeRing};
use turns::Troupe;

/// The steps in which everything must have come to rest once everybody is calm.
const PATIENCE: usize = 20_000;

/// The number of peers, and the number of connections that each may have.
const PEERS: u32 = 3;
const PER_PEER: usize = 3;

/// The time that a client has once the server hangs up: so short that it may end within a schedule, or so
/// long that it does not.
const LINGER: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(500)];

/// The number of the scheduler's deques.
const CORES: usize = 3;

/// A server of which only the middle is real.
struct Simulation {
    random: fastrand::Rng,
    world: Arc<World>,
    ring: FakeRing,
    arena: Arena,
    core: ServerCore,
    mailbox: Arc<Mailbox>,
    scheduler: Scheduler<Job>,
    /// The threads of calls, if calls wait on threads.
    troupe: Troupe,
    clients: Vec<FakeClient>,
    next_id: u64,
    is_calm: bool,
    /// True if the server's limits are so strict that it hangs up on clients that behave.
    is_strict: bool,
    /// True if the server can tell clients that send no more from those that have gone.
    is_local: bool,
    linger: Duration,
    /// True if the server may end any connection, because of strict limits or because it stops.
    may_end: bool,
}

/// Returns small limits, so that they are reached. With strict limits, the server may hang up on clients
/// that behave, too.
fn limits(random: &mut fastrand::Rng, is_strict: bool) -> Limits {
    let time = Duration::from_millis(if is_strict { 300 } else { 600_000 });
    let mut limits = Limits {
        handshake: time,
        answer: if random.bool() { AnswerTime::Bounded(time) } else { AnswerTime::Unbounded },
        calls_in_all: 60,
        queued: random.usize(1..20),
        send_queue_pause: random.usize(1000..100_000),
        send_queue_max: if is_strict { 150_000 } else { 1 << 30 },
        send_queue_total: if is_strict { random.usize(100_000..1 << 20) } else { 1 << 30 },
        copyin_cache: random.usize(..50_000),
        copyin_cache_total: if is_strict { random.usize(..100_000) } else { 1 << 30 },
        backlog: random.usize(100..20_000),
        preforks: 3,
        preforks_in_all: 5,
        orphan: Duration::from_millis(random.u64(..100)),
        linger: *random.choice(&LINGER).expect("there are some"),
        spare_tasks: random.usize(..10),
        ..Limits::default()
    };
    limits.session.calls = random.usize(2..40);
    limits
}

impl Simulation {
    fn new(seed: u64, troupe: Troupe) -> Simulation {
        let mut random = fastrand::Rng::with_seed(seed);
        let restarts = random.u8(..4) > 0;
        let world = World::new(Instant::now(), random.u64(..), restarts);
        let kernel = Arc::new(FakeKernel { world: world.clone(), prompt: random.u32(..) });
        let classes = [64, 1024, 8192].map(|capacity| ArenaClass { capacity, count: 16 });
        let arena = Arena::new(&ArenaConfig { classes }).expect("some memory");
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let context = Context { kernel, mailbox: mailbox.clone(), panics: Arc::default() };
        let (scheduler, dispatcher) = Scheduler::without_threads(CORES, context.clone());
        let is_strict = random.u8(..4) == 0;
        let limits = limits(&mut random, is_strict);
        let (linger, is_local) = (limits.linger, random.bool());
        let shared = Shared::new(arena.clone(), limits, dispatcher, scheduler.injector(), context);
        let banner = wire::banner("Fake", "1", "none");
        let access = Access { per_peer: Some(PER_PEER), ..Access::default() };
        let core = ServerCore::new(banner, shared, access, is_local);
        Simulation {
            random,
            world,
            ring: FakeRing::default(),
            arena,
            core,
            mailbox,
            scheduler,
            troupe,
            clients: Vec::new(),
            next_id: 0,
            is_calm: false,
            is_strict,
            is_local,
            linger,
            may_end: is_strict,
        }
    }

    /// Runs the whole schedule, which follows from the seed.
    fn schedule(&mut self) -> Result<(), Broken> {
        for _ in 0..self.random.usize(20..400) {
            self.step()?;
            if self.is_halted() {
                return self.halted();
            }
        }
        self.calm_down()?;
        if self.halting().is_some() {
            let is_halted = self.is_halted();
            return if is_halted { self.halted() } else { Err("it goes on after a halt".into()) };
        }
        if self.random.u8(..4) == 0 {
            self.stop()?;
        }
        self.everybody_goes()?;
        self.is_empty()
    }

    /// Lets one thing happen.
    fn step(&mut self) -> Result<(), Broken> {
        match self.random.u8(..16) {
            0 if self.clients.len() < 8 => self.connect(),
            1 if self.random.u8(..4) == 0 => self.one_vanishes(),
            2 => self.pass_time(),
            0..6 => {
                let random = &mut self.random;
                if let Some(client) = pick(&mut self.clients, random)
                    && let Some(wire) = self.ring.wire(client.socket)
                {
                    client.act(wire, random);
                }
            }
            6 | 7 => {
                if !self.clients.is_empty() {
                    let at = self.random.usize(..self.clients.len());
                    self.listen(at)?;
                }
            }
            8..12 => {
                self.run_a_job();
            }
            _ => {
                self.turn()?;
            }
        }
        self.broken()
    }

    fn broken(&self) -> Result<(), Broken> {
        let broken = *self.world.broken.lock().expect("no poison");
        broken.map_or(Ok(()), |rule| Err(format!("the kernel: not so: {rule}")))
    }

    /// Connects a client, perhaps with a token of another.
    fn connect(&mut self) {
        let manners = match self.random.u8(..10) {
            0 => Manners::Silent,
            1 => Manners::Wild,
            2..4 => Manners::Slow,
            _ => Manners::Good,
        };
        let parent = pick(&mut self.clients, &mut self.random);
        let token = parent.and_then(|parent| parent.tokens.pop());
        let peer = Peer::User { pid: 1, uid: self.random.u32(..PEERS), gid: 1, groups: Vec::new() };
        let socket = self.ring.connect(peer, &mut self.random);
        self.next_id += 1;
        let mut client = FakeClient::new(socket, self.next_id, manners, token);
        client.may_end = self.may_end;
        client.may_half_close = self.is_local && self.linger > LINGER[0];
        self.clients.push(client);
    }

    /// Takes a new connection of the ring to the core. One connection too many of a peer has to be turned
    /// away.
    fn accepted(&mut self, socket: Socket, peer: &Peer) -> Result<(), Broken> {
        let (inside, stats) = (self.ring.inside(peer), self.core.stats());
        self.core.accepted(socket, Some(peer), &mut self.ring);
        if self.core.is_stopping() {
            return Ok(());
        }
        let is_in = self.core.stats().turned_away == stats.turned_away;
        self.ring.wire(socket).expect("it is not closed before the next turn").inside = is_in;
        if let Some(client) = self.clients.iter_mut().find(|client| client.socket == socket) {
            client.may_end |= !is_in;
        }
        if is_in == (inside < PER_PEER) {
            Ok(())
        } else {
            Err(format!("a peer with {inside} connections is let in: {is_in}"))
        }
    }

    fn one_vanishes(&mut self) {
        let is_reset = self.random.bool();
        if let Some(client) = pick(&mut self.clients, &mut self.random)
            && let Some(wire) = self.ring.wire(client.socket)
        {
            client.vanish(wire, is_reset);
            let socket = client.socket;
            self.clients.retain(|client| client.socket != socket);
        }
    }

    fn pass_time(&mut self) {
        let most = if self.random.u8(..8) == 0 { 2000 } else { 20 };
        self.world.advance(Duration::from_micros(self.random.u64(..most * 1000)));
    }

    /// Lets a client read and answer. Returns `true` if it had anything to do.
    fn listen(&mut self, at: usize) -> Result<bool, Broken> {
        let (random, client) = (&mut self.random, &mut self.clients[at]);
        let Some(wire) = self.ring.wire(client.socket) else {
            self.clients.swap_remove(at);
            return Ok(true);
        };
        let had_any = !wire.to_client.is_empty();
        client.read(wire, random, self.is_calm)?;
        let answered = client.answer(wire, random, self.is_calm);
        if client.has_ended() {
            // The client closes its end, too.
            client.vanish(wire, false);
            self.clients.swap_remove(at);
            return Ok(true);
        }
        Ok(had_any || answered)
    }

    /// Lets a worker take a task, or a call that waits go on. Returns `true` if there was either. A panic
    /// in a job is ignored.
    fn run_a_job(&mut self) -> bool {
        let is_first = self.random.bool();
        (is_first && self.start_a_job())
            || self.go_on_with_a_call()
            || (!is_first && self.start_a_job())
    }

    /// Lets the first call go on that can, of those that wait on their threads. Returns `true` if there
    /// was one.
    fn go_on_with_a_call(&mut self) -> bool {
        let count = self.troupe.waiting();
        if count == 0 {
            return false;
        }
        let first = self.random.usize(..count);
        (0..count).any(|offset| self.troupe.go_on((first + offset) % count))
    }

    fn take_a_job(&mut self) -> Option<Job> {
        let first = self.random.usize(..=CORES);
        (0..=CORES).find_map(|offset| self.scheduler.take_one((first + offset) % (CORES + 1)))
    }

    fn start_a_job(&mut self) -> bool {
        let Some(job) = self.take_a_job() else {
            return false;
        };
        let context = self.core.context().clone();
        let act = move || {
            let _ = catch_unwind(AssertUnwindSafe(|| job.run(&context)));
            context.mailbox.deliver();
        };
        if self.world.restarts {
            act()
        } else {
            self.troupe.run(Box::new(act))
        }
        true
    }

    /// Runs a turn of the submission thread: some events, and the rest of the turn. Returns `true` if
    /// there was anything to do.
    fn turn(&mut self) -> Result<bool, Broken> {
        let mut had_any = !self.mailbox.is_empty() || self.core.has_ready();
        self.core.set_time(self.world.now());
        let most = if self.is_calm { usize::MAX } else { self.random.usize(..8) };
        for _ in 0..most {
            let Some(event) = self.ring.next(&mut self.random, self.is_calm) else {
                break;
            };
            had_any = true;
            match event {
                Event::Accepted(socket, peer) => self.accepted(socket, &peer)?,
                Event::Received(socket, bytes) => self.core.received(socket, &bytes),
                Event::RecvEnded(socket) => self.core.receive_ended(socket, &mut self.ring),
                Event::HungUp(socket) => self.core.hung_up(socket),
                Event::Sent(socket, is_ok) => self.core.sent(socket, is_ok),
                Event::Closed(socket) => self.core.closed(socket),
            }
        }
        let world = self.world.clone();
        self.core.turn(&self.mailbox, &mut self.ring, || world.now());
        if self.core.is_stopping() && !self.may_end {
            self.may_end = true;
            for client in &mut self.clients {
                client.may_end = true;
            }
        }
        Ok(had_any)
    }

    /// Goes on until nothing happens any more.
    fn settle(&mut self) -> Result<(), Broken> {
        for _ in 0..PATIENCE {
            let mut had_any = self.turn()?;
            while self.run_a_job() {
                had_any = true;
            }
            for at in (0..self.clients.len()).rev() {
                had_any |= self.listen(at)?;
            }
            self.broken()?;
            if !had_any || self.is_halted() {
                return Ok(());
            }
        }
        Err("it does not come to rest".into())
    }

    /// Lets everybody calm down: nothing fails any more, and everybody reads and answers. Clients that
    /// behave must have been served then.
    fn calm_down(&mut self) -> Result<(), Broken> {
        self.is_calm = true;
        self.world.is_calm.store(true, SeqCst);
        self.settle()?;
        // This time is longer than every sleep, but too short for the server to hang up on a silent
        // client.
        for _ in 0..6 {
            self.world.advance(Duration::from_millis(10));
            self.settle()?;
        }
        for client in self.clients.iter().filter(|client| client.is_good()) {
            if let Some(number) = client.unsent() {
                return Err(format!("call {number} of a good client has no answer"));
            }
            if !client.is_answered() {
                return Err("a handshake or a prefork of a good client has no answer".into());
            }
        }
        let waiting: usize = self.clients.iter().map(FakeClient::waits).sum();
        // Nonsense may have become a call that takes a signal: once for each client of the schedule.
        for _ in 0..waiting as u64 + self.next_id {
            self.world.signal();
        }
        self.settle()?;
        match self.clients.iter().find(|client| client.is_good() && client.waits() > 0) {
            Some(_) => Err("a call waits for signals that there are".into()),
            None => Ok(()),
        }
    }

    /// Tells the server to stop: calls in flight end, and everybody is let go.
    fn stop(&mut self) -> Result<(), Broken> {
        self.mailbox.post(Message::Stop);
        self.settle()?;
        self.world.advance(Duration::from_secs(6));
        self.settle()?;
        self.world.advance(self.linger + Duration::from_secs(1));
        self.settle()?;
        if self.core.is_over() { Ok(()) } else { Err("it does not stop".into()) }
    }

    /// Returns `true` if a call that waits on its thread has halted the kernel, and knows that it was
    /// answered: the program would be at its end.
    fn is_halted(&self) -> bool {
        !self.world.halted_by.lock().expect("no poison").is_empty()
    }

    fn halting(&self) -> Option<Instant> {
        *self.world.halting.lock().expect("no poison")
    }

    /// Checks that the client that halted the kernel has its answer, or finds it when it reads, unless
    /// the client did not read for so long that it was given up.
    fn halted(&mut self) -> Result<(), Broken> {
        let given_up = self.halting().is_some_and(|at| self.world.now() - at >= self.linger);
        if given_up || self.is_strict {
            return Ok(());
        }
        let by = self.world.halted_by.lock().expect("no poison").clone();
        for client in self.clients.iter_mut().filter(|client| by.contains(&client.id())) {
            if let Some(wire) = self.ring.wire(client.socket).filter(|wire| !wire.has_failed) {
                client.read(wire, &mut self.random, true)?;
                if client.misses_halt() {
                    return Err("who halted the kernel has no answer".into());
                }
            }
        }
        Ok(())
    }

    fn everybody_goes(&mut self) -> Result<(), Broken> {
        while !self.clients.is_empty() {
            self.one_vanishes();
            self.clients.retain(|client| self.ring.wire(client.socket).is_some());
        }
        self.settle()?;
        // This is longer than all times that the server gives.
        for _ in 0..3 {
            self.world.advance(Duration::from_secs(1000));
            self.settle()?;
        }
        Ok(())
    }

    /// Checks that nothing of any client is left.
    fn is_empty(&self) -> Result<(), Broken> {
        let stats = self.core.stats();
        let left = [
            ("connections", stats.connections),
            ("calls", stats.calls_in_flight),
            ("preforks", stats.preforks),
            ("timers", stats.timers),
            ("bytes owed", stats.unsent),
            ("bytes kept", stats.kept),
            ("sockets", self.ring.live()),
            ("chunks of memory", (self.arena.lent() + self.arena.lent_from_heap()) as usize),
            ("calls on threads", self.troupe.waiting()),
            ("processes", self.world.processes.load(SeqCst) as usize),
            ("things that calls left to workers", self.world.left.load(SeqCst) as usize),
        ];
        match left.iter().find(|(_, count)| *count != 0) {
            Some((what, count)) => Err(format!("{count} {what} are left")),
            None => Ok(()),
        }
    }
}

fn pick<'a>(
    clients: &'a mut [FakeClient],
    random: &mut fastrand::Rng,
) -> Option<&'a mut FakeClient> {
    if clients.is_empty() {
        return None;
    }
    let at = random.usize(..clients.len());
    clients.get_mut(at)
}

/// Runs the schedule of one seed, with its calls on these threads.
fn run(seed: u64, troupe: &mut Troupe) -> Result<(), Broken> {
    let _here = Inline::begin();
    let mut simulation = Simulation::new(seed, std::mem::take(troupe));
    let outcome = simulation.schedule();
    simulation.troupe.leave();
    // A halt leaves tasks behind, which hold the scheduler and the mailbox, where they wait.
    while simulation.take_a_job().is_some() {}
    simulation.mailbox.take(&mut Vec::new());
    *troupe = simulation.troupe;
    outcome
}

/// Runs the schedules of these seeds, every `step`th. Returns what is wrong with the first that fails.
fn run_all(seeds: std::ops::Range<u64>, step: usize) -> Result<(), Broken> {
    let mut troupe = Troupe::default();
    for seed in seeds.step_by(step) {
        match catch_unwind(AssertUnwindSafe(|| run(seed, &mut troupe))) {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => return Err(format!("SEED={seed}: {broken}")),
            Err(_) => return Err(format!("SEED={seed}: it panicked")),
        }
    }
    Ok(())
}

#[test]
fn schedules() {
    println!("{} schedules", on_all_cpus("SCHEDULES", 3000, run_all));
}
