//! The loop of the baseline server: each turn handles all events, then answers calls, then sends.

use std::sync::atomic::Ordering;

use ring::{Arena, Chunk, Error, Event, Ring, Socket, Then};
use rumpring::output;
use rumpring::server::SocketFile;
use rumpsp::wire;

use super::Wishes;
use super::answers::{Answer, Call, RESPONSE_LEN, answer};
use super::peer::Peer;
use super::worker::Worker;

pub struct Server {
    // The file is dropped before the ring, which has the socket.
    _file: Option<SocketFile>,
    ring: Ring,
    arena: Arena,
    /// The thread that answers, if it is not the ring's.
    worker: Option<Worker>,
    banner: Vec<u8>,
    /// The clients, by the slots of their sockets.
    peers: Vec<Option<Peer>>,
    /// The calls of this turn.
    calls: Vec<Call>,
    answers: Vec<Answer>,
    /// Clients to which bytes may be sent now.
    due: Vec<Socket>,
    /// The number of calls answered so far.
    answered: u64,
}

impl Server {
    pub fn new(ring: Ring, worker: Option<Worker>, file: Option<SocketFile>) -> Server {
        Server {
            _file: file,
            arena: ring.arena(),
            ring,
            worker,
            banner: wire::banner("baseline", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH),
            peers: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            due: Vec::new(),
            answered: 0,
        }
    }

    /// Serves until `wishes` says to end and the ring is woken.
    pub fn run(mut self, wishes: &Wishes) -> Result<(), Error> {
        while !wishes.end.load(Ordering::SeqCst) {
            let worker = self.worker.as_ref();
            let is_idle = || !wishes.has_any() && worker.is_none_or(Worker::has_no_answers);
            self.ring.wait(None, is_idle)?;
            while let Some(event) = self.ring.next_event() {
                self.happened(event);
            }
            self.answer();
            self.flush();
            if wishes.counters.swap(false, Ordering::SeqCst) {
                let enters = self.ring.stats().enters;
                output::say(format_args!("calls {} enters {enters}", self.answered));
            }
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, .. } => self.accepted(socket),
            Event::Received { socket, data } => self.received(socket, &data),
            Event::Sent { socket, result: Ok(len) } => self.sent(socket, len),
            Event::Sent { socket, .. } | Event::RecvEnded { socket, .. } => self.close(socket),
            Event::AcceptFailed { error, .. } => {
                output::say(format_args!("cannot accept a connection: {error}"));
            }
            Event::HungUp { .. } | Event::Closed { .. } => {}
        }
    }

    fn accepted(&mut self, socket: Socket) {
        if self.peers.len() <= socket.index() {
            self.peers.resize_with(socket.index() + 1, || None);
        }
        self.peers[socket.index()] = Some(Peer::greeted(socket));
        let banner = self.chunk(&self.banner);
        self.send(socket, [banner], Then::Receive);
    }

    fn received(&mut self, socket: Socket, data: &[u8]) {
        let Some(peer) = find(&mut self.peers, socket) else { return };
        let Ok(handshake) = peer.receive(data, &mut self.calls) else {
            return self.close(socket);
        };
        if peer.is_to_pause() {
            self.ring.pause(socket);
        }
        if let Some(reqno) = handshake {
            let chunk = self.chunk(&wire::handshake_response(reqno));
            self.owe(socket, chunk);
        }
    }

    fn sent(&mut self, socket: Socket, len: usize) {
        let Some(peer) = find(&mut self.peers, socket) else { return };
        if peer.sent(len) {
            self.due.push(socket);
        }
        if peer.is_to_resume() {
            self.ring.resume(socket);
        }
    }

    fn close(&mut self, socket: Socket) {
        if find(&mut self.peers, socket).is_some() {
            self.peers[socket.index()] = None;
            self.ring.close(socket);
        }
    }

    /// Has the calls of this turn answered, here or by the worker.
    fn answer(&mut self) {
        match &self.worker {
            None => answer(&self.arena, &self.calls, &mut self.answers),
            Some(worker) => {
                if !self.calls.is_empty() {
                    worker.give(&mut self.calls);
                }
                worker.take(&mut self.answers);
            }
        }
        self.calls.clear();
        let mut answers = std::mem::take(&mut self.answers);
        for Answer { socket, chunk } in answers.drain(..) {
            self.answered += (chunk.len() / RESPONSE_LEN) as u64;
            self.owe(socket, chunk);
        }
        self.answers = answers;
    }

    fn owe(&mut self, socket: Socket, chunk: Chunk) {
        if let Some(peer) = find(&mut self.peers, socket)
            && peer.owe(chunk)
        {
            self.due.push(socket);
        }
    }

    fn flush(&mut self) {
        while let Some(socket) = self.due.pop() {
            if let Some(chunks) = find(&mut self.peers, socket).and_then(Peer::next)
                && let Err(error) = self.ring.send(socket, chunks, Then::Nothing)
            {
                output::say(format_args!("a send was refused: {error}"));
            }
        }
    }

    fn send(&mut self, socket: Socket, chunks: impl IntoIterator<Item = Chunk>, then: Then) {
        if let Err(error) = self.ring.send(socket, chunks, then) {
            output::say(format_args!("a send was refused: {error}"));
        }
    }

    fn chunk(&self, bytes: &[u8]) -> Chunk {
        let mut chunk = self.arena.chunk(bytes.len());
        chunk.put(bytes);
        chunk
    }
}

/// Returns the client of a socket, unless the socket is closed by now.
fn find(peers: &mut [Option<Peer>], socket: Socket) -> Option<&mut Peer> {
    peers.get_mut(socket.index())?.as_mut().filter(|peer| peer.socket == socket)
}
