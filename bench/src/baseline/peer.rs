//! One client of the baseline: its frames, and the responses queued for it.

use std::vec::Drain;

use kernel::MAX_ARGS;
use ring::{Chunk, Socket};
use rumpsp::wire::{Class, Handshake, Header, Kind, Reader};

use super::answers::{Call, RESPONSE_LEN};

/// Bytes of the longest name that a handshake may bring.
const MOST_NAME: usize = 4096;

/// Bytes of a call's longest argument structure.
const MOST_ARGS: usize = MAX_ARGS * 8;

/// From this many bytes owed on, a client is not read until half of them are sent.
const MOST_OWED: usize = 256 << 10;

pub struct Peer {
    pub socket: Socket,
    reader: Reader,
    has_greeted: bool,
    /// Chunks to be sent once the send in flight has ended.
    waiting: Vec<Chunk>,
    is_sending: bool,
    /// Bytes of responses still to be sent, including those to calls not answered yet.
    owed: usize,
    is_paused: bool,
}

/// A request that this server does not serve: the connection ends.
pub struct Refused;

/// The requests that this server serves.
enum Request {
    Handshake(u64),
    Call(u64),
}

impl Peer {
    /// Makes a client to which the banner is being sent.
    pub fn greeted(socket: Socket) -> Peer {
        Peer {
            socket,
            reader: Reader::default(),
            has_greeted: false,
            waiting: Vec::new(),
            is_sending: true,
            owed: 0,
            is_paused: false,
        }
    }

    /// Takes bytes, appends the calls among them, and returns the handshake's number if it was there.
    pub fn receive(
        &mut self,
        mut input: &[u8],
        calls: &mut Vec<Call>,
    ) -> Result<Option<u64>, Refused> {
        let mut handshake = None;
        while let Some(frame) = self.reader.next(&mut input, bound, |_| Refused)? {
            match request(&frame.header)? {
                Request::Handshake(reqno) if !self.has_greeted => {
                    self.has_greeted = true;
                    handshake = Some(reqno);
                }
                Request::Call(reqno) if self.has_greeted => {
                    self.owed += RESPONSE_LEN;
                    calls.push(Call { socket: self.socket, reqno });
                }
                _ => return Err(Refused),
            }
        }
        Ok(handshake)
    }

    /// Queues bytes. Returns `true` if a send should be started.
    pub fn owe(&mut self, chunk: Chunk) -> bool {
        self.waiting.push(chunk);
        !self.is_sending
    }

    /// Returns the chunks to be sent next, or `None` if there are none or a send is in flight.
    pub fn next(&mut self) -> Option<Drain<'_, Chunk>> {
        if self.is_sending || self.waiting.is_empty() {
            return None;
        }
        self.is_sending = true;
        Some(self.waiting.drain(..))
    }

    /// Notes that the send in flight has ended. Returns `true` if another should be started.
    pub fn sent(&mut self, len: usize) -> bool {
        self.is_sending = false;
        // The banner and the handshake's response were never counted.
        self.owed = self.owed.saturating_sub(len);
        !self.waiting.is_empty()
    }

    /// Returns `true`, once, if so much is owed to the client that it should not be read any more.
    pub fn is_to_pause(&mut self) -> bool {
        let now = !self.is_paused && self.owed >= MOST_OWED;
        self.is_paused |= now;
        now
    }

    /// Returns `true`, once, if the client should be read again.
    pub fn is_to_resume(&mut self) -> bool {
        let now = self.is_paused && self.owed < MOST_OWED / 2;
        self.is_paused &= !now;
        now
    }
}

/// Returns the most bytes that the body of a request may have.
fn bound(header: &Header) -> Result<usize, Refused> {
    Ok(match request(header)? {
        Request::Handshake(_) => MOST_NAME,
        Request::Call(_) => MOST_ARGS,
    })
}

fn request(header: &Header) -> Result<Request, Refused> {
    match (header.class(), header.kind()) {
        (Some(Class::Request), Some(Kind::Syscall)) => Ok(Request::Call(header.reqno)),
        (Some(Class::Request), Some(Kind::Handshake))
            if header.word == Handshake::Guest.number() =>
        {
            Ok(Request::Handshake(header.reqno))
        }
        _ => Err(Refused),
    }
}
