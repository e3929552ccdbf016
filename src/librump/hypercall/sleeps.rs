//! The kernel's functions for sleeps, replaced so that a sleep ends when its client leaves, or so that it
//! does not end then: see [`crate::librump::sleepers`].
//!
//! All but one are not hypercalls but the kernel's own functions. The kernel consists of shared
//! libraries, so it calls even its own functions through the loader, and finds these first.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::sync::OnceLock;
use std::time::Duration;

use crate::librump::escape::{Context, escape};
use crate::librump::{current, in_kernel, next_symbol, upcalls};
use kernel::Errno;

/// `RUMPUSER_CLOCK_RELWALL`: the sleep is for a time, not until one.
const FOR_A_TIME: c_int = 0;

/// `PCATCH`: the caller of the sleep is ready to get EINTR.
const CATCH: c_int = 0x100;

/// Sleeps. If this is a pause of a call that can be left, the pause and the call end when the client
/// leaves.
///
/// # Safety
///
/// The thread has a CPU of the kernel. If the thread is in a call that can be left, it pauses only for
/// that call, and holds no lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpuser_clock_sleep(clock: c_int, sec: i64, nsec: c_long) -> c_int {
    type Sleep = unsafe extern "C" fn(c_int, i64, c_long) -> c_int;
    let way_out =
        current::in_call(|call| call.way_out.is_open().then_some(&raw const call.way_out));
    if let Some(Some(way_out)) = way_out
        && clock == FOR_A_TIME
    {
        // SAFETY: the caller's promise.
        unsafe { pause(way_out, time(sec, nsec)) };
        return 0;
    }
    match next!(next_symbol, c"rumpuser_clock_sleep" as Sleep) {
        // SAFETY: the caller's promise.
        Some(next) => unsafe { next(clock, sec, nsec) },
        None => Errno::ENOSYS.0,
    }
}

/// Sleeps, and leaves the call if it is to end.
///
/// # Safety
///
/// The safety conditions of [`rumpuser_clock_sleep`] hold; the way out is open, on this thread.
unsafe fn pause(way_out: *const Context, time: Duration) {
    let sleep = || current::in_call(|call| call.sleepers.pause(time)) == Some(true);
    // SAFETY: the caller has a CPU, and has one again afterwards, which the call needs to end.
    let is_over = unsafe { upcalls::without_cpu(sleep) };
    if is_over {
        // SAFETY: the way out is open. The frames in between are of the kernel, which holds nothing for a
        // call that can be left, of `invoke`, and of these two functions, which have nothing to drop.
        unsafe { escape(way_out) };
    }
}

fn time(sec: i64, nsec: c_long) -> Duration {
    let sec = u64::try_from(sec).unwrap_or(0);
    Duration::from_secs(sec).saturating_add(Duration::from_nanos(u64::try_from(nsec).unwrap_or(0)))
}

/// Sleeps on a channel until `wakeup` is called on the channel, or for some time.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_tsleep(
    channel: *const c_void,
    priority: c_int,
    message: *const c_char,
    ticks: c_int,
) -> c_int {
    type Sleep = unsafe extern "C" fn(*const c_void, c_int, *const c_char, c_int) -> c_int;
    let Some(next) = next!(in_kernel, c"rumpns_tsleep" as Sleep) else {
        return Errno::ENOSYS.0;
    };
    if is_over(priority) {
        return Errno::EINTR.0;
    }
    // SAFETY: the caller's promise.
    let slept = on_channel(channel, || unsafe { next(channel, priority, message, ticks) });
    if is_over(priority) { Errno::EINTR.0 } else { slept }
}

/// Sleeps as [`rumpns_tsleep`] does, and releases a lock meanwhile.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_mtsleep(
    channel: *const c_void,
    priority: c_int,
    message: *const c_char,
    ticks: c_int,
    lock: *mut c_void,
) -> c_int {
    type Sleep =
        unsafe extern "C" fn(*const c_void, c_int, *const c_char, c_int, *mut c_void) -> c_int;
    let Some(next) = next!(in_kernel, c"rumpns_mtsleep" as Sleep) else {
        return Errno::ENOSYS.0;
    };
    // SAFETY: the caller's promise.
    let slept = on_channel(channel, || unsafe { next(channel, priority, message, ticks, lock) });
    if is_over(priority) { Errno::EINTR.0 } else { slept }
}

