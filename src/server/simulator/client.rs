//! Simulated clients, good and bad: what they send, and what they check of the server.
//!
//! Each memory address of a client holds a byte that follows from the client and the address, so a byte
//! in the wrong place is noticed. The addresses of a call contain its number.

use std::collections::{HashMap, VecDeque};

use ring::Socket;

use super::kernel::{STRING, sys};
use super::net::Wire;
use rumpsp::wire::{
    self, Class, ErrorCode, HEADER_LEN, Handshake, Header, Kind, TOKEN_LEN, Token, read_u32,
    read_u64,
};

/// The size of a call's memory, which begins at the call's number times this.
const SPAN: u64 = 1 << 20;
/// The offset in that memory of the call's copies out.
const OUT: u64 = 1 << 19;
/// The most bytes that a client has sent and the server has not received.
const SEND_BUFFER: usize = 32 * 1024;
/// NetBSD's errno values, with which the kernel answers.
const EINTR: i32 = 4;
const EIO: i32 = 5;
const EFAULT: i32 = 14;
const ENOSYS: i32 = 78;

/// The behaviour of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Good,
    /// The client reads little, and late.
    Slow,
    /// The client never answers questions.
    Silent,
    /// The client sends nonsense now and then.
    Wild,
}

/// The progress of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client has not sent its handshake.
    New,
    Greeting,
    Running,
    /// The client expects only the end of the connection.
    Ending,
}

/// A call that was sent and is not answered.
struct Expected {
    number: i32,
    args: [u64; 3],
    /// True if the client declined what the call asked for.
    declined: bool,
    /// True if an exec may end the call.
    may_end: bool,
    /// The bytes that the call has copied out.
    out: Vec<u8>,
    raised: bool,
}

/// A simulated client.
pub struct FakeClient {
    pub socket: Socket,
    pub manners: Manners,
    id: u64,
    stage: Stage,
    inbox: Vec<u8>,
    has_banner: bool,
    calls: HashMap<u64, Expected>,
    next: u64,
    /// The questions of the server that are not yet answered.
    asks: VecDeque<(Header, Vec<u8>)>,
    preforking: bool,
    execing: bool,
    pub tokens: Vec<Token>,
    /// The prefork's token that the client connects with, if it does.
    token: Option<Token>,
    /// True if the client has sent something that has no defined answer.
    is_lost: bool,
    /// True if a halt by this client was answered.
    has_halted: bool,
    /// True if the server may end the connection, because a kernel halts or the server stops.
    pub may_end: bool,
    /// True if all calls of the client go on when it sends no more, and it has all the time to read their
    /// answers.
    pub may_half_close: bool,
}

/// A description of what the server did wrong.
pub type Broken = String;

impl FakeClient {
    pub fn new(socket: Socket, id: u64, manners: Manners, token: Option<Token>) -> FakeClient {
        FakeClient {
            socket,
            manners,
            id,
            stage: Stage::New,
            inbox: Vec::new(),
            has_banner: false,
            calls: HashMap::new(),
            next: 1,
            asks: VecDeque::new(),
            preforking: false,
            execing: false,
            tokens: Vec::new(),
            token,
            is_lost: false,
            has_halted: false,
            may_end: false,
            may_half_close: false,
        }
    }

    /// Returns the number of a call that the server owes an answer, if nothing else has to happen first.
    pub fn unsent(&self) -> Option<i32> {
        let is_due = |call: &&Expected| call.number != sys::WAIT;
        self.calls.values().find(is_due).map(|call| call.number)
    }

    /// Returns `true` if the client still waits for the answer to a halt and must get it: it reads, and
    /// has sent no nonsense.
    pub fn misses_halt(&self) -> bool {
        let reads = matches!(self.manners, Manners::Good | Manners::Slow) && !self.is_lost;
        let halts = self.calls.values().any(|call| call.number == sys::HALT);
        // The connection ends after the first answer, whatever else was asked.
        reads && halts && !self.has_halted
    }

    /// Returns the client's number among all clients of the schedule.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the number of its calls in flight. Once it is calm, these sleep until somebody signals.
    pub fn waits(&self) -> usize {
        self.calls.len()
    }

    /// Returns `true` if the server owes the client nothing but answers to calls.
    pub fn is_answered(&self) -> bool {
        !self.preforking && !self.execing && self.stage != Stage::Greeting
    }

    /// Returns `true` if the server must serve the client to the end of its wishes.
    pub fn is_good(&self) -> bool {
        matches!(self.manners, Manners::Good | Manners::Slow) && !self.is_lost && !self.may_end
    }

