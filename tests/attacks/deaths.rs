//! Attacks that the reference server is known to die of, or to stop serving others at.

use client::numbers::sys;
use rumpsp::wire::{ErrorCode::Malformed, Handshake, Kind};

use crate::harness::{Attack, Fate, Group, Held, asked, attack, end_of_call, hold, meets};
use crate::support::*;
use crate::target::Target;

const ENOSYS: i32 = 78;

pub const GROUP: Group = Group { name: "the reference server's deaths", attacks: &ATTACKS };

const ATTACKS: [Attack; 7] = [
    attack("a handshake with an empty body", empty_handshake),
    attack("a negative syscall number", negative_number),
    attack("a call without arguments", no_arguments),
    attack("a string longer than asked for", long_string),
    attack("a client that does not read", deaf),
    attack("callers asleep in a copyin", asleep_in_copyin),
    attack("300 connections without a handshake", silent_crowd),
];

fn empty_handshake(target: &Target) -> Held {
    for kind in [Handshake::Guest, Handshake::Fork] {
        let bytes = request(Kind::Handshake, kind.number(), 9, &[]);
        let fate = Fate::ErrorAndEnd(Malformed);
        meets(FrameClient::connected(target), &bytes, fate, format!("{kind:?}"));
    }
    let bytes = request(Kind::Handshake, Handshake::Exec.number(), 9, &[]);
    meets(FrameClient::guest(target), &bytes, Fate::ErrorAndEnd(Malformed), "exec");
    hold(())
}

fn negative_number(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for number in [-1, -2, -512, i32::MIN] {
        client.call_fails(number, &[], ENOSYS);
        client.call_fails(number, &[u64::MAX; 9], ENOSYS);
    }
    hold(client)
}

/// Makes calls that need arguments without any: all of them are zero then.
fn no_arguments(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for number in [sys::READ, sys::WRITE, sys::CLOSE, sys::KILL, sys::PIPE2, 520, 521, 522] {
        client.send(&call(number, 1, &[]));
        // Any result will do; a read of the console may be an end of file.
        end_of_call(&mut client, 1);
    }
    client.getpid();
    hold(client)
}

fn long_string(target: &Target) -> Held {
    for len in [1025, 4096, 70_000] {
        let mut client = FrameClient::guest(target);
        client.send(&target.asks_string(1));
        let ask = asked(&mut client);
        let bytes = response(Kind::Copyin, ask, &vec![b'a'; len]);
        meets(client, &bytes, Fate::End, format!("{len} bytes"));
    }
    hold(())
}

fn deaf(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let flood = target.flood(&mut client);
    for reqno in 0..64 {
        client.send(&flood.frame(reqno));
    }
    hold(client)
}

fn asleep_in_copyin(target: &Target) -> Held {
    let clients: Vec<FrameClient> = (0..30)
        .map(|_| {
            let mut client = FrameClient::guest(target);
            for reqno in 0..10 {
                let [_, writer] = client.pipe();
                client.send(&target.asks_bytes(reqno, writer, 8));
                asked(&mut client);
            }
            client
        })
        .collect();
    hold(clients)
}

fn silent_crowd(target: &Target) -> Held {
    hold((0..300).map(|_| FrameClient::silent(target)).collect::<Vec<_>>())
}
