//! Tests with servers that break the protocol, hang up, or send their bytes in pieces.

use std::time::Duration;

use super::connect;
use super::fake::{self, LONG, Peer};
use crate::{BannerError, CallError, Client, ConnectError, Lost, ProtocolError};
use rumpsp::url::Url;
use rumpsp::wire::{self, ErrorCode, Header, Kind};

/// Returns everything a server sends for one call that copies both ways, with the call's answer last.
fn conversation(addr: u64) -> Vec<u8> {
    let mut bytes = wire::copyout_head(1, Kind::Copyout, 3, addr).to_vec();
    bytes.extend(b"abc");
    bytes.extend(wire::copyin_request(2, Kind::Copyin, 4, addr));
    bytes.extend(wire::raise_request(3, 30));
    bytes.extend(wire::anonmmap_request(4, 100));
    bytes.extend(wire::syscall_response(2, 0, [5, 6]));
    bytes
}

const ADDR: u64 = 0x1000;

fn client_with_memory(server: &fake::Fake) -> Client {
    let client = connect(server);
    client.space().map_at(ADDR, vec![0; 8]).unwrap();
    client
}

#[test]
fn frames_cut_at_every_byte_mean_the_same() {
    let bytes = conversation(ADDR);
    for cut in 1..bytes.len() {
        let bytes = bytes.clone();
        let server = fake::unix(move |mut peer| {
            peer.hello();
            peer.expect(Kind::Syscall);
            peer.send(&bytes[..cut]);
            std::thread::sleep(Duration::from_millis(1));
            peer.send(&bytes[cut..]);
            assert_eq!(peer.read().unwrap().body, b"abc\0");
            assert_eq!(peer.read().unwrap().kind(), Kind::Anonmmap);
        });
        let client = client_with_memory(&server);
        assert_eq!(client.call(1, &[]), Ok([5, 6]), "cut at {cut}");
    }
}

#[test]
fn a_hang_up_at_every_byte_is_an_error() {
    let bytes = conversation(ADDR);
    let ends: Vec<usize> = {
        let mut at = 0;
        std::iter::from_fn(|| {
            at += wire::read_u64(bytes.get(at..at + 8)?, 0) as usize;
            Some(at)
        })
        .collect()
    };
    for cut in 0..bytes.len() {
        let sent = bytes[..cut].to_vec();
        let server = fake::unix(move |mut peer| {
            peer.hello();
            peer.expect(Kind::Syscall);
            peer.send(&sent);
            peer.hang_up();
        });
        let client = client_with_memory(&server);
        let whole = cut == 0 || ends.contains(&cut);
        let expected = if whole { Lost::Closed } else { Lost::Truncated };
        let got = client.call(1, &[]);
        assert_eq!(got, Err(CallError::Lost(expected.clone())), "cut at {cut}");
        assert_eq!(client.call(1, &[]), got);
        assert_eq!(client.lost(), Some(expected));
    }
}

#[test]
fn a_banner_cut_at_every_byte_is_the_same_or_an_error() {
    let banner = wire::banner("NetBSD", "9", "amd64");
    for cut in 0..banner.len() {
        let pieces = banner.clone();
        let whole = fake::unix(move |mut peer| {
            peer.send(&pieces[..cut]);
            std::thread::sleep(Duration::from_millis(1));
            peer.send(&pieces[cut..]);
            let got = peer.expect(Kind::Handshake);
            peer.send(&wire::handshake_response(got.header.reqno));
        });
        assert_eq!(connect(&whole).banner(), "RUMPSP-0.4-NetBSD-9/amd64");
        let start = banner[..cut].to_vec();
        let cut_off = fake::unix(move |mut peer| peer.send(&start));
        let error = Client::connect(&cut_off.url).unwrap_err();
        let ConnectError::Banner { problem: BannerError::Closed(n), .. } = error else {
            panic!("{error}");
        };
        assert_eq!(n, cut);
    }
}

