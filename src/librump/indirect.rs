//! The indirect calls syscall(2) and __syscall(2), whose first argument is the number of the call to
//! make. Whatever looks at calls by their numbers looks through these.
//!
//! Source: NetBSD `sys/kern/sys_syscall.c`, `sys/kern/syscalls.master`.

use kernel::{
    Args,
    sys::{SYSCALL, SYSCALL64},
};

/// The bits of the number that the kernel looks at: `SYS_NSYSENT - 1`.
const MASK: u64 = 511;

/// Returns the number of the call that is made, and its arguments. The kernel refuses a call that is
/// indirect again.
pub fn direct(number: i32, args: &Args) -> (i32, &[u64]) {
    match number {
        SYSCALL | SYSCALL64 => ((args[0] & MASK) as i32, &args[1..]),
        _ => (number, &args[..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::MAX_ARGS;

    #[test]
    fn an_indirect_call_is_looked_through() {
        let mut args = [0; MAX_ARGS];
        args[..2].copy_from_slice(&[430 + 512, 7]);
        for number in [0, 198] {
            let (made, with) = direct(number, &args);
            assert_eq!((made, with[0], with.len()), (430, 7, MAX_ARGS - 1));
        }
        assert_eq!(direct(20, &args), (20, &args[..]));
    }
}
