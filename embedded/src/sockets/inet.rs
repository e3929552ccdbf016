//! AF_INET and AF_INET6: addresses, binding, connecting over loopback.
//!
//! The addresses of this kernel are 127.0.0.1 and ::1, as in a rump kernel that was given none.
//!
//! Sources: NetBSD `sys/netinet/{in_pcb,tcp_usrreq,udp_usrreq}.c`, `sys/netinet6/{in6_pcb,udp6_usrreq}.c`.

use std::sync::Arc;

use super::accept::{self, Caller, Joined};
use super::ip_options;
use super::options::option;
use super::ports::{Address, Binding, End, any, is_any, is_mapped, mapped};
use super::{INET, INET6, RAW, Socket, State, state};
use crate::call::{Result, SyscallContext};
use crate::sync::lock;
use kernel::Errno;

/// The ports only the superuser may bind to (`IPPORT_RESERVED`).
const RESERVED: u16 = 1024;

/// 127.0.0.1 and ::1.
const LOOPBACK_4: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
const LOOPBACK_6: Address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(super) fn is_own(addr: &Address) -> bool {
    *addr == LOOPBACK_4 || *addr == LOOPBACK_6
}

fn is_multicast(addr: &Address) -> bool {
    if is_mapped(addr) { addr[12] & 0xf0 == 0xe0 } else { addr[0] == 0xff }
}

/// Encodes an end as a `sockaddr`; `None` is the wildcard and port 0.
pub(super) fn encode(family: u8, end: Option<End>) -> Box<[u8]> {
    let (addr, port) = end.unwrap_or((any(family), 0));
    let (size, at, part) = if family == INET { (16, 4, &addr[12..]) } else { (28, 8, &addr[..]) };
    let mut name = vec![0; size];
    (name[0], name[1]) = (size as u8, family);
    name[2..4].copy_from_slice(&port.to_be_bytes());
    name[at..at + part.len()].copy_from_slice(part);
    name.into()
}

