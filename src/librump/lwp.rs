//! The way of a worker into the kernel.
//!
//! Each worker has an lwp of its own, in init's process, made at its first entry. With that lwp, a
//! schedule is a compare-and-swap; without it, the kernel makes and frees one every time. Inside, the
//! worker switches to an lwp of the client's process and back. Those lwps are kept, too (see
//! [`super::process`]). A worker that ends frees its own lwp.
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

// SAFETY: it is only an address until a thread switches to it, and only the owner of the value can.
unsafe impl Send for Parked {}

thread_local! {
    static OWN: Cell<*mut Lwp> = const { Cell::new(ptr::null_mut()) };
}

/// The pid of init, in whose process every worker's own lwp is.
const INIT: libc::pid_t = 1;

/// A thread inside the kernel, with a CPU, on its own lwp unless it switched. Dropping this releases the
/// CPU; the thread is on its own lwp again by then.
pub struct Inside {
    upcalls: &'static Upcalls,
}

impl Parked {
    /// Returns the address of the lwp, for a borrower of the lwp.
    pub fn address(&self) -> *mut Lwp {
        self.0
    }
}

/// Returns `true` if this thread has an lwp of its own. The thread is on it while it is outside of the
/// kernel.
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

/// Frees the thread's own lwp, if it has one; otherwise the kernel would keep it after the thread's end.
/// A thread that enters again makes another.
pub fn end_thread() {
    if OWN.get().is_null() {
        return;
    }
    let Ok(inside) = enter() else {
        return;
    };
    OWN.set(ptr::null_mut());
    // SAFETY: the thread has a CPU, and is on its own lwp, which nobody else knows and which it does not
    // go back to. The kernel frees the lwp when the thread leaves, which it does next.
    unsafe { (inside.upcalls.lwproc_release)() };
}

impl Inside {
    /// Returns the upcalls, for use inside.
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
        // SAFETY: the thread has a CPU, and the lwp is on no other thread: there is one `Parked` of each
        // lwp, and its owner lends it to one thread at a time.
        unsafe { (self.upcalls.lwproc_switch)(*lwp) };
    }

    /// Switches to the thread's own lwp, unless the thread is on it: the kernel panics over a switch to
    /// the current lwp.
    pub fn switch_home(&self) {
        if self.current() != OWN.get() {
            self.switch_to(&Parked(OWN.get()));
        }
    }

    /// Switches to the thread's own lwp, and returns the previous one.
    pub fn switch_back(&self) -> Parked {
        let lwp = self.current();
        self.switch_home();
        Parked(lwp)
    }

    /// Frees the lwp that the thread is on (and the process, with its last lwp), and switches back.
    pub fn release(&self) {
        // SAFETY: the thread has a CPU, and is on an lwp that is not its own: the caller has switched to
        // that lwp, or made it.
        unsafe { (self.upcalls.lwproc_release)() };
        self.switch_home();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // SAFETY: the thread has had a CPU since `enter`, except in sleeps of the kernel's own.
        unsafe { (self.upcalls.unschedule)() };
    }
}
