//! What threads share state by: the standard library's, or loom's, which tries every order of what they
//! do. See [`crate::loom_tests`].

#[cfg(loom)]
pub use loom::sync::atomic;
#[cfg(not(loom))]
pub use std::sync::atomic;
