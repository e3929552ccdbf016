//! Receiving loses nothing when buffers or room in the CQ run short, or the user pauses.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use rumpring_ring::{Config, Features, Socket, Then};
use support::{Note, Server, pattern, small};

/// A number of bytes that a socket takes while nobody reads from it.
const FITS: usize = 50_000;

/// Has `clients` send `bytes` each, and checks that all of it arrives. All clients have sent the part
/// that fits before any of it is received.
fn flood(config: &Config, clients: usize, bytes: usize) -> Server {
    let mut server = Server::new(config);
    let message = pattern(bytes);
    let pairs: Vec<_> = (0..clients).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for (client, socket) in &pairs {
            server.ring.resume(*socket);
            let message = &message;
            writers.push(scope.spawn(move || {
                let mut client = client;
                client.write_all(message).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }));
        }
        if bytes <= FITS {
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        }
        for (_, socket) in &pairs {
            server.expect(Note::RecvEnded(*socket, None));
        }
    });
    for (_, socket) in &pairs {
        assert!(server.bytes(*socket) == message, "{socket:?} differs");
        server.close(*socket);
    }
    server.assert_empty(config);
    server
}

#[test]
fn few_buffers_for_much_data() {
    for without in [Features::NONE, Features::MULTISHOT_RECV] {
        for recv_buffers in [1, 2, 4] {
            let config = Config { recv_buffers, recv_buffer_len: 512, without, ..small() };
            flood(&config, 6, 200_000);
            let exhausted = flood(&config, 6, FITS).ring.stats().recv_buffers_exhausted;
            assert!(exhausted > 0, "six clients on {recv_buffers} buffers were never short of one");
        }
    }
}

#[test]
fn a_tiny_completion_queue_overflows_without_loss() {
    let config = Config { entries: 2, completions: 2, recv_buffer_len: 256, ..small() };
    let server = flood(&config, 20, FITS);
    assert!(server.ring.stats().cq_overflows > 0, "{:?}", server.ring.stats());
}

#[test]
fn a_tiny_submission_queue_submits_in_between() {
    for entries in [1, 2, 4] {
        talk_with_forty(&Config { entries, ..small() });
    }
}

fn talk_with_forty(config: &Config) {
    let mut server = Server::new(config);
    let mut pairs: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for (_, socket) in &pairs {
        server.send(*socket, b"0123456789", Then::Receive);
        server.ring.pause(*socket);
        server.ring.resume(*socket);
    }
    for (client, _) in &mut pairs {
        client.write_all(b"abc").unwrap();
    }
    for (_, socket) in &pairs {
        server.expect(Note::Sent(*socket, Ok(10)));
        server.until("abc", |server| server.bytes(*socket) == b"abc");
        server.close(*socket);
    }
    assert!(server.ring.stats().sq_full > 0);
    server.assert_empty(config);
}

#[test]
fn buffers_held_stop_receiving_until_given_back() {
    let config = Config { recv_buffers: 2, recv_buffer_len: 4, ..small() };
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    client.write_all(b"aaaabbbbccccdddd").unwrap();
    let mut held = Vec::new();
    while held.len() < 2 {
        server.ring.wait(None, || true).unwrap();
        while let Some(event) = server.ring.next_event() {
            if let rumpring_ring::Event::Received { data, .. } = event {
                held.push(data);
            }
        }
    }
    let before = server.ring.stats();
    server.settle(Duration::from_millis(50));
    let after = server.ring.stats();
    assert_eq!(server.bytes(socket), b"");
    assert!(after.enters - before.enters < 20, "it spins: {before:?} {after:?}");
    assert_eq!(held.iter().flat_map(|data| data.to_vec()).collect::<Vec<_>>(), b"aaaabbbb");
    drop(held);
    server.until("the rest", |server| server.bytes(socket) == b"ccccdddd");
    server.close(socket);
    server.assert_empty(&config);
}

#[test]
fn pausing_loses_nothing() {
    for without in [Features::NONE, Features::MULTISHOT_RECV, Features::DEFER_TASKRUN] {
        let config = Config { without, recv_buffer_len: 128, ..small() };
        pause_and_resume(&config);
    }
}

fn pause_and_resume(config: &Config) {
    let mut server = Server::new(config);
    let message = pattern(300_000);
    let (client, socket) = server.connect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for piece in message.chunks(997) {
                (&client).write_all(piece).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut turns = 0;
        server.until("the end", |server| {
            turns += 1;
            match turns % 4 {
                0 => server.ring.pause(socket),
                1 => {
                    server.ring.resume(socket);
                    server.ring.pause(socket);
                    server.ring.resume(socket);
                }
                _ => server.ring.resume(socket),
            }
            server.log.contains(&Note::RecvEnded(socket, None))
        });
    });
    assert!(server.bytes(socket) == message);
    server.close(socket);
    server.assert_empty(config);
}

#[test]
fn a_paused_socket_stays_quiet() {
    let mut server = Server::new(&small());
    let (mut client, socket) = server.connect();
    client.write_all(b"early").unwrap();
    server.settle(Duration::from_millis(20));
    assert_eq!(server.bytes(socket), b"", "nothing is received before it is asked for");
    server.ring.resume(socket);
    server.until("early", |server| server.bytes(socket) == b"early");
    server.ring.pause(socket);
    server.settle(Duration::from_millis(20));
    client.write_all(b" late").unwrap();
    server.settle(Duration::from_millis(20));
    assert_eq!(server.bytes(socket), b"early");
    server.ring.resume(socket);
    server.until("late", |server| server.bytes(socket) == b"early late");
}

#[test]
fn a_reset_is_an_error() {
    let mut server = Server::new(&small());
    let (client, socket) = server.connect();
    // A unix socket closed with bytes unread resets the peer.
    server.send(socket, b"unread", Then::Receive);
    server.expect(Note::Sent(socket, Ok(6)));
    drop(client);
    server.expect(Note::RecvEnded(socket, Some(libc::ECONNRESET)));
    server.ring.resume(socket);
    server.settle(Duration::from_millis(20));
    let ends = |note: &&Note| matches!(note, Note::RecvEnded(..));
    assert_eq!(server.log.iter().filter(ends).count(), 1, "after the end nothing is received");
}

/// The ring hands out sockets as plain values; a stale handle must not do anything.
#[test]
fn handles_of_closed_sockets_do_nothing() {
    let config = small();
    let mut server = Server::new(&config);
    let (_client, old) = server.connect();
    server.close(old);
    let (mut client, new) = server.connect();
    assert_eq!(old.index(), new.index());
    assert_ne!(old, new);
    use_every_way(&mut server, old);
    client.write_all(b"x").unwrap();
    server.settle(Duration::from_millis(30));
    assert_eq!(server.bytes(new), b"", "the old handle must not receive for the new socket");
    server.ring.resume(new);
    server.until("x", |server| server.bytes(new) == b"x");
    server.close(new);
    server.assert_empty(&config);
}

fn use_every_way(server: &mut Server, stale: Socket) {
    server.ring.resume(stale);
    server.ring.pause(stale);
    server.ring.shutdown(stale);
    server.ring.close(stale);
    let chunk = server.chunk(b"stale");
    let refused = server.ring.send(stale, [chunk], Then::Shutdown);
    assert_eq!(refused, Err(rumpring_ring::SendRefused::Gone));
}
