//! The atomics that threads share: the standard library's, or loom's, which tries every order of the
//! threads' steps. See [`crate::loom_tests`].

#[cfg(loom)]
pub use loom::sync::atomic;
#[cfg(not(loom))]
pub use std::sync::atomic;
