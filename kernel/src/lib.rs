//! What a kernel must offer to be served, and what it is handed.
//!
//! A kernel knows neither sockets nor sessions: it is given processes to make and to end, calls to
//! run, and for each call the [`UserMemory`] of the client that made it. Every entry is made on a
//! worker of the pool, but for calls that run inline: those whose work is bounded
//! ([`Kernel::runs_inline`]) are run on the submission thread.
//!
//! A call may end in three ways ([`Outcome`]): with a result, by asking to be run again from the top
//! once something has happened, or with the halt of the kernel. The rule for calls that are run
//! again: copy in first, change state last, keep what must survive in [`Progress`].

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

/// Argument slots a call can have. NetBSD's largest argument structure, `__syscall`'s, has nine;
/// a block is always this long and zero where the client sent less.
pub const MAX_ARGS: usize = 16;

/// The argument structure of a call: NetBSD gives each argument a slot of 8 bytes (`SCARG`).
pub type Args = [u64; MAX_ARGS];

/// What a banner says of a kernel, as `uname(3)` would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub ostype: String,
    pub osrelease: String,
    pub machine: String,
}

/// A kernel that can be served.
pub trait Kernel: Send + Sync + 'static {
    /// Name and version, for the banner.
    fn identity(&self) -> Identity;

    /// Whether its calls can be run again from the top. Those of a kernel that says no run once:
    /// their [`UserMemory`] waits for the client on the calling thread, outside the pool's seats, and
    /// never returns [`CopyError::Asked`]; nor may they end with anything but [`Outcome::Done`],
    /// [`Outcome::Halt`] or [`Outcome::Elsewhere`].
    fn restarts(&self) -> bool {
        true
    }

    /// Whether a call of this number with these arguments may run on the thread that serves all clients:
    /// it never sleeps there and does not wait there for its client, and its work is bounded whatever
    /// clients have built. One that finds out late that it is not ends with [`Outcome::Elsewhere`]. The
    /// number is unchecked.
    fn runs_inline(&self, _number: i32, _args: &Args) -> bool {
        self.restarts()
    }

    /// The range of its client's memory, address and bytes, that a call of this number with these
    /// arguments copies in, piece by piece, if it copies in at all. For kernels whose copies wait: the
    /// range is fetched in larger pieces then, and sometimes ahead. The number is unchecked.
    fn copies_in(&self, _number: i32, _args: &Args) -> Option<(u64, u64)> {
        None
    }

    /// Makes a process for a client without a history: no parent but init, no open files of
    /// anybody's (`lwproc_rfork` with `RUMP_RFFD_CLEAR`). `command` is the client's name for
    /// itself, without a NUL.
    fn spawn(&self, client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno>;

    /// A thread that has run calls of this kernel ends: what the kernel keeps for it is to go.
    fn thread_end(&self) {}
}

/// A process inside the kernel, the home of one client.
///
/// Several of its calls may run at once. [`Process::release`] comes last, once, when none does.
pub trait Process: Send + Sync {
    /// Its process id, positive.
    fn pid(&self) -> i32;

    /// Runs a call. Called again with the same `call` after [`Outcome::Sleep`], [`Outcome::Copy`],
    /// [`Outcome::Flush`] and [`Outcome::Elsewhere`].
    fn syscall(&self, call: &mut Call<'_>) -> Outcome;

    /// Makes a process that waits for a client not connected yet: a child with a copy of the
    /// descriptors (`RUMP_RFFD_COPY`). It ends by [`Process::release`], used or not.
    fn prefork(&self) -> Result<Arc<dyn Process>, Errno>;

    /// Makes the process of the client that came with a prefork's token, from that prefork: it
    /// shares the prefork's descriptors (`RUMP_RFFD_SHARE`), which is released right after.
    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno>;

    /// The client has become another program: close what is close-on-exec, take the new name.
    /// No call of the process runs.
    fn exec(&self, command: &[u8]);

    /// All calls of the process are to end soon (`lwpexit`). Beside this, each of them is woken with
    /// [`Call::interrupted`] set; a kernel whose calls sleep on threads must wake those itself.
    fn interrupt(&self) {}

    /// The process is gone: close its files, free its pid.
    fn release(&self);
}

/// The way from a kernel to a client outside any call of that client.
pub trait Client: Send + Sync {
    /// Delivers a signal, by NetBSD's number. Does nothing if the client has gone. A signal raised
    /// from within a call reaches the client before that call's response. Those of one number that
    /// have not left yet may be one.
    fn raise(&self, signo: i32);

