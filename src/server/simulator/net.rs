//! A simulated ring, which is only memory: the schedule decides what the ring does next, and how much of
//! it. The ring accepts late, as if the host had no descriptor, and takes up requests late, as if its
//! queue was full.
//!
//! The ring keeps the promises of the real one (see [`ring::Event`]), which the core relies on, and
//! checks those that the core makes: one send at a time, and nothing to a socket that was closed.

use std::collections::VecDeque;

use ring::{Chunk, Peer, Socket, Then};

use super::super::core::Net;

/// The bytes that a client's socket takes before the client reads.
const CLIENT_BUFFER: usize = 8 * 1024;

/// The number of requests that wait to be taken up. With one more, the oldest is taken up at once.
const QUEUE: usize = 4;

/// One connection as the ring sees it, and the client's end of it.
pub struct Wire {
    pub socket: Socket,
    /// The peer at the client's end.
    peer: Peer,
    accepted: bool,
    /// True if the core has let the connection in.
    pub inside: bool,
    /// The bytes that the client has sent and the server has not received.
    pub to_server: VecDeque<u8>,
    /// The bytes that the server has sent and the client has not read.
    pub to_client: VecDeque<u8>,
    /// True if the client sends no more.
    pub half_closed: bool,
    /// True if the client has closed its end. With a reset, what the client had sent is lost.
    pub client_gone: bool,
    /// True if the server has shut the connection down.
    pub shut: bool,
    /// True if a send failed by the host's fault.
    pub has_failed: bool,
    /// True if the core waits for the end of a send (`has_send`), or has closed the socket
    /// (`has_closed`), as the core sees it.
    has_send: bool,
    has_closed: bool,
    sending: Option<Sending>,
    receiving: bool,
    /// True if receiving was switched off while a receive was under way.
    one_more: bool,
    recv_ended: bool,
    watched: bool,
    closing: bool,
}

struct Sending {
    /// The chunks being sent. They go back to the arena when the send is over, not before.
    chunks: Vec<Chunk>,
    /// The next byte to send: the chunk, and the place in it.
    at: (usize, usize),
    then: Then,
}

/// A request of the core.
enum Request {
    Send(Sending),
    Pause,
    Resume,
    Watch,
    Shutdown,
    Close,
}

/// An event of the ring.
pub enum Event {
    Accepted(Socket, Peer),
    Received(Socket, Vec<u8>),
    RecvEnded(Socket),
    HungUp(Socket),
    Sent(Socket, bool),
    Closed(Socket),
}

/// All connections, by their slot.
#[derive(Default)]
pub struct FakeRing {
    slots: Vec<Option<Wire>>,
    generations: Vec<u32>,
    queue: VecDeque<(Socket, Request)>,
}

impl FakeRing {
    /// Connects a client. The slot is any free one.
    pub fn connect(&mut self, peer: Peer, random: &mut fastrand::Rng) -> Socket {
        let free: Vec<usize> =
            (0..self.slots.len()).filter(|&slot| self.slots[slot].is_none()).collect();
        let slot = match random.choice(&free) {
            Some(&slot) if random.u8(..4) > 0 => slot,
            _ => {
                self.slots.push(None);
                self.generations.push(0);
                self.slots.len() - 1
            }
        };
        self.generations[slot] += 1;
        let socket = Socket::made_up(slot as u32, self.generations[slot]);
        self.slots[slot] = Some(Wire {
            socket,
            peer,
            accepted: false,
            inside: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            half_closed: false,
            client_gone: false,
            shut: false,
            has_failed: false,
            has_send: false,
            has_closed: false,
            sending: None,
            receiving: false,
            one_more: false,
            recv_ended: false,
            watched: false,
            closing: false,
        });
        socket
    }

    /// Returns the wire of a socket, while the server has it.
    pub fn wire(&mut self, socket: Socket) -> Option<&mut Wire> {
        let wire = self.slots.get_mut(socket.index())?.as_mut()?;
        (wire.socket == socket).then_some(wire)
    }

