//! Timers of the kernel that are taken back while they expire.
//!
//! A callout that expires may arm itself again: a periodic timer's does, and a kqueue's. `callout_halt` takes
//! a callout back and, if its function is running, waits for that to end; what the function has armed
//! meanwhile it leaves. timer_delete(2), the end of a process and of a kqueue then free memory that the
//! kernel's clock still has in its lists, and some later tick brings the kernel down. So it is halted until it
//! is not pending.
//!
//! Source: NetBSD `sys/kern/kern_timeout.c`, `callout_halt`; `sys/kern/kern_time.c`, `itimerfree` and
//! `realtimerexpire`; `sys/kern/kern_event.c`, `filt_timerdetach` and `filt_timerexpire`; callout(9).

use std::ffi::c_void;

use crate::librump::in_kernel;

/// How often one is halted. Each time but the first it has expired since the last.
const MOST_HALTS: usize = 100;

type Halt = unsafe extern "C" fn(*mut c_void, *mut c_void) -> bool;
type Pending = unsafe extern "C" fn(*mut c_void) -> bool;

/// Takes a callout back and waits for it to end, if it is running. Whether it had expired.
///
/// # Safety
///
/// As of the kernel's own, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_callout_halt(callout: *mut c_void, lock: *mut c_void) -> bool {
    let Some(halt) = next!(in_kernel, c"rumpns_callout_halt" as Halt) else { return false };
    let Some(is_pending) = next!(in_kernel, c"rumpns_callout_pending" as Pending) else {
        return false;
    };
    // SAFETY: the caller's promise, of which halting changes nothing: the lock is held again.
    unsafe {
        let mut has_expired = halt(callout, lock);
        for _ in 1..MOST_HALTS {
            if !is_pending(callout) {
                break;
            }
            has_expired |= halt(callout, lock);
        }
        has_expired
    }
}
