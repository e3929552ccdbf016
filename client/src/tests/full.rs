//! Tests with both directions of the socket full: client and server must not wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::connect;
use super::fake::{self, LONG, Peer};
use crate::patience::Patience;
use crate::{AddressSpace, CallError, Client, Lost, Memory, ProtocolError, Refusal};
use rumpsp::wire::{self, Kind};

/// Sends `count` requests for `len` bytes each before it reads one answer, then reads all answers.
fn ask_much(peer: &mut Peer, addr: u64, len: usize, count: usize) {
    for reqno in 0..count {
        peer.send(&wire::copyin_request(reqno as u64, Kind::Copyin, len as u64, addr));
        // These bytes fill the client's side, so that it must read to go on.
        peer.copyout(addr, &vec![1; len]);
    }
    for reqno in 0..count {
        let got = peer.read().unwrap();
        assert_eq!((got.header.reqno, got.body.len()), (reqno as u64, len));
    }
}

#[test]
fn a_server_that_reads_late_is_read_from() {
    const LEN: usize = 100_000;
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        ask_much(&mut peer, call.arg(0), LEN, 100);
        peer.answer(&call, 1);
    });
    let client = connect(&server);
    let addr = client.space().alloc(LEN).unwrap();
    assert_eq!(client.call(3, &[addr]), Ok([1, 0]));
}

#[test]
fn a_caller_whose_socket_is_full_reads() {
    const CALLS: usize = 3000;
    let server = fake::unix(|mut peer| {
        peer.hello();
        let first = peer.expect(Kind::Syscall);
        // The server takes no further call before the client has read all of this.
        for _ in 0..2000 {
            peer.copyout(first.arg(0), &[2; 1000]);
        }
        peer.answer(&first, 1);
        for _ in 1..CALLS {
            let call = peer.expect(Kind::Syscall);
            peer.answer(&call, 1);
        }
    });
    let client = connect(&server);
    let addr = client.space().alloc(1000).unwrap();
    let pending: Vec<_> = (0..CALLS).map(|_| client.begin(3, &[addr; 8])).collect();
    for call in pending {
        assert_eq!(call.finish(), Ok([1, 0]));
    }
}

#[test]
fn threads_on_a_full_socket_lose_nothing() {
    const LEN: usize = 50_000;
    let server = fake::unix(|mut peer| {
        peer.hello();
        while let Some(call) = peer.read() {
            if call.header.class == 1 {
                continue;
            }
            for reqno in 0..3 {
                peer.send(&wire::copyin_request(reqno, Kind::Copyin, LEN as u64, call.arg(0)));
            }
            peer.copyout(call.arg(0), &[3; LEN]);
            peer.answer(&call, call.header.word.into());
        }
    });
    let client = connect(&server);
    let addr = client.space().alloc(LEN).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let client = &client;
            scope.spawn(move || {
                for _ in 0..40 {
                    assert_eq!(client.call(thread, &[addr]), Ok([thread.into(), 0]));
                }
            });
        }
    });
}

#[test]
fn a_server_that_reads_nothing_costs_a_caller_its_timeout_only() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.hello();
        let _ = wait.lock().unwrap().recv();
        peer.echo();
    });
    // The timeout is long enough for the handshake, which is served.
    let client = Client::builder().timeout(Duration::from_secs(2)).connect(&server.url).unwrap();
    let started = Instant::now();
    let args = [7; 1000];
    for _ in 0..400 {
        client.post(1, &args);
    }
    assert_eq!(client.call(2, &[]), Err(CallError::TimedOut));
    assert!(client.wants_write());
    assert!(started.elapsed() < LONG);
    drop(end);
    let mut done = Vec::new();
    while done.len() < 400 {
        client.pump().unwrap();
        client.take_completed(&mut done);
    }
    assert!(!client.wants_write());
}

#[test]
fn what_a_caller_leaves_unwritten_another_one_writes() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.hello();
        let _ = wait.lock().unwrap().recv();
        peer.echo();
    });
    let client = connect(&server);
    for _ in 0..400 {
        client.post(1, &[7; 1000]);
    }
    let mut hasty =
        client.begin_within(2, &[], Patience::from_timeout(Some(Duration::from_millis(20))));
    assert_eq!(hasty.finish_timeout(Duration::from_millis(1)), None);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(client.call(3, &[]), Ok([3, 0])));
        scope.spawn(|| assert_eq!(client.call(4, &[]), Ok([4, 0])));
        std::thread::sleep(Duration::from_millis(30));
        drop(end);
    });
    assert_eq!(hasty.finish_timeout(LONG), Some(Ok([2, 0])));
}

