//! Attacks with every field of every request's body wrong: names, tokens, numbers and arguments.

use client::numbers::{O_CREAT, O_RDWR, sys};
use rumpsp::wire::ErrorCode::{Auth, InvalidPrefork, Malformed};
use rumpsp::wire::{Handshake, Kind};

use crate::harness::{Attack, Fate, Group, Held, attack, end_of_call, hold, meets, step};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "bodies", attacks: &ATTACKS };

const ATTACKS: [Attack; 17] = [
    attack("a name without its end", endless_name),
    attack("names of any bytes", odd_names),
    attack("a second guest handshake", second_guest),
    attack("a fork handshake on a live connection", fork_of_the_living),
    attack("an exec of a name without its end", endless_exec),
    attack("a fork handshake of the wrong length", fork_of_wrong_length),
    attack("a token with one bit wrong", nearly_a_token),
    attack("a cancel of a token that is none", cancel_of_nothing),
    attack("a call before the handshake", call_first),
    attack("a prefork before the handshake", prefork_first),
    attack("a prefork with a body", prefork_with_body),
    attack("syscall numbers out of range", numbers),
    attack("too many arguments", too_many_arguments),
    attack("arguments that end within a slot", half_arguments),
    attack("wild pointers and lengths", wild_arguments),
    attack("wild descriptors", wild_descriptors),
    attack("noise", noise),
];

const EBADF: i32 = 9;
const ENOSYS: i32 = 78;

fn handshake(kind: Handshake, body: &[u8]) -> Vec<u8> {
    request(Kind::Handshake, kind.number(), 9, body)
}

fn endless_name(target: &Target) -> Held {
    for len in [1, 4, 100, 1023, 1024] {
        let bytes = handshake(Handshake::Guest, &vec![b'x'; len]);
        let fate = Fate::ErrorAndEnd(Malformed);
        meets(FrameClient::connected(target), &bytes, fate, format!("{len} bytes"));
    }
    hold(())
}

fn odd_names(target: &Target) -> Held {
    let long = [&[b'n'; 1023][..], b"\0"].concat();
    let names: [&[u8]; 6] =
        [b"\0", b"\xff\xfe\x01\n\0", b"a\0b\0c", b"%s%n%x\0", b"../../x\0", &long];
    let clients = names.map(|name| {
        step(format!("the name {name:?}"));
        let mut client = FrameClient::connected(target);
        client.send(&handshake(Handshake::Guest, name));
        client.expect(Said::Welcome { reqno: 9 });
        client.getpid();
        client.send(&handshake(Handshake::Exec, name));
        client.expect(Said::Welcome { reqno: 9 });
        client.getpid();
        client
    });
    hold(clients)
}

fn second_guest(target: &Target) -> Held {
    let fate = Fate::ErrorAndEnd(Malformed);
    meets(FrameClient::guest(target), &guest(9, "again"), fate, "a second guest handshake");
    // Both handshakes at once, the second behind the first.
    let mut client = FrameClient::connected(target);
    client.send(&[guest(1, "one"), guest(9, "two")].concat());
    client.expect(Said::Welcome { reqno: 1 });
    client.expect(Said::refused(9, Malformed));
    client.expect_end();
    hold(())
}

/// A client that has a process does not become a child of another one; nor does this use the token up.
fn fork_of_the_living(target: &Target) -> Held {
    let token = FrameClient::guest(target).prefork();
    let fate = Fate::ErrorAndEnd(Malformed);
    meets(FrameClient::guest(target), &fork(9, &token), fate, "a fork handshake");
    meets(FrameClient::guest(target), &cancel(9, &token), fate, "a cancel");
    hold(())
}

fn endless_exec(target: &Target) -> Held {
    for len in [0, 1, 100, 1024] {
        let bytes = handshake(Handshake::Exec, &vec![b'x'; len]);
        let fate = Fate::ErrorAndEnd(Malformed);
        meets(FrameClient::guest(target), &bytes, fate, format!("{len} bytes"));
    }
    hold(())
}

