//! Tests of the raw connection.

use std::net::Shutdown;
use std::time::Duration;

use super::fake::{self, LONG};
use crate::raw::{RawConnection, RawError};
use rumpsp::wire::{self, ErrorCode, Kind};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn bytes_go_out_as_they_are_and_frames_come_in() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let got = peer.expect(Kind::Copyout);
        assert_eq!(got.body, b"odd");
        let mut frames = wire::raise_request(1, 2).to_vec();
        frames.extend(wire::copyin_request(3, Kind::Copyin, 4, 5));
        peer.send(&frames);
        peer.read();
        peer.hang_up();
    });
    let mut raw = RawConnection::connect(&server.url).unwrap();
    raw.hello("rude", LONG).unwrap();
    assert!(matches!(raw.read_frame(SHORT), Err(RawError::TimedOut)));
    assert!(!raw.closes_within(SHORT).unwrap());
    let mut frame =
        wire::Header { len: 27, reqno: 0, class: 0, kind: 4, word: 0 }.encode().to_vec();
    frame.extend(b"odd");
    for byte in frame {
        raw.write(&[byte]).unwrap();
    }
    assert_eq!(raw.read_frame(LONG).unwrap().header.word, 2);
    assert_eq!(raw.read_frame(LONG).unwrap().body.len(), 16);
    raw.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(raw.read_frame(LONG), Err(RawError::Closed)));
    assert!(raw.closes_within(LONG).unwrap());
}

#[test]
fn a_refused_handshake_is_shown() {
    let server = fake::unix(|mut peer| {
        peer.banner();
        let got = peer.expect(Kind::Handshake);
        peer.send(&wire::error_response(got.header.reqno, ErrorCode::Auth));
    });
    let mut raw = RawConnection::connect(&server.url).unwrap();
    let Err(RawError::Handshake(frame)) = raw.hello("rude", LONG) else { panic!() };
    assert_eq!(frame.header.word, 2);
}

#[test]
fn a_hang_up_within_a_frame_and_a_bad_length_are_told_apart() {
    let server = fake::unix_many(2, |mut peer, index| {
        peer.hello();
        peer.send(if index == 0 { &[30; 10] } else { &[0; 24] });
        peer.hang_up();
    });
    let mut raw = RawConnection::connect(&server.url).unwrap();
    raw.hello("one", LONG).unwrap();
    assert!(matches!(raw.read_frame(LONG), Err(RawError::Truncated)));
    let mut raw = RawConnection::connect(&server.url).unwrap();
    raw.hello("two", LONG).unwrap();
    assert!(matches!(raw.read_frame(LONG), Err(RawError::Length(0))));
}

#[test]
fn writing_may_have_an_end() {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.banner();
        let _ = wait.lock().unwrap().recv();
        while peer.read().is_some() {}
    });
    let mut raw = RawConnection::connect(&server.url).unwrap();
    let frame = wire::Header { len: 24, reqno: 0, class: 0, kind: 0, word: 0 }.encode();
    let bytes = frame.repeat(1 << 18);
    let written = raw.write_within(&bytes, SHORT).unwrap();
    assert!(written > 0 && written < bytes.len());
    drop(end);
}
