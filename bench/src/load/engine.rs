//! One load thread: a ring, and the clients whose sockets are in it.
//!
//! Each turn handles the events that have come, then sends the resulting bytes with the one system call
//! that also waits for more events. Clients and links know no sockets; the engine knows which bytes
//! belong to which client.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ring::{Arena, Event, Ring, Socket, Then, Waker};
use rumpsp::url::Url;

use super::dialer::{Dialer, Whose};
use super::measured::Measured;
use super::pace::Pace;
use super::share::Share;
use super::tally::Tally;
use super::{Plan, room};
use crate::connection::{Client, Heard, Hello, Link, Note, PATIENCE, Role, SendQueue};
use crate::workload::fair;

/// The most bytes that go in one send.
const MOST_SENT: usize = 72 << 10;

/// The time the server has to remove the things the load would leave behind.
const LEAVING: Duration = Duration::from_secs(5);

/// The work of a thread.
#[derive(Clone, Debug)]
pub struct Task {
    pub url: Url,
    pub plan: Plan,
    /// The thread's share of the plan's connections.
    pub share: Share,
    /// Calls a second of all connections of the plan.
    pub rate: Option<u64>,
    /// The time the thread looks for answers before it sleeps.
    pub spin: Duration,
    /// The time between two progress reports.
    pub progress: Option<Duration>,
}

impl Task {
    /// Returns `true` if the calls of a client have a schedule.
    fn schedules(&self, client: &Client) -> bool {
        self.rate.is_some() || client.is_slow()
    }
}

/// The time in which a thread makes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: Instant,
    /// The warm-up, in which calls do not count.
    pub warm_up: Duration,
    /// The time in which calls count.
    pub length: Duration,
}

/// A handle by which other threads end a thread's run.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Control {
    /// Ends the run now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The phase of a thread's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Running,
    Leaving,
}

/// A socket of the ring.
struct Line {
    socket: Socket,
    whose: Whose,
    link: Link,
    is_sending: bool,
    is_closing: bool,
    /// True if the line is on the list of those that have bytes to send.
    is_listed: bool,
}

/// A thread's load.
pub struct Engine {
    task: Task,
    control: Arc<Control>,
    ring: Ring,
    arena: Arena,
    dialer: Dialer,
    clients: Vec<Client>,
    /// The index of each client's own socket in `lines`, if it has a socket.
    homes: Vec<Option<u32>>,
    /// The lines, by their sockets' slots in the ring's table.
    lines: Vec<Option<Line>>,
    /// The lines that have bytes to send.
    listed: Vec<u32>,
    phase: Phase,
    tally: Tally,
    /// The schedule, if there is one, and the time it began.
    pace: Option<(Pace, Instant)>,
    /// Calls that wait to be due: client and slot, the one that waits longest first.
    idle: VecDeque<(u32, u32)>,
    /// The number of calls in flight.
    busy: u64,
    /// The number of clients that have removed what they would leave behind.
    left: u32,
    /// The time at which something was last received.
    heard: Instant,
}

