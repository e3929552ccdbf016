//! Sends arrive in order and whole, whatever the number of chunks, the size, and the peer's pace.

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rumpring_ring::{ArenaClass, ArenaConfig, Chunk, Config, Features, SendRefused, Then};
use support::{Note, PATIENCE, Server, pattern, small};

/// Cuts bytes into chunks of these sizes, taken in turn.
fn cut(server: &Server, bytes: &[u8], sizes: &[usize]) -> Vec<Chunk> {
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        chunks.push(server.chunk(piece));
        rest = tail;
    }
    chunks
}

/// Sends a message in such chunks to a client that reads it in pieces, with pauses.
fn deliver(config: &Config, bytes: usize, sizes: &[usize], tcp: bool) -> Server {
    let mut server = Server::new(config);
    let message = pattern(bytes);
    let (mut client, socket): (Box<dyn Read + Send>, _) = if tcp {
        let (client, socket) = server.connect_tcp();
        (Box::new(client), socket)
    } else {
        let (client, socket) = server.connect();
        (Box::new(client), socket)
    };
    let chunks = cut(&server, &message, sizes);
    server.ring.send(socket, chunks, Then::Shutdown).unwrap();
    let got = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut got, mut buffer) = (Vec::new(), vec![0; 40_000]);
            loop {
                match client.read(&mut buffer).unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&buffer[..n]),
                }
                if got.len() < 500_000 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        server.expect(Note::Sent(socket, Ok(bytes)));
        server.until("the reader", |_| reader.is_finished());
        reader.join().unwrap()
    });
    assert!(got == message, "{} of {bytes} bytes, or others", got.len());
    server.close(socket);
    server.assert_empty(config);
    server
}

#[test]
fn one_chunk_and_many() {
    deliver(&small(), 1, &[1], false);
    deliver(&small(), 10, &[1], false);
    deliver(&small(), 5000, &[1, 2, 3, 500, 7], false);
}

#[test]
fn more_chunks_than_a_sendmsg_or_a_chain_holds() {
    let server = deliver(&small(), 3000, &[1], false);
    assert_eq!(server.ring.stats().heap_chunks_made, 0);
    deliver(&Config { entries: 4, ..small() }, 3000, &[1], false);
    deliver(&Config { entries: 1, ..small() }, 1000, &[1], true);
}

#[test]
fn more_than_the_sockets_buffer_to_a_slow_reader() {
    deliver(&small(), 4 << 20, &[70_000, 1, 500, 8000], false);
    deliver(&small(), 4 << 20, &[70_000, 1, 500, 8000], true);
}

#[test]
fn short_sends_are_continued() {
    let config = Config { without: Features::SEND_WAITALL, ..small() };
    let server = deliver(&config, 4 << 20, &[70_000, 1, 500, 8000], false);
    assert!(server.ring.stats().short_sends > 0, "{:?}", server.ring.stats());
    deliver(&config, 4 << 20, &[300, 70_000], true);
    deliver(&config, 3000, &[1], false);
}

#[test]
fn an_exhausted_arena_sends_from_the_heap() {
    let class = |capacity, count| ArenaClass { capacity, count };
    let classes = [class(16, 2), class(64, 1), class(128, 1)];
    let config = Config { arena: ArenaConfig { classes }, ..small() };
    let server = deliver(&config, 100_000, &[10, 100, 1000], false);
    assert!(server.ring.stats().heap_chunks_made > 100);
}

#[test]
fn zero_copy_over_tcp() {
    for without in [Features::NONE, Features::SENDMSG_ZC_FIXED] {
        let config = Config { zero_copy_from: Some(4096), without, ..small() };
        let server = deliver(&config, 2 << 20, &[70_000, 100], true);
        assert!(server.ring.stats().zero_copy_sends > 0, "{:?}", server.ring.stats());
        let server = deliver(&config, 1000, &[100], true);
        assert_eq!(server.ring.stats().zero_copy_sends, 0, "too small");
        let server = deliver(&config, 2 << 20, &[70_000, 100], false);
        assert_eq!(server.ring.stats().zero_copy_sends, 0, "unix sockets have none");
    }
    let without = Features::SEND_ZC;
    let config = Config { zero_copy_from: Some(4096), without, ..small() };
    let server = deliver(&config, 2 << 20, &[70_000, 100], true);
    assert_eq!(server.ring.stats().zero_copy_sends, 0);
}

