//! How sockets begin, come together and part: socket, socketpair, bind, listen, accept, connect,
//! shutdown, the names of both ends, and closing.
//!
//! Sources: NetBSD `sys/kern/{uipc_syscalls,uipc_socket,uipc_socket2}.c`, `sys/netinet/tcp_usrreq.c`;
//! socket(2), bind(2), listen(2), accept(2), connect(2), shutdown(2), getsockname(2).

use std::sync::{Arc, MutexGuard};

use super::options::option;
use super::{
    DATAGRAM, INET, INET6, LOCAL, Listener, RAW, SEQUENCED, STREAM, Socket, State, get, inet,
    local, opened, state,
};
use crate::kernel::Errno;
use crate::kernel::embedded::abi::open;
use crate::kernel::embedded::call::{Answer, Result, Run, Stop};
use crate::kernel::embedded::sync::lock;
use crate::kernel::embedded::wait::Side;

const CLOEXEC: u32 = 0x1000_0000;
const NONBLOCK: u32 = 0x2000_0000;
const NOSIGPIPE: u32 = 0x4000_0000;
const FLAGS: u32 = 0xf000_0000;

/// The longest queue of connections (`SOMAXCONN`).
const BACKLOG_MAX: i32 = 128;

/// The flags of an open file that are asked for with the type of a socket.
fn file_flags(flags: u32) -> u32 {
    let mut file_flags = 0;
    if flags & NONBLOCK != 0 {
        file_flags |= open::NONBLOCK;
    }
    if flags & NOSIGPIPE != 0 {
        file_flags |= open::NOSIGPIPE;
    }
    file_flags
}

/// `int __socket30(int domain, int type, int protocol)`
pub(super) fn socket(run: &mut Run<'_, '_>) -> Answer {
    let (domain, kind, protocol) = (run.int(0), run.uint(1), run.int(2));
    run.task.files.check_room()?;
    let (flags, kind) = (kind & FLAGS, (kind & !FLAGS) as i32);
    let (family, protocol) = protocol_of(domain, kind, protocol)?;
    let socket = Socket::new(&run.system().net, &run.task.family, (family, kind, protocol))?;
    let file = opened(run, socket, file_flags(flags))?;
    let fd = run.task.files.insert(file, 0, flags & CLOEXEC != 0)?;
    Ok([fd.into(), 0])
}

/// `int socketpair(int domain, int type, int protocol, int *rsv)`
pub(super) fn socketpair(run: &mut Run<'_, '_>) -> Answer {
    let (domain, kind, protocol, addr) = (run.int(0), run.uint(1), run.int(2), run.word(3));
    let (flags, kind) = (kind & FLAGS, (kind & !FLAGS) as i32);
    let (family, protocol) = protocol_of(domain, kind, protocol)?;
    let system = run.system();
    let make = || Socket::new(&system.net, &run.task.family, (family, kind, protocol));
    let (one, two) = (make()?, make()?);
    run.task.files.check_room()?;
    if family != LOCAL {
        return Err(Errno::EOPNOTSUPP.into());
    }
    local::pair(run, &one, &two);
    let one = opened(run, one, file_flags(flags))?;
    let two = opened(run, two, file_flags(flags))?;
    let fds = run.task.files.insert_pair([one, two], flags & CLOEXEC != 0)?;
    let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_le_bytes()).collect();
    run.copyout(&bytes, addr)?;
    Ok([0, 0])
}

