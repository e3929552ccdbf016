//! The end of connections: shutdown, resets, and closing.
//!
//! Sources: NetBSD `sys/kern/{uipc_socket,uipc_socket2,uipc_usrreq}.c`, `sys/netinet/tcp_usrreq.c`;
//! shutdown(2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ip_options;
use super::options::option;
use super::ports::{End, TIME_WAIT};
use super::{LOCAL, Listener, Socket, State, free, get, local, state};
use crate::call::{Answer, Result, SyscallContext};
use crate::sync::lock;
use crate::timer_thread::{Due, after};
use crate::work;
use kernel::Errno;

/// The unit of TCP's times (`PR_SLOWHZ`).
const SLOW_TICK: Duration = Duration::from_millis(500);

/// Refuses a TCP connection.
pub(super) fn refuse(socket: &Arc<Socket>) {
    reset(socket, Errno::ECONNREFUSED);
}

/// Ends a TCP connection at the request of the other end. NetBSD: `tcp_drop`, `tcp_close`.
pub(super) fn reset(socket: &Arc<Socket>, errno: Errno) {
    let head = {
        let mut state = lock(&socket.state);
        if state.has(state::DEAD) {
            return;
        }
        let head = state.peer.upgrade().filter(|_| state.has(state::CONNECTING));
        state.error = Some(errno);
        if let (Some(near), Some(far)) = (state.near, state.far) {
            socket.net.ports.forget(far, near);
        }
        finish(socket, &mut state);
        head
    };
    if let Some(head) = head {
        stop_waiting(socket, &head);
    }
    socket.wake();
}

/// Takes a connection out of the list of those that wait for room at a listener.
pub(super) fn stop_waiting(socket: &Socket, head: &Socket) {
    if let Some(listener) = &mut lock(&head.state).listener {
        listener.waiting.remove(&socket.id);
    }
}

/// Ends a TCP connection and frees its port.
fn finish(socket: &Socket, state: &mut State) {
    state.disconnected();
    state.flags |= state::DEAD;
    state.peer = Default::default();
    socket.disarm(state);
    let (near, far) = (state.near.take(), state.far.take());
    if let Some(near) = near {
        socket.net.ports.give(socket, near, far);
    }
}

impl Socket {
    /// Returns `true` for a TCP connection that is over and whose port is free.
    pub(super) fn is_over(&self, state: &State) -> bool {
        let ended = self.is_tcp() && state.has(state::DISCONNECTED);
        state.has(state::DEAD)
            || match (state.near, state.far) {
                (Some(near), Some(far)) if ended => !self.net.ports.has(self, near, far),
                _ => false,
            }
    }

    /// Starts the timer that ends a TCP connection which is not complete after some time.
    pub(super) fn arm(self: &Arc<Self>, state: &mut State) {
        let ticks =
            state.ip_options(ip_options::KEEP_INIT).unwrap_or(ip_options::KEEP_INIT_DEFAULT) as u32;
        let me: Arc<dyn Due> = self.clone();
        let at = after(Instant::now(), SLOW_TICK * ticks);
        // If there is no thread for the timer, the connection waits on.
        let alarm = self.net.timer_thread.set(at, Arc::downgrade(&me)).ok();
        if let Some(before) = std::mem::replace(&mut state.alarm, alarm) {
            self.net.timer_thread.cancel(before);
        }
    }

    /// Stops the timer: the connection is complete, or given up.
    pub(super) fn disarm(&self, state: &mut State) {
        if let Some(alarm) = state.alarm.take() {
            self.net.timer_thread.cancel(alarm);
        }
    }
}

impl Due for Socket {
    /// NetBSD: `tcp_timer_keep`.
    fn due(self: Arc<Self>) {
        if lock(&self.state).has(state::CONNECTING) {
            reset(&self, Errno::ETIMEDOUT);
        }
    }
}

