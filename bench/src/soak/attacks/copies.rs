//! Attacks on a server that asks for a client's memory.

use client::numbers::{O_CREAT, O_RDWR, sys};
use rumpsp::wire::{Class, HEADER_LEN, Header, Kind};

use super::super::hostile::{Attacker, Met};
use super::{call, pipe};

pub fn never_answers(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [_, to] = pipe(a, &mut raw)?;
    for reqno in 2..18 {
        let frame = match a.random.below(2) {
            0 => call(sys::WRITE, reqno, &[to, 0x1000, 5000]),
            _ => call(sys::OPEN, reqno, &[0x1000, (O_RDWR | O_CREAT) as u64, 0o600]),
        };
        a.send(&mut raw, &frame)?;
    }
    a.hold_and_go(raw)
}

pub fn answers_wrongly(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [_, to] = pipe(a, &mut raw)?;
    a.send(&mut raw, &call(sys::WRITE, 2, &[to, 0x1000, 100]))?;
    let asked = a.hear(&mut raw)?.header;
    let len = [0, 1, 99, 101, 70_000][a.random.below(5) as usize];
    let (class, kind) = (a.random.below(3) as u16, a.random.below(10) as u16);
    let reqno = asked.reqno.wrapping_add(u64::from(a.random.below(2)));
    let header = Header { len: (HEADER_LEN + len) as u64, reqno, class, kind, word: 7 };
    a.send(&mut raw, &[&header.encode()[..], &vec![b'a'; len]].concat())?;
    a.hold_and_go(raw)
}

pub fn unasked(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for _ in 0..20 {
        let len = a.random.below(5000) as usize;
        let class = if a.random.below(2) == 0 { Class::Response } else { Class::Error };
        let kind = [Kind::Copyin, Kind::Copyinstr, Kind::Anonmmap][a.random.below(3) as usize];
        let header = Header {
            len: (HEADER_LEN + len) as u64,
            reqno: a.random.below(20).into(),
            class: class.number(),
            kind: kind.number(),
            word: 1,
        };
        a.send(&mut raw, &[&header.encode()[..], &vec![0; len]].concat())?;
    }
    a.hold_and_go(raw)
}