/// Family and protocol of a new socket. NetBSD: `socreate`.
fn protocol_of(domain: i32, kind: i32, protocol: i32) -> Result<(u8, u8), Errno> {
    let family = match domain {
        1 => LOCAL,
        2 => INET,
        24 => INET6,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let own = match (family, kind) {
        (LOCAL, STREAM | DATAGRAM | SEQUENCED) => Some(0),
        (INET | INET6, STREAM) => Some(6),
        (INET | INET6, DATAGRAM) => Some(17),
        (INET | INET6, RAW) => Some(protocol),
        _ => None,
    };
    match own {
        Some(own) if protocol == 0 || protocol == own && own != 0 => {
            Ok((family, u8::try_from(own).map_err(|_| Errno::EPROTONOSUPPORT)?))
        }
        None if protocol == 0 && kind != 0 => Err(Errno::EPROTOTYPE),
        _ => Err(Errno::EPROTONOSUPPORT),
    }
}

/// Copies in a `sockaddr`. NetBSD: `sockargs`.
pub(super) fn copyin_name(run: &mut Run<'_, '_>, addr: u64, len: u32) -> Result<Vec<u8>> {
    if !(3..=255).contains(&len) {
        return Err(Errno::EINVAL.into());
    }
    let mut name = vec![0; len as usize];
    run.memory().copyin(addr, &mut name)?;
    // What 4.3BSD programs pass: no length, and the family where the length belongs.
    if name[1] == 0 && name[0] < 35 {
        name[1] = name[0];
    }
    name[0] = len as u8;
    Ok(name)
}

/// Copies out a `sockaddr` and, as far as there was room, its length. NetBSD: `copyout_sockname_sb`.
fn copyout_name(run: &mut Run<'_, '_>, name: &[u8], addr: u64, len_addr: u64) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    let len = room_for_name(run, len_addr)?;
    let part = &name[..len.min(name.len())];
    if !part.is_empty() {
        run.copyout(part, addr)?;
    }
    run.copyout(&(part.len() as u32).to_le_bytes(), len_addr)
}

/// The room for a name the client says it has.
pub(super) fn room_for_name(run: &mut Run<'_, '_>, len_addr: u64) -> Result<usize> {
    let len = i32::from_le_bytes(run.copyin(len_addr)?);
    Ok(usize::try_from(len).map_err(|_| Errno::EINVAL)?)
}

/// `int bind(int s, const struct sockaddr *name, socklen_t namelen)`
pub(super) fn bind(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len) = (run.word(1), run.uint(2));
    let name = copyin_name(run, addr, len)?;
    let (_, socket) = get(run, run.int(0))?;
    if name[1] != socket.family {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    if socket.family == LOCAL {
        local::bind(run, &socket, &name)?;
    } else {
        inet::bind(run, &socket, &name)?;
    }
    Ok([0, 0])
}

/// `int listen(int s, int backlog)`
pub(super) fn listen(run: &mut Run<'_, '_>) -> Answer {
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
    } else if state.has(state::DEAD) {
        return Err(Errno::EINVAL.into());
    } else {
        inet::bind_any(&socket, &mut state)?;
    }
    state.flags |= state::LISTENING;
    let listener = state.listener.get_or_insert_default();
    listener.limit = backlog.clamp(0, BACKLOG_MAX) as usize;
    Ok([0, 0])
}

/// How trying to come together with a listener ended.
pub(super) enum Joined {
    Connected,
    /// It has to be accepted, or there must be room for it first.
    Waiting,
    Refused,
}

/// Whether a listener has no room for one more. NetBSD: `sonewconn`, and `syn_cache_get` before it.
fn is_full(listener: &Listener, tcp: bool) -> bool {
    let most = if tcp { listener.limit } else { 3 * listener.limit / 2 };
    listener.queue.len() > most
}

/// Makes the other end of a connection, and puts it into the queue of a listener.
pub(super) fn join(client: &Arc<Socket>, head: &Arc<Socket>, by: [u32; 3]) -> Result<Joined> {
    let server = match other_end(client, head, by) {
        Err(Errno::ECONNREFUSED) => return Ok(Joined::Refused),
        server => server?,
    };
    let made = server.is_some();
    let peer = server.as_ref().unwrap_or(head);
    lock(&client.state).peer = Arc::downgrade(peer);
    let Some(waits) = enter(client, head, server) else {
        lock(&client.state).peer = Default::default();
        return Ok(Joined::Refused);
    };
    if waits.full {
        if made {
            lock(&client.state).peer = Arc::downgrade(head);
        }
        return Ok(Joined::Waiting);
    }
    let joined = {
        let mut state = lock(&client.state);
        if waits.for_accept || state.local.as_ref().is_some_and(|local| local.waits) {
            Joined::Waiting
        } else {
            settle(&mut state);
            Joined::Connected
        }
    };
    client.wake();
    head.readers.wake();
    Ok(joined)
}

/// What a connection that has reached its listener waits for.
struct Waits {
    full: bool,
    for_accept: bool,
}

