//! Waiting for one of many files: poll and select, with their variants.
//!
//! A call looks at its files; if none is ready, it takes a place in the wait queue of each, looks again and
//! sleeps; when woken, it begins anew. While it sleeps it holds, for each file and side (reading, writing)
//! that it waits for, 32 bytes of its own and 16 in the file's queue, in addition to what its client sent:
//! 8 bytes a file, or the sets. A file that becomes ready wakes only the calls that wait for it. A call
//! that waits for more than 64 files at a time pays for the places.
//!
//! The signal mask of pollts and pselect is copied in and has no effect: the client's own system delivers
//! and blocks signals.
//!
//! Source: NetBSD `sys/kern/sys_select.c`; poll(2), select(2).

use std::time::Instant;

use super::abi::{i32_at, poll as event, timespec_at, timeval_at};
use super::call::{Answer, PIECE, Result, Stop, SyscallContext};
use super::file::OpenFile;
use super::listed::{Listed, Runs, call};
use super::wait::{Side, is_over};
use super::work;
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::POLL, Runs::InlineIf(|args| args[1] as u32 <= FEW), poll),
    call(sys::SELECT, Runs::InlineIf(|args| args[0] as u32 <= FEW), select),
    call(sys::PSELECT, Runs::InlineIf(|args| args[0] as u32 <= FEW), pselect),
    call(sys::POLLTS, Runs::InlineIf(|args| args[1] as u32 <= FEW), pollts),
];

/// The most files that an inline run looks at.
const FEW: u32 = 128;

/// `struct pollfd`: a descriptor, and two halves of a word for the events asked for and found.
const POLLFD: usize = 8;

/// The number of files a poll may name beyond the size of the descriptor table.
const SPARSE: usize = 1000;

/// The events that every file is always polled for.
const ALWAYS: u32 = event::ERR | event::HUP;

/// The events that make a file ready for each of select's sets. The end of a pipe makes it ready in the set
/// of exceptions, since NetBSD's pipes report it unasked.
const SETS: [u32; 3] = [event::RDNORM | ALWAYS, event::OUT | ALWAYS, event::RDBAND | event::HUP];

/// The bits in a word of a set, and its bytes.
const WORD_BITS: usize = 32;
const WORD: usize = 4;

/// `int poll(struct pollfd *fds, nfds_t nfds, int timeout)`
fn poll(run: &mut SyscallContext<'_, '_>) -> Answer {
    let millis = i64::from(run.int(2));
    let timeout = (millis != -1).then_some((millis / 1000, millis % 1000 * 1_000_000));
    poll_common(run, timeout)
}

/// `int __pollts50(struct pollfd *fds, nfds_t nfds, const struct timespec *ts, const sigset_t *mask)`
fn pollts(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (timeout, mask) = (run.word(2), run.word(3));
    let timeout = timespec(run, timeout)?;
    signal_mask(run, mask)?;
    poll_common(run, timeout)
}

/// `int __select50(int nd, fd_set *in, fd_set *ou, fd_set *ex, struct timeval *tv)`
fn select(run: &mut SyscallContext<'_, '_>) -> Answer {
    let timeout = match run.word(4) {
        0 => None,
        addr => Some(timeval_at(&run.copyin::<16>(addr)?, 0)),
    };
    select_common(run, timeout.map(|(seconds, micros)| (seconds, micros * 1000)))
}

/// `int __pselect50(int nd, fd_set *in, fd_set *ou, fd_set *ex, const struct timespec *ts,
/// const sigset_t *mask)`
fn pselect(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (timeout, mask) = (run.word(4), run.word(5));
    let timeout = timespec(run, timeout)?;
    signal_mask(run, mask)?;
    select_common(run, timeout)
}

