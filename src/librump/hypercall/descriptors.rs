//! The places where the kernel looks up descriptors; two of its calls are kept from harm there.
//!
//! kevent(2) looks up each descriptor by `fd_getfile`, after its changes have been copied in. A kqueue is
//! not found there, so that no kqueue watches itself by way of others (see [`crate::librump::faults`]).
//! An earlier check would not do, because the descriptor could have become another file by then.
//!
//! fcntl(2) with `F_CLOSEM` looks up the last descriptor again and again, while another thread is closing
//! it. That may take as long as the sleep of a third thread, so the call sleeps in between.
//!
//! Source: NetBSD `sys/kern/kern_event.c`, `kevent1` and `kqueue_register`; `sys/kern/kern_descrip.c`,
//! `fd_getfile`; `sys/kern/sys_descrip.c`,
//! `sys_fcntl`; `sys/sys/file.h`.

use std::ffi::{c_uint, c_void};
use std::thread::sleep;
use std::time::Duration;

use crate::librump::{current, faults, in_kernel, upcalls};

/// The time that a call sleeps that waits for a descriptor to be closed: a tick of the kernel.
const TICK: Duration = Duration::from_millis(10);

/// `struct file` up to `f_ops`, which is the same for all files of one kind.
#[repr(C)]
struct File {
    _offset: i64,
    _cred: *const c_void,
    ops: *const c_void,
}

type GetFile = unsafe extern "C" fn(c_uint) -> *mut c_void;
type PutFile = unsafe extern "C" fn(c_uint);

/// Returns the file at a descriptor of the thread's process, and counts a use of the file. Returns null
/// if there is none.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls.
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
    // SAFETY: a file that was found stays one for as long as its use is counted, and its operations never
    // change.
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
