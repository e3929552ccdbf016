//! Timers of processes that end: the kernel is made to free them.
//!
//! In NetBSD, a process ends with `exit1`, which frees its timers. A process in a rump kernel ends
//! without it: its timers stay armed and know the process. When one expires, the kernel reads the freed
//! process to see which process to signal, and that may be the one that came next in the same memory. So
//! the kernel is given an exit hook that frees the timers. The kernel runs the hook while the process is
//! still whole, however it ends.
//!
//! Source: NetBSD `sys/kern/kern_exit.c`, `exit1`; `sys/kern/kern_time.c`, `timer_intr`;
//! `sys/rump/librump/rumpkern/lwproc.c`, `lwproc_proc_free`; `sys/kern/kern_hook.c`.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use super::load::{LoadError, symbol};
use super::upcalls;

/// The argument of `timers_free` for all timers.
const TIMERS_ALL: c_int = 0;

type TimersFree = unsafe extern "C" fn(*mut c_void, c_int);
type Mutex = unsafe extern "C" fn(*mut c_void);

/// The kernel's functions that the hook needs, and its lock of processes.
struct Kernel {
    timers_free: TimersFree,
    mutex_enter: Mutex,
    mutex_exit: Mutex,
    proc_lock: NonNull<*mut c_void>,
}

// SAFETY: these are functions that any thread inside the kernel may call, and a variable that is set when
// the kernel boots.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

static KERNEL: OnceLock<Kernel> = OnceLock::new();

/// Makes timers end with their process. To be called once, from outside of the kernel, when it has booted
/// and before it has clients.
pub fn end_with_process() {
    if let Err(error) = establish() {
        tracing::warn!("{error}: timers outlive their process");
    }
}

fn establish() -> Result<(), LoadError> {
    type Hook = unsafe extern "C" fn(*mut c_void, *mut c_void);
    type Establish = unsafe extern "C" fn(Hook, *mut c_void) -> *mut c_void;
    let establish = symbol("rumpns_exithook_establish")?;
    let upcalls = upcalls::get().ok_or(LoadError::Symbol("upcalls"))?;
    // SAFETY: the kernel's functions have these types.
    let kernel = unsafe {
        Kernel {
            timers_free: std::mem::transmute::<NonNull<c_void>, TimersFree>(timers_free()?),
            mutex_enter: std::mem::transmute::<NonNull<c_void>, Mutex>(symbol(
                "rumpns_mutex_enter",
            )?),
            mutex_exit: std::mem::transmute::<NonNull<c_void>, Mutex>(symbol("rumpns_mutex_exit")?),
            proc_lock: symbol("rumpns_proc_lock")?.cast(),
        }
    };
    if KERNEL.set(kernel).is_err() {
        return Ok(());
    }
    // SAFETY: as above; the thread is outside of the kernel, enters it and leaves it; the hook is there
    // for good.
    unsafe {
        let establish = std::mem::transmute::<NonNull<c_void>, Establish>(establish);
        (upcalls.schedule)();
        let hook = establish(free, ptr::null_mut());
        (upcalls.unschedule)();
        if hook.is_null() { Err(LoadError::Symbol("room for an exit hook")) } else { Ok(()) }
    }
}

/// Returns `timers_free`, which later kernels call `ptimers_free`.
fn timers_free() -> Result<NonNull<c_void>, LoadError> {
    symbol("rumpns_timers_free").or_else(|_| symbol("rumpns_ptimers_free"))
}

/// The exit hook: frees the timers of a process.
///
/// # Safety
///
/// The kernel calls this on a thread with a CPU and without locks; the process has no lwp any more.
unsafe extern "C" fn free(process: *mut c_void, _arg: *mut c_void) {
    let Some(kernel) = KERNEL.get() else { return };
    // SAFETY: the caller's promise; only timers know the process. A timer that has just expired may be
    // about to signal it. That is done under the lock of processes, so once this thread has got the lock,
    // it is over.
    unsafe {
        (kernel.timers_free)(process, TIMERS_ALL);
        let proc_lock = *kernel.proc_lock.as_ref();
        (kernel.mutex_enter)(proc_lock);
        (kernel.mutex_exit)(proc_lock);
    }
}
