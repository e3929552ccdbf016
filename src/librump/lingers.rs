//! A check for files whose last close takes its time: a socket with SO_LINGER waits until its peer has
//! read, for 18 hours at most, and a terminal until it has been drained.
//!
//! A process that ends closes its files on an lwp that does not wait for that (see [`super::process`]).
//! Making such an lwp costs more than the rest of the process's end, so it is made only if there may be
//! such a file. Files move between processes, so there is one answer for all processes.
//!
//! Source: NetBSD `sys/kern/uipc_socket.c`, `soclose`; `sys/kern/tty.c`, `ttylclose`; `sys/sys/socket.h`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{indirect, load};
use kernel::Args;

/// True if a call has made a socket linger.
static LINGERS: AtomicBool = AtomicBool::new(false);

/// Looks at a call before it is made, and notes if it makes a socket linger.
pub fn look(number: i32, args: &Args) {
    if is_linger(number, args) && !LINGERS.load(Relaxed) {
        LINGERS.store(true, Relaxed);
    }
}

/// Returns `true` for a setsockopt(2) of SO_LINGER.
fn is_linger(number: i32, args: &Args) -> bool {
    use kernel::sys::SETSOCKOPT;
    const SOL_SOCKET: i32 = 0xffff;
    const SO_LINGER: i32 = 0x80;
    let (number, args) = indirect::direct(number, args);
    number == SETSOCKOPT && args[1] as i32 == SOL_SOCKET && args[2] as i32 == SO_LINGER
}

/// Returns `true` if there may be a file whose last close takes its time.
pub fn any() -> bool {
    static TERMINALS: OnceLock<bool> = OnceLock::new();
    LINGERS.load(Relaxed) || *TERMINALS.get_or_init(|| load::symbol("rumpns_ttylclose").is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::MAX_ARGS;

    #[test]
    fn a_call_that_makes_a_socket_linger_is_told_from_others() {
        let mut args = [0; MAX_ARGS];
        args[1..3].copy_from_slice(&[0xffff, 0x80]);
        assert!(is_linger(105, &args));
        assert!(!is_linger(106, &args));
        args[1] |= 1 << 40;
        assert!(is_linger(105, &args), "the kernel reads an int");
        args[2] = 0x04;
        assert!(!is_linger(105, &args));
        args[..4].copy_from_slice(&[105, 0, 0xffff, 0x80]);
        assert!(is_linger(198, &args), "an indirect one");
    }
}
