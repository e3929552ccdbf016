//! Distinguishes a peer that only sends no more from one that is gone.
//!
//! A recv sees the end of the stream in both cases. A poll sees more: POLLHUP says that both directions
//! are shut, which holds at a unix socket once the peer has closed its end, and at TCP once the peer
//! has reset the connection. io_uring reports POLLRDHUP to every poll, so a single-shot poll would
//! complete at once at a socket that is half closed; a multishot poll reports that first and then each
//! change. See poll(2), `io_uring_prep_poll_multishot(3)`, Linux 5.13.

use io_uring::{opcode, types};

use crate::queue::Completion;
use crate::slots::{flag, property};
use crate::token::{Op, Token};
use crate::{Event, Ring, Socket};

/// The events by which a poll reports that a connection has ended in both directions.
const GONE: i32 = (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) as i32;

impl Ring {
    /// Watches a socket whose stream has ended: [`Event::HungUp`] tells, once, that its peer is gone. A
    /// TCP peer that closes its socket looks like one that sends no more, until the peer resets the
    /// connection in answer to a send.
    pub fn watch_hang_up(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        if slot.has(property::WATCHED) {
            return;
        }
        slot.properties |= property::WATCHED;
        slot.pending += 1;
        let poll = opcode::PollAdd::new(types::Fixed(socket.index), 0).multi(true).build();
        let entry = poll.user_data(socket.token(Op::HangUp).pack());
        self.queue.push(&[entry], &mut self.stats);
    }

    pub(crate) fn on_hang_up(&mut self, token: Token, completion: Completion) -> Option<Event> {
        let socket = Socket::of(token);
        let Completion { result, .. } = completion;
        let Some(slot) = self.slots.get(socket) else {
            self.stats.stale_cqes += 1;
            return None;
        };
        if !completion.more() {
            slot.properties &= !property::WATCHED;
            slot.pending -= 1;
        }
        if slot.is(flag::CLOSING) {
            self.settle(socket);
            return None;
        }
        if slot.has(property::HUNG_UP) {
            return None;
        }
        let retry = result < 0 && self.may_try_again(socket);
        if retry {
            self.try_later(token);
            return None;
        }
        if result >= 0 && result & GONE == 0 {
            if !completion.more() {
                self.watch_hang_up(socket);
            }
            return None;
        }
        // A socket that cannot be watched is reported as gone: nothing would report it later.
        self.slots.get(socket)?.properties |= property::HUNG_UP;
        Some(Event::HungUp { socket })
    }
}
