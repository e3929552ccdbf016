//! Sockets: AF_LOCAL streams, datagrams and sequenced packets, TCP and UDP over the loopback of this
//! kernel.
//!
//! # Modules
//!
//! - `connect`, `accept`, `close`: making and ending sockets and connections
//! - `open`: a socket as an open file, with poll, kqueue and ioctl
//! - `local`, `inet`, `ports`: the parts of each family; `udp`: datagrams of the internet
//! - `buffer`, `send`, `receive`, `rights`: the buffer of a socket, and the ways in and out
//! - `messages`: the calls that send and receive; `oob`: TCP's out-of-band data
//! - `options`, `ip_options`: setsockopt and getsockopt; `listing`: lists for sysctl
//!
//! A socket has its own lock and knows its peer; sent data goes directly into the buffer of the peer. No
//! two sockets are locked at once, so their order does not matter: code that needs both ends locks its own,
//! unlocks it, and then locks the other (a new socket that nobody else knows yet is exempt). One end tells
//! the other of an event (end of file, a reset) by flags in the other's state, which are never cleared.
//! Lock order: socket, then ports, file system, local names, timers, uidinfo. Never take a socket lock
//! while holding one of those. Queues are woken, and messages and sockets dropped, with no lock held.
//!
//! Sources: NetBSD `sys/kern/{uipc_syscalls,uipc_socket,uipc_socket2,uipc_usrreq,sys_socket}.c`,
//! `sys/netinet/{in_pcb,tcp_usrreq,udp_usrreq}.c`, `sys/netinet6/{in6_pcb,udp6_usrreq}.c`; socket(2).

mod accept;
mod buffer;
mod close;
mod connect;
mod inet;
mod ip_options;
pub(super) mod listing;
mod local;
mod messages;
mod oob;
mod open;
mod options;
mod ports;
mod receive;
mod rights;
mod send;
mod udp;

use crate::owner::Owner;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use super::abi::open as flags;
use super::call::{Result, SyscallContext};
use super::file::OpenFile;
use super::io::INLINE_BYTES;
use super::limits::{Counters, ResourceGroup};
use super::listed::{Listed, Runs, call, partly};
use super::sync::lock;
use super::time;
use super::timer_thread::{AlarmId, TimerThread};
use super::uidinfo::UidTable;
use super::wait::{Side, WaitQueue, Waitable};
use super::work;
use buffer::{Buffer, Record};
use kernel::{Errno, sys};
use ports::{End, Ports};
pub(super) use receive::Message;
use rights::Flights;

pub(super) const CALLS: &[Listed] = &[
    call(sys::RECVMSG, Runs::Inline, messages::recvmsg),
    call(sys::SENDMSG, Runs::Inline, messages::sendmsg),
    call(sys::RECVFROM, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), messages::recvfrom),
    call(sys::ACCEPT, Runs::Inline, accept::accept),
    call(sys::GETPEERNAME, Runs::Inline, connect::getpeername),
    call(sys::GETSOCKNAME, Runs::Inline, connect::getsockname),
    partly(sys::CONNECT, Runs::Inline, connect::connect, "only loopback addresses lead anywhere"),
    partly(
        sys::BIND,
        Runs::Inline,
        connect::bind,
        "the only addresses are the wildcard, loopback and multicast ones",
    ),
    partly(
        sys::SETSOCKOPT,
        Runs::Inline,
        options::setsockopt,
        "the options below SOL_SOCKET that programs set, most without effect; no multicast groups, IP \
        options or accept filters, and of IPv6's advanced options only the switches",
    ),
    call(sys::LISTEN, Runs::Inline, accept::listen),
    partly(
        sys::GETSOCKOPT,
        Runs::Inline,
        options::getsockopt,
        "no TCP_INFO, and of IPv6's advanced options only the switches",
    ),
    call(sys::SENDTO, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), messages::sendto),
    call(sys::SHUTDOWN, Runs::Inline, close::shutdown),
    call(sys::SOCKETPAIR, Runs::Inline, connect::socketpair),
    partly(
        sys::SOCKET,
        Runs::Inline,
        connect::socket,
        "AF_LOCAL, AF_INET and AF_INET6 only; raw sockets can only be made",
    ),
    partly(sys::PACCEPT, Runs::Inline, accept::paccept, "the signal mask is read and not used"),
    call(sys::RECVMMSG, Runs::Inline, messages::recvmmsg),
    call(sys::SENDMMSG, Runs::Inline, messages::sendmmsg),
];