/// `int shutdown(int s, int how)`
pub(super) fn shutdown(run: &mut SyscallContext<'_, '_>) -> Answer {
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

/// Shuts down reading, and drops what has come. NetBSD: `sorflush`.
fn shut_reading(socket: &Socket) {
    let (records, peer) = {
        let mut state = lock(&socket.state);
        state.flags |= state::CANT_RECEIVE;
        socket.resize(state.receive_limit, 0, 0);
        (state.receive_limit, state.low_water[1]) = (0, 0);
        (state.buffer.clear(&socket.resource_group), state.peer.upgrade())
    };
    free(records);
    socket.readers.wake();
    if let Some(peer) = peer.filter(|_| socket.needs_connection()) {
        peer.writers.wake();
    }
}

/// Shuts down writing. NetBSD: `unp_shutdown`, `udp_shutdown`, `tcp_shutdown`.
fn shut_writing(socket: &Arc<Socket>) -> Result<(), Errno> {
    let (peer, again, deaf) = {
        let mut state = lock(&socket.state);
        let deaf = state.has(state::CANT_RECEIVE);
        if socket.is_over(&state) {
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
            // The socket neither sends nor receives, so it does not wait for the other end.
            lock(&socket.state).disconnected();
        }
    }
    socket.wake();
    Ok(())
}

/// Tells the peer that nothing more will come. A TCP connection that both ends have shut down is over: the
/// end that did so first keeps its port for a while, the other one does not.
fn hang_up(socket: &Arc<Socket>, peer: Option<Arc<Socket>>) {
    let mut both = false;
    if let Some(peer) = &peer {
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
    if !both || !socket.is_tcp() {
        return;
    }
    let itself = peer.is_some_and(|peer| Arc::ptr_eq(&peer, socket));
    let mut state = lock(&socket.state);
    if let (Some(near), Some(far)) = (state.near, state.far) {
        socket.net.ports.wait(far, near);
    }
    if !itself {
        finish(socket, &mut state);
    }
}

/// The state left of a socket whose last descriptor is gone.
struct Left {
    /// The socket's flags before the close.
    flags: u32,
    /// True for SO_LINGER with no time, by which a TCP connection is reset.
    abrupt: bool,
    unread: i64,
    peer: Option<Arc<Socket>>,
    near: Option<End>,
    far: Option<End>,
}

/// Closes a socket, whose last descriptor is gone. NetBSD: `soclose`.
pub(super) fn close(socket: &Arc<Socket>) {
    let (left, listener, local, records) = {
        let mut state = lock(&socket.state);
        if state.has(state::CLOSED) {
            return;
        }
        let flags = state.flags;
        state.disconnected();
        state.flags |= state::CLOSED;
        socket.disarm(&mut state);
        let left = Left {
            flags,
            abrupt: state.on(option::LINGER) && state.linger == 0,
            unread: state.buffer.len() as i64,
            peer: std::mem::take(&mut state.peer).upgrade(),
            near: state.near.take(),
            far: state.far.take(),
        };
        let records = state.buffer.clear(&socket.resource_group);
        (left, state.listener.take(), state.local.take(), records)
    };
    free(records);
    if let Some(listener) = listener {
        let steps = 32 * (listener.queue.len() + listener.waiting.len());
        work::now_or_later(steps, move || abort_all(*listener));
    }
    if let Some(local) = local {
        let (socket, steps) = (socket.clone(), 8 * local.senders.len());
        work::now_or_later(steps, move || leave(&socket, *local));
    }
    give_port(socket, &left);
    if let Some(peer) = &left.peer {
        part(socket, peer, &left);
    }
    socket.wake();
}

/// Gives up the port of a closed socket. Of a TCP connection, the end that ended it first keeps its port
/// for a while.
fn give_port(socket: &Socket, left: &Left) {
    let ports = &socket.net.ports;
    let (near, far) = match (left.near, left.far) {
        (Some(near), Some(far)) if socket.is_tcp() && left.flags & state::CONNECTING == 0 => {
            (near, far)
        }
        (Some(near), far) => return ports.give(socket, near, far),
        (None, _) => return,
    };
    let itself = near == far;
    let peer = left.peer.as_ref().filter(|_| !itself);
    let ended = peer.is_none_or(|peer| lock(&peer.state).has(state::CANT_SEND | state::CLOSED));
    if left.abrupt {
        ports.give(socket, near, Some(far));
        ports.forget(far, near);
    } else if itself {
        ports.linger(socket, near, far, Some(TIME_WAIT));
    } else if ended {
        ports.give(socket, near, Some(far));
        ports.wait(far, near);
    } else {
        ports.linger(socket, near, far, None);
    }
}

/// Ends the connections that were not accepted.
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

/// Gives up the name of a local socket, and tells the datagram sockets connected to it that it is gone.
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
fn part(socket: &Arc<Socket>, peer: &Arc<Socket>, left: &Left) {
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
            // The bytes under way stay so, and keep the peer's send buffer smaller.
            let limit = state.send_limit - left.unread;
            peer.resize(state.send_limit, limit, 0);
            state.send_limit = limit;
        }
        peer.wake();
    } else if left.flags & state::CONNECTING != 0 {
        stop_waiting(socket, peer);
    } else if left.flags & state::CONNECTED != 0 && left.abrupt {
        reset(peer, Errno::ECONNRESET);
    } else if left.flags & state::CANT_SEND == 0 {
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
