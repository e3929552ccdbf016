//! Attacks that leave things behind in the kernel, or pile them up there: timers, sleepers, bytes,
//! files.

use std::convert::Infallible;
use std::time::Duration;

use client::numbers::{AF_LOCAL, O_CREAT, O_RDWR, SOCK_STREAM, SOL_SOCKET, sys};
use client::raw::RawConnection;
use rumpsp::wire::{self, Class, Kind};

use super::super::hostile::{Attacker, Met};
use super::{call, pipe, tokens};

/// Addresses in an attacker's memory: data for the kernel at the first, nothing at the second.
const HERE: u64 = 0x1000;
const THERE: u64 = 0x10_0000;

/// The most frames that may come before the answer to a call: its copyouts, and signals.
const MOST_FRAMES: usize = 10_000;

/// A call that has been answered.
struct Answered {
    /// The call's results, or the error's number.
    result: Result<[u64; 2], u32>,
    /// The last bytes that the call copied out.
    out: Vec<u8>,
}

/// Makes a call, with `memory` at [`HERE`] and the same bytes at every other address.
fn answered(
    a: &Attacker<'_>,
    raw: &mut RawConnection,
    frame: &[u8],
    memory: &[u8],
) -> Result<Answered, Met> {
    a.send(raw, frame)?;
    let mut out = Vec::new();
    for _ in 0..MOST_FRAMES {
        let frame = a.hear(raw)?;
        match (frame.header.class(), frame.header.kind()) {
            (Some(Class::Response), _) if frame.body.len() == wire::SYSCALL_RESPONSE_LEN => {
                let results = [wire::read_u64(&frame.body, 8), wire::read_u64(&frame.body, 16)];
                let error = wire::read_u32(&frame.body, 0);
                let result = if error == 0 { Ok(results) } else { Err(error) };
                return Ok(Answered { result, out });
            }
            (Some(Class::Request), Some(Kind::Copyin | Kind::Copyinstr)) => {
                let (len, addr) = (wire::read_u64(&frame.body, 0), wire::read_u64(&frame.body, 8));
                let from = addr.saturating_sub(HERE).min(memory.len() as u64) as usize;
                let mut bytes = memory[from..].to_vec();
                if frame.header.kind() == Some(Kind::Copyin) {
                    bytes.resize(len.min(1 << 20) as usize, 0);
                }
                a.send(raw, &copied_in(frame.header.reqno, &bytes))?;
            }
            (Some(Class::Request), Some(Kind::Copyout)) => out = frame.body[16..].to_vec(),
            (Some(Class::Request), _) => {}
            _ => return Err(Met::Refused),
        }
    }
    Err(Met::Refused)
}

/// Returns the answer to a copyin.
fn copied_in(reqno: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let filled = wire::copyin_response(&mut out, reqno, |out| {
        out.extend_from_slice(bytes);
        Ok::<_, Infallible>(())
    });
    let Ok(()) = filled;
    out
}

/// Returns 64-bit integers as they lie in memory.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Arms timers, and hangs up before or while they expire.
pub fn timers(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let first = 1 + u64::from(a.random.below(1_500_000));
    let interval = u64::from(a.random.below(2)) * 10_000;
    // A struct itimerval, then a struct itimerspec, of the same times.
    let seconds = |micros: u64| [micros / 1_000_000, micros % 1_000_000];
    let [[s, us], [is, ius]] = [seconds(first), seconds(interval)];
    let memory = words(&[is, ius, s, us, is, ius * 1000, s, us * 1000]);
    answered(a, &mut raw, &call(sys::SETITIMER, 1, &[0, HERE, 0]), &memory)?.result.ok();
    for reqno in 2..10 {
        let create = call(sys::TIMER_CREATE, reqno, &[0, 0, THERE]);
        let Answered { result: Ok(_), out: id } = answered(a, &mut raw, &create, &memory)? else {
            break;
        };
        let id = id.first_chunk().map_or(0, |id| u32::from_le_bytes(*id)).into();
        let set = call(sys::TIMER_SETTIME, reqno, &[id, 0, HERE + 32, 0]);
        answered(a, &mut raw, &set, &memory)?.result.ok();
    }
    match a.random.below(2) {
        0 => Ok(()),
        _ => a.hold_and_go(raw),
    }
}