fn banner_error(bytes: &[u8]) -> String {
    banner_error_within(LONG, bytes)
}

fn banner_error_within(time: Duration, bytes: &[u8]) -> String {
    let bytes = bytes.to_vec();
    let server = fake::unix(move |mut peer| {
        peer.send(&bytes);
        peer.read();
    });
    Client::builder().timeout(time).connect(&server.url).unwrap_err().to_string()
}

#[test]
fn bad_banners_are_refused() {
    assert!(banner_error(&[b'x'; 96]).contains("more than 95 bytes"));
    assert!(banner_error(&[b'x'; 5000]).contains("more than 95 bytes"));
    assert!(banner_error(b"RUMPSP-0.4-a-b/c\nxy").contains("2 bytes came with the banner"));
    assert!(banner_error(b"SSH-2.0-\xff\n").contains("`SSH-2.0-\u{fffd}`"));
    let cut = banner_error_within(Duration::from_millis(200), b"RUMPSP-0.4");
    assert!(cut.contains("no banner: "), "{cut}");
    let mut longest = b"RUMPSP-".to_vec();
    longest.resize(95, b'x');
    longest.push(b'\n');
    assert!(banner_error(&longest).contains("handshake failed"), "96 bytes are allowed");
}

#[test]
fn there_may_be_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/none", dir.path().display()).parse().unwrap();
    let error = Client::connect(&url).unwrap_err().to_string();
    assert!(error.starts_with(&url.to_string()) && error.contains("start the server"), "{error}");
    let everywhere = "tcp://*:1".parse().unwrap();
    assert!(matches!(Client::connect(&everywhere), Err(ConnectError::Wildcard(_))));
}

