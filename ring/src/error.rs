//! Errors: the reasons why a ring could not be made, or cannot go on, each with what to do about it.

use std::io;

/// A ring could not be made, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The [`Config`](crate::Config) asks for something impossible.
    #[error("bad ring configuration: {0}")]
    Config(&'static str),
    /// io_uring is switched off, or not there at all.
    #[error("io_uring is not available: {0}")]
    Unavailable(String),
    /// The kernel lacks a feature that the ring cannot do without.
    #[error("this kernel has no {feature}: Linux {since} or later is needed")]
    Missing {
        /// The kernel's name for the feature.
        feature: &'static str,
        /// The first Linux version with it.
        since: &'static str,
    },
    /// `RLIMIT_MEMLOCK` is too small for the queues or the registered arena.
    #[error(
        "not enough locked memory for {what}: RLIMIT_MEMLOCK is {limit} bytes; raise it with \
         `ulimit -l` or systemd's LimitMEMLOCK=, or make the ring smaller"
    )]
    LockedMemory {
        /// The thing that was being set up.
        what: &'static str,
        /// The limit's value.
        limit: u64,
    },
    /// `RLIMIT_NOFILE` is too small for the direct descriptor table, or no descriptor is left.
    #[error(
        "not enough descriptors for {what}: RLIMIT_NOFILE is {limit}; raise it with `ulimit -n` or \
         systemd's LimitNOFILE=, or ask for fewer sockets"
    )]
    Descriptors {
        /// The thing that was being set up.
        what: String,
        /// The limit's value.
        limit: u64,
    },
    /// A ring cannot both listen and adopt, whichever it did first: see
    /// [`Ring::adopt`](crate::Ring::adopt).
    #[error("{0}; use another ring")]
    Allocator(&'static str),
    /// All slots of the direct descriptor table have a socket.
    #[error("the ring's table of {sockets} sockets is full; close some or make a larger ring")]
    TableFull {
        /// The number of slots.
        sockets: u32,
    },
    /// A system call failed in a way nothing above explains.
    #[error("{what}: {source}")]
    System {
        /// The call.
        what: &'static str,
        /// The call's error.
        source: io::Error,
    },
    /// The kernel had no memory to keep a completion: some request will never be heard of again.
    #[error("the kernel lost a completion for want of memory")]
    CompletionLost,
}

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { what, source }
    }

    /// Returns the error for a failed registration: ENOMEM and EMFILE are about limits.
    pub(crate) fn registering(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.raw_os_error() {
            Some(libc::ENOMEM) => Error::LockedMemory { what, limit: limit(libc::RLIMIT_MEMLOCK) },
            Some(libc::EMFILE) => {
                Error::Descriptors { what: what.into(), limit: limit(libc::RLIMIT_NOFILE) }
            }
            _ => Error::System { what, source },
        }
    }
}

/// The reason why [`Ring::send`](crate::Ring::send) took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// The socket is closed or being closed.
    #[error("the socket is gone")]
    Gone,
    /// An earlier send is still in flight.
    #[error("an earlier send is in flight")]
    Busy,
}

/// Returns the soft value of a resource limit.
pub(crate) fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and as large as getrlimit(2) fills.
    unsafe { libc::getrlimit(resource, &mut limit) };
    limit.rlim_cur
}