fn fork_of_wrong_length(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = parent.prefork();
    for len in [0, 1, 4, 15, 16, 19, 21, 24, 100, 1024] {
        let mut body = token.to_vec();
        body.resize(len, 0);
        let fate = Fate::ErrorAndEnd(Malformed);
        let bytes = handshake(Handshake::Fork, &body);
        meets(FrameClient::connected(target), &bytes, fate, format!("{len} bytes"));
    }
    // The token is still good.
    let child = FrameClient::child(target, &token);
    hold((parent, child))
}

fn nearly_a_token(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = parent.prefork();
    for bit in 0..128 {
        let mut other = token;
        other[bit / 8] ^= 1 << (bit % 8);
        let fate = Fate::ErrorAndEnd(InvalidPrefork);
        meets(FrameClient::connected(target), &fork(9, &other), fate, format!("bit {bit}"));
    }
    let child = FrameClient::child(target, &token);
    hold((parent, child))
}

fn cancel_of_nothing(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = parent.prefork();
    for other in [[0; 16], [0xff; 16], token.map(|byte| !byte)] {
        let fate = Fate::ErrorAndEnd(InvalidPrefork);
        meets(FrameClient::connected(target), &cancel(9, &other), fate, "a cancel");
    }
    let mut canceller = FrameClient::connected(target);
    canceller.send(&cancel(9, &token));
    canceller.expect_end();
    let fate = Fate::ErrorAndEnd(InvalidPrefork);
    meets(FrameClient::connected(target), &cancel(9, &token), fate, "a second cancel");
    meets(FrameClient::connected(target), &fork(9, &token), fate, "a fork of what was cancelled");
    hold(parent)
}

fn call_first(target: &Target) -> Held {
    for number in [sys::GETPID, sys::PIPE, sys::REBOOT, -1] {
        let fate = Fate::ErrorAndEnd(Auth);
        meets(
            FrameClient::connected(target),
            &call(number, 9, &[]),
            fate,
            format!("call {number}"),
        );
    }
    // A handshake behind a call comes too late.
    let mut client = FrameClient::connected(target);
    client.send(&[call(sys::GETPID, 9, &[]), guest(1, "late")].concat());
    client.expect(Said::refused(9, Auth));
    client.expect_end();
    hold(())
}

fn prefork_first(target: &Target) -> Held {
    meets(FrameClient::connected(target), &prefork(9), Fate::ErrorAndEnd(Auth), "a prefork");
    hold(())
}

fn prefork_with_body(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for len in [1, 16, 4096] {
        client.send(&request(Kind::Prefork, 0, 9, &vec![0xff; len]));
        match client.hear() {
            Said::Token { reqno: 9, .. } | Said::Refused { reqno: 9, .. } => {}
            said => panic!("expected a token or an error, not {said:?}"),
        }
        client.getpid();
    }
    hold(client)
}

fn numbers(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for number in [-1, i32::MIN, i32::MIN + 20, i32::MAX, 1 << 16 | 20, 1 << 30, 600, 10_000] {
        step(format!("call {number}"));
        for args in [&[][..], &[0; 9], &[u64::MAX; 16]] {
            client.call_fails(number, args, ENOSYS);
        }
    }
    hold(client)
}

fn too_many_arguments(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let pid = client.getpid();
    client.send(&call(sys::GETPID, 9, &[u64::MAX; 16]));
    assert!(
        matches!(client.hear(), Said::Result { reqno: 9, error: 0, retval } if retval[0] == pid.into())
    );
    for more in [1, 8, 4096] {
        let bytes = request(Kind::Syscall, sys::GETPID as u32, 9, &vec![0; 128 + more]);
        let fate = Fate::ErrorAndEnd(Malformed);
        meets_with_rest(FrameClient::guest(target), &bytes, fate, more);
    }
    hold(client)
}

/// Works as `meets`, where the hang-up may overtake bytes that are still on their way.
fn meets_with_rest(client: FrameClient, bytes: &[u8], fate: Fate, more: usize) {
    // Only the header is sent: its length is enough.
    meets(client, &bytes[..24], fate, format!("{more} bytes too many"));
}

/// Missing bytes of a slot are zero.
fn half_arguments(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for len in 1..8 {
        step(format!("{len} bytes of a slot"));
        client.send(&request(Kind::Syscall, sys::CLOSE as u32, 9, &[0xee; 8][..len]));
        client.expect(Said::errno(9, EBADF));
        client.send(&request(Kind::Syscall, sys::GETPID as u32, 9, &vec![0xff; 120 + len]));
        assert!(matches!(client.hear(), Said::Result { reqno: 9, error: 0, .. }));
    }
    hold(client)
}

