//! Closing a socket without leaking anything of it.
//!
//! A direct descriptor is closed when no request uses it any more: then its slot can get another
//! socket, and no completion of the old socket can be mistaken for one of the new. So a close first
//! cancels the requests in flight and waits for their completions. A cancel may miss a request that is
//! between two polls or behind a link, so it is repeated, once per wait, when the kernel has no
//! completions left to bring. The last resort is a shutdown, which no request on a socket survives. The
//! shutdown runs on a thread of the kernel's.
//!
//! Requests are cancelled by their `user_data`, which the kernel finds in a hash table. To cancel all
//! requests of a descriptor (`IORING_ASYNC_CANCEL_FD`), the kernel would walk through the requests of
//! all sockets: with 20,000 sockets, closing each took a millisecond.

use io_uring::{opcode, types};

use crate::slots::{NO_SEND, flag, property};
use crate::token::{Op, Token};
use crate::{Event, Ring, Socket};

/// The number of cancels before the shutdown.
const MOST_CANCELS: u8 = 4;

/// The number of waits between two cancels, in a ring that always has more completions to come.
const MOST_WAITS: u32 = 1024;

impl Ring {
    /// Shuts both directions down at once, even while a send is in flight. The peer sees the end of the
    /// stream, and so does the ring's user, if the socket receives.
    pub fn shutdown(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        if !slot.has(property::SHUT) {
            let entry = self.shutdown_entry(socket);
            self.queue.push(&[entry], &mut self.stats);
        }
    }

    /// Returns the shutdown request of a socket that lives, and counts it as in flight.
    pub(crate) fn shutdown_entry(&mut self, socket: Socket) -> io_uring::squeue::Entry {
        if let Some(slot) = self.slots.get(socket) {
            slot.properties |= property::SHUT;
            slot.pending += 1;
        }
        let fd = types::Fixed(socket.index);
        let entry = opcode::Shutdown::new(fd, libc::SHUT_RDWR).build();
        entry.user_data(socket.token(Op::Shutdown).pack())
    }

    pub(crate) fn on_shutdown(&mut self, token: Token, result: i32) {
        let socket = Socket::of(token);
        let Some(slot) = self.slots.get(socket) else { return };
        slot.pending -= 1;
        if result == -libc::ECANCELED {
            // The request linked before it failed. The send that it follows makes it again, unless that
            // send is over.
            slot.properties &= !property::SHUT;
            if slot.send == NO_SEND {
                self.shutdown(socket);
            }
        }
        self.settle(socket);
    }

    /// Closes a socket, whatever is in flight on it. The only event still reported of it is
    /// [`Event::Closed`], after which its slot may get another socket.
    pub fn close(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        slot.set(flag::CLOSING);
        slot.clear(flag::WANTED);
        // The tries so far were of its recv; the close starts at zero.
        slot.tries = 0;
        let starved = slot.is(flag::STARVED);
        self.drop_resting_send(socket);
        let Some(slot) = self.slots.get(socket) else { return };
        if slot.has_cancellable() {
            self.cancel_all(socket);
        }
        if starved {
            self.starved.retain(|&other| other != socket);
        }
        self.settle(socket);
    }

    /// Cancels the recv, the poll and the send of a closing socket.
    fn cancel_all(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        slot.cancels += 1;
        let recv = slot.is(flag::ARMED).then(|| socket.token(Op::Recv));
        let watch = slot.has(property::WATCHED).then(|| socket.token(Op::HangUp));
        let send = (slot.send != NO_SEND).then_some(slot.send);
        let send = send.map(|index| self.sends.token(index));
        for request in recv.into_iter().chain(watch).chain(send) {
            slot.pending += 1;
            let token = socket.token(Op::CancelAll).pack();
            let entry = opcode::AsyncCancel::new(request.pack()).build().user_data(token);
            self.queue.push(&[entry], &mut self.stats);
        }
    }

    pub(crate) fn on_cancel_all(&mut self, token: Token) {
        let socket = Socket::of(token);
        let Some(slot) = self.slots.get(socket) else { return };
        slot.pending -= 1;
        if slot.pending > 0 {
            // The completions still pending mostly come right behind: look again once they are handled.
            self.unsettled.push(socket);
        }
        self.settle(socket);
    }

    /// Cancels again the requests in flight on closing sockets. Returns `true` if that is put off, so
    /// that the ring must not sleep.
    pub(crate) fn cancel_unsettled(&mut self) -> bool {
        if self.unsettled.is_empty() {
            return false;
        }
        // A wait brings only some of the completions: where thousands of sockets close at once, theirs
        // take many waits.
        if self.queue.has_task_work() && self.waits_for_cancels < MOST_WAITS {
            self.waits_for_cancels += 1;
            return true;
        }
        self.waits_for_cancels = 0;
        for _ in 0..self.unsettled.len() {
            let Some(socket) = self.unsettled.pop() else { break };
            let Some(slot) = self.slots.get(socket) else { continue };
            if slot.is(flag::CLOSE_SENT) || !slot.has_cancellable() {
                continue;
            }
            if slot.cancels < MOST_CANCELS {
                self.cancel_all(socket);
            } else if slot.cancels == MOST_CANCELS {
                slot.cancels += 1;
                let entry = self.shutdown_entry(socket);
                self.queue.push(&[entry], &mut self.stats);
            }
        }
        false
    }

    /// Closes the descriptor of a closing socket if the request that completed was its last.
    pub(crate) fn settle(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        if !slot.is(flag::CLOSING) || slot.is(flag::CLOSE_SENT) || slot.pending > 0 {
            return;
        }
        slot.set(flag::CLOSE_SENT);
        self.put_close(socket);
    }

    fn put_close(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        slot.pending = 1;
        let fd = types::Fixed(socket.index);
        let entry = opcode::Close::new(fd).build().user_data(socket.token(Op::Close).pack());
        self.queue.push(&[entry], &mut self.stats);
    }

    /// Makes the close again once the pause after a failed close is over.
    pub(crate) fn close_again(&mut self, token: Token) {
        self.put_close(Socket::of(token));
    }

    pub(crate) fn on_close(&mut self, token: Token, result: i32) -> Option<Event> {
        let socket = Socket::of(token);
        let Some(slot) = self.slots.get(socket) else {
            // The slot was reported with another socket before; see `closed_early`.
            self.stats.stale_cqes += 1;
            return None;
        };
        slot.pending -= 1;
        if matches!(-result, libc::ENOMEM | libc::EAGAIN | libc::EINTR)
            && self.may_try_again(socket)
        {
            self.try_later(token);
            return None;
        }
        if result < 0 {
            tracing::error!(errno = -result, "io_uring: closing a direct descriptor failed");
        }
        self.closed(socket)
    }

    /// Frees the slot of a socket whose descriptor is closed, and returns the event to report.
    pub(crate) fn closed(&mut self, socket: Socket) -> Option<Event> {
        let silent = self.slots.get(socket)?.has(property::SILENT);
        self.slots.release(socket.index);
        self.slot_freed();
        (!silent).then_some(Event::Closed { socket })
    }
}
