//! Listening: one multishot accept for each listener, its connections put into direct descriptors.
//!
//! The kernel accepts a connection only to drop it (ENFILE) when the table is full. So when few slots
//! are left, connections are accepted one by one, and when none is left, they wait in the listener's
//! backlog. An accept that failed is not armed again at once if it would just fail again: with the
//! table full, the accept waits for a slot; with the machine out of files or memory, for a pause that
//! grows. See `io_uring_prep_multishot_accept_direct(3)`, Linux 5.19.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};

use crate::peer::Question;
use crate::peer_query::Asks;
use crate::queue::Completion;
use crate::setup::missing;
use crate::slots::{Allocator, flag, property};
use crate::token::{Op, Token};
use crate::{Error, Event, Features, Listener, PeerQuery, Ring};

/// A listener's state.
struct State {
    generation: u32,
    /// The listening socket, or `None` if this entry has no listener.
    fd: Option<OwnedFd>,
    /// True while an accept is in flight.
    armed: bool,
    /// True once the user wants no more connections; the listener is removed when its accept has ended.
    stopping: bool,
    /// True while a cancel of the accept is in flight.
    cancelling: bool,
    /// The number of cancels that found no accept to cancel.
    missed_cancels: u8,
    /// Bits of [`property`] for the sockets it accepts.
    properties: u8,
    /// The peer query made for each connection, or `None`.
    asks: Option<Asks>,
    /// The condition for arming the accept again, if it is not armed.
    retry: Retry,
    /// The length of the next pause.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Never,
    /// Once a slot of the table is free.
    WithSlot,
    At(Instant),
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const MOST_CANCELS: u8 = 16;
/// With fewer free slots than this, connections are accepted one by one.
const NEARLY_FULL: u32 = 16;

/// All listeners of a ring.
#[derive(Default)]
pub(crate) struct Listeners {
    states: Vec<State>,
}

impl Listeners {
    fn open(&mut self, fd: OwnedFd, properties: u8, asks: Option<Asks>) -> u32 {
        let state = |generation| State {
            generation,
            fd: Some(fd),
            armed: false,
            stopping: false,
            cancelling: false,
            missed_cancels: 0,
            properties,
            asks,
            retry: Retry::Never,
            pause: FIRST_PAUSE,
        };
        if let Some(index) = self.states.iter().position(|state| state.fd.is_none()) {
            self.states[index] = state(self.states[index].generation);
            return index as u32;
        }
        self.states.push(state(0));
        self.states.len() as u32 - 1
    }

    fn get(&mut self, index: u32, generation: u32) -> Option<&mut State> {
        let state = self.states.get_mut(index as usize)?;
        (state.generation == generation && state.fd.is_some()).then_some(state)
    }

    fn remove(&mut self, index: u32) {
        let state = &mut self.states[index as usize];
        state.fd = None;
        state.generation = state.generation.wrapping_add(1);
    }

    /// Returns `true` if the user still wants connections of this listener.
    pub fn listens(&mut self, listener: Listener) -> bool {
        self.get(listener.index, listener.generation).is_some_and(|state| !state.stopping)
    }

    /// Returns the earliest time at which an accept is to be armed again, or `None`.
    pub fn next_retry(&self) -> Option<Instant> {
        let times = self.states.iter().filter_map(|state| match state.retry {
            Retry::At(when) => Some(when),
            _ => None,
        });
        times.min()
    }
}

impl Ring {
    /// Accepts connections on a bound and listening stream socket. Options set on the socket before,
    /// such as `TCP_NODELAY`, hold for its connections too. The socket is closed by
    /// [`stop_listening`](Ring::stop_listening) or with the ring.
    ///
    /// Fails with [`Error::Allocator`] if the ring has [adopted](Ring::adopt) a socket before.
    pub fn listen(&mut self, listener: OwnedFd) -> Result<Listener, Error> {
        self.listen_asking(listener, None)
    }