/// Sleeps for a day in many calls, and hangs up.
pub fn sleepers(a: &mut Attacker<'_>) -> Result<(), Met> {
    const SLEEPERS: u64 = 200;
    let mut raw = a.guest()?;
    for reqno in 0..SLEEPERS {
        a.send(&mut raw, &call(sys::NANOSLEEP, reqno, &[HERE, 0]))?;
    }
    for _ in 0..SLEEPERS {
        let asked = a.hear(&mut raw)?.header;
        a.send(&mut raw, &copied_in(asked.reqno, &words(&[86_400, 0])))?;
    }
    Ok(())
}

/// Has many calls wait for a pipe, and hangs up.
pub fn burst_of_readers(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    let reads: Vec<u8> =
        (2..502).flat_map(|reqno| call(sys::READ, reqno, &[from, THERE, 1])).collect();
    a.send(&mut raw, &reads)?;
    a.run.sleep(Duration::from_millis(a.random.below(300).into()));
    Ok(())
}

/// Gives long answers to calls, which then wait for another answer that does not come.
pub fn half_answers(a: &mut Attacker<'_>) -> Result<(), Met> {
    const SEGMENT: u64 = 60_000;
    let mut raw = a.guest()?;
    let [_, to] = pipe(a, &mut raw)?;
    for reqno in 2..66 {
        a.send(&mut raw, &call(sys::WRITEV, reqno, &[to, HERE, 2]))?;
    }
    for _ in 0..128 {
        let asked = a.hear(&mut raw)?;
        let (len, addr) = match asked.header.class() {
            Some(Class::Request) if asked.body.len() == 16 => {
                (wire::read_u64(&asked.body, 0), wire::read_u64(&asked.body, 8))
            }
            _ => return a.hold_and_go(raw),
        };
        let bytes = match addr {
            HERE => words(&[THERE, SEGMENT, 2 * THERE, SEGMENT]),
            THERE => vec![b'a'; SEGMENT as usize],
            _ => continue,
        };
        a.send(&mut raw, &copied_in(asked.header.reqno, &bytes[..bytes.len().min(len as usize)]))?;
    }
    a.hold_and_go(raw)
}

/// Opens as many files as the kernel allows.
pub fn all_files(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let [from, _] = pipe(a, &mut raw)?;
    for reqno in 2..5000 {
        let dup = call(sys::DUP, reqno, &[from]);
        if answered(a, &mut raw, &dup, &[])?.result.is_err() {
            break;
        }
    }
    a.hold_and_go(raw)
}

/// Sends descriptors in messages that nobody receives, as many as the kernel allows.
pub fn files_in_flight(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    for _ in 0..30 {
        let pair = call(sys::SOCKETPAIR, 1, &[AF_LOCAL as u64, SOCK_STREAM as u64, 0, THERE]);
        let Answered { result: Ok(_), out: ends } = answered(a, &mut raw, &pair, &[])? else {
            break;
        };
        fill_with_files(a, &mut raw, ends.first_chunk().map_or(0, |end| u32::from_le_bytes(*end)))?;
    }
    a.hold_and_go(raw)
}

