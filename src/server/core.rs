//! The core of the server: the state of all connections, and its reactions to the ring and the workers.
//!
//! The core uses the ring only through the trait [`Net`], so tests run it on a simulated ring. The core
//! runs only on the submission thread, and never waits.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ring::{Chunk, Peer, Socket, Then};

use super::access::{Access, Admission};
use super::connection::{Connection, Input, SessionHost, Stage};
use super::inline;
use super::mailbox::{Done, Mailbox, Message, Out};
use super::shared::{Shared, Timer};
use super::stats::Stats;
use super::task::Task;
use kernel::{Errno, Outcome};
use rumpsp::session::{CallKey, CopyRequest, Host};

/// The operations on sockets that the core needs.
pub trait Net {
    /// Sends chunks in order, then does `then`. A socket has one send under way at a time.
    fn send(&mut self, socket: Socket, chunks: std::vec::Drain<'_, Chunk>, then: Then);
    /// Stops receiving. What is on its way still arrives.
    fn pause(&mut self, socket: Socket);
    /// Resumes receiving.
    fn resume(&mut self, socket: Socket);
    /// Has [`ServerCore::hung_up`] called when the client of a socket has gone. The client sends no more.
    fn watch_hang_up(&mut self, socket: Socket);
    /// Ends the connection in both directions.
    fn shutdown(&mut self, socket: Socket);
    /// Closes the socket. [`ServerCore::closed`] follows.
    fn close(&mut self, socket: Socket);
}

/// The core: all connections, and what they share.
pub struct ServerCore {
    banner: Vec<u8>,
    /// The connections, by [`Socket::index`].
    connections: Vec<Option<Box<Connection>>>,
    shared: Shared,
    door: Admission,
    /// True if clients are processes of this host.
    is_local: bool,
    stop: Stopping,
    /// The clients that halted a kernel which does not return to its caller, each with a channel. The
    /// channel is told when the answer is out, and the first one that is told ends the program.
    halts: Vec<(Socket, mpsc::Sender<()>)>,
    /// A buffer for the messages of the mailbox, kept between two turns.
    messages: Vec<Message>,
    /// The channels of those who asked for the counters.
    stats_requests: Vec<mpsc::Sender<Stats>>,
}

/// The progress of the server towards its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// The server takes no new connections and calls. Calls in flight may end.
    Draining,
    /// The server disconnects everybody.
    Now,
    /// The server ends, and leaves behind whoever is still there.
    Over,
}

impl ServerCore {
    /// Creates a core without connections, which greets clients with this banner.
    pub fn new(banner: Vec<u8>, shared: Shared, access: Access, is_local: bool) -> ServerCore {
        let door = Admission::new(access);
        ServerCore {
            banner,
            connections: Vec::new(),
            shared,
            door,
            is_local,
            stop: Stopping::No,
            halts: Vec::new(),
            messages: Vec::new(),
            stats_requests: Vec::new(),
        }
    }

    /// Ends a turn, after the ring's events have been handled: takes the messages of the workers, runs
    /// the inline calls that are ready, handles timers that are due, and hands the results to the ring
    /// and to the workers.
    pub fn turn(&mut self, mailbox: &Mailbox, net: &mut impl Net, clock: impl Fn() -> Instant) {
        self.drain_mailbox(mailbox);
        if self.shared.has_ready() {
            let until = clock() + inline::BUDGET;
            while self.shared.run_ready(|| clock() >= until) {
                self.drain_mailbox(mailbox);
            }
            self.shared.now = clock();
        }
        self.expire();
        self.flush(net);
    }

    /// Returns the channels of those who have asked for the counters since the last call.
    pub fn stats_requests(&mut self) -> impl Iterator<Item = mpsc::Sender<Stats>> {
        self.stats_requests.drain(..)
    }

    fn drain_mailbox(&mut self, mailbox: &Mailbox) {
        let mut messages = std::mem::take(&mut self.messages);
        mailbox.take(&mut messages);
        for message in messages.drain(..) {
            self.handle_message(message);
        }
        self.messages = messages;
    }

    /// Sets the time at which the following events happen.
    pub fn set_time(&mut self, now: Instant) {
        self.shared.now = now;
    }

