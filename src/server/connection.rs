//! One client's connection: its session, its calls in flight, and what is owed to it.

use std::collections::VecDeque;
use std::sync::Arc;

use ring::{Chunk, Socket};

use super::access::PeerKey;
use super::client_wait::ClientWait;
use super::memory::MayAsk;
use super::predictor::PrefetchPredictor;
use super::quota::ClientQuota;
use super::send_queue::SendQueue;
use super::shared::{Shared, Timer};
use super::signals::Framed;
use super::task::Task;
use super::timers::TimerId;
use crate::fairness::leaves_some;
use kernel::Process;
use rumpsp::session::{Answer, CallKey, CallRequest, CopyRequest, Host, KernelOp, Session};
use rumpsp::wire::{Body, Token};

/// A client, connected or not quite gone.
pub struct Connection {
    pub session: Session,
    pub link: ConnectionIo,
}

/// A connection without its session, which is told about it as its [`Host`].
pub struct ConnectionIo {
    pub socket: Socket,
    pub send_queue: SendQueue,
    /// The peer that this connection is counted for, if connections are counted.
    pub peer: Option<PeerKey>,
    /// The calls in flight, by [`CallKey`].
    calls: Vec<Option<InFlight>>,
    /// The number of calls in flight.
    in_flight: usize,
    /// The calls that go on once the client has taken what is owed to it.
    held: Vec<CallKey>,
    /// The calls that wait until others have released memory. The first in the queue goes on first.
    put_off: VecDeque<(CallKey, Next)>,
    /// Predicts which calls copy in what their arguments name.
    predictor: PrefetchPredictor,
    /// The bytes received that the session could not take yet.
    pub backlog: Vec<u8>,
    /// The memory that the backlog and an incomplete frame take, in bytes.
    unread: usize,
    pub stage: Stage,
    pub input: Input,
    /// True if receiving is switched off.
    pub paused: bool,
    /// True if the connection is in the list of those to look at before the next submission.
    pub dirty: bool,
    /// The timer that bounds how long the client has to take what is owed to it, once the server hangs
    /// up.
    pub linger: Option<TimerId>,
    /// The timer that bounds how long the client has for its handshake.
    pub handshake: Option<TimerId>,
    /// The signals among what is owed to the client.
    pub signals: Framed,
}

/// The progress of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The banner is still to be sent. Receiving starts after it.
    New,
    Open,
    /// The connection is to be shut down once all that is owed has been sent.
    HangingUp,
    /// The connection is shut down. The client's end of the stream will follow.
    Shut,
    /// Nothing is received or sent any more, and the session comes to its end.
    Gone,
    /// The ring is closing the socket.
    Closing,
}

/// The state of the input from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Open,
    /// The client sends no more, but the session has not yet taken all that it has sent.
    Ending,
    /// The session has taken everything and knows that the input has ended.
    Ended,
}

struct InFlight {
    task: Arc<Task>,
    /// The timer that ends the call's sleep.
    timer: Option<TimerId>,
    /// The time that the call waits for its client.
    client: ClientWait,
}

/// The next step of a call that was put off.
#[derive(Clone, Copy)]
enum Next {
    CopyRequest(CopyRequest),
    /// The call had to release earlier answers: it runs from the top, and asks for so many bytes again.
    Run {
        bytes: usize,
    },
}

impl Connection {
    /// Creates the connection of a client that has just connected.
    pub fn new(socket: Socket, peer: Option<PeerKey>, shared: &mut Shared) -> Connection {
        let quota = Arc::new(ClientQuota::new(shared.all.clone()));
        Connection {
            session: Session::default(),
            link: ConnectionIo {
                socket,
                send_queue: SendQueue::new(quota, shared.unsent.clone()),
                peer,
                calls: Vec::new(),
                in_flight: 0,
                held: Vec::new(),
                put_off: VecDeque::new(),
                predictor: PrefetchPredictor::default(),
                backlog: Vec::new(),
                unread: 0,
                stage: Stage::New,
                input: Input::Open,
                paused: false,
                dirty: false,
                linger: None,
                handshake: Some(shared.set_handshake_time(socket)),
                signals: Framed::default(),
            },
        }
    }