pub(super) const LOCAL: u8 = 1;
pub(super) const INET: u8 = 2;
pub(super) const INET6: u8 = 24;

const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;
const SEQUENCED: i32 = 5;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The state flags of a socket (`so_state`).
mod state {
    pub const CONNECTED: u32 = 0x1;
    pub const CONNECTING: u32 = 0x2;
    pub const CANT_SEND: u32 = 0x4;
    pub const CANT_RECEIVE: u32 = 0x8;
    /// The socket has been disconnected (`SS_ISDISCONNECTED`).
    pub const DISCONNECTED: u32 = 0x10;
    /// The TCP connection is over and its ports are given back: it can only be closed.
    pub const DEAD: u32 = 0x20;
    /// The last descriptor is gone.
    pub const CLOSED: u32 = 0x40;
    /// The socket accepts connections (`SO_ACCEPTCONN`).
    pub const LISTENING: u32 = 0x80;
}

/// The state that all sockets of a kernel share.
pub(super) struct Net {
    next: AtomicU64,
    ports: Ports,
    names: local::Names,
    flights: Arc<Flights>,
    /// The bytes of each user's socket buffers, by their limits.
    buffers: UidTable,
    timer_thread: Arc<TimerThread>,
}

impl Net {
    pub fn new(counters: &Arc<Counters>, timer_thread: &Arc<TimerThread>) -> Self {
        Net {
            next: AtomicU64::new(1),
            ports: Ports::new(counters),
            names: local::Names::default(),
            flights: Flights::new(),
            buffers: UidTable::new(),
            timer_thread: timer_thread.clone(),
        }
    }

    /// Returns the bytes of a user's socket buffers.
    #[cfg(test)]
    pub fn reserved(&self, user: u32) -> u64 {
        self.buffers.count(user)
    }

    /// Returns the number of ended connections that keep their ports.
    #[cfg(test)]
    pub fn ended(&self) -> usize {
        self.ports.ended()
    }

    /// Collects the sockets in flight that nobody can reach, if there may be more than at the last time.
    #[cfg(test)]
    pub fn collect(&self) -> bool {
        self.flights.collect().is_ok_and(|collected| collected)
    }
}

/// A socket.
pub(super) struct Socket {
    id: u64,
    family: u8,
    kind: i32,
    protocol: u8,
    born: i64,
    /// The owner, who gets the signals of the socket (`so_pgid`).
    owner: Owner,
    net: Arc<Net>,
    resource_group: Arc<ResourceGroup>,
    /// The effective user of the process that made the socket (`so_uidinfo`).
    user: u32,
    state: Mutex<State>,
    readers: WaitQueue,
    writers: WaitQueue,
}

struct State {
    flags: u32,
    /// The pending error (`so_error`).
    error: Option<Errno>,
    /// The switches that are on.
    options: i32,
    linger: i32,
    /// The limits on the bytes on their way to the peer, and on those in the receive buffer.
    send_limit: i64,
    receive_limit: i64,
    /// The low-water marks for sending and receiving.
    low_water: [i32; 2],
    /// The timeouts for sending and receiving, in ticks.
    timeouts: [i64; 2],
    ip_options: Vec<(i32, i32, i32)>,
    /// The peer, or the listener while the connection waits for room there.
    peer: Weak<Socket>,
    buffer: Buffer,
    listener: Option<Box<Listener>>,
    local: Option<Box<local::Local>>,
    /// The ends of an internet socket: its own, once it has one, and the other one.
    near: Option<End>,
    far: Option<End>,
    /// The timer of a TCP connection that waits for room at a listener.
    alarm: Option<AlarmId>,
    oob: Option<Box<oob::OutOfBand>>,
}

/// The state of a listening socket.
#[derive(Default)]
struct Listener {
    /// Complete connections, to be accepted.
    queue: VecDeque<Arc<Socket>>,
    limit: usize,
    /// TCP connections that wait for room in the queue.
    waiting: BTreeMap<u64, Weak<Socket>>,
}

impl State {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn on(&self, option: i32) -> bool {
        self.options & option != 0
    }

    /// Marks the socket as disconnected both ways. NetBSD: `soisdisconnected`.
    fn disconnected(&mut self) {
        self.flags &= !(state::CONNECTED | state::CONNECTING);
        self.flags |= state::CANT_SEND | state::CANT_RECEIVE | state::DISCONNECTED;
    }