#[test]
fn a_server_that_accepts_nobody_costs_the_timeout_only() {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::Unix(dir.path().join("sock"));
    let listener = std::os::unix::net::UnixListener::bind(url.path().unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let clients = Client::builder().timeout(Duration::from_millis(200));
    // The first few clients find room in the listener's queue and wait for the banner.
    let errors: Vec<_> = (0..4).map(|_| clients.connect(&url).unwrap_err()).collect();
    assert!(matches!(errors[0], ConnectError::Banner { .. }), "{errors:?}");
    let ConnectError::Connect { source, .. } = &errors[3] else { panic!("{errors:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn a_refused_handshake_names_its_code() {
    let server = fake::unix(|mut peer| {
        peer.banner();
        let got = peer.expect(Kind::Handshake);
        peer.send(&wire::error_response(got.header.reqno, ErrorCode::Auth));
    });
    assert_eq!(Client::connect(&server.url).unwrap_err().refused(), Some(ErrorCode::Auth));
}

/// Returns the error that a call ends with if the server sends these bytes instead of an answer.
fn answer_to_a_call(bytes: Vec<u8>) -> ProtocolError {
    let server = fake::unix(move |mut peer| {
        peer.hello();
        peer.expect(Kind::Syscall);
        peer.send(&bytes);
        assert_eq!(peer.read(), None, "the client hangs up");
    });
    match connect(&server).call(1, &[]) {
        Err(CallError::Lost(Lost::Protocol(error))) => error,
        other => panic!("{other:?}"),
    }
}

fn header(len: u64, class: u16, kind: u16, word: u32) -> Vec<u8> {
    Header { len, reqno: 2, class, kind, word }.encode().to_vec()
}

#[test]
fn malformed_frames_end_the_connection() {
    use ProtocolError as P;
    let response = || wire::syscall_response(2, 0, [0; 2]).to_vec();
    let with = |at: usize, value: u8| {
        let mut bytes = response();
        bytes[at] = value;
        bytes
    };
    for (bytes, expected) in [
        (with(0, 23), P::Length { len: 23, class: 1, kind: 1, most: 48 }),
        (with(0, 0), P::Length { len: 0, class: 1, kind: 1, most: 48 }),
        (with(0, 49), P::Length { len: 49, class: 1, kind: 1, most: 48 }),
        (with(7, 0xff), P::Length { len: 0xff << 56 | 48, class: 1, kind: 1, most: 48 }),
        (with(0, 47), P::Body { kind: Kind::Syscall, len: 23 }),
        (with(16, 3), P::Class(3)),
        (with(18, 9), P::Kind { class: 1, kind: 9 }),
        (with(18, 2), P::Kind { class: 1, kind: 2 }),
        (with(8, 9), P::Unasked(9)),
        (with(8, 1), P::Unasked(1)),
        (header(24, 2, 0, 8), P::ErrorCode(8)),
        (header(24, 2, 0, 0), P::ErrorCode(0)),
        (header(25, 2, 0, 1), P::Length { len: 25, class: 2, kind: 0, most: 24 }),
        (header(24, 0, 0, 0), P::Kind { class: 0, kind: 0 }),
        (header(24, 0, 1, 0), P::Kind { class: 0, kind: 1 }),
        (header(24, 0, 7, 0), P::Kind { class: 0, kind: 7 }),
        (header(24, 0, 99, 0), P::Kind { class: 0, kind: 99 }),
        (header(24, 0, 2, 0), P::Body { kind: Kind::Copyin, len: 0 }),
        (header(39, 0, 4, 0), P::Body { kind: Kind::Copyout, len: 15 }),
        (header(25, 0, 8, 0), P::Length { len: 25, class: 0, kind: 8, most: 24 }),
    ] {
        assert_eq!(answer_to_a_call(bytes), expected);
    }
    let other = wire::prefork_response(2, &[0; 16]).to_vec();
    let (asked, got) = (Kind::Syscall, Kind::Prefork);
    assert_eq!(answer_to_a_call(other), P::OtherKind { reqno: 2, asked, got });
}

#[test]
fn a_copyout_that_lies_about_its_length_ends_the_connection() {
    for len in [0, 2, 4, u64::MAX] {
        let mut bytes = wire::copyout_head(1, Kind::Copyout, 3, ADDR).to_vec();
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        bytes.extend(b"abc");
        let expected = ProtocolError::Body { kind: Kind::Copyout, len: 19 };
        assert_eq!(answer_to_a_call(bytes), expected);
    }
}

#[test]
fn the_longest_copyout_is_a_setting() {
    for (most, fits) in [(100, true), (99, false)] {
        let server = fake::unix(|mut peer: Peer| {
            peer.hello();
            let call = peer.expect(Kind::Syscall);
            peer.copyout(call.arg(0), &[7; 100]);
            peer.answer(&call, 0);
        });
        let client = Client::builder().max_copy(most).timeout(LONG).connect(&server.url).unwrap();
        let addr = client.space().alloc(100).unwrap();
        assert_eq!(client.call(3, &[addr]).is_ok(), fits);
    }
}

#[test]
fn a_claimed_copyout_without_a_region_keeps_nothing() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        let len = 50 << 20;
        peer.send(&wire::copyout_head(1, Kind::Copyout, len, 0x10));
        for _ in 0..len / (1 << 20) {
            peer.send(&vec![1; 1 << 20]);
        }
        peer.answer(&call, 9);
    });
    let client = connect(&server);
    assert_eq!(client.call(3, &[]), Ok([9, 0]));
    assert_eq!((client.space().faults(), client.space().total()), (1, 0));
}

#[test]
fn answers_written_before_the_hang_up_are_delivered() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let first = peer.expect(Kind::Syscall);
        peer.answer(&first, 1);
        peer.hang_up();
    });
    let client = connect(&server);
    let (first, second) = (client.begin(1, &[]), client.begin(2, &[]));
    assert_eq!(second.finish(), Err(Lost::Closed.into()));
    assert_eq!(first.finish(), Ok([1, 0]));
}
