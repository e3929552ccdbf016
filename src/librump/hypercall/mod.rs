//! The C surface that librump calls: `rumpuser_init`, the eight `rumpuser_sp_*`, its [`console`], the two that hand out
//! memory, of which [`pages`] are better off here, [`sleeps`] that a client which leaves has to end, how many
//! CPUs there are, where a thread waits for one, signals to nobody, [`callouts`] that expire as they are
//! taken back, and [`descriptors`] that a kqueue is to watch.
//!
//! librumpuser exports these symbols too. This program, or `librumpring.so` when it is preloaded,
//! comes earlier in the link scope, so librump finds these. Everything else of librumpuser stays.
//!
//! Most of them are called by the kernel on a worker, in the middle of a system call: which call
//! that is, and whose memory goes with it, is known by [`crate::librump::current`]. Two are
//! about the server itself, [`serve`]: the kernel asks for it, and says when it has halted.
//!
//! Source: NetBSD `sys/rump/include/rump/rumpuser.h`, rumpuser(3).

/// Finds a function by its name, once, as one of some type. A place that names one says what type NetBSD's
/// source gives it.
macro_rules! next {
    ($find:path, $name:literal as $Type:ty) => {{
        use std::sync::OnceLock;
        static NEXT: OnceLock<Option<$Type>> = OnceLock::new();
        *NEXT.get_or_init(|| {
            let next = $find($name)?;
            // SAFETY: the function of that name has this type, by the place that names it.
            Some(unsafe { std::mem::transmute::<std::ptr::NonNull<std::ffi::c_void>, $Type>(next) })
        })
    }};
}

mod callouts;
mod console;
mod descriptors;
mod exports;
mod pages;
mod serve;
mod sleeps;

pub use serve::{Serving, prepare, server};
