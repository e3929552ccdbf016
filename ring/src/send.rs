//! Sending: all chunks of a message, in order, in as few requests as the kernel allows.
//!
//! A send is done in *rounds*. A round is a chain of linked *steps*, each one SEND (one chunk) or
//! SENDMSG (several), with the request that follows the send linked behind the last. `MSG_WAITALL`
//! makes the kernel go on with a short step, and break the chain if it cannot, so bytes never overtake
//! each other. If a round ends with bytes left, because it was short or because there were more than
//! one chain holds, another round begins where it stopped. The user sees one [`Event::Sent`] for the
//! whole send.
//!
//! The choice of requests was measured; the crate's documentation has the numbers. See
//! `io_uring_prep_send(3)`, `io_uring_prep_sendmsg(3)`, `io_uring_prep_send_zc(3)` (Linux 6.0; from
//! registered buffers with several iovecs 6.15), and `io_uring_enter(2)` for `IOSQE_IO_LINK`.
//!
//! The states are recycled: sending allocates nothing once the vectors have grown.

use std::io;

use io_uring::{cqueue, squeue, types};

use crate::queue::Completion;
use crate::retry::MOST_TRIES;
use crate::send_chain::{
    FLAGS, MAX_IOVECS, MAX_STEP_BYTES, MAX_STEPS, SendChain, header, step_entry,
};
use crate::slots::{NO_SEND, flag, property};
use crate::token::{Op, Token};
use crate::{Chunk, Event, Features, Ring, SendRefused, Socket, Then};

/// The most rounds in a row that send nothing and are followed at once by another try.
const MAX_STALLS: u8 = 8;

/// `IORING_NOTIF_USAGE_ZC_COPIED`.
const USAGE_COPIED: i32 = i32::MIN;

/// The settings for building a round.
#[derive(Clone, Copy)]
struct Style {
    /// The most steps of a chain.
    send_chain: usize,
    /// Steps of at least this many bytes are not copied.
    zero_copy_from: usize,
    /// True if zero copy steps can have several iovecs.
    zero_copy_vectored: bool,
    /// True if the kernel continues short steps.
    waitall: bool,
}

/// A send in flight.
struct State {
    generation: u32,
    socket: Socket,
    then: Then,
    chunks: Vec<Chunk>,
    /// The index of the first chunk not sent completely, and the number of its bytes that are sent.
    chunk: usize,
    offset: usize,
    /// Bytes sent by earlier rounds.
    sent: usize,
    /// The iovecs and message headers of the round, which do not move while it is in flight.
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
    /// The state of the round: steps not completed, bytes asked for and sent, first error.
    pending: u8,
    round_bytes: usize,
    round_sent: usize,
    error: i32,
    stalls: u8,
    /// True if all chunks may be sent without a copy.
    zero_copy: bool,
    /// The number of zero copy steps whose memory the network holds.
    notifications: u32,
    /// True while the send waits to be tried again; none of its requests is in flight then.
    resting: bool,
    /// True once the user was told of the end; only notifications are waited for then.
    over: bool,
    free: bool,
}

// The raw pointers in iovecs and headers make `State` neither Send nor Sync, as is the ring.

/// All sends in flight, and free states.
#[derive(Default)]
pub(crate) struct Sends {
    states: Vec<State>,
    free: Vec<u32>,
}

impl Sends {
    /// Returns the number of sends in flight, or waiting for notifications.
    pub fn in_flight(&self) -> u32 {
        (self.states.len() - self.free.len()) as u32
    }

    /// Returns what follows a send.
    pub fn then(&self, index: u32) -> Then {
        self.states[index as usize].then
    }

    /// Returns the token of the steps of a send.
    pub fn token(&self, index: u32) -> Token {
        Token { op: Op::Send, index, generation: self.states[index as usize].generation }
    }

