//! Receiving: one multishot recv for each socket, its buffers taken from the provided buffer ring.
//!
//! Two bits hold the state of a socket: *wanted*, the user asked to receive, and *armed*, a request is
//! in flight. Whenever a request ends, for whatever reason (a cancel that `resume` overtook, the CQ
//! overflown, a link broken), the ring arms another if the socket is still wanted. With no receive
//! buffer left (ENOBUFS) sockets queue up, and the ring arms them in that order as buffers come back.
//! See `io_uring_prep_recv_multishot(3)`, Linux 6.0.

use std::io;

use io_uring::{cqueue, opcode, squeue, types};

use crate::buffers::GROUP;
use crate::queue::Completion;
use crate::retry::MOST_TRIES;
use crate::slots::{NO_SEND, flag};
use crate::token::{Op, Token};
use crate::{Event, Features, Ring, Socket, Then};

impl Ring {
    /// Stops receiving from a socket. Bytes that are already on their way to the user still arrive as
    /// events; the others stay in the socket.
    pub fn pause(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        slot.clear(flag::WANTED);
        if slot.is(flag::ARMED) && !slot.is(flag::CANCELLING) {
            self.cancel_recv(socket);
        }
    }

    /// Receives from a socket, until [`pause`](Ring::pause) or the end of the stream.
    pub fn resume(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        if !slot.is(flag::ENDED) {
            slot.set(flag::WANTED);
            self.arm_if_wanted(socket);
        }
    }

    /// Arms the recv unless it is armed, not wanted, or in the queue for a buffer.
    pub(crate) fn arm_if_wanted(&mut self, socket: Socket) {
        if let Some(entry) = self.recv_if_wanted(socket) {
            self.queue.push(&[entry], &mut self.stats);
        }
    }

    /// Returns the recv to arm, and counts it as armed; `None` if there is nothing to arm.
    pub(crate) fn recv_if_wanted(&mut self, socket: Socket) -> Option<squeue::Entry> {
        let multishot = self.features.contains(Features::MULTISHOT_RECV);
        let slot = self.slots.open_slot(socket)?;
        if !slot.is(flag::WANTED) || slot.is(flag::ARMED) || slot.is(flag::STARVED) {
            return None;
        }
        slot.set(flag::ARMED);
        slot.pending += 1;
        self.stats.recvs_armed += 1;
        Some(recv_entry(socket, multishot))
    }

    fn cancel_recv(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        slot.set(flag::CANCELLING);
        slot.pending += 1;
        let recv = socket.token(Op::Recv).pack();
        let token = socket.token(Op::CancelRecv).pack();
        let entry = opcode::AsyncCancel::new(recv).build().user_data(token);
        self.queue.push(&[entry], &mut self.stats);
    }

    pub(crate) fn on_cancel_recv(&mut self, token: Token, result: i32) {
        let socket = Socket::of(token);
        let Some(slot) = self.slots.get(socket) else { return };
        slot.pending -= 1;
        slot.clear(flag::CANCELLING);
        let missed = result == -libc::ENOENT || result == -libc::EALREADY;
        if missed && slot.is(flag::ARMED) && !slot.is(flag::WANTED) && !slot.is(flag::CLOSING) {
            // The cancel met the recv between two polls, or behind the link of a send.
            self.missed_cancels.push(socket);
        }
        self.settle(socket);
    }

    /// Repeats the cancels that found nothing, once per wait, so that the ring does not spin.
    pub(crate) fn retry_missed_cancels(&mut self) {
        for _ in 0..self.missed_cancels.len() {
            let Some(socket) = self.missed_cancels.pop() else { return };
            let Some(slot) = self.slots.open_slot(socket) else { continue };
            // A recv behind a send is cancelled when it begins to deliver.
            let behind_send = slot.send != NO_SEND;
            if slot.is(flag::ARMED) && !slot.is(flag::WANTED) && !behind_send {
                self.pause(socket);
            }
        }
    }

    pub(crate) fn on_recv(&mut self, token: Token, completion: Completion) -> Option<Event> {
        let socket = Socket::of(token);
        let Completion { result, flags, .. } = completion;
        // The buffer must come back, even if the socket is gone.
        let len = usize::try_from(result).unwrap_or(0);
        let data = cqueue::buffer_select(flags).and_then(|id| self.buffers.lend(id, len));
        let Some(slot) = self.slots.get(socket) else {
            self.stats.stale_cqes += 1;
            return None;
        };
        if !completion.more() {
            slot.clear(flag::ARMED);
            slot.pending -= 1;
        }
        if slot.is(flag::CLOSING) {
            self.settle(socket);
            return None;
        }
        match (result, data) {
            (1.., Some(data)) => {
                self.stats.received += data.len() as u64;
                slot.tries = 0;
                if completion.more() {
                    self.note_received(socket);
                }
                self.after_data(socket);
                Some(Event::Received { socket, data })
            }
            (1.., None) => self.recv_ended(socket, Some(libc::EIO)),
            (0, _) => self.recv_ended(socket, None),
            (error, _) => self.on_recv_error(socket, -error),
        }
    }

