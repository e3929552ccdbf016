//! Tests of the handshake, of calls, and of the server's copies during them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::connect;
use super::fake::{self, LONG, Peer};
use crate::{CallError, Client, Lost};
use kernel::Errno;
use rumpsp::wire::{self, Class, ErrorCode, Kind};

#[test]
fn a_call_over_each_kind_of_socket() {
    let script = |mut peer: Peer| {
        let hello = peer.hello();
        assert_eq!((hello.header.word, &hello.body[..]), (0, &b"probe\0"[..]));
        peer.echo();
    };
    for server in [fake::unix(script), fake::tcp("127.0.0.1", script), fake::tcp("::1", script)] {
        let client = Client::builder().name("probe").connect(&server.url).unwrap();
        assert_eq!(client.banner(), "RUMPSP-0.4-NetBSD-7.99.34/amd64");
        assert_eq!(client.call(20, &[]), Ok([20, 0]));
        assert_eq!(client.call(21, &[1, 2]), Ok([21, 0]));
        assert_eq!(client.outstanding(), 0);
    }
}

#[test]
fn arguments_errors_and_both_values_arrive() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        assert_eq!((call.body.len(), call.arg(0), call.arg(1)), (16, 5, u64::MAX));
        peer.send(&wire::syscall_response(call.header.reqno, 0, [-7, i64::MAX]));
        let call = peer.expect(Kind::Syscall);
        assert_eq!(call.header.word as i32, -3);
        peer.send(&wire::syscall_response(call.header.reqno, 35, [-1, 0]));
    });
    let client = connect(&server);
    assert_eq!(client.call(1, &[5, u64::MAX]), Ok([-7, i64::MAX]));
    assert_eq!(client.call(-3, &[]), Err(CallError::Errno(Errno::EAGAIN)));
}

#[test]
fn each_error_code_is_told_apart() {
    let codes = (1..=7).map(|number| ErrorCode::from_number(number).unwrap());
    let server = fake::unix(|mut peer| {
        peer.hello();
        for number in 1..=7 {
            let call = peer.expect(Kind::Syscall);
            let code = ErrorCode::from_number(number).unwrap();
            peer.send(&wire::error_response(call.header.reqno, code));
        }
    });
    let client = connect(&server);
    let errnos = [35, 1, 3, 5, 16, 12, 22];
    for (code, errno) in codes.zip(errnos) {
        let error = client.call(20, &[]).unwrap_err();
        assert_eq!((error.errno(), error), (Some(Errno(errno)), CallError::Refused(code)));
    }
}

#[test]
fn copies_are_served_during_a_call() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        let (text, bytes) = (call.arg(0), call.arg(1));
        let got = peer.copyin(Kind::Copyinstr, 1024, text);
        assert_eq!((got.kind(), &got.body[..]), (Kind::Copyin, &b"/dev/null\0"[..]));
        assert_eq!(peer.copyin(Kind::Copyinstr, 4, text).body, b"/dev");
        assert_eq!(peer.copyin(Kind::Copyin, 3, bytes + 1).body, [2, 3, 4]);
        assert_eq!(peer.copyin(Kind::Copyin, 0, bytes).body, []);
        peer.copyout(bytes, &[9, 8]);
        peer.send(&wire::copyout_head(1, Kind::Copyoutstr, 2, bytes + 3));
        peer.send(b"x\0");
        peer.send(&wire::anonmmap_request(78, 5000));
        let mapped = peer.read().unwrap();
        assert_eq!((mapped.header.class, mapped.kind()), (1, Kind::Anonmmap));
        let addr = mapped.arg(0);
        peer.copyout(addr + 4999, &[5]);
        peer.answer(&call, addr as i64);
    });
    let client = connect(&server);
    let space = client.space();
    let text = space.alloc_str("/dev/null").unwrap();
    let bytes = space.alloc_from(&[1, 2, 3, 4, 5]).unwrap();
    let [addr, _] = client.call(5, &[text, bytes]).unwrap();
    assert_eq!(space.read(bytes, 5).unwrap(), [9, 8, 3, b'x', 0]);
    assert_eq!(space.read(addr as u64, 5000).unwrap()[4998..], [0, 5]);
    assert_eq!(space.faults(), 0);
}