    fn open(&mut self, socket: Socket, then: Then) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.states.push(State::new(socket));
            self.states.len() as u32 - 1
        });
        let state = &mut self.states[index as usize];
        state.restart(socket, then);
        index
    }

    fn get(&mut self, token: Token) -> Option<&mut State> {
        let state = self.states.get_mut(token.index as usize)?;
        (state.generation == token.generation && !state.free).then_some(state)
    }

    /// Frees the state once the user was told of its end, unless the network still holds its chunks.
    fn release_if_over(&mut self, index: u32) {
        let state = &mut self.states[index as usize];
        if state.over && state.notifications == 0 {
            state.clear();
            self.free.push(index);
        }
    }
}

impl State {
    fn new(socket: Socket) -> State {
        State {
            generation: 0,
            socket,
            then: Then::Nothing,
            chunks: Vec::new(),
            chunk: 0,
            offset: 0,
            sent: 0,
            iovecs: Vec::new(),
            headers: Vec::new(),
            pending: 0,
            round_bytes: 0,
            round_sent: 0,
            error: 0,
            stalls: 0,
            zero_copy: false,
            notifications: 0,
            resting: false,
            over: false,
            free: true,
        }
    }

    fn restart(&mut self, socket: Socket, then: Then) {
        debug_assert!(self.free && self.chunks.is_empty() && self.notifications == 0);
        (self.socket, self.then) = (socket, then);
        (self.chunk, self.offset, self.sent) = (0, 0, 0);
        (self.pending, self.round_sent, self.error, self.stalls) = (0, 0, 0, 0);
        (self.zero_copy, self.resting, self.over, self.free) = (false, false, false, false);
    }

    fn clear(&mut self) {
        self.chunks.clear();
        self.chunks.shrink_to(MAX_IOVECS);
        self.iovecs.clear();
        self.headers.clear();
        self.generation = self.generation.wrapping_add(1);
        self.free = true;
    }

    fn done(&self) -> bool {
        self.chunk == self.chunks.len()
    }

    /// Returns `true` if the message is large enough to be sent without a copy, and all of it in the
    /// arena.
    fn may_be_zero_copy(&self, from: usize) -> bool {
        let bytes: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        bytes >= from && self.chunks.iter().all(Chunk::is_mapped)
    }

    /// Builds the next round's steps into `chain`. Returns `true` if they reach the end of the message.
    fn build(&mut self, index: u32, style: Style, chain: &mut Vec<squeue::Entry>) -> bool {
        let zero_copy = self.zero_copy;
        let widest = if zero_copy && !style.zero_copy_vectored { 1 } else { MAX_IOVECS };
        // The kernel does not set F_MORE for a zero copy step that a broken link cancels, and then
        // sends a notification all the same. So such steps are not linked.
        let longest = if zero_copy { 1 } else { style.send_chain };
        let (send_chain, ends) = self.gather(longest, widest);
        self.headers.clear();
        let mut next = self.iovecs.as_mut_ptr();
        for step in &send_chain {
            self.headers.push(header(next, step.iovecs));
            next = next.wrapping_add(step.iovecs);
        }
        let token = Token { op: Op::Send, index, generation: self.generation }.pack();
        let flags = if style.waitall { FLAGS | libc::MSG_WAITALL } else { FLAGS };
        let fd = types::Fixed(self.socket.index);
        for (step, header) in send_chain.iter().zip(&self.headers) {
            let zero_copy = zero_copy && step.bytes >= style.zero_copy_from;
            chain.push(step_entry(fd, header, flags, zero_copy).user_data(token));
        }
        self.round_bytes = send_chain.iter().map(|step| step.bytes).sum();
        (self.pending, self.round_sent, self.error) = (chain.len() as u8, 0, 0);
        ends
    }

    /// Lays out the bytes left to send as iovecs, for at most `most` steps of `widest` iovecs. Returns
    /// `true` if they reach the end of the message.
    fn gather(&mut self, most: usize, widest: usize) -> (SendChain, bool) {
        self.iovecs.clear();
        let mut send_chain = SendChain::default();
        let mut offset = self.offset;
        for chunk in &self.chunks[self.chunk..] {
            while offset < chunk.len() {
                let iov_len = (chunk.len() - offset).min(MAX_STEP_BYTES);
                if !send_chain.add(iov_len, most, widest) {
                    return (send_chain, false);
                }
                let iov_base = chunk.place().wrapping_add(offset).cast();
                self.iovecs.push(libc::iovec { iov_base, iov_len });
                offset += iov_len;
            }
            offset = 0;
        }
        (send_chain, true)
    }

