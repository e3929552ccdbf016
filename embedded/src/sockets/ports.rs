//! Ports: the sockets bound to each, and the lookup of the receiver of a connection or datagram.
//!
//! All addresses are IPv6 addresses here; IPv4 addresses are mapped (`::ffff:a.b.c.d`), so an IPv6 socket
//! that takes IPv4 too is found like any other. The end that ended a TCP connection first keeps its port
//! for a while after that. Such ports are given back when a port is asked for later than that, and their
//! number is bounded.
//!
//! Sources: NetBSD `sys/netinet/{in_pcb,portalgo,tcp_subr}.c`, `sys/netinet6/in6_pcb.c`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{Duration, Instant};

use super::{DATAGRAM, INET, INET6, Socket, TCP, UDP};
use crate::limits::{Counter, Counters, ResourceGroup};
use crate::sync::{lock, read, write};
use crate::work;
use kernel::Errno;

/// The first of the ports that are chosen for sockets that ask for none in particular (`IPPORT_ANONMIN`).
pub(super) const CHOSEN_FROM: u16 = 49152;

const SHARDS: usize = 64;

/// The time an ended connection keeps its port: twice the lifetime of a segment on the loopback
/// (`tcp_msl_loop`).
pub(super) const TIME_WAIT: Duration = Duration::from_secs(2);

/// The time a closed connection keeps its port while the other end has not ended it (`tcp_maxidle`).
const HALF_ENDED: Duration = Duration::from_secs(600);

/// The most ended connections that keep their ports. Beyond that, those next to give them back do so at
/// once.
const ENDED_MOST: usize = 4096;

/// An IPv6 address.
pub(super) type Address = [u8; 16];

/// The wildcards. IPv6's is also IPv4's for a socket that takes both.
const ANY_6: Address = [0; 16];
const ANY_4: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];

/// Returns the wildcard address of a family.
pub(super) fn any(family: u8) -> Address {
    if family == INET { ANY_4 } else { ANY_6 }
}

/// Returns an IPv4 address, mapped.
pub(super) fn mapped(addr: [u8; 4]) -> Address {
    let mut all = ANY_4;
    all[12..].copy_from_slice(&addr);
    all
}

pub(super) fn is_mapped(addr: &Address) -> bool {
    addr[..12] == ANY_4[..12]
}

pub(super) fn is_any(addr: &Address) -> bool {
    *addr == ANY_4 || *addr == ANY_6
}

/// An address and a port.
pub(super) type End = (Address, u16);

/// Protocol and port.
type Key = (u8, u16);

/// A connection: the own address, and the other end.
type Pair = (Address, End);

/// The ports in use and the sockets on them. Lock order: socket, then a shard of ports, then `ended`.
/// Nothing else is locked under these.
pub(super) struct Ports {
    counters: Arc<Counters>,
    shards: Vec<RwLock<HashMap<Key, Port>>>,
    /// Counters that run down over the ports to choose from, by family and protocol.
    last: [AtomicU32; 4],
    /// The number of chosen ports in use, by family and protocol.
    taken: Arc<[Counter; 4]>,
    ended: Ended,
}

/// The payment for a chosen port; a family may not have all of them.
struct Place {
    resource_group: Arc<ResourceGroup>,
    taken: Arc<[Counter; 4]>,
    kind: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.resource_group.give_port(&self.taken[self.kind]);
    }
}

/// Returns the index of a socket in `last` and `taken`: ports are chosen by family and protocol.
fn kind(socket: &Socket) -> usize {
    2 * usize::from(socket.family != INET) + usize::from(socket.kind == DATAGRAM)
}

/// The number of ports to choose from.
const SPAN: u32 = (u16::MAX - CHOSEN_FROM) as u32 + 1;

#[derive(Default)]
struct Port {
    bound: Vec<Bound>,
    connected: BTreeMap<Pair, Bound>,
}

