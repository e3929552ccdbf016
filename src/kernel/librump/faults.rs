//! What is known to bring NetBSD's kernel down, and is refused.
//!
//! These are faults of that kernel, which one client reaches by a call that it may make, with an end for all of
//! them: a panic, a crash, or a thread that never comes back. They are the same under NetBSD's own server. What
//! does what is refused here is answered with an errno, unless the server's owner lets it through
//! (`--netbsd-faults allow`), for a kernel that has been mended.
//!
//! | call | what | why | answer |
//! | --- | --- | --- | --- |
//! | kevent(2) | `EVFILT_PROC` | A rump kernel's processes end without telling who watches them: the filter's list of watchers goes with the process, and the watcher, as it goes, takes itself out of that list. | EINVAL, as for a filter that is not there |
//! | setitimer(2) | `ITIMER_MONOTONIC` | `dosetitimer` does not initialize the callout of this one, and arms it. | EOPNOTSUPP |
//!
//! The first is found in what the kernel copies in: what was looked at before could be something else by then,
//! for the memory is the client's.
//!
//! Not refused is a circle of kqueues that watch each other, or one that watches itself: an event goes round in
//! it until the kernel locks a mutex twice. Which descriptor is a kqueue, and what it watches, only the kernel
//! knows, and one that watches another, without a circle, is fine.
//!
//! Source: NetBSD `sys/kern/kern_event.c`, `sys/kern/kern_time.c`, `sys/rump/librump/rumpkern/lwproc.c`,
//! `sys/sys/event.h`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::indirect;
use crate::kernel::{Args, Errno};

/// compat_50_setitimer(2) and setitimer(2), with the timer as their first argument.
const SETITIMER: [i32; 2] = [83, 425];
const ITIMER_MONOTONIC: u64 = 3;

/// compat_50_kevent(2) and kevent(2): both copy in their changes as an array of `struct kevent`.
const KEVENT: [i32; 2] = [345, 435];
/// `sizeof(struct kevent)`; no other thing that these calls copy in is of that size, or some of them.
const KEVENT_LEN: usize = 40;
const FILTER_AT: usize = 8;
const EVFILT_PROC: u32 = 4;
/// A filter that is not there.
const NO_FILTER: u32 = u32::MAX;

/// Whether they are let through.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Lets them through, or not.
pub fn allow(allowed: bool) {
    ALLOWED.store(allowed, Relaxed);
}

/// Refuses a call whose arguments say what it would do.
pub fn check(number: i32, args: &Args) -> Result<(), Errno> {
    let (number, args) = indirect::direct(number, args);
    // The kernel looks at the lower half of an int.
    let timer = args[0] & u64::from(u32::MAX);
    if SETITIMER.contains(&number) && timer == ITIMER_MONOTONIC && !ALLOWED.load(Relaxed) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

/// Changes what a call of this number has copied in, before the kernel sees it.
pub fn check_copied_in(number: i32, bytes: &mut [u8]) {
    if !KEVENT.contains(&number) || !bytes.len().is_multiple_of(KEVENT_LEN) || ALLOWED.load(Relaxed)
    {
        return;
    }
    for event in bytes.chunks_exact_mut(KEVENT_LEN) {
        let filter = &mut event[FILTER_AT..FILTER_AT + 4];
        if filter == EVFILT_PROC.to_le_bytes() {
            filter.copy_from_slice(&NO_FILTER.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::MAX_ARGS;

    fn event(filter: u32) -> [u8; KEVENT_LEN] {
        let mut event = [7; KEVENT_LEN];
        event[FILTER_AT..FILTER_AT + 4].copy_from_slice(&filter.to_le_bytes());
        event
    }

    #[test]
    fn only_that_filter_is_taken_away_and_only_there() {
        let mut changes = [event(0), event(EVFILT_PROC), event(EVFILT_PROC << 8)].concat();
        let mut other = changes.clone();
        check_copied_in(435, &mut changes);
        assert_eq!(changes, [event(0), event(NO_FILTER), event(EVFILT_PROC << 8)].concat());
        let before = other.clone();
        check_copied_in(4, &mut other);
        check_copied_in(435, &mut other[..16]);
        assert_eq!(other, before, "another call, or its time");
    }

    #[test]
    fn a_timer_is_refused_by_its_number_as_the_kernel_reads_it() {
        let args = |first: u64| {
            let mut args = [0; MAX_ARGS];
            args[0] = first;
            args
        };
        assert_eq!(check(425, &args(3)), Err(Errno::EOPNOTSUPP));
        assert_eq!(check(425, &args(0xffff_ffff_0000_0003)), Err(Errno::EOPNOTSUPP));
        let mut indirect = [0; MAX_ARGS];
        indirect[..2].copy_from_slice(&[425, 3]);
        assert_eq!(check(0, &indirect), Err(Errno::EOPNOTSUPP), "by syscall(2)");
        for (number, which) in [(425, 0), (425, 2), (425, 1 << 32), (426, 3)] {
            assert_eq!(check(number, &args(which)), Ok(()));
        }
    }
}