#[test]
fn the_receiver_may_leave_while_another_thread_waits_for_room() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.hello();
        let first = peer.expect(Kind::Syscall);
        let _ = wait.lock().unwrap().recv();
        peer.answer(&first, 1);
        // The server reads nothing before the client has read all of this.
        for _ in 0..2000 {
            peer.copyout(first.arg(0), &[2; 1000]);
        }
        peer.echo();
    });
    let client = connect(&server);
    let addr = client.space().alloc(1000).unwrap();
    std::thread::scope(|scope| {
        let receiver = client.begin(1, &[addr]);
        scope.spawn(|| assert_eq!(receiver.finish(), Ok([1, 0])));
        std::thread::sleep(Duration::from_millis(10));
        scope.spawn(|| {
            for _ in 0..400 {
                client.post(3, &[7; 1000]);
            }
            assert_eq!(client.call(4, &[]), Ok([4, 0]));
        });
        std::thread::sleep(Duration::from_millis(20));
        drop(go);
    });
}

#[test]
fn a_parked_thread_waits_for_room_when_the_one_that_did_leaves() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.hello();
        let first = peer.expect(Kind::Syscall);
        let _ = wait.lock().unwrap().recv();
        for _ in 0..402 {
            let call = peer.expect(Kind::Syscall);
            peer.answer(&call, call.header.word.into());
        }
        peer.answer(&first, 1);
    });
    let client = connect(&server);
    let short = Patience::from_timeout(Some(Duration::from_millis(60)));
    std::thread::scope(|scope| {
        let receiver = client.begin(1, &[]);
        scope.spawn(|| assert_eq!(receiver.finish(), Ok([1, 0])));
        std::thread::sleep(Duration::from_millis(10));
        for _ in 0..400 {
            client.post(2, &[7; 1000]);
        }
        scope.spawn(|| {
            let _ = client.begin_within(3, &[], short);
        });
        std::thread::sleep(Duration::from_millis(10));
        scope.spawn(|| assert_eq!(client.call(4, &[]), Ok([4, 0])));
        std::thread::sleep(Duration::from_millis(80));
        drop(end);
    });
}

#[test]
fn unread_answers_are_bounded() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        for reqno in 0..1000 {
            peer.send(&wire::copyin_request(reqno, Kind::Copyin, 100_000, call.arg(0)));
        }
        while peer.read().is_some() {}
    });
    let client = Client::builder().max_unread(150_000).timeout(LONG).connect(&server.url).unwrap();
    let addr = client.space().alloc(100_000).unwrap();
    let got = client.call(3, &[addr]);
    let unread = matches!(got, Err(CallError::Lost(Lost::Protocol(ProtocolError::Unread(_)))));
    assert!(unread, "{got:?}");
}

/// A memory that answers one copy with too many bytes, then none.
struct Rude {
    space: AddressSpace,
    copies: AtomicUsize,
}

impl Memory for Rude {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn copyin(&self, _addr: u64, len: u64, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.copies.fetch_add(1, Ordering::Relaxed) > 0 {
            return Err(Refusal::Silence);
        }
        out.resize(out.len() + len as usize + 1, b'!');
        Ok(())
    }
}

#[test]
fn a_test_may_bring_rude_memory() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        assert_eq!(peer.copyin(Kind::Copyin, 3, 0).body, b"!!!!");
        peer.send(&wire::copyin_request(5, Kind::Copyin, 3, 0));
        peer.answer(&call, 0);
        assert_eq!(peer.expect(Kind::Syscall).header.word, 2, "no answer to the second copy");
    });
    let memory = Arc::new(Rude { space: AddressSpace::new(), copies: AtomicUsize::new(0) });
    let client = Client::builder().memory(memory).timeout(LONG).connect(&server.url).unwrap();
    assert_eq!(client.call(1, &[]), Ok([0, 0]));
    let _ = client.begin(2, &[]);
}
