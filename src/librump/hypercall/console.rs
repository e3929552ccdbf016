//! The kernel's console, and the end of the kernel. librumpuser's functions wait for the reader of
//! stdout, with a CPU of the kernel taken, so clients that write to the console could keep everybody
//! waiting. Here, the output is queued (see [`crate::output`]).
//!
//! Source: NetBSD `lib/librumpuser/rumpuser.c`; rumpuser(3).

use std::ffi::c_int;
use std::process::{abort, exit};
use std::sync::Once;

use crate::librump::caught;
use crate::output;

/// The status of a kernel that ends by a panic (`RUMPUSER_PANIC`).
const PANIC: c_int = -1;

static AT_EXIT: Once = Once::new();

/// Prints a character on the console.
#[unsafe(no_mangle)]
pub extern "C" fn rumpuser_putchar(character: c_int) {
    caught("rumpuser_putchar", (), || {
        AT_EXIT.call_once(|| {
            // SAFETY: the function may be called whenever the process ends; it cannot unwind.
            unsafe { libc::atexit(at_exit) };
        });
        // putchar(3) converts the character like this.
        output::print_byte(character as u8);
    });
}

/// Writes what is queued, as the process ends.
extern "C" fn at_exit() {
    caught("at_exit", (), output::flush);
}

/// Ends the process, with this status or by a panic.
#[unsafe(no_mangle)]
pub extern "C" fn rumpuser_exit(status: c_int) -> ! {
    b"halted\n".iter().for_each(|&byte| rumpuser_putchar(byte.into()));
    if status == PANIC {
        at_exit();
        abort();
    }
    exit(status)
}
