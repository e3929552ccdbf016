//! Attacks that hang up at every moment, each by a close, by a reset and by a half-close.

use rumpsp::wire::{HEADER_LEN, Kind};

use crate::harness::{Attack, Group, Held, asked, attack, hold, moment};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "moments", attacks: &ATTACKS };

const ATTACKS: [Attack; 31] = [
    moment("before the banner", |target| one(FrameClient::silent(target))),
    moment("after the banner", |target| one(FrameClient::connected(target))),
    moment("after the first byte", |target| handshake_cut(target, 1)),
    moment("after half a header", |target| handshake_cut(target, HEADER_LEN / 2)),
    moment("after the header of a handshake", |target| handshake_cut(target, HEADER_LEN)),
    moment("in the middle of a handshake's body", |target| handshake_cut(target, HEADER_LEN + 2)),
    moment("before the handshake is answered", handshaking),
    moment("after the handshake", |target| one(FrameClient::guest(target))),
    moment("with a whole life sent in one write", life_in_one_write),
    moment("in the middle of a call's arguments", in_arguments),
    moment("with files open", files_open),
    moment("with answers unread", answers_unread),
    moment("while a call runs", runs),
    moment("while calls sleep", sleep),
    moment("while it is asked for bytes", asked_bytes),
    moment("while it is asked for a string", asked_string),
    moment("while it is asked for memory", asked_memory),
    moment("before it has read what it is asked for", asked_unread),
    moment("in the middle of an answer", in_an_answer),
    moment("right behind an answer", behind_an_answer),
    moment("during a prefork", preforking),
    moment("between a prefork and its fork", preforked),
    moment("while the child of its prefork connects", forking),
    moment("after its child has come", forked),
    moment("in the middle of an exec's name", in_an_exec),
    moment("during an exec that waits", executing),
    moment("before it is copied out to", copied_out_to),
    moment("in the middle of a copyout", in_a_copyout),
    moment("after an error", after_an_error),
    moment("a hundred at once", hundred),
    attack("deaf in one direction only", deaf_but_talking),
];

fn one(client: FrameClient) -> Option<Vec<FrameClient>> {
    Some(vec![client])
}

fn handshake_cut(target: &Target, at: usize) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::connected(target);
    client.send(&guest(1, "cut")[..at]);
    one(client)
}

fn handshaking(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::silent(target);
    client.send(&guest(1, "in a hurry"));
    one(client)
}

fn life_in_one_write(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::silent(target);
    let calls = (0..50).flat_map(|reqno| call(20, reqno, &[])).collect::<Vec<u8>>();
    let frames = [guest(1, "short"), prefork(2), calls, exec(3, "shorter"), prefork(4)];
    client.send(&frames.concat());
    one(client)
}

fn in_arguments(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.send(&target.asks_bytes(1, 1, 1)[..HEADER_LEN + 12]);
    one(client)
}

fn files_open(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    for _ in 0..20 {
        client.pipe();
    }
    one(client)
}

fn answers_unread(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.send(&(0..500).flat_map(|reqno| call(20, reqno, &[])).collect::<Vec<u8>>());
    one(client)
}

fn runs(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    for reqno in 0..3 {
        let call = target.runs(&mut client, reqno);
        client.send(&call);
        // The calls that open a file for the next attack come before the first has much output.
        if !target.is_fake() {
            break;
        }
    }
    one(client)
}

fn sleep(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let [reader, _] = client.pipe();
    client.send(&(0..30).flat_map(|reqno| target.sleeps(reqno, reader)).collect::<Vec<u8>>());
    client.getpid();
    one(client)
}

fn asked_bytes(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    for reqno in 0..10 {
        let [_, writer] = client.pipe();
        client.send(&target.asks_bytes(reqno, writer, 100));
        asked(&mut client);
    }
    one(client)
}

