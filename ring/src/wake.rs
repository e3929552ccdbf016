//! Waking the ring's thread from other threads.
//!
//! The ring's thread sleeps in `io_uring_enter` only. A multishot poll on an eventfd is always armed,
//! so writing the eventfd completes the poll and ends the sleep. The write is a system call, so it is
//! made only when the thread is parked, by the one waker that clears the parked flag.
//!
//! # No wake-up is lost
//!
//! Threads hand over work through a queue of the user's. The two sides do, in this order:
//!
//! ```text
//! a waking thread                      the ring's thread
//!   W1 put work into the queue           R1 parked = true
//!   W2 fence(SeqCst)                     R2 fence(SeqCst)
//!   W3 parked? then write the eventfd    R3 look into the queue (`idle`); sleep if it is empty
//! ```
//!
//! One of the two fences comes first in the single order that all SeqCst fences have. If W2 does, then
//! R3, after R2, sees the work of W1, and there is no sleep. If R2 does, then W3 sees the flag of R1,
//! and the eventfd is written; it stays readable, so it does not matter whether the write or the sleep
//! comes first. Rayon's sleep module rests on the same argument.
//!
//! The eventfd is never read: a multishot poll completes anew with every write, whatever the count.
//! See `io_uring_prep_poll_multishot(3)`, Linux 5.13.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::token::{Op, Token};

/// A handle that wakes the thread of one ring: clones wake the same thread.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    parked: AtomicBool,
    eventfd: OwnedFd,
    /// The bell that stands for the eventfd in a loom model.
    #[cfg(loom)]
    bell: crate::loom_tests::Bell,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        // SAFETY: eventfd(2) takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: eventfd(2) has just made this descriptor, and nothing else owns it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let shared = Shared {
            parked: AtomicBool::new(false),
            eventfd,
            #[cfg(loom)]
            bell: crate::loom_tests::Bell::default(),
        };
        Ok(Waker { shared: Arc::new(shared) })
    }

    /// Makes the [`Ring::wait`](crate::Ring::wait) that sleeps now, or is about to, return. Does
    /// nothing if there is none: the next one calls `idle` before it sleeps.
    ///
    /// Call it after the work was put where `idle` finds it.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        let parked = &self.shared.parked;
        if parked.load(Ordering::Relaxed) && parked.swap(false, Ordering::Relaxed) {
            self.ring_the_bell();
        }
    }

    #[cold]
    fn ring_the_bell(&self) {
        #[cfg(loom)]
        self.shared.bell.ring();
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of ours, to a descriptor of ours. The write can fail only with EAGAIN
        // when the count is full; then the eventfd is readable all the same.
        unsafe { libc::write(self.shared.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Announces that the ring's thread is about to sleep.
    pub(crate) fn park(&self) {
        self.shared.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn unpark(&self) {
        self.shared.parked.store(false, Ordering::Relaxed);
    }

    /// Sleeps until the bell rings.
    #[cfg(all(loom, test))]
    pub(crate) fn sleep(&self) {
        self.shared.bell.wait();
    }

    /// Returns the poll to keep armed.
    pub(crate) fn poll(&self) -> squeue::Entry {
        let token = Token { op: Op::Wake, index: 0, generation: 0 };
        let fd = types::Fd(self.shared.eventfd.as_raw_fd());
        opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build().user_data(token.pack())
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("parked", &self.shared.parked).finish()
    }
}
