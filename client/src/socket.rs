//! A connected socket, Unix or TCP, and the ways to wait for it.
//!
//! The socket stays in blocking mode, and each operation that must not block says so in its flags:
//! sending never blocks, and receiving blocks as long as its caller's patience lasts.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix};
use rustix::net::{SocketFlags, SocketType};

use super::error::ConnectError;
use super::patience::Patience;
use rumpsp::url::Url;

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Connects. TCP sockets get TCP_NODELAY.
    pub fn connect(url: &Url, timeout: Option<Duration>) -> Result<Socket, ConnectError> {
        if url.is_wildcard() {
            return Err(ConnectError::Wildcard(url.clone()));
        }
        let connected = match (url.path(), url.socket_addr()) {
            (_, Some(addr)) => Socket::connect_tcp(&addr, timeout),
            (path, None) => Socket::connect_unix(path.unwrap_or("".as_ref()), timeout),
        };
        connected.map_err(|errno| {
            let source = match errno {
                Errno::AGAIN | Errno::INPROGRESS => io::ErrorKind::TimedOut.into(),
                errno => errno.into(),
            };
            ConnectError::Connect { url: url.clone(), source }
        })
    }

    fn connect_unix(path: &Path, timeout: Option<Duration>) -> rustix::io::Result<Socket> {
        let socket = Socket::new(AddressFamily::UNIX, timeout)?;
        let addr = SocketAddrUnix::new(path)?;
        rustix::io::retry_on_intr(|| net::connect(&socket, &addr))?;
        Ok(socket)
    }

    fn connect_tcp(addr: &SocketAddr, timeout: Option<Duration>) -> rustix::io::Result<Socket> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = Socket::new(family, timeout)?;
        rustix::io::retry_on_intr(|| net::connect(&socket, addr))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(socket)
    }

    /// Makes a socket whose connect(2) takes at most `timeout`: the time limit for sending also counts
    /// for connecting, and nothing else here waits to send.
    fn new(family: AddressFamily, timeout: Option<Duration>) -> rustix::io::Result<Socket> {
        let fd = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The kernel takes zero as no limit.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&fd, Timeout::Send, timeout)?;
        Ok(Socket(fd))
    }

    /// Receives the bytes that are there, or the first that come in time. Returns `None` if none do, or
    /// if a signal came first, and 0 at the end. A server that hangs up on bytes it has not read resets
    /// the connection, which counts as the end, too.
    pub fn receive(&self, buf: &mut [u8], patience: Patience) -> io::Result<Option<usize>> {
        let flags = match patience {
            Patience::Forever => RecvFlags::empty(),
            Patience::None => RecvFlags::DONTWAIT,
            Patience::Until(_) if self.poll(PollFlags::IN, patience).is_empty() => return Ok(None),
            Patience::Until(_) => RecvFlags::DONTWAIT,
        };
        match net::recv(&self.0, buf, flags) {
            Ok((len, _)) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::CONNRESET | Errno::PIPE) => Ok(Some(0)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Receives bytes or the end (0), or fails because the time is up.
    pub fn receive_some(&self, buf: &mut [u8], patience: Patience) -> io::Result<usize> {
        loop {
            match self.receive(buf, patience)? {
                Some(len) => return Ok(len),
                None if patience.is_over() => return Err(io::ErrorKind::TimedOut.into()),
                None => {}
            }
        }
    }

    /// Sends as many bytes as the socket has room for; returns `None` if it has no room.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match net::send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for one of these events, or an end or failure of the connection. Returns the events that
    /// came: none if the time is up or a signal came first.
    pub fn poll(&self, events: PollFlags, patience: Patience) -> PollFlags {
        let left = patience.left().map(|left| Timespec::try_from(left).expect("a deadline's time"));
        let mut fds = [PollFd::new(&self.0, events)];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Ok(net::shutdown(&self.0, how)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
