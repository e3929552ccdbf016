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
    /// Who is on the other side, if that is asked.
    pub peer: Option<PeerKey>,
    /// Calls in flight, by [`CallKey`].
    calls: Vec<Option<InFlight>>,
    /// How many these are.
    in_flight: usize,
    /// Calls that go on once the client has taken what is owed to it.
    held: Vec<CallKey>,
    /// Calls that have to wait until others have let go of what they hold, the first to go on first.
    put_off: VecDeque<(CallKey, Next)>,
    /// Which calls wanted what their arguments name.
    predictor: PrefetchPredictor,
    /// Bytes received that the session could not take yet.
    pub backlog: Vec<u8>,
    /// Memory that the backlog and a frame take that is not whole.
    unread: usize,
    pub stage: Stage,
    pub input: Input,
    /// Receiving is switched off.
    pub paused: bool,
    /// In the list of connections to look at before the next submission.
    pub dirty: bool,
    /// Gives the client only so long to take what is owed to it, once it is hung up on.
    pub linger: Option<TimerId>,
    /// Gives it only so long for its handshake.
    pub handshake: Option<TimerId>,
    /// Signals among what is owed to it.
    pub signals: Framed,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The banner is still to be sent; receiving starts behind it.
    New,
    Open,
    /// To be shut down once all that is owed has been sent.
    HangingUp,
    /// Shut down: the end of what we receive follows.
    Shut,
    /// Nothing is received or sent any more; the session comes to its end.
    Gone,
    /// The ring closes the socket.
    Closing,
}

/// Whether more will come from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Open,
    /// It sends no more; what it has sent may not all be taken.
    Ending,
    /// All is taken, and the session knows.
    Ended,
}

struct InFlight {
    task: Arc<Task>,
    /// Ends its sleep.
    timer: Option<TimerId>,
    /// How long it waits for its client.
    client: ClientWait,
}

/// What a call does that was put off.
#[derive(Clone, Copy)]
enum Next {
    CopyRequest(CopyRequest),
    /// It had to let go of earlier answers: it runs from the top, and asks for so many bytes again.
    Run {
        bytes: usize,
    },
}

impl Connection {
    /// A client that has just connected.
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

    /// Whether all that the client has sent is answered, and it has the answers.
    pub fn is_served(&self) -> bool {
        let is_hung_up_on = self.link.stage > Stage::Open;
        let is_answered = self.link.backlog.is_empty() && self.session.is_idle();
        self.link.send_queue.unsent() == 0 && (is_hung_up_on || is_answered)
    }

    /// Counts what bytes take that were received and not acted on.
    pub fn count_unread(&mut self) {
        let now = self.session.unread() + self.link.backlog.capacity();
        let before = std::mem::replace(&mut self.link.unread, now);
        if now > before {
            self.link.quota().keep(now - before);
        } else if now < before {
            self.link.quota().let_go(before - now);
        }
    }

    /// Lets calls go on that have waited for others to let go of what they hold, as far as there is room.
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

    /// The session, and what it is told with.
    pub fn split<'a>(&'a mut self, shared: &'a mut Shared) -> (&'a mut Session, SessionHost<'a>) {
        (&mut self.session, SessionHost { link: &mut self.link, shared })
    }
}

impl ConnectionIo {
    /// A call has ended: its task is free for another.
    pub fn end_call(&mut self, key: CallKey, task: Arc<Task>, shared: &mut Shared) {
        if let Some((descriptor, predictor)) = task.body().predictor() {
            self.predictor.note(task.number(), descriptor, predictor);
        }
        self.forget_call(key, shared);
        shared.give_back(task);
    }

    /// A call has been answered.
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

