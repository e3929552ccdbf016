//! One client's session: handshakes, calls, copies, fork, exec, death.
//!
//! A [`Session`] is a state machine without a socket and without a thread. It is fed the bytes a client
//! sent and the results of work it had asked for, and it tells its [`Host`] which frames to send and
//! which work to do. All entries into the kernel are [`KernelOp`], for they may sleep.
//!
//! The rules of the protocol are those of the reference server (NetBSD
//! `lib/librumpuser/rumpuser_sp.c`), except where that server dies of what a client sends.

mod limits;
mod request;
#[cfg(test)]
mod tests;

pub use limits::Limits;

use std::sync::Arc;

use slab::Slab;

use crate::wire::{self, Body, Class, ErrorCode, Header, Kind, Reader, Token};
use kernel::{Errno, Process};

/// The key of a call of a session, from its start to its response. It is used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(pub u32);

/// A call as the client asked for it.
#[derive(Debug, PartialEq, Eq)]
pub struct CallRequest<'a> {
    /// The client's number for the call.
    pub reqno: u64,
    /// The syscall number, unchecked.
    pub number: i32,
    /// The argument structure: at most as long as [`Limits::args`], perhaps shorter than the call
    /// needs.
    pub args: &'a [u8],
}

/// A piece of work to be done inside the kernel, on a worker.
pub enum KernelOp {
    /// [`kernel::Kernel::spawn`]; answered by [`Session::spawned`].
    Spawn { command: Vec<u8> },
    /// [`Process::adopt`] on the prefork, then its release; answered by [`Session::spawned`].
    Adopt { prefork: Arc<dyn Process> },
    /// [`Process::prefork`]; answered by [`Session::preforked`].
    Prefork { parent: Arc<dyn Process> },
    /// [`Process::interrupt`]; answered by [`Session::interrupted`].
    Interrupt { process: Arc<dyn Process> },
    /// [`Process::exec`]; answered by [`Session::executed`].
    Exec { process: Arc<dyn Process>, command: Vec<u8> },
    /// [`Process::release`]; answered by [`Session::released`].
    Release { process: Arc<dyn Process> },
}

/// A request to the client that a call needs answered before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRequest {
    /// Exactly this many bytes.
    Copyin { addr: u64, len: usize },
    /// A string with its NUL, or the first `len` bytes of a longer one.
    Copyinstr { addr: u64, len: usize },
    /// The address of fresh memory, or 0.
    Anonmmap { len: u64 },
}

/// A client's answer to a [`CopyRequest`]; `Err` if the client refused, answered nonsense, or is gone.
pub type Answer<'a> = Result<Body<'a>, ()>;

