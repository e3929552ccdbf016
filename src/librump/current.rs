//! The system call that a thread is in. The kernel calls back for its client's memory, and to sleep,
//! without saying for which call.

use std::cell::Cell;
use std::ptr::NonNull;

use super::escape::Context;
use super::owners::OwnerId;
use super::sleepers::Sleepers;
use kernel::UserMemory;

/// The properties of a system call. For an indirect call, these are of the call that it makes.
#[derive(Clone, Copy)]
pub struct Called {
    pub number: i32,
    /// True if the call closes all descriptors from one on.
    pub closes_many: bool,
}

/// A system call of a client, on the thread that runs it.
pub struct InCall<'a> {
    /// The owner, by which the kernel knows the call's process.
    owner: OwnerId,
    called: Called,
    /// True if the call has copied in something.
    has_copied_in: Cell<bool>,
    /// The address of the kernel's table of operations on kqueues; 0 until the call has looked up a
    /// kqueue.
    kqueue_ops: Cell<usize>,
    /// The client's memory, or `None` while it is in use.
    memory: Cell<Option<NonNull<dyn UserMemory + 'a>>>,
    /// The sleepers of the call's process.
    pub sleepers: &'a Sleepers,
    /// The way to leave the call, if it was begun so.
    pub way_out: Context,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<InCall<'static>>>> = const { Cell::new(None) };
    /// True if the thread is on the last lwp of a process, which ends.
    static ON_LAST: Cell<bool> = const { Cell::new(false) };
    /// True if the call of this thread is about to wait.
    static BEGINS_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`. Meanwhile, this thread's hypercalls reach what belongs to the call.
pub fn with<R>(
    owner: OwnerId,
    called: Called,
    memory: &mut dyn UserMemory,
    sleepers: &Sleepers,
    call: impl FnOnce(&InCall<'_>) -> R,
) -> R {
    struct Reset(Option<NonNull<InCall<'static>>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let memory = Cell::new(Some(NonNull::from(memory)));
    let in_call = InCall {
        owner,
        called,
        has_copied_in: Cell::new(false),
        kqueue_ops: Cell::new(0),
        memory,
        sleepers,
        way_out: Context::new(),
    };
    // SAFETY: only the lifetime changes. What is kept is used by `in_call` alone, on this thread, and is
    // gone again before this function returns, while the caller lends all of it.
    let kept = unsafe {
        std::mem::transmute::<NonNull<InCall<'_>>, NonNull<InCall<'static>>>(NonNull::from(
            &in_call,
        ))
    };
    let _reset = Reset(CURRENT.replace(Some(kept)));
    call(&in_call)
}

/// Looks at this thread's call. Returns `None` if the thread is in none.
pub fn in_call<R>(look: impl FnOnce(&InCall<'_>) -> R) -> Option<R> {
    // SAFETY: `with` keeps the call for as long as the pointer is there, and it is only shared.
    Some(look(unsafe { CURRENT.get()?.as_ref() }))
}

/// Runs `what` on the last lwp of a process, which ends.
pub fn on_last<R>(what: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ON_LAST.set(false);
        }
    }
    let _reset = Reset;
    ON_LAST.set(true);
    what()
}

/// Returns `true` if the kernel has told the lwp of this thread to end, or is about to.
pub fn is_ending() -> bool {
    ON_LAST.get() || in_call(|call| call.sleepers.are_ending()) == Some(true)
}

/// Begins a wait of this thread's call for a condition. Returns `false` if the call is to end instead.
pub fn begin_wait() -> bool {
    if ON_LAST.get() {
        return false;
    }
    if BEGINS_WAIT.get() {
        // One way of the kernel to wait uses another.
        return true;
    }
    match in_call(|call| call.sleepers.begin_wait()) {
        Some(may) => {
            BEGINS_WAIT.set(may);
            may
        }
        None => true,
    }
}

/// Notes that the call waits, or does not want to any more.
pub fn has_begun_wait() {
    if BEGINS_WAIT.replace(false) {
        in_call(|call| call.sleepers.has_begun());
    }
}

/// Uses the memory of this thread's call. Returns `None` if the thread is in no call, or is using the
/// memory already.
pub fn memory<R>(using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
    in_call(|call| call.use_memory(using))?
}

/// Uses the memory of this thread's call, as [`memory`] does. Returns `None` also if the call is not of
/// this owner.
pub fn memory_of<R>(owner: OwnerId, using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
    in_call(|call| if call.owner == owner { call.use_memory(using) } else { None })?
}

/// Returns the properties of this thread's call.
pub fn called() -> Option<Called> {
    in_call(|call| call.called)
}

/// Returns `true` if this thread's call, a kevent, has looked up a kqueue besides its own, which it looks
/// up first.
pub fn finds_kqueue(ops: usize) -> bool {
    in_call(|call| match call.kqueue_ops.get() {
        0 => {
            call.kqueue_ops.set(ops);
            false
        }
        own => own == ops,
    }) == Some(true)
}

/// Notes that this thread's call copies in. Returns the call's number, and `true` if this is its first
/// copy in.
pub fn copies_in() -> Option<(i32, bool)> {
    in_call(|call| (call.called.number, !call.has_copied_in.replace(true)))
}

impl InCall<'_> {
    fn use_memory<R>(&self, using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
        let mut memory = self.memory.take()?;
        // SAFETY: `with` borrows the memory for as long as the call is there, and nobody else on this
        // thread can have it meanwhile, for it has just been taken out.
        let result = using(unsafe { memory.as_mut() });
        self.memory.set(Some(memory));
        Some(result)
    }
}
