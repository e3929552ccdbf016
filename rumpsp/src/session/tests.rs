//! Tests of the protocol without a socket: a host that notes what the session asks of it, and scripts
//! of frames.

use std::collections::HashMap;

use super::*;
use crate::wire::{HEADER_LEN, Handshake};
use kernel::{Call, Client, Outcome};

/// A process that is only a name.
struct Fake;

impl Process for Fake {
    fn pid(&self) -> i32 {
        1
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

fn process() -> Arc<dyn Process> {
    Arc::new(Fake)
}

#[derive(Default)]
struct Noted {
    /// Headers and bodies sent.
    sent: Vec<(Header, Vec<u8>)>,
    work: Vec<KernelOp>,
    discarded: usize,
    calls: Vec<(CallKey, u64, i32, Vec<u8>)>,
    answers: Vec<(CallKey, Result<Vec<u8>, ()>)>,
    hung_up: bool,
    interrupts: usize,
    sleep_interrupts: usize,
    orphaned: bool,
    preforks: HashMap<Token, Arc<dyn Process>>,
    full: bool,
    /// The request that a client gets before a call runs.
    ask_first: Option<CopyRequest>,
}

impl Host for Noted {
    fn send(&mut self, frame: &[u8]) {
        let header = Header::decode(frame[..HEADER_LEN].try_into().unwrap());
        assert_eq!(header.len, frame.len() as u64, "a frame's length is its own");
        self.sent.push((header, frame[HEADER_LEN..].to_vec()));
    }
    fn hang_up(&mut self, _: &'static str) {
        assert!(!self.hung_up, "hung up twice");
        self.hung_up = true;
    }
    fn work(&mut self, work: KernelOp) {
        self.work.push(work);
    }
    fn discard(&mut self, _: Arc<dyn Process>) {
        self.discarded += 1;
    }
    fn call(
        &mut self,
        key: CallKey,
        _: &Arc<dyn Process>,
        request: CallRequest<'_>,
    ) -> Option<CopyRequest> {
        self.calls.push((key, request.reqno, request.number, request.args.to_vec()));
        self.ask_first
    }
    fn answer(&mut self, key: CallKey, answer: Answer<'_>) {
        self.answers.push((key, answer.map(|bytes| bytes.to_vec())));
    }
    fn interrupt_calls(&mut self) {
        self.interrupts += 1;
    }
    fn interrupt_sleep(&mut self) {
        self.sleep_interrupts += 1;
    }
    fn keep_prefork(&mut self, prefork: Arc<dyn Process>) -> Result<Token, Arc<dyn Process>> {
        if self.full {
            return Err(prefork);
        }
        let token = [self.preforks.len() as u8 + 1; 16];
        self.preforks.insert(token, prefork);
        Ok(token)
    }
    fn take_prefork(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        self.preforks.remove(token)
    }
    fn orphan_preforks(&mut self) {
        self.orphaned = true;
    }
}

fn frame(class: u16, kind: u16, word: u32, reqno: u64, body: &[u8]) -> Vec<u8> {
    let len = (HEADER_LEN + body.len()) as u64;
    let mut bytes = Header { len, reqno, class, kind, word }.encode().to_vec();
    bytes.extend(body);
    bytes
}

fn request(kind: Kind, word: u32, reqno: u64, body: &[u8]) -> Vec<u8> {
    frame(0, kind.number(), word, reqno, body)
}

fn handshake(kind: Handshake, reqno: u64, body: &[u8]) -> Vec<u8> {
    request(Kind::Handshake, kind.number(), reqno, body)
}

/// A session and its host.
#[derive(Default)]
struct Rig {
    session: Session,
    host: Noted,
}

impl Rig {
    fn running() -> Rig {
        let mut rig = Rig::default();
        rig.feed(&handshake(Handshake::Guest, 1, b"prog\0"));
        rig.session.spawned(Ok(process()), &mut rig.host);
        rig.host.sent.clear();
        rig.host.work.clear();
        rig
    }

    /// Feeds bytes; returns the number of bytes that a stalled session left.
    fn feed(&mut self, mut bytes: &[u8]) -> usize {
        self.session.receive(&mut bytes, &Limits::default(), &mut self.host);
        bytes.len()
    }

    /// Makes a call with this number and returns its key.
    fn call(&mut self, reqno: u64) -> CallKey {
        self.feed(&request(Kind::Syscall, 20, reqno, &[]));
        self.host.calls.last().expect("a call was started").0
    }

    fn ask(&mut self, key: CallKey, ask: CopyRequest) -> u64 {
        self.session.ask(key, ask, &mut self.host);
        self.host.sent.last().expect("the client was asked").0.reqno
    }

    fn last_error(&self) -> ErrorCode {
        let (header, _) = self.host.sent.last().expect("something was sent");
        assert_eq!(header.class(), Some(Class::Error));
        ErrorCode::from_number(header.word).expect("a code of the protocol")
    }
}

#[test]
fn a_guest_gets_a_process_then_its_response() {
    let mut rig = Rig::default();
    rig.feed(&handshake(Handshake::Guest, 9, b"prog\0"));
    assert!(matches!(&rig.host.work[..], [KernelOp::Spawn { command }] if command == b"prog"));
    assert!(rig.host.sent.is_empty(), "no response before there is a process");
    rig.session.spawned(Ok(process()), &mut rig.host);
    let (header, body) = &rig.host.sent[0];
    assert_eq!((header.reqno, header.class, header.kind), (9, 1, 0));
    assert_eq!(body[..], [0; 4]);
}

#[test]
fn a_client_may_be_asked_before_its_call_runs() {
    let mut rig = Rig::running();
    rig.host.ask_first = Some(CopyRequest::Copyin { addr: 0x1000, len: 4 });
    let key = rig.call(7);
    let (header, body) = rig.host.sent.last().expect("the client is asked").clone();
    assert_eq!((header.class, header.kind()), (0, Some(Kind::Copyin)));
    assert_eq!(body[..16], [4u64.to_le_bytes(), 0x1000u64.to_le_bytes()].concat());
    assert!(rig.session.waits_for_client());
    rig.feed(&frame(1, Kind::Copyin.number(), 0, header.reqno, b"data"));
    assert_eq!(rig.host.answers, [(key, Ok(b"data".to_vec()))]);
    rig.session.respond(key, Ok([4, 0]), &mut rig.host);
    assert_eq!(rig.host.sent.last().unwrap().0.reqno, 7);
}

#[test]
fn frames_behind_a_handshake_wait_for_it() {
    let mut rig = Rig::default();
    let call = request(Kind::Syscall, 20, 2, &[]);
    let mut bytes = handshake(Handshake::Guest, 1, b"p\0");
    bytes.extend(&call);
    assert_eq!(rig.feed(&bytes), call.len(), "the call is left for later");
    rig.session.spawned(Ok(process()), &mut rig.host);
    assert_eq!(rig.feed(&call), 0);
    assert_eq!(rig.host.calls.len(), 1);
}

#[test]
fn first_requests_that_are_no_handshake_are_refused() {
    let guest = Handshake::Guest;
    let cases = [
        (request(Kind::Syscall, 20, 1, &[]), ErrorCode::Auth),
        (request(Kind::Prefork, 0, 1, &[]), ErrorCode::Auth),
        (frame(0, 77, 0, 1, &[]), ErrorCode::Auth),
        (handshake(Handshake::Auth, 1, b"x\0"), ErrorCode::Auth),
        (handshake(Handshake::Exec, 1, b"x\0"), ErrorCode::Auth),
        (request(Kind::Handshake, 99, 1, b"x\0"), ErrorCode::Auth),
        (handshake(guest, 1, b""), ErrorCode::Malformed),
        (handshake(guest, 1, b"no end"), ErrorCode::Malformed),
        (handshake(guest, 1, &[7; 1025]), ErrorCode::Malformed),
        (handshake(Handshake::Fork, 1, &[0; 19]), ErrorCode::Malformed),
        (handshake(Handshake::Fork, 1, &[0; 21]), ErrorCode::Malformed),
        (handshake(Handshake::Fork, 1, &[0; 20]), ErrorCode::InvalidPrefork),
    ];
    for (bytes, code) in cases {
        let mut rig = Rig::default();
        rig.feed(&bytes);
        assert_eq!(rig.last_error(), code, "for {bytes:?}");
        assert!(rig.host.hung_up && rig.host.work.is_empty(), "for {bytes:?}");
    }
}

#[test]
fn a_command_name_may_be_as_long_as_its_bound() {
    let mut name = vec![b'x'; 1023];
    name.push(0);
    let mut rig = Rig::default();
    rig.feed(&handshake(Handshake::Guest, 1, &name));
    assert_eq!(rig.host.work.len(), 1);
}

#[test]
fn a_kernel_that_makes_no_process_ends_the_connection() {
    let mut rig = Rig::default();
    rig.feed(&handshake(Handshake::Guest, 1, b"p\0"));
    rig.session.spawned(Err(Errno::EPROCLIM), &mut rig.host);
    assert_eq!(rig.last_error(), ErrorCode::RforkFailed);
    assert!(rig.host.hung_up);
    rig.session.disconnect(&mut rig.host);
    assert!(rig.session.is_finished(), "there is nothing to release");
}

#[test]
fn calls_are_answered_in_any_order() {
    let mut rig = Rig::running();
    let keys: Vec<_> = (10..13).map(|reqno| rig.call(reqno)).collect();
    for (key, error) in [(keys[2], None), (keys[0], Some(Errno::EBADF)), (keys[1], None)] {
        let result = error.map_or(Ok([42, 43]), Err);
        rig.session.respond(key, result, &mut rig.host);
    }
    let reqnos: Vec<_> = rig.host.sent.iter().map(|(header, _)| header.reqno).collect();
    assert_eq!(reqnos, [12, 10, 11]);
    let (_, body) = &rig.host.sent[0];
    assert_eq!(wire::read_u32(body, 0), 0);
    assert_eq!((wire::read_u64(body, 8), wire::read_u64(body, 16)), (42, 43));
    assert_eq!(wire::read_u32(&rig.host.sent[1].1, 0), 9, "EBADF");
}

#[test]
fn arguments_arrive_as_sent_up_to_their_bound() {
    let mut rig = Rig::running();
    rig.feed(&request(Kind::Syscall, u32::MAX, 2, &[5; 128]));
    assert_eq!(rig.host.calls[0].2, -1, "a number out of range is the kernel's to refuse");
    assert_eq!(rig.host.calls[0].3, [5; 128]);
    rig.feed(&request(Kind::Syscall, 4, 3, &[5; 129]));
    assert_eq!(rig.last_error(), ErrorCode::Malformed);
    assert!(rig.host.hung_up);
}

#[test]
fn over_the_bound_of_calls_one_is_to_try_again() {
    let mut rig = Rig::running();
    let limits = Limits { calls: 2, ..Limits::default() };
    let call = request(Kind::Syscall, 20, 1, &[]);
    rig.session.receive(&mut &call.repeat(3)[..], &limits, &mut rig.host);
    assert_eq!(rig.host.calls.len(), 2);
    assert_eq!(rig.last_error(), ErrorCode::TryAgain);
    assert!(!rig.host.hung_up);
    rig.session.respond(rig.host.calls[0].0, Ok([0, 0]), &mut rig.host);
    rig.session.receive(&mut &call[..], &limits, &mut rig.host);
    assert_eq!(rig.host.calls.len(), 3);
}

#[test]
fn a_server_that_stops_drops_requests_but_not_answers() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    let reqno = rig.ask(key, CopyRequest::Copyin { addr: 1, len: 1 });
    rig.session.take_no_more();
    rig.feed(&request(Kind::Syscall, 20, 2, &[]));
    rig.feed(&frame(1, Kind::Copyin.number(), 0, reqno, b"x"));
    assert_eq!(rig.host.calls.len(), 1);
    assert_eq!(rig.host.answers.len(), 1);
}

#[test]
fn a_client_that_the_host_hangs_up_on_is_not_heard() {
    let mut rig = Rig::running();
    rig.call(1);
    rig.session.hung_up();
    rig.feed(&request(Kind::Syscall, 20, 2, &[]));
    assert_eq!(rig.host.calls.len(), 1);
    rig.session.disconnect(&mut rig.host);
    rig.session.hung_up();
    rig.session.respond(CallKey(0), Ok([0, 0]), &mut rig.host);
    rig.session.interrupted(&mut rig.host);
    assert!(
        matches!(rig.host.work.last(), Some(KernelOp::Release { .. })),
        "it still comes to its end"
    );
}

#[test]
fn requests_without_a_meaning_are_malformed_and_the_client_stays() {
    for bytes in [
        request(Kind::Copyin, 0, 5, &[0; 16]),
        request(Kind::Raise, 9, 5, &[]),
        frame(0, 9, 0, 5, &[1; 4096]),
        frame(3, 0, 0, 5, &[]),
        frame(2, 0, 7, 5, &[]),
        frame(u16::MAX, u16::MAX, 0, 5, &[]),
    ] {
        let mut rig = Rig::running();
        rig.feed(&bytes);
        assert_eq!(rig.last_error(), ErrorCode::Malformed, "for {bytes:?}");
        assert_eq!(rig.host.sent[0].0.reqno, 5);
        rig.call(6);
    }
}

#[test]
fn a_second_guest_handshake_is_malformed_and_final() {
    let mut rig = Rig::running();
    rig.feed(&handshake(Handshake::Guest, 5, b"p\0"));
    assert_eq!(rig.last_error(), ErrorCode::Malformed);
    assert!(rig.host.hung_up);
    rig.feed(&request(Kind::Syscall, 20, 6, &[]));
    assert!(rig.host.calls.is_empty(), "a client that is hung up on is not heard");
}

#[test]
fn a_copyin_is_answered_once_and_by_its_number() {
    let mut rig = Rig::running();
    let (one, two) = (rig.call(1), rig.call(2));
    let first = rig.ask(one, CopyRequest::Copyin { addr: 0x1000, len: 4 });
    let second = rig.ask(two, CopyRequest::Copyin { addr: 0x2000, len: 4 });
    rig.feed(&frame(1, Kind::Copyin.number(), 0, second, b"two2"));
    rig.feed(&frame(1, Kind::Copyin.number(), 0, first, b"one1"));
    assert_eq!(rig.host.answers, [(two, Ok(b"two2".to_vec())), (one, Ok(b"one1".to_vec()))]);
    rig.feed(&frame(1, Kind::Copyin.number(), 0, first, b"one1"));
    assert!(rig.host.hung_up, "an answer nobody asked for");
    assert_eq!(rig.host.answers.len(), 2);
}

#[test]
fn the_ask_says_what_is_wanted() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    rig.ask(key, CopyRequest::Copyinstr { addr: 0x7000, len: 1024 });
    let (header, body) = rig.host.sent.last().unwrap();
    assert_eq!((header.class, header.kind()), (0, Some(Kind::Copyinstr)));
    assert_eq!((wire::read_u64(body, 0), wire::read_u64(body, 8)), (1024, 0x7000));
}

