//! Ports: which sockets are bound to which, and who gets what is sent there.
//!
//! Sources: NetBSD `sys/netinet/in_pcb.c`, `sys/netinet6/in6_pcb.c`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, RwLock, Weak};

use super::{DATAGRAM, INET, Socket, TCP, UDP};
use crate::kernel::Errno;
use crate::kernel::embedded::limits::Counters;
use crate::kernel::embedded::sync::{read, write};

/// The ports that are chosen for who asks for none in particular (`IPPORT_ANONMIN`).
const CHOSEN_FROM: u16 = 49152;

const SHARDS: usize = 64;

/// An address, the shorter ones filled with zeros.
pub(super) type Address = [u8; 16];

pub(super) const ANY: Address = [0; 16];

/// An address and a port.
pub(super) type End = (Address, u16);

/// Family, protocol, port.
type Key = (u8, u8, u16);

/// Which ports are taken, by whom. Its locks are taken after those of sockets, and nothing is locked
/// under them.
pub(super) struct Ports {
    counters: Arc<Counters>,
    shards: Vec<RwLock<HashMap<Key, Port>>>,
    /// Counts down over the ports that are chosen, by family and protocol.
    last: [AtomicU32; 4],
}

#[derive(Default)]
struct Port {
    bound: Vec<Bound>,
    /// Connected sockets, by their own address and the other end.
    connected: HashMap<(Address, End), Bound>,
}

struct Bound {
    id: u64,
    socket: Weak<Socket>,
    addr: Address,
    shares: bool,
    /// Whether it keeps others from binding: a connection that was accepted does not.
    binds: bool,
}

impl Ports {
    pub fn new(counters: &Arc<Counters>) -> Self {
        Ports {
            counters: counters.clone(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            last: Default::default(),
        }
    }

    fn shard(&self, key: Key) -> &RwLock<HashMap<Key, Port>> {
        let mixed = usize::from(key.2) ^ usize::from(key.1) << 3 ^ usize::from(key.0);
        &self.shards[mixed % SHARDS]
    }

    /// Gives `socket` a port at `addr`: this one, or a free one for 0. With `wild`, a wildcard
    /// address collides with every other (`in_pcblookup_port`).
    pub fn take(
        &self,
        socket: &Arc<Socket>,
        addr: Address,
        port: u16,
        wild: bool,
        shares: bool,
    ) -> Result<u16, Errno> {
        let bound =
            || Bound { id: socket.id, socket: Arc::downgrade(socket), addr, shares, binds: true };
        if port == 0 {
            return self.choose(socket, bound());
        }
        let key = (socket.family, socket.protocol, port);
        let mut ports = write(self.shard(key));
        let port_entry = ports.entry(key).or_default();
        if port_entry.collides(addr, wild, shares) {
            return Err(Errno::EADDRINUSE);
        }
        port_entry.bound.push(bound());
        self.counters.ports.take(1, u64::MAX);
        Ok(port)
    }

    /// The next free port downwards from the last one that was chosen. NetBSD: `in_pcbsetport`.
    fn choose(&self, socket: &Socket, bound: Bound) -> Result<u16, Errno> {
        let family = usize::from(socket.family != INET);
        let last = &self.last[2 * family + usize::from(socket.kind == DATAGRAM)];
        let span = u32::from(u16::MAX - CHOSEN_FROM) + 1;
        for _ in 0..span {
            let turn = last.fetch_add(1, Relaxed) % span;
            let port = u16::MAX - turn as u16;
            let key = (socket.family, socket.protocol, port);
            if let Entry::Vacant(free) = write(self.shard(key)).entry(key) {
                free.insert(Port { bound: vec![bound], connected: HashMap::new() });
                self.counters.ports.take(1, u64::MAX);
                return Ok(port);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// `socket`, which has this port or gets it now, is connected to `far`. EADDRINUSE if another is.
    pub fn connect(
        &self,
        socket: &Arc<Socket>,
        old: Option<End>,
        near: End,
        far: End,
    ) -> Result<(), Errno> {
        let key = (socket.family, socket.protocol, near.1);
        let mut ports = write(self.shard(key));
        let port = ports.entry(key).or_default();
        let shares = port.bound.iter().any(|bound| bound.id == socket.id && bound.shares);
        let Entry::Vacant(free) = port.connected.entry((near.0, far)) else {
            return Err(Errno::EADDRINUSE);
        };
        free.insert(Bound {
            id: socket.id,
            socket: Arc::downgrade(socket),
            addr: near.0,
            shares,
            binds: old.is_some(),
        });
        match old {
            Some(_) => port.bound.retain(|bound| bound.id != socket.id),
            None => drop(self.counters.ports.take(1, u64::MAX)),
        }
        Ok(())
    }

    /// `socket` is not connected to `far` any more, and bound to its port at `addr` again.
    pub fn disconnect(&self, socket: &Arc<Socket>, near: End, far: End, addr: Address) {
        let key = (socket.family, socket.protocol, near.1);
        let mut ports = write(self.shard(key));
        let Some(port) = ports.get_mut(&key) else { return };
        if let Some(mut bound) = port.connected.remove(&(near.0, far)) {
            bound.addr = addr;
            port.bound.push(bound);
        }
    }

    /// A socket with this id leaves its port.
    pub fn give(&self, socket: &Socket, near: End, far: Option<End>) {
        let key = (socket.family, socket.protocol, near.1);
        let mut ports = write(self.shard(key));
        let Some(port) = ports.get_mut(&key) else { return };
        let before = port.bound.len() + port.connected.len();
        match far {
            Some(far) => drop(port.connected.remove(&(near.0, far))),
            None => port.bound.retain(|bound| bound.id != socket.id),
        }
        let left = port.bound.len() + port.connected.len();
        self.counters.ports.give((before - left) as u64);
        if left == 0 {
            ports.remove(&key);
            if ports.is_empty() {
                *ports = HashMap::new();
            }
        }
    }

    /// Who a new connection to `to` is for.
    pub fn listener(&self, family: u8, to: End) -> Option<Arc<Socket>> {
        let key = (family, TCP, to.1);
        read(self.shard(key)).get(&key)?.bound_at(to.0)
    }

    /// Who a datagram from `from` to `to` is for: who is connected to the sender before who is bound
    /// there, and an address before the wildcard.
    pub fn receiver(&self, family: u8, from: End, to: End) -> Option<Arc<Socket>> {
        let key = (family, UDP, to.1);
        let ports = read(self.shard(key));
        let port = ports.get(&key)?;
        let connected = port.connected.get(&(to.0, from)).and_then(|bound| bound.socket.upgrade());
        connected.or_else(|| port.bound_at(to.0))
    }
}

impl Port {
    fn collides(&self, addr: Address, wild: bool, shares: bool) -> bool {
        let meets =
            |other: &Bound| other.addr == addr || wild && (other.addr == ANY || addr == ANY);
        let refuses = |other: &Bound| other.binds && meets(other) && !(shares && other.shares);
        self.bound.iter().any(refuses) || wild && self.connected.values().any(refuses)
    }

    /// Who is bound to this address, or else to the wildcard: the last to come.
    fn bound_at(&self, addr: Address) -> Option<Arc<Socket>> {
        let at = |addr| {
            let mut found = self.bound.iter().rev().filter(move |bound| bound.addr == addr);
            found.find_map(|bound| bound.socket.upgrade())
        };
        at(addr).or_else(|| at(ANY))
    }
}