    /// Does something of its own accord.
    pub fn act(&mut self, wire: &mut Wire, random: &mut fastrand::Rng) {
        if wire.to_server.len() > SEND_BUFFER || wire.client_gone || wire.half_closed {
            return;
        }
        if random.u8(..100) == 0 {
            return self.half_close(wire);
        }
        let mut bytes = Vec::new();
        match self.stage {
            Stage::New if self.manners == Manners::Wild && random.u8(..4) == 0 => {
                self.nonsense(&mut bytes, random);
            }
            Stage::New => self.greet(&mut bytes),
            Stage::Running => self.go_on(&mut bytes, random),
            Stage::Greeting | Stage::Ending => {}
        }
        wire.to_server.extend(bytes);
    }

    /// Sends no more, and waits for what the client is owed. Calls that would ask the client are
    /// declined.
    fn half_close(&mut self, wire: &mut Wire) {
        wire.half_closed = true;
        self.asks.clear();
        self.may_end |= !self.may_half_close;
        for call in self.calls.values_mut() {
            call.declined = true;
            call.may_end |= !self.may_half_close;
        }
    }

    fn greet(&mut self, bytes: &mut Vec<u8>) {
        match self.token {
            Some(token) => wire::fork_request(bytes, 0, &token, false),
            None => wire::handshake_request(bytes, 0, Handshake::Guest, "fake"),
        }
        self.stage = Stage::Greeting;
    }

    fn go_on(&mut self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        // A program that becomes another one makes no calls meanwhile, because the exec would wait for
        // them.
        if self.is_lost || self.execing {
            return;
        }
        match random.u8(..20) {
            0 if !self.preforking && !self.execing => {
                self.preforking = true;
                wire::prefork_request(bytes, 0);
            }
            1 if !self.preforking && !self.execing => self.exec(bytes),
            2 if self.manners == Manners::Wild => self.nonsense(bytes, random),
            _ => {
                for _ in 0..random.u8(1..=4) {
                    self.call(bytes, random);
                }
            }
        }
    }

    fn exec(&mut self, bytes: &mut Vec<u8>) {
        self.execing = true;
        for call in self.calls.values_mut() {
            call.may_end = true;
        }
        wire::handshake_request(bytes, 0, Handshake::Exec, "other");
    }

    fn call(&mut self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let number = match random.u8(..40) {
            0 => sys::PANIC,
            1 => sys::END,
            2 if random.u8(..5) == 0 => sys::HALT,
            3..10 => sys::ECHO,
            10..14 => sys::SLEEP,
            14..18 => sys::WAIT,
            18..22 => sys::SIGNAL,
            22..25 => sys::FLOOD,
            25..28 => sys::STRING,
            28..30 => sys::MAP,
            30..32 => sys::RAISE,
            _ => sys::NOP,
        };
        let at = self.next * SPAN;
        let args = match number {
            sys::NOP => [random.u64(..), 0, 0],
            sys::ECHO => {
                let most = if random.u8(..4) == 0 { 40_000 } else { 200 };
                [at + random.u64(..1000), random.u64(1..most), at + OUT]
            }
            sys::SLEEP => [random.u64(..50), 0, 0],
            sys::FLOOD => [at + OUT, random.u64(1..200_000), 0],
            sys::STRING => [at, 0, 0],
            sys::MAP => [random.u64(1..30), 0, 0],
            sys::HALT => [self.id, 0, 0],
            // Each call raises a signal of its own.
            sys::RAISE => [1 + self.next % 63, 0, 0],
            _ => [0; 3],
        };
        wire::syscall_request(bytes, self.next, number, &args);
        let expected = Expected {
            number,
            args,
            declined: false,
            may_end: self.execing || number == sys::HALT,
            out: Vec::new(),
            raised: false,
        };
        self.calls.insert(self.next, expected);
        self.next += 1;
    }

    /// Appends bytes that mean nothing, or nothing good.
    fn nonsense(&mut self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        self.is_lost = true;
        let len = if random.bool() { HEADER_LEN as u64 } else { random.u64(..5000) };
        let header = Header {
            len,
            reqno: random.u64(..4),
            class: random.u16(..4),
            kind: random.u16(..10),
            word: random.u32(..12),
        };
        bytes.extend(header.encode());
        bytes.extend((0..random.u8(..50)).map(|_| random.u8(..)));
    }