    /// Handles a new connection. `peer` is `None` if the system was not asked who the client is.
    pub fn accepted(&mut self, socket: Socket, peer: Option<&Peer>, net: &mut impl Net) {
        if self.stop != Stopping::No {
            return net.close(socket);
        }
        let peer = match self.door.admit(peer) {
            Ok(peer) => peer,
            Err(why) => {
                tracing::warn!("a client is turned away: {why}");
                self.shared.stats.turned_away += 1;
                return net.close(socket);
            }
        };
        let at = socket.index();
        if self.connections.len() <= at {
            self.connections.resize_with(at + 1, || None);
        }
        debug_assert!(self.connections[at].is_none(), "a socket is closed before it is used again");
        let mut connection = Box::new(Connection::new(socket, peer, &mut self.shared));
        connection.link.send_queue.push(&self.shared.arena, &self.banner);
        self.shared.mark_dirty(&mut connection.link);
        self.shared.stats.connections += 1;
        self.shared.stats.accepted += 1;
        self.connections[at] = Some(connection);
    }

    /// Handles bytes that a client has sent.
    pub fn received(&mut self, socket: Socket, mut bytes: &[u8]) {
        let Some((connection, shared)) = self.find(socket) else {
            return;
        };
        if connection.link.backlog.is_empty() {
            let limits = shared.limits.session;
            let (session, mut host) = connection.split(shared);
            session.receive(&mut bytes, &limits, &mut host);
        }
        connection.link.backlog.extend_from_slice(bytes);
        connection.count_unread();
        shared.mark_dirty(&mut connection.link);
    }

    /// Handles the end of a client's input: the client has gone, or it sends no more and waits for its
    /// answers. What it sent before still counts. If nothing of that is left, the client is disconnected.
    pub fn receive_ended(&mut self, socket: Socket, net: &mut impl Net) {
        let Some((connection, shared)) = self.find(socket) else {
            return;
        };
        if connection.link.stage < Stage::Gone {
            connection.link.input = Input::Ending;
            shared.mark_dirty(&mut connection.link);
            if !connection.is_served() {
                net.watch_hang_up(socket);
            }
        }
    }

    /// Handles the end of a client: it has closed its socket, or the connection broke.
    pub fn hung_up(&mut self, socket: Socket) {
        self.disconnect(socket);
    }

    /// Handles the end of a send, successful or not.
    pub fn sent(&mut self, socket: Socket, is_ok: bool) {
        let Some((connection, shared)) = self.find(socket) else {
            return;
        };
        connection.link.send_queue.sent();
        connection.link.go_on_if_drained(shared);
        shared.mark_dirty(&mut connection.link);
        if !is_ok {
            self.disconnect(socket);
        }
    }

    /// Handles the end of a socket, which the ring has closed.
    pub fn closed(&mut self, socket: Socket) {
        if self.find(socket).is_some() {
            let connection = self.connections[socket.index()].take();
            self.shared.stats.connections -= 1;
            if let Some(peer) = connection.and_then(|connection| connection.link.peer) {
                self.door.leave(peer);
            }
        }
    }

