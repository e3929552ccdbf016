//! Options of sockets.
//!
//! Sources: NetBSD `sys/kern/uipc_socket.c` (`sosetopt1`, `sogetopt1`), `sys/kern/uipc_usrreq.c`
//! (`uipc_ctloutput`); getsockopt(2), unix(4), tcp(4), ip(4), ip6(4).

use super::{INET, INET6, LOCAL, STREAM, Socket, State, get, state};
use crate::kernel::Errno;
use crate::kernel::embedded::abi::{i32_at, open, pair, timeval_at};
use crate::kernel::embedded::call::{Answer, Run};
use crate::kernel::embedded::sync::lock;

/// `socket.h`: the options of `SOL_SOCKET`.
pub(super) mod option {
    pub const SOCKET: i32 = 0xffff;
    pub const ACCEPTCONN: i32 = 0x2;
    pub const REUSEADDR: i32 = 0x4;
    pub const REUSEPORT: i32 = 0x200;
    pub const LINGER: i32 = 0x80;
    pub const NOSIGPIPE: i32 = 0x800;
    pub const TIMESTAMP: i32 = 0x2000;
    /// Those that are on or off: DEBUG, REUSEADDR, KEEPALIVE, DONTROUTE, BROADCAST, USELOOPBACK,
    /// OOBINLINE, REUSEPORT, NOSIGPIPE, TIMESTAMP.
    pub const SWITCHES: [i32; 10] = [0x1, 0x4, 0x8, 0x10, 0x20, 0x40, 0x100, 0x200, 0x800, 0x2000];
    pub const SNDBUF: i32 = 0x1001;
    pub const RCVBUF: i32 = 0x1002;
    pub const SNDLOWAT: i32 = 0x1003;
    pub const RCVLOWAT: i32 = 0x1004;
    pub const ERROR: i32 = 0x1007;
    pub const TYPE: i32 = 0x1008;
    pub const OVERFLOWED: i32 = 0x1009;
    pub const SNDTIMEO: i32 = 0x100b;
    pub const RCVTIMEO: i32 = 0x100c;
}

/// Options below `SOL_SOCKET` that are kept: family (0: both internet families), socket type (0:
/// any), level, name and initial value. TCP_NODELAY, MAXSEG, KEEPIDLE, KEEPINTVL, KEEPCNT, KEEPINIT;
/// IP_TOS, IP_TTL, IP_RECVOPTS, IP_RECVRETOPTS, IP_RECVDSTADDR, IP_PORTRANGE, IP_RECVIF, IP_RECVTTL,
/// IP_MINTTL; IPV6_UNICAST_HOPS, IPV6_V6ONLY.
const LOWER: [(u8, i32, i32, i32, i32); 17] = [
    (0, STREAM, TCP, 1, 0),
    (0, STREAM, TCP, 2, 536),
    (0, STREAM, TCP, 3, 14400),
    (0, STREAM, TCP, 5, 150),
    (0, STREAM, TCP, 6, 8),
    (0, STREAM, TCP, 7, KEEP_INIT_DEFAULT),
    (INET, 0, 0, 3, 0),
    (INET, 0, 0, 4, 64),
    (INET, 0, 0, 5, 0),
    (INET, 0, 0, 6, 0),
    (INET, 0, 0, 7, 0),
    (INET, 0, 0, 19, 0),
    (INET, 0, 0, 20, 0),
    (INET, 0, 0, 23, 0),
    (INET, 0, 0, 24, 0),
    (INET6, 0, 41, 4, -1),
    (INET6, 0, 41, 27, 1),
];

/// IPV6_V6ONLY: level and name.
pub(super) const IPV6_ONLY: (i32, i32) = (41, 27);
/// TCP_KEEPINIT: how long connecting may take, in slow ticks of TCP.
pub(super) const KEEP_INIT: (i32, i32) = (TCP, 7);
pub(super) const KEEP_INIT_DEFAULT: i32 = 150;

/// The level of TCP's options, and those of them that can be set and not be asked for.
const TCP: i32 = 6;
const UNTOLD: [i32; 4] = [3, 5, 6, 7];

/// Clock ticks a second, in which socket timeouts are counted (`hz`).
pub(super) const TICKS: i64 = 100;
/// The largest buffer that may be asked for (`sb_max_adj`).
const BUFFER_MAX: i32 = 209_715;
/// The longest option value (`MCLBYTES`).
const OPTION_MAX: u32 = 2048;