    /// Accepts connections as [`listen`](Ring::listen) does, and makes a peer query for each of them
    /// before it reports the connection: [`Event::Accepted`] has the [`Peer`](crate::Peer). A
    /// connection whose peer query fails, such as one that was reset already, is closed and never
    /// reported ([`Stats::unknown_peers`](crate::Stats::unknown_peers)).
    ///
    /// Each query costs one more request before the connection is reported, a user's groups another
    /// one. Fails with [`Error::Missing`] if the kernel has no such requests, and with
    /// [`Error::Config`] without [`Config::peers`](crate::Config::peers) and for sockets other than
    /// unix and TCP ones.
    pub fn listen_for(
        &mut self,
        listener: OwnedFd,
        peer_query: PeerQuery,
    ) -> Result<Listener, Error> {
        if !self.peers {
            return Err(Error::Config("who connects can be asked with `peers` only"));
        }
        if !self.features.contains(Features::GETSOCKOPT) {
            return Err(missing(Features::GETSOCKOPT));
        }
        let domain = domain(listener.as_raw_fd()).map_err(Error::system("SO_DOMAIN"))?;
        let first = Question::of_family(domain)
            .ok_or(Error::Config("only unix and TCP sockets say who connects"))?;
        self.listen_asking(
            listener,
            Some(Asks { first, groups: peer_query == PeerQuery::PeerAndGroups }),
        )
    }

    fn listen_asking(&mut self, listener: OwnedFd, asks: Option<Asks>) -> Result<Listener, Error> {
        if !self.slots.settle_allocator(Allocator::Kernel) {
            return Err(Error::Allocator("a ring that has adopted sockets cannot listen"));
        }
        // io_uring would report EAGAIN for a nonblocking socket where it otherwise waits.
        set_blocking(listener.as_raw_fd()).map_err(Error::system("fcntl on a listening socket"))?;
        let properties = properties(listener.as_raw_fd()).map_err(Error::system("SO_DOMAIN"))?;
        let index = self.listeners.open(listener, properties, asks);
        self.arm_accept(index);
        Ok(Listener { index, generation: self.listeners.states[index as usize].generation })
    }

    /// Accepts no more connections, and closes the listening socket once the kernel has let go of it.
    /// Connections accepted meanwhile are closed without an event.
    pub fn stop_listening(&mut self, listener: Listener) {
        let Some(state) = self.listeners.get(listener.index, listener.generation) else { return };
        state.stopping = true;
        state.retry = Retry::Never;
        if state.armed {
            self.cancel_accept(listener.index, listener.generation);
        } else {
            self.listeners.remove(listener.index);
        }
    }

    fn arm_accept(&mut self, index: u32) {
        let state = &mut self.listeners.states[index as usize];
        let Some(fd) = &state.fd else { return };
        if self.slots.full() {
            state.retry = Retry::WithSlot;
            return;
        }
        state.retry = Retry::Never;
        state.armed = true;
        let token = Token { op: Op::Accept, index, generation: state.generation };
        let few = self.slots.free() < NEARLY_FULL;
        let multishot = self.features.contains(Features::MULTISHOT_ACCEPT) && !few;
        let entry = accept_entry(fd.as_raw_fd(), multishot).user_data(token.pack());
        self.queue.push(&[entry], &mut self.stats);
    }

    fn cancel_accept(&mut self, index: u32, generation: u32) {
        let Some(state) = self.listeners.get(index, generation) else { return };
        if std::mem::replace(&mut state.cancelling, true) {
            return;
        }
        let accept = Token { op: Op::Accept, index, generation };
        let token = Token { op: Op::CancelAccept, ..accept };
        let entry = opcode::AsyncCancel::new(accept.pack()).build().user_data(token.pack());
        self.queue.push(&[entry], &mut self.stats);
    }

    /// Tries a cancel again that found nothing, because the accept was between two polls.
    pub(crate) fn on_cancel_accept(&mut self, token: Token) {
        let Some(state) = self.listeners.get(token.index, token.generation) else { return };
        state.cancelling = false;
        if state.armed && state.stopping && state.missed_cancels < MOST_CANCELS {
            state.missed_cancels += 1;
            self.cancel_accept(token.index, token.generation);
        }
    }

