//! Which system call a thread is in: the kernel calls back for its client's memory, and to sleep, without
//! saying.

use std::cell::Cell;
use std::ptr::NonNull;

use super::escape::Context;
use super::owners::OwnerId;
use super::sleepers::Sleepers;
use kernel::UserMemory;

/// What a system call is, if it is an indirect one that of the call itself.
#[derive(Clone, Copy)]
pub struct Called {
    pub number: i32,
    /// It closes all descriptors from one on.
    pub closes_many: bool,
}

/// A system call of a client, on the thread that runs it.
pub struct InCall<'a> {
    /// As the kernel knows its process.
    owner: OwnerId,
    called: Called,
    /// It has copied in something.
    has_copied_in: Cell<bool>,
    /// What kqueues can do, by the address of the kernel's table of it; 0 as long as it has looked up none.
    kqueue_ops: Cell<usize>,
    /// `None` while it is in use.
    memory: Cell<Option<NonNull<dyn UserMemory + 'a>>>,
    /// The sleepers of its process.
    pub sleepers: &'a Sleepers,
    /// How the call can be left, if it was begun so.
    pub way_out: Context,
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<InCall<'static>>>> = const { Cell::new(None) };
    /// The thread is on the last lwp of a process, which ends.
    static ON_LAST: Cell<bool> = const { Cell::new(false) };
    /// The call of this thread is about to wait.
    static BEGINS_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`, during which this thread's hypercalls reach what belongs to it.
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

/// Looks at this thread's call. `None` if it is in none.
pub fn in_call<R>(look: impl FnOnce(&InCall<'_>) -> R) -> Option<R> {
    // SAFETY: `with` keeps the call for as long as the pointer is there, and it is only shared.
    Some(look(unsafe { CURRENT.get()?.as_ref() }))
}

/// Runs what is done on the last lwp of a process, which ends.
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

/// Whether the kernel has told the lwp of this thread to end, or is about to.
pub fn is_ending() -> bool {
    ON_LAST.get() || in_call(|call| call.sleepers.are_ending()) == Some(true)
}

/// The call of this thread begins to wait for a condition. Returns `false` if it is to end instead.
pub fn begin_wait() -> bool {
    if ON_LAST.get() {
        return false;
    }
    if BEGINS_WAIT.get() {
        // One way of the kernel to wait is by another.
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

/// It waits, or does not want to any more.
pub fn has_begun_wait() {
    if BEGINS_WAIT.replace(false) {
        in_call(|call| call.sleepers.has_begun());
    }
}

/// Uses the memory of this thread's call. `None` if the thread is in none, or is using it already.
pub fn memory<R>(using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
    in_call(|call| call.use_memory(using))?
}

/// The same for a copy of this owner: `None`, too, if the thread's call is another's.
pub fn memory_of<R>(owner: OwnerId, using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
    in_call(|call| if call.owner == owner { call.use_memory(using) } else { None })?
}

/// What this thread's call is.
pub fn called() -> Option<Called> {
    in_call(|call| call.called)
}

/// Whether this thread's call, a kevent, has looked up a kqueue beside its own, which it looks up first.
pub fn finds_kqueue(ops: usize) -> bool {
    in_call(|call| match call.kqueue_ops.get() {
        0 => {
            call.kqueue_ops.set(ops);
            false
        }
        own => own == ops,
    }) == Some(true)
}

/// Notes that this thread's call copies in. Returns its number, and whether that is for the first time.
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
