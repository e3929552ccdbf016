//! A ring with a client at the other end, and the patience to wait for what should happen.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rumpring_ring::{Chunk, Config, Error, Event, Listener, Peer, PeerQuery, Ring, Socket, Then};

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration small enough for many rings at once.
pub fn small() -> Config {
    Config {
        entries: 64,
        sockets: 64,
        recv_buffers: 64,
        recv_buffer_len: 2048,
        ..Config::default()
    }
}

/// A ring that listens on a unix socket, and a log of its events.
pub struct Server {
    pub ring: Ring,
    pub listener: Listener,
    pub log: Vec<Note>,
    pub received: HashMap<Socket, Vec<u8>>,
    /// The peers, as far as they were queried.
    pub peers: HashMap<Socket, Peer>,
    dir: tempfile::TempDir,
}

/// An event, without the memory that is only lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Accepted(Socket),
    AcceptFailed(Option<i32>),
    Received(Socket, usize),
    RecvEnded(Socket, Option<i32>),
    Sent(Socket, Result<usize, Option<i32>>),
    HungUp(Socket),
    Closed(Socket),
}

impl Server {
    pub fn new(config: &Config) -> Server {
        Server::listening(config, |ring, listener| ring.listen(listener))
    }

    /// Makes a server whose listener makes peer queries.
    pub fn asking(config: &Config, ask: PeerQuery) -> Server {
        Server::listening(config, |ring, listener| ring.listen_for(listener, ask))
    }

    fn listening(
        config: &Config,
        listen: impl FnOnce(&mut Ring, OwnedFd) -> Result<Listener, Error>,
    ) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::new(config).unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let listener = listen(&mut ring, listener.into()).unwrap();
        let (received, peers) = (HashMap::new(), HashMap::new());
        Server { ring, listener, log: Vec::new(), received, peers, dir }
    }

    /// Returns the path it listens on.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Connects a client that is not accepted yet.
    pub fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Connects a client; returns it and the ring's end.
    pub fn connect(&mut self) -> (UnixStream, Socket) {
        let stream = self.dial();
        (stream, self.accept())
    }

    /// Connects a TCP client; returns it and the ring's end.
    pub fn connect_tcp(&mut self) -> (TcpStream, Socket) {
        let address = self.listen_tcp();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (stream, self.accept())
    }

    pub fn listen_tcp(&mut self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.ring.listen(listener.into()).unwrap();
        address
    }

    /// Waits for the next connection.
    pub fn accept(&mut self) -> Socket {
        let from = self.log.len();
        self.until("a connection", |server| {
            server.log[from..].iter().any(|note| matches!(note, Note::Accepted(_)))
        });
        let accepted = self.log[from..].iter().find_map(|note| match note {
            Note::Accepted(socket) => Some(*socket),
            _ => None,
        });
        accepted.unwrap()
    }

    /// Handles events until `done`.
    pub fn until(&mut self, what: impl Debug, mut done: impl FnMut(&mut Server) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "waited too long for {what:?}; {:?}", self.ring.stats());
            self.turn(Duration::from_millis(50));
        }
    }

    /// Waits for this note to be in the log.
    pub fn expect(&mut self, note: Note) {
        self.until(note.clone(), |server| server.log.contains(&note));
    }

    /// Handles events for `time`, and at least ten times, even on a machine that is busy with other
    /// work.
    pub fn settle(&mut self, time: Duration) {
        let (end, mut turns) = (Instant::now() + time, 0);
        while turns < 10 || Instant::now() < end {
            self.turn(time / 10);
            turns += 1;
        }
    }

    /// Waits once and handles all events.
    pub fn turn(&mut self, longest: Duration) {
        while let Some(event) = self.ring.next_event() {
            self.note(event);
        }
        self.ring.wait(Some(Instant::now() + longest), || true).unwrap();
        while let Some(event) = self.ring.next_event() {
            self.note(event);
        }
    }

    fn note(&mut self, event: Event) {
        self.log.push(match event {
            Event::Accepted { socket, peer, .. } => {
                self.peers.extend(peer.map(|peer| (socket, peer)));
                Note::Accepted(socket)
            }
            Event::AcceptFailed { error, .. } => Note::AcceptFailed(error.raw_os_error()),
            Event::Received { socket, data } => {
                self.received.entry(socket).or_default().extend_from_slice(&data);
                Note::Received(socket, data.len())
            }
            Event::RecvEnded { socket, error } => {
                Note::RecvEnded(socket, error.and_then(|error| error.raw_os_error()))
            }
            Event::Sent { socket, result } => {
                Note::Sent(socket, result.map_err(|error| error.raw_os_error()))
            }
            Event::HungUp { socket } => Note::HungUp(socket),
            Event::Closed { socket } => Note::Closed(socket),
        });
    }

    /// Returns the bytes that have arrived from a socket.
    pub fn bytes(&self, socket: Socket) -> &[u8] {
        self.received.get(&socket).map_or(&[], |bytes| bytes)
    }

    pub fn chunk(&self, bytes: &[u8]) -> Chunk {
        chunk(&self.ring, bytes)
    }

    /// Sends one chunk.
    pub fn send(&mut self, socket: Socket, bytes: &[u8], then: Then) {
        let chunk = self.chunk(bytes);
        self.ring.send(socket, [chunk], then).unwrap();
    }

    /// Closes a socket and waits for its `Closed` event.
    pub fn close(&mut self, socket: Socket) {
        self.ring.close(socket);
        self.expect(Note::Closed(socket));
    }

    /// Checks that the ring holds nothing but its listeners.
    pub fn assert_empty(&mut self, config: &Config) {
        self.until("zero copy notifications", |server| server.ring.stats().sends == 0);
        let stats = self.ring.stats();
        assert_eq!((stats.sockets, stats.sends, stats.chunks, stats.heap_chunks), (0, 0, 0, 0));
        assert_eq!(stats.free_recv_buffers, u32::from(config.recv_buffers), "{stats:?}");
    }
}

pub fn chunk(ring: &Ring, bytes: &[u8]) -> Chunk {
    let mut chunk = ring.arena().chunk(bytes.len());
    assert_eq!(chunk.put(bytes), bytes.len());
    chunk
}

/// Returns bytes that differ by their position.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect()
}

/// Raises the soft limit of open files to the hard one, and returns it.
pub fn file_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a limit of ours.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}
