//! Calls that make, name and close sockets inside the kernel.

use std::net::SocketAddrV4;

use super::{Result, int};
use crate::Client;
use crate::numbers::{AF_INET, AF_LOCAL, sys};

/// Bytes of the longest socket address (`SOCK_MAXADDRLEN`).
const MAX_ADDRESS: usize = 255;

/// Returns NetBSD's `struct sockaddr_in`: its length, its family, then port and address in network
/// order.
pub fn sockaddr_in(addr: SocketAddrV4) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = 16;
    bytes[1] = AF_INET as u8;
    bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&addr.ip().octets());
    bytes
}

/// Returns NetBSD's `struct sockaddr_un`: its length, its family, then the path and a NUL.
pub fn sockaddr_un(path: &str) -> Vec<u8> {
    let mut bytes = vec![(path.len() + 3) as u8, AF_LOCAL as u8];
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes
}

impl Client {
    /// Makes a socket.
    pub fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<i32> {
        Ok(self.call(sys::SOCKET, &[int(domain), int(kind), int(protocol)])?[0] as i32)
    }

    /// Names a socket: see [`sockaddr_in`] and [`sockaddr_un`].
    pub fn bind(&self, fd: i32, address: &[u8]) -> Result<()> {
        let buffer = self.space().buffer_from(address)?;
        self.call(sys::BIND, &[int(fd), buffer.addr(), address.len() as u64]).map(drop)
    }

    /// Sets an option of a socket.
    pub fn setsockopt(&self, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let buffer = self.space().buffer_from(value)?;
        let args = [int(fd), int(level), int(name), buffer.addr(), value.len() as u64];
        self.call(sys::SETSOCKOPT, &args).map(drop)
    }

    /// Returns the name of a socket.
    pub fn getsockname(&self, fd: i32) -> Result<Vec<u8>> {
        let address = self.space().buffer(MAX_ADDRESS)?;
        let len = self.space().buffer_from(&(MAX_ADDRESS as u32).to_le_bytes())?;
        self.call(sys::GETSOCKNAME, &[int(fd), address.addr(), len.addr()])?;
        Ok(address.bytes(len.i32_at(0) as usize))
    }
}