/// Has the kernel wait for a condition by `next`. Returns `None` if the thread's lwp was told to end. The
/// kernel would find that out itself, and then give up its CPU for a moment with the condition's lock
/// held. If others spin for that lock, with all the other CPUs, the thread never gets a CPU again.
fn unless_ending<R>(next: impl FnOnce() -> R) -> Option<R> {
    current::begin_wait().then(|| {
        let waited = next();
        current::has_begun_wait();
        waited
    })
}

/// Waits for a condition, however long that takes. The kernel's own function does not wait once the lwp
/// was told to end: it returns, with the lock held all the while, and a caller that waits in a loop does
/// so for ever.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls: a condition variable of the
/// kernel, and its lock, held.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_cv_wait(condition: *mut *mut c_void, lock: *mut *mut c_void) {
    type Wait = unsafe extern "C" fn(*mut *mut c_void, *mut *mut c_void);
    let Some(next) = next!(in_kernel, c"rumpns_cv_wait" as Wait) else {
        return;
    };
    // SAFETY: the caller's promise. The first word of both is the pointer to librumpuser's object.
    unsafe {
        if unless_ending(|| next(condition, lock)).is_none() {
            host_wait(*condition, *lock);
        }
    }
}

/// Waits for a condition, until the client leaves.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls: a condition variable of the
/// kernel, and its lock, held.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_cv_wait_sig(
    condition: *mut *mut c_void,
    lock: *mut *mut c_void,
) -> c_int {
    type Wait = unsafe extern "C" fn(*mut *mut c_void, *mut *mut c_void) -> c_int;
    let Some(next) = next!(in_kernel, c"rumpns_cv_wait_sig" as Wait) else {
        return Errno::ENOSYS.0;
    };
    // SAFETY: the caller's promise.
    let waited = unless_ending(|| unsafe { next(condition, lock) });
    // SAFETY: the caller's promise.
    waited.unwrap_or_else(|| unsafe { interrupted(condition, lock) })
}

/// Waits for a moment and returns EINTR, because the lwp was told to end. A caller may wait on, as the
/// end of a pipe does until the pipe's other users have left. Without that moment, it would keep those
/// users from the lock and from its CPU for ever.
///
/// # Safety
///
/// The safety conditions of the kernel's own wait hold: a condition variable of the kernel, and its lock,
/// held.
unsafe fn interrupted(condition: *mut *mut c_void, lock: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's promise. The first word of both is the pointer to librumpuser's object.
    unsafe { host_timedwait(*condition, *lock, 1) };
    Errno::EINTR.0
}

/// Waits for a condition for some time. The kernel's sleep queues wait by this function, too, and get
/// EINTR if the lwp was told to end.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls: a condition variable of the
/// kernel, and its lock, held.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_cv_timedwait(
    condition: *mut *mut c_void,
    lock: *mut *mut c_void,
    ticks: c_int,
) -> c_int {
    // SAFETY: the caller's promise. The first word of both is the pointer to librumpuser's object.
    unsafe {
        match timedwait(condition, lock, ticks) {
            Some(waited) => waited,
            None if IN_QUEUE.get() => Errno::EINTR.0,
            None => host_timedwait(*condition, *lock, ticks),
        }
    }
}

/// Waits for a condition for some time, or until the client leaves.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls: a condition variable of the
/// kernel, and its lock, held.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_cv_timedwait_sig(
    condition: *mut *mut c_void,
    lock: *mut *mut c_void,
    ticks: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { timedwait(condition, lock, ticks).unwrap_or_else(|| interrupted(condition, lock)) }
}

