//! Descriptors that a kqueue is to watch.
//!
//! kevent(2) looks each one up by `fd_getfile`, after its changes have been copied in. A kqueue is not found there,
//! so that none watches itself by way of others (see [`crate::librump::faults`]). What was at a descriptor
//! before could be something else by then, so it is this look that decides.
//!
//! Source: NetBSD `sys/kern/kern_event.c`, `kevent1` and `kqueue_register`; `sys/kern/kern_descrip.c`,
//! `fd_getfile`; `sys/sys/file.h`.

use std::ffi::{c_uint, c_void};

use crate::librump::{current, faults, in_kernel};

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
    // SAFETY: a file that was found stays one for as long as its use is counted, and what it can do never changes.
    let Some(ops) = (unsafe { file.cast::<File>().as_ref() }).map(|file| file.ops) else {
        return file;
    };
    if !current::number().is_some_and(faults::is_kevent) || !current::finds_kqueue(ops.addr()) {
        return file;
    }
    if let Some(put) = next!(in_kernel, c"rumpns_fd_putfile" as PutFile) {
        // SAFETY: the use counted above.
        unsafe { put(fd) };
    }
    std::ptr::null_mut()
}
