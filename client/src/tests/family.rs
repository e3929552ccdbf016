//! Tests of fork, exec and reconnect.

use super::connect;
use super::fake::{self, LONG};
use crate::{CallError, Client, Lost};
use kernel::Errno;
use rumpsp::wire::{self, ErrorCode, Kind};

const TOKEN: [u8; 16] = *b"0123456789abcdef";

#[test]
fn a_child_connects_with_its_token_and_a_copy_of_the_memory() {
    let server = fake::unix_many(2, |mut peer, index| {
        if index == 0 {
            peer.hello();
            let got = peer.expect(Kind::Prefork);
            assert!(got.body.is_empty());
            peer.send(&wire::prefork_response(got.header.reqno, &TOKEN));
        } else {
            let got = peer.hello();
            assert_eq!((got.header.word, &got.body[..16]), (2, &TOKEN[..]));
            assert_eq!(got.body[16..], [0; 4]);
        }
        peer.echo();
    });
    let parent = connect(&server);
    let addr = parent.space().alloc_from(b"before").unwrap();
    let token = parent.prefork().unwrap();
    assert_eq!(token.bytes(), &TOKEN);
    assert_eq!(format!("{token:?}"), format!("ForkToken {{ url: {:?}, .. }}", server.url));
    parent.space().write(addr, b"after!").unwrap();
    let child = Client::fork(&token).unwrap();
    assert_eq!(child.space().read(addr, 6).unwrap(), b"before");
    assert_eq!(child.call(20, &[]), Ok([20, 0]));
    assert_eq!(parent.call(21, &[]), Ok([21, 0]));
}

#[test]
fn a_token_may_be_refused_or_cancelled() {
    let server = fake::unix_many(4, |mut peer, index| {
        peer.banner();
        let got = peer.expect(Kind::Handshake);
        let reqno = got.header.reqno;
        match index {
            0 => {
                peer.send(&wire::handshake_response(reqno));
                let got = peer.expect(Kind::Prefork);
                peer.send(&wire::prefork_response(got.header.reqno, &TOKEN));
                peer.read();
            }
            1 => {
                assert_eq!(got.body[16..], [1, 0, 0, 0]);
                peer.hang_up();
            }
            _ => peer.send(&wire::error_response(reqno, ErrorCode::InvalidPrefork)),
        }
    });
    let parent = connect(&server);
    let token = parent.prefork().unwrap();
    token.cancel().unwrap();
    assert_eq!(token.connect().unwrap_err().refused(), Some(ErrorCode::InvalidPrefork));
    assert_eq!(token.cancel().unwrap_err().refused(), Some(ErrorCode::InvalidPrefork));
}

#[test]
fn a_prefork_may_be_refused() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let got = peer.expect(Kind::Prefork);
        peer.send(&wire::error_response(got.header.reqno, ErrorCode::RforkFailed));
    });
    let error = connect(&server).prefork().unwrap_err();
    assert_eq!(error, CallError::Refused(ErrorCode::RforkFailed));
}

#[test]
fn exec_keeps_the_connection() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let got = peer.expect(Kind::Handshake);
        assert_eq!((got.header.word, &got.body[..]), (3, &b"second\0"[..]));
        peer.send(&wire::handshake_response(got.header.reqno));
        let got = peer.expect(Kind::Handshake);
        let mut refused = wire::handshake_response(got.header.reqno);
        refused[24] = 12;
        peer.send(&refused);
        peer.echo();
    });
    let client = connect(&server);
    client.exec("second").unwrap();
    assert_eq!(client.exec("third"), Err(CallError::Errno(Errno::ENOMEM)));
    assert_eq!(client.call(20, &[]), Ok([20, 0]));
}

#[test]
fn reconnecting_ends_what_is_pending() {
    let server = fake::unix_many(2, |mut peer, index| {
        assert_eq!(peer.hello().body, b"again\0");
        if index == 0 {
            peer.expect(Kind::Syscall);
            assert_eq!(peer.read(), None);
        }
        peer.echo();
    });
    let builder = Client::builder().name("again").timeout(LONG);
    let mut client = builder.connect(&server.url).unwrap();
    let addr = client.space().alloc_from(b"kept").unwrap();
    let pending = client.begin(1, &[]);
    let waiter = std::thread::spawn(move || pending.finish());
    client.reconnect().unwrap();
    assert_eq!(waiter.join().unwrap(), Err(Lost::Reconnected.into()));
    assert_eq!(client.call(20, &[]), Ok([20, 0]));
    assert_eq!(client.space().read(addr, 4).unwrap(), b"kept");
}

#[test]
fn reconnecting_to_nobody_leaves_a_dead_client() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        assert_eq!(peer.read(), None);
    });
    let mut client = connect(&server);
    let url = client.url().clone();
    std::fs::remove_file(url.path().unwrap()).unwrap();
    assert!(client.reconnect().is_err());
    assert_eq!(client.call(1, &[]), Err(Lost::Reconnected.into()));
}

#[test]
fn dropping_a_client_hangs_up() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        assert_eq!(peer.read(), None);
    });
    drop(connect(&server));
}