    /// Returns `true` if all that the client has sent is answered and the client has taken the answers.
    pub fn is_served(&self) -> bool {
        let is_hung_up_on = self.link.stage > Stage::Open;
        let is_answered = self.link.backlog.is_empty() && self.session.is_idle();
        self.link.send_queue.unsent() == 0 && (is_hung_up_on || is_answered)
    }

    /// Counts the memory of the bytes that were received and not yet acted on.
    pub fn count_unread(&mut self) {
        let now = self.session.unread() + self.link.backlog.capacity();
        let before = std::mem::replace(&mut self.link.unread, now);
        if now > before {
            self.link.quota().keep(now - before);
        } else if now < before {
            self.link.quota().let_go(before - now);
        }
    }

    /// Resumes calls that have waited for others to release memory, as far as there is room.
    pub fn ask_what_was_put_off(&mut self, shared: &mut Shared) {
        if self.link.put_off.is_empty() {
            return;
        }
        self.link.quota().put_off();
        let (session, mut host) = self.split(shared);
        while let Some(&(key, next)) = host.link.put_off.front() {
            let may = match next {
                Next::CopyRequest(ask) => host.link.may_ask(key, ask, false) == MayAsk::Yes,
                Next::Run { bytes } => host.link.may_ask_again(key, bytes),
            };
            if !may {
                return;
            }
            host.link.put_off.pop_front();
            match next {
                Next::CopyRequest(ask) => host.ask_now(session, key, ask),
                Next::Run { .. } => host.link.dispatch(key, host.shared),
            }
        }
    }

    /// Returns the session and the host that the session calls.
    pub fn split<'a>(&'a mut self, shared: &'a mut Shared) -> (&'a mut Session, SessionHost<'a>) {
        (&mut self.session, SessionHost { link: &mut self.link, shared })
    }
}

impl ConnectionIo {
    /// Ends a call, and frees its task for another.
    pub fn end_call(&mut self, key: CallKey, task: Arc<Task>, shared: &mut Shared) {
        if let Some((descriptor, predictor)) = task.body().predictor() {
            self.predictor.note(task.number(), descriptor, predictor);
        }
        self.forget_call(key, shared);
        shared.give_back(task);
    }

    /// Removes a call that has been answered.
    pub fn forget_call(&mut self, key: CallKey, shared: &mut Shared) {
        let Some(mut call) = self.calls[key.0 as usize].take() else {
            debug_assert!(false, "a call ends once");
            return;
        };
        call.client.end(0, shared);
        if let Some(timer) = call.timer {
            shared.timers.cancel(timer);
        }
        shared.stats.calls += 1;
        shared.stats.calls_in_flight -= 1;
        self.in_flight -= 1;
    }

    /// Runs a call again: now, or once the client has taken what is owed to it.
    pub fn go_on(&mut self, key: CallKey, shared: &mut Shared) {
        // In this case a send is under way, and its end makes the held calls go on.
        if self.send_queue.unsent() >= self.quota().unsent_bound() {
            self.held.push(key);
            // A call that runs again from the top holds nothing that others need.
            if !shared.restarts {
                self.wait_for_client(key, shared);
            }
        } else {
            self.dispatch(key, shared);
        }
    }

    /// Returns `true` if calls wait for the client to take what is owed to it.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Resumes the calls that wait for the client, once the client has taken enough of what is owed to
    /// it.
    pub fn go_on_if_drained(&mut self, shared: &mut Shared) {
        if self.held.is_empty() || self.send_queue.unsent() > self.quota().unsent_bound() / 2 {
            return;
        }
        let taken = self.quota().unsent_bound() / 2;
        for key in std::mem::take(&mut self.held) {
            self.end_wait_for_client(key, taken, shared);
            self.dispatch(key, shared);
        }
    }

    /// Sets the timer that wakes a sleeping call at `until`, if nothing wakes it before.
    pub fn set_timer(&mut self, key: CallKey, until: std::time::Instant, shared: &mut Shared) {
        let socket = self.socket;
        let Some(call) = self.call_mut(key) else {
            return;
        };
        let timer = shared.timers.set(until, Timer::Call(socket, key));
        if let Some(before) = call.timer.replace(timer) {
            shared.timers.cancel(before);
        }
    }

    /// Returns the call of this key, unless it has ended.
    fn call(&self, key: CallKey) -> Option<&InFlight> {
        self.calls.get(key.0 as usize)?.as_ref()
    }

