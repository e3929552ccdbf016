//! The C surface that librump calls: `rumpuser_init`, the eight `rumpuser_sp_*`, the two that hand out
//! memory, of which [`pages`] are better off here, [`sleeps`] that a client which leaves has to end, how many
//! CPUs there are, where a thread waits for one, signals to nobody, and [`callouts`] that expire as they are
//! taken back.
//!
//! librumpuser exports these symbols too. This program, or `librumpring.so` when it is preloaded,
//! comes earlier in the link scope, so librump finds these. Everything else of librumpuser stays.
//!
//! Most of them are called by the kernel on a worker, in the middle of a system call: which call
//! that is, and whose memory goes with it, is known by [`crate::kernel::librump::current`]. Two are
//! about the server itself, [`serve`]: the kernel asks for it, and says when it has halted.
//!
//! Source: NetBSD `sys/rump/include/rump/rumpuser.h`, rumpuser(3).

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use crate::kernel::librump::{load, next_symbol};

mod callouts;
mod exports;
mod pages;
mod serve;
mod sleeps;

pub use serve::{Serving, prepare, server};

/// The kernel's function of a name that this program or library exports itself.
fn in_kernel(name: &CStr) -> Option<NonNull<c_void>> {
    load::in_library(&[c"librump.so.0", c"librump.so"], name).or_else(|| next_symbol(name))
}
