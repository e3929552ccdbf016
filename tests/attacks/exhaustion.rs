//! Attacks that hoard, guess and storm: everything that a client can have much of, or do often.

use std::time::Duration;

use client::numbers::{O_CREAT, O_RDWR, sys};
use client::raw::RawConnection;
use rumpsp::url::Url;
use rumpsp::wire::ErrorCode::InvalidPrefork;
use rumpsp::wire::{Kind, Token};

use crate::harness::{Attack, Busy, Fate, Group, Held, attack, end_of_call, hold, meets, step};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "hoards and storms", attacks: &ATTACKS };

const ATTACKS: [Attack; 27] = [
    attack("300 clients that do nothing", idle_crowd),
    attack("300 connections with half a handshake", half_handshakes),
    attack("calls asleep", sleeping_calls),
    attack("calls that wait for their client", asking_calls),
    attack("calls asleep in many clients", sleeping_clients),
    attack("a million bytes of calls at once", calls_at_once),
    attack("answers owed", owed),
    attack("preforks", preforks),
    attack("preforks of many parents that go", orphans),
    attack("processes by tokens, each the child of the last", generations),
    attack("processes by tokens, all of one parent", children),
    attack("tokens guessed", guessed_tokens),
    attack("a token used twice", used_token),
    attack("a token used by a hundred at once", contended_token),
    attack("descriptors", descriptors),
    attack("pipes full of bytes", full_pipes),
    attack("writes to full pipes", stuck_writes),
    attack("memory in files", files),
    attack("files of absurd sizes", sparse_files),
    attack("a storm of connections", connect_storm),
    attack("a storm of handshakes", handshake_storm),
    attack("a storm of malformed frames", malformed_storm),
    attack("a storm of calls", call_storm),
    attack("a storm of execs", exec_storm),
    attack("a storm of preforks and cancels", prefork_storm),
    attack("a storm of signals to who does not read", signal_storm),
    attack("descriptors and urgent data in the stream", ancillary),
];

const ENOSYS: i32 = 78;

/// The time after which a storm is under way.
const A_WHILE: Duration = Duration::from_millis(200);

fn idle_crowd(target: &Target) -> Held {
    hold((0..300).map(|_| FrameClient::guest(target)).collect::<Vec<_>>())
}

fn half_handshakes(target: &Target) -> Held {
    let clients = (0..300).map(|number| {
        let mut client = FrameClient::silent(target);
        client.send(&guest(1, "half a handshake")[..1 + number % 30]);
        client
    });
    hold(clients.collect::<Vec<_>>())
}

/// Has as many calls sleep as the target allows, and more.
fn sleeping_calls(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [reader, _] = client.pipe();
    let calls = (0..target.sleepers()).flat_map(|reqno| target.sleeps(reqno, reader));
    client.try_send(&calls.collect::<Vec<u8>>());
    hold(client)
}

fn asking_calls(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let writers: Vec<u64> = (0..25).map(|_| client.pipe()[1]).collect();
    let calls = (0..target.sleepers())
        .flat_map(|reqno| target.asks_bytes(reqno, writers[reqno as usize % writers.len()], 1000));
    client.try_send(&calls.collect::<Vec<u8>>());
    hold(client)
}

fn sleeping_clients(target: &Target) -> Held {
    let clients = (0..100).map(|_| {
        let mut client = FrameClient::guest(target);
        let [reader, _] = client.pipe();
        let calls = (0..target.sleepers() / 100).flat_map(|reqno| target.sleeps(reqno, reader));
        client.send(&calls.collect::<Vec<u8>>());
        client
    });
    hold(clients.collect::<Vec<_>>())
}

fn calls_at_once(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let calls: Vec<u8> = (0..42_000).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    client.send_within(&calls, Duration::from_secs(1));
    hold(client)
}

fn owed(target: &Target) -> Held {
    let clients = (0..50).map(|_| {
        let mut client = FrameClient::guest(target);
        let flood = target.flood(&mut client);
        client.send(&(0..10).flat_map(|reqno| flood.frame(reqno)).collect::<Vec<u8>>());
        client
    });
    hold(clients.collect::<Vec<_>>())
}

