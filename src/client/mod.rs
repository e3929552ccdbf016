//! The protocol from the client's side: for tests, the benchmark and the command line.
mod builder;
mod error;
mod fork;
mod handle;
mod link;
mod memory;
mod pending;
mod socket;
mod space;

pub use builder::{Builder, DEFAULT_MAX_COPY, DEFAULT_MAX_UNREAD, SignalHandler};
pub use error::{
    BannerError, CallError, CallResult, ConnectError, Lost, ProtocolError, refused_errno,
};
pub use fork::ForkToken;
pub use handle::Client;
pub use link::Completed;
pub use memory::{Memory, Refusal};
pub use pending::Pending;
pub use space::{AddressSpace, Buffer, DEFAULT_LIMIT, Fault, OutOfMemory};

#[cfg(test)]
mod tests;
