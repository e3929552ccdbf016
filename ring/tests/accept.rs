//! Accepting: many connections, too many, after a stop, and from a socket that does not listen.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rumpring_ring::{Config, Features, Then};
use support::{Note, Server, small};

fn accepted(server: &Server) -> usize {
    server.log.iter().filter(|note| matches!(note, Note::Accepted(_))).count()
}

#[test]
fn serves_many_sockets() {
    serve(3000.min(support::file_limit().saturating_sub(200)));
}

#[test]
#[ignore = "needs `ulimit -n 20000`"]
fn serves_twenty_thousand_sockets() {
    // The clients' ends need descriptors of this process, and it has a few more.
    serve(19_900);
}

fn serve(many: usize) {
    let config = Config { sockets: many as u32, recv_buffers: 256, recv_buffer_len: 64, ..small() };
    let mut server = Server::new(&config);
    let mut clients = Vec::new();
    for _ in 0..many {
        let (client, socket) = server.connect();
        assert_eq!(socket.index(), clients.len());
        server.send(socket, b"hi", Then::Receive);
        server.expect(Note::Sent(socket, Ok(2)));
        server.log.clear();
        clients.push((client, socket));
    }
    for (i, (client, _)) in clients.iter_mut().enumerate() {
        client.read_exact(&mut [0; 2]).unwrap();
        client.write_all(&(i as u32).to_le_bytes()).unwrap();
    }
    server.until("all messages", |server| server.received.len() == many);
    for (i, (_, socket)) in clients.iter().enumerate() {
        server.until("a message", |server| server.bytes(*socket).len() == 4);
        assert_eq!(server.bytes(*socket), (i as u32).to_le_bytes());
        server.ring.close(*socket);
    }
    let closed =
        |server: &Server| server.log.iter().filter(|n| matches!(n, Note::Closed(_))).count();
    server.until("all closed", |server| closed(server) == many);
    server.assert_empty(&config);
}

fn full_table(config: &Config) {
    let config = Config { sockets: 3, ..config.clone() };
    let mut server = Server::new(&config);
    let mut held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let waiting: Vec<UnixStream> = (0..4).map(|_| server.dial()).collect();
    server.settle(Duration::from_millis(100));
    let stats = server.ring.stats();
    assert_eq!(accepted(&server), 3);
    assert!(stats.accept_errors == 0 && stats.enters < 100, "{stats:?}");
    // Each socket that is closed lets one connection in.
    for round in 1..=3 {
        let (_, socket) = held.pop().unwrap();
        server.close(socket);
        server.until("a slot used again", |server| accepted(server) == 3 + round);
    }
    drop(waiting);
}

#[test]
fn a_full_table_waits_for_a_slot() {
    full_table(&small());
    full_table(&Config { without: Features::MULTISHOT_ACCEPT, ..small() });
}

#[test]
fn stops_listening() {
    let config = small();
    let mut server = Server::new(&config);
    let (_client, socket) = server.connect();
    server.ring.stop_listening(server.listener);
    server.ring.stop_listening(server.listener);
    server.settle(Duration::from_millis(20));
    server.listen_tcp_and_forget();
    server.close(socket);
    server.assert_empty(&config);
}

impl Server {
    /// Waits until nothing can connect any more to a listener that is stopped at once.
    fn listen_tcp_and_forget(&mut self) {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = self.ring.listen(tcp.into()).unwrap();
        self.settle(Duration::from_millis(5));
        self.ring.stop_listening(listener);
        self.until("nobody to listen there any more", |_| {
            std::net::TcpStream::connect(address).is_err()
        });
    }
}

#[test]
fn a_connection_before_stop_listening_does_not_leak() {
    let config = small();
    let mut server = Server::new(&config);
    let mut client = server.dial();
    server.ring.stop_listening(server.listener);
    // Accepted or not, the connection is closed, and nothing is reported.
    let end = std::thread::spawn(move || matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    server.until("its end", |_| end.is_finished());
    assert!(end.join().unwrap());
    server.until("no socket", |server| server.ring.stats().sockets == 0);
    assert!(server.log.is_empty(), "{:?}", server.log);
    server.assert_empty(&config);
}

#[test]
fn what_cannot_listen_is_reported_once() {
    let mut server = Server::new(&small());
    let (one, _other) = UnixStream::pair().unwrap();
    server.ring.listen(OwnedFd::from(one)).unwrap();
    server.expect(Note::AcceptFailed(Some(libc::EINVAL)));
    server.settle(Duration::from_millis(50));
    assert_eq!(server.log.len(), 1);
}

#[test]
fn a_nonblocking_listener_is_made_to_wait() {
    let mut server = Server::new(&small());
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let address = tcp.local_addr().unwrap();
    server.ring.listen(tcp.into()).unwrap();
    server.settle(Duration::from_millis(10));
    let _client = std::net::TcpStream::connect(address).unwrap();
    server.accept();
    assert!(server.ring.stats().enters < 50);
}
