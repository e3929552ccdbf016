//! Frames do not arrive as they were written: cut at every byte, or several at once.

mod support;

use client::Client;
use client::numbers::{O_RDONLY, sys};
use rumpsp::wire::{Kind, Token};
use support::*;

/// A step of a client's short life: the frames it sends, which may depend on the frames it has heard
/// before, since the server chooses the number of a copyin.
type Step<'a> = (&'a str, Box<dyn Fn(&Heard) -> Vec<u8> + 'a>);

const BANNER: &[u8; 32] = b"RUMPSP-0.4-NetBSD-7.99.34/amd64\n";

#[derive(Default)]
struct Heard {
    copyin: u64,
    fd: u64,
    token: Token,
}

/// Lives a life with every kind of frame a client sends, each in pieces. After each piece another
/// client's call makes sure that the server has taken it.
fn live(test_server: &TestServer, other: &Client, mut pieces: impl FnMut(&[u8]) -> Vec<Vec<u8>>) {
    let mut client = FrameClient::connected(test_server);
    let mut heard = Heard::default();
    let steps: [Step; 8] = [
        ("guest", Box::new(|_| guest(1, "cut"))),
        ("pipe", Box::new(|_| call(sys::PIPE, 2, &[]))),
        ("write", Box::new(|heard| call(sys::WRITE, 3, &[heard.fd, 0x1234, 6]))),
        ("answer", Box::new(|heard| response(Kind::Copyin, heard.copyin, b"secret"))),
        ("read", Box::new(|heard| call(sys::READ, 4, &[heard.fd - 1, 0x4321, 99]))),
        ("prefork", Box::new(|_| prefork(5))),
        ("exec", Box::new(|_| exec(6, "cut again"))),
        ("fork", Box::new(|heard| fork(7, &heard.token))),
    ];
    for (step, bytes) in steps {
        if step == "fork" {
            client = FrameClient::connected(test_server);
        }
        for piece in pieces(&bytes(&heard)) {
            client.send(&piece);
            test_server.barrier(other);
        }
        match (step, client.hear()) {
            ("guest", Said::Welcome { reqno: 1 })
            | ("answer", Said::Result { reqno: 3, error: 0, retval: [6, 0] })
            | ("exec", Said::Welcome { reqno: 6 })
            | ("fork", Said::Welcome { reqno: 7 }) => {}
            ("pipe", Said::Result { reqno: 2, error: 0, retval }) => heard.fd = retval[1] as u64,
            ("write", Said::Copyin { reqno, len: 6, addr: 0x1234 }) => heard.copyin = reqno,
            ("read", Said::Copyout { addr: 0x4321, bytes }) => {
                assert_eq!(bytes, b"secret");
                client.expect(Said::ok(4, 6));
            }
            ("prefork", Said::Token { reqno: 5, token }) => heard.token = token,
            (_, said) => panic!("step {step}: not expected: {said:?}"),
        }
    }
    client.getpid();
}

fn halves(bytes: &[u8], at: usize) -> Vec<Vec<u8>> {
    let (head, tail) = bytes.split_at(at.min(bytes.len()));
    vec![head.to_vec(), tail.to_vec()]
}

#[test]
fn every_frame_may_be_cut_at_every_byte() {
    on_each_transport(|test_server| {
        let other = test_server.client();
        let mut longest = 0;
        let mut at = 1;
        // All frames of a life are cut at the same place, as far as they reach it.
        loop {
            let cut = |bytes: &[u8]| {
                longest = longest.max(bytes.len());
                halves(bytes, at)
            };
            live(test_server, &other, cut);
            at += 1;
            if at >= longest {
                break;
            }
        }
        assert!(longest > 40, "a fork handshake has 44 bytes");
        drop(other);
        test_server.becomes_empty();
    });
}

#[test]
fn a_life_byte_by_byte() {
    on_each_transport(|test_server| {
        let other = test_server.client();
        live(test_server, &other, |bytes| bytes.iter().map(|&byte| vec![byte]).collect());
    });
}