    /// Runs a call again, now or once the client has taken what is owed to it.
    pub fn go_on(&mut self, key: CallKey, shared: &mut Shared) {
        // Something is on its way then, so its end will be heard of.
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

    /// Whether calls wait for the client to take what is owed to it.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets calls go on that had to wait for the client to take what is owed to it.
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

    /// The call sleeps until then, if nothing wakes it before.
    pub fn set_timer(&mut self, key: CallKey, until: std::time::Instant, shared: &mut Shared) {
        let Some(Some(call)) = self.calls.get_mut(key.0 as usize) else {
            return;
        };
        let timer = shared.timers.set(until, Timer::Call(self.socket, key));
        if let Some(before) = call.timer.replace(timer) {
            shared.timers.cancel(before);
        }
    }

    /// The tasks of all calls in flight.
    fn tasks(&self) -> Vec<Arc<Task>> {
        self.calls.iter().flatten().map(|call| call.task.clone()).collect()
    }

    /// Whether calls wait for others to let go of what they hold.
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }

    fn may_ask(&self, key: CallKey, ask: CopyRequest, others_wait: bool) -> MayAsk {
        match self.calls.get(key.0 as usize) {
            Some(Some(call)) => call.task.may_ask(ask, self.quota(), others_wait),
            _ => MayAsk::Yes,
        }
    }

    fn may_ask_again(&self, key: CallKey, bytes: usize) -> bool {
        match self.calls.get(key.0 as usize) {
            Some(Some(call)) => call.task.body().memory.ask_again(bytes),
            _ => true,
        }
    }

    /// What this client takes of what all share.
    pub fn quota(&self) -> &ClientQuota {
        self.send_queue.quota()
    }

    /// The call waits for its client, which has only so long, if that is bounded.
    fn wait_for_client(&mut self, key: CallKey, shared: &mut Shared) {
        if let Some(Some(call)) = self.calls.get_mut(key.0 as usize) {
            call.client.begin(self.socket, shared);
        }
    }

    /// The client has moved so many bytes for the call, which goes on.
    fn end_wait_for_client(&mut self, key: CallKey, moved: usize, shared: &mut Shared) {
        if let Some(Some(call)) = self.calls.get_mut(key.0 as usize) {
            call.client.end(moved, shared);
        }
    }

    /// The client has gone: it is waited for no more.
    pub fn cancel_timers(&mut self, shared: &mut Shared) {
        self.calls.iter_mut().flatten().for_each(|call| call.client.end(0, shared));
        for timer in [self.linger.take(), self.handshake.take()].into_iter().flatten() {
            shared.timers.cancel(timer);
        }
    }

    /// The time of a sleeping call has come.
    pub fn timer_expired(&mut self, key: CallKey) {
        if let Some(Some(call)) = self.calls.get_mut(key.0 as usize) {
            call.timer = None;
            std::task::Wake::wake_by_ref(&call.task);
        }
    }

    fn dispatch(&mut self, key: CallKey, shared: &mut Shared) {
        let Some(call) = &self.calls[key.0 as usize] else {
            return;
        };
        let goes_on = if self.stage < Stage::Gone { Ok(Body::Lent(&[])) } else { Err(()) };
        if call.task.answer_thread(goes_on).is_some() {
            shared.dispatch(self.socket, call.task.clone(), self.send_queue.quota());
        }
    }
}

/// What a session is told with, and tells: see [`Host`].
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
    /// What a call has copied out goes before its response.
    pub fn owe_copyouts(&mut self, task: &Task) {
        let mut body = task.body();
        let (chunks, len) = body.memory.take_out();
        self.owe(chunks, len);
    }

    /// Owes `len` bytes in chunks.
    pub fn owe(&mut self, chunks: impl Iterator<Item = Chunk>, len: usize) {
        if self.link.stage == Stage::Open {
            self.link.send_queue.push_chunks(chunks, len);
            self.shared.mark_dirty(self.link);
        } else {
            drop(chunks);
            self.link.quota().taken(len);
        }
    }

    /// What a call wants from its client, now or once there is room for it.
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

    /// The client is not asked any more: what calls wanted cannot be had.
    fn refuse_what_was_put_off(&mut self) {
        for (key, next) in std::mem::take(&mut self.link.put_off) {
            let Some(Some(call)) = self.link.calls.get(key.0 as usize) else {
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
