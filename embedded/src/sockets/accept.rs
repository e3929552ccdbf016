//! Listening and accepting: the queue of a listener, and how the accepting end of a connection is made.
//!
//! Sources: NetBSD `sys/kern/{uipc_syscalls,uipc_socket,uipc_socket2}.c`; listen(2), accept(2).

use std::sync::Arc;

use super::close::{refuse, reset, stop_waiting};
use super::connect::{CLOEXEC, copyout_name, file_flags, peer_name, room_for_name};
use super::{Charge, LOCAL, Listener, Place, STREAM, Socket, State, get, inet, state};
use crate::abi::open;
use crate::call::{Answer, Result, Stop, SyscallContext};
use crate::sync::lock;
use crate::wait::Side;
use kernel::Errno;

/// The longest queue of connections (`SOMAXCONN`).
const BACKLOG_MAX: i32 = 128;

/// The smallest send buffer a new socket gets (`soreserve`).
const SEND_LEAST: i64 = 2560;

/// `int listen(int s, int backlog)`
pub(super) fn listen(run: &mut SyscallContext<'_, '_>) -> Answer {
    let backlog = run.int(1);
    let (_, socket) = get(run, run.int(0))?;
    let mut state = lock(&socket.state);
    if state.has(state::CONNECTED | state::CONNECTING) {
        return Err(Errno::EINVAL.into());
    }
    if socket.family == LOCAL {
        if state.local.as_ref().is_none_or(|local| local.inode.is_none()) {
            return Err(Errno::EINVAL.into());
        }
    } else if socket.kind != STREAM {
        return Err(Errno::EOPNOTSUPP.into());
    } else if socket.is_over(&state) {
        return Err(Errno::EINVAL.into());
    } else {
        inet::bind_any(&socket, &mut state)?;
    }
    state.flags |= state::LISTENING;
    let listener = state.listener.get_or_insert_default();
    listener.limit = backlog.clamp(0, BACKLOG_MAX) as usize;
    Ok([0, 0])
}

/// The result of connecting to a listener.
pub(super) enum Joined {
    Connected,
    /// The connection has to be accepted first, or waits for room at the listener.
    Waiting,
    Refused(Errno),
}

/// The client of a local socket that connects, for the listener to know, and the most bytes the buffers of
/// the listener's user may then take.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub id: [u32; 3],
    pub most: u64,
}

impl Caller {
    /// The caller of a TCP connection, of which the listener is told nothing.
    pub const NOBODY: Caller = Caller { id: [0; 3], most: u64::MAX };
}

/// Returns `true` if a listener has no room for one more connection. NetBSD: `sonewconn`, and
/// `syn_cache_get` before it.
fn is_full(listener: &Listener, tcp: bool) -> bool {
    let most = if tcp { listener.limit } else { 3 * listener.limit / 2 };
    listener.queue.len() > most
}

/// Makes the accepting end of a connection, and puts it into the queue of a listener. If there is no room,
/// a TCP connection waits for some. Once the client is in the listener's list of waiting ones, any call
/// that accepts may complete the connection; so only a client that is not in the list yet is given a peer
/// here.
pub(super) fn join(client: &Arc<Socket>, head: &Arc<Socket>, by: Caller) -> Result<Joined> {
    for _ in 0..TRIES {
        let server = match other_end(client, head, by) {
            Err(errno @ (Errno::ECONNREFUSED | Errno::ECONNRESET)) => {
                return Ok(Joined::Refused(errno));
            }
            server => server?,
        };
        let joined = match server {
            Some(server) => enter(client, head, server),
            None => wait_for_room(client, head),
        };
        if let Some(joined) = joined {
            return Ok(joined);
        }
    }
    Ok(Joined::Refused(Errno::ECONNREFUSED))
}

/// The most tries if room comes and goes at every one; each time, other connections have got in.
const TRIES: u32 = 1000;

/// Removes a connection from the queue whose client was closed, or timed out, while it connected.
fn withdraw(head: &Socket, server: &Arc<Socket>) {
    if let Some(listener) = &mut lock(&head.state).listener {
        listener.queue.retain(|other| !Arc::ptr_eq(other, server));
    }
    if server.is_tcp() {
        reset(server, Errno::ECONNRESET);
    } else {
        lock(&server.state).disconnected();
        server.wake();
    }
    head.readers.wake();
}

