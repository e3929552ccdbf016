//! The faults that are known to bring NetBSD's kernel down; calls that would trigger them are refused.
//!
//! A client reaches each of these faults of NetBSD's kernel by a call that it may make, and each ends the
//! kernel for all clients: a panic, a crash, or a thread that never comes back. They are the same under
//! NetBSD's own server. A call that is refused here gets an errno, unless the server's owner lets it
//! through (`--netbsd-faults allow`), for a kernel that has been mended.
//!
//! | call | what | why | answer |
//! | --- | --- | --- | --- |
//! | kevent(2) | `EVFILT_PROC` | A rump kernel's processes end without telling their watchers: the filter's list of watchers goes with the process, and a watcher that ends later takes itself out of that freed list. | EINVAL, as for a filter that does not exist |
//! | kevent(2) | a kqueue as the descriptor to watch | In a circle of kqueues that watch each other, or in a kqueue that watches itself, an event goes round until the kernel locks a mutex twice. Only the kernel knows which kqueues would close a circle, so all are refused; few programs have one kqueue watch another. | EBADF |
//! | extattrctl(2) | a `filename` | `sys_extattrctl` passes that file's vnode on locked, and then releases it without unlocking it, unless the file system has done so; file systems without extended attributes do not. The next thread that looks the file up waits for ever. If it is the same thread, the C library reports a deadlock, and the kernel aborts. | EOPNOTSUPP, as for a file system without them |
//! | setitimer(2) | `ITIMER_MONOTONIC` | `dosetitimer` does not initialize the callout of this one, and arms it. | EOPNOTSUPP |
//!
//! A client's memory is checked as the kernel copies it in: if it were checked before, it could have
//! changed by then.
//!
//! One more fault is prevented without a refusal: write(2) and writev(2) of more than 2 GiB move less
//! than that, as they may. The console takes the lower half of the remaining length for all of it
//! (`rumpcons_write`). If that half is zero, the console loops for ever, with a CPU that nobody gets
//! back. The only difference is the errno of a write that no file could hold: ENOSPC for EFBIG.
//!
//! Another one is slowed down: fcntl(2) with `F_CLOSEM` loops, with a CPU, as long as another thread of
//! its process is closing the last descriptor, and that thread may wait for a third which sleeps. Here
//! the loop sleeps a little (see [`crate::librump::hypercall`]), so that all of them end when their
//! client leaves.
//!
//! Source: NetBSD `sys/kern/kern_event.c`, `sys/kern/sys_descrip.c`, `sys/kern/kern_time.c`, `sys/kern/vfs_xattr.c`, `sys/rump/librump/rumpkern/lwproc.c`,
//! `sys/sys/event.h`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::indirect;
use kernel::{Args, Errno, sys};

/// compat_50_setitimer(2) and setitimer(2), with the timer as their first argument.
const SETITIMER: [i32; 2] = [sys::COMPAT_50_SETITIMER, sys::SETITIMER];
const ITIMER_MONOTONIC: u64 = 3;

/// compat_50_kevent(2) and kevent(2): both copy in their changes as an array of `struct kevent`.
const KEVENT: [i32; 2] = [sys::COMPAT_50_KEVENT, sys::KEVENT];
/// `sizeof(struct kevent)`. Nothing else that these calls copy in has this size or a multiple of it.
const KEVENT_LEN: usize = 40;
const FILTER_AT: usize = 8;
const EVFILT_PROC: u32 = 4;
/// A filter that does not exist.
const NO_FILTER: u32 = u32::MAX;

/// The command of fcntl(2) that closes all descriptors from one on.
const F_CLOSEM: u64 = 10;

/// `sizeof(struct iovec)`: address and length.
const IOVEC_LEN: usize = 16;
/// The most bytes that write(2) and writev(2) move, as in Linux.
const MOST_WRITTEN: u64 = 0x7fff_f000;

/// True if calls that trigger faults are let through.
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Sets whether calls that trigger faults are let through.
pub fn allow(allowed: bool) {
    ALLOWED.store(allowed, Relaxed);
}

/// Returns `true` if a call of this number must not find a kqueue where it looks up what to watch.
pub fn is_kevent(number: i32) -> bool {
    KEVENT.contains(&number) && !ALLOWED.load(Relaxed)
}

/// Returns `true` if a call closes all descriptors from one on, and so loops while another thread closes
/// the last of them.
pub fn closes_many(number: i32, args: &[u64]) -> bool {
    // The kernel looks at the lower half, as an int.
    number == sys::FCNTL && args[1] & u64::from(u32::MAX) == F_CLOSEM && !ALLOWED.load(Relaxed)
}

