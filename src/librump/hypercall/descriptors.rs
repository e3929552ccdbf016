//! Where the kernel looks descriptors up, and two calls of it have to be kept from harm.
//!
//! kevent(2) looks each one up by `fd_getfile`, after its changes have been copied in. A kqueue is not found there,
//! so that none watches itself by way of others (see [`crate::librump::faults`]). What was at a descriptor
//! before could be something else by then, so it is this look that decides.
//!
//! fcntl(2) with `F_CLOSEM` looks the last one up again and again, while another thread is closing it. That may
//! take as long as a sleep of a third, so it sleeps in between.
//!
//! Source: NetBSD `sys/kern/kern_event.c`, `kevent1` and `kqueue_register`; `sys/kern/kern_descrip.c`,
//! `fd_getfile`; `sys/kern/sys_descrip.c`,
//! `sys_fcntl`; `sys/sys/file.h`.

use std::ffi::{c_uint, c_void};
use std::thread::sleep;
use std::time::Duration;

use crate::librump::{current, faults, in_kernel, upcalls};

/// How long a call sleeps that waits for a descriptor to be closed: a tick of the kernel.
const TICK: Duration = Duration::from_millis(10);

/// `struct file` as far as `f_ops`, which all files of one kind have in common.
#[repr(C)]
struct File {
    _offset: i64,
    _cred: *const c_void,
    ops: *const c_void,
}

type GetFile = unsafe extern "C" fn(c_uint) -> *mut c_void;
type PutFile = unsafe extern "C" fn(c_uint);

/// Returns the file at a descriptor of the thread's process, and counts a use of it; null if there is none.
///
/// # Safety
///
/// As of the kernel's own, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_fd_getfile(fd: c_uint) -> *mut c_void {
    let Some(get) = next!(in_kernel, c"rumpns_fd_getfile" as GetFile) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the caller's promise.
    let file = unsafe { get(fd) };
    let Some(called) = current::called() else { return file };
    if file.is_null() {
        if called.closes_many {
            // SAFETY: the thread has a CPU, and `sys_fcntl` holds nothing where it looks descriptors up.
            unsafe { upcalls::without_cpu(|| sleep(TICK)) };
        }
        return file;
    }
    // SAFETY: a file that was found stays one for as long as its use is counted, and what it can do never changes.
    let ops = unsafe { (*file.cast::<File>()).ops };
    if !faults::is_kevent(called.number) || !current::finds_kqueue(ops.addr()) {
        return file;
    }
    if let Some(put) = next!(in_kernel, c"rumpns_fd_putfile" as PutFile) {
        // SAFETY: the use counted above.
        unsafe { put(fd) };
    }
    std::ptr::null_mut()
}
