//! The interface between a server and the kernel it serves.
//!
//! A kernel knows neither sockets nor sessions. The server has it make and end processes and run calls, and
//! passes with each call the [`UserMemory`] of its client. Every entry is made on a worker of the pool,
//! except for calls that run inline: those whose work is bounded ([`Kernel::runs_inline`]) run on the
//! submission thread.
//!
//! A call may end in three ways ([`Outcome`]): with a result, by asking to be run again from the top once
//! something has happened, or with the halt of the kernel. The rule for calls that are run again: copy in
//! first, change state last, keep what must survive in [`Progress`].

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod errno;
mod syscalls;

pub use errno::Errno;
pub use syscalls::{NAMES, sys};

use std::any::Any;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// The most argument slots of a call. NetBSD's largest argument structure, `__syscall`'s, has nine; a block
/// always has this length and is zero where the client sent less.
pub const MAX_ARGS: usize = 16;

/// The argument structure of a call: NetBSD gives each argument a slot of 8 bytes (`SCARG`).
pub type Args = [u64; MAX_ARGS];

/// The identity of a kernel for the banner, as `uname(3)` returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub ostype: String,
    pub osrelease: String,
    pub machine: String,
}

/// A kernel that can be served.
pub trait Kernel: Send + Sync + 'static {
    /// Returns the name and version, for the banner.
    fn identity(&self) -> Identity;

    /// Returns `true` if its calls can be run again from the top. With `false`, each call runs once: its
    /// [`UserMemory`] waits for the client on the calling thread, outside the pool's seats, and never
    /// returns [`CopyError::Asked`]; and it may end only with [`Outcome::Done`], [`Outcome::Halt`] or
    /// [`Outcome::Elsewhere`].
    fn restarts(&self) -> bool {
        true
    }

    /// Returns `true` if a call of this number with these arguments may run on the thread that serves all
    /// clients: it neither sleeps there nor waits for its client, and its work is bounded whatever clients
    /// have built. A call that finds out late that its work is not bounded ends with
    /// [`Outcome::Elsewhere`]. The number is unchecked.
    fn runs_inline(&self, _number: i32, _args: &Args) -> bool {
        self.restarts()
    }

    /// Returns the range of the client's memory, address and bytes, that a call of this number with these
    /// arguments copies in, piece by piece, if it copies in at all. It is for kernels whose copies wait:
    /// the server then fetches the range in larger pieces, and sometimes ahead. The number is unchecked.
    fn copies_in(&self, _number: i32, _args: &Args) -> Option<(u64, u64)> {
        None
    }

    /// Makes a process for a client that connects on its own: no parent but init, no inherited open files
    /// (`lwproc_rfork` with `RUMP_RFFD_CLEAR`). `command` is the client's name for itself, without a NUL.
    fn spawn(&self, client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno>;

    /// Frees what the kernel keeps for the calling thread, which has run calls of this kernel and ends.
    fn thread_end(&self) {}
}

/// A process inside the kernel, which belongs to one client.
///
/// Several calls of the process may run at once. [`Process::release`] comes last, once, when no call runs.
pub trait Process: Send + Sync {
    /// Returns the process id, positive.
    fn pid(&self) -> i32;

    /// Runs a call. It is called again with the same `call` after [`Outcome::Sleep`], [`Outcome::Copy`],
    /// [`Outcome::Flush`] and [`Outcome::Elsewhere`].
    fn syscall(&self, call: &mut Call<'_>) -> Outcome;

    /// Makes a process that waits for a client not connected yet: a child with a copy of the descriptors
    /// (`RUMP_RFFD_COPY`). It ends by [`Process::release`], used or not.
    fn prefork(&self) -> Result<Arc<dyn Process>, Errno>;

    /// Makes the process of the client that presents a prefork's token, from that prefork: it shares the
    /// descriptors of the prefork (`RUMP_RFFD_SHARE`), which is released right after.
    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno>;

    /// Makes the changes of an exec: closes what is close-on-exec, takes the new name. No call of the
    /// process runs.
    fn exec(&self, command: &[u8]);

    /// Asks all calls of the process to end soon (`lwpexit`). In addition, each of them is woken with
    /// [`Call::interrupted`] set; a kernel whose calls sleep on threads must wake those itself.
    fn interrupt(&self) {}

    /// Ends the process: closes its files, frees its pid.
    fn release(&self);
}

/// A client, as a kernel reaches it outside any call of that client.
pub trait Client: Send + Sync {
    /// Delivers a signal, by NetBSD's number. Does nothing if the client has gone. A signal raised from
    /// within a call reaches the client before that call's response. Several signals of one number that
    /// have not been sent yet may become one.
    fn raise(&self, signo: i32);

