//! Attacks with every field of every header wrong: length, request number, class, type and word.

use client::numbers::sys;
use rumpsp::wire::ErrorCode::{Auth, InvalidPrefork, Malformed};
use rumpsp::wire::{HEADER_LEN, Kind};

use crate::harness::{Attack, Fate, Group, Held, asked, attack, end_of_call, hold, meets, step};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "headers", attacks: &ATTACKS };

const ATTACKS: [Attack; 19] = [
    attack("a length under a header", under_a_header),
    attack("a length over the bound of its type", over_the_bound),
    attack("a length beyond all memory", huge),
    attack("a length of more than is sent", more_than_sent),
    attack("a length of less than is sent", less_than_sent),
    attack("a request number used twice at once", duplicate_reqno),
    attack("request numbers at the ends of their range", extreme_reqno),
    attack("an unknown class", unknown_class),
    attack("an unknown type", unknown_type),
    attack("a copy asked for by a client", asks_a_copy),
    attack("a copyout from a client", copies_out),
    attack("memory asked for by a client", asks_memory),
    attack("a signal from a client", raises),
    attack("responses that nobody asked for", unasked_responses),
    attack("errors that nobody asked for", unasked_errors),
    attack("a handshake of an unknown kind", unknown_handshake),
    attack("an exec as the first handshake", exec_first),
    attack("words where there is no word", words),
    attack("another protocol", another_protocol),
];

/// All types of the protocol, and two that do not exist.
const TYPES: [u16; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xffff];

fn under_a_header(target: &Target) -> Held {
    for len in [0, 1, 8, 23] {
        for kind in TYPES {
            for class in [0, 2, 3, 0xffff] {
                let bytes = claiming(len, class, kind, 20, 9, &[]);
                let what = format!("{len} bytes of class {class}, type {kind}");
                let fate = Fate::ErrorAndEnd(Malformed);
                meets(FrameClient::guest(target), &bytes, fate, &what);
                meets(FrameClient::connected(target), &bytes, fate, &what);
            }
            let bytes = claiming(len, 1, kind, 0, 9, &[]);
            meets(
                FrameClient::guest(target),
                &bytes,
                Fate::End,
                format!("a response, {len} bytes"),
            );
        }
    }
    hold(())
}

/// Sends frames longer than any of their type, as far as the server takes them.
fn over_the_bound(target: &Target) -> Held {
    let bounds = [
        (Kind::Handshake, 1024),
        (Kind::Syscall, 128),
        (Kind::Prefork, 4096),
        (Kind::Copyin, 4096),
        (Kind::Copyout, 4096),
        (Kind::Raise, 4096),
    ];
    for (kind, bound) in bounds {
        for over in [1, 1000, 1 << 20] {
            step(format!("a {kind:?} of {over} bytes too many"));
            let mut client = FrameClient::guest(target);
            client.try_send(&request(kind, 20, 9, &vec![0x20; bound + over]));
            // The error may be lost: a socket that is closed with bytes unread is reset.
            client.half_close();
        }
    }
    hold(())
}

fn huge(target: &Target) -> Held {
    for kind in TYPES {
        for len in [1 << 20, 1 << 32, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
            let bytes = claiming(len, 0, kind, 20, 9, &[]);
            let (fate, what) = (Fate::ErrorAndEnd(Malformed), format!("{len} bytes, type {kind}"));
            meets(FrameClient::guest(target), &bytes, fate, &what);
            meets(FrameClient::connected(target), &bytes, fate, &what);
        }
    }
    hold(())
}

/// Sends frames whose rest never comes.
fn more_than_sent(target: &Target) -> Held {
    let bounds = [(Kind::Handshake, 1024), (Kind::Syscall, 128), (Kind::Prefork, 4096)];
    let clients: Vec<FrameClient> = (0..90)
        .map(|number| {
            let (kind, bound) = bounds[number % 3];
            let mut client = FrameClient::guest(target);
            let len = (HEADER_LEN + bound) as u64;
            client.send(&claiming(len, 0, kind.number(), 20, 9, &vec![0; bound - 1]));
            client
        })
        .collect();
    hold(clients)
}

