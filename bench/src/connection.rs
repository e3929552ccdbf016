//! One connection of the load: calls out, responses in, and when each was sent.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hdrhistogram::Histogram;
use rumpring::url::Url;
use rumpring::wire::{self, Class, Handshake, Kind, Reader};

/// NetBSD's number of getpid(2).
const SYS_GETPID: i32 = 20;

/// The longest body a server may send here: a response of a call.
const MAX_BODY: usize = wire::SYSCALL_RESPONSE_LEN;

/// A client without threads that keeps calls in flight.
pub struct Connection {
    socket: Socket,
    reader: Reader,
    /// When the calls in flight were sent. They are answered in any order, but all are the same.
    sent: VecDeque<Instant>,
    /// Frames to be written, and how much of them has been.
    out: Vec<u8>,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    /// Connects as a guest.
    pub fn connect(url: &Url) -> io::Result<Connection> {
        let mut socket = match url.socket_addr() {
            Some(addr) => {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
            None => Socket::Unix(UnixStream::connect(url.path().unwrap_or("".as_ref()))?),
        };
        read_banner(&mut socket)?;
        let mut out = Vec::new();
        wire::handshake_request(&mut out, 0, Handshake::Guest, "rumpring-bench");
        socket.write_all(&out)?;
        let mut answer = wire::handshake_response(0);
        socket.read_exact(&mut answer)?;
        if answer != wire::handshake_response(0) {
            return Err(io::Error::other("the server refused the handshake"));
        }
        socket.set_nonblocking()?;
        out.clear();
        Ok(Connection { socket, reader: Reader::default(), sent: VecDeque::new(), out })
    }

    /// Sends another call.
    pub fn call(&mut self, now: Instant) {
        wire::syscall_request(&mut self.out, self.sent.len() as u64, SYS_GETPID, &[]);
        self.sent.push_back(now);
    }

    /// Writes what can be written. Calls are small and few: a full socket is tried again after the
    /// next answer.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => {
                    self.out.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is; returns how many calls were answered and notes how long each took.
    pub fn receive(&mut self, latencies: &mut Histogram<u64>) -> io::Result<u64> {
        let mut buffer = [0; 16 * 1024];
        let len = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let mut input = &buffer[..len];
        let mut answered = 0;
        let unexpected = || io::Error::other("the server sent something that is no response");
        while let Some(frame) = self.reader.next(&mut input, |_| Ok(MAX_BODY), |_| unexpected())? {
            let header = frame.header;
            if (header.class(), header.kind()) != (Some(Class::Response), Some(Kind::Syscall)) {
                return Err(unexpected());
            }
            let sent = self.sent.pop_front().ok_or_else(unexpected)?;
            latencies.saturating_record((now - sent).as_nanos() as u64);
            answered += 1;
        }
        Ok(answered)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_nonblocking(true),
            Socket::Tcp(stream) => stream.set_nonblocking(true),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(buf),
            Socket::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(buf),
            Socket::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a banner, byte by byte: nothing behind it may be taken.
fn read_banner(socket: &mut Socket) -> io::Result<()> {
    let mut byte = [0];
    for _ in 0..wire::MAX_BANNER {
        socket.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(());
        }
    }
    Err(io::Error::other("the server's banner has no end"))
}