    /// Whether one of this number has been raised and has not left, so that another comes to nothing.
    fn is_pending(&self, _signo: i32) -> bool {
        false
    }
}

/// One run of a system call.
pub struct Call<'a> {
    /// NetBSD's number of the call, as the client sent it: unchecked.
    pub number: i32,
    /// Its arguments, zero where the client sent fewer bytes.
    pub args: &'a Args,
    /// The memory of the client.
    pub memory: &'a mut dyn UserMemory,
    /// What earlier runs of this call left.
    pub progress: &'a mut Progress,
    /// Runs this call again after [`Outcome::Sleep`]. A wake-up between taking the waker and
    /// sleeping is not lost. Waking too often is harmless.
    pub waker: &'a Waker,
    /// The client is gone or becomes another program: a call that would sleep ends with EINTR.
    pub interrupted: bool,
    /// It runs on the thread that serves all clients, which must not wait, and its work must be bounded. What
    /// is not is for [`Outcome::Elsewhere`], or left in [`Progress::later`].
    pub inline: bool,
}

/// What a call keeps from run to run.
#[derive(Default)]
pub struct Progress {
    /// Bytes already moved.
    pub done: u64,
    /// When the call ends without what it waits for.
    pub deadline: Option<Instant>,
    /// Anything else.
    pub state: Option<Box<dyn Any + Send>>,
    /// What an inline run has left undone since it may take long. A worker does it before the outcome of
    /// that run counts.
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

/// How a run of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call is over. What it copied out is sent before its response.
    Done(Result<[i64; 2], Errno>),
    /// Run it again when its waker is woken, or at this time. Its copyouts of this run are dropped.
    Sleep(Option<Instant>),
    /// [`UserMemory`] returned [`CopyError::Asked`]: run it again when the client has answered. Its
    /// copyouts of this run are dropped.
    Copy,
    /// Send what this run copied out, and run it again once the client has taken it. The call has
    /// noted in its [`Progress`] how far it came.
    Flush,
    /// Run it again on a worker, from the top: it was inline, and may take long or would have to wait. Its
    /// copyouts of this run are dropped.
    Elsewhere,
    /// The kernel has halted: answer this call with success, then end the server.
    Halt,
}

/// The memory of the client that made a call, reached over its socket.
///
/// Copies in are answered from what earlier runs of the call fetched: a kernel asks for the same
/// ranges in every run. Copies out are kept until the run ends.
pub trait UserMemory {
    /// Fills `buf` from the client's `addr`.
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError>;

    /// Whether a copy in of this range would not have to wait for the client.
    fn is_here(&self, _addr: u64, _len: usize) -> bool {
        false
    }

    /// Fetches the NUL-terminated string at `addr` into `buf` and returns its length without the
    /// NUL. [`CopyError::TooLong`] if there is no NUL in the first `buf.len()` bytes.
    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError>;

    /// Puts `data` at the client's `addr`. The protocol has no answer to it, so a bad address goes
    /// unnoticed here: it is the client's own fault, in both senses.
    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError>;

    /// Puts a string, NUL included in `data`, at the client's `addr`.
    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError>;

    /// Has the client map `len` bytes of anonymous memory and returns their address.
    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError>;

    /// How many more bytes a run may copy out before it should end with [`Outcome::Flush`]. A call
    /// that moves more than a page or two looks at this between its pieces.
    fn room(&self) -> usize;

    /// Waits until there is room, in a kernel whose calls may wait; copying out never does. Others of
    /// the client's calls may take what room there is meanwhile.
    fn wait_for_room(&mut self) -> Result<(), CopyError> {
        Ok(())
    }

    /// The kernel has halted in this call, and its caller's thread will not come back: has the call
    /// answered with success, and returns once all that was owed to the client is out, or cannot be.
    /// For kernels that do not end the call with [`Outcome::Halt`].
    fn halted(&mut self) {}

    /// Drops what earlier runs fetched: the call has used it and noted so in its [`Progress`], and
    /// will ask for other ranges from here on.
    fn forget(&mut self);
}

/// Why a copy did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Not a failure: the client has been asked, end this run with [`Outcome::Copy`].
    #[error("the client has been asked")]
    Asked,
    /// The client refused, answered wrongly or has gone.
    #[error("bad address")]
    Fault,
    /// The string has no end within the bound.
    #[error("string too long")]
    TooLong,
    /// The client has no memory to map.
    #[error("out of memory")]
    NoMemory,
}