#[test]
fn a_string_may_be_answered_as_a_copyin() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    for kind in [Kind::Copyin, Kind::Copyinstr] {
        let reqno = rig.ask(key, CopyRequest::Copyinstr { addr: 1, len: 10 });
        rig.feed(&frame(1, kind.number(), 0, reqno, b"/a\0"));
        assert_eq!(rig.host.answers.pop(), Some((key, Ok(b"/a\0".to_vec()))));
    }
}

#[test]
fn answers_that_do_not_fit_end_the_connection() {
    let copyin = CopyRequest::Copyin { addr: 1, len: 4 };
    let string = CopyRequest::Copyinstr { addr: 1, len: 4 };
    let cases: [(CopyRequest, Kind, &[u8], bool); 7] = [
        (copyin, Kind::Copyin, b"five5", false),
        (copyin, Kind::Copyin, b"two", true),
        (copyin, Kind::Anonmmap, b"four", true),
        (string, Kind::Copyin, b"five5", false),
        (string, Kind::Syscall, b"a\0", true),
        (CopyRequest::Anonmmap { len: 9 }, Kind::Anonmmap, b"1234", true),
        (CopyRequest::Anonmmap { len: 9 }, Kind::Copyin, b"12345678", true),
    ];
    for (ask, kind, body, told) in cases {
        let mut rig = Rig::running();
        let key = rig.call(1);
        let reqno = rig.ask(key, ask);
        rig.feed(&frame(1, kind.number(), 0, reqno, body));
        assert!(rig.host.hung_up, "{ask:?} answered by {kind:?} {body:?}");
        let faults = if told { vec![(key, Err(()))] } else { vec![] };
        assert_eq!(rig.host.answers, faults, "{ask:?} answered by {kind:?} {body:?}");
        // A request still open ends when the client goes.
        rig.session.disconnect(&mut rig.host);
        assert_eq!(rig.host.answers, [(key, Err(()))]);
    }
}