/// `int setsockopt(int s, int level, int name, const void *val, socklen_t valsize)`
pub(super) fn setsockopt(run: &mut Run<'_, '_>) -> Answer {
    let (level, name, addr, size) = (run.int(1), run.int(2), run.word(3), run.uint(4));
    if size > 0 && addr == 0 || size > OPTION_MAX {
        return Err(Errno::EINVAL.into());
    }
    let (file, socket) = get(run, run.int(0))?;
    let mut value = vec![0; size as usize];
    if size > 0 {
        run.memory().copyin(addr, &mut value)?;
    }
    if level == option::SOCKET {
        let under_way = under_way(&socket);
        let mut state = lock(&socket.state);
        let most = run.task.rlimits().socket_bytes();
        let done = set(&socket, &mut state, name, &value, under_way, most);
        file.set(open::NOSIGPIPE, state.options & option::NOSIGPIPE != 0);
        if matches!(done, Ok(()) | Err(Errno::ENOPROTOOPT)) {
            // What is set is, but the protocol is told of it, too. NetBSD: `sosetopt`.
            check_alive(&socket, &state)?;
        }
        done?;
        return Ok([0, 0]);
    }
    if socket.family == LOCAL {
        set_local(&socket, level, name, &value)?;
        return Ok([0, 0]);
    }
    let mut state = lock(&socket.state);
    check_alive(&socket, &state)?;
    lower(&socket, level, name).ok_or(Errno::ENOPROTOOPT)?;
    let value = integer(&value)?;
    if (level, name) == IPV6_ONLY && state.near.is_some() {
        return Err(Errno::EINVAL.into());
    }
    state.lower.retain(|&(at, which, _)| (at, which) != (level, name));
    state.lower.push((level, name, value));
    if (level, name) == KEEP_INIT && state.alarm.is_some() {
        socket.arm(&mut state);
    }
    Ok([0, 0])
}

impl State {
    /// What an option below `SOL_SOCKET` was set to, if it was.
    pub(super) fn lower(&self, option: (i32, i32)) -> Option<i32> {
        let mut kept = self.lower.iter();
        kept.find(|&&(level, name, _)| (level, name) == option).map(|kept| kept.2)
    }
}

/// What makes the send buffer of a local socket smaller: bytes its peer has not taken.
fn under_way(socket: &Socket) -> i64 {
    if socket.family != LOCAL {
        return 0;
    }
    let peer = lock(&socket.state).peer.clone();
    socket.under_way(&peer)
}

/// `un.h`: options of local sockets.
const LOCAL_CONNWAIT: i32 = 2;
const LOCAL_PEEREID: i32 = 3;
const LOCAL_CREDS: i32 = 4;

/// NetBSD: `uipc_ctloutput`.
fn set_local(socket: &Socket, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    if level != 0 || !matches!(name, LOCAL_CREDS | LOCAL_CONNWAIT) {
        return Err(Errno::ENOPROTOOPT);
    }
    let on = integer(value)? != 0;
    let mut state = lock(&socket.state);
    let local = state.local();
    if name == LOCAL_CREDS {
        local.wants_credentials = on;
    } else {
        local.waits = on;
    }
    Ok(())
}

/// NetBSD: `uipc_ctloutput`.
fn ask_local(state: &State, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    let local = state.local.as_ref();
    match (level, name) {
        (0, LOCAL_PEEREID) => {
            let peer = local.and_then(|local| local.peer).ok_or(Errno::EINVAL)?;
            Ok(peer.iter().flat_map(|word| word.to_le_bytes()).collect())
        }
        (0, LOCAL_CREDS) => {
            let on = local.is_some_and(|local| local.wants_credentials);
            Ok(i32::from(on).to_le_bytes().to_vec())
        }
        _ => Err(Errno::ENOPROTOOPT),
    }
}

/// ECONNRESET if this was a TCP connection. NetBSD: `tcp_ctloutput`.
fn check_alive(socket: &Socket, state: &State) -> Result<(), Errno> {
    if socket.is_tcp() && socket.is_over(state) { Err(Errno::ECONNRESET) } else { Ok(()) }
}

/// The initial value of an internet socket's option below `SOL_SOCKET`, if there is one like this.
fn lower(socket: &Socket, level: i32, name: i32) -> Option<i32> {
    let fits = |&&(family, kind, at, which, _): &&(u8, i32, i32, i32, i32)| {
        (family == socket.family || family == 0)
            && (kind == socket.kind || kind == 0)
            && (at, which) == (level, name)
    };
    LOWER.iter().find(fits).map(|lower| lower.4)
}

fn integer(value: &[u8]) -> Result<i32, Errno> {
    if value.len() == 4 { Ok(i32_at(value, 0)) } else { Err(Errno::EINVAL) }
}

