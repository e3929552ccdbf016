//! AF_LOCAL: names in the file system, peer credentials, datagrams.
//!
//! Source: NetBSD `sys/kern/uipc_usrreq.c`; unix(4).

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, Weak};

use super::accept::{self, Caller, Joined};
use super::buffer::{Control, Record};
use super::{LOCAL, STREAM, Socket, State, state};
use crate::abi::mode;
use crate::call::{PATH_MAX, Result, SyscallContext};
use crate::memfs::{Inode, Make};
use crate::sync::{lock, read, write};
use kernel::Errno;

/// The name of a socket without one (`sun_noname`).
pub(super) const NO_NAME: [u8; 2] = [2, LOCAL];

const SHARDS: usize = 16;

/// The sockets bound to names in the file system, by inode number.
#[derive(Default)]
pub(super) struct Names {
    shards: [RwLock<BTreeMap<u64, Weak<Socket>>>; SHARDS],
}

impl Names {
    fn shard(&self, inode: &Inode) -> (&RwLock<BTreeMap<u64, Weak<Socket>>>, u64) {
        let number = inode.stat().ino;
        (&self.shards[number as usize % SHARDS], number)
    }

    fn put(&self, inode: &Inode, socket: &Arc<Socket>) {
        let (shard, number) = self.shard(inode);
        write(shard).insert(number, Arc::downgrade(socket));
    }

    pub fn take(&self, inode: &Inode) {
        let (shard, number) = self.shard(inode);
        write(shard).remove(&number);
    }

    fn find(&self, inode: &Inode) -> Option<Arc<Socket>> {
        let (shard, number) = self.shard(inode);
        read(shard).get(&number)?.upgrade()
    }
}

/// The further state of a local socket.
#[derive(Default)]
pub(super) struct Local {
    /// The name the socket is bound to, as a `sockaddr`.
    pub name: Option<Box<[u8]>>,
    /// The inode the socket is bound to; holding it keeps its number from being reused.
    pub inode: Option<Arc<Inode>>,
    /// The pid, user and group of the process that bound the socket, and of the one at the other end.
    pub bound_by: Option<[u32; 3]>,
    pub peer: Option<[u32; 3]>,
    /// True if the socket wants to be told the sender's credentials (LOCAL_CREDS).
    pub wants_credentials: bool,
    /// True if connects to the socket wait to be accepted (LOCAL_CONNWAIT).
    pub waits: bool,
    /// The datagram sockets that are connected to this one.
    pub senders: BTreeMap<u64, Weak<Socket>>,
}

impl State {
    pub(super) fn local(&mut self) -> &mut Local {
        self.local.get_or_insert_default()
    }

    /// Returns the name as a local `sockaddr`.
    pub(super) fn local_name(&self) -> Box<[u8]> {
        let name = self.local.as_ref().and_then(|local| local.name.clone());
        name.unwrap_or_else(|| NO_NAME.into())
    }
}

/// Returns the pid, effective user and group of the caller (`struct unpcbid`).
pub(super) fn identity(run: &SyscallContext<'_, '_>) -> [u32; 3] {
    let own = run.proc.credentials();
    [run.proc.pid as u32, own.euid, own.egid]
}

/// Returns the path in a local `sockaddr`.
fn path(name: &[u8]) -> &[u8] {
    let path = name[2..].split(|&byte| byte == 0).next().unwrap_or_default();
    debug_assert!(path.len() < PATH_MAX);
    path
}

/// NetBSD: `unp_bind`.
pub(super) fn bind(run: &SyscallContext<'_, '_>, socket: &Arc<Socket>, name: &[u8]) -> Result<()> {
    let mut state = lock(&socket.state);
    if state.local.as_ref().is_some_and(|local| local.inode.is_some()) {
        return Err(Errno::EINVAL.into());
    }
    if path(name).is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let found = run.socket_name(path(name), true)?;
    if found.inode.is_some() {
        return Err(Errno::EADDRINUSE.into());
    }
    if found.slash {
        return Err(Errno::ENOENT.into());
    }
    let inode = run.make_at(&found, Make::Socket, 0o777).map_err(|stop| {
        if stop == Errno::EEXIST.into() { Errno::EADDRINUSE.into() } else { stop }
    })?;
    socket.net.names.put(&inode, socket);
    let local = state.local();
    local.name = Some(name.into());
    local.inode = Some(inode);
    local.bound_by = Some(identity(run));
    Ok(())
}

/// Returns the socket at a name. NetBSD: `unp_connect`.
fn find(run: &SyscallContext<'_, '_>, socket: &Socket, name: &[u8]) -> Result<Arc<Socket>> {
    if path(name).is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let found = run.socket_name(path(name), false)?;
    let inode = found.existing()?;
    if !inode.is_socket() {
        return Err(Errno::ENOTSOCK.into());
    }
    inode.check(&run.proc.credentials(), mode::WRITE)?;
    let other = socket.net.names.find(inode).ok_or(Errno::ECONNREFUSED)?;
    if other.kind != socket.kind {
        return Err(Errno::EPROTOTYPE.into());
    }
    Ok(other)
}