impl Engine {
    /// Connects all clients and has them set up what they need.
    pub fn connect(task: &Task, control: &Arc<Control>) -> io::Result<Engine> {
        let mut engine = Engine::new(task, control)?;
        while engine.phase == Phase::Connecting && !engine.dialer.is_done() {
            if control.is_stopped() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "ended while connecting"));
            }
            engine.turn(None)?;
        }
        Ok(engine)
    }

    fn new(task: &Task, control: &Arc<Control>) -> io::Result<Engine> {
        let Plan { call, in_flight, .. } = task.plan;
        let sockets = room::sockets(call, task.share.count, in_flight);
        let config = ring::Config { spin: task.spin, ..room::ring(call, sockets) };
        let ring = Ring::new(&config).map_err(io::Error::other)?;
        // Only this thread sets the waker, and only once.
        let _ = control.waker.set(ring.waker());
        let mut engine = Engine {
            task: task.clone(),
            control: Arc::clone(control),
            arena: ring.arena(),
            ring,
            dialer: Dialer::new(task.url.clone()),
            clients: Vec::with_capacity(task.share.count as usize),
            homes: vec![None; task.share.count as usize],
            lines: Vec::new(),
            listed: Vec::new(),
            phase: Phase::Connecting,
            tally: Tally::new(call.parts().len())?,
            pace: None,
            idle: VecDeque::new(),
            busy: 0,
            left: 0,
            heard: Instant::now(),
        };
        for number in 0..task.share.count {
            engine.add_client(number);
        }
        Ok(engine)
    }

    fn add_client(&mut self, number: u32) {
        let Plan { call, connections, in_flight } = self.task.plan;
        let global = self.task.share.first + number;
        let role = Role::of(call, global, connections);
        let name = format!("{}.{global}", std::process::id());
        self.clients.push(Client::new(call, role, in_flight, &name, global.into()));
        // The second client of a pair follows when the first is ready.
        if call.stays() && role != Role::Second {
            self.dialer.push(Whose::Client(number), Hello::Guest);
        }
    }

    /// Keeps the calls going and counts them. Intermediate results go to `progress`.
    pub fn run(&mut self, run: Run, mut progress: impl FnMut(Measured)) -> io::Result<Measured> {
        std::thread::sleep(run.start.saturating_duration_since(Instant::now()));
        let warm = run.start + run.warm_up;
        let end = warm + run.length;
        self.begin_all(run.start);
        let mut next_progress = self.task.progress.map(|every| run.start + every);
        loop {
            let now = Instant::now();
            if !self.tally.is_counting() && now >= warm {
                // Without a warm-up all calls count, however late this thread was woken.
                self.tally.begin(if run.warm_up.is_zero() { run.start } else { now });
            }
            if now >= end || self.control.is_stopped() {
                // By the schedule no call is due after the end, however late this thread was woken.
                let at = if self.pace.is_some() { now.min(end) } else { now };
                return self.finish(at, now < end);
            }
            if let (Some(when), Some(every)) = (next_progress, self.task.progress)
                && now >= when
            {
                progress(self.tally.so_far(now)?);
                next_progress = Some(now + every);
            }
            let mut until = if self.tally.is_counting() { end } else { warm };
            until =
                [self.send_due(now), next_progress].into_iter().flatten().fold(until, Instant::min);
            self.turn(Some(until))?;
        }
    }

    /// Begins the first calls of all clients.
    fn begin_all(&mut self, start: Instant) {
        self.phase = Phase::Running;
        self.heard = Instant::now();
        let Task { plan, share, .. } = self.task;
        self.pace = self.schedule().map(|pace| {
            // The kernel may wake a thread later by this much, 50 us by default. A failure does not
            // matter: latencies count from when a call was due.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            (pace, start)
        });
        for slot in 0..plan.in_flight {
            for client in 0..share.count {
                if slot < self.clients[client as usize].slots() {
                    self.free(client, slot, start);
                }
            }
        }
    }

    /// Returns the schedule of the calls that have one.
    fn schedule(&self) -> Option<Pace> {
        let Task { plan, share, rate, .. } = self.task;
        if let Some(rate) = rate {
            let of_all = u64::from(plan.connections);
            return Some(Pace::new(rate, share.count.into(), of_all, share.first.into()));
        }
        let has_slow = self.clients.iter().any(Client::is_slow);
        has_slow.then(|| Pace::new(fair::SLOW_RATE, 1, 1, 0))
    }

    /// Sends the calls that are due, and returns when the next will be due, if a client is free for it.
    fn send_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some((pace, start)) = &mut self.pace
            && let Some(&(client, slot)) = self.idle.front()
        {
            let due = *start + Duration::from_nanos(pace.due());
            if due > now {
                return Some(due);
            }
            pace.advance();
            self.idle.pop_front();
            self.begin(client, slot, due);
        }
        None
    }

    /// Handles a call slot that has no call in flight any more: begins a call, or waits for the
    /// schedule.
    fn free(&mut self, client: u32, slot: u32, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        if self.task.schedules(&self.clients[client as usize]) {
            self.idle.push_back((client, slot));
        } else {
            self.begin(client, slot, now);
        }
    }

    /// Begins a call, whose latency counts from `since`.
    fn begin(&mut self, client: u32, slot: u32, since: Instant) {
        if self.busy == 0 {
            self.heard = Instant::now();
        }
        self.busy += 1;
        let home = self.homes[client as usize];
        let line = home.and_then(|home| self.lines[home as usize].as_mut());
        let mut none = SendQueue::default();
        let out = line.map_or(&mut none, |line| &mut line.link.out);
        let note = self.clients[client as usize].begin(slot, since, out);
        if let Some(home) = home {
            self.list(home);
        }
        if let Some(note) = note {
            self.noted(client, note, since);
        }
    }

    /// Ends the run: counts the calls still unanswered or unsent, and returns the results.
    fn finish(&mut self, now: Instant, is_cut_short: bool) -> io::Result<Measured> {
        self.phase = Phase::Leaving;
        if let Some((pace, start)) = &self.pace {
            let scheduled = self.clients.iter().filter(|client| self.task.schedules(client));
            for (part, since) in scheduled.flat_map(Client::in_flight) {
                self.tally.unanswered(part, now.saturating_duration_since(since));
            }
            let now = now.saturating_duration_since(*start).as_nanos() as u64;
            // In a mix, the parts of unsent calls have not been chosen yet.
            let part = self.task.rate.is_none().then_some(fair::SLOW);
            for (latency, count) in pace.late(now) {
                self.tally.unsent(part, latency, count);
            }
        }
        let mut measured = self.tally.so_far(now)?;
        measured.is_cut_short = is_cut_short;
        Ok(measured)
    }

    /// Removes the things that would stay in the server's kernel, as far as the server does that in
    /// time.
    pub fn leave(mut self) -> io::Result<()> {
        self.phase = Phase::Leaving;
        let mut leaving = 0;
        for client in 0..self.clients.len() {
            let Some(home) = self.homes[client] else { continue };
            let Some(line) = &mut self.lines[home as usize] else { continue };
            leaving += u32::from(self.clients[client].leave(&mut line.link.out));
            self.list(home);
        }
        let end = Instant::now() + LEAVING;
        while self.left < leaving && Instant::now() < end {
            self.turn(Some(end))?;
        }
        Ok(())
    }

    /// Sends the bytes there are, waits for events, and handles them.
    fn turn(&mut self, until: Option<Instant>) -> io::Result<()> {
        self.dial()?;
        self.send();
        let hung = self.heard + PATIENCE;
        let deadline =
            [until, self.dialer.retry_at()].into_iter().flatten().fold(hung, Instant::min);
        let is_heeded = self.phase != Phase::Leaving;
        let control = &self.control;
        let wait = self.ring.wait(Some(deadline), || !(is_heeded && control.is_stopped()));
        wait.map_err(io::Error::other)?;
        while let Some(event) = self.ring.next_event() {
            self.happened(event)?;
        }
        let is_waiting = self.busy > 0 || !self.dialer.is_done();
        if Instant::now() >= self.heard + PATIENCE {
            if is_waiting {
                return Err(io::Error::other("the server answered nothing for a minute"));
            }
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// Makes the connections that are waiting to be made.
    fn dial(&mut self) -> io::Result<()> {
        while let Some((whose, hello, fd)) = self.dialer.next().map_err(|error| {
            io::Error::new(error.kind(), format!("connecting to {}: {error}", self.task.url))
        })? {
            let socket = self.ring.adopt(fd).map_err(io::Error::other)?;
            self.ring.resume(socket);
            let index = socket.index();
            if index >= self.lines.len() {
                self.lines.resize_with(index + 1, || None);
            }
            let link = Link::new(hello, self.task.plan.call.size().max(1));
            let (is_sending, is_closing, is_listed) = (false, false, false);
            let line = Line { socket, whose, link, is_sending, is_closing, is_listed };
            self.lines[index] = Some(line);
            if let Whose::Client(client) = whose {
                self.homes[client as usize] = Some(index as u32);
            }
        }
        Ok(())
    }

    /// Lists a line to be sent from before the next wait.
    fn list(&mut self, index: u32) {
        if let Some(line) = &mut self.lines[index as usize]
            && !line.is_listed
            && !line.link.out.is_empty()
        {
            line.is_listed = true;
            self.listed.push(index);
        }
    }

    /// Sends the waiting bytes of each listed line that has no send in flight.
    fn send(&mut self) {
        for index in self.listed.drain(..) {
            let Some(line) = &mut self.lines[index as usize] else { continue };
            line.is_listed = false;
            if line.is_sending || line.is_closing || line.link.out.is_empty() {
                continue;
            }
            let mut chunk = self.arena.chunk(line.link.out.len().min(MOST_SENT));
            line.link.out.take(chunk.room(), |piece| {
                chunk.put(piece);
            });
            // If the server has hung up, the receiving side reports that.
            line.is_sending = self.ring.send(line.socket, [chunk], Then::Nothing).is_ok();
        }
    }

    fn happened(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Received { socket, data } => self.received(socket, &data),
            Event::Sent { socket, result } => self.sent(socket, result),
            Event::RecvEnded { socket, error } => self.hung_up(socket, error),
            Event::Closed { socket } => {
                self.closed(socket);
                Ok(())
            }
            // This ring neither listens nor watches.
            Event::Accepted { .. } | Event::AcceptFailed { .. } | Event::HungUp { .. } => Ok(()),
        }
    }

    fn received(&mut self, socket: Socket, data: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        self.heard = now;
        let index = socket.index();
        let mut input = data;
        loop {
            let Some(line) = self.lines[index].as_mut().filter(|line| !line.is_closing) else {
                return Ok(());
            };
            let whose = line.whose;
            let heard = line.link.hear(&mut input).map_err(|error| self.explain(whose, error))?;
            let Some(heard) = heard else { break };
            match whose {
                Whose::Client(client) => {
                    let line = self.lines[index].as_mut().expect("it was just there");
                    let note = self.clients[client as usize].heard(heard, &mut line.link.out);
                    if let Some(note) = note.map_err(|error| self.explain(whose, error))? {
                        self.noted(client, note, now);
                    }
                }
                Whose::Child { client, slot } => {
                    self.child_heard(socket, client, slot, heard, now)?
                }
            }
        }
        self.list(index as u32);
        Ok(())
    }

    /// Handles a message to a child, which must be the answer to its handshake.
    fn child_heard(
        &mut self,
        socket: Socket,
        client: u32,
        slot: u32,
        heard: Heard,
        now: Instant,
    ) -> io::Result<()> {
        if heard != Heard::Up {
            let error =
                io::Error::other(format!("the server sent what was not expected: {heard:?}"));
            return Err(self.explain(Whose::Child { client, slot }, error));
        }
        if let Some(line) = &mut self.lines[socket.index()] {
            line.is_closing = true;
        }
        self.ring.close(socket);
        let note = self.clients[client as usize].child_is_up(slot);
        self.noted(client, note, now);
        Ok(())
    }

    fn noted(&mut self, client: u32, note: Note, now: Instant) {
        match note {
            Note::Ready => self.dialer.is_set_up(),
            Note::Partner { token, ends } => {
                self.dialer.is_set_up();
                self.clients[client as usize + 1].set_ends(ends);
                self.dialer.push_first(Whose::Client(client + 1), Hello::Fork(token));
            }
            Note::Dial { slot, hello } => self.dialer.push(Whose::Child { client, slot }, hello),
            Note::Answered { slot, part, since } => {
                self.busy -= 1;
                if self.phase == Phase::Running {
                    self.tally.answered(part, now.saturating_duration_since(since));
                }
                // A child has to hang up first.
                if !self.task.plan.call.has_children() {
                    self.free(client, slot, now);
                }
            }
            Note::Left => self.left += 1,
        }
    }

    fn sent(&mut self, socket: Socket, result: io::Result<usize>) -> io::Result<()> {
        let Some(line) = &mut self.lines[socket.index()] else { return Ok(()) };
        line.is_sending = false;
        let whose = line.whose;
        if let Err(error) = result
            && !line.is_closing
        {
            return Err(self.explain(whose, lost(Some(error))));
        }
        self.list(socket.index() as u32);
        Ok(())
    }

    fn hung_up(&self, socket: Socket, error: Option<io::Error>) -> io::Result<()> {
        match &self.lines[socket.index()] {
            Some(line) if !line.is_closing => Err(self.explain(line.whose, lost(error))),
            _ => Ok(()),
        }
    }

    fn closed(&mut self, socket: Socket) {
        let line = self.lines[socket.index()].take();
        if let Some(Whose::Child { client, slot }) = line.map(|line| line.whose) {
            self.free(client, slot, Instant::now());
        }
    }

    /// Adds to an error the connection it belongs to.
    fn explain(&self, whose: Whose, error: io::Error) -> io::Error {
        let (client, child) = match whose {
            Whose::Client(client) => (client, ""),
            Whose::Child { client, .. } => (client, "a child of "),
        };
        let number = self.task.share.first + client;
        let url = &self.task.url;
        io::Error::new(error.kind(), format!("{child}connection {number} to {url}: {error}"))
    }
}

/// Returns the reason why a connection ended. A server that hangs up on bytes it has not read resets
/// it.
fn lost(error: Option<io::Error>) -> io::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        Some(error) if !matches!(error.kind(), BrokenPipe | ConnectionReset) => error,
        _ => io::Error::new(UnexpectedEof, "the server hung up"),
    }
}