    fn queued(&self) -> usize {
        self.listener.as_ref().map_or(0, |listener| listener.queue.len())
    }

    /// Returns the bytes a new record may count for, in a buffer of messages (`sbspace`).
    fn space(&self) -> i64 {
        let held = buffer::held_limit(self.receive_limit) - self.buffer.held() as i64;
        (self.receive_limit - self.buffer.len() as i64).min(held)
    }
}

/// Returns the sizes of a new socket's buffers, for sending and receiving.
fn space(family: u8, kind: i32) -> [i64; 2] {
    match (family, kind) {
        (LOCAL, DATAGRAM) => [2560, 4096],
        (LOCAL, _) => [4096, 4096],
        (_, STREAM) => [32768, 32768],
        (INET6, DATAGRAM) => [9216, 42080],
        (_, DATAGRAM) => [9216, 41600],
        _ => [8192, 8192],
    }
}

/// The buffer sizes that `net.inet` and `net.inet6` report.
pub(super) mod spaces {
    use super::{DATAGRAM, INET, INET6, STREAM, space};

    /// Returns the first of the ports that are chosen for sockets without one; the last is the highest
    /// port.
    pub fn chosen_from() -> u16 {
        super::ports::CHOSEN_FROM
    }

    pub fn tcp() -> [i64; 2] {
        space(INET, STREAM)
    }

    pub fn udp() -> [i64; 2] {
        space(INET, DATAGRAM)
    }

    pub fn udp6() -> [i64; 2] {
        space(INET6, DATAGRAM)
    }
}

/// The user and family that a new socket is charged to.
struct Charge<'o> {
    net: &'o Arc<Net>,
    resource_group: &'o Arc<ResourceGroup>,
    user: u32,
    /// The most bytes of this user's socket buffers (`RLIMIT_SBSIZE`).
    most: u64,
}

impl Socket {
    /// Makes a socket. ENOBUFS if `by` cannot pay for it, or may not have buffers of these sizes.
    fn new(
        by: &Charge<'_>,
        (family, kind, protocol): (u8, i32, u8),
        [send_limit, receive_limit]: [i64; 2],
    ) -> Result<Arc<Socket>, Errno> {
        let Charge { net, resource_group, user, most } = *by;
        if !net.buffers.take(user, (send_limit + receive_limit) as u64, most) {
            return Err(Errno::ENOBUFS);
        }
        if !resource_group.take_bytes(buffer::SPARE) {
            net.buffers.give(user, (send_limit + receive_limit) as u64);
            return Err(Errno::ENOBUFS);
        }
        Ok(Arc::new(Socket {
            id: net.next.fetch_add(1, Relaxed),
            family,
            kind,
            protocol,
            born: time::now(),
            owner: Owner::default(),
            net: net.clone(),
            resource_group: resource_group.clone(),
            user,
            state: Mutex::new(State {
                flags: 0,
                error: None,
                options: 0,
                linger: 0,
                send_limit,
                receive_limit,
                low_water: [2048.min(send_limit as i32), 1],
                timeouts: [0; 2],
                ip_options: Vec::new(),
                peer: Weak::new(),
                buffer: Buffer::default(),
                listener: None,
                local: None,
                near: None,
                far: None,
                alarm: None,
                oob: None,
            }),
            readers: WaitQueue::default(),
            writers: WaitQueue::default(),
        }))
    }

    /// Charges a buffer of `to` bytes instead of one of `from` to the user; returns `false` if that would
    /// be more than `most`. The bytes on their way to the peer of a local stream stay charged, though in
    /// NetBSD they make the send buffer smaller. NetBSD: `chgsbsize`.
    fn resize(&self, from: i64, to: i64, most: u64) -> bool {
        let (from, to) = (from.max(0) as u64, to.max(0) as u64);
        if to > from {
            return self.net.buffers.take(self.user, to - from, most);
        }
        self.net.buffers.give(self.user, from - to);
        true
    }

    /// Returns `true` if the socket must be connected to carry data (`PR_CONNREQUIRED`).
    fn needs_connection(&self) -> bool {
        matches!(self.kind, STREAM | SEQUENCED)
    }

    /// Returns `true` if a message arrives whole (`PR_ATOMIC`).
    fn is_atomic(&self) -> bool {
        self.kind != STREAM
    }

    fn is_tcp(&self) -> bool {
        self.family != LOCAL && self.kind == STREAM
    }