    /// Returns the number of sockets that are not closed.
    pub fn live(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Returns the number of connections of a peer that were let in and are not closed.
    pub fn inside(&self, peer: &Peer) -> usize {
        self.slots.iter().flatten().filter(|wire| wire.inside && wire.peer == *peer).count()
    }

    /// Returns an event of some connection that has one, or `None` if none has.
    pub fn next(&mut self, random: &mut fastrand::Rng, is_calm: bool) -> Option<Event> {
        let most = if is_calm { QUEUE } else { random.usize(..=QUEUE) };
        for _ in 0..most {
            self.take_up();
        }
        let count = self.slots.len();
        let first = if count > 0 { random.usize(..count) } else { 0 };
        for offset in 0..count {
            let slot = (first + offset) % count;
            let Some(wire) = &mut self.slots[slot] else { continue };
            if wire.closing && wire.sending.is_none() {
                let socket = wire.socket;
                self.slots[slot] = None;
                return Some(Event::Closed(socket));
            }
            if let Some(event) = wire.next(random, is_calm) {
                return Some(event);
            }
        }
        None
    }

    /// Queues a request of the core, and checks that the core may make it.
    fn ask(&mut self, socket: Socket, request: Request) {
        let wire = self.wire(socket).expect("the core uses sockets that there are");
        assert!(
            wire.accepted && !wire.has_closed,
            "the core asks nothing of a socket it has closed"
        );
        match &request {
            Request::Send(sending) => {
                assert!(!wire.has_send, "one send at a time");
                assert!(
                    sending.chunks.iter().any(|chunk| !chunk.is_empty()),
                    "a send of something"
                );
                wire.has_send = true;
            }
            Request::Close => wire.has_closed = true,
            _ => {}
        }
        self.queue.push_back((socket, request));
        if self.queue.len() > QUEUE {
            self.take_up();
        }
    }

    /// Takes up the oldest request.
    fn take_up(&mut self) {
        let Some((socket, request)) = self.queue.pop_front() else {
            return;
        };
        let wire = self.wire(socket).expect("a socket is there until it is closed");
        match request {
            Request::Send(sending) => wire.sending = Some(sending),
            Request::Pause => wire.one_more = std::mem::take(&mut wire.receiving),
            Request::Resume => wire.receiving = true,
            Request::Watch => wire.watched = true,
            Request::Shutdown => wire.shut = true,
            Request::Close => wire.closing = true,
        }
    }
}

impl Wire {
    /// Returns the next event of this connection, if there is one. Sends and receives take turns at
    /// random.
    fn next(&mut self, random: &mut fastrand::Rng, is_calm: bool) -> Option<Event> {
        if !self.accepted {
            // Otherwise, the host has no descriptor for the connection now.
            self.accepted = is_calm || random.u8(..4) > 0;
            return self.accepted.then(|| Event::Accepted(self.socket, self.peer.clone()));
        }
        if self.watched && (self.client_gone || self.shut) && !self.closing {
            self.watched = false;
            return Some(Event::HungUp(self.socket));
        }
        if random.bool() {
            self.send_some(random, is_calm).or_else(|| self.receive_some(random))
        } else {
            self.receive_some(random).or_else(|| self.send_some(random, is_calm))
        }
    }

    /// Sends some of what is being sent. Returns the end of the send if that was all. On a closed or
    /// broken connection, the send fails.
    fn send_some(&mut self, random: &mut fastrand::Rng, is_calm: bool) -> Option<Event> {
        let sending = self.sending.as_mut()?;
        self.has_failed |= !is_calm && random.u16(..2000) == 0;
        if self.client_gone || self.shut || self.closing || self.has_failed {
            self.sending = None;
            self.has_send = false;
            // Of a closing socket, only its end is told.
            return (!self.closing).then_some(Event::Sent(self.socket, false));
        }
        let mut room = CLIENT_BUFFER.saturating_sub(self.to_client.len());
        if !is_calm {
            room = room.min(random.usize(..=CLIENT_BUFFER));
        }
        while room > 0 && sending.at.0 < sending.chunks.len() {
            let (chunk, from) = sending.at;
            let rest = &sending.chunks[chunk][from..];
            let now = rest.len().min(room);
            self.to_client.extend(&rest[..now]);
            room -= now;
            sending.at = if now == rest.len() { (chunk + 1, 0) } else { (chunk, from + now) };
        }
        if sending.at.0 < sending.chunks.len() {
            return None;
        }
        self.has_send = false;
        match self.sending.take()?.then {
            Then::Nothing => {}
            Then::Receive => self.receiving = true,
            Then::Shutdown => self.shut = true,
        }
        Some(Event::Sent(self.socket, true))
    }

    /// Receives some of what the client has sent, cut at any length, or the end of it.
    fn receive_some(&mut self, random: &mut fastrand::Rng) -> Option<Event> {
        if !(self.receiving || self.one_more) || self.recv_ended || self.closing {
            return None;
        }
        self.one_more &= self.receiving;
        if !self.to_server.is_empty() {
            let most = self.to_server.len().min(16 * 1024);
            let len = if random.bool() { most } else { random.usize(1..=most) };
            return Some(Event::Received(self.socket, self.to_server.drain(..len).collect()));
        }
        if self.client_gone || self.half_closed || self.shut {
            self.recv_ended = true;
            return Some(Event::RecvEnded(self.socket));
        }
        None
    }

    /// Returns `true` if the client sees the end of the connection after what it has not read.
    pub fn has_ended(&self) -> bool {
        self.shut || self.closing
    }
}

impl Net for FakeRing {
    fn send(&mut self, socket: Socket, chunks: std::vec::Drain<'_, Chunk>, then: Then) {
        self.ask(socket, Request::Send(Sending { chunks: chunks.collect(), at: (0, 0), then }));
    }

    fn pause(&mut self, socket: Socket) {
        self.ask(socket, Request::Pause);
    }

    fn resume(&mut self, socket: Socket) {
        self.ask(socket, Request::Resume);
    }

    fn watch_hang_up(&mut self, socket: Socket) {
        self.ask(socket, Request::Watch);
    }

    fn shutdown(&mut self, socket: Socket) {
        self.ask(socket, Request::Shutdown);
    }

    fn close(&mut self, socket: Socket) {
        self.ask(socket, Request::Close);
    }
}
