//! Encodes frames: one function a frame. Frames of fixed size are returned as arrays. For a COPYOUT
//! only the head before the data is returned; the sender puts the data behind it.

use super::*;

/// Returns the banner of a server, its newline included (without a NUL: the reference sends none).
/// Parts that are too long are cut, so that the banner never exceeds [`MAX_BANNER`].
pub fn banner(ostype: &str, osrelease: &str, machine: &str) -> Vec<u8> {
    let mut line = format!("RUMPSP-0.4-{ostype}-{osrelease}/{machine}").into_bytes();
    line.truncate(MAX_BANNER - 2);
    line.push(b'\n');
    line
}

fn frame<const N: usize>(reqno: u64, class: Class, kind: Kind, word: u32, body: &[u8]) -> [u8; N] {
    let header = Header { len: N as u64, reqno, class: class.number(), kind: kind.number(), word };
    let mut bytes = [0; N];
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    bytes[HEADER_LEN..].copy_from_slice(body);
    bytes
}

/// Returns an error response. The reference puts type 0 into it, whatever the request was.
pub fn error_response(reqno: u64, code: ErrorCode) -> [u8; HEADER_LEN] {
    frame(reqno, Class::Error, Kind::Handshake, code.number(), &[])
}

/// Returns the response to a handshake that succeeded.
pub fn handshake_response(reqno: u64) -> [u8; HEADER_LEN + 4] {
    frame(reqno, Class::Response, Kind::Handshake, 0, &[0; 4])
}

/// Returns the response to a PREFORK.
pub fn prefork_response(reqno: u64, token: &Token) -> [u8; HEADER_LEN + TOKEN_LEN] {
    frame(reqno, Class::Response, Kind::Prefork, 0, token)
}

/// Returns the response to a SYSCALL. `error` is 0 or a NetBSD errno.
pub fn syscall_response(
    reqno: u64,
    error: i32,
    retval: [i64; 2],
) -> [u8; HEADER_LEN + SYSCALL_RESPONSE_LEN] {
    let mut body = [0; SYSCALL_RESPONSE_LEN];
    body[0..4].copy_from_slice(&error.to_le_bytes());
    body[8..16].copy_from_slice(&retval[0].to_le_bytes());
    body[16..24].copy_from_slice(&retval[1].to_le_bytes());
    frame(reqno, Class::Response, Kind::Syscall, 0, &body)
}

fn copy_body(len: u64, addr: u64) -> [u8; COPY_BODY_LEN] {
    let mut body = [0; COPY_BODY_LEN];
    body[0..8].copy_from_slice(&len.to_le_bytes());
    body[8..16].copy_from_slice(&addr.to_le_bytes());
    body
}

/// Returns a request for bytes ([`Kind::Copyin`]) or a string ([`Kind::Copyinstr`]) of the client's
/// memory.
pub fn copyin_request(
    reqno: u64,
    kind: Kind,
    len: u64,
    addr: u64,
) -> [u8; HEADER_LEN + COPY_BODY_LEN] {
    frame(reqno, Class::Request, kind, 0, &copy_body(len, addr))
}

/// Returns the head before the `len` bytes of a copy to the client's memory ([`Kind::Copyout`] or
/// [`Kind::Copyoutstr`]).
pub fn copyout_head(
    reqno: u64,
    kind: Kind,
    len: usize,
    addr: u64,
) -> [u8; HEADER_LEN + COPY_BODY_LEN] {
    let mut bytes = frame(reqno, Class::Request, kind, 0, &copy_body(len as u64, addr));
    let total = (HEADER_LEN + COPY_BODY_LEN + len) as u64;
    bytes[0..8].copy_from_slice(&total.to_le_bytes());
    bytes
}

/// Returns a request to map `len` bytes of anonymous memory.
pub fn anonmmap_request(reqno: u64, len: u64) -> [u8; HEADER_LEN + 8] {
    frame(reqno, Class::Request, Kind::Anonmmap, 0, &len.to_le_bytes())
}

/// Returns a signal for the client.
pub fn raise_request(reqno: u64, signo: i32) -> [u8; HEADER_LEN] {
    frame(reqno, Class::Request, Kind::Raise, signo as u32, &[])
}
