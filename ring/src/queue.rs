//! The submission and completion queues, and the one system call that moves both.
//!
//! # A chain that the kernel takes only in part
//!
//! Linux takes entries one by one. When it cannot allocate a request it stops there: `io_uring_enter`
//! returns the number of entries taken, and the part of the chain that was taken begins as if it were
//! the whole (`io_submit_sqes` in the kernel's `io_uring.c`, `io_uring_enter(2)` on the return value).
//! The rest of the chain is then the head of the queue, and would begin with the next enter, beside the
//! entries it was to follow: bytes of one message would overtake each other. So the rest is cancelled
//! where it stands in the queue, as the kernel cancels the requests behind a broken link, and is made
//! again in the same way as those.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::stats::Stats;
use crate::token::Token;

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The token of the request; `None` if its `user_data` is no token.
    pub token: Option<Token>,
    /// The result: negative for an errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// Returns `true` if the request will complete again.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

/// Both queues of a ring.
pub(crate) struct Queue {
    io: IoUring,
    /// The entries of the SQ.
    entries: MmapRaw,
    /// The number of entries ever put into the SQ; it wraps around.
    pushed: u32,
    /// The ring's index among the thread's registered rings.
    registered: Option<u32>,
    /// Entries that found the SQ full even after submitting, oldest first. Bounded by what the sockets
    /// and listeners can have outstanding.
    backlog: VecDeque<squeue::Entry>,
    /// The number of requests queued or submitted whose last completion was not seen.
    in_flight: u64,
    #[cfg(test)]
    pub faults: crate::faults::Faults,
}

