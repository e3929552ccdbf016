//! Finds the ends of streams that the kernel forgets to report.
//!
//! A multishot recv is woken twice when bytes and the end of their stream arrive back to back. Linux
//! may take both wake-ups for the bytes, and then wait for a wake-up that never comes
//! (`io_poll_check_events` in the kernel's `io_uring/poll.c`; seen on 6.18): the ring would never learn
//! that a peer is gone that sends something and closes at once. So the ring looks once at a socket that
//! has received something, and then nothing for [`PERIOD`], by a recv that takes nothing and does not
//! wait.
//!
//! The ring does not look at a socket that goes on receiving, nor at one that stays quiet after that
//! look. See recv(2), MSG_PEEK.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use io_uring::{opcode, types};

use crate::queue::Completion;
use crate::slots::{flag, property};
use crate::token::{Op, Token};
use crate::{Event, Ring, Socket};

/// The time for which a socket must have been quiet before the ring looks at it, which takes at most
/// twice as long.
const PERIOD: Duration = Duration::from_millis(250);

/// The number of sockets looked at between two looks for events.
const BATCH: usize = 256;

/// The number of turns between two looks at the clock, in a ring that never sleeps.
const CLOCK_EVERY: u32 = 256;

/// Sockets that have received something. Bounded: each is here once ([`property::RECENT`]).
#[derive(Default)]
pub(crate) struct Quiet {
    recent: VecDeque<Socket>,
    /// The end of the period that runs, if one does.
    due: Option<Instant>,
    /// The number of sockets still to be gone through at the end of this period.
    left: usize,
    /// True if a time has come that the ring was to wait for, which may be the end of the period.
    is_time: bool,
    /// The number of turns, which says when to look at the clock in any case.
    turns: u32,
}

impl Quiet {
    /// Returns the time at which the ring is to go through the sockets.
    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Notes that a time has come that the ring was to wait for, perhaps the end of the period.
    pub fn ring_is_late(&mut self) {
        self.is_time = self.due.is_some();
    }

    /// Returns `true` if the period has ended. A period begins with the first socket.
    fn has_ended(&mut self) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        self.turns = self.turns.wrapping_add(1);
        let Some(due) = self.due else {
            self.due = Some(Instant::now() + PERIOD);
            return false;
        };
        let asks = self.is_time || self.turns.is_multiple_of(CLOCK_EVERY);
        self.is_time = false;
        asks && Instant::now() >= due
    }
}

impl Ring {
    /// Notes that a multishot recv has received something and goes on.
    pub(crate) fn note_received(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        slot.properties |= property::HEARD;
        if !slot.has(property::RECENT) {
            slot.properties |= property::RECENT;
            self.quiet.recent.push_back(socket);
        }
    }

    /// Looks at the sockets that have been quiet for a period. Returns `true` if there are more to be
    /// looked at, so that the ring must not sleep.
    pub(crate) fn look_at_quiet(&mut self) -> bool {
        if self.quiet.left == 0 {
            if !self.quiet.has_ended() {
                return false;
            }
            self.quiet.left = self.quiet.recent.len();
        }
        for _ in 0..self.quiet.left.min(BATCH) {
            self.quiet.left -= 1;
            let Some(socket) = self.quiet.recent.pop_front() else { break };
            self.look_if_quiet(socket);
        }
        if self.quiet.left == 0 {
            let is_empty = self.quiet.recent.is_empty();
            self.quiet.due = (!is_empty).then(|| Instant::now() + PERIOD);
        }
        self.quiet.left > 0
    }

    fn look_if_quiet(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        if slot.has(property::HEARD) {
            slot.properties &= !property::HEARD;
            return self.quiet.recent.push_back(socket);
        }
        slot.properties &= !property::RECENT;
        if slot.is(flag::CLOSING) || slot.is(flag::ENDED) || !slot.is(flag::ARMED) {
            return;
        }
        slot.pending += 1;
        let fd = types::Fixed(socket.index);
        let recv = opcode::Recv::new(fd, self.glimpse.as_mut_ptr(), 1);
        let entry = recv.flags(libc::MSG_PEEK | libc::MSG_DONTWAIT).build();
        self.queue.push(&[entry.user_data(socket.token(Op::Look).pack())], &mut self.stats);
    }

    /// Handles the result of a look: bytes are left to the multishot recv, the end of the stream is
    /// reported.
    pub(crate) fn on_look(&mut self, token: Token, completion: Completion) -> Option<Event> {
        let socket = Socket::of(token);
        let slot = self.slots.get(socket)?;
        slot.pending -= 1;
        if slot.is(flag::CLOSING) {
            self.settle(socket);
            return None;
        }
        match -completion.result {
            0 => {
                self.stats.ends_found += 1;
                self.recv_ended(socket, None)
            }
            ..0 => {
                self.note_received(socket);
                None
            }
            libc::EAGAIN | libc::ENOMEM | libc::EINTR | libc::ECANCELED => None,
            errno => self.recv_ended(socket, Some(errno)),
        }
    }
}
