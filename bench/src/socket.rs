//! A connected socket, unix or TCP, and the server's first line. Also a socket that is still being
//! connected.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rumpsp::url::Url;
use rumpsp::wire;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects. Reads and writes wait at most for `patience`.
    pub fn connect(url: &Url, patience: Duration) -> io::Result<Socket> {
        match url.socket_addr() {
            Some(addr) => {
                let stream = TcpStream::connect(addr)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Socket::Tcp(stream))
            }
            None => {
                let stream = UnixStream::connect(url.path().unwrap_or("".as_ref()))?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Socket::Unix(stream))
            }
        }
    }

    /// Reads a banner, byte by byte: bytes behind it must not be taken.
    pub fn read_banner(&mut self) -> io::Result<()> {
        let mut byte = [0];
        for _ in 0..wire::MAX_BANNER {
            self.read_exact(&mut byte)?;
            if byte == *b"\n" {
                return Ok(());
            }
        }
        Err(io::Error::other("the server's banner has no end"))
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

/// Begins to connect, without waiting. A unix socket is connected at once, a TCP socket later, which
/// shows when it becomes usable. Returns `None` if the server's listen queue is full.
pub fn begin_to_connect(url: &Url) -> io::Result<Option<OwnedFd>> {
    let family = match url.socket_addr() {
        None => AddressFamily::UNIX,
        Some(addr) if addr.is_ipv4() => AddressFamily::INET,
        Some(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(family, SocketType::STREAM, flags, None)?;
    let connected = match url.socket_addr() {
        None => net::connect(&fd, &SocketAddrUnix::new(url.path().unwrap_or("".as_ref()))?),
        Some(addr) => {
            sockopt::set_tcp_nodelay(&fd, true)?;
            net::connect(&fd, &addr)
        }
    };
    match connected {
        Ok(()) => Ok(Some(fd)),
        // A signal does not end a TCP connect, which goes on in the kernel; a unix socket's is tried
        // again.
        Err(Errno::INPROGRESS | Errno::INTR) if url.socket_addr().is_some() => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