#[test]
fn bad_addresses_are_refused() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        let addr = call.arg(0);
        for (kind, len, addr) in [
            (Kind::Copyin, 6, addr),
            (Kind::Copyin, u64::MAX, addr),
            (Kind::Copyin, 1, 0),
            (Kind::Copyinstr, 100, addr),
            (Kind::Copyinstr, 1, u64::MAX),
        ] {
            let got = peer.copyin(kind, len, addr);
            assert_eq!(got.header.class(), Some(Class::Error), "{kind:?} {len} {addr:#x}");
        }
        peer.copyout(addr, &[0; 6]);
        peer.copyout(addr + 1, &vec![0; 300_000]);
        peer.copyout(u64::MAX, &[0; 6]);
        for len in [u64::MAX, 1 << 40] {
            peer.send(&wire::anonmmap_request(78, len));
            assert_eq!(peer.read().unwrap().arg(0), 0);
        }
        peer.answer(&call, 0);
        peer.echo();
    });
    let client = connect(&server);
    let addr = client.space().alloc_from(&[7; 5]).unwrap();
    assert_eq!(client.call(3, &[addr]), Ok([0, 0]));
    assert_eq!(client.space().read(addr, 5).unwrap(), [7; 5]);
    assert_eq!(client.space().faults(), 8);
    assert_eq!(client.call(20, &[]), Ok([20, 0]));
}

#[test]
fn a_signal_reaches_its_handler_before_the_call_ends() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        let mut bytes = wire::raise_request(1, 15).to_vec();
        bytes.extend(wire::syscall_response(call.header.reqno, 0, [0; 2]));
        peer.send(&bytes);
        let call = peer.expect(Kind::Syscall);
        peer.send(&wire::raise_request(2, 30));
        let during = peer.expect(Kind::Syscall);
        peer.answer(&during, 5);
        peer.answer(&call, 0);
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let slot: Arc<Mutex<Option<Arc<Client>>>> = Arc::default();
    let (inner, inner_slot) = (seen.clone(), slot.clone());
    let handler = move |signo| {
        let client = inner_slot.lock().unwrap().clone();
        let result = client.map(|client| client.call(20, &[]));
        inner.lock().unwrap().push((signo, result));
    };
    let client = Client::builder().timeout(LONG).on_signal(handler).connect(&server.url).unwrap();
    let client = Arc::new(client);
    client.call(37, &[]).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(15, None)]);
    *slot.lock().unwrap() = Some(client.clone());
    client.call(37, &[]).unwrap();
    assert_eq!(seen.lock().unwrap()[1], (30, Some(Ok([5, 0]))));
    slot.lock().unwrap().take();
}

#[test]
fn a_call_that_takes_too_long_is_given_up_and_its_answer_dropped() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let slow = peer.expect(Kind::Syscall);
        let quick = peer.expect(Kind::Syscall);
        peer.answer(&slow, 1);
        peer.answer(&quick, 2);
    });
    // The timeout is long enough for the handshake and for the second call, which are served.
    let client = Client::builder().timeout(Duration::from_secs(2)).connect(&server.url).unwrap();
    assert_eq!(client.call(20, &[]), Err(CallError::TimedOut));
    let quick = client.begin(20, &[]);
    assert_eq!(quick.finish(), Ok([2, 0]));
    assert_eq!(client.outstanding(), 0);
}

#[test]
fn disconnect_ends_everything() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        peer.expect(Kind::Syscall);
        assert_eq!(peer.read(), None);
    });
    let client = connect(&server);
    let pending = client.begin(20, &[]);
    client.disconnect();
    assert_eq!(pending.finish(), Err(Lost::Disconnected.into()));
    assert_eq!(client.call(20, &[]), Err(Lost::Disconnected.into()));
    assert_eq!(client.pump(), Err(Lost::Disconnected));
}
