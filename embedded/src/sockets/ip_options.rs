//! Options of sockets below `SOL_SOCKET`: those of TCP, IP and IPv6. Most are only kept; some have an
//! effect on connections and datagrams.
//!
//! Sources: NetBSD `sys/netinet/{tcp_usrreq,ip_output,in_pcb,portalgo,udp_usrreq}.c`,
//! `sys/netinet6/{ip6_output,udp6_usrreq}.c`; tcp(4), ip(4), ip6(4).

use super::{DATAGRAM, INET, INET6, RAW, STREAM, Socket, State};
use crate::abi::i32_at;
use crate::interfaces;
use kernel::Errno;

/// Levels (`in.h`).
const IP: i32 = 0;
const TCP: i32 = 6;
const UDP: i32 = 17;
const IPV6: i32 = 41;

/// The level and name of an option.
pub(super) type Which = (i32, i32);

/// TCP_KEEPINIT: the most time connecting may take, in slow ticks of TCP.
pub(super) const KEEP_INIT: Which = (TCP, 7);
pub(super) const KEEP_INIT_DEFAULT: i32 = 150;
/// IPV6_V6ONLY
pub(super) const IPV6_ONLY: Which = (IPV6, 27);
/// The hop limits and traffic classes of packets, by family: IP_TTL and IP_TOS, IPV6_UNICAST_HOPS and
/// IPV6_TCLASS.
pub(super) const TTL: Which = (IP, 4);
pub(super) const HOPS: Which = (IPV6, 4);
pub(super) const TCLASS: Which = (IPV6, 61);
pub(super) const TTL_DEFAULT: i32 = 64;
/// Options that ask for control messages with each datagram: IP_RECVDSTADDR, IP_RECVIF, IP_RECVTTL,
/// IP_PKTINFO, IP_RECVPKTINFO; IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS.
pub(super) const RECEIVE_TO: Which = (IP, 7);
pub(super) const RECEIVE_INTERFACE: Which = (IP, 20);
pub(super) const RECEIVE_TTL: Which = (IP, 23);
pub(super) const PACKET_TO: Which = (IP, 25);
pub(super) const PACKET_FROM: Which = (IP, 26);
pub(super) const RECEIVE_PACKET_6: Which = (IPV6, 36);
pub(super) const RECEIVE_HOPS_6: Which = (IPV6, 37);
pub(super) const RECEIVE_TCLASS_6: Which = (IPV6, 57);
/// The control messages whose number differs from their option's: IPV6_PKTINFO, IPV6_HOPLIMIT.
pub(super) const PACKET_6: Which = (IPV6, 46);
pub(super) const HOPS_6: Which = (IPV6, 47);

/// The values an option takes.
enum Rule {
    /// On or off.
    Switch,
    /// On or off; getsockopt returns this value for on.
    Bit(i32),
    /// A number of which only the low byte counts.
    Byte,
    /// A number from the first to the second.
    Within(i32, i32),
    /// A number from the first to the second; -1 stands for the third.
    Default(i32, i32, i32),
    /// Any number but 0, which getsockopt never returns.
    Hidden,
    /// A number not larger than the present one.
    Shrinks,
    /// 0, or 1 for the "high" ports, which has no further effect.
    Ports,
    /// A number up to this one, as with `Within`, but a client may also set and get a single byte.
    Small(i32),
    /// An IPv4 address of this kernel, or none.
    Address,
    /// The number of the only interface, or none.
    Interface,
    /// A number that has no effect on TCP sockets.
    Datagrams,
    /// A value that can only be asked for.
    Told,
    /// An empty value; only that can be set, or nothing at all if false.
    Empty(bool),
    /// Multicast groups: other addresses are refused, and there is nothing to ask for.
    Group,
}

/// An option: family (0: both), socket type (0: any), level, name, initial value, rule.
type Lower = (u8, i32, i32, i32, i32, Rule);