/// Returns the end that a `sockaddr` names. EINVAL if it has the wrong length.
pub(super) fn decode(family: u8, name: &[u8]) -> Result<End, Errno> {
    let port = |name: &[u8]| u16::from_be_bytes([name[2], name[3]]);
    match (family, name.len()) {
        (INET, 16) => Ok((mapped([name[4], name[5], name[6], name[7]]), port(name))),
        (INET6, 28) => {
            let mut addr = any(INET6);
            addr.copy_from_slice(&name[8..24]);
            Ok((addr, port(name)))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Returns `true` if an IPv6 socket in this state takes IPv4 too.
fn is_dual(socket: &Socket, state: &State) -> bool {
    socket.family == INET6 && state.ip_options(ip_options::IPV6_ONLY) == Some(0)
}

/// NetBSD: `in_pcbbind`, `in6_pcbbind`.
pub(super) fn bind(run: &SyscallContext<'_, '_>, socket: &Arc<Socket>, name: &[u8]) -> Result<()> {
    let mut state = lock(&socket.state);
    if socket.is_over(&state) || state.near.is_some() {
        return Err(Errno::EINVAL.into());
    }
    let (addr, port) = decode(socket.family, name)?;
    if socket.family == INET6 && is_mapped(&addr) && !is_dual(socket, &state) {
        return Err(Errno::EINVAL.into());
    }
    if !is_any(&addr) && !is_own(&addr) && !is_multicast(&addr) {
        return Err(Errno::EADDRNOTAVAIL.into());
    }
    if (1..RESERVED).contains(&port) && socket.kind != RAW && run.proc.credentials().euid != 0 {
        return Err(Errno::EACCES.into());
    }
    let port = match socket.kind {
        RAW => port,
        _ => socket.net.ports.take(socket, port, binding(socket, &state, addr))?,
    };
    state.near = Some((addr, port));
    Ok(())
}

/// Returns how a socket in this state is bound to an address.
fn binding(socket: &Socket, state: &State, addr: Address) -> Binding {
    let reuse = state.on(option::REUSEADDR | option::REUSEPORT);
    let multicast = is_multicast(&addr);
    Binding {
        addr,
        dual: is_dual(socket, state),
        wild: !reuse,
        shares: multicast && reuse || state.on(option::REUSEPORT),
        guarded: socket.family == INET && socket.user != 0 && !multicast,
    }
}

/// Gives a socket a port if it has none. Returns its end.
pub(super) fn bind_any(socket: &Arc<Socket>, state: &mut State) -> Result<End, Errno> {
    if let Some(near) = state.near {
        return Ok(near);
    }
    let addr = any(socket.family);
    let port = socket.net.ports.take(socket, 0, binding(socket, state, addr))?;
    state.near = Some((addr, port));
    Ok((addr, port))
}

/// The route of a connection: the own address, and the other end.
pub(super) struct Route {
    pub near: Address,
    pub far: End,
    /// True if the far address is this kernel's; other addresses of the loopback network lead nowhere.
    pub leads: bool,
}

/// Returns the route to a `sockaddr` from a socket in this state. NetBSD: `in_pcbconnect`,
/// `in6_pcbconnect`.
pub(super) fn route(socket: &Socket, state: &State, name: &[u8]) -> Result<Route, Errno> {
    let family = socket.family;
    let mut near = state.near.map_or(any(family), |near| near.0);
    let (mut addr, port) = decode(family, name)?;
    if name[1] != family {
        return Err(Errno::EAFNOSUPPORT);
    }
    let refused = family == INET || !is_mapped(&addr);
    if port == 0 || socket.is_tcp() && is_multicast(&addr) && refused {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if family == INET && is_any(&addr) {
        addr = LOOPBACK_4;
    }
    if is_mapped(&addr) {
        if family == INET6 && !is_dual(socket, state) {
            return Err(Errno::EINVAL);
        }
        if near == any(INET6) {
            near = any(INET);
        }
    }
    if is_mapped(&addr) != is_mapped(&near) {
        return Err(Errno::EINVAL);
    }
    let close = is_own(&addr) || is_mapped(&addr) && addr[12] == 127;
    if !close && !is_mapped(&addr) {
        return Err(Errno::EHOSTUNREACH);
    }
    if !close && is_any(&near) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if is_any(&near) {
        near = if is_mapped(&addr) { LOOPBACK_4 } else { LOOPBACK_6 };
    }
    Ok(Route { near, far: (addr, port), leads: is_own(&addr) })
}

/// Connects a stream that the caller has marked as connecting. NetBSD: `tcp_connect`.
pub(super) fn connect_stream(socket: &Arc<Socket>, name: &[u8]) -> Result<Joined> {
    let far = {
        let mut state = lock(&socket.state);
        let near = bind_any(socket, &mut state)?;
        let route = route(socket, &state, name)?;
        let joined = (route.near, near.1);
        socket.net.ports.check_listeners(route.far)?;
        // The socket may have been connected before: a connection that ended, or one that led nowhere.
        socket.net.ports.connect(socket, Some((near, state.far)), joined, route.far)?;
        state.near = Some(joined);
        state.far = Some(route.far);
        if !route.leads {
            return Err(Errno::EHOSTUNREACH.into());
        }
        if route.far == joined {
            // The socket connects to itself: both ends open at once, as TCP allows.
            state.peer = Arc::downgrade(socket);
            state.flags = state.flags & !state::CONNECTING | state::CONNECTED;
        }
        route.far
    };
    if lock(&socket.state).has(state::CONNECTED) {
        socket.wake();
        return Ok(Joined::Connected);
    }
    match socket.net.ports.listener(far) {
        Some(listener) if !Arc::ptr_eq(&listener, socket) => {
            accept::join(socket, &listener, Caller::NOBODY)
        }
        _ => Ok(Joined::Refused(Errno::ECONNREFUSED)),
    }
}

/// Connects a datagram socket. NetBSD: `udp_connect`.
pub(super) fn connect_datagram(socket: &Arc<Socket>, name: &[u8]) -> Result<()> {
    {
        let mut state = lock(&socket.state);
        let route = route(socket, &state, name)?;
        let near = bind_any(socket, &mut state)?;
        let joined = (route.near, near.1);
        socket.net.ports.connect(socket, Some((near, None)), joined, route.far)?;
        state.near = Some(joined);
        state.far = Some(route.far);
        state.flags |= state::CONNECTED;
    }
    socket.wake();
    Ok(())
}

/// NetBSD: `udp_disconnect`.
pub(super) fn part_datagram(socket: &Arc<Socket>) {
    let mut state = lock(&socket.state);
    state.flags &= !state::CONNECTED;
    if let (Some(near), Some(far)) = (state.near, state.far.take()) {
        let addr = any(socket.family);
        socket.net.ports.disconnect(socket, near, far, addr);
        state.near = Some((addr, near.1));
    }
}
