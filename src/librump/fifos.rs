//! Fifos for a rump kernel that is loaded library by library.
//!
//! librumpvfs has a table of fifo operations in which every operation fails, and librumpvfs_fifofs has
//! the real table, under the same names. If they are linked together, the first in the order counts. If
//! they are loaded one after the other, librumpvfs always comes first: the tables of librumpvfs_fifofs
//! refer to its functions and variables, and the loader wants those at once. So the kernel has filled in
//! its vector of operations from the wrong table, and is asked here to do that again from the right one.
//!
//! Source: NetBSD `sys/rump/librump/rumpvfs/rumpfs.c`, `sys/kern/vfs_init.c`, `sys/miscfs/fifofs`.

use std::ffi::c_void;
use std::ptr::NonNull;

use super::load::{in_library, symbol};
use super::upcalls;

/// `struct vnodeopv_desc`: the address of the vector, and the entries that it is made from.
#[repr(C)]
struct Description {
    vector: NonNull<c_void>,
    entries: NonNull<c_void>,
}

/// Gives the kernel its fifos, if their library was loaded after librumpvfs. To be called from outside of
/// the kernel, once it has booted and before it has clients.
pub fn give() {
    let library = [c"librumpvfs_fifofs.so.0", c"librumpvfs_fifofs.so"];
    let Some(entries) = in_library(&library, c"rumpns_fifo_vnodeop_entries") else { return };
    let (Ok(used), Ok(vector), Ok(init), Some(upcalls)) = (
        symbol("rumpns_fifo_vnodeop_entries"),
        symbol("rumpns_fifo_vnodeop_p"),
        symbol("rumpns_vfs_opv_init"),
        upcalls::get(),
    ) else {
        return;
    };
    if used == entries {
        // The libraries were linked or preloaded in the right order.
        return;
    }
    type Init = unsafe extern "C" fn(*const *const Description);
    // SAFETY: the kernel's `vfs_opv_init` has this type.
    let init = unsafe { std::mem::transmute::<NonNull<c_void>, Init>(init) };
    let description = Description { vector, entries };
    let descriptions = [&raw const description, std::ptr::null()];
    // SAFETY: the thread is outside of the kernel, enters it and leaves it; the kernel has booted. It
    // reads the list, which ends in null, and keeps nothing of it. The vector is the kernel's variable,
    // and nobody uses a fifo yet.
    unsafe {
        (upcalls.schedule)();
        init(descriptions.as_ptr());
        (upcalls.unschedule)();
    }
}
