//! A connection that sends any bytes, for tests that send what no client should.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use super::builder;
use super::error::{BannerError, ConnectError};
use super::patience::Patience;
use super::socket::Socket;
use rumpsp::url::Url;
use rumpsp::wire::{self, Class, Handshake, Header, Reader};

/// The most bytes of a body that [`RawConnection::read_frame`] takes.
pub const MAX_BODY: usize = 64 << 20;

/// A frame as it came, checked only for its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub header: Header,
    pub body: Vec<u8>,
}

/// The reason why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// No frame came, or not all of it.
    #[error("no whole frame in time")]
    TimedOut,
    /// The server hung up between two frames.
    #[error("the server closed the connection")]
    Closed,
    /// The server hung up in the middle of a frame.
    #[error("the server closed the connection in the middle of a frame")]
    Truncated,
    /// A frame's length is under a header's or over [`MAX_BODY`].
    #[error("a frame that claims {0} bytes")]
    Length(u64),
    /// The first line is no banner.
    #[error(transparent)]
    Banner(#[from] BannerError),
    /// The handshake was answered with something else than success.
    #[error("the handshake was answered with {0:?}")]
    Handshake(RawFrame),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connected socket on which nothing was sent, and from which not even the banner was read.
///
/// ```no_run
/// use std::time::Duration;
/// use rumpring_client::raw::RawConnection;
///
/// let mut raw = RawConnection::connect(&"unix:///run/rump.sock".parse()?)?;
/// raw.hello("rude", Duration::from_secs(1))?;
/// raw.write(&[0xff; 24])?;
/// assert!(raw.closes_within(Duration::from_secs(1))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawConnection {
    socket: Socket,
    reader: Reader,
    frames: VecDeque<RawFrame>,
    /// The invalid length of a frame; the bytes behind it cannot be split into frames.
    bad_length: Option<u64>,
}

impl RawConnection {
    /// Connects, and does nothing else.
    pub fn connect(url: &Url) -> Result<RawConnection, ConnectError> {
        let socket = Socket::connect(url, None)?;
        let (reader, frames) = (Reader::default(), VecDeque::new());
        Ok(RawConnection { socket, reader, frames, bad_length: None })
    }

    /// Reads the banner, without its newline.
    pub fn read_banner(&mut self, timeout: Duration) -> Result<Arc<str>, BannerError> {
        builder::read_banner(&self.socket, Patience::from_timeout(Some(timeout)))
    }

    /// Reads the banner and makes a guest's handshake, with request number 0.
    pub fn hello(&mut self, name: &str, timeout: Duration) -> Result<(), RawError> {
        self.read_banner(timeout)?;
        let mut frame = Vec::new();
        wire::handshake_request(&mut frame, 0, Handshake::Guest, name);
        self.write(&frame)?;
        let answer = self.read_frame(timeout)?;
        let is_good = answer.header.class() == Some(Class::Response) && answer.body == [0; 4];
        if is_good { Ok(()) } else { Err(RawError::Handshake(answer)) }
    }

    /// Writes all bytes, however long it takes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_until(bytes, Patience::Forever).map(drop)
    }

    /// Writes the bytes that the socket takes within `timeout`, and returns their number.
    pub fn write_within(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        self.write_until(bytes, Patience::from_timeout(Some(timeout)))
    }

    fn write_until(&mut self, bytes: &[u8], patience: Patience) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.socket.send(&bytes[written..])? {
                Some(len) => written += len,
                None if patience.is_over() => break,
                None => drop(self.socket.poll(PollFlags::OUT, patience)),
            }
        }
        Ok(written)
    }

    /// Returns the next frame.
    pub fn read_frame(&mut self, timeout: Duration) -> Result<RawFrame, RawError> {
        let patience = Patience::from_timeout(Some(timeout));
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            if let Some(len) = self.bad_length {
                return Err(RawError::Length(len));
            }
            let mut buf = [0; 8192];
            match self.socket.receive_some(&mut buf, patience) {
                Ok(0) if self.reader.is_partial() => return Err(RawError::Truncated),
                Ok(0) => return Err(RawError::Closed),
                Ok(n) => self.take_in(&buf[..n]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(RawError::TimedOut);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_in(&mut self, mut input: &[u8]) {
        loop {
            match self.reader.next(&mut input, |_| Ok(MAX_BODY), |header| header.len) {
                Ok(Some(frame)) => {
                    let (header, body) = (frame.header, frame.body.to_vec());
                    self.frames.push_back(RawFrame { header, body });
                }
                Ok(None) => return,
                Err(len) => {
                    self.bad_length = Some(len);
                    return;
                }
            }
        }
    }

    /// Reads some bytes, as they come; 0 at the end. Do not mix with [`RawConnection::read_frame`].
    pub fn read_bytes(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<usize> {
        self.socket.receive_some(buf, Patience::from_timeout(Some(timeout)))
    }

    /// Reads and drops everything until the server hangs up; returns `false` if it does not within
    /// `timeout`.
    pub fn closes_within(&mut self, timeout: Duration) -> io::Result<bool> {
        let patience = Patience::from_timeout(Some(timeout));
        let mut buf = [0; 8192];
        loop {
            if patience.is_over() {
                return Ok(false);
            }
            match self.socket.receive_some(&mut buf, patience) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Hangs up one direction or both.
    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        })
    }
}

impl AsFd for RawConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