    fn call_mut(&mut self, key: CallKey) -> Option<&mut InFlight> {
        self.calls.get_mut(key.0 as usize)?.as_mut()
    }

    /// Returns the tasks of all calls in flight.
    fn tasks(&self) -> Vec<Arc<Task>> {
        self.calls.iter().flatten().map(|call| call.task.clone()).collect()
    }

    /// Returns `true` if calls wait for others to release memory.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    fn may_ask(&self, key: CallKey, ask: CopyRequest, others_wait: bool) -> MayAsk {
        match self.call(key) {
            Some(call) => call.task.may_ask(ask, self.quota(), others_wait),
            _ => MayAsk::Yes,
        }
    }

    fn may_ask_again(&self, key: CallKey, bytes: usize) -> bool {
        match self.call(key) {
            Some(call) => call.task.body().memory.ask_again(bytes),
            _ => true,
        }
    }

    /// Returns this client's use of the shared resources.
    pub fn quota(&self) -> &ClientQuota {
        self.send_queue.quota()
    }

    /// Begins a wait of the call for its client. The wait is bounded if the server bounds it.
    fn wait_for_client(&mut self, key: CallKey, shared: &mut Shared) {
        let socket = self.socket;
        if let Some(call) = self.call_mut(key) {
            call.client.begin(socket, shared);
        }
    }

    /// Ends the wait of the call for its client, which has moved `moved` bytes for it.
    fn end_wait_for_client(&mut self, key: CallKey, moved: usize, shared: &mut Shared) {
        if let Some(call) = self.call_mut(key) {
            call.client.end(moved, shared);
        }
    }

    /// Cancels the timers of this connection, because the client has gone.
    pub fn cancel_timers(&mut self, shared: &mut Shared) {
        self.calls.iter_mut().flatten().for_each(|call| call.client.end(0, shared));
        for timer in [self.linger.take(), self.handshake.take()].into_iter().flatten() {
            shared.timers.cancel(timer);
        }
    }

    /// Wakes a sleeping call whose time has come.
    pub fn timer_expired(&mut self, key: CallKey) {
        if let Some(call) = self.call_mut(key) {
            call.timer = None;
            std::task::Wake::wake_by_ref(&call.task);
        }
    }

    fn dispatch(&mut self, key: CallKey, shared: &mut Shared) {
        let Some(call) = self.call(key) else {
            return;
        };
        let goes_on = if self.stage < Stage::Gone { Ok(Body::Lent(&[])) } else { Err(()) };
        if call.task.answer_thread(goes_on).is_some() {
            shared.dispatch(self.socket, call.task.clone(), self.send_queue.quota());
        }
    }
}

/// The host that a session calls: see [`Host`].
pub struct SessionHost<'a> {
    pub link: &'a mut ConnectionIo,
    pub shared: &'a mut Shared,
}

