//! The types by which threads share state: the standard library's, or loom's, which tries every order of
//! what threads do (`scripts/loom`).

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread_local,
};

#[cfg(loom)]
pub(crate) use {
    loom::sync::{Condvar, Mutex, MutexGuard, atomic},
    modelled::thread_local,
};

#[cfg(loom)]
pub(crate) mod modelled {
    //! The part of the standard library's thread locals that loom's lack.

    use std::cell::RefCell;

    use loom::thread::LocalKey;

    macro_rules! local {
        ($(#[$meta:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
            loom::thread_local! { $(#[$meta])* static $name: $type = $init; }
        };
    }
    pub(crate) use local as thread_local;

    /// Access to a thread local, as in the standard library.
    pub(crate) trait Local<T> {
        fn with_borrow_mut<R>(&'static self, act: impl FnOnce(&mut T) -> R) -> R;
    }

    impl<T: 'static> Local<T> for LocalKey<RefCell<T>> {
        fn with_borrow_mut<R>(&'static self, act: impl FnOnce(&mut T) -> R) -> R {
            self.with(|cell| act(&mut cell.borrow_mut()))
        }
    }
}