    pub(crate) fn on_accept(&mut self, token: Token, completion: Completion) -> Option<Event> {
        let Token { index, generation, .. } = token;
        let Some(state) = self.listeners.get(index, generation) else {
            self.stats.stale_cqes += 1;
            return None;
        };
        state.armed = completion.more();
        let event = if completion.result >= 0 {
            self.on_connection(token, completion.result as u32)
        } else {
            self.on_accept_error(token, -completion.result)
        };
        let state = &self.listeners.states[index as usize];
        if !state.armed && state.stopping {
            self.listeners.remove(index);
        } else if !state.armed && completion.result >= 0 {
            self.arm_accept(index);
        } else if state.armed && self.slots.free() < NEARLY_FULL {
            self.cancel_accept(index, generation);
        }
        event
    }

    fn on_connection(&mut self, token: Token, slot: u32) -> Option<Event> {
        self.stats.accepts += 1;
        // Before Linux 6.15 a connection may be reported in a slot before the close that freed it.
        let closed = self.closed_early(slot);
        let state = &mut self.listeners.states[token.index as usize];
        state.pause = FIRST_PAUSE;
        let (properties, asks, stopping) = (state.properties, state.asks, state.stopping);
        let silent = if stopping || asks.is_some() { property::SILENT } else { 0 };
        let Some(socket) = self.slots.open(slot, properties | silent) else {
            tracing::error!(slot, "io_uring: a connection outside the table");
            return closed;
        };
        if stopping {
            self.close(socket);
            return closed;
        }
        let listener = Listener { index: token.index, generation: token.generation };
        if let Some(asks) = asks {
            self.peer_query(socket, listener, asks);
            return closed;
        }
        let accepted = Event::Accepted { listener, socket, peer: None };
        match closed {
            None => Some(accepted),
            Some(closed) => {
                self.ready.push_back(accepted);
                Some(closed)
            }
        }
    }

    fn on_accept_error(&mut self, token: Token, errno: i32) -> Option<Event> {
        let full = self.slots.full();
        let state = &mut self.listeners.states[token.index as usize];
        if state.stopping || state.armed {
            return None;
        }
        match errno {
            libc::ECANCELED | libc::EINTR => {
                self.arm_accept(token.index);
                return None;
            }
            libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP => {}
            _ if at_fault_itself(errno) => self.arm_accept(token.index),
            libc::ENFILE if full => state.retry = Retry::WithSlot,
            _ => {
                state.retry = Retry::At(Instant::now() + state.pause);
                state.pause = (state.pause * 2).min(LONGEST_PAUSE);
            }
        }
        self.stats.accept_errors += 1;
        let listener = Listener { index: token.index, generation: token.generation };
        Some(Event::AcceptFailed { listener, error: io::Error::from_raw_os_error(errno) })
    }

    /// Arms the accepts that wait for a slot, now that one is free.
    pub(crate) fn slot_freed(&mut self) {
        self.arm_accepts(|retry| retry == Retry::WithSlot);
    }

    /// Arms the accepts whose pause is over.
    pub(crate) fn arm_delayed_accepts(&mut self) {
        if self.listeners.next_retry().is_some() {
            let now = Instant::now();
            self.arm_accepts(|retry| matches!(retry, Retry::At(when) if when <= now));
        }
    }

    fn arm_accepts(&mut self, due: impl Fn(Retry) -> bool) {
        for index in 0..self.listeners.states.len() {
            if due(self.listeners.states[index].retry) {
                self.arm_accept(index as u32);
            }
        }
    }

    /// Completes the close of the socket in this slot, if that socket only waits for the completion of
    /// its close.
    fn closed_early(&mut self, index: u32) -> Option<Event> {
        let socket = self.slots.at(index)?;
        let slot = self.slots.get(socket)?;
        if !slot.is(flag::CLOSE_SENT) {
            return None;
        }
        slot.pending = 0;
        self.closed(socket)
    }
}

/// Returns `true` for errors of the connection that was to be accepted, by accept(2); the next
/// connection may be fine.
fn at_fault_itself(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
    )
}

