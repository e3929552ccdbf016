//! What a hostile client does. A call that halts the kernel is not among it: who may connect may do that.

use std::net::Shutdown;
use std::time::Duration;

use rumpring::client::numbers::{O_CREAT, O_RDWR, sys};
use rumpring::client::raw::RawConnection;
use rumpring::wire::{self, Class, HEADER_LEN, Handshake, Header, Kind, TOKEN_LEN, Token};

use super::canary::bytes;
use super::hostile::{Attacker, Met};

type Attack = fn(&mut Attacker<'_>) -> Result<(), Met>;

/// All attacks, by their names.
pub const ATTACKS: [(&str, Attack); 20] = [
    ("random bytes before the handshake", |a| random_bytes(a, false)),
    ("random bytes behind the handshake", |a| random_bytes(a, true)),
    ("no handshake", |a| a.silent().and_then(|raw| a.hold_and_go(raw))),
    ("half a handshake", half_a_handshake),
    ("a call before the handshake", call_too_early),
    ("bad frames before the handshake", |a| bad_frames(a, false)),
    ("bad frames behind the handshake", |a| bad_frames(a, true)),
    ("handshakes again and again", handshakes),
    ("never reads", never_reads),
    ("never answers a copyin", never_answers),
    ("answers copies wrongly", answers_wrongly),
    ("answers nobody has asked for", unasked),
    ("guesses tokens", guesses),
    ("shows a token twice", token_twice),
    ("hoards preforks", hoards_preforks),
    ("hoards sleeping calls", hoards_sleepers),
    ("many calls in flight", many_calls),
    ("calls with wild arguments", wild_calls),
    ("a byte at a time", byte_at_a_time),
    ("half closes with calls in flight", half_closes),
];

/// Calls that can be made with any arguments and do no harm to other clients of the kernel.
const HARMLESS: [i32; 12] = [
    sys::READ,
    sys::CLOSE,
    sys::GETPID,
    sys::GETPPID,
    sys::DUP,
    sys::PIPE,
    sys::LSEEK,
    sys::PREAD,
    sys::FSTAT,
    -1,
    i32::MAX,
    511,
];

fn call(number: i32, reqno: u64, args: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::syscall_request(&mut out, reqno, number, args);
    out
}

fn prefork(a: &Attacker<'_>, raw: &mut RawConnection, reqno: u64) -> Result<Token, Met> {
    let mut out = Vec::new();
    wire::prefork_request(&mut out, reqno);
    a.send(raw, &out)?;
    a.hear(raw)?.body.try_into().map_err(|_| Met::Refused)
}

/// A pipe: the end to read from and the end to write to.
fn pipe(a: &Attacker<'_>, raw: &mut RawConnection) -> Result<[u64; 2], Met> {
    a.send(raw, &call(sys::PIPE, 1, &[]))?;
    match a.hear(raw)?.body {
        body if body.len() == wire::SYSCALL_RESPONSE_LEN && body[..4] == [0; 4] => {
            Ok([wire::read_u64(&body, 8), wire::read_u64(&body, 16)])
        }
        _ => Err(Met::Refused),
    }
}

fn random_bytes(a: &mut Attacker<'_>, is_guest: bool) -> Result<(), Met> {
    let mut raw = if is_guest { a.guest()? } else { a.silent()? };
    let len = 1 << a.random.below(17);
    let bytes = bytes(&mut a.random, len);
    a.send(&mut raw, &bytes)?;
    a.hold_and_go(raw)
}

fn half_a_handshake(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.connected()?;
    let mut out = Vec::new();
    wire::handshake_request(&mut out, 0, Handshake::Guest, "half");
    let len = a.random.below(out.len() as u32) as usize;
    a.send(&mut raw, &out[..len])?;
    a.hold_and_go(raw)
}

fn call_too_early(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.connected()?;
    a.send(&mut raw, &call(sys::GETPID, 1, &[]))?;
    match a.hear(&mut raw)?.header.class() {
        Some(Class::Error) => Ok(()),
        _ => Err(Met::Wrong("it was answered".into())),
    }
}

fn bad_frames(a: &mut Attacker<'_>, is_guest: bool) -> Result<(), Met> {
    let mut raw = if is_guest { a.guest()? } else { a.connected()? };
    for _ in 0..=a.random.below(5) {
        let (class, kind) = (a.random.below(4) as u16, a.random.below(10) as u16);
        let len = a.random.below(200) as usize;
        let body = bytes(&mut a.random, len);
        let right = (HEADER_LEN + len) as u64;
        let len = if a.random.below(2) == 0 { right } else { a.number() };
        // As the number of a call it does no harm.
        let word = HARMLESS[a.random.below(HARMLESS.len() as u32) as usize] as u32;
        let header = Header { len, reqno: a.random.next(), class, kind, word };
        a.send(&mut raw, &[&header.encode()[..], &body].concat())?;
    }
    a.hold_and_go(raw)
}

fn handshakes(a: &mut Attacker<'_>) -> Result<(), Met> {
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

fn never_reads(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let calls: Vec<u8> = (0..1000).flat_map(|reqno| call(sys::GETPID, reqno, &[])).collect();
    for _ in 0..50 {
        // When the server has had enough, the socket is full: it is held like that.
        if a.send(&mut raw, &calls).is_err() {
            break;
        }
    }
    a.hold_and_go(raw)
}

fn never_answers(a: &mut Attacker<'_>) -> Result<(), Met> {
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

fn answers_wrongly(a: &mut Attacker<'_>) -> Result<(), Met> {
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

fn unasked(a: &mut Attacker<'_>) -> Result<(), Met> {
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

/// Shows a token and returns whether it was taken.
fn shows(a: &Attacker<'_>, token: &Token) -> Result<bool, Met> {
    let mut raw = a.connected()?;
    let mut out = Vec::new();
    wire::fork_request(&mut out, 0, token, false);
    a.send(&mut raw, &out)?;
    Ok(a.hear(&mut raw)?.header.class() == Some(Class::Response))
}

fn guesses(a: &mut Attacker<'_>) -> Result<(), Met> {
    for _ in 0..20 {
        let token: Token = bytes(&mut a.random, TOKEN_LEN).try_into().expect("its length");
        if shows(a, &token)? {
            return Err(Met::Wrong("a guess was taken".into()));
        }
    }
    Ok(())
}

fn token_twice(a: &mut Attacker<'_>) -> Result<(), Met> {
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

fn hoards_preforks(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for reqno in 0..100 {
        let mut out = Vec::new();
        wire::prefork_request(&mut out, reqno);
        a.send(&mut raw, &out)?;
    }
    a.hold_and_go(raw)
}

fn hoards_sleepers(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    for reqno in 2..34 {
        a.send(&mut raw, &call(sys::READ, reqno, &[from, 0x1000, 1]))?;
    }
    a.hold_and_go(raw)
}

fn many_calls(a: &mut Attacker<'_>) -> Result<(), Met> {
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

fn wild_calls(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for reqno in 0..30 {
        let number = HARMLESS[a.random.below(HARMLESS.len() as u32) as usize];
        let args: Vec<u64> = (0..a.random.below(9)).map(|_| a.number()).collect();
        a.send(&mut raw, &call(number, reqno, &args))?;
    }
    a.hold_and_go(raw)
}

/// Slow, but right: it has a right to its answer.
fn byte_at_a_time(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for byte in call(sys::GETPID, 5, &[]) {
        a.send(&mut raw, &[byte])?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let frame = a.hear(&mut raw)?;
    let is_good = frame.header.reqno == 5 && frame.header.class() == Some(Class::Response);
    if is_good { Ok(()) } else { Err(Met::Wrong(format!("it was answered {:?}", frame.header))) }
}

fn half_closes(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    a.send(&mut raw, &call(sys::READ, 2, &[from, 0x1000, 1]))?;
    a.send(&mut raw, &call(sys::GETPID, 3, &[]))?;
    raw.shutdown(Shutdown::Write)?;
    raw.closes_within(Duration::from_secs(2))?;
    Ok(())
}
