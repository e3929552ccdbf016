//! The kernel's CPUs: how many it has, and how to take one only if it is free.
//!
//! A thread is inside the kernel while it has one of these virtual CPUs. A long call keeps its CPU to the
//! end, because NetBSD takes no CPU away, and `schedule()` waits for as long as that. `schedule()` tries
//! the CPU that the lwp was last on, then one more, and then waits for that one, even if a third is free.
//!
//! `schedule()` begins to wait by a call of `rumpuser_cv_wait_nowrap`, which
//! [`crate::librump::hypercall`] exports. A thread that only tries leaves `schedule()` there (see
//! [`escape`]). This is what it leaves behind in the kernel, by `rump_schedule_cpu_interlock`, and why
//! that does no harm:
//! - The CPU's mutex is released before.
//! - `rcpu_wanted` stays one higher. It only decides if a thread that releases a CPU which is marked as
//!   wanted wakes those that wait for it: the thread then broadcasts to nobody.
//! - `rcpu_prevlwp` stays `RCPULWP_WANTED`. The thread that has the CPU finds that when it releases the
//!   CPU, and takes the slow way once. A free CPU is never left so, because a thread that finds it free
//!   takes it, under the mutex.
//! - `l_stat` of the lwp is `LSRUN`, as it is for every lwp that a thread has switched away from.
//!
//! Source: NetBSD `sys/rump/librump/rumpkern/scheduler.c`, `lwproc.c`.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::escape::{self, Context, call_escapable};
use super::load::symbol;
use super::lwp::Parked;
use super::upcalls::{self, Lwp, Upcalls};

/// The number of CPUs for threads that have no core of the scheduler: the submission thread, and the
/// kernel's own threads.
const SPARE: usize = 3;

/// The most CPUs that are ever of use.
const MOST: usize = 64;

/// The number of CPUs, as far as is known: the kernel asks once, as it boots.
static COUNT: AtomicUsize = AtomicUsize::new(2);

thread_local! {
    /// The context to which a thread returns that is in `schedule()` and does not want to wait there.
    static TRYING: Cell<*const Context> = const { Cell::new(ptr::null()) };
}

/// Returns the number of CPUs for a kernel whose calls run on `cores` cores. Each call keeps its CPU as
/// long as it runs, and a thread that comes then is to find a CPU.
pub fn wanted(cores: usize) -> usize {
    (cores + SPARE).min(MOST)
}

/// Sets the number of CPUs.
pub fn set_count(count: usize) {
    COUNT.store(count.clamp(1, MOST), Relaxed);
}

/// Takes a CPU for the lwp that this thread is on, as `schedule()` does, but looks at all CPUs before it
/// waits.
///
/// # Safety
///
/// The safety conditions of `schedule()` hold: the thread is outside of the kernel.
pub unsafe fn take(upcalls: &Upcalls) {
    // SAFETY: the caller's promise.
    if !(1..COUNT.load(Relaxed)).any(|_| unsafe { try_take(upcalls) }) {
        // SAFETY: as above.
        unsafe { (upcalls.schedule)() };
    }
}

/// Takes a CPU after a sleep, as `backend_schedule()` does. Looks at all CPUs before it waits, if the CPU
/// is all there is to take. An interlock would have to be given back, and so would the kernel's big lock:
/// for that lock, the thread gives up its CPU and waits for another with the lock held.
///
/// # Safety
///
/// The safety conditions of `backend_schedule()` hold.
pub unsafe fn take_again(upcalls: &Upcalls, nlocks: c_int, interlock: *mut c_void) {
    // SAFETY: the caller's promise; an lwp that sleeps is on its thread.
    let try_once = || unsafe { try_to(|| (upcalls.backend_schedule)(0, ptr::null_mut())) };
    let takes_more = nlocks != 0 || !interlock.is_null();
    if takes_more || !(1..COUNT.load(Relaxed)).any(|_| try_once()) {
        // SAFETY: as above.
        unsafe { (upcalls.backend_schedule)(nlocks, interlock) };
    }
}

/// Takes a CPU if the one that the lwp was last on is free, or another that is looked at in turn.
///
/// # Safety
///
/// The safety conditions of `schedule()` hold, and the thread is on an lwp: without one, the kernel makes
/// one, and cannot be left then.
unsafe fn try_take(upcalls: &Upcalls) -> bool {
    // SAFETY: the caller's promise.
    unsafe { try_to(|| (upcalls.schedule)()) }
}