    /// Handles a message of a worker or of another thread.
    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Ran(task) => self.ran(task),
            Message::HasRoom(socket) => {
                if let Some((connection, shared)) = self.find(socket) {
                    shared.mark_dirty(&mut connection.link);
                }
            }
            Message::SleepsUntil { socket, key, until } => {
                if let Some((connection, shared)) = self.find(socket) {
                    connection.link.set_timer(key, until, shared);
                }
            }
            Message::Asks { socket, key, ask, out } => self.asks(socket, key, ask, out),
            Message::Flushes { socket, key, out } => self.flushes(socket, key, out),
            Message::Halted { socket, key, out, done } => {
                self.halted_in(socket, key, out);
                self.halts.push((socket, done));
            }
            Message::Done(socket, done) => self.done(socket, done),
            Message::Raise { socket, signo, signals } => {
                if let Some((connection, shared)) = self.find(socket) {
                    let (session, mut host) = connection.split(shared);
                    session.raise(signo, &mut host);
                    connection.link.signals.add(signo, signals);
                    shared.mark_dirty(&mut connection.link);
                }
            }
            Message::Stop => self.drain(),
            Message::KernelGone => self.stop = Stopping::Over,
            Message::Stats(sender) => self.stats_requests.push(sender),
        }
    }

    /// Returns what jobs are run with.
    #[cfg(test)]
    pub fn context(&self) -> &super::job::Context {
        self.shared.context()
    }

    /// Returns `true` if there are inline calls to run.
    pub fn has_ready(&self) -> bool {
        self.shared.has_ready()
    }

    /// Handles the timers that are due.
    fn expire(&mut self) {
        let now = self.shared.now;
        self.shared.look_at_workers(now);
        while let Some(timer) = self.shared.timers.expired(now) {
            match timer {
                Timer::Call(socket, key) => {
                    if let Some((connection, _)) = self.find(socket) {
                        connection.link.timer_expired(key);
                    }
                }
                Timer::Linger(socket) => {
                    if let Some((connection, _)) = self.find(socket) {
                        connection.link.linger = None;
                        self.disconnect(socket);
                    }
                }
                Timer::Handshake(socket) => {
                    if let Some((connection, _)) = self.find(socket) {
                        connection.link.handshake = None;
                        self.hang_up(socket, "it makes no handshake");
                    }
                }
                Timer::ClientWait(socket) => {
                    let takes_nothing = self
                        .find(socket)
                        .is_some_and(|(connection, _)| connection.link.is_holding());
                    self.hang_up(socket, "a call waits for it too long");
                    // The call would otherwise wait again, for as long as the client may linger.
                    if takes_nothing {
                        self.disconnect(socket);
                    }
                }
                Timer::Preforks => {
                    for process in self.shared.expired_preforks() {
                        self.shared.discard(process);
                    }
                }
                Timer::Drain => self.stop_now(),
            }
        }
    }

    /// Hands the results of all that happened since the last time to the ring and to the workers.
    fn flush(&mut self, net: &mut impl Net) {
        let mut at = 0;
        // Looking at a connection may add others to the list.
        while let Some(&socket) = self.shared.dirty.get(at) {
            at += 1;
            self.flush_one(socket, net);
        }
        self.shared.dirty.clear();
        self.shed_load(net);
        self.collect_kept(net);
        self.shared.notify();
        if !self.halts.is_empty() && self.halts_are_answered() {
            for (_, done) in self.halts.drain(..) {
                // The receiver of this ends the process.
                let _ = done.send(());
            }
            self.stop = Stopping::Over;
        }
    }

    /// Returns the time when something is due next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.shared.timers.next().into_iter().chain(self.shared.next_look()).min()
    }

    /// Returns `true` if the server takes no new clients.
    pub fn is_stopping(&self) -> bool {
        self.stop != Stopping::No
    }

    /// Returns the latest time at which a stopping server ends, if processes have `last_wait` to go.
    pub fn stop_limit(&self, last_wait: Duration) -> Instant {
        let drain = match self.stop {
            Stopping::Now | Stopping::Over => self.shared.limits.linger,
            Stopping::No | Stopping::Draining => self.shared.limits.drain,
        };
        self.shared.now + drain + last_wait
    }

    /// Returns `true` if the server is to stop and everybody has gone.
    pub fn is_over(&self) -> bool {
        match self.stop {
            Stopping::No => false,
            Stopping::Draining | Stopping::Now => self.shared.stats.connections == 0,
            Stopping::Over => true,
        }
    }

    /// Returns the counters.
    pub fn stats(&self) -> super::stats::CoreStats {
        super::stats::CoreStats {
            preforks: self.shared.preforks(),
            timers: self.shared.timers.len(),
            unsent: self.shared.unsent.get(),
            kept: self.shared.all.kept(),
            ..self.shared.stats
        }
    }

    /// Returns the connection of a socket, unless another socket has its place by now.
    fn find(&mut self, socket: Socket) -> Option<(&mut Connection, &mut Shared)> {
        let connection = self.connections.get_mut(socket.index())?.as_deref_mut()?;
        (connection.link.socket == socket).then_some((connection, &mut self.shared))
    }

    /// Handles the end of a run of a call, other than by sleep.
    fn ran(&mut self, task: Arc<Task>) {
        let (socket, key, outcome, ask) = {
            let mut body = task.body();
            (body.socket, body.key, body.outcome.take(), body.memory.ask())
        };
        let Some((connection, shared)) = self.find(socket) else {
            debug_assert!(false, "a connection outlives its calls");
            return;
        };
        let is_gone = connection.link.stage >= Stage::Gone;
        if connection.link.has_put_off() {
            // This run may have released memory.
            shared.mark_dirty(&mut connection.link);
        }
        let (session, mut host) = connection.split(shared);
        let result = match outcome {
            Some(Outcome::Done(result)) => result,
            Some(Outcome::Halt) => Ok([0, 0]),
            Some(Outcome::Copy) => match ask {
                Some(ask) => return host.ask(session, key, ask),
                None => Err(Errno::EFAULT),
            },
            // Nothing can be flushed to a client that has gone.
            Some(Outcome::Flush) if !is_gone => {
                host.owe_copyouts(&task);
                return connection.link.go_on(key, shared);
            }
            Some(Outcome::Flush | Outcome::Sleep(_) | Outcome::Elsewhere) | None => {
                Err(Errno::EINTR)
            }
        };
        host.owe_copyouts(&task);
        session.respond(key, result, &mut host);
        connection.link.end_call(key, task, shared);
        shared.mark_dirty(&mut connection.link);
        if outcome == Some(Outcome::Halt) {
            self.halted(socket);
        }
    }

    /// Asks the client on behalf of a call that waits on its thread.
    fn asks(&mut self, socket: Socket, key: CallKey, ask: CopyRequest, out: Out) {
        if let Some((connection, shared)) = self.find(socket) {
            let (session, mut host) = connection.split(shared);
            host.owe(out.chunks.into_iter(), out.len);
            host.ask(session, key, ask);
        }
    }

    /// Sends what a call has copied out. The call waits on its thread and goes on once the client has
    /// taken enough.
    fn flushes(&mut self, socket: Socket, key: CallKey, out: Out) {
        if let Some((connection, shared)) = self.find(socket) {
            let (_, mut host) = connection.split(shared);
            host.owe(out.chunks.into_iter(), out.len);
            connection.link.go_on(key, shared);
        }
    }

    /// Handles a halt of the kernel in this call, whose thread does not come back.
    fn halted_in(&mut self, socket: Socket, key: CallKey, out: Out) {
        if let Some((connection, shared)) = self.find(socket) {
            let (session, mut host) = connection.split(shared);
            host.owe(out.chunks.into_iter(), out.len);
            session.respond(key, Ok([0, 0]), &mut host);
            connection.link.forget_call(key, shared);
            let mut host = SessionHost { link: &mut connection.link, shared };
            host.hang_up("it halted the kernel");
        }
        self.shared.halted();
        self.stop = Stopping::Now;
    }

    /// Returns `true` if every client that halted the kernel has taken its answer or has gone.
    fn halts_are_answered(&self) -> bool {
        let is_waiting = |connection: &Connection| {
            connection.link.stage < Stage::Gone && connection.link.send_queue.unsent() > 0
        };
        let mut connections = self.connections.iter().flatten();
        !connections.any(|c| is_waiting(c) && self.halts.iter().any(|(s, _)| *s == c.link.socket))
    }

    /// Handles the end of an operation that a session had asked for.
    fn done(&mut self, socket: Socket, done: Done) {
        let Some((connection, shared)) = self.find(socket) else {
            debug_assert!(false, "a connection outlives its work");
            return;
        };
        let (session, mut host) = connection.split(shared);
        match done {
            Done::Spawned(result) => session.spawned(result, &mut host),
            Done::Preforked(result) => session.preforked(result, &mut host),
            Done::Interrupted => session.interrupted(&mut host),
            Done::Executed => session.executed(&mut host),
            Done::Released => session.released(),
        }
        shared.mark_dirty(&mut connection.link);
    }

    /// Ends a client's connection: the client has gone, or is treated as gone from here on.
    fn disconnect(&mut self, socket: Socket) {
        let Some((connection, shared)) = self.find(socket) else {
            return;
        };
        if connection.link.stage >= Stage::Gone {
            return;
        }
        connection.link.stage = Stage::Gone;
        connection.link.send_queue.clear();
        connection.link.backlog = Vec::new();
        connection.link.cancel_timers(shared);
        let (session, mut host) = connection.split(shared);
        session.disconnect(&mut host);
        connection.count_unread();
        shared.mark_dirty(&mut connection.link);
    }

    /// Looks at one connection: takes its backlog, sends what is owed, switches receiving on or off, and
    /// closes it if it is over.
    fn flush_one(&mut self, socket: Socket, net: &mut impl Net) {
        let (draining, is_local) = (self.stop == Stopping::Draining, self.is_local);
        let Some((connection, shared)) = self.find(socket) else {
            return;
        };
        connection.link.dirty = false;
        take_backlog(connection, shared);
        if connection.link.input != Input::Open {
            end_of_input(connection, shared, is_local);
        }
        connection.ask_what_was_put_off(shared);
        if let Some(timer) = connection.link.handshake.filter(|_| !connection.session.is_new()) {
            connection.link.handshake = None;
            shared.timers.cancel(timer);
        }
        if connection.link.send_queue.unsent() > shared.limits.send_queue_max {
            hang_up(connection, shared, "it does not take what it asked for");
            connection.link.send_queue.clear();
        }
        send(connection, net);
        set_receiving(connection, shared, net);
        let is_idle = connection.session.calls() == 0 && connection.link.send_queue.unsent() == 0;
        let is_drained = draining && is_idle && !connection.session.is_stalled();
        if is_drained || (connection.link.input != Input::Open && connection.is_served()) {
            self.disconnect(socket);
        }
        self.close_if_finished(socket, net);
    }

    /// Hangs up on a client, for the reason `why`.
    fn hang_up(&mut self, socket: Socket, why: &'static str) {
        if let Some((connection, shared)) = self.find(socket) {
            hang_up(connection, shared, why);
        }
    }

    /// Bounds what all clients together are owed. From half of the bound on, each client has to wait
    /// earlier. Above the bound, the client that is owed most is disconnected at once.
    fn shed_load(&mut self, net: &mut impl Net) {
        let (unsent, most) = (self.shared.unsent.get(), self.shared.limits.send_queue_total);
        self.shared.all.set_backpressure(unsent > most / 2);
        if unsent <= most {
            return;
        }
        let owing = |connection: &Connection| match connection.link.stage < Stage::Gone {
            true => connection.link.send_queue.unsent(),
            false => 0,
        };
        // What is on its way to clients that have gone comes back without help.
        let mut live: usize = self.connections.iter().flatten().map(|c| owing(c)).sum();
        while live > most {
            let debtors = self.connections.iter().flatten().filter(|c| c.link.stage < Stage::Gone);
            let Some(worst) = debtors.max_by_key(|c| owing(c)) else {
                return;
            };
            let (socket, unsent) = (worst.link.socket, owing(worst));
            tracing::warn!(
                client = socket.index(),
                "hanging up on the client that is owed most, {unsent} bytes: clients are owed {live} \
                 in all"
            );
            self.shared.stats.hang_ups += 1;
            live -= unsent;
            self.disconnect(socket);
            self.close_if_finished(socket, net);
        }
    }

    /// Disconnects the client whose bytes take most memory, while all clients together are above the
    /// bound.
    fn collect_kept(&mut self, net: &mut impl Net) {
        let most = self.shared.limits.copyin_cache_total;
        if self.shared.all.kept() <= most {
            return;
        }
        let keeping = |connection: &Connection| match connection.link.stage < Stage::Gone {
            true => connection.link.quota().kept(),
            false => 0,
        };
        // The bytes of clients that have gone are released when their calls have ended.
        let mut live: usize = self.connections.iter().flatten().map(|c| keeping(c)).sum();
        while live > most {
            let Some(worst) = self.connections.iter().flatten().max_by_key(|c| keeping(c)) else {
                return;
            };
            let (socket, kept) = (worst.link.socket, keeping(worst));
            tracing::warn!(
                client = socket.index(),
                "hanging up on the client of whose bytes most are held, {kept}: {live} are held in all"
            );
            self.shared.stats.hang_ups += 1;
            live -= kept;
            self.disconnect(socket);
            self.close_if_finished(socket, net);
        }
    }

    fn close_if_finished(&mut self, socket: Socket, net: &mut impl Net) {
        if let Some((connection, _)) = self.find(socket)
            && connection.link.stage == Stage::Gone
            && connection.session.is_finished()
        {
            connection.link.stage = Stage::Closing;
            net.close(socket);
        }
    }

    /// Handles a halt of the kernel: the client that halted it gets its answer, all others are
    /// disconnected.
    fn halted(&mut self, socket: Socket) {
        tracing::info!("the kernel was halted by a client");
        if let Some((connection, shared)) = self.find(socket) {
            let mut host = SessionHost { link: &mut connection.link, shared };
            host.hang_up("it halted the kernel");
        }
        self.stop = Stopping::Now;
        self.everybody_goes(Some(socket));
    }

    /// Stops taking clients and calls, and lets the calls in flight end.
    fn drain(&mut self) {
        if self.stop != Stopping::No {
            return;
        }
        self.stop = Stopping::Draining;
        let until = self.shared.now + self.shared.limits.drain;
        self.shared.timers.set(until, Timer::Drain);
        for connection in self.connections.iter_mut().flatten() {
            connection.session.take_no_more();
            self.shared.mark_dirty(&mut connection.link);
        }
    }

    fn stop_now(&mut self) {
        self.stop = Stopping::Now;
        self.everybody_goes(None);
    }

    fn everybody_goes(&mut self, except: Option<Socket>) {
        let everybody: Vec<Socket> =
            self.connections.iter().flatten().map(|connection| connection.link.socket).collect();
        for socket in everybody.into_iter().filter(|socket| Some(*socket) != except) {
            self.disconnect(socket);
        }
        for process in self.shared.all_preforks() {
            self.shared.discard(process);
        }
    }
}