    /// Arms the recv again if it is wanted, and cancels it if it is not.
    fn after_data(&mut self, socket: Socket) {
        let Some(slot) = self.slots.open_slot(socket) else { return };
        if slot.is(flag::WANTED) {
            self.arm_if_wanted(socket);
        } else if slot.is(flag::ARMED) && !slot.is(flag::CANCELLING) {
            self.cancel_recv(socket);
        }
    }

    fn on_recv_error(&mut self, socket: Socket, errno: i32) -> Option<Event> {
        match errno {
            libc::ENOBUFS => self.starve(socket),
            // The send that goes on makes the broken link again.
            libc::ECANCELED if self.receives_after_send(socket) => {}
            libc::ECANCELED | libc::EINTR => self.arm_if_wanted(socket),
            // Somebody who shares the socket has made it nonblocking.
            libc::EAGAIN => self.recv_later(socket),
            libc::ENOMEM if self.may_try_again(socket) => self.recv_later(socket),
            errno => return self.recv_ended(socket, Some(errno)),
        }
        None
    }

    /// Counts a failed try of a socket's recv or close. Returns `true` if there may be another try.
    pub(crate) fn may_try_again(&mut self, socket: Socket) -> bool {
        let Some(slot) = self.slots.get(socket) else { return false };
        slot.tries += 1;
        slot.tries <= MOST_TRIES
    }

    /// Keeps the recv from being armed until its pause is over.
    fn recv_later(&mut self, socket: Socket) {
        if let Some(slot) = self.slots.get(socket) {
            slot.set(flag::STARVED);
            self.try_later(socket.token(Op::Recv));
        }
    }

    /// Arms a recv that failed, once its pause is over.
    pub(crate) fn recv_again(&mut self, token: Token) {
        let socket = Socket::of(token);
        if let Some(slot) = self.slots.get(socket) {
            slot.clear(flag::STARVED);
            self.arm_if_wanted(socket);
        }
    }

    fn receives_after_send(&mut self, socket: Socket) -> bool {
        let Some(slot) = self.slots.get(socket) else { return false };
        let send = slot.send;
        send != NO_SEND && self.sends.then(send) == Then::Receive
    }

    /// Reports the end of the stream, once.
    pub(crate) fn recv_ended(&mut self, socket: Socket, errno: Option<i32>) -> Option<Event> {
        let slot = self.slots.get(socket).filter(|slot| !slot.is(flag::ENDED))?;
        slot.clear(flag::WANTED);
        slot.set(flag::ENDED);
        Some(Event::RecvEnded { socket, error: errno.map(io::Error::from_raw_os_error) })
    }

    /// Queues the socket for a buffer, since there was none.
    fn starve(&mut self, socket: Socket) {
        self.stats.recv_buffers_exhausted += 1;
        let Some(slot) = self.slots.get(socket) else { return };
        if slot.is(flag::WANTED) && !slot.is(flag::STARVED) {
            slot.set(flag::STARVED);
            self.starved.push_back(socket);
        }
    }

    /// Arms as many of the sockets that wait for a buffer as there are buffers. Returns `true` if that
    /// might have been too few: a socket without data needs no buffer, and then the next can try.
    pub(crate) fn feed_starved(&mut self) -> bool {
        let mut buffers = self.buffers.free();
        while buffers > 0
            && let Some(socket) = self.starved.pop_front()
        {
            if let Some(slot) = self.slots.get(socket) {
                slot.clear(flag::STARVED);
                self.arm_if_wanted(socket);
                buffers -= 1;
            }
        }
        self.buffers.free() > 0 && !self.starved.is_empty()
    }
}

fn recv_entry(socket: Socket, multishot: bool) -> squeue::Entry {
    let fd = types::Fixed(socket.index);
    let entry = if multishot {
        opcode::RecvMulti::new(fd, GROUP).build()
    } else {
        let recv = opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(GROUP);
        recv.build().flags(squeue::Flags::BUFFER_SELECT)
    };
    entry.user_data(socket.token(Op::Recv).pack())
}