/// Asks for a prefork; returns its token, or `None` at a bound.
fn token(client: &mut FrameClient) -> Option<Token> {
    client.send(&prefork(9));
    match client.hear() {
        Said::Token { reqno: 9, token } => Some(token),
        Said::Refused { reqno: 9, .. } => None,
        said => panic!("expected a token or a refusal, not {said:?}"),
    }
}

fn preforks(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [_, _] = client.pipe();
    let tokens: Vec<_> = (0..500).map_while(|_| token(&mut client)).collect();
    assert!(!tokens.is_empty(), "expected a token");
    // Refused or not, the client is one like others.
    client.getpid();
    cancel_all(target, &tokens);
    hold(client)
}

/// Cancels all preforks, so that the next attack finds room for its own.
fn cancel_all(target: &Target, tokens: &[Token]) {
    for token in tokens {
        let mut canceller = FrameClient::connected(target);
        canceller.send(&cancel(1, token));
        canceller.expect_end();
    }
}

fn orphans(target: &Target) -> Held {
    for _ in 0..50 {
        let mut parent = FrameClient::guest(target);
        let _ = token(&mut parent);
    }
    hold(())
}

fn generations(target: &Target) -> Held {
    let mut family = vec![FrameClient::guest(target)];
    for generation in 0..100 {
        step(format!("generation {generation}"));
        let Some(token) = token(family.last_mut().expect("there is the first")) else {
            break;
        };
        family.push(FrameClient::child(target, &token));
    }
    family.last_mut().expect("there is the first").getpid();
    hold(family)
}

fn children(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    parent.pipe();
    let mut family = Vec::new();
    while family.len() < 200
        && let Some(token) = token(&mut parent)
    {
        family.push(FrameClient::child(target, &token));
    }
    hold((parent, family))
}

fn guessed_tokens(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = token(&mut parent);
    let mut guess = [0_u8; 16];
    for number in 0..300_u16 {
        guess[..2].copy_from_slice(&number.to_le_bytes());
        let fate = Fate::ErrorAndEnd(InvalidPrefork);
        meets(FrameClient::connected(target), &fork(9, &guess), fate, format!("guess {number}"));
    }
    hold((parent, token))
}

fn used_token(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = parent.prefork();
    let child = FrameClient::child(target, &token);
    let fate = Fate::ErrorAndEnd(InvalidPrefork);
    for bytes in [fork(9, &token), cancel(9, &token)] {
        meets(FrameClient::connected(target), &bytes, fate, "while the child lives");
    }
    drop(child);
    meets(FrameClient::connected(target), &fork(9, &token), fate, "after it");
    drop(parent);
    meets(FrameClient::connected(target), &fork(9, &token), fate, "after both");
    hold(())
}

/// Shows one token from many clients at once: one of them gets it.
fn contended_token(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    let token = parent.prefork();
    let mut crowd: Vec<FrameClient> = (0..100).map(|_| FrameClient::connected(target)).collect();
    crowd.iter_mut().for_each(|client| client.send(&fork(9, &token)));
    let mut children = 0;
    for client in &mut crowd {
        match client.hear() {
            Said::Welcome { reqno: 9 } => children += 1,
            said => assert_eq!(said, Said::refused(9, InvalidPrefork)),
        }
    }
    assert_eq!(children, 1, "children of one token");
    hold((parent, crowd))
}

/// Makes a pipe; returns `None` at a bound.
fn pipe(client: &mut FrameClient) -> Option<[u64; 2]> {
    client.send(&call(sys::PIPE, 9, &[]));
    match client.hear() {
        Said::Result { reqno: 9, error: 0, retval } => Some(retval.map(|fd| fd as u64)),
        Said::Result { reqno: 9, .. } => None,
        said => panic!("expected a pipe or an error, not {said:?}"),
    }
}

fn pipes(client: &mut FrameClient, most: usize) -> Vec<[u64; 2]> {
    (0..most).map_while(|_| pipe(client)).collect()
}

