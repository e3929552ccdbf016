//! UDP: datagrams, and the control messages for sending and receiving them.
//!
//! Sources: NetBSD `sys/netinet/{udp_usrreq,ip_input}.c`, `sys/netinet6/{udp6_output,udp6_usrreq,ip6_input,
//! ip6_output}.c`; udp(4), ip(4), ip6(4).

use std::sync::Arc;

use super::buffer::{Control, Record};
use super::inet::{bind_any, decode, encode, is_own, route};
use super::ip_options::{self, Which};
use super::options::option;
use super::ports::{Address, End, is_any, is_mapped};
use super::{INET, INET6, Socket, State, state};
use crate::abi::{i32_at, pair};
use crate::call::Result;
use crate::interfaces;
use crate::sync::lock;
use crate::time;
use kernel::Errno;

/// The longest packet (`IP_MAXPACKET`), and the headers of a datagram, which count as part of it.
const PACKET_MAX: usize = 65_535;
const HEADERS: usize = 28;
const HEADERS_6: usize = 8;

/// The options in the control messages of an IPv6 datagram (`struct ip6_pktopts`).
#[derive(Clone, Copy, Default)]
struct Asked {
    from: Option<Address>,
    hops: Option<i32>,
    class: Option<i32>,
}

/// Reads the control messages of an IPv6 datagram; those of other levels are ignored. NetBSD:
/// `ip6_setpktopts`.
fn asked(mut control: &[u8]) -> Result<Asked, Errno> {
    let mut asked = Asked::default();
    while !control.is_empty() {
        if control.len() < 16 {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(i32_at(control, 0)).unwrap_or(0);
        if len == 0 || len > control.len() {
            return Err(Errno::EINVAL);
        }
        let which = (i32_at(control, 4), i32_at(control, 8));
        if which.0 == ip_options::HOPS.0 {
            let data = control.get(16..len).unwrap_or_default();
            match which {
                ip_options::PACKET_6 => asked.from = Some(source(data)?),
                ip_options::HOPS_6 => asked.hops = within_a_byte(data)?,
                ip_options::TCLASS => asked.class = within_a_byte(data)?,
                _ => return Err(Errno::ENOPROTOOPT),
            }
        }
        control = &control[len.next_multiple_of(8).min(control.len())..];
    }
    Ok(asked)
}

/// Returns the address in a `struct in6_pktinfo`. The interface, if it names one, must exist.
fn source(data: &[u8]) -> Result<Address, Errno> {
    let (addr, interface) = data.split_first_chunk().ok_or(Errno::EINVAL)?;
    if interface.len() != 4 {
        return Err(Errno::EINVAL);
    }
    match i32_at(interface, 0) {
        0 => Ok(*addr),
        number if number == interfaces::INDEX.into() => Ok(*addr),
        _ => Err(Errno::ENXIO),
    }
}

/// Decodes a number that fits into a byte, or -1 for the default.
fn within_a_byte(data: &[u8]) -> Result<Option<i32>, Errno> {
    match ip_options::integer(data)? {
        -1 => Ok(None),
        value @ 0..=255 => Ok(Some(value)),
        _ => Err(Errno::EINVAL),
    }
}

/// Sends a datagram, to an address or the peer. A missing receiver is no error of this call; a connected
/// socket gets ECONNREFUSED as its pending error. NetBSD: `udp_send`.
pub(super) fn send(
    socket: &Arc<Socket>,
    to: Option<&[u8]>,
    control: Option<&[u8]>,
    data: Vec<u8>,
) -> Result<()> {
    let (from, far, leads, manner) = {
        let mut state = lock(&socket.state);
        let connected = state.has(state::CONNECTED);
        if to.is_some_and(|to| socket.family != INET && to[1] != socket.family) {
            return Err(Errno::EAFNOSUPPORT.into());
        }
        let asked = control.map_or(Ok(Asked::default()), asked)?;
        let (from, far, leads) = match to {
            // NetBSD: `udp6_output`.
            Some(to) if socket.family != INET && decode(INET6, to)?.1 == 0 => {
                return Err(Errno::EADDRNOTAVAIL.into());
            }
            Some(_) if connected => return Err(Errno::EISCONN.into()),
            Some(to) => {
                let route = route(socket, &state, to)?;
                let near = bind_any(socket, &mut state)?;
                ((route.near, near.1), route.far, route.leads)
            }
            None => match (state.near, state.far) {
                (Some(near), Some(far)) if connected => (near, far, is_own(&far.0)),
                _ => return Err(Errno::ENOTCONN.into()),
            },
        };
        if !is_mapped(&far.0) && asked.from.is_some_and(|from| !is_any(&from) && !is_own(&from)) {
            return Err(Errno::EADDRNOTAVAIL.into());
        }
        (from, far, leads, Manner::of(socket, &state, &far.0, asked))
    };
    let headers = if is_mapped(&far.0) { HEADERS } else { HEADERS_6 };
    if data.len() > PACKET_MAX - headers {
        return Err(Errno::EMSGSIZE.into());
    }
    if !leads {
        return Err(Errno::EHOSTUNREACH.into());
    }
    match socket.net.ports.receiver(from, far)? {
        Some(receiver) => arrive(&receiver, from, far, manner, data),
        None if to.is_none() => {
            lock(&socket.state).error = Some(Errno::ECONNREFUSED);
            socket.wake();
        }
        None => {}
    }
    Ok(())
}

/// The hop limit and traffic class of a datagram (`IP_TTL`, `IPV6_TCLASS`).
#[derive(Clone, Copy)]
struct Manner {
    hops: i32,
    class: i32,
}

impl Manner {
    /// Returns the values for what a socket in this state sends to `to`, unless `asked` has others.
    fn of(socket: &Socket, state: &State, to: &Address, asked: Asked) -> Manner {
        let hops = match (socket.family, is_mapped(to)) {
            (INET, _) => state.ip_options(ip_options::TTL),
            (_, true) => None,
            (_, false) => {
                asked.hops.or(state.ip_options(ip_options::HOPS).filter(|&hops| hops >= 0))
            }
        };
        let class = asked.class.or(state.ip_options(ip_options::TCLASS));
        Manner { hops: hops.unwrap_or(ip_options::TTL_DEFAULT), class: class.unwrap_or(0) }
    }
}

/// Puts a datagram into the receiver's buffer; it is dropped if there is no room. NetBSD: `udp4_sendup`,
/// `udp6_sendup`.
fn arrive(receiver: &Arc<Socket>, from: End, to: End, manner: Manner, data: Vec<u8>) {
    {
        let mut state = lock(&receiver.state);
        let control = told(receiver, &state, from, to, manner);
        let record = Record::message(Some(encode(receiver.family, Some(from))), control, data);
        let fits = record.len() as i64 <= state.space();
        if !fits || state.buffer.push(record, &receiver.resource_group).is_err() {
            state.buffer.overflowed += 1;
            return;
        }
    }
    receiver.readers.wake();
}

/// Returns the control messages for a receiver in this state. NetBSD: `ip_savecontrol`, `ip6_savecontrol`.
fn told(receiver: &Socket, state: &State, from: End, to: End, manner: Manner) -> Vec<Control> {
    let mut control = Vec::new();
    if state.on(option::TIMESTAMP | option::OLD_TIMESTAMP) {
        let micros = time::now() / 1000;
        let now = pair(micros / 1_000_000, micros % 1_000_000);
        // SCM_OTIMESTAMP, SCM_TIMESTAMP
        let kind = if state.on(option::OLD_TIMESTAMP) { 0x2 } else { 0x8 };
        control.push(Control::Data(0xffff, kind, now.into()));
    }
    let mut tell = |asked: Which, (level, kind): Which, data: &[u8]| {
        if state.lower_is_on(asked) {
            control.push(Control::Data(level, kind, data.into()));
        }
    };
    let interface = u32::from(interfaces::INDEX).to_le_bytes();
    if receiver.family == INET {
        let packet = |addr: Address| [&addr[12..], &interface[..]].concat();
        tell(ip_options::RECEIVE_TO, ip_options::RECEIVE_TO, &to.0[12..]);
        tell(ip_options::PACKET_FROM, ip_options::PACKET_FROM, &packet(from.0));
        tell(ip_options::PACKET_TO, ip_options::PACKET_TO, &packet(to.0));
        tell(ip_options::RECEIVE_INTERFACE, ip_options::RECEIVE_INTERFACE, &LINK);
        tell(ip_options::RECEIVE_TTL, ip_options::RECEIVE_TTL, &[manner.hops as u8]);
    } else if !is_mapped(&to.0) {
        tell(
            ip_options::RECEIVE_PACKET_6,
            ip_options::PACKET_6,
            &[&to.0[..], &interface[..]].concat(),
        );
        tell(ip_options::RECEIVE_HOPS_6, ip_options::HOPS_6, &manner.hops.to_le_bytes());
        tell(ip_options::RECEIVE_TCLASS_6, ip_options::TCLASS, &manner.class.to_le_bytes());
    }
    control
}

/// The only interface as a `struct sockaddr_dl`: length, AF_LINK, number.
const LINK: [u8; 8] = [8, 18, interfaces::INDEX as u8, 0, 0, 0, 0, 0];