    /// Reads some of what has come, and checks it.
    pub fn read(
        &mut self,
        wire: &mut Wire,
        random: &mut fastrand::Rng,
        is_calm: bool,
    ) -> Result<(), Broken> {
        let most = match self.manners {
            Manners::Slow if !is_calm => random.usize(..=100),
            _ => usize::MAX,
        };
        let now = most.min(wire.to_client.len());
        self.inbox.extend(wire.to_client.drain(..now));
        while let Some((header, body)) = self.next_frame()? {
            self.drain_mailbox(header, body)?;
        }
        let is_end = wire.has_ended() && wire.to_client.is_empty();
        if is_end && self.stage != Stage::Ending {
            let is_served = wire.half_closed && self.calls.is_empty() && self.is_answered();
            if self.is_good() && !wire.has_failed && !is_served {
                return Err(format!("{} is hung up on, {:?}", self.name(), self.manners));
            }
            self.stage = Stage::Ending;
        }
        Ok(())
    }

    /// Returns `true` if the client has nothing more to read.
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ending
    }

    fn next_frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, Broken> {
        if !self.has_banner {
            let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') else {
                return Ok(None);
            };
            self.has_banner = true;
            self.inbox.drain(..=end);
        }
        let Some(header) = self.inbox.first_chunk().map(Header::decode) else {
            return Ok(None);
        };
        let len = header.len as usize;
        if !(HEADER_LEN..=1 << 20).contains(&len) {
            return Err(format!("{}: a frame of {len} bytes", self.name()));
        }
        if self.inbox.len() < len {
            return Ok(None);
        }
        let body = self.inbox[HEADER_LEN..len].to_vec();
        self.inbox.drain(..len);
        Ok(Some((header, body)))
    }

    fn drain_mailbox(&mut self, header: Header, body: Vec<u8>) -> Result<(), Broken> {
        if self.is_lost {
            // Nobody knows what the server made of the client's nonsense.
            return Ok(());
        }
        match (header.class(), header.kind()) {
            (Some(Class::Response), Some(Kind::Handshake)) if self.execing => {
                self.execing = false;
                for call in self.calls.values_mut() {
                    call.may_end = false;
                }
                Ok(())
            }
            (Some(Class::Response), Some(Kind::Handshake)) => {
                let before = std::mem::replace(&mut self.stage, Stage::Running);
                self.rule(before == Stage::Greeting, "a handshake that was answered twice")
            }
            (Some(Class::Response), Some(Kind::Prefork)) => {
                self.tokens.push(body[..TOKEN_LEN].try_into().expect("a token"));
                let was = std::mem::take(&mut self.preforking);
                self.rule(was, "a prefork that nobody asked for")
            }
            (Some(Class::Response), Some(Kind::Syscall)) => self.answered(header.reqno, &body),
            (Some(Class::Error), _) => self.refused(&header),
            (Some(Class::Request), Some(Kind::Copyout)) => self.copied_out(&body),
            (Some(Class::Request), Some(Kind::Raise)) => {
                let name = self.name();
                let raised = |call: &&mut Expected| {
                    call.number == sys::RAISE && call.args[0] == u64::from(header.word)
                };
                // Several calls that raise the same signal may share one.
                let mut callers = self.calls.values_mut().filter(raised).peekable();
                if callers.peek().is_none() {
                    return Err(format!("{name}: a signal of nobody"));
                }
                callers.for_each(|call| call.raised = true);
                Ok(())
            }
            (Some(Class::Request), Some(Kind::Copyin | Kind::Copyinstr | Kind::Anonmmap)) => {
                let key = self.asked_by(&header, &body);
                let is_known = key.is_none_or(|reqno| self.calls.contains_key(&reqno));
                self.asks.push_back((header, body));
                self.rule(is_known, "an ask of a call that is over")
            }
            _ => Err(format!("{}: an unknown frame {header:?}", self.name())),
        }
    }

    /// Returns the call whose memory is asked for, if the question names it.
    fn asked_by(&self, header: &Header, body: &[u8]) -> Option<u64> {
        (header.kind() != Some(Kind::Anonmmap)).then(|| read_u64(body, 8) / SPAN)
    }

    fn copied_out(&mut self, body: &[u8]) -> Result<(), Broken> {
        let (len, addr) = (read_u64(body, 0) as usize, read_u64(body, 8));
        let bytes = &body[wire::COPY_BODY_LEN..];
        let name = self.name();
        let Some(call) = self.calls.get_mut(&(addr / SPAN)) else {
            return Err(format!("{name}: a copyout behind its call's response"));
        };
        if bytes.len() != len || addr % SPAN != OUT + call.out.len() as u64 {
            return Err(format!("{name}: a copyout out of order in call {}", call.number));
        }
        call.out.extend_from_slice(bytes);
        Ok(())
    }

    fn answered(&mut self, reqno: u64, body: &[u8]) -> Result<(), Broken> {
        let Some(call) = self.calls.remove(&reqno) else {
            return Err(format!("{}: call {reqno} is answered twice", self.name()));
        };
        self.has_halted |= call.number == sys::HALT;
        let (error, value) = (read_u32(body, 0) as i32, read_u64(body, 8));
        let good = match (call.number, error) {
            (_, EINTR) => call.may_end || self.execing,
            (sys::PANIC, error) => error == EIO,
            (sys::ECHO | sys::STRING, EFAULT) => call.declined,
            (sys::MAP, EFAULT) => call.declined,
            (number, ENOSYS) => number >= sys::END,
            (_, 0) => self.is_right(&call, value),
            _ => false,
        };
        let what = format!("call {} answered with error {error}, value {value}", call.number);
        if good { Ok(()) } else { Err(format!("{}: {what}", self.name())) }
    }

    /// Returns `true` if a call that succeeded did what it was to do.
    fn is_right(&self, call: &Expected, value: u64) -> bool {
        let [first, len, _] = call.args;
        match call.number {
            sys::NOP => value == first,
            sys::ECHO => value == len && call.out == self.bytes(first, len as usize),
            sys::FLOOD => value == len && call.out.len() as u64 == len,
            sys::STRING => value == (self.id % (STRING as u64 - 1)),
            sys::MAP => value == first * 4096,
            sys::RAISE => call.raised,
            number => number < sys::END && call.out.is_empty(),
        }
    }

    fn refused(&mut self, header: &Header) -> Result<(), Broken> {
        let code = ErrorCode::from_number(header.word);
        match code {
            Some(ErrorCode::TryAgain) if self.calls.remove(&header.reqno).is_some() => {}
            Some(ErrorCode::RforkFailed | ErrorCode::NoMemory) if self.preforking => {
                self.preforking = false;
            }
            Some(ErrorCode::RforkFailed | ErrorCode::InvalidPrefork)
                if self.stage == Stage::Greeting =>
            {
                self.stage = Stage::Ending;
            }
            _ => return Err(format!("{}: refused with {code:?}: {header:?}", self.name())),
        }
        Ok(())
    }

    /// Answers a question, or declines it. Returns `false` if there was nothing to answer.
    pub fn answer(&mut self, wire: &mut Wire, random: &mut fastrand::Rng, is_calm: bool) -> bool {
        let is_silent = self.manners == Manners::Silent || wire.half_closed;
        if is_silent || wire.client_gone || self.asks.is_empty() {
            return false;
        }
        let at = if is_calm { 0 } else { random.usize(..self.asks.len()) };
        let (header, body) = self.asks.remove(at).expect("there is one");
        let declines = !is_calm && random.u8(..16) == 0;
        let frame = if declines { self.decline(&header, &body) } else { self.give(&header, &body) };
        wire.to_server.extend(frame);
        true
    }

    fn decline(&mut self, header: &Header, body: &[u8]) -> Vec<u8> {
        // A request for new memory does not name its call, so each call may be the one.
        let by = self.asked_by(header, body);
        for (reqno, call) in &mut self.calls {
            call.declined |= by.is_none_or(|by| by == *reqno);
        }
        wire::error_response(header.reqno, ErrorCode::Malformed).to_vec()
    }

    fn give(&mut self, header: &Header, body: &[u8]) -> Vec<u8> {
        let bytes = match header.kind() {
            Some(Kind::Copyin) => self.bytes(read_u64(body, 8), read_u64(body, 0) as usize),
            Some(Kind::Copyinstr) => {
                let mut string = vec![b'x'; (self.id % (STRING as u64 - 1)) as usize];
                string.push(0);
                string
            }
            _ => (read_u64(body, 0) * 4096).to_le_bytes().to_vec(),
        };
        let len = (HEADER_LEN + bytes.len()) as u64;
        let class = Class::Response.number();
        let mut frame = Header { len, class, word: 0, ..*header }.encode().to_vec();
        frame.extend(bytes);
        frame
    }

    /// Closes the client's end, with a reset or without.
    pub fn vanish(&mut self, wire: &mut Wire, is_reset: bool) {
        wire.client_gone = true;
        if is_reset {
            wire.to_server.clear();
        }
    }

    /// Returns the bytes in the client's memory.
    fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        (addr..addr + len as u64)
            .map(|addr| (addr.wrapping_mul(0x9e37_79b9) >> 7) as u8 ^ self.id as u8)
            .collect()
    }

    fn name(&self) -> String {
        format!("client {} at {:?}", self.id, self.socket)
    }

    fn rule(&self, holds: bool, what: &str) -> Result<(), Broken> {
        if holds { Ok(()) } else { Err(format!("{}: {what}", self.name())) }
    }
}