/// Makes pipes until there are no more descriptors, in many clients.
fn descriptors(target: &Target) -> Held {
    let clients = (0..10).map(|_| {
        let mut client = FrameClient::guest(target);
        let had = pipes(&mut client, 5000);
        assert!((1..5000).contains(&had.len()), "{} pipes of one process", had.len());
        client.getpid();
        client
    });
    hold(clients.collect::<Vec<_>>())
}

/// Bytes of one write to a pipe that no kernel sleeps over.
const FITS: u64 = 4096;

fn full_pipes(target: &Target) -> Held {
    let clients = (0..10).map(|_| {
        let mut client = FrameClient::guest(target);
        for [_, writer] in pipes(&mut client, 30) {
            client.send(&target.asks_bytes(9, writer, FITS));
            client.serve_copyin(0x1000, &[7; FITS as usize]);
            client.expect(Said::ok(9, FITS as i64));
        }
        client
    });
    hold(clients.collect::<Vec<_>>())
}

/// Writes more than any pipe takes: each write sleeps with bytes of its own.
fn stuck_writes(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for (reqno, [_, writer]) in (0..).zip(pipes(&mut client, 20)) {
        client.send(&target.asks_bytes(reqno, writer, 200_000));
    }
    // The client serves the copyins of all its writes.
    blow(vec![Busy::new(move || {
        if let Some(Said::Copyin { reqno, len, .. }) = client.hear_within(A_WHILE) {
            client.try_send(&response(Kind::Copyin, reqno, &vec![1; len as usize]));
        }
        true
    })])
}

/// Writes a few mebibytes to files, which stay when the client goes.
fn files(target: &Target) -> Held {
    if target.is_fake() {
        return None;
    }
    let mut client = FrameClient::guest(target);
    for number in 0..8 {
        step(format!("file {number}"));
        let file = client.open(&format!("/tmp-hoard-{number}"), O_RDWR | O_CREAT);
        for _ in 0..8 {
            client.send(&target.asks_bytes(9, file, 65_536));
            while let Said::Copyin { reqno, len, .. } = client.hear() {
                client.send(&response(Kind::Copyin, reqno, &vec![number; len as usize]));
            }
        }
    }
    client.getpid();
    hold(client)
}

/// Uses sizes and offsets beyond all memory. NetBSD's own file system in memory trusts its guests, and
/// is left out.
fn sparse_files(target: &Target) -> Held {
    if !target.is_embedded() {
        return None;
    }
    let mut client = FrameClient::guest(target);
    let file = client.open("/absurd", O_RDWR | O_CREAT);
    for size in [1 << 40, 1 << 50, i64::MAX as u64 - 1, i64::MAX as u64, 1 << 63, u64::MAX] {
        step(format!("{size:#x} bytes"));
        client.send(&call(sys::FTRUNCATE, 9, &[file, 0, size]));
        end_of_call(&mut client, 9);
        client.send(&call(sys::PWRITE, 9, &[file, 0x1000, 10, 0, size]));
        end_of_call(&mut client, 9);
        client.send(&call(sys::LSEEK, 9, &[file, 0, size, 0]));
        end_of_call(&mut client, 9);
        client.send(&target.asks_bytes(9, file, 10));
        end_of_call(&mut client, 9);
    }
    client.call(sys::FTRUNCATE, &[file, 0, 0]);
    hold(client)
}

/// Connects again and again, and hands each connection to `turn`.
fn storm(target: &Target, mut turn: impl FnMut(RawConnection) + Send + 'static) -> Busy {
    let url: Url = target.as_ref().clone();
    let mut rest = 3000;
    Busy::new(move || {
        if let Ok(raw) = RawConnection::connect(&url) {
            turn(raw);
        }
        rest -= 1;
        rest > 0
    })
}

/// Holds a storm that has blown for some time before others are to be served.
fn blow(storm: Vec<Busy>) -> Held {
    std::thread::sleep(A_WHILE);
    hold(storm)
}