/// The comments before the entries name the options in order.
#[rustfmt::skip]
const LOWER: &[Lower] = &[
    // getsockopt returns TCP_NODELAY as the flag of the connection (TF_NODELAY); TCP_MAXSEG
    (0, STREAM, TCP, 1, 0, Rule::Bit(4)),
    (0, STREAM, TCP, 2, 536, Rule::Shrinks),
    // TCP_KEEPIDLE, KEEPINTVL, KEEPCNT, KEEPINIT
    (0, STREAM, TCP, 3, 14_400, Rule::Hidden),
    (0, STREAM, TCP, 5, 150, Rule::Hidden),
    (0, STREAM, TCP, 6, 8, Rule::Hidden),
    (0, STREAM, TCP, 7, KEEP_INIT_DEFAULT, Rule::Hidden),
    // IP_OPTIONS, HDRINCL, TOS, TTL
    (INET, 0, IP, 1, 0, Rule::Empty(true)),
    (INET, RAW, IP, 2, 0, Rule::Bit(8)),
    (INET, 0, IP, 3, 0, Rule::Byte),
    (INET, RAW, IP, 4, 0, Rule::Byte),
    (INET, 0, IP, 4, TTL_DEFAULT, Rule::Byte),
    // IP_RECVOPTS, RECVRETOPTS, RECVDSTADDR, RETOPTS
    (INET, 0, IP, 5, 0, Rule::Switch),
    (INET, 0, IP, 6, 0, Rule::Switch),
    (INET, 0, IP, 7, 0, Rule::Switch),
    (INET, 0, IP, 8, 0, Rule::Empty(false)),
    // IP_MULTICAST_IF, MULTICAST_TTL, MULTICAST_LOOP, ADD_MEMBERSHIP, DROP_MEMBERSHIP: of IPv6 sockets, too
    (0, 0, IP, 9, 0, Rule::Address),
    (0, 0, IP, 10, 1, Rule::Small(255)),
    (0, 0, IP, 11, 1, Rule::Small(1)),
    (0, 0, IP, 12, 0, Rule::Group),
    (0, 0, IP, 13, 0, Rule::Group),
    // IP_PORTALGO, PORTRANGE, RECVIF, ERRORMTU, RECVTTL, MINTTL, PKTINFO, RECVPKTINFO
    (INET, 0, IP, 18, 0xffff, Rule::Within(0, 5)),
    (INET, 0, IP, 19, 0, Rule::Ports),
    (INET, 0, IP, 20, 0, Rule::Switch),
    (INET, 0, IP, 21, -1, Rule::Told),
    (INET, 0, IP, 23, 0, Rule::Switch),
    (INET, 0, IP, 24, 0, Rule::Within(1, 255)),
    (INET, 0, IP, 25, 0, Rule::Switch),
    (INET, 0, IP, 26, 0, Rule::Switch),
    // IPV6_UNICAST_HOPS, MULTICAST_IF, MULTICAST_HOPS, MULTICAST_LOOP, JOIN_GROUP, LEAVE_GROUP
    (INET6, 0, IPV6, 4, -1, Rule::Within(-1, 255)),
    (INET6, 0, IPV6, 9, 0, Rule::Interface),
    (INET6, 0, IPV6, 10, 1, Rule::Default(0, 255, 1)),
    (INET6, 0, IPV6, 11, 1, Rule::Within(0, 1)),
    (INET6, 0, IPV6, 12, 0, Rule::Group),
    (INET6, 0, IPV6, 13, 0, Rule::Group),
    // IPV6_PORTRANGE, PORTALGO, V6ONLY, FAITH
    (INET6, 0, IPV6, 14, 0, Rule::Within(0, 2)),
    (INET6, 0, IPV6, 17, 0xffff, Rule::Within(0, 5)),
    (INET6, 0, IPV6, 27, 1, Rule::Switch),
    (INET6, 0, IPV6, 29, 0, Rule::Switch),
    // IPV6_RECVPKTINFO, RECVHOPLIMIT, RECVRTHDR, RECVHOPOPTS, RECVDSTOPTS, RECVRTHDRDSTOPTS
    (INET6, 0, IPV6, 36, 0, Rule::Switch),
    (INET6, 0, IPV6, 37, 0, Rule::Switch),
    (INET6, 0, IPV6, 38, 0, Rule::Switch),
    (INET6, 0, IPV6, 39, 0, Rule::Switch),
    (INET6, 0, IPV6, 40, 0, Rule::Switch),
    (INET6, 0, IPV6, 41, 0, Rule::Switch),
    // IPV6_USE_MIN_MTU, RECVPATHMTU, RECVTCLASS, TCLASS, DONTFRAG, PREFER_TEMPADDR
    (INET6, 0, IPV6, 42, -1, Rule::Within(-1, 1)),
    (INET6, 0, IPV6, 43, 0, Rule::Datagrams),
    (INET6, 0, IPV6, 57, 0, Rule::Switch),
    (INET6, 0, IPV6, 61, 0, Rule::Default(0, 255, 0)),
    (INET6, 0, IPV6, 62, 0, Rule::Datagrams),
    (INET6, 0, IPV6, 63, -1, Rule::Within(-1, 1)),
];