/// Sends frames that are longer than they say: the bytes behind the end are read as the next header.
fn less_than_sent(target: &Target) -> Held {
    let mut clients = Vec::new();
    for len in [HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + 7, HEADER_LEN + 8] {
        for fill in [0, 0x18, 0xff] {
            step(format!("{len} bytes, then {fill:#x}"));
            let mut client = FrameClient::guest(target);
            client.try_send(&claiming(len as u64, 0, 1, sys::GETPID as u32, 9, &[fill; 120]));
            clients.push(client);
        }
    }
    hold(clients)
}

fn duplicate_reqno(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let writers: Vec<u64> = (0..10).map(|_| client.pipe()[1]).collect();
    client.send(&writers.iter().flat_map(|&fd| target.asks_bytes(9, fd, 8)).collect::<Vec<u8>>());
    let mut asks: Vec<u64> = (0..10).map(|_| asked(&mut client)).collect();
    asks.sort_unstable();
    asks.dedup();
    assert_eq!(asks.len(), 10, "each call has asks of its own");
    for (ended, ask) in asks.into_iter().enumerate() {
        client.send(&response(Kind::Copyin, ask, &[ended as u8; 8]));
        client.expect(Said::ok(9, 8));
    }
    // A prefork and an exec may have the same number as well.
    client.send(&target.asks_bytes(9, writers[0], 8));
    let ask = asked(&mut client);
    client.send(&prefork(9));
    assert!(matches!(client.hear(), Said::Token { reqno: 9, .. }), "expected a token");
    client.send(&response(Kind::Copyin, ask, &[0; 8]));
    client.expect(Said::ok(9, 8));
    hold(client)
}

fn extreme_reqno(target: &Target) -> Held {
    let mut client = FrameClient::connected(target);
    client.send(&guest(u64::MAX, "extreme"));
    client.expect(Said::Welcome { reqno: u64::MAX });
    for reqno in [0, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        client.send(&call(-1, reqno, &[]));
        client.expect(Said::errno(reqno, 78));
        client.send(&prefork(reqno));
        assert!(matches!(client.hear(), Said::Token { reqno: r, .. } if r == reqno), "a token");
        client.send(&exec(reqno, "extreme"));
        client.expect(Said::Welcome { reqno });
    }
    hold(client)
}

fn unknown_class(target: &Target) -> Held {
    for class in [3, 4, 0xff, 0x100, 0x8000, 0xffff] {
        for kind in TYPES {
            let bytes = frame(class, kind, 20, 9, b"whatever");
            let what = format!("class {class}, type {kind}");
            meets(FrameClient::guest(target), &bytes, Fate::Error(Malformed), what);
        }
    }
    hold(())
}

/// Sends a request of this type after the handshake and before it, which is an error.
fn means_nothing(target: &Target, kind: u16, word: u32, body: &[u8]) {
    let (bytes, what) = (frame(0, kind, word, 9, body), format!("type {kind}"));
    meets(FrameClient::guest(target), &bytes, Fate::Error(Malformed), &what);
    meets(FrameClient::connected(target), &bytes, Fate::ErrorAndEnd(Auth), &what);
}

fn unknown_type(target: &Target) -> Held {
    for kind in [9, 10, 0xff, 0x100, 0x101, 0x8001, 0xffff] {
        means_nothing(target, kind, 20, &[0; 16]);
        means_nothing(target, kind, 20, &[]);
    }
    hold(())
}

/// Asks for a copy of the server's memory.
fn asks_a_copy(target: &Target) -> Held {
    for kind in [Kind::Copyin, Kind::Copyinstr] {
        for (len, addr) in [(8u64, 0u64), (1 << 20, 0x40_0000), (u64::MAX, u64::MAX)] {
            let body = [len.to_le_bytes(), addr.to_le_bytes()].concat();
            means_nothing(target, kind.number(), 0, &body);
        }
        means_nothing(target, kind.number(), 0, &[]);
    }
    hold(())
}

