//! One connection of the load: calls out, the server's copies served, answers in, and when each call
//! was sent.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumpring::client::numbers::{self, sys};
use rumpring::url::Url;
use rumpring::wire::{self, Class, Handshake, Kind};

use crate::inbox::{BadLength, Frame, Inbox, LOOK};
use crate::socket::Socket;
use crate::workload::{Call, MAX_SIZE};

/// How long a server may take for anything before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is written to the files. Nobody looks at it.
static BYTES: [u8; MAX_SIZE as usize] = [0; MAX_SIZE as usize];

/// Where the path of the file lies, as far as the server is told.
const PATH: u64 = 1 << 48;

/// Where the buffer of the first call lies; each other's is this far behind the one before.
const BUFFER: u64 = 1 << 32;

/// A client without threads that keeps calls in flight.
pub struct Connection {
    socket: Socket,
    inbox: Inbox,
    call: Call,
    /// The connection's file, if the calls need one.
    path: String,
    file: u64,
    /// The calls that are or may be in flight: one a request number.
    slots: Vec<Slot>,
    /// Bytes to be written, and how many of them have been.
    out: Vec<u8>,
    written: usize,
}

/// A call.
struct Slot {
    sent: Instant,
    /// Bytes that the server has copied to its buffer.
    copied: u64,
}

/// A call that has been answered.
struct Answer {
    slot: usize,
    error: u32,
    value: u64,
}

impl Connection {
    /// Connects as a guest, opens a file if the calls need one, and fills it if they read it.
    /// `number` tells this connection from the others of this process.
    pub fn connect(url: &Url, call: Call, number: u32) -> io::Result<Connection> {
        let socket = greet(url)?;
        let now = Instant::now();
        let mut connection = Connection {
            socket,
            inbox: Inbox::default(),
            call,
            path: format!("/rumpring-bench.{}.{number}\0", std::process::id()),
            file: 0,
            slots: vec![Slot { sent: now, copied: 0 }],
            out: Vec::new(),
            written: 0,
        };
        if call != Call::Getpid {
            connection.open()?;
        }
        connection.socket.set_nonblocking()?;
        Ok(connection)
    }

    /// A file of its own, without a name: it goes when the connection does.
    fn open(&mut self) -> io::Result<()> {
        let flags = numbers::O_RDWR | numbers::O_CREAT | numbers::O_EXCL;
        self.file = self.wait_for(sys::OPEN, &[PATH, flags as u64, 0o600])?;
        self.wait_for(sys::UNLINK, &[PATH])?;
        let size = u64::from(self.call.size());
        let written = self.wait_for(sys::PWRITE, &self.transfer(0))?;
        if written != size {
            return Err(io::Error::other(format!("the server wrote {written} bytes of {size}")));
        }
        Ok(())
    }

    /// The arguments of a pread or pwrite: file, buffer, length, a slot for alignment, offset.
    fn transfer(&self, slot: usize) -> [u64; 5] {
        [self.file, BUFFER * (slot as u64 + 1), self.call.size().into(), 0, 0]
    }

    /// Makes a call and waits for its end, before the socket is made not to.
    fn wait_for(&mut self, number: i32, args: &[u64]) -> io::Result<u64> {
        wire::syscall_request(&mut self.out, 0, number, args);
        let mut buffer = [0; 4096];
        loop {
            self.flush()?;
            let len = read(&mut self.socket, &mut buffer)?.ok_or(io::ErrorKind::TimedOut)?;
            match self.next_answer(&mut &buffer[..len])? {
                None => {}
                Some(Answer { error: 0, value, .. }) => return Ok(value),
                Some(Answer { error, .. }) => {
                    let what = format!("call {number} ended with NetBSD's error {error}");
                    return Err(io::Error::other(what));
                }
            }
        }
    }

    /// Sends the first calls: from here on, as many are in flight.
    pub fn start(&mut self, in_flight: u32, now: Instant) {
        self.slots.clear();
        for slot in 0..in_flight as usize {
            self.slots.push(Slot { sent: now, copied: 0 });
            self.send(slot);
        }
    }

    fn send(&mut self, slot: usize) {
        let reqno = slot as u64;
        match self.call {
            Call::Getpid => wire::syscall_request(&mut self.out, reqno, sys::GETPID, &[]),
            Call::Read(_) => {
                let args = self.transfer(slot);
                wire::syscall_request(&mut self.out, reqno, sys::PREAD, &args);
            }
            Call::Pwrite(_) => {
                let args = self.transfer(slot);
                wire::syscall_request(&mut self.out, reqno, sys::PWRITE, &args);
            }
        }
    }