    /// Moves the position past the bytes that the round has sent.
    fn advance(&mut self) {
        self.sent += self.round_sent;
        self.offset += std::mem::take(&mut self.round_sent);
        while let Some(chunk) = self.chunks.get(self.chunk)
            && self.offset >= chunk.len()
        {
            self.offset -= chunk.len();
            self.chunk += 1;
        }
    }
}

impl Ring {
    /// Sends all chunks in order, then does as `then` says. Ends with one [`Event::Sent`].
    ///
    /// Only one send of a socket can be in flight: the caller should collect further messages meanwhile
    /// and send them together. A refused send drops the chunks.
    pub fn send(
        &mut self,
        socket: Socket,
        chunks: impl IntoIterator<Item = Chunk>,
        then: Then,
    ) -> Result<(), SendRefused> {
        let slot = self.slots.open_slot(socket).ok_or(SendRefused::Gone)?;
        if slot.send != NO_SEND {
            return Err(SendRefused::Busy);
        }
        let index = self.sends.open(socket, then);
        slot.send = index;
        if then == Then::Receive && !slot.is(flag::ENDED) {
            slot.set(flag::WANTED);
        }
        let zero_copy_from = self.zero_copy_from.filter(|_| slot.has(property::ZERO_COPY));
        let state = &mut self.sends.states[index as usize];
        state.chunks.extend(chunks.into_iter().filter(|chunk| !chunk.is_empty()));
        state.zero_copy = zero_copy_from.is_some_and(|from| state.may_be_zero_copy(from));
        if state.done() {
            self.send_nothing(index);
        } else {
            self.start_round(index);
        }
        Ok(())
    }

    /// Ends a send of no bytes: only does what follows it.
    fn send_nothing(&mut self, index: u32) {
        let state = &self.sends.states[index as usize];
        let (socket, then) = (state.socket, state.then);
        if then == Then::Shutdown {
            self.shutdown(socket);
        }
        let event = self.sent(index, Ok(0));
        self.ready.extend(event);
    }

    fn start_round(&mut self, index: u32) {
        let waitall = self.features.contains(Features::SEND_WAITALL);
        let longest = (self.queue.longest_chain() - 1).clamp(1, MAX_STEPS);
        let style = Style {
            // Without MSG_WAITALL a short send does not break its link.
            send_chain: if waitall { longest } else { 1 },
            zero_copy_from: self.zero_copy_from.unwrap_or(usize::MAX),
            zero_copy_vectored: self.features.contains(Features::SENDMSG_ZC_FIXED),
            waitall,
        };
        let mut chain = std::mem::take(&mut self.chain);
        chain.clear();
        let state = &mut self.sends.states[index as usize];
        let socket = state.socket;
        let ends = state.build(index, style, &mut chain);
        let then = state.then;
        if let Some(slot) = self.slots.get(socket) {
            slot.pending += chain.len() as u16;
        }
        let fits = chain.len() < self.queue.longest_chain();
        if ends && waitall && fits {
            chain.extend(self.entry_after(socket, then));
        }
        let last = chain.len() - 1;
        for entry in &mut chain[..last] {
            *entry = entry.clone().flags(squeue::Flags::IO_LINK);
        }
        self.queue.push(&chain, &mut self.stats);
        self.chain = chain;
    }

    /// Returns the request that follows the send of a socket, to link behind the send.
    fn entry_after(&mut self, socket: Socket, then: Then) -> Option<squeue::Entry> {
        match then {
            Then::Nothing => None,
            Then::Receive => self.recv_if_wanted(socket),
            Then::Shutdown => Some(self.shutdown_entry(socket)),
        }
    }