#[test]
fn a_client_may_decline_a_copy() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    let reqno = rig.ask(key, CopyRequest::Copyin { addr: 0, len: 4 });
    rig.feed(&frame(2, 0, 7, reqno, &[]));
    assert_eq!(rig.host.answers, [(key, Err(()))]);
    assert!(!rig.host.hung_up);
}

#[test]
fn a_number_of_an_earlier_call_is_not_taken_for_a_later_one() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    let old = rig.ask(key, CopyRequest::Copyin { addr: 1, len: 4 });
    rig.feed(&frame(1, Kind::Copyin.number(), 0, old, b"abcd"));
    rig.session.respond(key, Ok([0, 0]), &mut rig.host);
    let again = rig.call(2);
    assert_eq!(again, key, "the key is used again");
    rig.ask(again, CopyRequest::Copyin { addr: 1, len: 4 });
    rig.feed(&frame(1, Kind::Copyin.number(), 0, old, b"evil"));
    assert!(rig.host.hung_up);
    assert_eq!(rig.host.answers.len(), 1);
}

#[test]
fn a_token_is_good_once() {
    let mut parent = Rig::running();
    parent.feed(&request(Kind::Prefork, 0, 3, &[]));
    assert!(matches!(parent.host.work.pop(), Some(KernelOp::Prefork { .. })));
    parent.session.preforked(Ok(process()), &mut parent.host);
    let token = parent.host.sent[0].1.clone();
    assert_eq!(token.len(), 16);
    parent.session.disconnect(&mut parent.host);
    assert!(parent.host.orphaned);

    let mut hello = token;
    hello.extend([0; 4]);
    let hello = handshake(Handshake::Fork, 1, &hello);
    let mut child = Rig::default();
    child.host.preforks = std::mem::take(&mut parent.host.preforks);
    child.feed(&hello);
    assert!(matches!(child.host.work.pop(), Some(KernelOp::Adopt { .. })));
    child.session.spawned(Ok(process()), &mut child.host);
    assert_eq!(child.host.sent[0].0.class(), Some(Class::Response));

    let mut second = Rig::default();
    second.host.preforks = child.host.preforks;
    second.feed(&hello);
    assert_eq!(second.last_error(), ErrorCode::InvalidPrefork);
    assert!(second.host.hung_up);
}

