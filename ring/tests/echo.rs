//! The usual life of a connection: accept, receive, send, close.

mod support;

use std::io::{Read, Write};

use rumpring_ring::Then;
use support::{Note, Server, small};

#[test]
fn echoes_and_closes() {
    let config = small();
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect();
    server.ring.resume(socket);
    client.write_all(b"hello").unwrap();
    server.until("hello", |server| server.bytes(socket) == b"hello");
    server.send(socket, b"world", Then::Nothing);
    server.expect(Note::Sent(socket, Ok(5)));
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
    drop(client);
    server.expect(Note::RecvEnded(socket, None));
    server.close(socket);
    server.assert_empty(&config);
}

#[test]
fn speaks_tcp() {
    let config = small();
    let mut server = Server::new(&config);
    let (mut client, socket) = server.connect_tcp();
    server.send(socket, b"banner", Then::Receive);
    let mut banner = [0; 6];
    server.expect(Note::Sent(socket, Ok(6)));
    client.read_exact(&mut banner).unwrap();
    client.write_all(b"hello").unwrap();
    server.until("hello", |server| server.bytes(socket) == b"hello");
    server.close(socket);
    assert_eq!(client.read(&mut banner).unwrap(), 0);
    server.assert_empty(&config);
}