#[test]
fn a_stream_of_frames_may_be_cut_at_every_byte() {
    on_each_transport(|test_server| {
        let other = test_server.client();
        let stream: Vec<u8> = (0..4)
            .flat_map(|reqno| call(sys::LSEEK, reqno, &[99, 0, reqno, reqno][..reqno as usize]))
            .collect();
        let mut client = FrameClient::guest(test_server);
        for cut in 1..stream.len() {
            for piece in halves(&stream, cut) {
                client.send(&piece);
                test_server.barrier(&other);
            }
            // Missing arguments are zero: descriptor 0 does not seek, descriptor 99 does not exist.
            let mut heard: Vec<u64> = (0..4)
                .map(|_| match client.hear() {
                    Said::Result { reqno, error, .. } => {
                        assert_eq!(error, if reqno == 0 { 29 } else { 9 }, "call {reqno}");
                        reqno
                    }
                    said => panic!("expected a result: {said:?}"),
                })
                .collect();
            heard.sort_unstable();
            assert_eq!(heard, [0, 1, 2, 3], "cut at {cut}");
        }
    });
}

#[test]
fn many_calls_in_one_write() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(sys::GETEUID, reqno, &[])).collect();
        client.send(&calls);
        let mut heard: Vec<u64> = (0..1000)
            .map(|_| match client.hear() {
                Said::Result { reqno, error: 0, retval: [0, 0] } => reqno,
                said => panic!("expected a result: {said:?}"),
            })
            .collect();
        heard.sort_unstable();
        assert!(heard.into_iter().eq(0..1000), "each is answered once");
    });
}

#[test]
fn a_handshake_with_calls_behind_it_in_one_write() {
    on_each_transport(|test_server| {
        // The handshake is also sent before the banner is read.
        for silent in [false, true] {
            let mut client = if silent {
                FrameClient::silent(test_server)
            } else {
                FrameClient::connected(test_server)
            };
            let calls = (1..=50).flat_map(|reqno| call(sys::GETEUID, reqno, &[]));
            let mut bytes = guest(0, "eager");
            bytes.extend(calls);
            // The last call lacks its end.
            let end = bytes.split_off(bytes.len() - 10);
            client.send(&bytes);
            if silent {
                let mut banner = [0; BANNER.len()];
                assert_eq!(client.read_bytes(&mut banner), BANNER.len());
                assert_eq!(&banner, BANNER);
            }
            client.expect(Said::Welcome { reqno: 0 });
            let mut heard: Vec<u64> = (1..50).map(|_| result_of(&client.hear())).collect();
            client.send(&end);
            heard.push(result_of(&client.hear()));
            heard.sort_unstable();
            assert!(heard.into_iter().eq(1..=50), "each is answered once");
        }
    });
}

fn result_of(said: &Said) -> u64 {
    match *said {
        Said::Result { reqno, error: 0, .. } => reqno,
        _ => panic!("expected a result: {said:?}"),
    }
}

#[test]
fn a_fork_with_calls_behind_it_in_one_write() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        // Each prefork makes the frames behind it wait.
        parent.send(&[prefork(1), prefork(2), call(sys::GETEUID, 3, &[])].concat());
        let mut tokens = Vec::new();
        for expected in [1, 2] {
            match parent.hear() {
                Said::Token { reqno, token } if reqno == expected => tokens.push(token),
                said => panic!("expected token {expected}: {said:?}"),
            }
        }
        parent.expect(Said::ok(3, 0));
        for token in tokens {
            let mut child = FrameClient::connected(test_server);
            child.send(&[fork(0, &token), exec(1, "sh"), call(sys::GETEUID, 2, &[])].concat());
            child.expect(Said::Welcome { reqno: 0 });
            let mut rest = [child.hear(), child.hear()];
            rest.sort_by_key(|said| matches!(said, Said::Result { .. }));
            assert_eq!(rest, [Said::Welcome { reqno: 1 }, Said::ok(2, 0)]);
        }
    });
}

#[test]
fn answers_to_several_copies_in_one_write() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let null = client.open("/dev/null", O_RDONLY);
        assert!(null > 2);
        let opens: Vec<u8> =
            (0..20).flat_map(|n| call(sys::OPEN, n, &[0x1000 + n * 64, 0, 0])).collect();
        client.send(&opens);
        let mut answers = Vec::new();
        for _ in 0..20 {
            match client.hear() {
                Said::Copyinstr { reqno, addr, .. } => {
                    let path: &[u8] = if addr % 128 == 0 { b"/dev/zero\0" } else { b"/none\0" };
                    answers.extend(response(Kind::Copyin, reqno, path));
                }
                said => panic!("expected a copyinstr of each open: {said:?}"),
            }
        }
        client.send(&answers);
        for _ in 0..20 {
            match client.hear() {
                Said::Result { reqno, error: 0, .. } if reqno % 2 == 0 => {}
                Said::Result { reqno, error: 2, .. } if reqno % 2 == 1 => {}
                said => panic!("expected every other file to be there: {said:?}"),
            }
        }
    });
}