/// Calls the kernel's wait for some time. Returns `None` if the lwp was told to end.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls: a condition variable of the
/// kernel, and its lock, held.
unsafe fn timedwait(
    condition: *mut *mut c_void,
    lock: *mut *mut c_void,
    ticks: c_int,
) -> Option<c_int> {
    type Wait = unsafe extern "C" fn(*mut *mut c_void, *mut *mut c_void, c_int) -> c_int;
    match next!(in_kernel, c"rumpns_cv_timedwait" as Wait) {
        // SAFETY: the caller's promise.
        Some(next) => unless_ending(|| unsafe { next(condition, lock, ticks) }),
        None => Some(Errno::ENOSYS.0),
    }
}

thread_local! {
    /// True if the thread sleeps in a queue.
    static IN_QUEUE: Cell<bool> = const { Cell::new(false) };
}

/// Sleeps in a queue, as select(2) does.
///
/// # Safety
///
/// The safety conditions of the kernel's own function hold, which this calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpns_sleepq_block(ticks: c_int, catch: bool) -> c_int {
    type Block = unsafe extern "C" fn(c_int, bool) -> c_int;
    let Some(next) = next!(in_kernel, c"rumpns_sleepq_block" as Block) else {
        return Errno::ENOSYS.0;
    };
    IN_QUEUE.set(true);
    // SAFETY: the caller's promise.
    let slept = unsafe { next(ticks, catch) };
    IN_QUEUE.set(false);
    slept
}

/// Calls librumpuser's wait.
///
/// # Safety
///
/// Both are librumpuser's objects; the lock is held, and the thread has a CPU of the kernel.
unsafe fn host_wait(condition: *mut c_void, lock: *mut c_void) {
    type Wait = unsafe extern "C" fn(*mut c_void, *mut c_void);
    if let Some(next) = next!(next_symbol, c"rumpuser_cv_wait" as Wait) {
        // SAFETY: the caller's promise.
        unsafe { next(condition, lock) };
    }
}

/// Calls librumpuser's wait for so many ticks, or without an end if `ticks` is 0.
///
/// # Safety
///
/// The safety conditions of [`host_wait`] hold.
unsafe fn host_timedwait(condition: *mut c_void, lock: *mut c_void, ticks: c_int) -> c_int {
    type Wait = unsafe extern "C" fn(*mut c_void, *mut c_void, i64, i64) -> c_int;
    if ticks == 0 {
        // SAFETY: the caller's promise.
        unsafe { host_wait(condition, lock) };
        return 0;
    }
    let Some(next) = next!(next_symbol, c"rumpuser_cv_timedwait" as Wait) else {
        return Errno::ENOSYS.0;
    };
    let (ticks, hz) = (i64::from(ticks), i64::from(hz()));
    // SAFETY: the caller's promise.
    match unsafe { next(condition, lock, ticks / hz, ticks % hz * (1_000_000_000 / hz)) } {
        0 => 0,
        // The kernel expects EWOULDBLOCK, which is the same number.
        _ => Errno::EAGAIN.0,
    }
}

/// Returns the kernel's ticks in a second.
fn hz() -> c_int {
    static HZ: OnceLock<c_int> = OnceLock::new();
    *HZ.get_or_init(|| {
        // SAFETY: the kernel's variable has this type, and is set when it boots.
        let hz = in_kernel(c"rumpns_hz").map(|hz| unsafe { hz.cast::<c_int>().read() });
        hz.filter(|hz| *hz > 0).unwrap_or(100)
    })
}

/// Returns `true` if a sleep of this priority is to end with EINTR.
fn is_over(priority: c_int) -> bool {
    priority & CATCH != 0 && current::is_ending()
}

/// Runs a sleep on a channel. If a call sleeps, the call's process notes the channel.
fn on_channel<R>(channel: *const c_void, mut sleep: impl FnMut() -> R) -> R {
    let channel = channel as usize;
    match current::in_call(|call| call.sleepers.on_channel(channel, &mut sleep)) {
        Some(slept) => slept,
        None => sleep(),
    }
}