/// Connects a socket to a name; the caller has marked it as connecting if it needs a connection.
pub(super) fn connect(
    run: &SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    name: &[u8],
) -> Result<Joined> {
    let other = find(run, socket, name)?;
    if !socket.needs_connection() {
        join_datagram(socket, &other);
        return Ok(Joined::Connected);
    }
    let by = lock(&other.state).local.as_ref().and_then(|local| local.bound_by);
    lock(&socket.state).local().peer = by;
    let most = run.proc.rlimits().socket_bytes();
    accept::join(socket, &other, Caller { id: identity(run), most })
}

/// Connects a datagram socket. NetBSD: `unp_connect1`.
pub(super) fn join_datagram(socket: &Arc<Socket>, other: &Arc<Socket>) {
    {
        let mut state = lock(&other.state);
        if state.has(state::CLOSED) {
            return;
        }
        state.local().senders.insert(socket.id, Arc::downgrade(socket));
    }
    {
        let mut state = lock(&socket.state);
        if state.has(state::CLOSED) {
            // The socket was closed meanwhile, and its close did not see this peer.
            drop(state);
            lock(&other.state).local().senders.remove(&socket.id);
            return;
        }
        state.peer = Arc::downgrade(other);
        state.flags |= state::CONNECTED;
    }
    socket.wake();
}

/// Ends the connection of a datagram socket. NetBSD: `unp_disconnect1`.
pub(super) fn part_datagram(socket: &Socket) {
    let peer = {
        let mut state = lock(&socket.state);
        state.flags &= !state::CONNECTED;
        std::mem::take(&mut state.peer)
    };
    if let Some(peer) = peer.upgrade() {
        lock(&peer.state).local().senders.remove(&socket.id);
    }
}

/// Sends a datagram, to a name or the peer.
pub(super) fn send_datagram(
    run: &SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    to: Option<&[u8]>,
    mut control: Vec<Control>,
    data: Vec<u8>,
) -> Result<()> {
    let (connected, peer, name) = {
        let state = lock(&socket.state);
        (state.has(state::CONNECTED), state.peer.upgrade(), state.local_name())
    };
    let other = match to {
        Some(_) if connected => return Err(Errno::EISCONN.into()),
        Some(to) => find(run, socket, to)?,
        None if !connected => return Err(Errno::ENOTCONN.into()),
        None => peer.ok_or(Errno::ECONNREFUSED)?,
    };
    let pushed = {
        let mut state = lock(&other.state);
        if state.has(state::CLOSED) {
            return Err(Errno::ECONNREFUSED.into());
        }
        control.extend(wanted_credentials(run, &mut state, false));
        let record = Record::message(Some(name), control, data);
        let pushed = if record.len() as i64 > state.space() {
            Err(record)
        } else {
            state.buffer.push(record, &other.resource_group)
        };
        if pushed.is_err() {
            state.buffer.overflowed += 1;
        }
        pushed
    };
    if pushed.is_err() {
        return Err(Errno::ENOBUFS.into());
    }
    other.readers.wake();
    Ok(())
}

/// Returns the sender's credentials, if the socket in this state wants them; with `once`, only this time.
/// NetBSD: `unp_addsockcred`.
pub(super) fn wanted_credentials(
    run: &SyscallContext<'_, '_>,
    state: &mut State,
    once: bool,
) -> Option<Control> {
    let local = state.local.as_mut().filter(|local| local.wants_credentials)?;
    if once {
        local.wants_credentials = false;
    }
    let own = run.proc.credentials();
    let mut data = Vec::with_capacity(28 + 4 * own.groups.len());
    for word in [run.proc.pid as u32, own.uid, own.euid, own.gid, own.egid, own.groups.len() as u32]
    {
        data.extend(word.to_le_bytes());
    }
    data.extend(own.groups.iter().flat_map(|group| group.to_le_bytes()));
    // There is always room for one group (`SOCKCREDSIZE`).
    data.resize(data.len().max(28), 0);
    Some(Control::Data(0xffff, 0x10, data.into()))
}

/// Makes two sockets each other's peers. NetBSD: `unp_connect2`.
pub(super) fn pair(run: &SyscallContext<'_, '_>, one: &Arc<Socket>, two: &Arc<Socket>) {
    for (socket, other) in [(one, two), (two, one)] {
        if !socket.needs_connection() {
            join_datagram(socket, other);
            continue;
        }
        let mut state = lock(&socket.state);
        state.peer = Arc::downgrade(other);
        state.flags |= state::CONNECTED;
        state.local().peer = Some(identity(run));
    }
    debug_assert!(one.kind == two.kind && one.kind >= STREAM);
}
