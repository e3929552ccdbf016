//! The lists of sockets for sysctl.
//!
//! Sources: NetBSD `sys/kern/uipc_domain.c`, `sys/netinet/{tcp_usrreq.c,tcp_fsm.h,in_pcb.h}`,
//! `sys/sys/{socket,socketvar}.h`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LOCAL, Socket, State, inet, state};
use crate::System;
use crate::sync::lock;

/// The size of `struct kinfo_pcb`, and of an address in it.
pub const ENTRY: usize = 640;
const ADDRESS: usize = 264;

impl Socket {
    /// Returns the number of the socket.
    pub fn number(&self) -> u64 {
        self.id
    }

    /// Returns `true` if the socket is of this family and, where given, of this kind and protocol.
    pub fn is(&self, family: i32, kind: Option<i32>, protocol: Option<i32>) -> bool {
        i32::from(self.family) == family
            && kind.is_none_or(|kind| kind == self.kind)
            && protocol.is_none_or(|protocol| protocol == self.protocol.into())
    }
}

/// Returns the sockets with an open descriptor, and the TCP connections that were not accepted yet, the
/// newest first.
pub fn all(system: &System, is_meant: impl Fn(&Socket) -> bool) -> Vec<Arc<Socket>> {
    let mut found = BTreeMap::new();
    let mut take = |socket: &Arc<Socket>| {
        if is_meant(socket) {
            found.insert(socket.id, socket.clone());
        }
    };
    for file in system.processes.all().flat_map(|proc| proc.files.all()) {
        let Some(socket) = file.ops.socket() else { continue };
        take(socket);
        if socket.is_tcp() {
            let listener = &lock(&socket.state).listener;
            listener.iter().flat_map(|listener| &listener.queue).for_each(&mut take);
        }
    }
    found.into_values().rev().collect()
}

/// Encodes a `struct kinfo_pcb`, with numbers of sockets where NetBSD has addresses in the kernel.
pub fn entry(socket: &Arc<Socket>) -> [u8; ENTRY] {
    let mut out = [0; ENTRY];
    let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
    let queued = socket.sending_queue();
    let (peer, is_over) = {
        let peer = lock(&socket.state).peer.upgrade();
        // The peer is locked by itself: two sockets are never locked at once here.
        let is_over = peer.as_ref().is_none_or(|peer| lock(&peer.state).has(state::CANT_SEND));
        (peer, is_over)
    };
    let state = lock(&socket.state);
    put(0, &socket.id.to_le_bytes());
    put(16, &socket.id.to_le_bytes());
    put(24, &u32::from(socket.family).to_le_bytes());
    put(28, &socket.kind.to_le_bytes());
    put(32, &u32::from(socket.protocol).to_le_bytes());
    put(40, &socket_state(&state).to_le_bytes());
    put(56, &(state.buffer.len() as u64).to_le_bytes());
    put(64, &queued.to_le_bytes());
    if socket.family == LOCAL {
        put(72, cut(&state.local_name()));
        let inode = state.local.as_ref().and_then(|local| local.inode.clone());
        drop(state);
        put(600, &socket.id.to_le_bytes());
        put(608, &inode.map_or(0, |inode| inode.stat().ino).to_le_bytes());
        if let Some(peer) = peer {
            put(336, cut(&lock(&peer.state).local_name()));
            put(616, &peer.id.to_le_bytes());
        }
        return out;
    }
    put(44, &protocol_state(&state).to_le_bytes());
    if socket.is_tcp() {
        put(48, &tcp_state(&state, is_over).to_le_bytes());
    }
    put(72, &inet::encode(socket.family, state.near));
    if protocol_state(&state) == CONNECTED {
        put(336, &inet::encode(socket.family, state.far));
    }
    out
}

/// Returns an address, cut to the room for it.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(ADDRESS)]
}

/// Returns `so_state`.
fn socket_state(state: &State) -> u32 {
    const BITS: [(u32, u32); 5] = [
        (state::CONNECTED, 0x2),
        (state::CONNECTING, 0x4),
        (state::CANT_SEND, 0x10),
        (state::CANT_RECEIVE, 0x20),
        (state::DISCONNECTED, 0x800),
    ];
    BITS.iter().filter(|(own, _)| state.has(*own)).fold(0, |all, (_, bit)| all | bit)
}

/// `INP_ATTACHED`, `INP_BOUND`, `INP_CONNECTED`
const BOUND: u32 = 1;
const CONNECTED: u32 = 2;

fn protocol_state(state: &State) -> u32 {
    match (state.near, state.far) {
        (_, Some(_)) => CONNECTED,
        (Some(_), None) => BOUND,
        (None, None) => 0,
    }
}

/// Returns `t_state`; `is_over` is true if nothing more will come from the other end.
fn tcp_state(state: &State, is_over: bool) -> i32 {
    const CLOSED: i32 = 0;
    const LISTEN: i32 = 1;
    const CONNECTING: i32 = 2;
    const ESTABLISHED: i32 = 4;
    const CLOSE_WAIT: i32 = 5;
    const FIN_WAIT_2: i32 = 9;
    if state.has(state::LISTENING) {
        return LISTEN;
    }
    if state.has(state::CONNECTING) {
        return CONNECTING;
    }
    match (state.has(state::CONNECTED), state.has(state::CANT_SEND), is_over) {
        (true, false, false) => ESTABLISHED,
        (true, false, true) => CLOSE_WAIT,
        (true, true, false) => FIN_WAIT_2,
        _ => CLOSED,
    }
}
