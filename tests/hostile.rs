//! Bad input gets the protocol's error or a hang-up, and costs other clients nothing.

mod support;

use std::time::Duration;

use client::numbers::{O_CREAT, O_RDWR, sys};
use rumpsp::wire::{Class, ErrorCode, HEADER_LEN, Handshake, Kind};
use support::*;

const ENOSYS: i32 = 78;

/// The server's reaction to bad bytes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// An error, and the client stays.
    Error(ErrorCode),
    /// An error, then a hang-up.
    ErrorAndEnd(ErrorCode),
    /// A hang-up.
    End,
}

use ErrorCode::{Auth, Malformed};
use Fate::{End, Error, ErrorAndEnd};

/// Sends bad bytes, whose request number is 9, and checks the server's reaction.
fn meets(test_server: &TestServer, mut client: FrameClient, bytes: &[u8], fate: Fate, what: &str) {
    println!("{what}: {fate:?}");
    client.send(bytes);
    if let Error(code) | ErrorAndEnd(code) = fate {
        client.expect(Said::refused(9, code));
    }
    match fate {
        Error(_) => drop(client.getpid()),
        ErrorAndEnd(_) | End => client.expect_end(),
    }
    test_server.is_sound();
}

#[test]
fn a_length_under_a_header() {
    on_each_transport(|test_server| {
        for len in [0, 1, 8, 23] {
            for kind in [Kind::Handshake, Kind::Syscall, Kind::Copyin, Kind::Prefork] {
                let what = format!("a {kind:?} of {len} bytes");
                for class in [0, 2, 3] {
                    let bytes = claiming(len, class, kind.number(), 20, 9, &[]);
                    let fate = ErrorAndEnd(Malformed);
                    meets(test_server, FrameClient::connected(test_server), &bytes, fate, &what);
                    meets(test_server, FrameClient::guest(test_server), &bytes, fate, &what);
                }
                let bytes = claiming(len, Class::Response.number(), kind.number(), 0, 9, &[]);
                meets(test_server, FrameClient::guest(test_server), &bytes, End, &what);
            }
        }
        test_server.becomes_empty();
    });
}

#[test]
fn a_length_over_the_bound_of_its_type() {
    on_each_transport(|test_server| {
        let bounds = [
            (Kind::Handshake, 1024),
            (Kind::Syscall, 128),
            (Kind::Prefork, 4096),
            (Kind::Copyin, 4096),
            (Kind::Raise, 4096),
        ];
        for (kind, bound) in bounds {
            for over in [bound + 1, 1 << 20, 1 << 40, u64::MAX - HEADER_LEN as u64] {
                let len = HEADER_LEN as u64 + over;
                let what = format!("a {kind:?} of {len} bytes");
                // The frame is refused at its header: the body has not been sent.
                let bytes = claiming(len, 0, kind.number(), 20, 9, &[]);
                let fate = ErrorAndEnd(Malformed);
                meets(test_server, FrameClient::connected(test_server), &bytes, fate, &what);
                meets(test_server, FrameClient::guest(test_server), &bytes, fate, &what);
            }
        }
        test_server.becomes_empty();
    });
}

#[test]
fn a_length_at_the_bound_of_its_type() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::connected(test_server);
        let mut name = vec![b'n'; 1023];
        name.push(0);
        client.send(&request(Kind::Handshake, Handshake::Guest.number(), 1, &name));
        client.expect(Said::Welcome { reqno: 1 });
        client.send(&request(Kind::Syscall, sys::GETEUID as u32, 2, &[0xff; 128]));
        client.expect(Said::ok(2, 0));
        client.send(&request(Kind::Raise, 9, 3, &[0xff; 4096]));
        client.expect(Said::refused(3, Malformed));
        client.getpid();
    });
}

#[test]
fn classes_and_types_without_a_meaning() {
    on_each_transport(|test_server| {
        for class in [3, 4, 0xff, 0xffff] {
            for kind in [0, 1, 9, 0xffff] {
                let what = format!("class {class}, type {kind}");
                let bytes = frame(class, kind, 20, 9, b"whatever");
                meets(
                    test_server,
                    FrameClient::guest(test_server),
                    &bytes,
                    Error(Malformed),
                    &what,
                );
            }
        }
        // These are types that only a server sends, and unknown ones.
        for kind in [2, 3, 4, 5, 6, 8, 9, 100, 0xffff] {
            let bytes = frame(0, kind, 20, 9, &[0; 16]);
            let what = format!("a request of type {kind}");
            meets(test_server, FrameClient::guest(test_server), &bytes, Error(Malformed), &what);
            meets(
                test_server,
                FrameClient::connected(test_server),
                &bytes,
                ErrorAndEnd(Auth),
                &what,
            );
        }
        // This is an error frame that answers nothing.
        let bytes = frame(2, 2, 7, 9, &[]);
        meets(test_server, FrameClient::guest(test_server), &bytes, Error(Malformed), "an error");
    });
}