#[test]
fn a_cancelled_prefork_is_released_and_has_no_response() {
    let mut rig = Rig::default();
    rig.host.preforks.insert([5; 16], process());
    let mut body = vec![5; 16];
    body.extend(1u32.to_le_bytes());
    rig.feed(&handshake(Handshake::Fork, 1, &body));
    assert_eq!(rig.host.discarded, 1);
    assert!(rig.host.hung_up && rig.host.sent.is_empty());
}

#[test]
fn preforks_that_fail_are_told_apart() {
    let mut rig = Rig::running();
    rig.feed(&request(Kind::Prefork, 0, 3, &[]));
    rig.session.preforked(Err(Errno::EAGAIN), &mut rig.host);
    assert_eq!(rig.last_error(), ErrorCode::RforkFailed);
    rig.host.full = true;
    rig.feed(&request(Kind::Prefork, 0, 4, &[]));
    rig.session.preforked(Ok(process()), &mut rig.host);
    assert_eq!(rig.last_error(), ErrorCode::NoMemory);
    assert_eq!(rig.host.discarded, 1);
    assert!(!rig.host.hung_up);
}

#[test]
fn an_exec_waits_for_the_other_calls() {
    let mut rig = Rig::running();
    let (one, two) = (rig.call(1), rig.call(2));
    rig.feed(&handshake(Handshake::Exec, 7, b"new\0"));
    assert_eq!(rig.host.interrupts, 1);
    assert!(matches!(rig.host.work.pop(), Some(KernelOp::Interrupt { .. })));
    rig.session.respond(one, Err(Errno::EINTR), &mut rig.host);
    rig.session.interrupted(&mut rig.host);
    assert!(rig.host.work.is_empty(), "one call still runs");
    rig.session.respond(two, Err(Errno::EINTR), &mut rig.host);
    assert!(matches!(&rig.host.work[..], [KernelOp::Exec { command, .. }] if command == b"new"));
    rig.session.executed(&mut rig.host);
    let (header, _) = rig.host.sent.last().unwrap();
    assert_eq!((header.reqno, header.class, header.kind), (7, 1, 0));
}

