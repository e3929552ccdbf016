//! What the fuzzers run: one function a target, from arbitrary bytes to a panic or none. The targets of
//! cargo-fuzz call them, and so does the plain test that runs the kept corpora.

mod calls;
mod frames;
mod input;
mod session;

pub use calls::calls;
pub use frames::frames;
pub use session::session;
