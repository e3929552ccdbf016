//! Timers of the kernel that are halted while they expire.
//!
//! A callout that expires may arm itself again, as that of a periodic timer and of a kqueue does.
//! `callout_halt` halts a callout and, if its function is running, waits for that to end, but it leaves
//! what the function has armed meanwhile. timer_delete(2) and the end of a process or of a kqueue then
//! free memory that the kernel's clock still has in its lists, and some later tick brings the kernel
//! down. So here a callout is halted until it is not pending.
//!
//! Source: NetBSD `sys/kern/kern_timeout.c`, `callout_halt`; `sys/kern/kern_time.c`, `itimerfree` and
//! `realtimerexpire`; `sys/kern/kern_event.c`, `filt_timerdetach` and `filt_timerexpire`; callout(9).

use std::ffi::c_void;

use crate::librump::in_kernel;

/// The most times that a callout is halted. Each time but the first, it has expired since the last.
const MOST_HALTS: usize = 100;

type Halt = unsafe extern "C" fn(*mut c_void, *mut c_void) -> bool;
type Pending = unsafe extern "C" fn(*mut c_void) -> bool;

/// Halts a callout and waits for its end, if it is running. Returns `true` if the callout had expired.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_callout_halt(callout: *mut c_void, lock: *mut c_void) -> bool {
    let Some(halt) = next!(in_kernel, c"rumpns_callout_halt" as Halt) else { return false };
    let Some(is_pending) = next!(in_kernel, c"rumpns_callout_pending" as Pending) else {
        return false;
    };
    // SAFETY: the caller's promise, which still holds after a halt: the lock is held again.
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