#[test]
fn an_exec_waits_for_the_kernel_to_have_woken_the_calls() {
    let mut rig = Rig::running();
    rig.feed(&handshake(Handshake::Exec, 7, b"new\0"));
    rig.host.work.clear();
    rig.session.interrupted(&mut rig.host);
    assert!(matches!(rig.host.work[..], [KernelOp::Exec { .. }]));
}

#[test]
fn prefork_and_exec_are_refused_during_an_exec() {
    for bytes in [request(Kind::Prefork, 0, 8, &[]), handshake(Handshake::Exec, 8, b"p\0")] {
        let mut rig = Rig::running();
        rig.feed(&handshake(Handshake::Exec, 7, b"p\0"));
        rig.feed(&bytes);
        assert_eq!(rig.last_error(), ErrorCode::InExec);
        assert!(rig.host.hung_up);
    }
}

#[test]
fn a_gone_client_takes_its_process_along_once_its_calls_have_ended() {
    let mut rig = Rig::running();
    let (sleeping, asking) = (rig.call(1), rig.call(2));
    rig.ask(asking, CopyRequest::Copyin { addr: 1, len: 8 });
    rig.host.sent.clear();
    rig.session.disconnect(&mut rig.host);
    assert!(!rig.host.orphaned, "it had no preforks");
    assert_eq!(rig.host.interrupts, 1);
    assert_eq!(rig.host.answers, [(asking, Err(()))]);
    assert!(matches!(rig.host.work.pop(), Some(KernelOp::Interrupt { .. })));
    rig.session.respond(asking, Err(Errno::EFAULT), &mut rig.host);
    rig.session.interrupted(&mut rig.host);
    assert!(rig.host.work.is_empty(), "a call still runs");
    rig.session.respond(sleeping, Err(Errno::EINTR), &mut rig.host);
    assert!(matches!(rig.host.work[..], [KernelOp::Release { .. }]));
    rig.session.released();
    assert!(rig.session.is_finished());
    assert!(rig.host.sent.is_empty(), "nothing is sent to the dead");
}

