//! Which system call a worker is in: the kernel calls back for its client's memory without saying.

use std::cell::Cell;
use std::ptr::NonNull;

use crate::kernel::UserMemory;

thread_local! {
    static CURRENT: Cell<Option<NonNull<dyn UserMemory>>> = const { Cell::new(None) };
}

/// Runs `call`, during which this thread's hypercalls reach `memory`.
pub fn with<R>(memory: &mut dyn UserMemory, call: impl FnOnce() -> R) -> R {
    struct Reset(Option<NonNull<dyn UserMemory>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    // SAFETY: only the lifetime changes. What is kept is used by `memory` alone, on this thread, and
    // is gone again before this function returns, while the caller lends `memory` to it.
    let memory: NonNull<dyn UserMemory> = unsafe { std::mem::transmute(NonNull::from(memory)) };
    let _reset = Reset(CURRENT.replace(Some(memory)));
    call()
}

/// Uses the memory of this thread's call. `None` if the thread is in none, or is using it already.
pub fn memory<R>(using: impl FnOnce(&mut dyn UserMemory) -> R) -> Option<R> {
    let mut memory = CURRENT.take()?;
    // SAFETY: `with` lends the memory for as long as the pointer is there, and nobody else on this
    // thread can have it meanwhile, for it has just been taken out.
    let result = using(unsafe { memory.as_mut() });
    CURRENT.set(Some(memory));
    Some(result)
}

/// Whether this thread is in a system call of a client.
pub fn is_in_call() -> bool {
    CURRENT.get().is_some()
}