impl Host for SessionHost<'_> {
    fn send(&mut self, frame: &[u8]) {
        if matches!(self.link.stage, Stage::Open | Stage::New) {
            self.link.send_queue.push(&self.shared.arena, frame);
            self.shared.mark_dirty(self.link);
        }
    }

    fn hang_up(&mut self, why: &'static str) {
        if self.link.stage != Stage::Open {
            return;
        }
        tracing::info!(client = self.link.socket.index(), "hanging up on a client: {why}");
        self.shared.stats.hang_ups += 1;
        self.link.stage = Stage::HangingUp;
        self.link.linger = Some(self.shared.set_linger(self.link.socket));
        self.shared.mark_dirty(self.link);
    }

    fn work(&mut self, work: KernelOp) {
        self.shared.work(self.link.socket, work);
    }

    fn is_full(&mut self) -> bool {
        self.link.quota().is_full()
    }

    fn admits_call(&self) -> bool {
        let (all, most) = (self.shared.stats.calls_in_flight, self.shared.limits.calls_in_all);
        leaves_some(self.link.in_flight, all, most)
    }

    fn discard(&mut self, process: Arc<dyn Process>) {
        self.shared.discard(process);
    }

    fn call(
        &mut self,
        key: CallKey,
        process: &Arc<dyn Process>,
        request: CallRequest<'_>,
    ) -> Option<CopyRequest> {
        let task = self.shared.take_task(self.link.socket);
        let quota = self.link.send_queue.quota();
        task.set(self.link.socket, key, process, &request, quota, self.shared.kernel());
        let at = key.0 as usize;
        if self.link.calls.len() <= at {
            self.link.calls.resize_with(at + 1, || None);
        }
        let ask = self.shared.expect(&task, &self.link.predictor);
        self.link.calls[at] = Some(InFlight { task, timer: None, client: ClientWait::default() });
        self.shared.stats.calls_in_flight += 1;
        self.link.in_flight += 1;
        match ask {
            Some(_) => {
                self.shared.stats.asks += 1;
                self.link.wait_for_client(key, self.shared);
            }
            None => self.link.dispatch(key, self.shared),
        }
        ask
    }

    fn answer(&mut self, key: CallKey, answer: Answer<'_>) {
        let Some(call) = &mut self.link.calls[key.0 as usize] else {
            return;
        };
        call.client.end(answer.as_ref().map_or(0, |bytes| bytes.len()), self.shared);
        if let Some(answer) = call.task.answer_thread(answer) {
            call.task.body().memory.answer(answer);
            self.link.dispatch(key, self.shared);
        }
    }

    fn interrupt_sleep(&mut self) {
        self.shared.interrupt(self.link.socket, self.link.tasks(), Task::interrupt_sleep);
    }

    fn interrupt_calls(&mut self) {
        let calls = self.link.tasks();
        for key in std::mem::take(&mut self.link.held) {
            self.link.end_wait_for_client(key, 0, self.shared);
            self.link.dispatch(key, self.shared);
        }
        self.shared.interrupt(self.link.socket, calls, Task::interrupt);
        if self.link.stage >= Stage::Gone {
            self.refuse_what_was_put_off();
        }
    }

    fn keep_prefork(&mut self, prefork: Arc<dyn Process>) -> Result<Token, Arc<dyn Process>> {
        self.shared.keep_prefork(self.link.socket, prefork)
    }

    fn take_prefork(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        self.shared.take_prefork(token)
    }

    fn orphan_preforks(&mut self) {
        self.shared.orphan_preforks(self.link.socket);
    }
}

impl SessionHost<'_> {
    /// Owes the client what a call has copied out. This goes before the response.
    pub fn owe_copyouts(&mut self, task: &Task) {
        let mut body = task.body();
        let (chunks, len) = body.memory.take_out();
        self.owe(chunks, len);
    }

    /// Owes the client `len` bytes in chunks.
    pub fn owe(&mut self, chunks: impl Iterator<Item = Chunk>, len: usize) {
        if self.link.stage == Stage::Open {
            self.link.send_queue.push_chunks(chunks, len);
            self.shared.mark_dirty(self.link);
        } else {
            drop(chunks);
            self.link.quota().taken(len);
        }
    }

    /// Asks the client for what a call wants: now, or once there is room for it.
    pub fn ask(&mut self, session: &mut Session, key: CallKey, ask: CopyRequest) {
        if self.link.stage >= Stage::Gone {
            self.put_off(key, Next::CopyRequest(ask));
            return self.refuse_what_was_put_off();
        }
        match self.link.may_ask(key, ask, !self.link.put_off.is_empty()) {
            MayAsk::Yes => self.ask_now(session, key, ask),
            MayAsk::Later => self.put_off(key, Next::CopyRequest(ask)),
            MayAsk::FromTheTop { bytes } => self.put_off(key, Next::Run { bytes }),
        }
    }

    fn put_off(&mut self, key: CallKey, next: Next) {
        self.link.put_off.push_back((key, next));
        self.shared.mark_dirty(self.link);
    }

    /// Refuses all calls that were put off, because the client can no longer be asked.
    fn refuse_what_was_put_off(&mut self) {
        for (key, next) in std::mem::take(&mut self.link.put_off) {
            let Some(call) = self.link.call(key) else {
                continue;
            };
            match next {
                Next::CopyRequest(ask) => {
                    call.task.is_refused(ask, self.link.quota());
                    self.answer(key, Err(()));
                }
                Next::Run { .. } => self.link.dispatch(key, self.shared),
            }
        }
    }

    fn ask_now(&mut self, session: &mut Session, key: CallKey, ask: CopyRequest) {
        self.shared.stats.asks += 1;
        self.link.wait_for_client(key, self.shared);
        session.ask(key, ask, self);
    }
}