impl Queue {
    pub fn new(io: IoUring, registered: Option<u32>) -> io::Result<Queue> {
        let bytes = io.params().sq_entries() as usize * size_of::<squeue::Entry>();
        let entries = MmapOptions::new().offset(OFF_SQES).len(bytes).map_raw(io.as_raw_fd())?;
        entries.advise(Advice::DontFork)?;
        Ok(Queue {
            io,
            entries,
            pushed: 0,
            registered,
            backlog: VecDeque::new(),
            in_flight: 0,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    #[cfg(test)]
    pub fn io(&self) -> &IoUring {
        &self.io
    }

    /// Returns the number of requests queued or submitted whose last completion was not seen.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns the length of the longest chain of links that one submission can hold.
    pub fn longest_chain(&self) -> usize {
        self.io.params().sq_entries() as usize
    }

    /// Queues a chain of linked entries, or a single entry. Links hold only within one submission, so
    /// if there is no room for the whole chain, the queued entries are submitted first.
    pub fn push(&mut self, chain: &[squeue::Entry], stats: &mut Stats) {
        debug_assert!(chain.len() <= self.longest_chain());
        #[cfg(test)]
        let chain = &self.faults.spoil(chain);
        self.in_flight += chain.len() as u64;
        if self.backlog.is_empty() {
            if self.push_now(chain) {
                return;
            }
            stats.sq_full += 1;
            // If this fails, flushing the backlog meets the same error.
            let _ = self.enter(Enter::Submit, stats);
            if self.push_now(chain) {
                return;
            }
        }
        self.backlog.extend(chain.iter().cloned());
    }

    fn push_now(&mut self, chain: &[squeue::Entry]) -> bool {
        // SAFETY: the memory an entry points to lives until its completion was handled: iovecs and
        // chunks in the send's state, an answer in the question's, receive buffers and the arena in the
        // ring, which waits in its drop.
        let pushed = unsafe { self.io.submission().push_multiple(chain).is_ok() };
        if pushed {
            self.pushed = self.pushed.wrapping_add(chain.len() as u32);
        }
        pushed
    }

    /// Queues the entries left over, whole chains at a time, submitting as often as it takes. Returns
    /// `false` if the kernel would not take them now.
    pub fn flush_backlog(&mut self, stats: &mut Stats) -> io::Result<bool> {
        while !self.backlog.is_empty() {
            let link = |entry: &squeue::Entry| is_linked(entry);
            let end = self.backlog.iter().position(|entry| !link(entry)).map_or(0, |at| at + 1);
            let chain: Vec<_> = self.backlog.iter().take(end.max(1)).cloned().collect();
            if !self.push_now(&chain) {
                self.enter(Enter::Submit, stats)?;
                if !self.push_now(&chain) {
                    return Ok(false);
                }
            }
            self.backlog.drain(..chain.len());
        }
        Ok(true)
    }

    /// Puts a descriptor into this slot of the direct descriptor table, which must be empty. The caller
    /// keeps its own descriptor. `IORING_REGISTER_FILES_UPDATE`.
    pub fn put_file(&self, slot: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
        let put = self.io.submitter().register_files_update(slot, &[fd.as_raw_fd()])?;
        if put == 1 { Ok(()) } else { Err(io::Error::other("nothing was put into the table")) }
    }

    /// Returns `true` if completions wait in the kernel for room in the CQ.
    pub fn overflown(&mut self) -> bool {
        self.io.submission().cq_overflow()
    }

    /// Returns `true` if an enter would do anything: there are entries to submit, deferred work to run,
    /// or overflown completions to fetch.
    pub fn needs_enter(&mut self) -> bool {
        let sq = self.io.submission();
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// Returns `true` if the kernel has work to do whose completions an enter brings.
    pub fn has_task_work(&mut self) -> bool {
        self.io.submission().taskrun()
    }

    /// Returns `true` if the CQ has completions.
    pub fn has_completions(&mut self) -> bool {
        !self.io.completion().is_empty()
    }

    /// Takes the next completion from the CQ.
    pub fn pop(&mut self, stats: &mut Stats) -> Option<Completion> {
        let cqe = self.io.completion().next()?;
        stats.cqes += 1;
        if !cqueue::more(cqe.flags()) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let cut_off = cqe.user_data() & CUT_OFF != 0;
        let token = Token::unpack(cqe.user_data() & !CUT_OFF);
        let result = if cut_off { -libc::ECANCELED } else { cqe.result() };
        Some(Completion { token, result, flags: cqe.flags() })
    }

    /// Submits the queued entries, and handles completions as `how` says. `io_uring_enter(2)`.
    pub fn enter(&mut self, how: Enter, stats: &mut Stats) -> io::Result<()> {
        let queued = self.io.submission().len() as u32;
        let timespec;
        let mut flags = EnterFlags::empty();
        let mut want = 0;
        let mut arg = GetEventsArg::default();
        match how {
            Enter::Submit => {}
            Enter::Poll => flags |= EnterFlags::GETEVENTS,
            Enter::Wait(timeout) => {
                flags |= EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
                want = 1;
                stats.waits += 1;
                if let Some(timeout) = timeout {
                    timespec = Timespec::from(timeout);
                    arg.ts = &raw const timespec as u64;
                }
            }
        }
        stats.enters += 1;
        #[cfg(test)]
        let (submit, want, flags) = self.faults.enter(queued, want, flags)?;
        #[cfg(not(test))]
        let submit = queued;
        let submitted = self.system_call(submit, want, flags, &arg)?;
        stats.sqes += u64::from(submitted);
        if submitted < queued {
            self.cancel_cut_off(stats);
        }
        Ok(())
    }

    /// Cancels the rest of a chain, if the kernel has taken only a part of it.
    fn cancel_cut_off(&mut self, stats: &mut Stats) {
        let left = self.io.submission().len() as u32;
        let first = self.pushed.wrapping_sub(left);
        if !is_linked(&self.entry(first.wrapping_sub(1))) {
            return;
        }
        stats.cut_chains += 1;
        for at in (0..left).map(|at| first.wrapping_add(at)) {
            let entry = self.entry(at);
            // This cancel finds no request and so does nothing, and every ring may make it.
            let nothing = opcode::AsyncCancel::new(u64::MAX).build();
            self.set_entry(at, nothing.user_data(entry.get_user_data() | CUT_OFF));
            if !is_linked(&entry) {
                return;
            }
        }
    }

    /// Returns the entry with this number in the order of puts into the SQ. The entry must still be in
    /// the SQ, or be the one right before the entries there.
    fn entry(&self, number: u32) -> squeue::Entry {
        // SAFETY: `place` points to an entry, which is plain bytes, any of them valid. The kernel only
        // reads there.
        unsafe { self.place(number).read() }
    }

    fn set_entry(&mut self, number: u32, entry: squeue::Entry) {
        // SAFETY: `place` points to an entry. Without IORING_SETUP_SQPOLL, which `setup` does not use, the
        // kernel reads entries only within io_uring_enter, which only this thread calls.
        unsafe { self.place(number).write(entry) };
    }

    fn place(&self, number: u32) -> *mut squeue::Entry {
        // The size is a power of two. The SQ was empty at first, so each entry lies where its number
        // says.
        let slot = number % self.io.params().sq_entries();
        self.entries.as_mut_ptr().cast::<squeue::Entry>().wrapping_add(slot as usize)
    }

    fn system_call(
        &self,
        submit: u32,
        want: u32,
        flags: EnterFlags,
        arg: &GetEventsArg,
    ) -> io::Result<u32> {
        let (fd, registered) = match self.registered {
            Some(index) => (index as i32, ENTER_REGISTERED_RING),
            None => (self.io.as_raw_fd(), 0),
        };
        let ext = flags.contains(EnterFlags::EXT_ARG);
        let (arg, size) =
            if ext { (&raw const *arg, size_of_val(arg)) } else { (std::ptr::null(), 0) };
        let flags = flags.bits() | registered;
        // SAFETY: the descriptor is this ring's; `arg` and the timespec in it are on our caller's
        // stack; the callers of `push` vouched for the queued entries.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, submit, want, flags, arg, size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Closes the sockets now; the kernel's own clean-up of a closed ring comes later.
        let _ = self.io.submitter().unregister_files();
        if let Some(index) = self.registered {
            crate::setup::unregister_ring(&self.io, index);
        }
    }
}

/// The work of an enter besides submitting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enter {
    /// Nothing.
    Submit,
    /// Runs deferred work and fetches overflown completions, without sleeping.
    Poll,
    /// Works as `Poll`, and sleeps until there is a completion or the time is up.
    Wait(Option<Duration>),
}

/// `IORING_OFF_SQES`: the offset at which a ring's descriptor maps the entries of its SQ.
const OFF_SQES: u64 = 0x1000_0000;

/// Marks the `user_data` of an entry that was cancelled in the SQ. No [`Token`] has this bit.
const CUT_OFF: u64 = 1 << 63;

/// `IORING_ENTER_REGISTERED_RING`.
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Default)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    ts: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for Timespec {
    fn from(time: Duration) -> Timespec {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timespec { seconds, nanoseconds: i64::from(time.subsec_nanos()) }
    }
}

/// Returns `true` if the next entry waits for this one. The crate has no getter for an entry's flags,
/// which are the second byte of `struct io_uring_sqe`.
pub(crate) fn is_linked(entry: &squeue::Entry) -> bool {
    const _: () = assert!(size_of::<squeue::Entry>() == 64);
    // SAFETY: an entry is a `struct io_uring_sqe` of 64 bytes, whose second byte is always set.
    let flags = unsafe { *(&raw const *entry).cast::<u8>().add(1) };
    flags & squeue::Flags::IO_LINK.bits() != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn knows_links() {
        let nop = opcode::Nop::new().build();
        assert!(!is_linked(&nop));
        assert!(is_linked(&nop.flags(squeue::Flags::IO_LINK)));
    }
}