fn connect_storm(target: &Target) -> Held {
    blow((0..3).map(|_| storm(target, drop)).collect())
}

fn handshake_storm(target: &Target) -> Held {
    let turn = |mut raw: RawConnection| drop(raw.hello("storm", PATIENCE));
    blow((0..3).map(|_| storm(target, turn)).collect())
}

fn malformed_storm(target: &Target) -> Held {
    let turn = |mut raw: RawConnection| {
        let _ = raw.write_within(&[0; 4096], Duration::from_millis(100));
        let _ = raw.closes_within(PATIENCE);
    };
    blow((0..3).map(|_| storm(target, turn)).collect())
}

/// Makes as many calls as the server serves, and reads all answers.
fn call_storm(target: &Target) -> Held {
    let storms = (0..3).map(|_| {
        let mut client = FrameClient::guest(target);
        let calls = call(sys::GETPID, 9, &[]).repeat(200);
        Busy::new(move || {
            client.send(&calls);
            (0..200).for_each(|_| drop(client.hear()));
            true
        })
    });
    blow(storms.collect())
}

/// Makes execs, each of which ends the calls that sleep.
fn exec_storm(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [reader, _] = client.pipe();
    let sleep = target.sleeps(1, reader);
    blow(vec![Busy::new(move || {
        client.send(&[sleep.repeat(5), exec(9, "again")].concat());
        loop {
            match client.hear() {
                Said::Welcome { reqno: 9 } => return true,
                Said::Result { reqno: 1, .. } => {}
                said => panic!("expected the end of calls and of an exec, not {said:?}"),
            }
        }
    })])
}

fn prefork_storm(target: &Target) -> Held {
    let mut parent = FrameClient::guest(target);
    parent.pipe();
    let url = target.as_ref().clone();
    blow(vec![Busy::new(move || {
        if let Some(token) = token(&mut parent) {
            let mut canceller = RawConnection::connect(&url).expect("a connection");
            let _ = canceller.write_within(&cancel(1, &token), PATIENCE);
            let _ = canceller.closes_within(PATIENCE);
        }
        true
    })])
}

/// Sends signals, which have no answer that would hold their sender up, to a victim that does not read
/// them.
fn signal_storm(target: &Target) -> Held {
    let mut victim = FrameClient::guest(target);
    let pid = victim.getpid() as u64;
    let mut client = FrameClient::guest(target);
    client.send(&call(sys::KILL, 9, &[pid, 15]));
    if let Said::Result { error: ENOSYS, .. } = client.hear() {
        return None;
    }
    let signals = call(sys::KILL, 9, &[pid, 15]).repeat(200);
    let storm = Busy::new(move || {
        client.send(&signals);
        (0..200).for_each(|_| drop(client.hear()));
        true
    });
    std::thread::sleep(A_WHILE);
    hold((storm, victim))
}

/// Sends data that a socket carries beside the stream: descriptors over unix, urgent bytes over TCP.
fn ancillary(target: &Target) -> Held {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
    let before = target.descriptors();
    let clients: Vec<FrameClient> = (0..20)
        .map(|_| {
            let mut client = FrameClient::guest(target);
            if target.is_tcp() {
                // An urgent byte travels beside the stream, which stays as it was.
                send(client.socket(), b"!", SendFlags::OOB).expect("an urgent byte");
                client.getpid();
                return client;
            }
            let fds = [client.socket(); 10];
            let mut space = [std::mem::MaybeUninit::uninit(); 256];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "room for descriptors");
            let bytes = call(sys::GETPID, 9, &[]);
            let slices = [std::io::IoSlice::new(&bytes)];
            sendmsg(client.socket(), &slices, &mut control, SendFlags::empty()).expect("a message");
            assert!(matches!(client.hear(), Said::Result { reqno: 9, error: 0, .. }), "a pid");
            client
        })
        .collect();
    if let (Some(before), Some(now)) = (before, target.descriptors()) {
        assert!(now <= before + 2 * clients.len(), "{before} descriptors became {now}");
    }
    hold(clients)
}