/// Puts the other end into the queue of its listener; if there is no room, TCP waits for some.
/// Nothing if the connection is refused.
fn enter(client: &Arc<Socket>, head: &Socket, server: Option<Arc<Socket>>) -> Option<Waits> {
    let mut head_state = lock(&head.state);
    if head_state.has(state::CLOSED) {
        return None;
    }
    let for_accept = head_state.local.as_ref().is_some_and(|local| local.waits);
    let listener = head_state.listener.as_mut()?;
    let full = is_full(listener, client.is_tcp());
    match server {
        Some(server) if !full => listener.queue.push_back(server),
        _ if !client.is_tcp() => return None,
        _ => drop(listener.waiting.insert(client.id, Arc::downgrade(client))),
    }
    Some(Waits { full, for_accept })
}

/// A connection is made, unless it is over already.
fn settle(state: &mut State) {
    if state.has(state::CONNECTING) {
        state.flags &= !state::CONNECTING;
        state.flags |= state::CONNECTED;
    }
}

/// The socket that `accept` will return; nothing if the listener has no room. ECONNREFUSED if it is
/// none. NetBSD: `sonewconn`.
fn other_end(
    client: &Arc<Socket>,
    head: &Arc<Socket>,
    by: [u32; 3],
) -> Result<Option<Arc<Socket>>, Errno> {
    let server = Socket::new(&head.net, &head.payer, (head.family, head.kind, head.protocol));
    let server = server.map_err(|_| Errno::ECONNREFUSED)?;
    let (near, far) = {
        let state = lock(&client.state);
        (state.far, state.near)
    };
    {
        let head_state = lock(&head.state);
        let listener = head_state.listener.as_ref().filter(|_| !head_state.has(state::CLOSED));
        if is_full(listener.ok_or(Errno::ECONNREFUSED)?, client.is_tcp()) {
            return Ok(None);
        }
        let mut state = lock_new(&server);
        state.flags =
            state::CONNECTED | head_state.flags & (state::CANT_SEND | state::CANT_RECEIVE);
        state.options = head_state.options;
        state.linger = head_state.linger;
        (state.send_limit, state.receive_limit) = (head_state.send_limit, head_state.receive_limit);
        state.low_water = head_state.low_water;
        state.timeouts = head_state.timeouts;
        state.lower = head_state.lower.clone();
        state.peer = Arc::downgrade(client);
        if let Some(from) = &head_state.local {
            let to = state.local();
            to.name = from.name.clone();
            to.peer = Some(by);
            (to.wants_credentials, to.waits) = (from.wants_credentials, from.waits);
        }
    }
    if let (Some(near), Some(far)) = (near, far) {
        head.net.ports.connect(&server, None, near, far)?;
        let mut state = lock(&server.state);
        (state.near, state.far) = (Some(near), Some(far));
    }
    Ok(Some(server))
}

/// Locks a socket nobody else knows yet.
fn lock_new(socket: &Socket) -> MutexGuard<'_, State> {
    lock(&socket.state)
}

/// `int accept(int s, struct sockaddr *name, socklen_t *anamelen)`
pub(super) fn accept(run: &mut Run<'_, '_>) -> Answer {
    accept_with(run, 0, 0)
}

/// `int paccept(int s, struct sockaddr *name, socklen_t *anamelen, const sigset_t *mask, int flags)`
pub(super) fn paccept(run: &mut Run<'_, '_>) -> Answer {
    let (mask, flags) = (run.word(3), run.uint(4));
    if mask != 0 {
        run.copyin::<16>(mask)?;
    }
    accept_with(run, flags, open::NONBLOCK)
}

/// NetBSD: `do_sys_accept`.
fn accept_with(run: &mut Run<'_, '_>, flags: u32, clear: u32) -> Answer {
    let (file, head) = get(run, run.int(0))?;
    let (addr, len_addr) = (run.word(1), run.word(2));
    run.task.files.check_room()?;
    if !head.needs_connection() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut waiting = false;
    let (room, server) = loop {
        if has_connection(&head)? {
            let room = if addr == 0 { Ok(0) } else { room_for_name(run, len_addr) };
            if room == Err(Stop::Asked) {
                return Err(Stop::Asked);
            }
            if let Some(server) = next_connection(&head) {
                break (room, server);
            }
            continue;
        }
        if file.has(open::NONBLOCK) {
            return Err(Errno::EAGAIN.into());
        }
        if waiting {
            return Err(Stop::Sleep(None));
        }
        run.wait_for(head.clone(), Side::Read);
        waiting = true;
    };
    let kept = file.flags() & (open::NONBLOCK | open::NOSIGPIPE) & !clear;
    let accepted = opened(run, server.clone(), kept | file_flags(flags))?;
    room?;
    let name = {
        let state = lock(&server.state);
        if server.is_tcp() && state.has(state::DISCONNECTED) {
            return Err(Errno::ECONNABORTED.into());
        }
        peer_name(&server, &state)
    };
    let name = name.finish();
    let fd = run.task.files.insert(accepted, 0, flags & CLOEXEC != 0)?;
    copyout_name(run, &name, addr, len_addr)?;
    Ok([fd.into(), 0])
}