/// The operations a session asks its host for.
pub trait Host {
    /// Queues a frame behind the bytes already queued for the client.
    fn send(&mut self, frame: &[u8]);
    /// Ends the connection once all queued bytes have been sent.
    fn hang_up(&mut self, why: &'static str);
    /// Starts work inside the kernel.
    fn work(&mut self, work: KernelOp);
    /// Returns `true` if no more frames can be taken for now. A host that does so brings the rest
    /// later.
    fn is_full(&mut self) -> bool {
        false
    }
    /// Returns `true` if there is room for one more call, over all clients.
    fn admits_call(&self) -> bool {
        true
    }
    /// Has a process released that belongs to no session.
    fn discard(&mut self, process: Arc<dyn Process>);
    /// Starts a call on this process, or returns the request that the client must answer first: the
    /// call then starts with the answer.
    fn call(
        &mut self,
        key: CallKey,
        process: &Arc<dyn Process>,
        request: CallRequest<'_>,
    ) -> Option<CopyRequest>;
    /// Hands the answer to the call that asked, and lets it go on.
    fn answer(&mut self, key: CallKey, answer: Answer<'_>);
    /// Wakes all calls of this session that sleep, for good: they must end.
    fn interrupt_calls(&mut self);
    /// Wakes all calls of this session that sleep, but lets calls go on that can do so without sleep.
    fn interrupt_sleep(&mut self);
    /// Keeps a prefork of this session and returns its token, or gives it back at a limit.
    fn keep_prefork(&mut self, prefork: Arc<dyn Process>) -> Result<Token, Arc<dyn Process>>;
    /// Takes the prefork with this token, which is no longer valid then.
    fn take_prefork(&mut self, token: &Token) -> Option<Arc<dyn Process>>;
    /// Releases the unused preforks of this session, whose parent is gone, too.
    fn orphan_preforks(&mut self);
}

/// One client.
pub struct Session {
    reader: Reader,
    state: State,
    process: Option<Arc<dyn Process>>,
    calls: Slab<InFlight>,
    /// An exec that waits for the other calls, or runs. It is rare, hence boxed.
    exec: Option<Box<Exec>>,
    /// The number of pieces of [`KernelOp`] under way.
    working: u32,
    /// The number of calls that wait for the client.
    asks: u32,
    /// True if the session may have preforks that wait.
    has_preforked: bool,
    /// True once requests are dropped: see [`Session::take_no_more`].
    closed: bool,
    /// True once the client answers no more: see [`Session::end_of_input`].
    has_ended: bool,
    /// Distinguishes the asks of calls that used the same key.
    next_ask: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only a handshake is allowed.
    New,
    /// The kernel makes the process; this request is answered after that.
    Handshaking {
        reqno: u64,
    },
    Running,
    /// The kernel forks the process; this request is answered after that.
    Preforking {
        reqno: u64,
    },
    /// The host is hanging up on the client: bytes of the client are ignored.
    HungUp,
    /// The client is gone.
    Gone,
    /// The client and its process are gone.
    Finished,
}

/// A call that has not been answered.
struct InFlight {
    reqno: u64,
    asked: Option<Asked>,
}

/// A request to the client that has not been answered.
struct Asked {
    reqno: u64,
    ask: CopyRequest,
}

struct Exec {
    reqno: u64,
    command: Vec<u8>,
    stage: ExecStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExecStage {
    /// The exec waits for the process's other calls and for the kernel to have woken them.
    Draining {
        interrupted: bool,
    },
    Running,
}

/// A reason why bytes of a client end its connection.
struct Refusal {
    reqno: u64,
    code: Option<ErrorCode>,
    why: &'static str,
}

impl Default for Session {
    fn default() -> Session {
        Session {
            reader: Reader::default(),
            state: State::New,
            process: None,
            calls: Slab::new(),
            exec: None,
            working: 0,
            asks: 0,
            has_preforked: false,
            closed: false,
            has_ended: false,
            next_ask: 0,
        }
    }
}

impl Session {
    /// Takes bytes of the client up to the end of `input`, or until the session stalls or the host is
    /// full. The bytes left in `input` then must be brought again once [`Session::is_stalled`] is false
    /// and the host has room.
    pub fn receive(&mut self, input: &mut &[u8], limits: &Limits, host: &mut impl Host) {
        let mut reader = std::mem::take(&mut self.reader);
        while !self.is_stalled() && !self.is_deaf() && !host.is_full() {
            let frame = reader.next(
                input,
                |header| self.body_bound(header, limits),
                |header| Refusal {
                    reqno: header.reqno,
                    code: (header.class() != Some(Class::Response)).then_some(ErrorCode::Malformed),
                    why: "a frame's length is out of bounds",
                },
            );
            match frame {
                Ok(Some(frame)) => self.frame(frame.header, frame.body, limits, host),
                Ok(None) => break,
                Err(refusal) => self.refuse(refusal, host),
            }
        }
        if self.is_deaf() {
            *input = &[];
        }
        self.reader = reader;
    }

    /// Ends the session's calls and then releases its process, because the client is gone or is to be
    /// treated so.
    pub fn disconnect(&mut self, host: &mut impl Host) {
        if self.is_over() {
            return;
        }
        self.state = State::Gone;
        self.reader = Reader::default();
        if self.has_preforked {
            host.orphan_preforks();
        }
        self.refuse_asks(host);
        host.interrupt_calls();
        if let Some(process) = self.process.clone().filter(|_| !self.calls.is_empty()) {
            self.start(KernelOp::Interrupt { process }, host);
        }
        self.release_if_over(host);
    }

    /// Notes that the client sends no more, though it may still read: requests of its calls are refused
    /// from now on. With `wake`, calls that sleep end; the others go on in any case.
    pub fn end_of_input(&mut self, wake: bool, host: &mut impl Host) {
        self.has_ended = true;
        self.refuse_asks(host);
        if let Some(process) = self.process.clone().filter(|_| wake && !self.calls.is_empty()) {
            host.interrupt_sleep();
            self.start(KernelOp::Interrupt { process }, host);
        }
    }

    fn refuse_asks(&mut self, host: &mut impl Host) {
        for (key, call) in &mut self.calls {
            if call.asked.take().is_some() {
                self.asks -= 1;
                host.answer(CallKey(key as u32), Err(()));
            }
        }
    }

    /// Takes the result of making the process.
    pub fn spawned(&mut self, result: Result<Arc<dyn Process>, Errno>, host: &mut impl Host) {
        let State::Handshaking { reqno } = self.end_work() else {
            self.process = result.ok();
            return self.release_if_over(host);
        };
        match result {
            Ok(process) => {
                self.process = Some(process);
                host.send(&wire::handshake_response(reqno));
            }
            Err(_) => self.refuse(
                Refusal {
                    reqno,
                    code: Some(ErrorCode::RforkFailed),
                    why: "the kernel made no process",
                },
                host,
            ),
        }
    }

    /// Takes the result of forking the process for a child to come.
    pub fn preforked(&mut self, result: Result<Arc<dyn Process>, Errno>, host: &mut impl Host) {
        match (self.end_work(), result) {
            (State::Preforking { reqno }, Ok(process)) => match host.keep_prefork(process) {
                Ok(token) => {
                    self.has_preforked = true;
                    host.send(&wire::prefork_response(reqno, &token));
                }
                Err(process) => {
                    host.discard(process);
                    host.send(&wire::error_response(reqno, ErrorCode::NoMemory));
                }
            },
            (State::Preforking { reqno }, Err(_)) => {
                host.send(&wire::error_response(reqno, ErrorCode::RforkFailed));
            }
            (_, Ok(process)) => host.discard(process),
            (_, Err(_)) => {}
        }
        self.release_if_over(host);
    }

    /// Notes that the kernel has woken the process's calls.
    pub fn interrupted(&mut self, host: &mut impl Host) {
        self.working -= 1;
        if let Some(exec) = &mut self.exec
            && let ExecStage::Draining { interrupted } = &mut exec.stage
        {
            *interrupted = true;
        }
        self.exec_if_drained(host);
        self.release_if_over(host);
    }

    /// Notes that the process has its new name.
    pub fn executed(&mut self, host: &mut impl Host) {
        self.working -= 1;
        if let Some(exec) = self.exec.take()
            && !self.is_over()
        {
            host.send(&wire::handshake_response(exec.reqno));
        }
        self.release_if_over(host);
    }

    /// Notes that the process is released.
    pub fn released(&mut self) {
        self.working -= 1;
        self.state = State::Finished;
    }

    /// Sends the response of a call that has ended, behind the frames it has copied out.
    pub fn respond(&mut self, key: CallKey, result: Result<[i64; 2], Errno>, host: &mut impl Host) {
        let call = self.calls.remove(key.0 as usize);
        if !self.is_over() {
            let (error, retval) = match result {
                Ok(retval) => (0, retval),
                Err(errno) => (errno.0, [-1, 0]),
            };
            host.send(&wire::syscall_response(call.reqno, error, retval));
        }
        self.exec_if_drained(host);
        self.release_if_over(host);
    }

    /// Sends the client a request that a call needs answered before it can go on.
    pub fn ask(&mut self, key: CallKey, ask: CopyRequest, host: &mut impl Host) {
        if self.is_over() || self.has_ended {
            return host.answer(key, Err(()));
        }
        self.next_ask = self.next_ask.wrapping_add(1);
        let reqno = u64::from(self.next_ask) << 32 | u64::from(key.0);
        self.calls[key.0 as usize].asked = Some(Asked { reqno, ask });
        self.asks += 1;
        match ask {
            CopyRequest::Copyin { addr, len } => {
                host.send(&wire::copyin_request(reqno, Kind::Copyin, len as u64, addr));
            }
            CopyRequest::Copyinstr { addr, len } => {
                host.send(&wire::copyin_request(reqno, Kind::Copyinstr, len as u64, addr));
            }
            CopyRequest::Anonmmap { len } => host.send(&wire::anonmmap_request(reqno, len)),
        }
    }

    /// Delivers a signal to the client.
    pub fn raise(&mut self, signo: i32, host: &mut impl Host) {
        if !self.is_over() {
            host.send(&wire::raise_request(0, signo));
        }
    }

    /// Notes that the host hangs up for a reason of its own: bytes of the client are ignored from now
    /// on.
    pub fn hung_up(&mut self) {
        if !self.is_over() {
            self.state = State::HungUp;
        }
    }

    /// Returns `true` if frames have to wait for work that is under way, because their meaning depends
    /// on it.
    ///
    /// Frames never wait for calls to end: a call may end only after frames to come, such as a write to
    /// the pipe it reads, or the end of the connection.
    pub fn is_stalled(&self) -> bool {
        matches!(self.state, State::Handshaking { .. } | State::Preforking { .. })
    }

    /// Drops requests from now on, because the server stops. Calls in flight go on, and so do the
    /// client's answers to them.
    pub fn take_no_more(&mut self) {
        self.closed = true;
    }

    /// Returns `true` if calls wait for the client, so that not reading from it could go on for ever.
    pub fn waits_for_client(&self) -> bool {
        self.asks > 0
    }

    /// Returns the memory taken by a frame that is not whole.
    pub fn unread(&self) -> usize {
        self.reader.capacity()
    }

    /// Returns `true` if the handshake is still to come.
    pub fn is_new(&self) -> bool {
        self.state == State::New
    }

    /// Returns the number of calls not yet answered.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Returns `true` if nothing is under way, and nothing will be until the client sends something.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.working == 0 && self.exec.is_none()
    }

    /// Returns `true` if client and process are gone and nothing of the session is left in the kernel.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Returns `true` if nothing is sent any more.
    fn is_over(&self) -> bool {
        matches!(self.state, State::Gone | State::Finished)
    }

    /// Returns `true` if bytes of the client are ignored.
    fn is_deaf(&self) -> bool {
        self.is_over() || self.state == State::HungUp
    }

    /// Ends the work a session stalls for; returns the state it was in.
    fn end_work(&mut self) -> State {
        self.working -= 1;
        let before = self.state;
        if self.is_stalled() {
            self.state = State::Running;
        }
        before
    }

    fn start(&mut self, work: KernelOp, host: &mut impl Host) {
        self.working += 1;
        host.work(work);
    }

    /// Sends the error code, if the protocol has one for this refusal, and hangs up.
    fn refuse(&mut self, refusal: Refusal, host: &mut impl Host) {
        if let Some(code) = refusal.code {
            host.send(&wire::error_response(refusal.reqno, code));
        }
        self.state = State::HungUp;
        host.hang_up(refusal.why);
    }

    /// Goes on with an exec once it is alone in its process.
    fn exec_if_drained(&mut self, host: &mut impl Host) {
        let drained = ExecStage::Draining { interrupted: true };
        let Some(exec) = self.exec.as_mut().filter(|exec| exec.stage == drained) else {
            return;
        };
        if !self.calls.is_empty() || matches!(self.state, State::Gone | State::Finished) {
            return;
        }
        exec.stage = ExecStage::Running;
        let command = std::mem::take(&mut exec.command);
        let process = self.process.clone().expect("a running session has a process");
        self.start(KernelOp::Exec { process, command }, host);
    }

    /// Has the process of a gone client released once nothing uses it.
    fn release_if_over(&mut self, host: &mut impl Host) {
        if self.state != State::Gone || self.working > 0 || !self.calls.is_empty() {
            return;
        }
        match self.process.take() {
            Some(process) => self.start(KernelOp::Release { process }, host),
            None => self.state = State::Finished,
        }
    }

    /// Returns the most bytes the body of a frame may have, from its header alone.
    fn body_bound(&self, header: &Header, limits: &Limits) -> Result<usize, Refusal> {
        let is_answer = match header.class() {
            Some(Class::Response) => true,
            Some(Class::Error) => self.asked(header).is_some(),
            _ => false,
        };
        if !is_answer {
            return Ok(limits.request_body(header));
        }
        let asked = self.asked(header).ok_or(Refusal {
            reqno: header.reqno,
            code: None,
            why: "an answer nobody asked for",
        })?;
        Ok(match asked.ask {
            CopyRequest::Copyin { len, .. } | CopyRequest::Copyinstr { len, .. } => len,
            CopyRequest::Anonmmap { .. } => 8,
        })
    }

    /// Returns the request that this frame answers.
    fn asked(&self, header: &Header) -> Option<&Asked> {
        let key = header.reqno as u32 as usize;
        self.calls.get(key)?.asked.as_ref().filter(|asked| asked.reqno == header.reqno)
    }
}