/// Calls a function that takes a CPU, and leaves it where it begins to wait. Returns `true` if the thread
/// has a CPU.
///
/// # Safety
///
/// The function may be called, holds nothing itself, and has taken nothing when it begins to wait.
unsafe fn try_to<F: Fn()>(mut take: F) -> bool {
    unsafe extern "C" fn call<F: Fn()>(take: *mut F) {
        // SAFETY: `take` is the variable of `try_to`, which waits for this.
        unsafe { (*take)() };
    }
    let context = Context::new();
    TRYING.set(&raw const context);
    // SAFETY: the caller's promise. What may be left are frames of the kernel, of C, and two of Rust that have
    // nothing to drop.
    let is_in = unsafe { call_escapable(call::<F>, &raw mut take, &context) };
    TRYING.set(ptr::null());
    is_in
}

/// Returns the way out of `schedule()` if this thread only tries to take a CPU. The thread tries no
/// longer.
pub fn stop_trying() -> Option<WayOut> {
    NonNull::new(TRYING.replace(ptr::null()).cast_mut()).map(WayOut)
}

/// The way out of a call that takes a CPU.
pub struct WayOut(NonNull<Context>);

impl WayOut {
    /// Leaves the call that takes a CPU.
    ///
    /// # Safety
    ///
    /// The thread is where the kernel begins to wait for a CPU, has released the CPU's mutex, and no
    /// frame on its way there needs a drop.
    pub unsafe fn take(self) -> ! {
        // SAFETY: `try_to` is below this on the stack, and has its context there; the caller's promise.
        unsafe { escape::escape(self.0.as_ptr()) }
    }
}

/// The functions of librump that set and clear the lwp of a host thread.
#[derive(Clone, Copy)]
struct Current {
    set: unsafe extern "C" fn(*mut Lwp),
    clear: unsafe extern "C" fn(*mut Lwp),
}

impl Current {
    /// Returns the functions, or `None` if this kernel has none or its `schedule()` cannot be left on
    /// this machine.
    fn get() -> Option<Current> {
        static CURRENT: OnceLock<Option<Current>> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            type Function = unsafe extern "C" fn(*mut Lwp);
            // SAFETY: librump's functions of these names have this type.
            let typed =
                |symbol| unsafe { std::mem::transmute::<NonNull<c_void>, Function>(symbol) };
            let set = symbol("rump_lwproc_curlwp_set").ok().map(typed)?;
            let clear = symbol("rump_lwproc_curlwp_clear").ok().map(typed)?;
            escape::IS_POSSIBLE.then_some(Current { set, clear })
        })
    }
}

/// Returns `true` if [`Visit::begin`] can succeed at all.
pub fn can_visit() -> bool {
    Current::get().is_some()
}

/// A visit of the kernel by a thread without an lwp of its own, on an lwp that it is lent. The visit ends
/// with the release of the CPU.
///
/// The thread does not switch to the lwp. It is put on the lwp outside of the kernel, as the kernel's own
/// threads are. A switch would take locks.
pub struct Visit<'a> {
    pub upcalls: &'static Upcalls,
    current: Current,
    lwp: &'a Parked,
}

impl Visit<'_> {
    /// Enters the kernel if one of its CPUs is free.
    ///
    /// The caller makes sure that the lwp's credentials are those of its process: otherwise the kernel
    /// would fetch them here, under a lock.
    pub fn begin(lwp: &Parked) -> Option<Visit<'_>> {
        let (upcalls, current) = (upcalls::get()?, Current::get()?);
        if super::lwp::has_own() {
            return None;
        }
        // SAFETY: the thread is outside of the kernel and on no lwp. This lwp is on no thread: its owner
        // lends it.
        unsafe { (current.set)(lwp.address()) };
        let is_in = (0..COUNT.load(Relaxed)).any(|_| {
            // SAFETY: the thread is outside of the kernel, and on an lwp.
            unsafe { try_take(upcalls) }
        });
        if !is_in {
            // SAFETY: the thread is on this lwp, and still outside.
            unsafe { (current.clear)(lwp.address()) };
            return None;
        }
        Some(Visit { upcalls, current, lwp })
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // SAFETY: the thread has had a CPU since `begin`, and is on the lwp until it is taken off it.
        unsafe {
            (self.upcalls.unschedule)();
            (self.current.clear)(self.lwp.address());
        }
    }
}