/// Whether a listener has a connection to accept, or what went wrong.
fn has_connection(head: &Socket) -> Result<bool, Errno> {
    let mut state = lock(&head.state);
    if !state.has(state::LISTENING) {
        return Err(Errno::EINVAL);
    }
    if let Some(errno) = state.error.take() {
        return Err(errno);
    }
    if state.queued() > 0 {
        return Ok(true);
    }
    if state.has(state::CANT_RECEIVE) { Err(Errno::ECONNABORTED) } else { Ok(false) }
}

/// Takes a connection out of the queue, and lets in those that wait for room there.
fn next_connection(head: &Arc<Socket>) -> Option<Arc<Socket>> {
    let server = lock(&head.state).listener.as_mut()?.queue.pop_front()?;
    let client = lock(&server.state).peer.upgrade();
    if let Some(client) = client.filter(|client| client.family == LOCAL) {
        settle(&mut lock(&client.state));
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
        if !matches!(join(&client, head, [0; 3]), Ok(Joined::Connected | Joined::Waiting)) {
            refuse(&client);
        }
    }
    Some(server)
}

/// `int connect(int s, const struct sockaddr *name, socklen_t namelen)`
pub(super) fn connect(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len) = (run.word(1), run.uint(2));
    let name = copyin_name(run, addr, len)?;
    let (file, socket) = get(run, run.int(0))?;
    if run.done() == 0 {
        let at_once = file.has(open::NONBLOCK);
        match begin(run, &socket, &name)? {
            Joined::Connected if socket.is_tcp() && at_once => {
                return Err(Errno::EINPROGRESS.into());
            }
            Joined::Connected => return Ok([0, 0]),
            Joined::Refused if !socket.is_tcp() => return Err(Errno::ECONNREFUSED.into()),
            Joined::Refused => {
                refuse(&socket);
                if at_once {
                    return Err(Errno::EINPROGRESS.into());
                }
                lock(&socket.state).error = None;
                return Err(Errno::ECONNREFUSED.into());
            }
            Joined::Waiting if at_once => return Err(Errno::EINPROGRESS.into()),
            Joined::Waiting => run.call.progress.done = 1,
        }
    }
    let mut waiting = false;
    loop {
        {
            let mut state = lock(&socket.state);
            if let Some(errno) = state.error.take() {
                state.flags &= !state::CONNECTING;
                return Err(errno.into());
            }
            if !state.has(state::CONNECTING) {
                return Ok([0, 0]);
            }
        }
        if waiting {
            return Err(Stop::Sleep(None));
        }
        run.wait_for(socket.clone(), Side::Write);
        waiting = true;
    }
}

/// Begins to connect. NetBSD: `soconnect`.
fn begin(run: &Run<'_, '_>, socket: &Arc<Socket>, name: &[u8]) -> Result<Joined> {
    let needed = socket.needs_connection();
    let parts = {
        let mut state = lock(&socket.state);
        if state.has(state::CONNECTING) {
            return Err(Errno::EALREADY.into());
        }
        if state.has(state::LISTENING) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let connected = state.has(state::CONNECTED);
        if connected && needed {
            return Err(Errno::EISCONN.into());
        }
        if !connected && name[1] != socket.family {
            return Err(Errno::EAFNOSUPPORT.into());
        }
        if state.has(state::DEAD) {
            return Err(Errno::EINVAL.into());
        }
        if needed {
            state.flags |= state::CONNECTING;
        }
        connected
    };
    if parts {
        part_datagram(socket);
        if name[1] != socket.family {
            return Err(Errno::EAFNOSUPPORT.into());
        }
    }
    let begun = match (socket.family, socket.kind) {
        (LOCAL, _) => local::connect(run, socket, name),
        (_, STREAM) => inet::connect_stream(socket, name),
        (_, DATAGRAM) => inet::connect_datagram(socket, name).map(|()| Joined::Connected),
        _ => Err(Errno::EOPNOTSUPP.into()),
    };
    if needed && !matches!(begun, Ok(Joined::Connected | Joined::Waiting)) {
        lock(&socket.state).flags &= !state::CONNECTING;
    }
    begun
}

