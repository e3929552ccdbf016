//! One run of a call: how a call reads its arguments, reaches the client's memory and waits, and the
//! one place where the ways a run can stop become an [`Outcome`].

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::System;
use super::descriptors::Reserved;
use super::file::OpenFile;
use super::paid::Paid;
use super::process::Proc;
use super::sockets::Message;
use super::wait::{FREE_PLACES, Places, Registration, Side, Waitable};
use super::work;
use kernel::{Call, CopyError, Errno, Outcome, UserMemory};

/// The result of (a part of) a call, or the reason its run stopped.
pub(super) type Result<T, E = Stop> = std::result::Result<T, E>;

/// The two return values of a call.
pub(super) type Answer = Result<[i64; 2]>;

/// Why a run of a call ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The call failed.
    Errno(Errno),
    /// The client has been asked for bytes: run the call again when they have come.
    Asked,
    /// Run the call again when it is woken, or at this time.
    Sleep(Option<Instant>),
    /// Send what was copied out, then run the call again.
    Flush,
    /// Run the call again from the top, on a worker.
    Elsewhere,
    /// The kernel has halted.
    Halt,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        if errno == work::ELSEWHERE { Stop::Elsewhere } else { Stop::Errno(errno) }
    }
}

impl From<CopyError> for Stop {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Asked => Stop::Asked,
            CopyError::Fault => Stop::Errno(Errno::EFAULT),
            CopyError::TooLong => Stop::Errno(Errno::ENAMETOOLONG),
            CopyError::NoMemory => Stop::Errno(Errno::ENOMEM),
        }
    }
}

/// The longest path, its NUL included (`MAXPATHLEN`).
pub(super) const PATH_MAX: usize = 1024;

/// The size of the pieces in which bytes are copied in and out. No larger buffer is allocated for a longer
/// count.
pub(super) const PIECE: usize = 64 * 1024;

/// The number of `iovec`s that a call may keep without paying for them.
const FREE_SEGMENTS: usize = 16;

/// The state this kernel keeps in `Progress::state` of a call that runs more than once.
#[derive(Default)]
pub(super) struct CallState {
    /// The call's places in wait queues; given up when the call runs again.
    waits: Vec<Registration>,
    /// The payment for `waits`, if there are many.
    places: Option<Box<Places>>,
    /// The open file an unfinished transfer works on.
    pub file: Option<Weak<OpenFile>>,
    /// The client's `iovec`s, once checked.
    pub segments: Option<Arc<[(u64, u64)]>>,
    /// The payment for `segments`, if there are many.
    segments_paid: Option<Paid>,
    /// The number of events of a kevent call that answer changes: those that failed, or whose receipt was
    /// wanted.
    pub answered: u64,
    /// The offset in the file at which a long transfer began, and the number of bytes it covers.
    pub extent: Option<(i64, u64)>,
    /// The time at which a write began to wait, in the pipe's own count.
    pub since: u64,
    /// The file that an open call has opened and not yet returned because it waits, and the descriptor
    /// reserved for it.
    pub opened: Option<(Arc<OpenFile>, Reserved)>,
    /// A message that was taken out of a socket and has not gone to the client in full.
    pub message: Option<Box<Message>>,
    /// The number of messages done, of a call that takes several.
    pub messages: u32,
    /// The time after which a call that takes several messages takes no more.
    pub until: Option<Instant>,
}

/// A path from the client, without its NUL.
pub(super) struct PathName {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl PathName {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One run of one call of one process.
pub(super) struct SyscallContext<'r, 'c> {
    pub proc: &'r Proc,
    pub call: &'r mut Call<'c>,
}

impl SyscallContext<'_, '_> {
    pub fn system(&self) -> &System {
        &self.proc.system
    }

    /// Returns argument `n` as a C `int`.
    pub fn int(&self, n: usize) -> i32 {
        self.call.args[n] as i32
    }

    /// Returns argument `n` as a C `unsigned int`.
    pub fn uint(&self, n: usize) -> u32 {
        self.call.args[n] as u32
    }

    /// Returns argument `n` as an address or a `size_t`.
    pub fn word(&self, n: usize) -> u64 {
        self.call.args[n]
    }

    /// Returns argument `n` as an `off_t`.
    pub fn offset(&self, n: usize) -> i64 {
        self.call.args[n] as i64
    }

    pub fn memory(&mut self) -> &mut dyn UserMemory {
        self.call.memory
    }

