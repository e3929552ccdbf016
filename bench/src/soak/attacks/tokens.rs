//! Attacks with the tokens of preforks.

use client::raw::RawConnection;
use rumpsp::wire::{self, Class, TOKEN_LEN, Token};

use super::super::canary::bytes;
use super::super::hostile::{Attacker, Met};

pub fn prefork(a: &Attacker<'_>, raw: &mut RawConnection, reqno: u64) -> Result<Token, Met> {
    let mut out = Vec::new();
    wire::prefork_request(&mut out, reqno);
    a.send(raw, &out)?;
    a.hear(raw)?.body.try_into().map_err(|_| Met::Refused)
}

/// Shows a token and returns whether it was taken.
fn shows(a: &Attacker<'_>, token: &Token) -> Result<bool, Met> {
    let mut raw = a.connected()?;
    let mut out = Vec::new();
    wire::fork_request(&mut out, 0, token, false);
    a.send(&mut raw, &out)?;
    Ok(a.hear(&mut raw)?.header.class() == Some(Class::Response))
}

pub fn guesses(a: &mut Attacker<'_>) -> Result<(), Met> {
    for _ in 0..20 {
        let token: Token = bytes(&mut a.random, TOKEN_LEN).try_into().expect("its length");
        if shows(a, &token)? {
            return Err(Met::Wrong("a guess was taken".into()));
        }
    }
    Ok(())
}

pub fn token_twice(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let token = prefork(a, &mut raw, 1)?;
    if !shows(a, &token)? {
        return Err(Met::Refused);
    }
    if shows(a, &token)? {
        return Err(Met::Wrong("it was taken twice".into()));
    }
    a.hold_and_go(raw)
}

pub fn hoards_preforks(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for reqno in 0..100 {
        let mut out = Vec::new();
        wire::prefork_request(&mut out, reqno);
        a.send(&mut raw, &out)?;
    }
    a.hold_and_go(raw)
}