/// Puts the accepting end into the queue of its listener. Returns `None` if there is no room any more and
/// the client may wait for some.
fn enter(client: &Arc<Socket>, head: &Socket, server: Arc<Socket>) -> Option<Joined> {
    lock(&client.state).peer = Arc::downgrade(&server);
    let for_accept = {
        let mut head_state = lock(&head.state);
        let for_accept = head_state.local.as_ref().is_some_and(|local| local.waits);
        let closed = head_state.has(state::CLOSED);
        let listener = head_state.listener.as_mut().filter(|_| !closed);
        match listener.map(|listener| (is_full(listener, client.is_tcp()), listener)) {
            Some((false, listener)) => listener.queue.push_back(server.clone()),
            Some((true, _)) if client.is_tcp() => return None,
            _ => {
                drop(head_state);
                lock(&client.state).peer = Default::default();
                return Some(Joined::Refused(Errno::ECONNREFUSED));
            }
        }
        for_accept
    };
    let joined = {
        let mut state = lock(&client.state);
        if state.has(state::DISCONNECTED) {
            Joined::Refused(Errno::ECONNABORTED)
        } else if !state.has(state::CONNECTING) {
            // The connection was accepted already.
            Joined::Connected
        } else if for_accept || state.local.as_ref().is_some_and(|local| local.waits) {
            Joined::Waiting
        } else {
            settle(client, &mut state);
            Joined::Connected
        }
    };
    if let Joined::Refused(_) = joined {
        withdraw(head, &server);
    } else {
        client.wake();
        head.readers.wake();
    }
    Some(joined)
}

/// Makes a connection wait until its listener has room. Returns `None` if there is room by now.
fn wait_for_room(client: &Arc<Socket>, head: &Arc<Socket>) -> Option<Joined> {
    if !client.is_tcp() {
        return Some(Joined::Refused(Errno::ECONNREFUSED));
    }
    {
        let mut state = lock(&client.state);
        if state.has(state::CONNECTING) {
            state.peer = Arc::downgrade(head);
            if state.alarm.is_none() {
                client.arm(&mut state);
            }
        }
    }
    {
        let mut head_state = lock(&head.state);
        let closed = head_state.has(state::CLOSED);
        match head_state.listener.as_mut().filter(|_| !closed) {
            None => return Some(Joined::Refused(Errno::ECONNREFUSED)),
            Some(listener) if !is_full(listener, true) => return None,
            Some(listener) => listener.waiting.insert(client.id, Arc::downgrade(client)),
        };
    }
    // Perhaps the client was closed meanwhile, or another call has completed the connection.
    let flags = lock(&client.state).flags;
    if flags & state::DISCONNECTED != 0 {
        stop_waiting(client, head);
        return Some(Joined::Refused(Errno::ECONNABORTED));
    }
    Some(if flags & state::CONNECTING != 0 { Joined::Waiting } else { Joined::Connected })
}

/// Marks a connection as complete, unless it is over already.
fn settle(socket: &Socket, state: &mut State) {
    if state.has(state::CONNECTING) {
        socket.disarm(state);
        state.flags &= !state::CONNECTING;
        state.flags |= state::CONNECTED;
    }
}

/// Returns the socket for `accept`, or `None` if the listener has no room. ECONNREFUSED if `head` does not
/// listen. If there is no room for the socket's buffers, a local connection is refused and a TCP connection
/// reset. NetBSD: `sonewconn`.
fn other_end(
    client: &Arc<Socket>,
    head: &Arc<Socket>,
    by: Caller,
) -> Result<Option<Arc<Socket>>, Errno> {
    let (near, far) = {
        let state = lock(&client.state);
        (state.far, state.near)
    };
    let sizes = {
        let state = lock(&head.state);
        [state.send_limit.max(SEND_LEAST), state.receive_limit]
    };
    let full = if client.is_tcp() { Errno::ECONNRESET } else { Errno::ECONNREFUSED };
    if sizes[1] == 0 {
        return Err(full);
    }
    let resource_group = Charge {
        net: &head.net,
        resource_group: &head.resource_group,
        user: head.user,
        most: by.most,
    };
    let server = Socket::new(&resource_group, (head.family, head.kind, head.protocol), sizes);
    let server = server.map_err(|_| full)?;
    {
        let head_state = lock(&head.state);
        let listener = head_state.listener.as_ref().filter(|_| !head_state.has(state::CLOSED));
        if is_full(listener.ok_or(Errno::ECONNREFUSED)?, client.is_tcp()) {
            return Ok(None);
        }
        // No other thread knows the new socket yet.
        inherit(&mut lock(&server.state), &head_state, by);
        lock(&server.state).peer = Arc::downgrade(client);
    }
    server.owner.inherit(&head.owner);
    if let (Some(near), Some(far)) = (near, far) {
        head.net.ports.connect(&server, None, near, far)?;
        let mut state = lock(&server.state);
        (state.near, state.far) = (Some(near), Some(far));
    }
    Ok(Some(server))
}

