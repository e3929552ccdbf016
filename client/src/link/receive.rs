//! The receiver's work: turns bytes from the socket into answers, and serves the server's requests.

use std::cell::Cell;
use std::sync::{MutexGuard, PoisonError};

use super::Link;
use super::state::{Reply, error_word};
use crate::error::{CallError, Lost, ProtocolError};
use crate::memory::Refusal;
use crate::patience::Patience;
use rumpsp::wire::{
    self, COPY_BODY_LEN, Class, ErrorCode, Frame, HEADER_LEN, Header, Kind, Reader,
};
use rumpsp::wire::{SYSCALL_RESPONSE_LEN, TOKEN_LEN, read_u32, read_u64};

/// Bytes read at once. The buffer belongs to the thread, so idle connections have none.
const BUFFER: usize = 64 * 1024;

/// The most reads of one [`Link::receive_all`], so that one busy server cannot keep it for ever.
const READS: usize = 16;

/// The state that belongs to the receiver's role.
#[derive(Default)]
pub struct Receiving {
    reader: Reader,
    /// Bytes still to come of a frame that is dropped.
    skip: u64,
    /// Answers to the server's copies, on their way to the send queue.
    answers: Vec<u8>,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Came {
    pub bytes: usize,
    pub frames: usize,
}

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends out the thread's buffer; a nested loan gets a new buffer.
fn with_buffer<T>(body: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = SPARE.take().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice());
    let result = body(&mut buffer);
    SPARE.set(Some(buffer));
    result
}

impl Link {
    pub(super) fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives once and takes in the bytes that came: none, if none came in time.
    pub(super) fn receive(&self, rx: &mut Receiving, patience: Patience) -> Result<Came, Lost> {
        with_buffer(|buffer| match self.socket.receive(buffer, patience) {
            Ok(None) => Ok(Came::default()),
            Ok(Some(0)) if rx.skip > 0 || rx.reader.is_partial() => Err(Lost::Truncated),
            Ok(Some(0)) => Err(Lost::Closed),
            Ok(Some(bytes)) => Ok(Came { bytes, frames: self.take_in(rx, &buffer[..bytes])? }),
            Err(error) => Err(Lost::Io(error.kind())),
        })
    }

    /// Receives the bytes that are there, without waiting, and returns the number of frames.
    pub(super) fn receive_all(&self, rx: &mut Receiving) -> Result<usize, Lost> {
        let mut frames = 0;
        for _ in 0..READS {
            let came = self.receive(rx, Patience::None)?;
            frames += came.frames;
            if came.bytes < BUFFER {
                break;
            }
        }
        Ok(frames)
    }

    /// Takes bytes in and returns the number of frames they completed.
    fn take_in(&self, rx: &mut Receiving, mut input: &[u8]) -> Result<usize, ProtocolError> {
        let mut frames = 0;
        let skip = rx.skip.min(input.len() as u64);
        input = &input[skip as usize..];
        rx.skip -= skip;
        let most = self.settings.max_copy;
        while let Some(frame) = rx.reader.next(
            &mut input,
            |header| bound(header, most),
            |header| over_bound(header, most),
        )? {
            self.handle(&frame, &mut rx.answers)?;
            frames += 1;
        }
        self.drop_bad_copyout(rx)?;
        self.queue_answers(rx)?;
        Ok(frames)
    }

    /// Moves the answers to the send queue, unless the server has left too many unread.
    fn queue_answers(&self, rx: &mut Receiving) -> Result<(), ProtocolError> {
        if rx.answers.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        state.served = state.send_queue.push(|out| {
            if out.is_empty() {
                std::mem::swap(out, &mut rx.answers);
            } else {
                out.append(&mut rx.answers);
            }
        });
        let owed = state.send_queue.owed();
        rx.answers.clear();
        if owed > self.settings.max_unread { Err(ProtocolError::Unread(owed)) } else { Ok(()) }
    }

    /// Checks the address of a copyout as soon as it has arrived. A copyout that no region takes is
    /// dropped as it comes, and its bytes are never kept.
    fn drop_bad_copyout(&self, rx: &mut Receiving) -> Result<(), ProtocolError> {
        let Some((header, body)) = rx.reader.partial() else {
            return Ok(());
        };
        let is_copyout = matches!(header.kind(), Some(Kind::Copyout | Kind::Copyoutstr));
        if header.class() != Some(Class::Request) || !is_copyout || body.len() < COPY_BODY_LEN {
            return Ok(());
        }
        let len = copy_len(&header, body)?;
        if !self.memory.accepts(read_u64(body, 8), len) {
            self.refuse_copyout(read_u64(body, 8), len);
            rx.skip = rx.reader.abandon();
        }
        Ok(())
    }

    fn refuse_copyout(&self, addr: u64, len: u64) {
        self.memory.space().count_fault();
        tracing::debug!(addr, len, "a copy out to where there is no memory");
    }

    fn handle(&self, frame: &Frame<'_>, answers: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let header = &frame.header;
        match header.class() {
            Some(Class::Request) => self.serve(frame, answers),
            Some(Class::Response) => self.answered(frame),
            Some(Class::Error) => {
                let code = ErrorCode::from_number(header.word)
                    .ok_or(ProtocolError::ErrorCode(header.word))?;
                self.settle(header.reqno, None, Err(CallError::Refused(code)))
            }
            None => Err(ProtocolError::Class(header.class)),
        }
    }

