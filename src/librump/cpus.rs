//! The kernel's CPUs: how many it has, and how to take one only if it is free.
//!
//! A thread is inside the kernel while it has one of these virtual CPUs. A long call keeps its CPU to the end,
//! for NetBSD takes nobody's away, and `schedule()` waits for as long as that. It tries the CPU that the lwp
//! was last on, then one more, then waits for that one, even if a third is free.
//!
//! Where it begins to wait it calls `rumpuser_cv_wait_nowrap`, which [`crate::librump::hypercall`] exports: a thread
//! that only tries leaves `schedule()` there (see [`escape`]). What that leaves behind in the kernel, by
//! `rump_schedule_cpu_interlock`, and why it does no harm:
//! - the CPU's mutex: released before.
//! - `rcpu_wanted` stays one higher. It only says whether who releases a CPU that is marked as wanted wakes
//!   who waits for it: then it broadcasts to nobody.
//! - `rcpu_prevlwp` stays `RCPULWP_WANTED`: who has the CPU finds that when it releases it, and takes the slow
//!   way once. A CPU that is free is never left so: who finds it free takes it, under the mutex.
//! - `l_stat` of the lwp is `LSRUN`, as it is of every lwp that a thread has switched away from.
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

/// CPUs for who has no core of the scheduler: the submission thread, and threads of the kernel's own.
const SPARE: usize = 3;

/// The most that are ever of use.
const MOST: usize = 64;

/// How many there are, as far as is known: the kernel asks once, as it boots.
static COUNT: AtomicUsize = AtomicUsize::new(2);

thread_local! {
    /// Where a thread goes that is in `schedule()` and does not want to wait there.
    static TRYING: Cell<*const Context> = const { Cell::new(ptr::null()) };
}

/// How many a kernel is to have whose calls run on so many cores: each keeps its CPU as long as it runs,
/// and who comes then is to find one.
pub fn wanted(cores: usize) -> usize {
    (cores + SPARE).min(MOST)
}

/// Notes how many there are.
pub fn set_count(count: usize) {
    COUNT.store(count.clamp(1, MOST), Relaxed);
}

/// Takes a CPU for the lwp this thread is on, as `schedule()` does. It looks at all of them before it waits.
///
/// # Safety
///
/// As `schedule()`: the thread is outside of the kernel.
pub unsafe fn take(upcalls: &Upcalls) {
    // SAFETY: the caller's promise.
    if !(1..COUNT.load(Relaxed)).any(|_| unsafe { try_take(upcalls) }) {
        // SAFETY: as above.
        unsafe { (upcalls.schedule)() };
    }
}

/// Takes a CPU after a sleep, as `backend_schedule()` does. It looks at all of them before it waits, if that is
/// all there is to take: an interlock would have to be given back, and so would the kernel's big lock, for which
/// the thread gives up the CPU that it has and waits for another, with the lock in its hand.
///
/// # Safety
///
/// As `backend_schedule()`.
pub unsafe fn take_again(upcalls: &Upcalls, nlocks: c_int, interlock: *mut c_void) {
    // SAFETY: the caller's promise; an lwp that sleeps is on its thread.
    let try_once = || unsafe { try_to(|| (upcalls.backend_schedule)(0, ptr::null_mut())) };
    let takes_more = nlocks != 0 || !interlock.is_null();
    if takes_more || !(1..COUNT.load(Relaxed)).any(|_| try_once()) {
        // SAFETY: as above.
        unsafe { (upcalls.backend_schedule)(nlocks, interlock) };
    }
}

/// Takes a CPU if the one the lwp was last on is free, or another that is looked at in turn.
///
/// # Safety
///
/// As `schedule()`, and the thread is on an lwp: without one the kernel makes one, and cannot be left then.
unsafe fn try_take(upcalls: &Upcalls) -> bool {
    // SAFETY: the caller's promise.
    unsafe { try_to(|| (upcalls.schedule)()) }
}

/// Calls a function that takes a CPU, and leaves it where it begins to wait. Returns whether it has one.
///
/// # Safety
///
/// The function may be called, holds nothing itself, and has taken nothing when it begins to wait.
unsafe fn try_to<F: Fn()>(mut take: F) -> bool {
    unsafe extern "C" fn call<F: Fn()>(take: *mut F) {
        // SAFETY: it is `try_to`'s, which waits for this.
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

/// Whether this thread only tries to take a CPU, and the way out of that. It tries no longer.
pub fn stop_trying() -> Option<WayOut> {
    NonNull::new(TRYING.replace(ptr::null()).cast_mut()).map(WayOut)
}

/// Leads out of a call that takes a CPU.
pub struct WayOut(NonNull<Context>);

impl WayOut {
    /// Goes that way.
    ///
    /// # Safety
    ///
    /// The thread is where the kernel begins to wait for a CPU, has given its mutex back, and nothing on its way
    /// there needs a drop.
    pub unsafe fn take(self) -> ! {
        // SAFETY: whoever tries is below this on the stack, and has its context there; the caller's promise.
        unsafe { escape::escape(self.0.as_ptr()) }
    }
}

/// librump's functions that set and clear the lwp a host thread is on.
#[derive(Clone, Copy)]
struct Current {
    set: unsafe extern "C" fn(*mut Lwp),
    clear: unsafe extern "C" fn(*mut Lwp),
}

impl Current {
    /// `None` if this kernel has none, or its `schedule()` cannot be left on this machine.
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

/// Whether [`Visit::begin`] ever succeeds.
pub fn can_visit() -> bool {
    Current::get().is_some()
}

/// A thread inside the kernel that has no lwp of its own, on one that it is lent. It ends with the CPU's
/// release.
///
/// The thread does not switch to the lwp but is put on it outside of the kernel, as the kernel's own threads
/// are. A switch would take locks.
pub struct Visit<'a> {
    pub upcalls: &'static Upcalls,
    current: Current,
    lwp: &'a Parked,
}

impl Visit<'_> {
    /// Enters the kernel if one of its CPUs is free.
    ///
    /// Whoever calls this sees to it that the lwp's credentials are those of its process: the kernel would fetch
    /// them here, under a lock.
    pub fn begin(lwp: &Parked) -> Option<Visit<'_>> {
        let (upcalls, current) = (upcalls::get()?, Current::get()?);
        if super::lwp::has_own() {
            return None;
        }
        // SAFETY: the thread is outside of the kernel and on no lwp. This one is on no thread: whoever has it
        // lends it.
        unsafe { (current.set)(lwp.address()) };
        let is_in = (0..COUNT.load(Relaxed)).any(|_| {
            // SAFETY: the thread is outside of the kernel, and on an lwp.
            unsafe { try_take(upcalls) }
        });
        if !is_in {
            // SAFETY: it is on this one, and still outside.
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