#[test]
fn a_call_that_asks_a_gone_client_is_told_so() {
    let mut rig = Rig::running();
    let key = rig.call(1);
    rig.session.disconnect(&mut rig.host);
    rig.session.ask(key, CopyRequest::Anonmmap { len: 1 }, &mut rig.host);
    assert_eq!(rig.host.answers, [(key, Err(()))]);
}

#[test]
fn a_client_may_go_at_any_stage() {
    let mut new = Rig::default();
    new.session.disconnect(&mut new.host);
    assert!(new.session.is_finished());

    let mut handshaking = Rig::default();
    handshaking.feed(&handshake(Handshake::Guest, 1, b"p\0"));
    handshaking.session.disconnect(&mut handshaking.host);
    assert!(!handshaking.session.is_finished(), "the process is still being made");
    handshaking.session.spawned(Ok(process()), &mut handshaking.host);
    assert!(matches!(handshaking.host.work.last(), Some(KernelOp::Release { .. })));
    assert!(handshaking.host.sent.is_empty());

    let mut preforking = Rig::running();
    preforking.feed(&request(Kind::Prefork, 0, 3, &[]));
    preforking.session.disconnect(&mut preforking.host);
    preforking.session.preforked(Ok(process()), &mut preforking.host);
    assert!(preforking.host.preforks.is_empty(), "nobody knows its token");
    assert_eq!(preforking.host.discarded, 1, "the prefork");
    assert!(
        matches!(preforking.host.work.last(), Some(KernelOp::Release { .. })),
        "and the process"
    );

    let mut executing = Rig::running();
    executing.feed(&handshake(Handshake::Exec, 7, b"p\0"));
    executing.session.interrupted(&mut executing.host);
    executing.session.disconnect(&mut executing.host);
    executing.session.executed(&mut executing.host);
    assert!(matches!(executing.host.work.last(), Some(KernelOp::Release { .. })));
    assert!(executing.host.sent.is_empty());
}