/// The ended connections that keep their ports, by the time they give them back.
#[derive(Default)]
struct Ended {
    /// Their number, readable without the lock.
    count: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    connections: BTreeMap<Until, (Key, Pair)>,
}

/// The time at which an ended connection gives back its port, with a number that makes it unique.
type Until = (Instant, u64);

struct Bound {
    id: u64,
    family: u8,
    socket: Weak<Socket>,
    addr: Address,
    /// True for an IPv6 socket that takes IPv4 too.
    dual: bool,
    shares: bool,
    user: u32,
    /// True if the socket keeps others from binding; an accepted connection does not.
    binds: bool,
    /// The end of the wait of an ended connection.
    until: Option<Until>,
    /// True while the socket exists and is counted.
    counted: bool,
    /// The payment for a chosen port; `None` for accepted connections, which share their port.
    place: Option<Place>,
}

/// The way a socket is to be bound.
pub(super) struct Binding {
    pub addr: Address,
    pub dual: bool,
    /// True if a wildcard address collides with every other.
    pub wild: bool,
    pub shares: bool,
    /// True if a port of another user counts as taken, even if it may be shared.
    pub guarded: bool,
}

impl Binding {
    fn of(self, socket: &Arc<Socket>) -> Bound {
        Bound {
            id: socket.id,
            family: socket.family,
            socket: Arc::downgrade(socket),
            addr: self.addr,
            dual: self.dual,
            shares: self.shares,
            user: socket.user,
            binds: true,
            until: None,
            counted: true,
            place: None,
        }
    }
}