/// Sends a socket over itself until its other end takes no more messages.
fn fill_with_files(a: &Attacker<'_>, raw: &mut RawConnection, end: u32) -> Result<(), Met> {
    const AT_ONCE: u32 = 100;
    const MSG_DONTWAIT: u64 = 0x80;
    // A struct msghdr of 48 bytes, its struct iovec, its byte, and a struct cmsghdr with the
    // descriptors, which begin at a multiple of 8.
    let control = 16 + 4 * u64::from(AT_ONCE);
    let mut memory = words(&[0, 0, HERE + 48, 1, HERE + 72, control, HERE + 64, 1, 0]);
    let cmsghdr = [control as u32, SOL_SOCKET as u32, 1, 0];
    memory.extend(cmsghdr.iter().flat_map(|word| word.to_le_bytes()));
    (0..AT_ONCE).for_each(|_| memory.extend_from_slice(&end.to_le_bytes()));
    for reqno in 2..200 {
        let send = call(sys::SENDMSG, reqno, &[end.into(), HERE, MSG_DONTWAIT]);
        if answered(a, raw, &send, &memory)?.result.is_err() {
            break;
        }
    }
    Ok(())
}

/// Extends and cuts a file again and again.
pub fn long_file(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let path = format!("/long{}\0", a.random.below(1_000_000));
    let open = call(sys::OPEN, 1, &[HERE, (O_RDWR | O_CREAT) as u64, 0o600]);
    let Answered { result: Ok([file, _]), .. } = answered(a, &mut raw, &open, path.as_bytes())?
    else {
        return Err(Met::Refused);
    };
    answered(a, &mut raw, &call(sys::UNLINK, 2, &[HERE]), path.as_bytes())?.result.ok();
    for reqno in 3..10 {
        let len = [1 << 24, 0][reqno as usize % 2];
        answered(a, &mut raw, &call(sys::FTRUNCATE, reqno, &[file, 0, len]), &[])?.result.ok();
    }
    Ok(())
}

/// Arms timers whose signals it does not read, as many as the kernel allows.
pub fn unread_signals(a: &mut Attacker<'_>) -> Result<(), Met> {
    let mut raw = a.guest()?;
    let memory = words(&[0, 1_000_000, 0, 1_000_000]);
    for reqno in 0..64 {
        let create = call(sys::TIMER_CREATE, reqno, &[0, 0, THERE]);
        let Answered { result: Ok(_), out: id } = answered(a, &mut raw, &create, &memory)? else {
            break;
        };
        let id = id.first_chunk().map_or(0, |id| u32::from_le_bytes(*id)).into();
        let set = call(sys::TIMER_SETTIME, reqno, &[id, 0, HERE, 0]);
        answered(a, &mut raw, &set, &memory)?.result.ok();
    }
    a.hold_and_go(raw)
}

/// Has a kqueue watch a child, which ends.
pub fn watched_child(a: &mut Attacker<'_>) -> Result<(), Met> {
    const EVFILT_PROC: u64 = 4;
    const EV_ADD: u64 = 1;
    const NOTE_EXIT: u64 = 0x8000_0000;
    let mut raw = a.guest()?;
    let Answered { result: Ok([queue, _]), .. } =
        answered(a, &mut raw, &call(sys::KQUEUE, 1, &[]), &[])?
    else {
        return Err(Met::Refused);
    };
    let token = tokens::prefork(a, &mut raw, 2)?;
    let mut child = a.connected()?;
    let mut frame = Vec::new();
    wire::fork_request(&mut frame, 0, &token, false);
    a.send(&mut child, &frame)?;
    a.hear(&mut child)?;
    let Answered { result: Ok([pid, _]), .. } =
        answered(a, &mut child, &call(sys::GETPID, 1, &[]), &[])?
    else {
        return Err(Met::Refused);
    };
    // A struct kevent: ident, filter and flags, fflags, data, udata.
    let event = words(&[pid, EVFILT_PROC | EV_ADD << 32, NOTE_EXIT, 0, 0]);
    let watch = call(sys::KEVENT, 3, &[queue, HERE, 1, 0, 0, 0]);
    answered(a, &mut raw, &watch, &event)?.result.ok();
    drop(child);
    a.hold_and_go(raw)
}