    fn settle(
        &self,
        reqno: u64,
        kind: Option<Kind>,
        answer: Result<Reply, CallError>,
    ) -> Result<(), ProtocolError> {
        let parked = self.state().settle(reqno, kind, answer)?;
        if let Some(thread) = parked {
            thread.unpark();
        }
        Ok(())
    }

    fn answered(&self, frame: &Frame<'_>) -> Result<(), ProtocolError> {
        let (kind, body) = (known_kind(&frame.header)?, &*frame.body);
        let answer = match kind {
            Kind::Handshake => error_word(read_u32(body, 0) as i32).map(|()| Reply::Handshake),
            Kind::Syscall => error_word(read_u32(body, 0) as i32)
                .map(|()| Reply::Syscall([read_u64(body, 8) as i64, read_u64(body, 16) as i64])),
            Kind::Prefork => Ok(Reply::Prefork(body.try_into().expect("length checked"))),
            _ => return Err(unexpected(&frame.header)),
        };
        self.settle(frame.header.reqno, Some(kind), answer)
    }

    fn serve(&self, frame: &Frame<'_>, answers: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let (header, body) = (&frame.header, &*frame.body);
        match known_kind(header)? {
            Kind::Copyin | Kind::Copyinstr => self.serve_copyin(header, body, answers),
            Kind::Copyout | Kind::Copyoutstr => {
                let (addr, len) = (read_u64(body, 8), copy_len(header, body)?);
                if self.memory.copyout(addr, &body[COPY_BODY_LEN..]).is_err() {
                    self.refuse_copyout(addr, len);
                }
                Ok(())
            }
            Kind::Anonmmap => {
                let addr = self.memory.anonmmap(read_u64(body, 0)).unwrap_or(0);
                wire::anonmmap_response(answers, header.reqno, addr);
                Ok(())
            }
            Kind::Raise => {
                self.state().signals.push(header.word as i32);
                Ok(())
            }
            _ => Err(unexpected(header)),
        }
    }

    fn serve_copyin(
        &self,
        header: &Header,
        body: &[u8],
        answers: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let (len, addr) = (read_u64(body, 0), read_u64(body, 8));
        let filled = wire::copyin_response(answers, header.reqno, |out| {
            if header.kind() == Some(Kind::Copyinstr) {
                self.memory.copyinstr(addr, len, out)
            } else {
                self.memory.copyin(addr, len, out)
            }
        });
        if filled == Err(Refusal::Fault) {
            self.memory.space().count_fault();
            answers.extend(wire::error_response(header.reqno, ErrorCode::Malformed));
        }
        // Many requests may lie in one read: check after each that the answers are within bounds.
        if answers.len() > self.settings.max_unread {
            return Err(ProtocolError::Unread(answers.len()));
        }
        Ok(())
    }
}

/// Returns the least and most bytes of a frame's body.
fn lengths(header: &Header, max_copy: usize) -> Result<(usize, usize), ProtocolError> {
    let class = header.class().ok_or(ProtocolError::Class(header.class))?;
    if class == Class::Error {
        return Ok((0, 0));
    }
    let exact = match (class, known_kind(header)?) {
        (Class::Request, Kind::Copyin | Kind::Copyinstr) => COPY_BODY_LEN,
        (Class::Request, Kind::Copyout | Kind::Copyoutstr) => {
            return Ok((COPY_BODY_LEN, COPY_BODY_LEN.saturating_add(max_copy)));
        }
        (Class::Request, Kind::Anonmmap) => 8,
        (Class::Request, Kind::Raise) => 0,
        (Class::Response, Kind::Handshake) => 4,
        (Class::Response, Kind::Syscall) => SYSCALL_RESPONSE_LEN,
        (Class::Response, Kind::Prefork) => TOKEN_LEN,
        _ => return Err(unexpected(header)),
    };
    Ok((exact, exact))
}

/// Returns the most bytes of a frame's body. A body that is too short is refused here, too, before it
/// has come.
fn bound(header: &Header, max_copy: usize) -> Result<usize, ProtocolError> {
    let (least, most) = lengths(header, max_copy)?;
    match header.len.checked_sub(HEADER_LEN as u64) {
        Some(body) if body < least as u64 => {
            Err(ProtocolError::Body { kind: known_kind(header)?, len: body })
        }
        _ => Ok(most),
    }
}

fn over_bound(header: &Header, max_copy: usize) -> ProtocolError {
    let most = lengths(header, max_copy).map_or(0, |(_, most)| most as u64) + HEADER_LEN as u64;
    ProtocolError::Length { len: header.len, class: header.class, kind: header.kind, most }
}

/// Returns the length of a copyout, if header and body agree on it.
fn copy_len(header: &Header, body: &[u8]) -> Result<u64, ProtocolError> {
    let len = read_u64(body, 0);
    if len.checked_add((HEADER_LEN + COPY_BODY_LEN) as u64) == Some(header.len) {
        return Ok(len);
    }
    Err(ProtocolError::Body { kind: known_kind(header)?, len: header.len - HEADER_LEN as u64 })
}

fn known_kind(header: &Header) -> Result<Kind, ProtocolError> {
    header.kind().ok_or_else(|| unexpected(header))
}

fn unexpected(header: &Header) -> ProtocolError {
    ProtocolError::Kind { class: header.class, kind: header.kind }
}
