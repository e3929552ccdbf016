//! Closing a socket with anything in flight leaves nothing behind.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use rumpring_ring::{Config, Features, Ring, Then};
use support::{Note, Server, pattern, small};

/// Fills the socket's buffer and beyond, so that a send stays in flight.
fn stuff(server: &mut Server, socket: rumpring_ring::Socket, then: Then) {
    let message = pattern(1 << 20);
    let chunks: Vec<_> = message.chunks(1000).map(|piece| server.chunk(piece)).collect();
    server.ring.send(socket, chunks, then).unwrap();
}

#[test]
fn with_everything_in_flight() {
    for without in [Features::NONE, Features::MULTISHOT_RECV, Features::SEND_WAITALL] {
        for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
            for submitted in [false, true] {
                let config = Config { without, ..small() };
                let mut server = Server::new(&config);
                let (mut client, socket) = server.connect();
                server.ring.resume(socket);
                stuff(&mut server, socket, then);
                if submitted {
                    server.settle(Duration::from_millis(10));
                }
                server.ring.pause(socket);
                client.write_all(b"too late").unwrap();
                server.log.clear();
                server.ring.close(socket);
                server.ring.close(socket);
                server.expect(Note::Closed(socket));
                server.settle(Duration::from_millis(5));
                assert_eq!(server.log, [Note::Closed(socket)], "nothing else is said of it");
                server.assert_empty(&config);
            }
        }
    }
}

#[test]
fn zero_copy_in_flight() {
    let config = Config { zero_copy_from: Some(1), ..small() };
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect_tcp();
    let message = pattern(6 << 20);
    let chunks: Vec<_> = message.chunks(70_000).map(|piece| server.chunk(piece)).collect();
    let mapped = server.ring.stats().heap_chunks == 0;
    server.ring.send(socket, chunks, Then::Nothing).unwrap();
    server.settle(Duration::from_millis(30));
    server.close(socket);
    assert_eq!(server.ring.stats().sockets, 0);
    // The network still holds what the peer has not read.
    assert!(mapped && server.ring.stats().zero_copy_sends > 0);
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    assert!(message.starts_with(&got));
    drop(client);
    server.assert_empty(&config);
}

#[test]
fn a_socket_that_waits_for_a_buffer() {
    let config = Config { recv_buffers: 1, recv_buffer_len: 4, ..small() };
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    client.write_all(b"aaaabbbbcccc").unwrap();
    let mut held = None;
    while held.is_none() {
        server.ring.wait(None, || true).unwrap();
        while let Some(event) = server.ring.next_event() {
            if let rumpring_ring::Event::Received { data, .. } = event {
                held = Some(data);
            }
        }
    }
    server.until("no buffer", |server| server.ring.stats().recv_buffers_exhausted > 0);
    server.close(socket);
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    client.write_all(b"dddd").unwrap();
    drop(held);
    server.until("dddd", |server| server.bytes(socket) == b"dddd");
    server.close(socket);
    server.assert_empty(&config);
}

/// Connections that come, talk and go at random leave nothing.
#[test]
fn a_storm_leaves_nothing() {
    let tight =
        Config { entries: 8, completions: 8, recv_buffers: 4, recv_buffer_len: 64, ..small() };
    let copied = Config { zero_copy_from: Some(1), ..small() };
    for config in [small(), tight, copied] {
        storm(&config);
    }
}

fn storm(config: &Config) {
    let config = &Config { sockets: 500, ..config.clone() };
    let mut server = Server::new(config);
    let address = server.listen_tcp();
    let mut random = 1u64;
    let mut next = |n: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % n
    };
    for _ in 0..200 {
        let mut sockets = Vec::new();
        let unix = server.dial();
        let tcp = std::net::TcpStream::connect(address).unwrap();
        let _ = (&unix).write_all(&pattern(next(2000) as usize));
        let _ = (&tcp).write_all(&pattern(next(2000) as usize));
        sockets.push(server.accept());
        server.until("the second", |server| {
            server.log.iter().filter(|n| matches!(n, Note::Accepted(_))).count() % 2 == 0
        });
        sockets.extend(server.log.iter().rev().find_map(|note| match note {
            Note::Accepted(socket) => Some(*socket),
            _ => None,
        }));
        sockets.dedup();
        for _ in 0..next(6) {
            let socket = sockets[next(sockets.len() as u64) as usize];
            match next(6) {
                0 => server.ring.pause(socket),
                1 => server.ring.resume(socket),
                2 => {
                    let chunk = server.chunk(&pattern(next(100_000) as usize));
                    let _ = server.ring.send(socket, [chunk], Then::Receive);
                }
                3 => server.ring.shutdown(socket),
                4 => server.turn(Duration::from_millis(1)),
                _ => server.ring.close(socket),
            }
        }
    }
    close_all(&mut server);
    server.assert_empty(config);
}

fn close_all(server: &mut Server) {
    let accepted = server.log.iter().filter_map(|note| match note {
        Note::Accepted(socket) => Some(*socket),
        _ => None,
    });
    for socket in accepted.collect::<Vec<_>>() {
        server.ring.close(socket);
    }
    server.until("all closed", |server| server.ring.stats().sockets == 0);
}

#[test]
fn dropping_a_ring_ends_everything() {
    let mut clients = Vec::new();
    // A thread has room for 16 registered rings: each ring must give its place back.
    for _ in 0..20 {
        let mut server = Server::new(&small());
        let (client, socket) = server.connect();
        server.ring.resume(socket);
        stuff(&mut server, socket, Then::Receive);
        assert!(server.ring.features().contains(Features::REGISTERED_RING));
        server.settle(Duration::from_millis(2));
        let chunk = server.chunk(b"outlives the ring");
        drop(server);
        assert_eq!(&*chunk, b"outlives the ring");
        clients.push(client);
    }
    for mut client in clients {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn a_recv_buffer_outlives_the_ring() {
    let mut server = Server::new(&small());
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    client.write_all(b"kept").unwrap();
    let data = receive(&mut server.ring);
    drop(server);
    assert_eq!(&*data, b"kept");
}

fn receive(ring: &mut Ring) -> rumpring_ring::RecvBuffer {
    loop {
        ring.wait(None, || true).unwrap();
        while let Some(event) = ring.next_event() {
            if let rumpring_ring::Event::Received { data, .. } = event {
                return data;
            }
        }
    }
}
