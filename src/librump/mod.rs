//! The kernel of NetBSD itself: librump, loaded at run time.
//!
//! Its calls sleep on threads, and its copies wait on them. That is bearable because every sleep
//! announces itself (see [`upcalls`]), and the worker gives its core away first.
//!
//! - [`cpus`]: the kernel's CPUs, and how to take one only if it is free.
//! - [`drive`]: files of the host that the kernel is given.
//! - [`escape`]: a way out of a call that would not end.
//! - [`indirect`]: calls whose number is an argument.
//! - [`lingers`]: a check for files that take their time to be closed.
//! - [`load`]: finds and loads the libraries, and boots the kernel.
//! - [`faults`]: calls that would bring the kernel down, and are refused.
//! - [`fifos`]: the fifos, which loading the libraries one by one leaves out.
//! - [`lwp`]: the way of a worker into the kernel, on its own lwp or one of a process.
//! - [`process`]: a client's process; [`owners`]: the number by which the kernel knows its client.
//! - [`sleepers`]: sleeps that the kernel cannot end.
//! - [`timers`]: timers, which the end of a process leaves out.
//! - [`upcalls`]: the kernel's functions for host threads; [`current`]: the call that a worker is in.
//! - [`hypercall`]: the other direction, functions that the kernel calls.

pub mod cpus;
pub mod current;
mod drive;
pub mod escape;
pub mod faults;
pub mod fifos;
pub mod hypercall;
mod indirect;
mod lingers;
pub mod load;
mod lwp;
mod owners;
mod process;
pub mod sleepers;
pub mod timers;
pub mod upcalls;

pub use drive::{Drive, DriveKind, Extent, load_module};
pub use load::{in_kernel, next_symbol};
pub use owners::{OwnerId, raise};
pub use upcalls::Upcalls;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kernel::{Args, Client, Errno, Identity, Kernel, Process, sys};

/// Runs a function that C has called. A panic, which would end the program here, becomes an error in the
/// log, and the kernel gets `otherwise`.
pub fn caught<R>(name: &str, otherwise: R, run: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!("{name} panicked");
        otherwise
    })
}

/// The rump kernel of this process. There can be only one.
pub struct Librump {
    identity: Identity,
}

impl Librump {
    /// Returns the kernel that has given its upcalls, or `None` if there is none yet.
    pub fn new(identity: Identity) -> Option<Librump> {
        upcalls::get().map(|_| Librump { identity })
    }
}

impl Kernel for Librump {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn restarts(&self) -> bool {
        false
    }

    /// Returns `true` for the calls that only look at their own process: they take no lock, and copy
    /// nothing. They run inline only if a CPU of the kernel is free: see [`cpus`].
    ///
    /// Source: NetBSD `sys/kern/kern_prot.c`.
    fn runs_inline(&self, number: i32, _args: &Args) -> bool {
        use sys::{GETEGID, GETEUID, GETGID, GETPID, GETPPID, GETUID};
        matches!(number, GETPID | GETUID | GETEUID | GETPPID | GETEGID | GETGID)
            && cpus::can_visit()
    }

    /// Returns the buffer of write(2), sendto(2) and pwrite(2).
    fn copies_in(&self, number: i32, args: &Args) -> Option<(u64, u64)> {
        matches!(number, sys::WRITE | sys::SENDTO | sys::PWRITE).then(|| (args[1], args[2]))
    }

    fn spawn(&self, client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        process::spawn(client, command)
    }

    fn thread_end(&self) {
        lwp::end_thread();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_ends_there() {
        assert_eq!(caught("a function", 14, || 7), 7);
        let panics = || std::panic::resume_unwind(Box::new("a panic that prints nothing"));
        assert_eq!(caught("a function", 14, panics), 14);
    }
}