#[test]
fn a_script_cut_at_every_byte_has_the_same_effect() {
    let mut script = request(Kind::Syscall, 20, 2, &[1; 8]);
    script.extend(frame(0, 9, 0, 3, &[1; 5]));
    script.extend(request(Kind::Syscall, 4, 4, &[2; 24]));
    for cut in 0..=script.len() {
        let mut rig = Rig::running();
        rig.feed(&script[..cut]);
        rig.feed(&script[cut..]);
        let calls: Vec<_> = rig.host.calls.iter().map(|c| (c.1, c.2, c.3.len())).collect();
        assert_eq!(calls, [(2, 20, 8), (4, 4, 24)], "cut at {cut}");
        assert_eq!(rig.host.sent.len(), 1);
    }
}

#[test]
fn calls_of_a_client_that_sends_no_more_go_on_and_are_asked_nothing() {
    for wake in [false, true] {
        let mut rig = Rig::running();
        let (runs, asking) = (rig.call(1), rig.call(2));
        rig.ask(asking, CopyRequest::Copyin { addr: 1, len: 8 });
        rig.host.sent.clear();
        rig.session.end_of_input(wake, &mut rig.host);
        assert_eq!(rig.host.answers, [(asking, Err(()))]);
        assert_eq!((rig.host.interrupts, rig.host.sleep_interrupts), (0, usize::from(wake)));
        assert_eq!(rig.host.work.pop().is_some(), wake, "the kernel wakes those on its threads");
        if wake {
            rig.session.interrupted(&mut rig.host);
        }
        rig.session.ask(runs, CopyRequest::Copyin { addr: 1, len: 8 }, &mut rig.host);
        assert_eq!(rig.host.answers[1..], [(runs, Err(()))]);
        assert!(rig.host.sent.is_empty() && !rig.session.is_idle());
        rig.session.respond(asking, Err(Errno::EFAULT), &mut rig.host);
        rig.session.respond(runs, Ok([1, 0]), &mut rig.host);
        assert_eq!(rig.host.sent.len(), 2, "both are answered");
        assert!(rig.session.is_idle());
    }
}