/// Copies out into the server's memory.
fn copies_out(target: &Target) -> Held {
    for kind in [Kind::Copyout, Kind::Copyoutstr] {
        for (len, addr) in [(8u64, 0u64), (4, 0x40_0000), (u64::MAX, u64::MAX)] {
            let body = [len.to_le_bytes(), addr.to_le_bytes(), [0xcc; 8]].concat();
            means_nothing(target, kind.number(), 0, &body);
        }
        means_nothing(target, kind.number(), 0, &[]);
    }
    hold(())
}

fn asks_memory(target: &Target) -> Held {
    for len in [0, 4096, 1 << 62, u64::MAX] {
        means_nothing(target, Kind::Anonmmap.number(), 0, &u64::to_le_bytes(len));
    }
    means_nothing(target, Kind::Anonmmap.number(), 0, &[]);
    hold(())
}

fn raises(target: &Target) -> Held {
    for signo in [0, 9, 15, 64, 1 << 31, u32::MAX] {
        means_nothing(target, Kind::Raise.number(), signo, &[]);
        means_nothing(target, Kind::Raise.number(), signo, &[0; 100]);
    }
    hold(())
}

fn unasked_responses(target: &Target) -> Held {
    for kind in TYPES {
        for reqno in [0, 1, 9, 1 << 32, u64::MAX] {
            let (bytes, what) = (frame(1, kind, 0, reqno, &[0; 8]), format!("type {kind}"));
            meets(FrameClient::guest(target), &bytes, Fate::End, &what);
            meets(FrameClient::connected(target), &bytes, Fate::End, &what);
        }
    }
    hold(())
}

fn unasked_errors(target: &Target) -> Held {
    for code in [0, 1, 7, 8, u32::MAX] {
        for kind in TYPES {
            let (bytes, what) = (frame(2, kind, code, 9, &[]), format!("error {code}"));
            meets(FrameClient::guest(target), &bytes, Fate::Error(Malformed), what);
        }
    }
    hold(())
}

fn unknown_handshake(target: &Target) -> Held {
    // Kind 1 is declared in the protocol and was never implemented.
    for kind in [1, 4, 5, 0x100, 1 << 31, u32::MAX] {
        let (bytes, what) = (request(Kind::Handshake, kind, 9, b"name\0"), format!("kind {kind}"));
        meets(FrameClient::connected(target), &bytes, Fate::ErrorAndEnd(Auth), &what);
        meets(FrameClient::guest(target), &bytes, Fate::ErrorAndEnd(Malformed), &what);
    }
    hold(())
}

fn exec_first(target: &Target) -> Held {
    meets(FrameClient::connected(target), &exec(9, "first"), Fate::ErrorAndEnd(Auth), "an exec");
    let token = [7; 16];
    let fate = Fate::ErrorAndEnd(InvalidPrefork);
    meets(FrameClient::connected(target), &fork(9, &token), fate, "a fork of nobody");
    hold(())
}

/// Words without a meaning are ignored.
fn words(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    for word in [1, 0xff, 1 << 31, u32::MAX] {
        client.send(&request(Kind::Prefork, word, 9, &[]));
        assert!(matches!(client.hear(), Said::Token { reqno: 9, .. }), "expected a token");
        client.send(&target.asks_bytes(9, writer, 8));
        let ask = asked(&mut client);
        client.send(&frame(1, Kind::Copyin.number(), word, ask, &[0; 8]));
        client.expect(Said::ok(9, 8));
        // An error frame with an unknown code declines as any other.
        client.send(&target.asks_bytes(9, writer, 8));
        let ask = asked(&mut client);
        client.send(&frame(2, Kind::Copyin.number(), word, ask, &[]));
        assert_ne!(end_of_call(&mut client, 9), 0, "a write from nowhere");
    }
    hold(client)
}

fn another_protocol(target: &Target) -> Held {
    let said: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03ClientHello, so to say",
        b"RUMPSP-0.4-NetBSD-7.99.34/amd64\n",
        b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
        &[0; 4096],
    ];
    let clients = said.map(|words| {
        let mut client = FrameClient::connected(target);
        client.try_send(words);
        client
    });
    hold(clients)
}