    pub(crate) fn on_send(&mut self, token: Token, completion: Completion) -> Option<Event> {
        let Some(state) = self.sends.get(token) else {
            self.stats.stale_cqes += 1;
            return None;
        };
        if cqueue::notif(completion.flags) {
            state.notifications = state.notifications.saturating_sub(1);
            self.stats.zero_copy_copied += u64::from(completion.result & USAGE_COPIED != 0);
            self.sends.release_if_over(token.index);
            return None;
        }
        if completion.more() {
            state.notifications += 1;
            self.stats.zero_copy_sends += 1;
        }
        match completion.result {
            bytes @ 0.. => state.round_sent += bytes as usize,
            // Steps behind a broken link are cancelled.
            error if error == -libc::ECANCELED => {}
            error if state.error == 0 => state.error = -error,
            _ => {}
        }
        state.pending -= 1;
        let (socket, over) = (state.socket, state.pending == 0);
        if let Some(slot) = self.slots.get(socket) {
            slot.pending -= 1;
        }
        if over { self.end_round(token.index) } else { None }
    }

    /// Ends a round whose steps have all completed: reports the end of the send, or starts another
    /// round.
    fn end_round(&mut self, index: u32) -> Option<Event> {
        let state = &mut self.sends.states[index as usize];
        let (socket, progress) = (state.socket, state.round_sent > 0);
        let short = state.round_sent < state.round_bytes;
        self.stats.sent += state.round_sent as u64;
        state.advance();
        let closing = self.slots.get(socket).is_none_or(|slot| slot.is(flag::CLOSING));
        if closing {
            self.sent(index, Ok(0));
            self.settle(socket);
            return None;
        }
        if state.done() {
            return self.all_sent(index);
        }
        state.stalls = if progress { 0 } else { state.stalls + 1 };
        match state.error {
            libc::EOPNOTSUPP | libc::ENOBUFS | libc::ENOMEM if state.zero_copy => {
                state.zero_copy = false;
            }
            0 | libc::EINTR if state.stalls <= MAX_STALLS => {}
            libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN if state.stalls <= MOST_TRIES => {
                state.resting = true;
                self.stats.short_sends += u64::from(progress);
                self.try_later(self.sends.token(index));
                return None;
            }
            0 => return self.sent(index, Err(io::ErrorKind::WriteZero.into())),
            errno => return self.sent(index, Err(io::Error::from_raw_os_error(errno))),
        }
        self.stats.short_sends += u64::from(short);
        self.start_round(index);
        None
    }

    /// Starts the next round of a send that failed, once its pause is over.
    pub(crate) fn send_again(&mut self, token: Token) {
        let Some(state) = self.sends.get(token) else { return };
        if std::mem::take(&mut state.resting) {
            self.start_round(token.index);
        }
    }

    /// Drops a send that waits for a pause to end, because its socket is closing.
    pub(crate) fn drop_resting_send(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get(socket) else { return };
        let index = slot.send;
        if index != NO_SEND && self.sends.states[index as usize].resting {
            self.sent(index, Ok(0));
        }
    }

    fn all_sent(&mut self, index: u32) -> Option<Event> {
        let state = &self.sends.states[index as usize];
        let (socket, then, bytes) = (state.socket, state.then, state.sent);
        if then == Then::Shutdown {
            // The shutdown was linked behind the last step, unless there are no links.
            self.shutdown(socket);
        }
        self.sent(index, Ok(bytes))
    }

    /// Ends a send: the socket can take another.
    fn sent(&mut self, index: u32, result: io::Result<usize>) -> Option<Event> {
        let state = &mut self.sends.states[index as usize];
        state.over = true;
        let (socket, then) = (state.socket, state.then);
        self.sends.release_if_over(index);
        let slot = self.slots.get(socket)?;
        slot.send = NO_SEND;
        if then == Then::Receive {
            match result {
                // If the recv was linked, it is armed already.
                Ok(_) => self.arm_if_wanted(socket),
                Err(_) if !slot.is(flag::ARMED) => slot.clear(flag::WANTED),
                Err(_) => {}
            }
        }
        Some(Event::Sent { socket, result })
    }
}
