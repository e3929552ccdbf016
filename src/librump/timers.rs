//! Timers of processes that end.
//!
//! The end of a process in NetBSD is `exit1`, which frees its timers. A process in a rump kernel ends
//! without: its timers stay armed, know the process, and when one expires the kernel reads the freed process
//! to see whom to signal. That may be the process that came next in the same memory. So the kernel is given
//! an exit hook that does what is missing, which it runs while the process is still whole, however it ends.
//!
//! Source: NetBSD `sys/kern/kern_exit.c`, `exit1`; `sys/kern/kern_time.c`, `timer_intr`;
//! `sys/rump/librump/rumpkern/lwproc.c`, `lwproc_proc_free`; `sys/kern/kern_hook.c`.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use super::load::{LoadError, symbol};
use super::upcalls;

/// What `timers_free` is to free.
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

// SAFETY: functions that any thread inside the kernel may call, and a variable that is set when it boots.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

static KERNEL: OnceLock<Kernel> = OnceLock::new();

/// Has timers end with their process. To be called once, when the kernel has booted and before it has
/// clients, from outside it.
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
    // SAFETY: as above; the thread is outside of the kernel, enters it and leaves it; the hook is there for
    // good.
    unsafe {
        let establish = std::mem::transmute::<NonNull<c_void>, Establish>(establish);
        (upcalls.schedule)();
        let hook = establish(free, ptr::null_mut());
        (upcalls.unschedule)();
        if hook.is_null() { Err(LoadError::Symbol("room for an exit hook")) } else { Ok(()) }
    }
}

/// `timers_free`, which later kernels call `ptimers_free`.
fn timers_free() -> Result<NonNull<c_void>, LoadError> {
    symbol("rumpns_timers_free").or_else(|_| symbol("rumpns_ptimers_free"))
}

/// The exit hook: frees the timers of a process.
///
/// # Safety
///
/// Called by the kernel, on a thread with a CPU and without locks; the process has no lwp any more.
unsafe extern "C" fn free(process: *mut c_void, _arg: *mut c_void) {
    let Some(kernel) = KERNEL.get() else { return };
    // SAFETY: the caller's promise; nobody but timers knows the process. One that has just expired may be
    // about to signal it: that is done under the lock of processes, so whoever gets the lock afterwards
    // knows that it is over.
    unsafe {
        (kernel.timers_free)(process, TIMERS_ALL);
        let proc_lock = *kernel.proc_lock.as_ref();
        (kernel.mutex_enter)(proc_lock);
        (kernel.mutex_exit)(proc_lock);
    }
}