/// Copies in the time at `addr`, `None` for address 0.
fn timespec(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<Option<(i64, i64)>> {
    if addr == 0 {
        return Ok(None);
    }
    Ok(Some(timespec_at(&run.copyin::<16>(addr)?, 0)))
}

/// Copies in a `sigset_t`, if there is one, and ignores it.
fn signal_mask(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<()> {
    if addr != 0 {
        run.copyin::<16>(addr)?;
    }
    Ok(())
}

/// NetBSD: `pollcommon`.
fn poll_common(run: &mut SyscallContext<'_, '_>, timeout: Option<(i64, i64)>) -> Answer {
    let (addr, count) = (run.word(0), run.uint(1) as usize);
    if count > SPARSE + run.proc.files.size() {
        return Err(Errno::EINVAL.into());
    }
    let mut fds = vec![0; count * POLLFD];
    copyin(run, addr, &mut fds)?;
    let deadline = run.deadline(timeout)?;
    let found = until_found(run, deadline, |run, waiting| poll_scan(run, &mut fds, waiting))?;
    copyout(run, &fds, addr)?;
    Ok([found, 0])
}

/// Looks at every file of `fds` and notes the events found. Returns the number of files with events.
/// NetBSD: `pollscan`.
fn poll_scan(run: &mut SyscallContext<'_, '_>, fds: &mut [u8], waiting: bool) -> Result<i64> {
    let wanted = |fd: &[u8]| u32::from(u16::from_le_bytes([fd[4], fd[5]]));
    if waiting {
        let sides =
            fds.chunks_exact(POLLFD).map(|fd| sides(wanted(fd)).into_iter().flatten().count());
        run.expect_waits(sides.sum())?;
    }
    let mut found = 0;
    work::count(fds.len() / POLLFD);
    for fd in fds.chunks_exact_mut(POLLFD) {
        let (number, wanted) = (i32_at(fd, 0), wanted(fd));
        let events = match number {
            ..0 => 0,
            _ => match run.file(number) {
                Ok(file) => look(run, &file, wanted | ALWAYS, waiting),
                Err(_) => event::NVAL,
            },
        };
        fd[6..].copy_from_slice(&(events as u16).to_le_bytes());
        found += i64::from(events != 0);
    }
    Ok(found)
}

/// NetBSD: `selcommon`.
fn select_common(run: &mut SyscallContext<'_, '_>, timeout: Option<(i64, i64)>) -> Answer {
    let count = usize::try_from(run.int(0)).map_err(|_| Errno::EINVAL)?;
    let count = count.min(run.proc.files.size());
    let addrs = [run.word(1), run.word(2), run.word(3)];
    let size = count.div_ceil(WORD_BITS) * WORD;
    let mut wanted = [const { Vec::new() }; 3];
    for (set, &addr) in wanted.iter_mut().zip(&addrs) {
        set.resize(size, 0);
        if addr != 0 {
            copyin(run, addr, set)?;
        }
    }
    let deadline = run.deadline(timeout)?;
    let mut found = [const { Vec::new() }; 3];
    let sum = until_found(run, deadline, |run, waiting| {
        let mut sum = 0;
        for which in 0..SETS.len() {
            found[which] = vec![0; size];
            sum +=
                select_scan(run, &wanted[which], &mut found[which], SETS[which], waiting, count)?;
        }
        Ok(sum)
    })?;
    for (set, &addr) in found.iter().zip(&addrs) {
        if addr != 0 {
            copyout(run, set, addr)?;
        }
    }
    Ok([sum, 0])
}

/// Looks at the files below `count` in one set, and returns the number of ready ones. EBADF if one is not
/// open. NetBSD: `selscan`.
fn select_scan(
    run: &mut SyscallContext<'_, '_>,
    wanted: &[u8],
    found: &mut [u8],
    events: u32,
    waiting: bool,
    count: usize,
) -> Result<i64> {
    if waiting {
        run.expect_waits(wanted.iter().map(|byte| byte.count_ones() as usize).sum())?;
    }
    let mut sum = 0;
    // Words are little-endian: their bytes in order are their bits in order.
    for (at, (&wanted, found)) in wanted.iter().zip(found).enumerate() {
        let mut left = wanted;
        while left != 0 {
            let bit = left.trailing_zeros() as usize;
            left &= left - 1;
            let fd = at * 8 + bit;
            if fd >= count {
                break;
            }
            let file = run.file(fd as i32)?;
            if look(run, &file, events, waiting) != 0 {
                *found |= 1 << bit;
                sum += 1;
            }
        }
    }
    Ok(sum)
}

/// Calls `scan` until it finds something or the time is over. If its second argument is `true`, `scan`
/// takes a place in each file's queue before it looks at the file. NetBSD: `sel_do_scan`.
fn until_found(
    run: &mut SyscallContext<'_, '_>,
    deadline: Option<Instant>,
    mut scan: impl FnMut(&mut SyscallContext<'_, '_>, bool) -> Result<i64>,
) -> Result<i64> {
    for waiting in [false, true] {
        let found = scan(run, waiting)?;
        if found > 0 || is_over(deadline) {
            return Ok(found);
        }
    }
    Err(Stop::Sleep(deadline))
}

/// Returns the events among `events` that hold for a file.
fn look(run: &mut SyscallContext<'_, '_>, file: &OpenFile, events: u32, waiting: bool) -> u32 {
    if waiting && let Some(source) = file.ops.waitable() {
        for side in sides(events).into_iter().flatten() {
            run.wait_for(source.clone(), side);
        }
    }
    file.ops.poll(file) & events
}

/// Returns the sides of a file on which these events come. The events that are always polled for come on
/// both.
fn sides(events: u32) -> [Option<Side>; 2] {
    let write = events & (event::OUT | event::WRBAND) != 0;
    let read = events & (event::IN | event::PRI | event::RDNORM | event::RDBAND) != 0;
    [(read || !write).then_some(Side::Read), write.then_some(Side::Write)]
}

fn copyin(run: &mut SyscallContext<'_, '_>, addr: u64, into: &mut [u8]) -> Result<()> {
    let mut at = addr;
    for piece in into.chunks_mut(PIECE) {
        run.memory().copyin(at, piece)?;
        at = at.wrapping_add(piece.len() as u64);
    }
    Ok(())
}

/// Copies out `data` in one piece, as the next run would find something else. The number of descriptors
/// bounds its length.
fn copyout(run: &mut SyscallContext<'_, '_>, data: &[u8], addr: u64) -> Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    if run.memory().room() == 0 {
        return Err(Stop::Flush);
    }
    run.copyout(data, addr)
}