fn asked_string(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    for reqno in 0..10 {
        client.send(&target.asks_string(reqno));
        asked(&mut client);
    }
    one(client)
}

fn asked_memory(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    for reqno in 0..10 {
        client.send(&target.asks_memory(reqno)?);
        asked(&mut client);
    }
    one(client)
}

fn asked_unread(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    for reqno in 0..10 {
        client.send(&target.asks_bytes(reqno, writer, 100));
        client.send(&target.asks_string(reqno));
    }
    one(client)
}

/// Returns a client whose answer has been sent as far as `cut`.
fn answer_cut(target: &Target, cut: usize) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    client.send(&target.asks_bytes(1, writer, 100));
    let ask = asked(&mut client);
    client.send(&response(Kind::Copyin, ask, &[7; 100])[..cut]);
    one(client)
}

fn in_an_answer(target: &Target) -> Option<Vec<FrameClient>> {
    let cuts = [1, HEADER_LEN, HEADER_LEN + 50, HEADER_LEN + 99];
    Some(cuts.into_iter().filter_map(|cut| answer_cut(target, cut)).flatten().collect())
}

fn behind_an_answer(target: &Target) -> Option<Vec<FrameClient>> {
    answer_cut(target, HEADER_LEN + 100)
}

fn preforking(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.send(&[prefork(1), prefork(2), prefork(3)].concat());
    one(client)
}

fn preforked(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.pipe();
    for _ in 0..3 {
        client.prefork();
    }
    one(client)
}

/// Parent and child both go while the fork happens.
fn forking(target: &Target) -> Option<Vec<FrameClient>> {
    let mut parent = FrameClient::guest(target);
    parent.pipe();
    let token = parent.prefork();
    let mut child = FrameClient::connected(target);
    child.send(&fork(1, &token));
    Some(vec![parent, child])
}

fn forked(target: &Target) -> Option<Vec<FrameClient>> {
    let mut parent = FrameClient::guest(target);
    let [reader, _] = parent.pipe();
    let token = parent.prefork();
    let mut child = FrameClient::child(target, &token);
    child.send(&target.sleeps(1, reader));
    parent.send(&target.sleeps(1, reader));
    Some(vec![parent, child])
}

fn in_an_exec(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.send(&exec(1, "a name that is cut")[..HEADER_LEN + 5]);
    one(client)
}

fn executing(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let [reader, writer] = client.pipe();
    client.send(&target.asks_bytes(1, writer, 100));
    asked(&mut client);
    client.send(&[target.sleeps(2, reader), exec(3, "never")].concat());
    one(client)
}

fn copied_out_to(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let flood = target.flood(&mut client);
    client.send(&(0..8).flat_map(|reqno| flood.frame(reqno)).collect::<Vec<u8>>());
    one(client)
}

fn in_a_copyout(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    let flood = target.flood(&mut client);
    client.send(&flood.frame(1));
    let mut some = [0; 1000];
    assert!(client.read_bytes(&mut some) > 0, "expected the beginning of a copyout");
    one(client)
}

fn after_an_error(target: &Target) -> Option<Vec<FrameClient>> {
    let mut client = FrameClient::guest(target);
    client.send(&claiming(0, 0, 1, 0, 9, &[]));
    one(client)
}

fn hundred(target: &Target) -> Option<Vec<FrameClient>> {
    let clients = (0..100).map(|number| {
        let mut client = FrameClient::guest(target);
        let [reader, writer] = client.pipe();
        client.send(&target.sleeps(1, reader));
        if number % 2 == 0 {
            client.send(&target.asks_bytes(2, writer, 10));
        }
        client
    });
    Some(clients.collect())
}

/// Shuts down its receiving side, and goes on calling.
fn deaf_but_talking(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    rustix::net::shutdown(client.socket(), rustix::net::Shutdown::Read).expect("a shutdown");
    let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(20, reqno, &[])).collect();
    client.try_send(&calls);
    hold(client)
}
