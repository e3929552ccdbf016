//! A connected socket, Unix or TCP, behind one set of methods.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::error::ConnectError;
use crate::url::Url;

/// A connection to a server.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

macro_rules! either {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self {
            Socket::Unix($stream) => $body,
            Socket::Tcp($stream) => $body,
        }
    };
}

impl Socket {
    /// Connects. TCP sockets get TCP_NODELAY.
    pub fn connect(url: &Url, timeout: Option<Duration>) -> Result<Socket, ConnectError> {
        if url.is_wildcard() {
            return Err(ConnectError::Wildcard(url.clone()));
        }
        let socket = loop {
            match Socket::try_connect(url, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => break other,
            }
        };
        socket.map_err(|source| ConnectError::Connect { url: url.clone(), source })
    }

    fn try_connect(url: &Url, timeout: Option<Duration>) -> io::Result<Socket> {
        let addr = match url {
            Url::Unix(path) => return UnixStream::connect(path).map(Socket::Unix),
            Url::Tcp(addr) => (*addr).into(),
            Url::Tcp6(addr) => (*addr).into(),
        };
        let stream = match timeout {
            Some(timeout) => TcpStream::connect_timeout(&addr, at_least(timeout))?,
            None => TcpStream::connect(addr)?,
        };
        stream.set_nodelay(true)?;
        Ok(Socket::Tcp(stream))
    }

    /// One read(2).
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => { let mut stream = stream; stream.read(buf) })
    }

    /// One write(2).
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => { let mut stream = stream; stream.write(bytes) })
    }

    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        either!(self, stream => stream.set_nonblocking(on))
    }

    /// How long a blocking read waits; `None` is for ever. The host's clock ticks in milliseconds,
    /// so a shorter time is made one.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(timeout.map(at_least)))
    }

    /// How long a blocking write waits.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(timeout.map(at_least)))
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, stream => stream.shutdown(how))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

/// A time that the host takes: zero would mean for ever.
fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

/// Whether an error only says that nothing can be moved now.
pub(super) fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
