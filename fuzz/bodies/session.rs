//! A session fed arbitrary frames and bytes in arbitrary cuts, with a host that does its work, ends its
//! calls and asks for memory in arbitrary order. What the host is told is checked as it is told; at the
//! end the client goes, all that is under way ends, and nothing may be left.
//!
//! Input: a step a byte (see [`Rig::step`]), each followed by what it needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kernel::{Call, Client, Errno, Outcome, Process};
use rumpsp::session::{Answer, CallKey, CallRequest, CopyRequest, Host, KernelOp, Limits, Session};
use rumpsp::wire::{self, Class, HEADER_LEN, Handshake, Header, Kind, TOKEN_LEN, Token};

use super::input::Input;

/// Small, so that they are reached.
const LIMITS: Limits = Limits { args: 64, command: 40, unknown: 100, calls: 5 };
/// Unused preforks a client may have.
const PREFORKS: usize = 3;
/// The longest memory asked for.
const MEMORY: usize = 600;
/// The token of a prefork that is there from the start, some other client's.
const GIVEN: Token = [7; TOKEN_LEN];

pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rig = Rig::default();
    let given = rig.host.make();
    rig.host.preforks.insert(GIVEN, given);
    while !input.is_empty() {
        rig.step(&mut input);
        rig.check();
    }
    rig.end();
}

/// A process that is only a number.
struct Named(i32);

impl Process for Named {
    fn pid(&self) -> i32 {
        self.0
    }
    fn syscall(&self, _: &mut Call<'_>) -> Outcome {
        unreachable!("no call is run here")
    }
    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        unreachable!("no work is done here")
    }
    fn adopt(&self, _: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        unreachable!("no work is done here")
    }
    fn exec(&self, _: &[u8]) {}
    fn release(&self) {}
}

/// A call that has not been answered.
struct Live {
    reqno: u64,
    /// What it asked of the client.
    asked: Option<CopyRequest>,
}

/// Whose turn it is: what the session may tell the host depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    HungUp,
    Gone,
}

#[derive(Default)]
struct Checked {
    stage: Stage,
    /// The server stops: no request is taken.
    closed: bool,
    work: Vec<KernelOp>,
    calls: BTreeMap<u32, Live>,
    /// The call that is being answered.
    responding: Option<u64>,
    /// Requests to the client that it may answer: their numbers and types.
    asks: Vec<(u64, Kind)>,
    preforks: HashMap<Token, Arc<dyn Process>>,
    orphaned: bool,
    /// Processes made and not gone yet, and how many were ever made.
    alive: BTreeSet<i32>,
    made: i32,
    is_released: bool,
    /// What the next call asks for before it starts.
    ask_first: Option<CopyRequest>,
}

impl Checked {
    fn make(&mut self) -> Arc<dyn Process> {
        self.made += 1;
        self.alive.insert(self.made);
        Arc::new(Named(self.made))
    }

    fn gone(&mut self, process: &Arc<dyn Process>) {
        assert!(self.alive.remove(&process.pid()), "a process goes once");
    }

    fn is_under_way(&self, which: impl Fn(&KernelOp) -> bool) -> bool {
        self.work.iter().any(which)
    }

    fn response(&mut self, header: &Header, body: &[u8]) {
        match header.kind() {
            Some(Kind::Syscall) => {
                let owed = self.responding.take();
                assert_eq!(owed, Some(header.reqno), "a response nobody owes");
                assert_eq!(body.len(), wire::SYSCALL_RESPONSE_LEN);
            }
            Some(Kind::Handshake) => assert_eq!(body, [0; 4]),
            Some(Kind::Prefork) => assert_eq!(body.len(), TOKEN_LEN),
            kind => panic!("a response of type {kind:?}"),
        }
    }

    fn request(&mut self, header: &Header, body: &[u8]) {
        let kind = header.kind().expect("a type of the protocol");
        match kind {
            Kind::Raise => return assert!(body.is_empty()),
            Kind::Copyin | Kind::Copyinstr => assert_eq!(body.len(), wire::COPY_BODY_LEN),
            Kind::Anonmmap => assert_eq!(body.len(), 8),
            _ => panic!("a request of type {kind:?}"),
        }
        let is_new = self.asks.iter().all(|(reqno, _)| *reqno != header.reqno);
        assert!(is_new, "two requests with one number");
        self.asks.push((header.reqno, kind));
    }
}

