//! Calls as clients make them: what succeeds, what fails and how, and what running a call again does
//! and does not do. Most run with a client that answers every copy late, so each call runs twice.

mod descriptors;
mod files;
mod kqueue;
mod limits;
mod pipes;
mod poll;
mod processes;
mod scale;
mod sockets;
mod sysctl;
mod time;
mod timers;