/// Copies to the accepting end what it inherits from its listener.
fn inherit(state: &mut State, head: &State, by: Caller) {
    state.flags = state::CONNECTED | head.flags & (state::CANT_SEND | state::CANT_RECEIVE);
    state.options = head.options;
    state.linger = head.linger;
    state.low_water = head.low_water;
    state.timeouts = head.timeouts;
    state.ip_options = head.ip_options.clone();
    if let Some(from) = &head.local {
        let to = state.local();
        to.name = from.name.clone();
        to.peer = Some(by.id);
        (to.wants_credentials, to.waits) = (from.wants_credentials, from.waits);
    }
}

/// `int accept(int s, struct sockaddr *name, socklen_t *anamelen)`
pub(super) fn accept(run: &mut SyscallContext<'_, '_>) -> Answer {
    accept_with(run, 0, 0)
}

/// `int paccept(int s, struct sockaddr *name, socklen_t *anamelen, const sigset_t *mask, int flags)`
pub(super) fn paccept(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (mask, flags) = (run.word(3), run.uint(4));
    if mask != 0 {
        run.copyin::<16>(mask)?;
    }
    accept_with(run, flags, open::NONBLOCK)
}

/// NetBSD: `do_sys_accept`.
fn accept_with(run: &mut SyscallContext<'_, '_>, flags: u32, clear: u32) -> Answer {
    let (file, head) = get(run, run.int(0))?;
    let (addr, len_addr) = (run.word(1), run.word(2));
    let proc = run.proc;
    proc.files.check_room()?;
    let place = Place::take(&proc.family)?;
    if !head.needs_connection() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut waiting = false;
    let (room, server) = loop {
        if has_connection(&head, file.has(open::NONBLOCK))? {
            let room = if addr == 0 { Ok(0) } else { room_for_name(run, len_addr) };
            if room == Err(Stop::Asked) {
                return Err(Stop::Asked);
            }
            if let Some(server) = next_connection(&head) {
                break (room, server);
            }
            continue;
        }
        if waiting {
            return Err(Stop::Sleep(None));
        }
        run.wait_for(head.clone(), Side::Read);
        waiting = true;
    };
    let kept = file.flags() & (open::NONBLOCK | open::NOSIGPIPE) & !clear;
    let accepted = place.open(server.clone(), kept | file_flags(flags)).ok_or(Errno::ENFILE)?;
    room?;
    let name = {
        let state = lock(&server.state);
        if server.is_tcp() && state.has(state::DISCONNECTED) {
            return Err(Errno::ECONNABORTED.into());
        }
        peer_name(&server, &state)
    };
    let name = name.finish();
    let fd = run.proc.files.insert(accepted, 0, flags & CLOEXEC != 0)?;
    copyout_name(run, &name, addr, len_addr)?;
    Ok([fd.into(), 0])
}

/// Returns `true` if a listener has a connection to accept, or its pending error; EAGAIN if there is none
/// and `at_once` is set.
fn has_connection(head: &Socket, at_once: bool) -> Result<bool, Errno> {
    let mut state = lock(&head.state);
    if !state.has(state::LISTENING) {
        return Err(Errno::EINVAL);
    }
    if at_once && state.queued() == 0 {
        return Err(Errno::EAGAIN);
    }
    if let Some(errno) = state.error.take() {
        return Err(errno);
    }
    if state.queued() > 0 {
        return Ok(true);
    }
    if state.has(state::CANT_RECEIVE) { Err(Errno::ECONNABORTED) } else { Ok(false) }
}

/// Takes a connection out of the queue, and lets in those that wait for room.
fn next_connection(head: &Arc<Socket>) -> Option<Arc<Socket>> {
    let server = lock(&head.state).listener.as_mut()?.queue.pop_front()?;
    let client = lock(&server.state).peer.upgrade();
    if let Some(client) = client.filter(|client| client.family == LOCAL) {
        settle(&client, &mut lock(&client.state));
        client.wake();
    }
    loop {
        let waiting = {
            let mut state = lock(&head.state);
            let listener = state.listener.as_mut()?;
            if is_full(listener, true) { None } else { listener.waiting.pop_first() }
        };
        let Some((_, client)) = waiting else { break };
        let Some(client) = client.upgrade() else { continue };
        match join(&client, head, Caller::NOBODY) {
            Ok(Joined::Connected | Joined::Waiting) => {}
            Ok(Joined::Refused(errno)) => reset(&client, errno),
            Err(_) => refuse(&client),
        }
    }
    Some(server)
}
