//! The kernel's upcalls: how a host thread enters and leaves the rump kernel.
//!
//! librump hands them to librumpuser once, by `rumpuser_init`. That call is intercepted: librumpuser
//! gets a copy in which the two around its sleeps, `backend_unschedule` and `backend_schedule`, are
//! ours. So every sleep of the rump kernel on a worker announces itself, and the worker gives its
//! core away first (see [`crate::scheduler::release_core`]).

use std::ffi::{c_char, c_int, c_long, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use super::{caught, cpus, current};
use crate::scheduler;

/// An lwp of the rump kernel; only its address is of use here.
#[repr(C)]
pub struct Lwp {
    _opaque: [u8; 0],
}

/// `struct rumpuser_hyperup`, of version 17 of the interface.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Upcalls {
    pub schedule: unsafe extern "C" fn(),
    pub unschedule: unsafe extern "C" fn(),
    pub backend_unschedule: unsafe extern "C" fn(c_int, *mut c_int, *mut c_void),
    pub backend_schedule: unsafe extern "C" fn(c_int, *mut c_void),
    pub lwproc_switch: unsafe extern "C" fn(*mut Lwp),
    pub lwproc_release: unsafe extern "C" fn(),
    pub lwproc_rfork: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> c_int,
    pub lwproc_newlwp: unsafe extern "C" fn(libc::pid_t) -> c_int,
    pub lwproc_curlwp: unsafe extern "C" fn() -> *mut Lwp,
    pub syscall: unsafe extern "C" fn(c_int, *mut c_void, *mut c_long) -> c_int,
    pub lwpexit: unsafe extern "C" fn(),
    pub execnotify: unsafe extern "C" fn(*const c_char),
    pub getpid: unsafe extern "C" fn() -> libc::pid_t,
    extra: [*mut c_void; 8],
}

// SAFETY: function pointers and spare words that nobody writes; the kernel may be entered by any
// thread, which is what the upcalls are for.
unsafe impl Send for Upcalls {}
// SAFETY: as above.
unsafe impl Sync for Upcalls {}

/// The kernel's own upcalls, unwrapped.
static UPCALLS: OnceLock<Upcalls> = OnceLock::new();

/// The version of the interface these are of (`RUMPUSER_VERSION`).
pub const VERSION: c_int = 17;

/// The upcalls, once the kernel has given them.
pub fn get() -> Option<&'static Upcalls> {
    UPCALLS.get()
}

/// Keeps the kernel's upcalls, and returns what librumpuser is to have in their place.
pub fn intercept(upcalls: &Upcalls) -> Upcalls {
    let kept = UPCALLS.get_or_init(|| *upcalls);
    Upcalls { backend_unschedule, backend_schedule, ..*kept }
}

/// The kernel's CPU is given up for a sleep.
///
/// # Safety
///
/// As `rump_user_unschedule`: the calling thread has a CPU, `nlocks` is valid, `interlock` is a
/// mutex of the kernel or null.
pub unsafe extern "C" fn backend_unschedule(
    keep: c_int,
    nlocks: *mut c_int,
    interlock: *mut c_void,
) {
    let upcalls = UPCALLS.get().expect("set before librumpuser has this function");
    // A thread that had only tried to get a CPU has one, and must have one again behind its sleep.
    cpus::stop_trying();
    current::has_begun_wait();
    // SAFETY: the caller's promise is the one the kernel's function needs.
    unsafe { (upcalls.backend_unschedule)(keep, nlocks, interlock) };
    caught("backend_unschedule", (), scheduler::release_core);
}

/// A CPU of the kernel is taken after a sleep.
///
/// # Safety
///
/// As `rump_user_schedule`: after [`backend_unschedule`] on the same thread, with what that one gave.
pub unsafe extern "C" fn backend_schedule(nlocks: c_int, interlock: *mut c_void) {
    let upcalls = UPCALLS.get().expect("set before librumpuser has this function");
    caught("backend_schedule", (), scheduler::take_core_again);
    // SAFETY: the caller's promise is the one the kernel's function needs.
    unsafe { cpus::take_again(upcalls, nlocks, interlock) };
}

/// Runs `sleep` without a CPU of the kernel, and without a core of the scheduler.
///
/// # Safety
///
/// The calling thread has a CPU of the kernel.
pub unsafe fn without_cpu<R>(sleep: impl FnOnce() -> R) -> R {
    let mut nlocks = 0;
    // SAFETY: the caller has a CPU; `nlocks` is ours; there is no interlock.
    unsafe { backend_unschedule(0, &mut nlocks, std::ptr::null_mut()) };
    let result = catch_unwind(AssertUnwindSafe(sleep));
    // SAFETY: it follows the call above, on the same thread, with what that gave.
    unsafe { backend_schedule(nlocks, std::ptr::null_mut()) };
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