    /// Wakes the waiters of both sides.
    fn wake(&self) {
        self.readers.wake();
        self.writers.wake();
    }

    /// Returns the bytes sent on a connection that wait at the peer.
    fn under_way(&self, peer: &Weak<Socket>) -> i64 {
        match peer.upgrade() {
            Some(peer) if self.needs_connection() => lock(&peer.state).buffer.len() as i64,
            _ => 0,
        }
    }

    /// Empties the buffer, and those of connections not accepted yet. The caller drops the result without a
    /// lock held.
    fn empty(&self) -> Vec<Record> {
        let (mut records, queue): (Vec<_>, Vec<_>) = {
            let mut state = lock(&self.state);
            let queue = state.listener.iter().flat_map(|listener| listener.queue.clone()).collect();
            (state.buffer.clear(&self.resource_group).into(), queue)
        };
        for socket in queue {
            records.extend(lock(&socket.state).buffer.clear(&socket.resource_group));
        }
        records
    }

    /// Returns the local sockets inside the messages here, by address.
    fn carried(&self) -> Vec<usize> {
        let (mut found, queue): (_, Vec<Arc<Socket>>) = {
            let state = lock(&self.state);
            let queue = state.listener.iter().flat_map(|listener| listener.queue.clone()).collect();
            (rights::carried(state.buffer.records()), queue)
        };
        for socket in &queue {
            found.extend(rights::carried(lock(&socket.state).buffer.records()));
        }
        found
    }
}

impl Waitable for Socket {
    fn queue(&self, side: Side) -> &WaitQueue {
        match side {
            Side::Read => &self.readers,
            Side::Write => &self.writers,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        free(state.buffer.clear(&self.resource_group));
        let sizes = state.send_limit.max(0) + state.receive_limit.max(0);
        let (near, far) = (state.near.take(), state.far.take());
        if let Some(near) = near {
            self.net.ports.give(self, near, far);
        }
        self.net.buffers.give(self.user, sizes as u64);
        self.resource_group.give_bytes(buffer::SPARE);
    }
}

/// Drops messages with their control messages. The caller holds no lock.
fn free(records: VecDeque<Record>) {
    work::free(4 * records.len(), records);
}

/// Returns the socket of descriptor `fd`. NetBSD: `fd_getsock`.
fn get(run: &SyscallContext<'_, '_>, fd: i32) -> Result<(Arc<OpenFile>, Arc<Socket>)> {
    let file = run.file(fd)?;
    let socket = file.ops.socket().ok_or(Errno::ENOTSOCK)?.clone();
    Ok((file, socket))
}

/// Opens `socket`, with the flags `more` in addition.
fn opened(run: &SyscallContext<'_, '_>, socket: Arc<Socket>, more: u32) -> Result<Arc<OpenFile>> {
    let flags = flags::FREAD | flags::FWRITE | more;
    Ok(OpenFile::new(open::SocketFile(socket), flags, &run.proc.family)?)
}

/// A reserved place among the open files of a family, for a new socket.
struct Place(Option<Arc<ResourceGroup>>);

impl Place {
    /// Reserves a place. ENFILE if there is none.
    fn take(family: &Arc<ResourceGroup>) -> Result<Place, Errno> {
        if family.take_file() { Ok(Place(Some(family.clone()))) } else { Err(Errno::ENFILE) }
    }

    /// Opens `socket`, with the flags `more` in addition.
    fn open(mut self, socket: Arc<Socket>, more: u32) -> Option<Arc<OpenFile>> {
        let family = self.0.take()?;
        let flags = flags::FREAD | flags::FWRITE | more;
        Some(OpenFile::counted(open::SocketFile(socket), flags, &family))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(family) = &self.0 {
            family.give_file();
        }
    }
}

/// Sets the deadline of a call that begins to wait on this side of a socket.
fn deadline(run: &mut SyscallContext<'_, '_>, socket: &Socket, side: usize) {
    if run.call.progress.deadline.is_some() {
        return;
    }
    let ticks = lock(&socket.state).timeouts[side];
    if ticks > 0 {
        let length = std::time::Duration::from_millis(ticks as u64 * 1000 / options::TICKS as u64);
        run.call.progress.deadline = std::time::Instant::now().checked_add(length);
    }
}

/// Returns `true` if the call's deadline has passed.
fn is_late(run: &SyscallContext<'_, '_>) -> bool {
    run.call.progress.deadline.is_some_and(|until| std::time::Instant::now() >= until)
}