#[test]
fn zero_copy_chunks_come_back_after_the_network_let_go() {
    let config = Config { zero_copy_from: Some(1), ..small() };
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect_tcp();
    for _ in 0..50 {
        server.log.clear();
        server.send(socket, &[7; 70_000], Then::Nothing);
        thread::scope(|scope| {
            scope.spawn(|| client.read_exact(&mut vec![0; 70_000]).unwrap());
            server.expect(Note::Sent(socket, Ok(70_000)));
        });
    }
    server.close(socket);
    server.assert_empty(&config);
}

#[test]
fn one_send_at_a_time() {
    let config = small();
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    server.send(socket, b"first", Then::Nothing);
    let chunk = server.chunk(b"second");
    let refused = server.ring.send(socket, [chunk], Then::Nothing);
    assert_eq!(refused, Err(SendRefused::Busy));
    server.expect(Note::Sent(socket, Ok(5)));
    server.send(socket, b"third", Then::Nothing);
    let mut got = [0; 10];
    server.until("third", |server| {
        server.log.iter().filter(|n| matches!(n, Note::Sent(..))).count() == 2
    });
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"firstthird");
    server.close(socket);
    server.assert_empty(&config);
}

#[test]
fn a_send_of_nothing_still_does_what_follows() {
    let mut server = Server::new(&small());
    let (mut client, socket) = server.connect();
    let empty = server.ring.arena().chunk(10);
    server.ring.send(socket, [empty], Then::Receive).unwrap();
    server.expect(Note::Sent(socket, Ok(0)));
    client.write_all(b"x").unwrap();
    server.until("x", |server| server.bytes(socket) == b"x");
    server.ring.send(socket, [], Then::Shutdown).unwrap();
    server.until("both", |server| {
        server.log.iter().filter(|n| matches!(n, Note::Sent(..))).count() == 2
    });
    let eof = thread::spawn(move || client.read(&mut [0; 1]).unwrap());
    server.until("the end", |_| eof.is_finished());
    assert_eq!(eof.join().unwrap(), 0);
}

#[test]
fn then_receive_follows_the_whole_send() {
    for without in [Features::NONE, Features::SEND_WAITALL, Features::MULTISHOT_RECV] {
        let config = Config { without, ..small() };
        let mut server = Server::new(&config);
        let (client, socket) = server.connect();
        (&client).write_all(b"early").unwrap();
        let message = pattern(1 << 20);
        let chunks = cut(&server, &message, &[60_000]);
        server.ring.send(socket, chunks, Then::Receive).unwrap();
        server.settle(Duration::from_millis(30));
        assert_eq!(server.bytes(socket), b"", "the send is not through, so nothing is received");
        thread::scope(|scope| {
            scope.spawn(|| (&client).read_exact(&mut vec![0; 1 << 20]).unwrap());
            server.expect(Note::Sent(socket, Ok(1 << 20)));
        });
        server.until("early", |server| server.bytes(socket) == b"early");
        (&client).write_all(b" late").unwrap();
        server.until("late", |server| server.bytes(socket) == b"early late");
        server.close(socket);
        server.assert_empty(&config);
    }
}

#[test]
fn a_peer_that_is_gone_is_one_error() {
    for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
        let config = small();
        let mut server = Server::new(&config);
        let (client, socket) = server.connect();
        drop(client);
        let chunks: Vec<_> = (0..200).map(|_| server.chunk(b"lost")).collect();
        server.ring.send(socket, chunks, then).unwrap();
        server.expect(Note::Sent(socket, Err(Some(libc::EPIPE))));
        server.settle(Duration::from_millis(20));
        assert_eq!(server.log.iter().filter(|n| matches!(n, Note::Sent(..))).count(), 1);
        server.close(socket);
        server.assert_empty(&config);
    }
}

#[test]
fn a_peer_that_leaves_in_the_middle_is_one_error() {
    let config = small();
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    let message = pattern(2 << 20);
    let chunks = cut(&server, &message, &[50_000]);
    server.ring.send(socket, chunks, Then::Receive).unwrap();
    server.settle(Duration::from_millis(10));
    client.read_exact(&mut [0; 5000]).unwrap();
    drop(client);
    let failed =
        |note: &Note| matches!(note, Note::Sent(_, Err(Some(libc::EPIPE | libc::ECONNRESET))));
    server.until("an error", |server| server.log.iter().any(failed));
    server.settle(Duration::from_millis(20));
    assert!(!server.log.iter().any(|note| matches!(note, Note::Received(..))));
    server.close(socket);
    server.assert_empty(&config);
}

#[test]
fn shutdown_ends_both_directions() {
    let config = small();
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    server.settle(Duration::from_millis(10));
    server.ring.shutdown(socket);
    server.ring.shutdown(socket);
    server.expect(Note::RecvEnded(socket, None));
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    server.close(socket);
    server.assert_empty(&config);
}
