//! NetBSD's own kernel: librump, loaded at run time.
//!
//! Its calls sleep on threads, and its copies wait on them. What makes that bearable: every sleep
//! announces itself (see [`upcalls`]) and the worker gives its core away first.
//!
//! - [`cpus`]: the kernel's CPUs, and how to take one only if it is free.
//! - [`drive`]: what the kernel is given of the host.
//! - [`escape`] leaves a call that would not end.
//! - [`indirect`]: calls whose number is an argument.
//! - [`lingers`]: whether a file may take its time to be closed.
//! - [`load`] finds and loads the libraries, and boots the kernel.
//! - [`faults`]: what would bring the kernel down, and is refused.
//! - [`fifos`]: what loading one by one leaves out.
//! - [`lwp`] is how a worker enters it: the worker's own lwp, and those kept for each process.
//! - [`process`] is a client's process; [`owners`] is how the kernel knows its client.
//! - [`sleepers`]: sleeps that the kernel cannot end.
//! - [`timers`]: what the end of a process leaves out.
//! - [`upcalls`] are the kernel's functions for that; [`current`] is which call a worker is in.
//! - [`hypercall`] is the other direction: what the kernel calls.

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

use kernel::{Args, Client, Errno, Identity, Kernel, Process};

/// Runs what C has called. If it panics, which would end the program here, that is an error in the log and the
/// kernel is told `otherwise`.
pub fn caught<R>(name: &str, otherwise: R, run: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!("{name} panicked");
        otherwise
    })
}

/// The rump kernel of this process: there can be one.
pub struct Librump {
    identity: Identity,
}

impl Librump {
    /// The kernel that has given its upcalls, or `None` if there is none yet.
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

    /// Those that only look at what their process is: they take no lock, and copy nothing. A CPU of the kernel
    /// they have only if one is free: see [`cpus`].
    ///
    /// Source: NetBSD `sys/kern/kern_prot.c`.
    fn runs_inline(&self, number: i32, _args: &Args) -> bool {
        const GETPID: i32 = 20;
        const GETUID: i32 = 24;
        const GETEUID: i32 = 25;
        const GETPPID: i32 = 39;
        const GETEGID: i32 = 43;
        const GETGID: i32 = 47;
        matches!(number, GETPID | GETUID | GETEUID | GETPPID | GETEGID | GETGID)
            && cpus::can_visit()
    }

    /// write(2), sendto(2) and pwrite(2).
    fn copies_in(&self, number: i32, args: &Args) -> Option<(u64, u64)> {
        matches!(number, 4 | 133 | 174).then(|| (args[1], args[2]))
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