    /// Returns `true` if a signal of this number has been raised and not been sent yet, so that another one
    /// would have no effect.
    fn is_pending(&self, _signo: i32) -> bool {
        false
    }
}

/// One run of a system call.
pub struct Call<'a> {
    /// NetBSD's number of the call, as the client sent it: unchecked.
    pub number: i32,
    /// The arguments, zero where the client sent fewer bytes.
    pub args: &'a Args,
    /// The memory of the client.
    pub memory: &'a mut dyn UserMemory,
    /// The state that earlier runs of this call left.
    pub progress: &'a mut Progress,
    /// The waker that runs this call again after [`Outcome::Sleep`]. A wake-up between taking the waker and
    /// sleeping is not lost. Waking too often is harmless.
    pub waker: &'a Waker,
    /// True if the client is gone or executes another program: a call that would sleep ends with EINTR.
    pub interrupted: bool,
    /// True if the call runs on the thread that serves all clients, which must not wait, and on which work
    /// must be bounded. For other work the call ends with [`Outcome::Elsewhere`], or leaves it in
    /// [`Progress::later`].
    pub inline: bool,
}

/// The state a call keeps from run to run.
#[derive(Default)]
pub struct Progress {
    /// The bytes already moved.
    pub done: u64,
    /// The time at which the call stops waiting.
    pub deadline: Option<Instant>,
    /// Any other state.
    pub state: Option<Box<dyn Any + Send>>,
    /// The work that an inline run has left undone since it may take long. A worker does it before the
    /// outcome of that run counts.
    pub later: Vec<Later>,
}

/// Work that is left to a worker.
pub type Later = Box<dyn FnOnce() + Send>;

impl Progress {
    /// Forgets everything, for the next call.
    pub fn clear(&mut self) {
        *self = Progress::default();
    }
}

/// The way a run of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call is over. What it copied out is sent before its response.
    Done(Result<[i64; 2], Errno>),
    /// Run the call again when its waker is woken, or at this time. The copyouts of this run are dropped.
    Sleep(Option<Instant>),
    /// [`UserMemory`] returned [`CopyError::Asked`]: run the call again when the client has answered. The
    /// copyouts of this run are dropped.
    Copy,
    /// Send what this run copied out, and run the call again once the client has taken it. The call has
    /// recorded its progress in its [`Progress`].
    Flush,
    /// Run the call again on a worker, from the top: it was inline, and may take long or would have to
    /// wait. The copyouts of this run are dropped.
    Elsewhere,
    /// The kernel has halted: answer this call with success, then end the server.
    Halt,
}

/// The memory of the client that made a call, reached over its socket.
///
/// Copies in are answered from what earlier runs of the call fetched, so a kernel asks for the same ranges
/// in every run. Copies out are kept until the run ends.
pub trait UserMemory {
    /// Fills `buf` from the client's `addr`.
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError>;

    /// Returns `true` if a copy in of this range would not have to wait for the client.
    fn is_here(&self, _addr: u64, _len: usize) -> bool {
        false
    }

    /// Fetches the NUL-terminated string at `addr` into `buf` and returns its length without the
    /// NUL. [`CopyError::TooLong`] if there is no NUL in the first `buf.len()` bytes.
    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError>;

    /// Puts `data` at the client's `addr`. The protocol has no answer to a copyout, so a bad address goes
    /// unnoticed here, and only harms the client.
    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError>;

    /// Puts a string, NUL included in `data`, at the client's `addr`.
    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError>;

    /// Asks the client to map `len` bytes of anonymous memory, and returns their address.
    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError>;

    /// Returns how many more bytes a run may copy out before it should end with [`Outcome::Flush`]. A call
    /// that moves more than a page or two checks this between its pieces.
    fn room(&self) -> usize;

    /// Waits until there is room, in a kernel whose calls may wait; copying out never waits. Other calls of
    /// the client may take the room meanwhile.
    fn wait_for_room(&mut self) -> Result<(), CopyError> {
        Ok(())
    }

    /// Reports that the kernel has halted in this call, and that the caller's thread will not come back.
    /// The call is answered with success, and this function returns once everything for the client is sent,
    /// or cannot be. It is for kernels that do not end the call with [`Outcome::Halt`].
    fn halted(&mut self) {}

    /// Drops what earlier runs fetched: the call has used it and recorded so in its [`Progress`], and will
    /// ask for other ranges from here on.
    fn forget(&mut self);
}

/// The reason a copy did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The client has been asked, which is not a failure: end this run with [`Outcome::Copy`].
    #[error("the client has been asked")]
    Asked,
    /// The client refused, answered wrongly or has gone.
    #[error("bad address")]
    Fault,
    /// The string has no NUL within the bound.
    #[error("string too long")]
    TooLong,
    /// The client has no memory to map.
    #[error("out of memory")]
    NoMemory,
}