fn part_datagram(socket: &Arc<Socket>) {
    match socket.family {
        LOCAL => local::part_datagram(socket),
        _ => inet::part_datagram(socket),
    }
}

/// A TCP connection is refused.
fn refuse(socket: &Arc<Socket>) {
    reset(socket, Errno::ECONNREFUSED);
}

/// A TCP connection has ended at the other side's word. NetBSD: `tcp_drop`, `tcp_close`.
pub(super) fn reset(socket: &Arc<Socket>, errno: Errno) {
    {
        let mut state = lock(&socket.state);
        if state.has(state::DEAD) {
            return;
        }
        state.error = Some(errno);
        finish(socket, &mut state);
    }
    socket.wake();
}

/// A TCP connection is over: its ports are free.
fn finish(socket: &Socket, state: &mut State) {
    state.disconnected();
    state.flags |= state::DEAD;
    state.peer = Default::default();
    let (near, far) = (state.near.take(), state.far.take());
    if let Some(near) = near {
        socket.net.ports.give(socket, near, far);
    }
}

/// `int shutdown(int s, int how)`
pub(super) fn shutdown(run: &mut Run<'_, '_>) -> Answer {
    let how = run.uint(1);
    let (_, socket) = get(run, run.int(0))?;
    if how > 2 {
        return Err(Errno::EINVAL.into());
    }
    if how != 1 {
        shut_reading(&socket);
    }
    if how != 0 {
        shut_writing(&socket)?;
    }
    Ok([0, 0])
}

/// What has come is dropped. NetBSD: `sorflush`.
fn shut_reading(socket: &Socket) {
    let (records, peer) = {
        let mut state = lock(&socket.state);
        state.flags |= state::CANT_RECEIVE;
        (state.receive_limit, state.low_water[1]) = (0, 0);
        (state.buffer.clear(&socket.payer), state.peer.upgrade())
    };
    drop(records);
    socket.readers.wake();
    if let Some(peer) = peer.filter(|_| socket.needs_connection()) {
        peer.writers.wake();
    }
}

/// Nothing more will be sent. NetBSD: `unp_shutdown`, `udp_shutdown`, `tcp_shutdown`.
fn shut_writing(socket: &Arc<Socket>) -> Result<(), Errno> {
    let (peer, again) = {
        let mut state = lock(&socket.state);
        if state.has(state::DEAD) {
            return Err(Errno::EINVAL);
        }
        let again = state.has(state::CANT_SEND);
        if socket.is_tcp() && !state.has(state::CONNECTED | state::DISCONNECTED) {
            finish(socket, &mut state);
        } else if socket.is_tcp() && again {
            state.disconnected();
        }
        state.flags |= state::CANT_SEND;
        (state.peer.upgrade(), again)
    };
    if socket.needs_connection() && !again {
        hang_up(socket, peer);
    }
    socket.wake();
    Ok(())
}

/// Tells the peer that nothing more will come. A TCP connection of which both ends have said so is
/// over: the first to have said so keeps its address for a while, the other is done.
fn hang_up(socket: &Arc<Socket>, peer: Option<Arc<Socket>>) {
    let mut both = false;
    if let Some(peer) = peer {
        {
            let mut state = lock(&peer.state);
            state.flags |= state::CANT_RECEIVE;
            both = state.has(state::CANT_SEND | state::CLOSED);
            if both && socket.is_tcp() {
                state.disconnected();
            }
        }
        peer.wake();
    } else if lock(&socket.state).has(state::CANT_RECEIVE) {
        both = true;
    }
    if both && socket.is_tcp() {
        finish(socket, &mut lock(&socket.state));
    }
}

/// The last descriptor of a socket is gone. NetBSD: `soclose`.
pub(super) fn close(socket: &Arc<Socket>) {
    let (before, abrupt, peer, listener, local, records) = {
        let mut state = lock(&socket.state);
        if state.has(state::CLOSED) {
            return;
        }
        let before = state.flags;
        state.disconnected();
        state.flags |= state::CLOSED;
        let abrupt = state.on(option::LINGER) && state.linger == 0;
        let peer = std::mem::take(&mut state.peer).upgrade();
        let (near, far) = (state.near.take(), state.far.take());
        if let Some(near) = near {
            socket.net.ports.give(socket, near, far);
        }
        let records = state.buffer.clear(&socket.payer);
        (before, abrupt, peer, state.listener.take(), state.local.take(), records)
    };
    drop(records);
    if let Some(listener) = listener {
        abort_all(*listener);
    }
    if let Some(local) = local {
        leave(socket, *local);
    }
    if let Some(peer) = peer {
        part(socket, &peer, before, abrupt);
    }
    socket.wake();
}

