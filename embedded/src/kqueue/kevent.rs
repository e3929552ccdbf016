//! The kevent call: changes what a kqueue waits for, and waits for its events.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`kevent1`, `kqueue_scan`).

use std::sync::Arc;

use super::super::abi::{i32_at, i64_at, timespec_at, u64_at};
use super::super::call::{Answer, PIECE, Result, Stop, SyscallContext};
use super::super::sync::lock;
use super::super::wait::{Side, is_over};
use super::super::work;
use super::knote::Verdict;
use super::{Kqueue, abi};
use kernel::Errno;

/// `struct kevent`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Kevent {
    pub ident: u64,
    pub filter: u32,
    pub flags: u32,
    pub fflags: u32,
    pub data: i64,
    pub udata: u64,
}

impl Kevent {
    /// The size of `struct kevent`.
    pub const SIZE: usize = 40;

    pub fn decode(bytes: &[u8]) -> Kevent {
        Kevent {
            ident: u64_at(bytes, 0),
            filter: i32_at(bytes, 8) as u32,
            flags: i32_at(bytes, 12) as u32,
            fflags: i32_at(bytes, 16) as u32,
            data: i64_at(bytes, 24),
            udata: u64_at(bytes, 32),
        }
    }

    pub fn encode(&self) -> [u8; Kevent::SIZE] {
        let mut out = [0; Kevent::SIZE];
        out[..8].copy_from_slice(&self.ident.to_le_bytes());
        out[8..12].copy_from_slice(&self.filter.to_le_bytes());
        out[12..16].copy_from_slice(&self.flags.to_le_bytes());
        out[16..20].copy_from_slice(&self.fflags.to_le_bytes());
        out[24..32].copy_from_slice(&self.data.to_le_bytes());
        out[32..].copy_from_slice(&self.udata.to_le_bytes());
        out
    }
}

/// The number of changes that are copied in and made at a time.
const BATCH: u64 = (PIECE / Kevent::SIZE) as u64;

/// `int __kevent50(int fd, const struct kevent *changelist, size_t nchanges, struct kevent *eventlist,
/// size_t nevents, const struct timespec *timeout)`
pub(super) fn kevent(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (out, room, timeout) = (run.word(3), run.word(4), run.word(5));
    let file = run.file(run.int(0))?;
    let kqueue = file.ops.kqueue().ok_or(Errno::EBADF)?;
    let timeout = match timeout {
        0 => None,
        addr => Some(timespec_at(&run.copyin::<16>(addr)?, 0)),
    };
    if let Some(answered) = make_changes(run, kqueue, out, room)? {
        return Ok([answered as i64, 0]);
    }
    if room == 0 {
        return Ok([0, 0]);
    }
    let deadline = run.deadline(timeout)?;
    for waiting in [false, true] {
        if waiting {
            run.wait_for(kqueue.clone(), Side::Read);
        }
        let found = report(run, kqueue, out, room)?;
        if found > 0 || is_over(deadline) {
            return Ok([found, 0]);
        }
    }
    Err(Stop::Sleep(deadline))
}

/// Makes the changes that no earlier run has made. Changes that fail, and those whose receipt is wanted,
/// are answered in the eventlist; if there are any, the call ends with their number.
fn make_changes(
    run: &mut SyscallContext<'_, '_>,
    kqueue: &Arc<Kqueue>,
    out: u64,
    room: u64,
) -> Result<Option<u64>> {
    let (changes, count) = (run.word(1), run.word(2));
    let mut answered = run.kept().map_or(0, |kept| kept.answered);
    while run.done() < count {
        let batch = (count - run.done()).min(BATCH);
        let mut bytes = vec![0; batch as usize * Kevent::SIZE];
        let at = run.done().wrapping_mul(Kevent::SIZE as u64).wrapping_add(changes);
        run.memory().copyin(at, &mut bytes)?;
        for bytes in bytes.chunks_exact(Kevent::SIZE) {
            let mut change = Kevent::decode(bytes);
            change.flags &= !abi::SYSFLAGS;
            let receipt = change.flags & abi::RECEIPT != 0;
            let changed = kqueue.change(run.proc, &mut change);
            if changed.is_ok() && !receipt {
                continue;
            }
            if answered == room {
                changed?;
                return Ok(Some(0));
            }
            change.flags = abi::ERROR;
            change.data = changed.err().map_or(0, |errno| errno.0.into());
            run.copyout(&change.encode(), place(out, answered))?;
            answered += 1;
        }
        run.advance(batch as usize);
        if run.done() < count {
            run.memory().forget();
            if answered > 0 {
                // The answers so far would be lost if the next changes were asked for now.
                run.keep().answered = answered;
                return Err(Stop::Flush);
            }
        }
    }
    Ok((answered > 0).then_some(answered))
}

/// Returns the address of the event with this number.
fn place(out: u64, number: u64) -> u64 {
    out.wrapping_add(number.wrapping_mul(Kevent::SIZE as u64))
}

/// Copies out the ready events, up to `room`, and returns their number. NetBSD: `kqueue_scan`.
fn report(
    run: &mut SyscallContext<'_, '_>,
    kqueue: &Arc<Kqueue>,
    out: u64,
    room: u64,
) -> Result<i64> {
    if kqueue.count() == 0 {
        return Ok(0);
    }
    // Events for which there is no room now stay on the list.
    let room = room.min((run.memory().room() / Kevent::SIZE) as u64) as usize;
    if room == 0 {
        return Err(Stop::Flush);
    }
    let mut found = Vec::new();
    let count = kqueue.scan(room, |kevent| found.extend(kevent.encode()))?;
    if count > 0 {
        run.copyout(&found, out)?;
    }
    Ok(count as i64)
}

impl Kqueue {
    /// Evaluates the knotes on the list in order, until `room` of them were ready. An inline run evaluates
    /// a limited number only: if none of those was ready, a worker evaluates the others.
    fn scan(self: &Arc<Self>, room: usize, mut each: impl FnMut(Kevent)) -> Result<usize, Errno> {
        let end = lock(&self.state).turn;
        let mut count = 0;
        while count < room {
            if work::spend(4).is_err() {
                return if count > 0 { Ok(count) } else { Err(work::ELSEWHERE) };
            }
            let knote = {
                let mut state = lock(&self.state);
                let Some(first) = state.active.first_entry().filter(|first| *first.key() < end)
                else {
                    break;
                };
                let knote = first.remove();
                if !knote.taken_off() {
                    continue;
                }
                knote
            };
            let kevent = match self.judge(&knote) {
                Verdict::Quiet => {
                    knote.settle();
                    continue;
                }
                Verdict::Elsewhere => continue,
                Verdict::Report(kevent) => {
                    knote.settle();
                    kevent
                }
                Verdict::Again(kevent) => kevent,
                Verdict::Last(kevent) => {
                    self.remove_this(&knote);
                    kevent
                }
            };
            each(kevent);
            count += 1;
        }
        Ok(count)
    }
}