    /// Whether bytes wait for room in the socket.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes what can be written.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.out.clear();
        Ok(())
    }

    /// Reads what there is, by way of `buffer`, serves the copies and sends another call for each
    /// that was answered. Notes how long those took, and returns how many they were.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        latencies: &mut Histogram<u64>,
    ) -> io::Result<u64> {
        let Some(len) = read(&mut self.socket, buffer)? else {
            return Ok(0);
        };
        let now = Instant::now();
        let mut input = &buffer[..len];
        let mut answered = 0;
        while let Some(answer) = self.next_answer(&mut input)? {
            let slot = &mut self.slots[answer.slot];
            let took = now - slot.sent;
            self.call.check(&answer, slot.copied)?;
            *slot = Slot { sent: now, copied: 0 };
            latencies.saturating_record(took.as_nanos() as u64);
            self.send(answer.slot);
            answered += 1;
        }
        Ok(answered)
    }

    /// Serves copies until a call is answered; `None` when all of `input` is taken.
    fn next_answer(&mut self, input: &mut &[u8]) -> io::Result<Option<Answer>> {
        let most = (wire::HEADER_LEN + wire::COPY_BODY_LEN + LOOK) as u64;
        let most = most + u64::from(self.call.size());
        while let Some(frame) =
            self.inbox.next(input, most).map_err(|BadLength(len)| unexpected("a length", len))?
        {
            match (frame.header.class(), frame.header.kind()) {
                (Some(Class::Response), Some(Kind::Syscall)) => {
                    let slot = frame.header.reqno as usize;
                    if slot >= self.slots.len() || frame.len != wire::SYSCALL_RESPONSE_LEN as u64 {
                        return Err(unexpected("a response to request", frame.header.reqno));
                    }
                    let error = wire::read_u32(&frame.start, 0);
                    return Ok(Some(Answer {
                        slot,
                        error,
                        value: wire::read_u64(&frame.start, 8),
                    }));
                }
                (Some(Class::Request), Some(Kind::Copyinstr)) => self.copy_path(&frame)?,
                (Some(Class::Request), Some(Kind::Copyin)) => self.copy_bytes(&frame)?,
                (Some(Class::Request), Some(Kind::Copyout)) => self.take_copy(&frame)?,
                (Some(Class::Error), _) => {
                    return Err(unexpected("an error frame, code", frame.header.word.into()));
                }
                _ => return Err(unexpected("a frame of type", frame.header.kind.into())),
            }
        }
        Ok(None)
    }

    fn copy_path(&mut self, frame: &Frame) -> io::Result<()> {
        let (len, addr) = copied(frame)?;
        if addr != PATH {
            return Err(unexpected("a wish for the string at", addr));
        }
        let path = &self.path.as_bytes()[..self.path.len().min(len as usize)];
        answer_copy(&mut self.out, frame.header.reqno, path);
        Ok(())
    }

    fn copy_bytes(&mut self, frame: &Frame) -> io::Result<()> {
        let (len, addr) = copied(frame)?;
        self.slot_of(addr, len)?;
        answer_copy(&mut self.out, frame.header.reqno, &BYTES[..len as usize]);
        Ok(())
    }

    fn take_copy(&mut self, frame: &Frame) -> io::Result<()> {
        let (len, addr) = copied(frame)?;
        if frame.len - wire::COPY_BODY_LEN as u64 != len {
            return Err(unexpected("a copy whose length is not", len));
        }
        let slot = self.slot_of(addr, len)?;
        self.slots[slot].copied += len;
        Ok(())
    }

    /// The call whose buffer has these bytes.
    fn slot_of(&self, addr: u64, len: u64) -> io::Result<usize> {
        let (slot, offset) = ((addr / BUFFER).wrapping_sub(1) as usize, addr % BUFFER);
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= self.call.size().into());
        if slot < self.slots.len() && is_inside {
            Ok(slot)
        } else {
            Err(unexpected("a copy of memory that no call has named, at", addr))
        }
    }
}

impl Call {
    /// Whether a call did what it was to do: a load of failures measures nothing.
    fn check(self, answer: &Answer, copied: u64) -> io::Result<()> {
        let size = u64::from(self.size());
        let is_done = match self {
            Call::Getpid => answer.value > 0,
            Call::Read(_) => (answer.value, copied) == (size, size),
            Call::Pwrite(_) => answer.value == size,
        };
        if answer.error == 0 && is_done {
            return Ok(());
        }
        let (error, value) = (answer.error, answer.value);
        Err(io::Error::other(format!(
            "{self} returned {value} with NetBSD's error {error}; {copied} bytes were copied out"
        )))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Connects and shakes hands: a server that answers this is up.
pub fn greet(url: &Url) -> io::Result<Socket> {
    let mut socket = Socket::connect(url, PATIENCE)?;
    socket.read_banner()?;
    let mut out = Vec::new();
    wire::handshake_request(&mut out, 0, Handshake::Guest, "rumpring-bench");
    socket.write_all(&out)?;
    let mut answer = wire::handshake_response(0);
    socket.read_exact(&mut answer)?;
    if answer != wire::handshake_response(0) {
        return Err(io::Error::other("the server refused the handshake"));
    }
    Ok(socket)
}

/// Reads what there is, or returns `None` if that is nothing.
fn read(socket: &mut Socket, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.read(buffer) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up")),
        Ok(len) => Ok(Some(len)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

/// How many bytes a copy is about, and where they lie.
fn copied(frame: &Frame) -> io::Result<(u64, u64)> {
    if frame.len < wire::COPY_BODY_LEN as u64 {
        return Err(unexpected("a copy with a body of bytes:", frame.len));
    }
    Ok((wire::read_u64(&frame.start, 0), wire::read_u64(&frame.start, 8)))
}

fn answer_copy(out: &mut Vec<u8>, reqno: u64, bytes: &[u8]) {
    let filled: Result<(), std::convert::Infallible> = wire::copyin_response(out, reqno, |out| {
        out.extend_from_slice(bytes);
        Ok(())
    });
    let Ok(()) = filled;
}

fn unexpected(what: &str, number: u64) -> io::Error {
    io::Error::other(format!("the server sent what was not expected: {what} {number:#x}"))
}