impl Host for Checked {
    fn send(&mut self, frame: &[u8]) {
        assert_ne!(self.stage, Stage::Gone, "sent to a client that has gone");
        let (head, body) = frame.split_first_chunk().expect("a header");
        let header = Header::decode(head);
        assert_eq!(header.len, frame.len() as u64, "a frame's length is its own");
        match header.class() {
            Some(Class::Response) => self.response(&header, body),
            Some(Class::Request) => self.request(&header, body),
            Some(Class::Error) => assert!(body.is_empty()),
            None => panic!("a frame without a class"),
        }
    }

    fn hang_up(&mut self, why: &'static str) {
        assert_eq!(self.stage, Stage::Open, "hung up twice: {why}");
        self.stage = Stage::HungUp;
    }

    fn work(&mut self, work: KernelOp) {
        assert!(!self.is_released, "work for a process that is no more");
        match &work {
            KernelOp::Spawn { .. } | KernelOp::Adopt { .. } => assert_eq!(self.made_here(), 0),
            KernelOp::Prefork { parent } => assert!(self.alive.contains(&parent.pid())),
            KernelOp::Interrupt { process } => assert!(self.alive.contains(&process.pid())),
            KernelOp::Exec { command, .. } => {
                assert!(self.calls.is_empty(), "an exec beside calls");
                assert!(command.len() < LIMITS.command.max(wire::FORK_BODY_LEN));
            }
            KernelOp::Release { .. } => {
                assert!(self.calls.is_empty(), "released under its calls");
                assert!(self.work.is_empty(), "released under its work");
                assert_eq!(self.stage, Stage::Gone);
                self.is_released = true;
            }
        }
        self.work.push(work);
    }

    fn discard(&mut self, process: Arc<dyn Process>) {
        self.gone(&process);
    }

    fn call(
        &mut self,
        key: CallKey,
        process: &Arc<dyn Process>,
        request: CallRequest<'_>,
    ) -> Option<CopyRequest> {
        assert_eq!(self.stage, Stage::Open, "a call of a client that is not listened to");
        assert!(!self.closed, "a call of a server that stops");
        assert!(self.alive.contains(&process.pid()), "a call without a process");
        assert!(request.args.len() <= LIMITS.args, "{} bytes of arguments", request.args.len());
        let live = Live { reqno: request.reqno, asked: None };
        assert!(self.calls.insert(key.0, live).is_none(), "two calls with one key");
        assert!(self.calls.len() <= LIMITS.calls, "over the limit");
        let ask = self.ask_first.take();
        self.calls.get_mut(&key.0).expect("it was just put there").asked = ask;
        ask
    }

    fn answer(&mut self, key: CallKey, answer: Answer<'_>) {
        let call = self.calls.get_mut(&key.0).expect("an answer for a call that is there");
        let ask = call.asked.take().expect("an answer for a call that asked");
        let Ok(body) = answer else {
            return;
        };
        match ask {
            CopyRequest::Copyin { len, .. } => {
                assert_eq!(body.len(), len, "as many bytes as asked for")
            }
            CopyRequest::Copyinstr { len, .. } => {
                assert!(body.len() <= len, "no more than asked for")
            }
            CopyRequest::Anonmmap { .. } => assert_eq!(body.len(), 8),
        }
        let mut moved = vec![1, 2, 3];
        let expected = body.to_vec();
        body.move_into(&mut moved);
        assert_eq!(moved, expected);
    }

    fn interrupt_calls(&mut self) {}
    fn interrupt_sleep(&mut self) {}

    fn keep_prefork(&mut self, prefork: Arc<dyn Process>) -> Result<Token, Arc<dyn Process>> {
        if self.preforks.len() > PREFORKS {
            return Err(prefork);
        }
        let token = [prefork.pid() as u8 | 0x80; TOKEN_LEN];
        self.preforks.insert(token, prefork);
        Ok(token)
    }

    fn take_prefork(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        self.preforks.remove(token)
    }

    fn orphan_preforks(&mut self) {
        assert!(!self.orphaned, "orphaned twice");
        self.orphaned = true;
        let own = |token: &Token| *token != GIVEN;
        let gone: Vec<_> = self.preforks.extract_if(|token, _| own(token)).collect();
        for (_, prefork) in gone {
            self.gone(&prefork);
        }
    }
}

