//! AF_INET and AF_INET6: addresses, binding, connecting over loopback, datagrams.
//!
//! The addresses of this kernel are 127.0.0.1 and ::1, as those of a rump kernel that was given none.
//!
//! Sources: NetBSD `sys/netinet/{in_pcb,tcp_usrreq,udp_usrreq}.c`, `sys/netinet6/{in6_pcb,udp6_usrreq}.c`.

use std::sync::Arc;

use super::accept::{self, Caller, Joined};
use super::buffer::{Control, Record};
use super::options::option;
use super::ports::{ANY, Address, End};
use super::{INET, RAW, Socket, State, state};
use crate::kernel::Errno;
use crate::kernel::embedded::abi::pair;
use crate::kernel::embedded::call::{Result, Run};
use crate::kernel::embedded::sync::lock;
use crate::kernel::embedded::time;

/// The ports only the superuser may bind to (`IPPORT_RESERVED`).
const RESERVED: u16 = 1024;

/// The longest packet (`IP_MAXPACKET`), and the headers of a datagram that count as part of it.
const PACKET_MAX: usize = 65_535;
const HEADERS: usize = 28;
const HEADERS_6: usize = 8;

/// 127.0.0.1 or ::1.
fn loopback(family: u8) -> Address {
    let mut addr = ANY;
    if family == INET {
        addr[..4].copy_from_slice(&[127, 0, 0, 1]);
    } else {
        addr[15] = 1;
    }
    addr
}

fn is_multicast(family: u8, addr: &Address) -> bool {
    if family == INET { addr[0] & 0xf0 == 0xe0 } else { addr[0] == 0xff }
}

fn is_mapped(family: u8, addr: &Address) -> bool {
    family != INET && addr[..10] == [0; 10] && addr[10..12] == [0xff; 2]
}

/// An end as a `sockaddr`; none is the wildcard and port 0.
pub(super) fn encode(family: u8, end: Option<End>) -> Box<[u8]> {
    let (addr, port) = end.unwrap_or((ANY, 0));
    let (size, at, len) = if family == INET { (16, 4, 4) } else { (28, 8, 16) };
    let mut name = vec![0; size];
    (name[0], name[1]) = (size as u8, family);
    name[2..4].copy_from_slice(&port.to_be_bytes());
    name[at..at + len].copy_from_slice(&addr[..len]);
    name.into()
}

/// The end a `sockaddr` names, EINVAL if it is not as long as it must be.
fn decode(family: u8, name: &[u8]) -> Result<End, Errno> {
    let (size, at, len) = if family == INET { (16, 4, 4) } else { (28, 8, 16) };
    if name.len() != size {
        return Err(Errno::EINVAL);
    }
    let mut addr = ANY;
    addr[..len].copy_from_slice(&name[at..at + len]);
    Ok((addr, u16::from_be_bytes([name[2], name[3]])))
}

/// NetBSD: `in_pcbbind`, `in6_pcbbind`.
pub(super) fn bind(run: &Run<'_, '_>, socket: &Arc<Socket>, name: &[u8]) -> Result<()> {
    let mut state = lock(&socket.state);
    if state.has(state::DEAD) || state.near.is_some() {
        return Err(Errno::EINVAL.into());
    }
    let (addr, port) = decode(socket.family, name)?;
    if is_mapped(socket.family, &addr) {
        return Err(Errno::EINVAL.into());
    }
    let multicast = is_multicast(socket.family, &addr);
    if addr != ANY && addr != loopback(socket.family) && !multicast {
        return Err(Errno::EADDRNOTAVAIL.into());
    }
    if (1..RESERVED).contains(&port) && socket.kind != RAW && run.task.credentials().euid != 0 {
        return Err(Errno::EACCES.into());
    }
    let reuse = option::REUSEADDR | option::REUSEPORT;
    let many = multicast && state.on(reuse);
    let shares = many || state.on(option::REUSEPORT);
    let port = match socket.kind {
        RAW => port,
        _ => socket.net.ports.take(socket, addr, port, !state.on(reuse), shares)?,
    };
    state.near = Some((addr, port));
    Ok(())
}

/// Gives a socket a port if it has none.
pub(super) fn bind_any(socket: &Arc<Socket>, state: &mut State) -> Result<End, Errno> {
    if let Some(near) = state.near {
        return Ok(near);
    }
    let port = socket.net.ports.take(socket, ANY, 0, true, state.on(option::REUSEPORT))?;
    state.near = Some((ANY, port));
    Ok((ANY, port))
}

/// Where a connection goes.
struct Route {
    near: Address,
    far: End,
    /// Whether there is anybody: other addresses of the loopback network lead nowhere.
    leads: bool,
}