    /// Copies in a structure of `N` bytes.
    pub fn copyin<const N: usize>(&mut self, addr: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.call.memory.copyin(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies `data` out to `addr`. EFAULT for address 0, which no client has mapped; the protocol does not
    /// report other bad addresses.
    pub fn copyout(&mut self, data: &[u8], addr: u64) -> Result<()> {
        if addr == 0 {
            return Err(Errno::EFAULT.into());
        }
        Ok(self.call.memory.copyout(data, addr)?)
    }

    /// Copies in the path at `addr`. NetBSD: `pathbuf_copyin`.
    pub fn path(&mut self, addr: u64) -> Result<PathName> {
        let mut bytes = [0; PATH_MAX];
        let len = self.call.memory.copyinstr(addr, &mut bytes)?;
        Ok(PathName { bytes, len: len.min(PATH_MAX) })
    }

    /// Returns the open file of descriptor `fd`.
    pub fn file(&self, fd: i32) -> Result<Arc<OpenFile>> {
        Ok(self.proc.files.get(fd)?)
    }

    /// Returns the number of bytes moved so far.
    pub fn done(&self) -> u64 {
        self.call.progress.done
    }

    pub fn advance(&mut self, bytes: usize) {
        self.call.progress.done += bytes as u64;
    }

    /// Returns what earlier runs of the call kept, if they kept anything.
    pub fn kept(&self) -> Option<&CallState> {
        self.call.progress.state.as_ref()?.downcast_ref()
    }

    /// Returns what the call keeps from run to run, empty if nothing was kept so far.
    pub fn keep(&mut self) -> &mut CallState {
        let state = &mut self.call.progress.state;
        if state.as_ref().is_none_or(|kept| !kept.is::<CallState>()) {
            *state = Some(Box::<CallState>::default());
        }
        match state.as_mut().and_then(|kept| kept.downcast_mut()) {
            Some(kept) => kept,
            None => unreachable!("the state was made just above"),
        }
    }

    /// Keeps the client's `iovec`s while the call lasts. ENOMEM if there are many and the family cannot pay
    /// for them.
    pub fn keep_segments(&mut self, segments: &Arc<[(u64, u64)]>) -> Result<(), Errno> {
        let resource_group = &self.proc.family;
        let paid = match segments.len() {
            0..=FREE_SEGMENTS => None,
            many => Some(Paid::new(resource_group, many as u64 * 16, Errno::ENOMEM)?),
        };
        let kept = self.keep();
        (kept.segments, kept.segments_paid) = (Some(segments.clone()), paid);
        Ok(())
    }

    /// Makes room for `count` places in queues. ENOMEM if there are many and the family cannot pay for
    /// them.
    pub fn expect_waits(&mut self, count: usize) -> Result<()> {
        let resource_group = &self.proc.family;
        let kept = self.keep();
        let all = kept.waits.len() + count;
        if all > FREE_PLACES {
            let places = kept.places.get_or_insert_with(|| Places::none(resource_group));
            places.pay(all - FREE_PLACES)?;
        }
        kept.waits.reserve_exact(count);
        Ok(())
    }

    /// Makes the call run again when `source` changes. The caller checks its condition once more before it
    /// stops with [`Stop::Sleep`].
    pub fn wait_for(&mut self, source: Arc<dyn Waitable>, side: Side) {
        let registration = Registration::new(source, side, self.call.waker);
        let waits = &mut self.keep().waits;
        waits.reserve_exact(1);
        waits.push(registration);
    }
}

/// Runs `body` as a run of `call`, and returns how the run ended.
pub(super) fn run(
    proc: &Proc,
    call: &mut Call<'_>,
    body: fn(&mut SyscallContext<'_, '_>) -> Answer,
) -> Outcome {
    if let Some(kept) = call.progress.state.as_mut().and_then(|kept| kept.downcast_mut()) {
        let kept: &mut CallState = kept;
        work::count(kept.waits.len());
        kept.waits.clear();
        kept.places = None;
    }
    let inline = call.inline.then(work::Inline::begin);
    let answer = body(&mut SyscallContext { proc, call });
    let outcome = match answer {
        Ok(values) => Outcome::Done(Ok(values)),
        Err(Stop::Errno(errno)) => Outcome::Done(Err(errno)),
        Err(Stop::Sleep(_) | Stop::Flush) if call.interrupted => Outcome::Done(Err(Errno::EINTR)),
        Err(Stop::Asked) => Outcome::Copy,
        Err(Stop::Sleep(until)) => Outcome::Sleep(until),
        Err(Stop::Flush) => Outcome::Flush,
        Err(Stop::Elsewhere) => Outcome::Elsewhere,
        Err(Stop::Halt) => Outcome::Halt,
    };
    if matches!(outcome, Outcome::Done(_) | Outcome::Halt) {
        call.progress.state = None;
    }
    if let Some(inline) = inline {
        call.progress.later = inline.take_later();
    }
    outcome
}