/// Handles the end of a client's input. Once the session has taken all that the client has sent, calls
/// that wait for its answers end, and the client has only so long to take what is owed to it. On TCP the
/// server cannot tell whether the client has gone, so its calls must not sleep on, and those that do not
/// notice have as long. The time of a local client begins once its calls are answered.
fn end_of_input(connection: &mut Connection, shared: &mut Shared, is_local: bool) {
    let is_taken = connection.link.backlog.is_empty() && !connection.session.is_stalled();
    if connection.link.input == Input::Ending && is_taken {
        connection.link.input = Input::Ended;
        let (session, mut host) = connection.split(shared);
        session.end_of_input(!is_local, &mut host);
    }
    let is_answered = connection.link.input == Input::Ended && connection.session.is_idle();
    let has_time = is_local && !is_answered;
    if !has_time && connection.link.linger.is_none() && !connection.is_served() {
        connection.link.linger = Some(shared.set_linger(connection.link.socket));
    }
}

/// Hangs up on a client, and looks at nothing more that it sends.
fn hang_up(connection: &mut Connection, shared: &mut Shared, why: &'static str) {
    let (session, mut host) = connection.split(shared);
    host.hang_up(why);
    session.hung_up();
}

/// Hands the session the bytes that it could not take before.
fn take_backlog(connection: &mut Connection, shared: &mut Shared) {
    let limits = shared.limits.session;
    if connection.link.backlog.is_empty() || connection.session.is_stalled() {
        return;
    }
    let backlog = std::mem::take(&mut connection.link.backlog);
    let (session, mut host) = connection.split(shared);
    let mut rest = &backlog[..];
    session.receive(&mut rest, &limits, &mut host);
    if !rest.is_empty() {
        connection.link.backlog = rest.to_vec();
    }
    connection.count_unread();
}

