//! The client against scripted servers.

mod calls;
mod fake;