impl Checked {
    /// Processes of the session itself.
    fn made_here(&self) -> i32 {
        self.made - 1
    }
}

/// A session, its host, and what its client has sent.
#[derive(Default)]
struct Rig {
    session: Session,
    host: Checked,
    /// Bytes on their way to the session.
    sent: Vec<u8>,
    reqno: u64,
}

impl Rig {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 20 {
            0..=2 => self.deliver(usize::from(input.byte())),
            3 => self.deliver(usize::MAX),
            4..=11 => self.client(input),
            12 | 13 => self.do_work(input),
            14 => self.end_call(input),
            15 => self.ask(input),
            16 => {
                let ask = any_ask(input);
                self.host.ask_first = Some(ask);
            }
            17 => self.session.raise(input.byte().into(), &mut self.host),
            18 => self.client(input),
            _ => self.rare(input),
        }
    }

    /// The client sends something.
    fn client(&mut self, input: &mut Input<'_>) {
        self.reqno += 1;
        let (reqno, out) = (self.reqno, &mut self.sent);
        match input.byte() % 10 {
            0 => {
                let len = usize::from(input.byte());
                out.extend_from_slice(input.take(len));
            }
            1 => wire::handshake_request(out, reqno, Handshake::Guest, "guest"),
            2 => wire::handshake_request(out, reqno, Handshake::Exec, "other"),
            3 => {
                let token = [input.byte(); TOKEN_LEN];
                wire::fork_request(out, reqno, &token, input.byte() & 1 == 1);
            }
            4 => wire::fork_request(out, reqno, &GIVEN, false),
            5 => wire::prefork_request(out, reqno),
            6 | 7 => {
                let args = vec![3; usize::from(input.byte() % 10)];
                wire::syscall_request(out, reqno, input.byte().into(), &args);
            }
            8 => self.answer(input),
            _ => {
                let header = Header {
                    len: (HEADER_LEN as u64).wrapping_add(u64::from(input.byte())),
                    reqno,
                    class: u16::from(input.byte() % 4),
                    kind: u16::from(input.byte() % 10),
                    word: input.byte().into(),
                };
                out.extend_from_slice(&header.encode());
            }
        }
    }

    /// The client answers one of the requests made of it, well or badly.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some(at) = input.pick(self.host.asks.len()) else {
            return;
        };
        let how = input.byte();
        // One that was answered is sometimes answered again.
        let (reqno, kind) = match how & 0x80 {
            0 => self.host.asks.remove(at),
            _ => self.host.asks[at],
        };
        let call = self.host.calls.get(&(reqno as u32));
        let asked = call.and_then(|call| call.asked).map_or(8, |ask| match ask {
            CopyRequest::Copyin { len, .. } | CopyRequest::Copyinstr { len, .. } => len,
            CopyRequest::Anonmmap { .. } => 8,
        });
        let len = match how % 8 {
            5 => asked.saturating_sub(1),
            6 => asked + 1,
            7 => usize::from(input.byte()),
            _ => asked,
        };
        let class = if how % 8 == 4 { Class::Error } else { Class::Response };
        let kind = if how & 0x40 == 0 { kind.number() } else { u16::from(input.byte()) };
        let len = if class == Class::Error { 0 } else { len };
        let head =
            Header { len: (HEADER_LEN + len) as u64, reqno, class: class.number(), kind, word: 0 };
        self.sent.extend_from_slice(&head.encode());
        self.sent.resize(self.sent.len() + len, b'x');
    }

    /// So many bytes reach the session.
    fn deliver(&mut self, most: usize) {
        let len = most.min(self.sent.len());
        let mut bytes = &self.sent[..len];
        self.session.receive(&mut bytes, &LIMITS, &mut self.host);
        let left = bytes.len();
        let may_leave = self.session.is_stalled();
        assert!(left == 0 || may_leave, "{left} bytes were left without a reason");
        self.sent.drain(..len - left);
    }

    /// A piece of work is done.
    fn do_work(&mut self, input: &mut Input<'_>) {
        if let Some(at) = input.pick(self.host.work.len()) {
            self.done(at, input.byte() % 4 != 3);
        }
    }

    fn done(&mut self, at: usize, succeeds: bool) {
        let work = self.host.work.swap_remove(at);
        let result = |host: &mut Checked| if succeeds { Ok(host.make()) } else { Err(Errno(12)) };
        let (session, host) = (&mut self.session, &mut self.host);
        match work {
            KernelOp::Spawn { .. } => {
                let made = result(host);
                session.spawned(made, host);
            }
            KernelOp::Adopt { prefork } => {
                let made = result(host);
                host.gone(&prefork);
                session.spawned(made, host);
            }
            KernelOp::Prefork { .. } => {
                let made = result(host);
                session.preforked(made, host);
            }
            KernelOp::Interrupt { .. } => session.interrupted(host),
            KernelOp::Exec { .. } => session.executed(host),
            KernelOp::Release { process } => {
                host.gone(&process);
                session.released();
            }
        }
    }

    /// A call that waits for nothing.
    fn running(&self, nth: u8) -> Option<u32> {
        let running = || self.host.calls.iter().filter(|(_, call)| call.asked.is_none());
        running().nth(usize::from(nth) % running().count().max(1)).map(|(key, _)| *key)
    }

    fn end_call(&mut self, input: &mut Input<'_>) {
        if let Some(key) = self.running(input.byte()) {
            let result = if input.byte() & 1 == 0 { Ok([5, 0]) } else { Err(Errno(4)) };
            self.respond(key, result);
        }
    }

    fn respond(&mut self, key: u32, result: Result<[i64; 2], Errno>) {
        let call = self.host.calls.remove(&key).expect("a live call");
        self.host.responding = Some(call.reqno);
        self.session.respond(CallKey(key), result, &mut self.host);
        let is_answered = self.host.responding.take().is_none();
        assert_eq!(
            is_answered,
            self.host.stage != Stage::Gone,
            "answered unless its client is gone"
        );
    }

    fn ask(&mut self, input: &mut Input<'_>) {
        if let Some(key) = self.running(input.byte()) {
            let ask = any_ask(input);
            self.host.calls.get_mut(&key).expect("a live call").asked = Some(ask);
            self.session.ask(CallKey(key), ask, &mut self.host);
        }
    }

    /// What happens once in a session, if at all.
    fn rare(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.disconnect(),
            1 => {
                self.session.hung_up();
                if self.host.stage == Stage::Open {
                    self.host.stage = Stage::HungUp;
                }
            }
            2 => {
                self.session.take_no_more();
                self.host.closed = true;
            }
            _ => {}
        }
    }

    fn disconnect(&mut self) {
        self.host.stage = Stage::Gone;
        self.session.disconnect(&mut self.host);
        let is_any_asked = self.host.calls.values().any(|call| call.asked.is_some());
        assert!(!is_any_asked, "a call waits for a client that has gone");
    }

    /// What holds between any two steps.
    fn check(&self) {
        let host = &self.host;
        let asked = host.calls.values().filter(|call| call.asked.is_some()).count();
        assert_eq!(self.session.calls(), host.calls.len(), "both count the same calls");
        assert_eq!(self.session.waits_for_client(), asked > 0, "{asked} calls wait");
        let stalls = |work: &KernelOp| {
            matches!(
                work,
                KernelOp::Spawn { .. } | KernelOp::Adopt { .. } | KernelOp::Prefork { .. }
            )
        };
        if self.session.is_stalled() {
            assert!(host.is_under_way(stalls), "stalled for nothing");
        }
    }

    /// The client goes, what is under way ends, and that is the end of the session.
    fn end(&mut self) {
        self.disconnect();
        let most = self.host.work.len() + self.host.calls.len() + 3;
        for _ in 0..most {
            if let Some(key) = self.running(0) {
                self.respond(key, Err(Errno(4)));
            }
            if !self.host.work.is_empty() {
                self.done(0, true);
            }
            self.check();
        }
        assert!(self.session.is_finished(), "all has ended but the session");
        let waiting: BTreeSet<i32> = self.host.preforks.values().map(|it| it.pid()).collect();
        assert_eq!(self.host.alive, waiting, "processes that nobody has");
        self.session.disconnect(&mut self.host);
    }
}

fn any_ask(input: &mut Input<'_>) -> CopyRequest {
    let which = input.byte();
    let len = (usize::from(input.byte()) * 4).min(MEMORY);
    match which % 3 {
        0 => CopyRequest::Copyin { addr: 0x1000, len },
        1 => CopyRequest::Copyinstr { addr: 0x1000, len },
        _ => CopyRequest::Anonmmap { len: 4096 },
    }
}
