//! The kernel's upcalls: the functions by which a host thread enters and leaves the rump kernel.
//!
//! librump hands them to librumpuser once, by `rumpuser_init`. That call is intercepted: librumpuser gets
//! a copy in which the two functions around its sleeps, `backend_unschedule` and `backend_schedule`, are
//! replaced. So every sleep of the rump kernel on a worker announces itself, and the worker gives its
//! core away first (see [`crate::scheduler::release_core`]).

use std::ffi::{c_char, c_int, c_long, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use super::{caught, cpus, current};
use crate::scheduler;

/// An lwp of the rump kernel. Only its address is used here.
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

// SAFETY: these are function pointers and spare words that nobody writes; the upcalls exist so that any
// thread may enter the kernel.
unsafe impl Send for Upcalls {}
// SAFETY: as above.
unsafe impl Sync for Upcalls {}

/// The kernel's own upcalls, unwrapped.
static UPCALLS: OnceLock<Upcalls> = OnceLock::new();

/// The version of the interface to which these upcalls belong (`RUMPUSER_VERSION`).
pub const VERSION: c_int = 17;

/// Returns the upcalls, once the kernel has given them.
pub fn get() -> Option<&'static Upcalls> {
    UPCALLS.get()
}

/// Keeps the kernel's upcalls, and returns those that librumpuser gets in their place.
pub fn intercept(upcalls: &Upcalls) -> Upcalls {
    let kept = UPCALLS.get_or_init(|| *upcalls);
    Upcalls { backend_unschedule, backend_schedule, ..*kept }
}

/// Gives up the kernel's CPU, and the core of the scheduler, for a sleep.
///
/// # Safety
///
/// The safety conditions of `rump_user_unschedule` hold: the calling thread has a CPU, `nlocks` is valid,
/// `interlock` is a mutex of the kernel or null.
pub unsafe extern "C" fn backend_unschedule(
    keep: c_int,
    nlocks: *mut c_int,
    interlock: *mut c_void,
) {
    let upcalls = UPCALLS.get().expect("set before librumpuser has this function");
    // A thread that had only tried to get a CPU has one now, and must have one again after its sleep.
    cpus::stop_trying();
    current::has_begun_wait();
    // SAFETY: the caller's promise is the one the kernel's function needs.
    unsafe { (upcalls.backend_unschedule)(keep, nlocks, interlock) };
    caught("backend_unschedule", (), scheduler::release_core);
}

/// Takes a core of the scheduler and a CPU of the kernel after a sleep.
///
/// # Safety
///
/// The safety conditions of `rump_user_schedule` hold: this follows [`backend_unschedule`] on the same
/// thread, with the values that it gave.
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
    // SAFETY: the caller has a CPU; `nlocks` is a local variable; there is no interlock.
    unsafe { backend_unschedule(0, &mut nlocks, std::ptr::null_mut()) };
    let result = catch_unwind(AssertUnwindSafe(sleep));
    // SAFETY: this follows the call above, on the same thread, with the values that it gave.
    unsafe { backend_schedule(nlocks, std::ptr::null_mut()) };
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