/// Ends the connections nobody has accepted.
fn abort_all(listener: Listener) {
    let Listener { queue, waiting, .. } = listener;
    for server in queue {
        let client = lock(&server.state).peer.upgrade();
        if server.is_tcp()
            && let Some(client) = &client
        {
            reset(client, Errno::ECONNRESET);
        }
        close(&server);
    }
    for client in waiting.into_values().filter_map(|client| client.upgrade()) {
        refuse(&client);
    }
}

/// A local socket gives up its name, and who is connected to it learns that it is gone.
fn leave(socket: &Arc<Socket>, local: local::Local) {
    if let Some(inode) = &local.inode {
        socket.net.names.take(inode);
    }
    for sender in local.senders.into_values().filter_map(|sender| sender.upgrade()) {
        {
            let mut state = lock(&sender.state);
            if state.peer.as_ptr() != Arc::as_ptr(socket) {
                continue;
            }
            state.peer = Default::default();
            state.flags &= !state::CONNECTED;
            state.error = Some(Errno::ECONNRESET);
        }
        sender.wake();
    }
}

/// Tells the peer that this end is gone.
fn part(socket: &Arc<Socket>, peer: &Arc<Socket>, before: u32, abrupt: bool) {
    if !socket.needs_connection() {
        if socket.family == LOCAL && !Arc::ptr_eq(socket, peer) {
            lock(&peer.state).local().senders.remove(&socket.id);
        }
        return;
    }
    if socket.family == LOCAL {
        {
            let mut state = lock(&peer.state);
            state.disconnected();
            state.peer = Default::default();
        }
        peer.wake();
    } else if before & state::CONNECTING != 0 {
        let mut state = lock(&peer.state);
        if let Some(listener) = &mut state.listener {
            listener.waiting.remove(&socket.id);
        }
    } else if before & state::CONNECTED != 0 && abrupt {
        reset(peer, Errno::ECONNRESET);
    } else if before & state::CANT_SEND == 0 {
        {
            let mut state = lock(&peer.state);
            state.flags |= state::CANT_RECEIVE;
            if state.has(state::CANT_SEND) {
                state.disconnected();
            }
        }
        peer.wake();
    }
}

/// A name that is known, or that of a local socket that has to be asked.
enum Name {
    Known(Box<[u8]>),
    Of(Arc<Socket>),
}

impl Name {
    fn finish(self) -> Box<[u8]> {
        match self {
            Name::Known(name) => name,
            Name::Of(socket) => lock(&socket.state).local_name(),
        }
    }
}

/// The name of the other end.
fn peer_name(socket: &Socket, state: &State) -> Name {
    if socket.family != LOCAL {
        return Name::Known(inet::encode(socket.family, state.far));
    }
    match state.peer.upgrade() {
        Some(peer) => Name::Of(peer),
        None => Name::Known(local::NO_NAME.into()),
    }
}

/// `int getsockname(int fdes, struct sockaddr *asa, socklen_t *alen)`
pub(super) fn getsockname(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len_addr) = (run.word(1), run.word(2));
    let (_, socket) = get(run, run.int(0))?;
    let name = {
        let state = lock(&socket.state);
        if state.has(state::DEAD) {
            return Err(Errno::EINVAL.into());
        }
        match socket.family {
            LOCAL => state.local_name(),
            family => inet::encode(family, state.near),
        }
    };
    copyout_name(run, &name, addr, len_addr)?;
    Ok([0, 0])
}

/// `int getpeername(int fdes, struct sockaddr *asa, socklen_t *alen)`
pub(super) fn getpeername(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len_addr) = (run.word(1), run.word(2));
    let (_, socket) = get(run, run.int(0))?;
    let name = {
        let state = lock(&socket.state);
        if !state.has(state::CONNECTED) {
            return Err(Errno::ENOTCONN.into());
        }
        peer_name(&socket, &state)
    };
    let name = name.finish();
    copyout_name(run, &name, addr, len_addr)?;
    Ok([0, 0])
}
