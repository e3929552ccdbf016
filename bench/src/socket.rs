//! A connected socket, unix or tcp, and the server's first line.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rumpring::url::Url;
use rumpring::wire;

pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects. Until [`Socket::set_nonblocking`], reads and writes wait as long as `patience`.
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

    /// From here on, reads and writes do not wait.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_nonblocking(true),
            Socket::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    /// Reads a banner, byte by byte: nothing behind it may be taken.
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

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
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