#[test]
fn handshakes_without_a_whole_name() {
    on_each_transport(|test_server| {
        for body in [&b""[..], b"a", b"name", &[b'x'; 1024]] {
            let bytes = request(Kind::Handshake, Handshake::Guest.number(), 9, body);
            let what = format!("a name of {} bytes without a NUL", body.len());
            meets(
                test_server,
                FrameClient::connected(test_server),
                &bytes,
                ErrorAndEnd(Malformed),
                &what,
            );
        }
        // Any bytes are a name, and bytes behind its NUL are ignored.
        for body in [&b"\0"[..], b"\xff\xfe\n\0", b"name\0more"] {
            let mut client = FrameClient::connected(test_server);
            client.send(&request(Kind::Handshake, Handshake::Guest.number(), 9, body));
            client.expect(Said::Welcome { reqno: 9 });
            client.getpid();
        }
        test_server.becomes_empty();
    });
}

#[test]
fn syscall_numbers_out_of_range() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        for number in [-1, -2, i32::MIN, i32::MAX, 511, 512, 513, 0x1_0000, 20 | 1 << 16, 400] {
            client.call_fails(number, &[], ENOSYS);
            client.call_fails(number, &[u64::MAX; 16], ENOSYS);
        }
        client.getpid();
    });
}

/// Declines all requests of a call until it ends. Returns its errno.
fn decline_all(client: &mut FrameClient, most: u64) -> i32 {
    let mut copied = 0;
    loop {
        match client.hear() {
            Said::Copyin { reqno, len, .. } | Said::Copyinstr { reqno, len, .. } => {
                assert!(len <= rumpring::server::MAX_ASK as u64, "asked for {len} bytes at once");
                client.send(&refusal(reqno));
            }
            Said::Anonmmap { reqno, .. } => client.send(&refusal(reqno)),
            Said::Copyout { bytes, .. } => {
                copied += bytes.len() as u64;
                assert!(copied <= most, "more than {most} bytes copied out");
            }
            Said::Raise { .. } => {}
            Said::Result { error, .. } => return error,
            said => panic!("expected requests or a result: {said:?}"),
        }
    }
}

/// Calls that would end the test or the server, or take for ever.
const NOT_TO_BE_TRIED: [i32; 1] = [sys::REBOOT];

#[test]
fn every_call_with_too_few_arguments_and_with_wild_ones() {
    on_each_transport(|test_server| {
        let wild: [&[u64]; 8] = [
            &[],
            &[0],
            &[u64::MAX; 16],
            &[0; 16],
            &[3, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX],
            &[3, 1 << 63, 1 << 63, 1 << 63, 1 << 63],
            &[i32::MAX as u64, 0x1000, i64::MAX as u64, 0, i64::MAX as u64],
            &[4, 0x1000, 1 << 30, 1 << 30, 1 << 30, 1 << 30],
        ];
        for number in (-2..520).filter(|number| !NOT_TO_BE_TRIED.contains(number)) {
            let mut client = FrameClient::guest(test_server);
            let [_, _] = client.pipe();
            client.open("/wild", O_RDWR | O_CREAT);
            for args in wild {
                // Some of these calls sleep, as a read of the pipe does: another call shows that the
                // server is well.
                client.send(&call(number, 9, args));
                client.send(&call(400, 10, &[]));
                loop {
                    match client.hear() {
                        Said::Result { reqno: 10, error: ENOSYS, .. } => break,
                        Said::Result { .. } | Said::Raise { .. } | Said::Copyout { .. } => {}
                        Said::Copyin { reqno, len, .. } | Said::Copyinstr { reqno, len, .. } => {
                            let most = rumpring::server::MAX_ASK as u64;
                            assert!(len <= most, "call {number} asks for {len} bytes at once");
                            client.send(&refusal(reqno));
                        }
                        Said::Anonmmap { reqno, .. } => client.send(&refusal(reqno)),
                        said => panic!("call {number}: not expected: {said:?}"),
                    }
                }
            }
        }
        test_server.becomes_empty();
    });
}