/// Sends what is owed if no send is under way, and shuts down after the last of it if the server hangs
/// up.
fn send(connection: &mut Connection, net: &mut impl Net) {
    let link = &mut connection.link;
    let hanging_up = link.stage == Stage::HangingUp;
    if link.stage >= Stage::Shut {
        return;
    }
    if !link.send_queue.is_sending() {
        link.signals.leave();
    }
    if let Some(chunks) = link.send_queue.next() {
        let then = match link.stage {
            Stage::New => Then::Receive,
            _ if hanging_up => Then::Shutdown,
            _ => Then::Nothing,
        };
        net.send(link.socket, chunks, then);
    } else if hanging_up && link.send_queue.unsent() == 0 {
        net.shutdown(link.socket);
    } else {
        return;
    }
    link.stage = if hanging_up { Stage::Shut } else { Stage::Open };
}

/// Switches receiving off at a bound, and on again below it.
fn set_receiving(connection: &mut Connection, shared: &Shared, net: &mut impl Net) {
    let (session, link) = (&connection.session, &mut connection.link);
    if link.stage != Stage::Open {
        return;
    }
    let unsent = link.send_queue.unsent();
    // A client that is asked for memory may be unable to read before it has answered.
    let owes_us = session.waits_for_client();
    let bound = link.quota().unsent_bound();
    let full = unsent > bound || (link.paused && unsent > bound / 2);
    let pause = link.backlog.len() > shared.limits.backlog || (full && !owes_us);
    if pause != link.paused {
        link.paused = pause;
        match pause {
            true => net.pause(link.socket),
            false => net.resume(link.socket),
        }
    }
}
