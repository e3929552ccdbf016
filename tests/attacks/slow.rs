//! Attacks that are slow in every way: in sending, in receiving, in answering.

use std::thread::sleep;
use std::time::Duration;

use client::numbers::sys;
use rumpsp::wire::{HEADER_LEN, Kind};

use crate::harness::{Attack, Busy, Group, Held, asked, attack, hold, step};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "slowness", attacks: &ATTACKS };

const ATTACKS: [Attack; 16] = [
    attack("a life said byte by byte", byte_by_byte),
    attack("a handshake byte by byte that never ends", endless_handshake),
    attack("no word at all", silent),
    attack("a banner that nobody reads, and no handshake", banner_unread),
    attack("the last byte of a frame missing", last_byte_missing),
    attack("bytes never given", bytes_never_given),
    attack("strings never given", strings_never_given),
    attack("memory never given", memory_never_given),
    attack("an answer byte by byte", answer_byte_by_byte),
    attack("an answer that stops in the middle", half_answer),
    attack("answers never read", answers_never_read),
    attack("copyouts never read", copyouts_never_read),
    attack("copyouts read byte by byte", read_byte_by_byte),
    attack("asked, talking, and never reading", talks_and_never_reads),
    attack("an exec that its own call delays", endless_exec),
    attack("a prefork that is never read", prefork_unread),
];

/// The pause between two bytes of a slow client.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Sends these bytes one by one, over and over if `again`.
fn drips(mut client: FrameClient, bytes: Vec<u8>, again: bool) -> Busy {
    let mut at = 0;
    Busy::new(move || {
        client.try_send(&bytes[at..at + 1]);
        at += 1;
        if at == bytes.len() && again {
            at = 0;
        }
        sleep(A_MOMENT);
        at < bytes.len()
    })
}

fn byte_by_byte(target: &Target) -> Held {
    let clients: Vec<Busy> = (0..10)
        .map(|_| {
            let mut client = FrameClient::connected(target);
            for byte in guest(0, "slow") {
                client.send(&[byte]);
            }
            client.expect(Said::Welcome { reqno: 0 });
            drips(client, call(sys::GETPID, 1, &[]), true)
        })
        .collect();
    hold(clients)
}

/// Sends the longest name allowed, whose end never comes.
fn endless_handshake(target: &Target) -> Held {
    let bytes = claiming((HEADER_LEN + 1024) as u64, 0, 0, 0, 1, &[b'x'; 1000]);
    let clients = (0..20).map(|_| drips(FrameClient::silent(target), bytes.clone(), false));
    hold(clients.collect::<Vec<_>>())
}

fn silent(target: &Target) -> Held {
    hold((0..100).map(|_| FrameClient::connected(target)).collect::<Vec<_>>())
}

fn banner_unread(target: &Target) -> Held {
    let clients = (0..100).map(|number| {
        let mut client = FrameClient::silent(target);
        // Some clients begin to send.
        client.send(&guest(1, "half")[..number % HEADER_LEN]);
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn last_byte_missing(target: &Target) -> Held {
    let frames = [
        guest(1, "half"),
        exec(1, "half"),
        prefork(1),
        call(sys::PIPE2, 1, &[0x1000, 0]),
        frame(0, Kind::Raise.number(), 0, 1, &[0; 4096]),
    ];
    let clients = frames.into_iter().enumerate().map(|(number, bytes)| {
        let mut client =
            if number == 0 { FrameClient::connected(target) } else { FrameClient::guest(target) };
        client.send(&bytes[..bytes.len() - 1]);
        client
    });
    hold(clients.collect::<Vec<_>>())
}

/// Has clients each make ten calls that ask for something, and never answer. Each call has the writing
/// end of a pipe of its own: NetBSD's pipes have one writer at a time.
fn never_gives(target: &Target, ask: impl Fn(u64, u64) -> Vec<u8>) -> Held {
    let clients = (0..20).map(|_| {
        let mut client = FrameClient::guest(target);
        for reqno in 0..10 {
            let [_, writer] = client.pipe();
            client.send(&ask(reqno, writer));
            asked(&mut client);
        }
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn bytes_never_given(target: &Target) -> Held {
    never_gives(target, |reqno, writer| target.asks_bytes(reqno, writer, 3000))
}

fn strings_never_given(target: &Target) -> Held {
    never_gives(target, |reqno, _| target.asks_string(reqno))
}

fn memory_never_given(target: &Target) -> Held {
    target.asks_memory(0)?;
    never_gives(target, |reqno, _| target.asks_memory(reqno).expect("there is one"))
}

fn answer_byte_by_byte(target: &Target) -> Held {
    let clients = (0..10).map(|_| {
        let mut client = FrameClient::guest(target);
        let [_, writer] = client.pipe();
        client.send(&target.asks_bytes(1, writer, 3000));
        let ask = asked(&mut client);
        drips(client, response(Kind::Copyin, ask, &[1; 3000]), false)
    });
    hold(clients.collect::<Vec<_>>())
}

fn half_answer(target: &Target) -> Held {
    let clients = (0..50).map(|number| {
        let mut client = FrameClient::guest(target);
        let [_, writer] = client.pipe();
        client.send(&target.asks_bytes(1, writer, 3000));
        let ask = asked(&mut client);
        client.send(&response(Kind::Copyin, ask, &[1; 3000])[..number * 60 + 1]);
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn answers_never_read(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    // The loop ends when the server takes no more calls, or there are enough.
    for round in 0..30 {
        step(format!("{round} thousand calls"));
        if client.send_within(&calls, Duration::from_millis(300)) < calls.len() {
            break;
        }
    }
    hold(client)
}

fn copyouts_never_read(target: &Target) -> Held {
    let clients = (0..10).map(|_| {
        let mut client = FrameClient::guest(target);
        let flood = target.flood(&mut client);
        client.send(&(0..20).flat_map(|reqno| flood.frame(reqno)).collect::<Vec<u8>>());
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn read_byte_by_byte(target: &Target) -> Held {
    let clients = (0..5).map(|_| {
        let mut client = FrameClient::guest(target);
        let flood = target.flood(&mut client);
        client.send(&(0..4).flat_map(|reqno| flood.frame(reqno)).collect::<Vec<u8>>());
        Busy::new(move || {
            sleep(A_MOMENT);
            client.read_bytes(&mut [0; 1]) == 1
        })
    });
    hold(clients.collect::<Vec<_>>())
}

/// Makes the server wait for an answer, so that it has to read on, and owes more and more.
fn talks_and_never_reads(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    client.send(&target.asks_bytes(1, writer, 10));
    let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    for round in 0..30 {
        step(format!("{round} thousand calls"));
        if client.send_within(&calls, Duration::from_millis(300)) < calls.len() {
            break;
        }
    }
    hold(client)
}

/// Execs wait for the end of a write whose bytes never come.
fn endless_exec(target: &Target) -> Held {
    let clients = (0..20).map(|_| {
        let mut client = FrameClient::guest(target);
        let [reader, writer] = client.pipe();
        client.send(&target.asks_bytes(1, writer, 10));
        asked(&mut client);
        client.send(&[target.sleeps(2, reader), exec(3, "never")].concat());
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn prefork_unread(target: &Target) -> Held {
    let clients = (0..20).map(|_| {
        let mut client = FrameClient::guest(target);
        client.send(&[prefork(1), prefork(2), call(sys::GETPID, 3, &[])].concat());
        client
    });
    hold(clients.collect::<Vec<_>>())
}