#[test]
fn arguments_that_end_within_a_slot() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, _] = client.pipe();
        let reader = reader.to_le_bytes();
        for len in 1..8 {
            client.send(&request(Kind::Syscall, sys::CLOSE as u32, 9, &reader[..len]));
            let Said::Result { reqno: 9, error, .. } = client.hear() else {
                panic!("expected a result");
            };
            // The rest of the argument is zero, so the first close takes descriptor 0 and the others
            // find nothing.
            assert_eq!(error, if len == 1 { 0 } else { 9 });
        }
    });
}

#[test]
fn counts_beyond_all_memory() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [_, writer] = client.pipe();
        let file = client.open("/huge", O_RDWR | O_CREAT);
        let null = client.open("/dev/null", O_RDWR);
        for count in [1 << 31, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
            for (number, fd) in [
                (sys::WRITE, writer),
                (sys::WRITE, file),
                (sys::WRITE, null),
                (sys::PWRITE, file),
                (sys::READ, file),
                (sys::READ, null),
                (sys::PREAD, file),
            ] {
                client.send(&call(number, 9, &[fd, 0x1000, count, 0, 0]));
                let error = decline_all(&mut client, 0);
                println!("call {number} of {count:#x} bytes: errno {error}");
            }
            for number in [sys::READV, sys::WRITEV] {
                client.send(&call(number, 9, &[file, 0x1000, count]));
                assert_ne!(decline_all(&mut client, 0), 0, "{count:#x} pieces");
                // Two pieces are longer than anything.
                client.send(&call(number, 9, &[file, 0x1000, 2]));
                let piece = [0x1000, count].map(u64::to_le_bytes).concat();
                client.serve_copyin(0x1000, &[&piece[..], &piece].concat());
                decline_all(&mut client, 0);
            }
            client.send(&call(sys::SYSCTL, 9, &[0x1000, count, 0x1000, 0x1000, 0x1000, count]));
            assert_ne!(decline_all(&mut client, 0), 0, "a name of {count:#x} numbers");
            client.send(&call(sys::MMAP, 9, &[0, count, 3, 0x1002, u64::MAX, 0, 0]));
            assert_ne!(decline_all(&mut client, 0), 0, "a map of {count:#x} bytes");
            client.send(&call(sys::FTRUNCATE, 9, &[file, 0, count]));
            decline_all(&mut client, 0);
            // The file is cut to nothing again, for the reads of the next round.
            client.call(sys::FTRUNCATE, &[file, 0, 0]);
            client.send(&call(sys::BIND, 9, &[file, 0x1000, count]));
            assert_ne!(decline_all(&mut client, 0), 0, "a name of {count:#x} bytes");
        }
        client.getpid();
        drop(client);
        test_server.becomes_empty();
    });
}

/// Returns a client with a call that waits for an answer to `ask`, and the number of that request.
fn asked(test_server: &TestServer, ask: Kind) -> (FrameClient, u64) {
    let mut client = FrameClient::guest(test_server);
    let [_, writer] = client.pipe();
    client.send(&match ask {
        Kind::Copyin => call(sys::WRITE, 1, &[writer, 0x1000, 8]),
        Kind::Copyinstr => call(sys::OPEN, 1, &[0x1000, 0, 0]),
        _ => call(sys::MMAP, 1, &[0, 4096, 3, 0x1002, u64::MAX, 0, 0]),
    });
    match client.hear() {
        Said::Copyin { reqno, .. }
        | Said::Copyinstr { reqno, .. }
        | Said::Anonmmap { reqno, .. } => (client, reqno),
        said => panic!("expected to be asked: {said:?}"),
    }
}

#[test]
fn answers_that_do_not_fit() {
    on_each_transport(|test_server| {
        let bad: [(Kind, Kind, usize); 13] = [
            (Kind::Copyin, Kind::Copyin, 0),
            (Kind::Copyin, Kind::Copyin, 7),
            (Kind::Copyin, Kind::Copyin, 9),
            (Kind::Copyin, Kind::Copyinstr, 8),
            (Kind::Copyin, Kind::Anonmmap, 8),
            (Kind::Copyin, Kind::Syscall, 8),
            (Kind::Copyinstr, Kind::Copyin, 1025),
            (Kind::Copyinstr, Kind::Anonmmap, 8),
            (Kind::Anonmmap, Kind::Anonmmap, 0),
            (Kind::Anonmmap, Kind::Anonmmap, 7),
            (Kind::Anonmmap, Kind::Anonmmap, 9),
            (Kind::Anonmmap, Kind::Copyin, 8),
            (Kind::Anonmmap, Kind::Handshake, 4),
        ];
        for (ask, kind, len) in bad {
            let (client, reqno) = asked(test_server, ask);
            let bytes = response(kind, reqno, &vec![0; len]);
            let what = format!("a {kind:?} of {len} bytes as the answer to a {ask:?}");
            meets(test_server, client, &bytes, End, &what);
        }
        // These answers only claim to be longer.
        for ask in [Kind::Copyin, Kind::Copyinstr, Kind::Anonmmap] {
            for len in [1 << 20, 1 << 40, u64::MAX] {
                let (client, reqno) = asked(test_server, ask);
                let bytes = claiming(len, 1, ask.number(), 0, reqno, &[]);
                meets(test_server, client, &bytes, End, &format!("{len} bytes for a {ask:?}"));
            }
        }
        test_server.becomes_empty();
    });
}

