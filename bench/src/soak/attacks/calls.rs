//! Attacks with correct calls at a wrong time, or too many of them.

use std::net::Shutdown;
use std::time::Duration;

use client::numbers::sys;
use rumpsp::wire::Class;

use super::super::hostile::{Attacker, Met};
use super::{HARMLESS, call, pipe};

pub fn call_too_early(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.connected()?;
    a.send(&mut raw, &call(sys::GETPID, 1, &[]))?;
    match a.hear(&mut raw)?.header.class() {
        Some(Class::Error) => Ok(()),
        _ => Err(Met::Wrong("it was answered".into())),
    }
}

pub fn never_reads(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    for _ in 0..50 {
        // A full socket means that the server takes no more; the connection is then held like that.
        if a.send(&mut raw, &calls).is_err() {
            break;
        }
    }
    a.hold_and_go(raw)
}

pub fn hoards_sleepers(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    for reqno in 2..34 {
        a.send(&mut raw, &call(sys::READ, reqno, &[from, 0x1000, 1]))?;
    }
    a.hold_and_go(raw)
}

pub fn many_calls(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let count = 2000;
    let calls: Vec<u8> = (0..count).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    a.send(&mut raw, &calls)?;
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let reqno = a.hear(&mut raw)?.header.reqno;
        match seen.get_mut(reqno as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(Met::Wrong(format!("an answer too many to request {reqno}"))),
        }
    }
    a.hold_and_go(raw)
}

pub fn wild_calls(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for reqno in 0..30 {
        let number = HARMLESS[a.random.below(HARMLESS.len() as u32) as usize];
        let args: Vec<u64> = (0..a.random.below(9)).map(|_| a.number()).collect();
        a.send(&mut raw, &call(number, reqno, &args))?;
    }
    a.hold_and_go(raw)
}

pub fn half_closes(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    a.send(&mut raw, &call(sys::READ, 2, &[from, 0x1000, 1]))?;
    a.send(&mut raw, &call(sys::GETPID, 3, &[]))?;
    raw.shutdown(Shutdown::Write)?;
    raw.closes_within(Duration::from_secs(2))?;
    Ok(())
}