/// NetBSD: `sosetopt1`.
fn set(
    socket: &Socket,
    state: &mut State,
    name: i32,
    value: &[u8],
    under_way: i64,
    most: u64,
) -> Result<(), Errno> {
    match name {
        option::LINGER => {
            if value.len() != 8 {
                return Err(Errno::EINVAL);
            }
            let (on, seconds) = (i32_at(value, 0), i32_at(value, 4));
            if !(0..=65535).contains(&seconds) {
                return Err(Errno::EDOM);
            }
            state.linger = seconds;
            switch(state, name, on != 0);
        }
        name if option::SWITCHES.contains(&name) => {
            let on = integer(value)? != 0;
            switch(state, name, on);
        }
        option::SNDBUF | option::RCVBUF => {
            let size = at_least_one(value)?;
            let (limit, size_then) = match name {
                option::SNDBUF => (&mut state.send_limit, i64::from(size) + under_way),
                _ => (&mut state.receive_limit, i64::from(size)),
            };
            if size > BUFFER_MAX || !socket.resize(*limit, size_then, most) {
                return Err(Errno::ENOBUFS);
            }
            *limit = size_then;
            let side = (name - option::SNDBUF) as usize;
            state.low_water[side] = state.low_water[side].min(size);
        }
        option::SNDLOWAT | option::RCVLOWAT => {
            let side = (name - option::SNDLOWAT) as usize;
            let size = [state.send_limit - under_way, state.receive_limit][side];
            state.low_water[side] = at_least_one(value)?.min(size as i32);
        }
        option::SNDTIMEO | option::RCVTIMEO => {
            if value.len() != 16 {
                return Err(Errno::EINVAL);
            }
            let (seconds, micros) = timeval_at(value, 0);
            let part = micros / (1_000_000 / TICKS);
            if seconds > (i64::from(i32::MAX) - part) / TICKS {
                return Err(Errno::EDOM);
            }
            let ticks = seconds.saturating_mul(TICKS).saturating_add(part);
            let ticks = if ticks == 0 && micros != 0 { 1 } else { ticks };
            state.timeouts[(name - option::SNDTIMEO) as usize] = ticks;
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

fn switch(state: &mut State, name: i32, on: bool) {
    state.options = if on { state.options | name } else { state.options & !name };
}

fn at_least_one(value: &[u8]) -> Result<i32, Errno> {
    let value = integer(value)?;
    if value < 1 { Err(Errno::EINVAL) } else { Ok(value) }
}

/// `int getsockopt(int s, int level, int name, void *val, socklen_t *avalsize)`
pub(super) fn getsockopt(run: &mut Run<'_, '_>) -> Answer {
    let (level, name, addr, size_addr) = (run.int(1), run.int(2), run.word(3), run.word(4));
    let size = match addr {
        0 => 0,
        _ => u32::from_le_bytes(run.copyin(size_addr)?),
    };
    let (file, socket) = get(run, run.int(0))?;
    let under_way = under_way(&socket);
    let value = {
        let mut state = lock(&socket.state);
        switch(&mut state, option::NOSIGPIPE, file.has(open::NOSIGPIPE));
        if level == option::SOCKET {
            ask(&socket, &mut state, name, under_way)?
        } else if socket.family == LOCAL {
            ask_local(&state, level, name)?
        } else {
            check_alive(&socket, &state)?;
            let told = level != TCP || !UNTOLD.contains(&name);
            let initial = lower(&socket, level, name).filter(|_| told);
            let initial = initial.ok_or(Errno::ENOPROTOOPT)?;
            state.lower((level, name)).unwrap_or(initial).to_le_bytes().to_vec()
        }
    };
    if size > 0 {
        let part = &value[..value.len().min(size as usize)];
        run.copyout(part, addr)?;
        run.copyout(&(part.len() as u32).to_le_bytes(), size_addr)?;
    }
    Ok([0, 0])
}

/// NetBSD: `sogetopt1`.
fn ask(socket: &Socket, state: &mut State, name: i32, under_way: i64) -> Result<Vec<u8>, Errno> {
    let value = match name {
        option::LINGER => {
            let on = i32::from(state.options & name != 0);
            return Ok([on.to_le_bytes(), state.linger.to_le_bytes()].concat());
        }
        option::SNDTIMEO | option::RCVTIMEO => {
            let ticks = state.timeouts[(name - option::SNDTIMEO) as usize];
            let micros = ticks % TICKS * (1_000_000 / TICKS);
            return Ok(pair(ticks / TICKS, micros).to_vec());
        }
        name if option::SWITCHES.contains(&name) => (state.options & name != 0).into(),
        option::TYPE => socket.kind,
        option::ACCEPTCONN => state.has(state::LISTENING).into(),
        option::ERROR => state.error.take().map_or(0, |errno| errno.0),
        option::OVERFLOWED => state.buffer.overflowed,
        option::SNDBUF => (state.send_limit - under_way) as i32,
        option::RCVBUF => state.receive_limit as i32,
        option::SNDLOWAT | option::RCVLOWAT => state.low_water[(name - option::SNDLOWAT) as usize],
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(value.to_le_bytes().to_vec())
}