#[test]
fn answers_nobody_asked_for() {
    on_each_transport(|test_server| {
        for kind in 0..10 {
            for reqno in [0, 9, u64::MAX] {
                let bytes = frame(1, kind, 0, reqno, &[0; 8]);
                let what = format!("a response of type {kind}");
                meets(test_server, FrameClient::guest(test_server), &bytes, End, &what);
                meets(test_server, FrameClient::connected(test_server), &bytes, End, &what);
            }
        }
        // The number is that of another request.
        let (client, reqno) = asked(test_server, Kind::Copyin);
        meets(test_server, client, &response(Kind::Copyin, reqno ^ 1, &[0; 8]), End, "another's");
        let (client, reqno) = asked(test_server, Kind::Copyin);
        let next = response(Kind::Copyin, reqno + (1 << 32), &[0; 8]);
        meets(test_server, client, &next, End, "the next one's");
        // The answer is sent twice.
        let (mut client, reqno) = asked(test_server, Kind::Copyin);
        client.send(&response(Kind::Copyin, reqno, &[0; 8]));
        client.expect(Said::ok(1, 8));
        meets(test_server, client, &response(Kind::Copyin, reqno, &[0; 8]), End, "a second answer");
        // The request is that of another client.
        let (other, reqno) = asked(test_server, Kind::Copyin);
        let answer = response(Kind::Copyin, reqno, &[0; 8]);
        meets(
            test_server,
            FrameClient::guest(test_server),
            &answer,
            End,
            "an answer on another connection",
        );
        drop(other);
        test_server.becomes_empty();
    });
}

#[test]
fn strings_without_an_end() {
    on_each_transport(|test_server| {
        for body in [&b""[..], b"/dev", &[b'/'; 1023]] {
            let (mut client, reqno) = asked(test_server, Kind::Copyinstr);
            client.send(&response(Kind::Copyin, reqno, body));
            match client.hear_or_end() {
                None | Some(Said::Result { reqno: 1, error: 1.., .. }) => {}
                said => panic!("expected an error or the end: {said:?}"),
            }
            test_server.is_sound();
        }
    });
}

/// A small random generator with a fixed seed, so that each run is the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.roll(256) as u8).collect()
    }
}

#[test]
fn noise() {
    on_each_transport(|test_server| {
        let mut dice = Dice(0x5eed);
        for _ in 0..150 {
            let mut client = if dice.roll(2) == 0 {
                FrameClient::connected(test_server)
            } else {
                FrameClient::guest(test_server)
            };
            let len = 1 + dice.roll(2000);
            client.try_send(&dice.bytes(len));
        }
        test_server.becomes_empty();
    });
}

/// Sends frames that are nearly right: one byte or one field of a good frame is changed.
#[test]
fn near_misses() {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        println!("on {transport:?}");
        let test_server =
            &TestServer::with(transport, |config| config.limits.orphan = Duration::ZERO);
        let mut dice = Dice(0xfeed);
        for _ in 0..300 {
            let (mut client, reqno) = asked(test_server, Kind::Copyin);
            for _ in 0..1 + dice.roll(5) {
                let mut bytes = match dice.roll(7) {
                    0 => guest(3, "near"),
                    1 => exec(3, "near"),
                    2 => prefork(3),
                    3 => fork(3, &[1; 16]),
                    4 => response(Kind::Copyin, reqno, &[0; 8]),
                    5 => refusal(reqno),
                    _ => {
                        let number = dice.roll(520) as i32;
                        let number = if number == sys::REBOOT { 20 } else { number };
                        call(number, 3, &[dice.roll(8), 0x1000, dice.roll(1 << 20)])
                    }
                };
                let at = dice.roll(bytes.len() as u64) as usize;
                // The low byte of a syscall number is kept, since it could make the call the one that
                // halts.
                if !(20..22).contains(&at) {
                    bytes[at] = dice.roll(256) as u8;
                }
                client.try_send(&bytes);
            }
        }
        test_server.becomes_empty();
        test_server.is_sound();
    }
}