fn accept_entry(fd: RawFd, multishot: bool) -> squeue::Entry {
    let fd = types::Fd(fd);
    if multishot {
        return opcode::AcceptMulti::new(fd).allocate_file_index(true).build();
    }
    let slot = types::DestinationSlot::auto_target();
    let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
    opcode::Accept::new(fd, address, length).file_index(Some(slot)).build()
}

pub(crate) fn set_blocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: these two commands of fcntl(2) take no pointers.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags < 0 { flags } else { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) }
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the bits of [`property`] that a socket has because of its address family.
pub(crate) fn properties(fd: RawFd) -> io::Result<u8> {
    let zero_copy = matches!(domain(fd)?, libc::AF_INET | libc::AF_INET6);
    Ok(if zero_copy { property::ZERO_COPY } else { 0 })
}

/// The address family of a socket.
fn domain(fd: RawFd) -> io::Result<i32> {
    let mut domain: i32 = 0;
    let mut size = size_of::<i32>() as libc::socklen_t;
    let value = (&raw mut domain).cast();
    // SAFETY: `domain` is ours and as large as `size` says.
    let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, value, &mut size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(domain) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    /// Returns a ring with a listener, whose accept completes as the test says.
    fn listening() -> (Ring, Token) {
        let config = Config { entries: 8, sockets: 32, recv_buffers: 2, ..Config::default() };
        let mut ring = Ring::new(&config).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let Listener { index, generation } = ring.listen(listener.into()).unwrap();
        (ring, Token { op: Op::Accept, index, generation })
    }

    fn fail(ring: &mut Ring, token: Token, errno: i32) -> bool {
        let completion = Completion { token: Some(token), result: -errno, flags: 0 };
        let event = ring.on_accept(token, completion);
        let reported = |error: &io::Error| error.raw_os_error() == Some(errno);
        matches!(event, Some(Event::AcceptFailed { error, .. }) if reported(&error))
    }

    fn state(ring: &Ring) -> (bool, Retry, Duration) {
        let state = &ring.listeners.states[0];
        (state.armed, state.retry, state.pause)
    }

    #[test]
    fn without_files_it_pauses_longer_and_longer() {
        let (mut ring, token) = listening();
        let mut pause = FIRST_PAUSE;
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS].repeat(3) {
            assert!(fail(&mut ring, token, errno));
            pause = (pause * 2).min(LONGEST_PAUSE);
            let (armed, retry, next) = state(&ring);
            assert!(!armed && matches!(retry, Retry::At(_)) && next == pause);
            ring.arm_delayed_accepts();
            assert!(!state(&ring).0, "it is too early");
        }
        let next = ring.listeners.next_retry().unwrap();
        assert!(next <= Instant::now() + LONGEST_PAUSE);
        ring.listeners.states[0].retry = Retry::At(Instant::now());
        ring.arm_delayed_accepts();
        assert!(state(&ring).0);
    }

    #[test]
    fn a_connection_at_fault_does_not_stop_the_others() {
        let (mut ring, token) = listening();
        assert!(fail(&mut ring, token, libc::ECONNABORTED));
        assert!(state(&ring).0);
        assert!(!fail(&mut ring, token, libc::ECANCELED), "not worth an event");
        assert!(state(&ring).0);
        assert!(fail(&mut ring, token, libc::EINVAL));
        assert_eq!((state(&ring).0, state(&ring).1), (false, Retry::Never));
    }

    #[test]
    fn a_connection_before_the_close_of_its_slot_closes_that_first() {
        let (mut ring, token) = listening();
        let connection = Completion { token: Some(token), result: 5, flags: 0 };
        let Some(Event::Accepted { socket: old, .. }) = ring.on_accept(token, connection) else {
            panic!("no connection");
        };
        ring.close(old);
        let early = ring.on_accept(token, connection);
        assert!(matches!(early, Some(Event::Closed { socket }) if socket == old));
        let Some(Event::Accepted { socket: new, .. }) = ring.ready.pop_front() else {
            panic!("no connection");
        };
        assert!(new != old && new.index() == old.index());
        assert!(ring.on_close(old.token(Op::Close), 0).is_none(), "it was told of before");
        assert_eq!((ring.slots.live(), ring.stats.stale_cqes), (1, 1));
    }
}