/// Returns the option `which` of `socket`, if it has it.
fn find(socket: &Socket, which: Which) -> Option<&'static Lower> {
    LOWER.iter().find(|&&(family, kind, level, name, ..)| {
        (family == socket.family || family == 0)
            && (kind == socket.kind || kind == 0)
            && (level, name) == which
    })
}

/// Sets an option of a socket in this state.
pub(super) fn set(
    socket: &Socket,
    state: &mut State,
    which: Which,
    value: &[u8],
) -> Result<(), Errno> {
    if which.0 == UDP && (socket.family, socket.kind) == (INET6, DATAGRAM) {
        return Err(Errno::EINVAL);
    }
    let (.., initial, rule) = find(socket, which).ok_or(Errno::ENOPROTOOPT)?;
    let now = state.ip_options(which).unwrap_or(*initial);
    let Some(value) = rule.value(value, now)? else { return Ok(()) };
    if which == IPV6_ONLY && state.near.is_some() {
        return Err(Errno::EINVAL);
    }
    let takes = !matches!(rule, Rule::Datagrams) || !socket.is_tcp();
    state.ip_options.retain(|&(level, name, _)| (level, name) != which);
    state.ip_options.push((which.0, which.1, if takes { value } else { *initial }));
    Ok(())
}

/// Returns the value of an option of a socket in this state.
pub(super) fn get(socket: &Socket, state: &State, which: Which) -> Result<Vec<u8>, Errno> {
    if which.0 == UDP && socket.kind == DATAGRAM {
        return Err(Errno::EINVAL);
    }
    let (.., initial, rule) = find(socket, which).ok_or(Errno::ENOPROTOOPT)?;
    let value = state.ip_options(which).unwrap_or(*initial);
    match rule {
        Rule::Hidden => Err(Errno::ENOPROTOOPT),
        Rule::Group => Err(Errno::EOPNOTSUPP),
        Rule::Empty(_) => Ok(Vec::new()),
        Rule::Small(_) => Ok(vec![value as u8]),
        _ => Ok(value.to_le_bytes().to_vec()),
    }
}

impl Rule {
    /// Returns the value to keep when a client sets `bytes` and `now` was kept before; `None` to keep
    /// nothing.
    fn value(&self, bytes: &[u8], now: i32) -> Result<Option<i32>, Errno> {
        let single = matches!(self, Rule::Small(_)) && bytes.len() == 1;
        let value = match self {
            Rule::Told | Rule::Empty(false) => return Err(Errno::ENOPROTOOPT),
            Rule::Empty(true) if bytes.is_empty() => return Ok(None),
            Rule::Empty(true) => return Err(Errno::ENOPROTOOPT),
            Rule::Group => return Err(Errno::EINVAL),
            _ if single => bytes[0].into(),
            _ => integer(bytes)?,
        };
        let within = |low: i32, high: i32| {
            if (low..=high).contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
        };
        let kept = match *self {
            Rule::Switch | Rule::Datagrams => (value != 0).into(),
            Rule::Bit(bit) => i32::from(value != 0) * bit,
            Rule::Byte => value & 0xff,
            Rule::Within(low, high) => within(low, high)?,
            Rule::Default(_, _, default) if value == -1 => default,
            Rule::Default(low, high, _) => within(low, high)?,
            Rule::Hidden if value == 0 => return Err(Errno::EINVAL),
            Rule::Shrinks => within(1, now)?,
            Rule::Ports => within(0, 2)? & 2,
            Rule::Small(high) => within(0, high)?,
            Rule::Address if ![0, LOOPBACK].contains(&value) => return Err(Errno::EADDRNOTAVAIL),
            Rule::Interface if !(0..=interfaces::INDEX.into()).contains(&value) => {
                return Err(Errno::ENXIO);
            }
            _ => value,
        };
        Ok(Some(kept))
    }
}

/// 127.0.0.1, as clients encode it.
const LOOPBACK: i32 = i32::from_le_bytes([127, 0, 0, 1]);

/// Decodes a value that is an `int`.
pub(super) fn integer(value: &[u8]) -> Result<i32, Errno> {
    if value.len() == 4 { Ok(i32_at(value, 0)) } else { Err(Errno::EINVAL) }
}

impl State {
    /// Returns the value an option was set to, if it was set.
    pub(super) fn ip_options(&self, which: Which) -> Option<i32> {
        let mut kept = self.ip_options.iter();
        kept.find(|&&(level, name, _)| (level, name) == which).map(|kept| kept.2)
    }

    /// Returns `true` if an option is on that is off by default.
    pub(super) fn lower_is_on(&self, which: Which) -> bool {
        self.ip_options(which).is_some_and(|value| value != 0)
    }
}