impl Ports {
    pub fn new(counters: &Arc<Counters>) -> Self {
        Ports {
            counters: counters.clone(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            last: Default::default(),
            taken: Arc::default(),
            ended: Ended::default(),
        }
    }

    fn shard(&self, key: Key) -> &RwLock<HashMap<Key, Port>> {
        let mixed = usize::from(key.1) ^ usize::from(key.0) << 3;
        &self.shards[mixed % SHARDS]
    }

    /// Pays for a port to be chosen. EAGAIN if the family of `socket` may have no more of them.
    fn place(&self, socket: &Socket) -> Result<Place, Errno> {
        let (kind, resource_group) = (kind(socket), &socket.resource_group);
        match resource_group.take_port(&self.taken[kind], SPAN.into()) {
            true => Ok(Place {
                resource_group: resource_group.clone(),
                taken: self.taken.clone(),
                kind,
            }),
            false => Err(Errno::EAGAIN),
        }
    }

    /// Gives `socket` this port, or a free one for 0. Returns the port.
    pub fn take(&self, socket: &Arc<Socket>, port: u16, how: Binding) -> Result<u16, Errno> {
        self.sweep();
        if port == 0 {
            return self.choose(socket, how);
        }
        let key = (socket.protocol, port);
        let mut ports = write(self.shard(key));
        if let Some(port) = ports.get(&key) {
            port.spend()?;
            if port.collides(&how, socket.user) {
                return Err(Errno::EADDRINUSE);
            }
        }
        let place = (port >= CHOSEN_FROM).then(|| self.place(socket)).transpose()?;
        ports.entry(key).or_default().bound.push(Bound { place, ..how.of(socket) });
        self.counters.ports.take(1, u64::MAX);
        Ok(port)
    }

    /// Takes the next port that no socket of this family has, downwards from the last one chosen. NetBSD:
    /// `in_pcbsetport`.
    fn choose(&self, socket: &Arc<Socket>, how: Binding) -> Result<u16, Errno> {
        let place = Some(self.place(socket)?);
        let last = &self.last[kind(socket)];
        for _ in 0..SPAN {
            let turn = last.fetch_add(1, Relaxed) % SPAN;
            let port = u16::MAX - turn as u16;
            let key = (socket.protocol, port);
            let mut ports = write(self.shard(key));
            // All of the ports may be taken.
            work::spend(1)?;
            if ports.get(&key).is_none_or(|there| !there.all().any(|b| b.family == socket.family)) {
                let bound = Bound { place, ..how.of(socket) };
                ports.entry(key).or_default().bound.push(bound);
                self.counters.ports.take(1, u64::MAX);
                return Ok(port);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Connects `socket` to `far`. It was bound at `old` (and connected to the second end of that), or gets
    /// its port now. EADDRINUSE if another socket has this connection.
    pub fn connect(
        &self,
        socket: &Arc<Socket>,
        old: Option<(End, Option<End>)>,
        near: End,
        far: End,
    ) -> Result<(), Errno> {
        self.sweep();
        let key = (socket.protocol, near.1);
        let mut ports = write(self.shard(key));
        let port = ports.entry(key).or_default();
        let Entry::Vacant(free) = port.connected.entry((near.0, far)) else {
            return Err(Errno::EADDRINUSE);
        };
        let accepted =
            Binding { addr: near.0, dual: false, wild: false, shares: false, guarded: false };
        free.insert(Bound { binds: false, ..accepted.of(socket) });
        let Some((was, was_far)) = old else {
            self.counters.ports.take(1, u64::MAX);
            return Ok(());
        };
        let before = port.remove(socket.id, was, was_far);
        if let (Some(before), Some(now)) = (before, port.connected.get_mut(&(near.0, far))) {
            (now.shares, now.dual, now.binds) = (before.shares, before.dual, before.binds);
            now.place = before.place;
            self.ended.remove(before.until);
        }
        Ok(())
    }

    /// Ends the connection of `socket` to `far`, and binds it to its port at `addr` again.
    pub fn disconnect(&self, socket: &Arc<Socket>, near: End, far: End, addr: Address) {
        let key = (socket.protocol, near.1);
        let mut ports = write(self.shard(key));
        let Some(port) = ports.get_mut(&key) else { return };
        if let Some(mut bound) = port.remove(socket.id, near, Some(far)) {
            bound.addr = addr;
            port.bound.push(bound);
        }
    }

    /// Takes `socket` off its port; an ended connection keeps the port.
    pub fn give(&self, socket: &Socket, near: End, far: Option<End>) {
        self.change((socket.protocol, near.1), |port| {
            if let Some(far) = far
                && let Some(ended) = port.connected.get_mut(&(near.0, far))
                && ended.id == socket.id
                && ended.until.is_some()
            {
                self.uncount(ended);
            } else if let Some(mut bound) = port.remove(socket.id, near, far) {
                self.uncount(&mut bound);
            }
        });
    }

    /// Keeps the port of a closed `socket` that ended its connection first: until the other end ends it
    /// too, or for `wait`. If the other end has just ended it, the wait that began then goes on.
    pub fn linger(&self, socket: &Socket, near: End, far: End, wait: Option<Duration>) {
        let (key, pair) = ((socket.protocol, near.1), (near.0, far));
        self.change(key, |port| {
            let Some(bound) = port.connected.get_mut(&pair).filter(|bound| bound.id == socket.id)
            else {
                return;
            };
            self.uncount(bound);
            if !bound.binds {
                port.connected.remove(&pair);
            } else if bound.until.is_none() {
                bound.until = Some(self.ended.add(wait.unwrap_or(HALF_ENDED), key, pair));
            }
        });
        self.sweep();
    }

    /// Starts the wait of the TCP connection of `near` to `far`, which is over and keeps its port for a
    /// while.
    pub fn wait(&self, near: End, far: End) {
        let (key, pair) = ((TCP, near.1), (near.0, far));
        self.change(key, |port| {
            if let Some(bound) = port.connected.get_mut(&pair) {
                let until = self.ended.add(TIME_WAIT, key, pair);
                self.ended.remove(bound.until.replace(until));
            }
        });
        self.sweep();
    }

    /// Frees the port of the TCP connection of `near` to `far`, which was reset, if its socket is gone.
    pub fn forget(&self, near: End, far: End) {
        self.change((TCP, near.1), |port| {
            let pair = (near.0, far);
            if port.connected.get(&pair).is_some_and(|bound| !bound.counted)
                && let Some(bound) = port.connected.remove(&pair)
            {
                self.ended.remove(bound.until);
            }
        });
    }

    /// Returns `true` if `socket` still has this connection.
    pub fn has(&self, socket: &Socket, near: End, far: End) -> bool {
        self.sweep();
        let key = (socket.protocol, near.1);
        let ports = read(self.shard(key));
        let bound = ports.get(&key).and_then(|port| port.connected.get(&(near.0, far)));
        bound.is_some_and(|bound| bound.id == socket.id)
    }

    /// Returns the socket that a new connection to `to` is for.
    pub fn listener(&self, to: End) -> Option<Arc<Socket>> {
        let key = (TCP, to.1);
        read(self.shard(key)).get(&key)?.bound_at(to.0)
    }

    /// Moves the call to a worker if the lookup takes long. Call it before anything has changed.
    pub fn check_listeners(&self, to: End) -> Result<(), Errno> {
        let key = (TCP, to.1);
        read(self.shard(key)).get(&key).map_or(Ok(()), Port::spend)
    }

    /// Returns the socket that a datagram from `from` to `to` is for: a socket connected to the sender
    /// before one that is only bound, and one at the address before one at the wildcard.
    pub fn receiver(&self, from: End, to: End) -> Result<Option<Arc<Socket>>, Errno> {
        let key = (UDP, to.1);
        let ports = read(self.shard(key));
        let Some(port) = ports.get(&key) else { return Ok(None) };
        let connected = port.connected.get(&(to.0, from)).and_then(|bound| bound.socket.upgrade());
        if connected.is_some() {
            return Ok(connected);
        }
        port.spend()?;
        Ok(port.bound_at(to.0))
    }

    /// Changes the sockets at a port, and removes the port with its last socket.
    fn change(&self, key: Key, change: impl FnOnce(&mut Port)) {
        let mut ports = write(self.shard(key));
        let Some(port) = ports.get_mut(&key) else { return };
        change(port);
        if port.all().next().is_none() {
            ports.remove(&key);
            if ports.is_empty() {
                *ports = HashMap::new();
            }
        }
    }

    /// Ends the count and the payment of `bound`, whose socket is gone.
    fn uncount(&self, bound: &mut Bound) {
        if std::mem::take(&mut bound.counted) {
            self.counters.ports.give(1);
            // Ports of ended connections are not paid for: their number is bounded as a whole.
            bound.place = None;
        }
    }

    /// Gives back the ports of ended connections whose time is over, or of which there are too many. An
    /// inline run stops when it has done enough.
    fn sweep(&self) {
        while !work::is_full()
            && let Some((until, (key, pair))) = self.ended.over()
        {
            work::count(4);
            self.change(key, |port| {
                if let Entry::Occupied(mut ended) = port.connected.entry(pair)
                    && ended.get().until == Some(until)
                {
                    self.uncount(ended.get_mut());
                    ended.remove();
                }
            });
        }
    }

    /// Returns the number of ended connections that keep their ports.
    #[cfg(test)]
    pub fn ended(&self) -> usize {
        self.ended.count.load(Relaxed)
    }
}

impl Ended {
    fn add(&self, wait: Duration, key: Key, pair: Pair) -> Until {
        let mut queue = lock(&self.queue);
        queue.next += 1;
        let until = (Instant::now() + wait, queue.next);
        queue.connections.insert(until, (key, pair));
        self.count.store(queue.connections.len(), Relaxed);
        until
    }

    fn remove(&self, until: Option<Until>) {
        if let Some(until) = until {
            let mut queue = lock(&self.queue);
            queue.connections.remove(&until);
            self.count.store(queue.connections.len(), Relaxed);
        }
    }

    /// Takes out a connection whose time is over, or the next one if there are too many.
    fn over(&self) -> Option<(Until, (Key, Pair))> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let mut queue = lock(&self.queue);
        let many = queue.connections.len() > ENDED_MOST;
        let first = queue.connections.first_entry()?;
        let over = many || first.key().0 <= Instant::now();
        let over = over.then(|| first.remove_entry());
        self.count.store(queue.connections.len(), Relaxed);
        over
    }
}

impl Port {
    fn all(&self) -> impl Iterator<Item = &Bound> {
        self.bound.iter().chain(self.connected.values())
    }

    /// Counts the steps of looking at all sockets bound here: any number may share a port.
    fn spend(&self) -> Result<(), Errno> {
        work::spend((self.bound.len() + self.connected.len()) / 8)
    }

    /// Takes out the socket with this id.
    fn remove(&mut self, id: u64, near: End, far: Option<End>) -> Option<Bound> {
        let Some(far) = far else {
            let at = self.bound.iter().position(|bound| bound.id == id)?;
            return Some(self.bound.remove(at));
        };
        let pair = (near.0, far);
        self.connected.get(&pair).filter(|bound| bound.id == id)?;
        self.connected.remove(&pair)
    }

    fn collides(&self, how: &Binding, user: u32) -> bool {
        if how.guarded
            && let Some(other) = self.nearest(INET, how.addr, true)
            && other.user != user
            && !(how.addr == ANY_4 && other.addr == ANY_4 && other.shares)
        {
            return true;
        }
        [INET6, INET].iter().any(|&family| {
            let other = self.nearest(family, how.addr, how.wild);
            other.is_some_and(|other| !(how.shares && other.shares))
        })
    }

    /// Returns the socket of a family whose bound address is nearest to this one; with `wild`, a wildcard
    /// matches every address. NetBSD: `in_pcblookup_port`, `in6_pcblookup_port`.
    fn nearest(&self, family: u8, addr: Address, wild: bool) -> Option<&Bound> {
        let bound = self.bound.iter().rev().map(|bound| (bound, 0));
        let connected = self.connected.values().map(|bound| (bound, 1));
        let like =
            bound.chain(connected).filter(|(other, _)| other.family == family && other.binds);
        let like = like.filter_map(|(other, connected)| {
            let different = connected + other.difference(addr)?;
            (wild || different == 0).then_some((other, different))
        });
        like.min_by_key(|&(_, different)| different).map(|(other, _)| other)
    }

    /// Returns the socket bound to this address, or else to the wildcard: the one bound last, and for an
    /// IPv4 address an IPv4 socket before an IPv6 one.
    fn bound_at(&self, addr: Address) -> Option<Arc<Socket>> {
        let at = |family, at: Address, dual: bool| {
            let mut found = self.bound.iter().rev().filter(move |bound| {
                bound.family == family && bound.addr == at && (bound.dual || !dual)
            });
            found.find_map(|bound| bound.socket.upgrade())
        };
        if !is_mapped(&addr) {
            return at(INET6, addr, false).or_else(|| at(INET6, ANY_6, false));
        }
        [(INET, addr), (INET, ANY_4), (INET6, addr), (INET6, ANY_4), (INET6, ANY_6)]
            .into_iter()
            .find_map(|(family, place)| at(family, place, place == ANY_6))
    }
}

impl Bound {
    /// Returns 0 if its address is this one, 1 if a wildcard matches, `None` if they do not match.
    fn difference(&self, addr: Address) -> Option<u32> {
        if self.addr == addr {
            return Some(0);
        }
        if self.addr == ANY_6 && is_mapped(&addr) {
            return self.dual.then_some(1);
        }
        let alike = is_mapped(&self.addr) == is_mapped(&addr);
        (alike && (is_any(&self.addr) || is_any(&addr))).then_some(1)
    }
}
