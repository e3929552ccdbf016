//! Attacks with bytes that are no frames, with wrong frames, and with correct frames that come slowly.

use std::time::Duration;

use client::numbers::sys;
use rumpsp::wire::{self, Class, HEADER_LEN, Handshake, Header};

use super::super::canary::bytes;
use super::super::hostile::{Attacker, Met};
use super::{HARMLESS, call};

pub fn random_bytes(a: &mut Attacker<'_>, is_guest: bool) -> Result<(), Met> {
    let mut raw = if is_guest { a.guest()? } else { a.silent()? };
    let len = 1 << a.random.below(17);
    let bytes = bytes(&mut a.random, len);
    a.send(&mut raw, &bytes)?;
    a.hold_and_go(raw)
}

pub fn half_a_handshake(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.connected()?;
    let mut out = Vec::new();
    wire::handshake_request(&mut out, 0, Handshake::Guest, "half");
    let len = a.random.below(out.len() as u32) as usize;
    a.send(&mut raw, &out[..len])?;
    a.hold_and_go(raw)
}

pub fn bad_frames(a: &mut Attacker<'_>, is_guest: bool) -> Result<(), Met> {
    let mut raw = if is_guest { a.guest()? } else { a.connected()? };
    for _ in 0..=a.random.below(5) {
        let (class, kind) = (a.random.below(4) as u16, a.random.below(10) as u16);
        let len = a.random.below(200) as usize;
        let body = bytes(&mut a.random, len);
        let right = (HEADER_LEN + len) as u64;
        let len = if a.random.below(2) == 0 { right } else { a.number() };
        // The word does no harm as the number of a call.
        let word = HARMLESS[a.random.below(HARMLESS.len() as u32) as usize] as u32;
        let header = Header { len, reqno: a.random.next(), class, kind, word };
        a.send(&mut raw, &[&header.encode()[..], &body].concat())?;
    }
    a.hold_and_go(raw)
}

pub fn handshakes(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let mut out = Vec::new();
    for reqno in 0..50 {
        let kind = [Handshake::Guest, Handshake::Auth, Handshake::Exec][a.random.below(3) as usize];
        wire::handshake_request(&mut out, reqno, kind, "again");
        out.extend(call(sys::GETPID, 1000 + reqno, &[]));
    }
    a.send(&mut raw, &out)?;
    a.hold_and_go(raw)
}

/// Sends a correct call one byte at a time: it must be answered.
pub fn byte_at_a_time(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for byte in call(sys::GETPID, 5, &[]) {
        a.send(&mut raw, &[byte])?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let frame = a.hear(&mut raw)?;
    let is_good = frame.header.reqno == 5 && frame.header.class() == Some(Class::Response);
    if is_good { Ok(()) } else { Err(Met::Wrong(format!("it was answered {:?}", frame.header))) }
}
