//! The C functions that librump calls: `rumpuser_init`, the eight `rumpuser_sp_*`, the [`console`], the
//! two that allocate memory (its [`pages`] are better off here), [`sleeps`] that end when their client
//! leaves, the number of CPUs, the wait for one, signals to nobody, [`callouts`] that expire as they are
//! halted, and [`descriptors`] that a kqueue is to watch.
//!
//! librumpuser exports these symbols, too. This program, or `librumpring.so` when it is preloaded, comes
//! earlier in the link scope, so librump finds its functions. Everything else of librumpuser stays.
//!
//! The kernel calls most of these functions on a worker, in the middle of a system call.
//! [`crate::librump::current`] knows which call that is, and the client's memory. Two functions are about
//! the server itself, in [`serve`]: the kernel asks for a server, and tells when it has halted.
//!
//! Source: NetBSD `sys/rump/include/rump/rumpuser.h`, rumpuser(3).

/// Finds a function by its name, once. The caller of the macro states the function's type, as NetBSD's
/// source gives it.
macro_rules! next {
    ($find:path, $name:literal as $Type:ty) => {{
        use std::sync::OnceLock;
        static NEXT: OnceLock<Option<$Type>> = OnceLock::new();
        *NEXT.get_or_init(|| {
            let next = $find($name)?;
            // SAFETY: the function of that name has this type, as the caller of the macro states.
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
