//! How connections end: shutdown, resets, and closing.
//!
//! Sources: NetBSD `sys/kern/{uipc_socket,uipc_socket2,uipc_usrreq}.c`, `sys/netinet/tcp_usrreq.c`;
//! shutdown(2).

use std::sync::Arc;

use super::options::option;
use super::{LOCAL, Listener, Socket, State, get, local, state};
use crate::kernel::Errno;
use crate::kernel::embedded::call::{Answer, Result, Run};
use crate::kernel::embedded::sync::lock;

/// A TCP connection is refused.
pub(super) fn refuse(socket: &Arc<Socket>) {
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
        socket.resize(state.receive_limit, 0, 0);
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
    let (peer, again, deaf) = {
        let mut state = lock(&socket.state);
        let deaf = state.has(state::CANT_RECEIVE);
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
        (state.peer.upgrade(), again, deaf)
    };
    if socket.needs_connection() && !again {
        hang_up(socket, peer);
        if socket.is_tcp() && deaf {
            // It neither sends nor receives: it does not wait for the other end.
            lock(&socket.state).disconnected();
        }
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
    let (before, abrupt, peer, listener, local, unread, records) = {
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
        let unread = state.buffer.len() as i64;
        let records = state.buffer.clear(&socket.payer);
        (before, abrupt, peer, state.listener.take(), state.local.take(), unread, records)
    };
    drop(records);
    if let Some(listener) = listener {
        abort_all(*listener);
    }
    if let Some(local) = local {
        leave(socket, *local);
    }
    if let Some(peer) = peer {
        part(socket, &peer, before, abrupt, unread);
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
fn part(socket: &Arc<Socket>, peer: &Arc<Socket>, before: u32, abrupt: bool, unread: i64) {
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
            // What was under way stays so.
            let limit = state.send_limit - unread;
            peer.resize(state.send_limit, limit, 0);
            state.send_limit = limit;
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