/// Addresses and lengths that no memory has.
const WILD: [u64; 8] = [0, 1, 0xfff, 1 << 31, 1 << 47, i64::MAX as u64, 1 << 63, u64::MAX];

/// Calls with wild arguments: they may ask for bytes or copy them out before pointers and lengths are
/// found bad.
fn wild_arguments(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [reader, writer] = client.pipe();
    client.write(writer, b"a few bytes to read");
    let mut reqno = 100;
    for addr in WILD {
        for len in WILD {
            step(format!("address {addr:#x}, length {len:#x}"));
            reqno += 1;
            client.send(&call(sys::WRITE, reqno, &[writer, addr, len]));
            end_of_call(&mut client, reqno);
            // A few bytes are written each time, so that the read never sleeps.
            client.write(writer, b"more");
            client.send(&call(sys::READ, reqno, &[reader, addr, len]));
            end_of_call(&mut client, reqno);
        }
        client.send(&call(sys::PIPE2, reqno, &[addr, u64::MAX]));
        end_of_call(&mut client, reqno);
        client.send(&target.asks_string(reqno));
        end_of_call(&mut client, reqno);
    }
    if target.is_embedded() {
        wild_arguments_of_files(&mut client);
    }
    client.getpid();
    hold(client)
}

fn wild_arguments_of_files(client: &mut FrameClient) {
    let file = client.open("/wild", O_RDWR | O_CREAT);
    for wild in WILD {
        for (number, args) in [
            (sys::PWRITE, [file, wild, wild, 0, wild]),
            (sys::PREAD, [file, wild, wild, 0, wild]),
            (sys::READV, [file, wild, wild, 0, 0]),
            (sys::WRITEV, [file, wild, wild, 0, 0]),
            (sys::LSEEK, [file, 0, wild, wild, 0]),
            (sys::SYSCTL, [wild, wild, wild, wild, wild]),
            (sys::FCNTL, [file, wild, wild, 0, 0]),
            (sys::MMAP, [wild, wild, 3, 0x1002, u64::MAX]),
            (sys::BIND, [file, wild, wild, 0, 0]),
            (sys::SETSOCKOPT, [file, wild, wild, wild, wild]),
        ] {
            step(format!("call {number}, {wild:#x}"));
            client.send(&call(number, 9, &args));
            end_of_call(client, 9);
        }
        client.call(sys::FTRUNCATE, &[file, 0, 0]);
    }
}

fn wild_descriptors(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for fd in [3, 64, 1 << 10, 1 << 20, i32::MAX as u64, 1 << 31, u32::MAX.into(), u64::MAX] {
        step(format!("descriptor {fd:#x}"));
        client.call_fails(sys::CLOSE, &[fd], EBADF);
        client.send(&call(sys::READ, 9, &[fd, 0x1000, 10]));
        assert_ne!(end_of_call(&mut client, 9), 0, "a read of nothing");
        client.send(&call(sys::WRITE, 9, &[fd, 0x1000, 10]));
        assert_ne!(end_of_call(&mut client, 9), 0, "a write to nothing");
    }
    hold(client)
}

/// Sends random bytes. The first eight are a length, which is hardly ever valid by chance, so every
/// other time it is set to a valid one.
fn noise(target: &Target) -> Held {
    let mut state = 0x5eed_u64;
    let mut byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let clients: Vec<FrameClient> = (0..100)
        .map(|round| {
            let mut client = if round % 3 == 0 {
                FrameClient::connected(target)
            } else {
                FrameClient::guest(target)
            };
            let mut bytes: Vec<u8> = (0..24 + 64).map(|_| byte()).collect();
            if round % 2 == 0 {
                bytes[..8].copy_from_slice(&u64::to_le_bytes(24 + 64));
                bytes[17] = 0;
                bytes[19] = 0;
                // The word makes any call but those of a kernel, one of which halts it.
                bytes[22] = 0xff;
            }
            client.try_send(&bytes);
            client
        })
        .collect();
    hold(clients)
}