/// Returns an error for a call whose arguments alone would trigger a fault.
pub fn check(number: i32, args: &Args) -> Result<(), Errno> {
    let (number, args) = indirect::direct(number, args);
    let is_fault = match number {
        // The kernel looks at the lower half, as an int.
        _ if SETITIMER.contains(&number) => args[0] & u64::from(u32::MAX) == ITIMER_MONOTONIC,
        // Its arguments are path, cmd and filename.
        sys::EXTATTRCTL => args[2] != 0,
        _ => false,
    };
    if is_fault && !ALLOWED.load(Relaxed) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// Bounds the length of a write, before the kernel sees the arguments.
pub fn bound(number: i32, args: &mut Args) {
    let (number, with) = indirect::direct(number, args);
    let len = args.len() - with.len() + 2;
    // A length beyond what an `i64` holds is the kernel's to refuse.
    if number == sys::WRITE && !ALLOWED.load(Relaxed) && i64::try_from(args[len]).is_ok() {
        args[len] = args[len].min(MOST_WRITTEN);
    }
}

/// Changes what a call of this number has copied in, before the kernel sees it. `is_first` is `true` if
/// the call has copied in nothing before.
pub fn check_copied_in(number: i32, is_first: bool, bytes: &mut [u8]) {
    if ALLOWED.load(Relaxed) {
        return;
    }
    if number == sys::WRITEV && is_first {
        bound_iovecs(bytes);
    }
    if KEVENT.contains(&number) {
        check_changes(bytes);
    }
}

/// Shortens the lengths that are too much together. Those whose sum overflows are the kernel's to refuse.
fn bound_iovecs(bytes: &mut [u8]) {
    let len_of = |iovec: &[u8]| {
        let len = iovec[IOVEC_LEN / 2..].try_into().expect("half of it");
        i64::try_from(u64::from_le_bytes(len)).ok()
    };
    let add = |sum: i64, iovec: &[u8]| sum.checked_add(len_of(iovec)?);
    if bytes.chunks_exact(IOVEC_LEN).try_fold(0, add).is_none() {
        return;
    }
    let mut left = MOST_WRITTEN;
    for iovec in bytes.chunks_exact_mut(IOVEC_LEN) {
        let most = len_of(iovec).map_or(0, i64::unsigned_abs).min(left);
        left -= most;
        iovec[IOVEC_LEN / 2..].copy_from_slice(&most.to_le_bytes());
    }
}

/// Replaces the filter of those changes of a kqueue that would watch a process.
fn check_changes(bytes: &mut [u8]) {
    if !bytes.len().is_multiple_of(KEVENT_LEN) {
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
    use kernel::MAX_ARGS;

    fn event(filter: u32) -> [u8; KEVENT_LEN] {
        let mut event = [7; KEVENT_LEN];
        event[FILTER_AT..FILTER_AT + 4].copy_from_slice(&filter.to_le_bytes());
        event
    }

    #[test]
    fn only_that_filter_is_taken_away_and_only_there() {
        let mut changes = [event(0), event(EVFILT_PROC), event(EVFILT_PROC << 8)].concat();
        let mut other = changes.clone();
        check_copied_in(435, true, &mut changes);
        assert_eq!(changes, [event(0), event(NO_FILTER), event(EVFILT_PROC << 8)].concat());
        let before = other.clone();
        check_copied_in(4, true, &mut other);
        check_copied_in(435, true, &mut other[..16]);
        assert_eq!(other, before, "another call, or its time");
    }

    #[test]
    fn a_write_is_shorter_than_what_the_console_takes_for_nothing() {
        let mut args = [0; MAX_ARGS];
        args[2] = 1 << 32;
        bound(4, &mut args);
        assert_eq!(args[2], MOST_WRITTEN);
        bound(4, &mut args);
        assert_eq!(args[2], MOST_WRITTEN, "what fits stays");
        args[2] = 1 << 63;
        bound(4, &mut args);
        assert_eq!(args[2], 1 << 63, "the kernel refuses it");
        args[..4].copy_from_slice(&[4, 1, 7, 1 << 32]);
        bound(0, &mut args);
        assert_eq!(args[..4], [4, 1, 7, MOST_WRITTEN], "by syscall(2)");
        let iovecs = |lens: [u64; 3]| {
            lens.iter().flat_map(|len| [7u64.to_le_bytes(), len.to_le_bytes()].concat()).collect()
        };
        let mut bytes: Vec<u8> = iovecs([1, 1 << 32, 8]);
        check_copied_in(121, false, &mut bytes);
        assert_eq!(bytes, iovecs([1, 1 << 32, 8]), "data");
        check_copied_in(121, true, &mut bytes);
        assert_eq!(bytes, iovecs([1, MOST_WRITTEN - 1, 0]));
        for refused in [[1, u64::MAX, 8], [1 << 32, i64::MAX as u64, 1]] {
            let mut bytes: Vec<u8> = iovecs(refused);
            check_copied_in(121, true, &mut bytes);
            assert_eq!(bytes, iovecs(refused), "the kernel refuses it");
        }
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
        assert_eq!(check(360, &args(1)), Ok(()), "an extattrctl without a file");
    }
}