/// Where a `sockaddr` leads from a socket at `near`. NetBSD: `in_pcbconnect`, `in6_pcbconnect`.
fn route(socket: &Socket, near: Address, name: &[u8]) -> Result<Route, Errno> {
    let family = socket.family;
    let (mut addr, port) = decode(family, name)?;
    if name[1] != family {
        return Err(Errno::EAFNOSUPPORT);
    }
    let multicast = is_multicast(family, &addr) && socket.is_tcp();
    if port == 0 || multicast {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if is_mapped(family, &addr) {
        return Err(Errno::EINVAL);
    }
    let own = loopback(family);
    if family == INET && addr == ANY {
        addr = own;
    }
    let close = addr == own || family == INET && addr[0] == 127;
    if !close && family != INET {
        return Err(Errno::EHOSTUNREACH);
    }
    if !close && near == ANY {
        return Err(Errno::EADDRNOTAVAIL);
    }
    let near = if near == ANY { own } else { near };
    Ok(Route { near, far: (addr, port), leads: addr == own })
}

/// Connects a stream that the caller has marked as connecting. NetBSD: `tcp_connect`.
pub(super) fn connect_stream(socket: &Arc<Socket>, name: &[u8]) -> Result<Joined> {
    let far = {
        let mut state = lock(&socket.state);
        let near = bind_any(socket, &mut state)?;
        let route = route(socket, near.0, name)?;
        let joined = (route.near, near.1);
        socket.net.ports.connect(socket, Some(near), joined, route.far)?;
        state.near = Some(joined);
        state.far = Some(route.far);
        if !route.leads {
            return Err(Errno::EHOSTUNREACH.into());
        }
        if route.far == joined {
            // It meets itself: both ends open at once, as TCP has it.
            state.peer = Arc::downgrade(socket);
            state.flags = state.flags & !state::CONNECTING | state::CONNECTED;
        }
        route.far
    };
    if lock(&socket.state).has(state::CONNECTED) {
        socket.wake();
        return Ok(Joined::Connected);
    }
    match socket.net.ports.listener(socket.family, far) {
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
        let route = route(socket, state.near.map_or(ANY, |near| near.0), name)?;
        let near = bind_any(socket, &mut state)?;
        let joined = (route.near, near.1);
        socket.net.ports.connect(socket, Some(near), joined, route.far)?;
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
        socket.net.ports.disconnect(socket, near, far, ANY);
        state.near = Some((ANY, near.1));
    }
}

/// Sends a datagram, to an address or the peer. Nobody there is no error now, but comes back to who is
/// connected. NetBSD: `udp_send`.
pub(super) fn send_datagram(
    run: &Run<'_, '_>,
    socket: &Arc<Socket>,
    to: Option<&[u8]>,
    data: Vec<u8>,
) -> Result<()> {
    let _ = run;
    let (from, far, leads) = {
        let mut state = lock(&socket.state);
        let connected = state.has(state::CONNECTED);
        match to {
            // NetBSD: `udp6_output`.
            Some(to) if socket.family != INET && to[1] != socket.family => {
                return Err(Errno::EAFNOSUPPORT.into());
            }
            Some(_) if connected => return Err(Errno::EISCONN.into()),
            Some(to) => {
                let route = route(socket, state.near.map_or(ANY, |near| near.0), to)?;
                let near = bind_any(socket, &mut state)?;
                ((route.near, near.1), route.far, route.leads)
            }
            None => match (state.near, state.far) {
                (Some(near), Some(far)) if connected => {
                    (near, far, far.0 == loopback(socket.family))
                }
                _ => return Err(Errno::ENOTCONN.into()),
            },
        }
    };
    let headers = if socket.family == INET { HEADERS } else { HEADERS_6 };
    if data.len() > PACKET_MAX - headers {
        return Err(Errno::EMSGSIZE.into());
    }
    if !leads {
        return Err(Errno::EHOSTUNREACH.into());
    }
    match socket.net.ports.receiver(socket.family, from, far) {
        Some(receiver) => arrive(&receiver, from, far, data),
        None if to.is_none() => {
            lock(&socket.state).error = Some(Errno::ECONNREFUSED);
            socket.wake();
        }
        None => {}
    }
    Ok(())
}

/// A datagram arrives; it is lost if there is no room. NetBSD: `udp4_sendup`.
fn arrive(receiver: &Arc<Socket>, from: End, to: End, data: Vec<u8>) {
    {
        let mut state = lock(&receiver.state);
        let mut control = Vec::new();
        if state.on(option::TIMESTAMP) {
            let micros = time::now() / 1000;
            let now = pair(micros / 1_000_000, micros % 1_000_000);
            control.push(Control::Data(0xffff, 0x8, now.into()));
        }
        if receiver.family == INET && state.lower.iter().any(|set| matches!(set, (0, 7, 1..))) {
            control.push(Control::Data(0, 7, to.0[..4].into()));
        }
        let record = Record::message(Some(encode(receiver.family, Some(from))), control, data);
        let fits = record.len() as i64 <= state.space();
        if !fits || state.buffer.push(record, &receiver.payer).is_err() {
            state.buffer.overflowed += 1;
            return;
        }
    }
    receiver.readers.wake();
}
