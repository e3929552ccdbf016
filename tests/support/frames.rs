//! The frames a client sends, right and wrong ones, as bytes.

use rumpsp::wire::{
    self, Class, ErrorCode, FORK_BODY_LEN, HEADER_LEN, Handshake, Header, Kind, Token,
};

/// Returns a frame with its true length, of any class and type.
pub fn frame(class: u16, kind: u16, word: u32, reqno: u64, body: &[u8]) -> Vec<u8> {
    claiming(HEADER_LEN as u64 + body.len() as u64, class, kind, word, reqno, body)
}

/// Returns a frame that claims to be `len` bytes long.
pub fn claiming(len: u64, class: u16, kind: u16, word: u32, reqno: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Header { len, reqno, class, kind, word }.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

pub fn request(kind: Kind, word: u32, reqno: u64, body: &[u8]) -> Vec<u8> {
    frame(Class::Request.number(), kind.number(), word, reqno, body)
}

pub fn response(kind: Kind, reqno: u64, body: &[u8]) -> Vec<u8> {
    frame(Class::Response.number(), kind.number(), 0, reqno, body)
}

/// Returns a refusal of a copy.
pub fn refusal(reqno: u64) -> Vec<u8> {
    frame(Class::Error.number(), 0, ErrorCode::Malformed.number(), reqno, &[])
}

pub fn call(number: i32, reqno: u64, args: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::syscall_request(&mut out, reqno, number, args);
    out
}

pub fn guest(reqno: u64, name: &str) -> Vec<u8> {
    handshake(Handshake::Guest, reqno, name)
}

pub fn exec(reqno: u64, name: &str) -> Vec<u8> {
    handshake(Handshake::Exec, reqno, name)
}

fn handshake(kind: Handshake, reqno: u64, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::handshake_request(&mut out, reqno, kind, name);
    out
}

pub fn prefork(reqno: u64) -> Vec<u8> {
    request(Kind::Prefork, 0, reqno, &[])
}

pub fn fork(reqno: u64, token: &Token) -> Vec<u8> {
    let mut out = Vec::new();
    wire::fork_request(&mut out, reqno, token, false);
    assert_eq!(out.len(), HEADER_LEN + FORK_BODY_LEN);
    out
}

pub fn cancel(reqno: u64, token: &Token) -> Vec<u8> {
    let mut out = Vec::new();
    wire::fork_request(&mut out, reqno, token, true);
    out
}
