//! How a worker enters the kernel.
//!
//! Each worker has an lwp of its own, in init's process, made at its first entry: with it a
//! schedule is a compare-and-swap, without it the kernel makes and frees one every time. Inside, the
//! worker switches to an lwp of the client's process and back; those are kept, too (see
//! [`super::process`]). A worker that ends frees its own.
//!
//! Source: NetBSD `sys/rump/librump/rumpkern/scheduler.c` and `lwproc.c`, rump_lwproc(3).

use std::cell::Cell;
use std::ptr;

use super::cpus;
use super::upcalls::{self, Lwp, Upcalls};
use kernel::Errno;

/// An lwp that is on no thread.
#[derive(Debug, PartialEq, Eq)]
pub struct Parked(*mut Lwp);

// SAFETY: it is only an address until a thread switches to it, and who has the value is the only one
// who can.
unsafe impl Send for Parked {}

thread_local! {
    static OWN: Cell<*mut Lwp> = const { Cell::new(ptr::null_mut()) };
}

/// init's process, where every worker's own lwp is.
const INIT: libc::pid_t = 1;

/// A thread inside the kernel, with a CPU, on its own lwp unless it switched. Ends with the CPU's
/// release, on its own lwp again.
pub struct Inside {
    upcalls: &'static Upcalls,
}

impl Parked {
    /// The lwp, for who has borrowed it.
    pub fn address(&self) -> *mut Lwp {
        self.0
    }
}

/// Whether this thread has an lwp of its own, which it is on while it is outside of the kernel.
pub fn has_own() -> bool {
    !OWN.get().is_null()
}

/// Enters the kernel.
pub fn enter() -> Result<Inside, Errno> {
    let upcalls = upcalls::get().ok_or(Errno::ENXIO)?;
    if has_own() {
        // SAFETY: the thread is not inside; the kernel has booted, or it would not have a server.
        unsafe { cpus::take(upcalls) };
    } else {
        // SAFETY: as above.
        unsafe { (upcalls.schedule)() };
    }
    let inside = Inside { upcalls };
    if OWN.get().is_null() {
        inside.make_lwp(INIT)?;
        OWN.set(inside.current());
    }
    Ok(inside)
}

/// Frees the thread's own lwp, if it has one: the kernel keeps it otherwise when the thread has ended. A
/// thread that enters again makes another.
pub fn end_thread() {
    if OWN.get().is_null() {
        return;
    }
    let Ok(inside) = enter() else {
        return;
    };
    OWN.set(ptr::null_mut());
    // SAFETY: the thread has a CPU, and is on its own lwp, which nobody else knows and which it does not go
    // back to. The kernel frees it when the thread leaves, next of all.
    unsafe { (inside.upcalls.lwproc_release)() };
}

impl Inside {
    /// The upcalls, for use inside.
    pub fn upcalls(&self) -> &'static Upcalls {
        self.upcalls
    }

    /// Makes an lwp in a process and switches to it.
    pub fn make_lwp(&self, pid: libc::pid_t) -> Result<(), Errno> {
        // SAFETY: the thread has a CPU.
        match unsafe { (self.upcalls.lwproc_newlwp)(pid) } {
            0 => Ok(()),
            error => Err(Errno(error)),
        }
    }

    fn current(&self) -> *mut Lwp {
        // SAFETY: the thread has a CPU.
        unsafe { (self.upcalls.lwproc_curlwp)() }
    }

    /// Switches to an lwp, which its owner lends until the thread has switched away again.
    pub fn switch_to(&self, Parked(lwp): &Parked) {
        // SAFETY: the thread has a CPU, and the lwp is on no other thread: there is one `Parked` of
        // each, and its owner lends it to one thread at a time.
        unsafe { (self.upcalls.lwproc_switch)(*lwp) };
    }

    /// Switches to the thread's own lwp, if it is not there: the kernel panics over a switch to where
    /// one is.
    pub fn switch_home(&self) {
        if self.current() != OWN.get() {
            self.switch_to(&Parked(OWN.get()));
        }
    }

    /// Switches to the thread's own lwp; returns the one it was on.
    pub fn switch_back(&self) -> Parked {
        let lwp = self.current();
        self.switch_home();
        Parked(lwp)
    }

    /// Frees the lwp the thread is on, and its process with the last one; switches back.
    pub fn release(&self) {
        // SAFETY: the thread has a CPU, and is on an lwp that is not its own: who calls this has
        // switched to it, or made it.
        unsafe { (self.upcalls.lwproc_release)() };
        self.switch_home();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: the thread has had a CPU since `enter`, but for sleeps of the kernel's own.
        unsafe { (self.upcalls.unschedule)() };
    }
}
