//! Options of sockets.
//!
//! Sources: NetBSD `sys/kern/uipc_socket.c` (`sosetopt1`, `sogetopt1`), `sys/kern/uipc_usrreq.c`
//! (`uipc_ctloutput`); getsockopt(2), unix(4), tcp(4), ip(4), ip6(4).

use super::ip_options::{self, integer};
use super::{INET, LOCAL, Socket, State, get, state};
use crate::abi::{i32_at, open, pair, timeval_at};
use crate::call::{Answer, SyscallContext};
use crate::sync::lock;
use kernel::Errno;

/// `socket.h`: the options of `SOL_SOCKET`.
pub(super) mod option {
    pub const SOCKET: i32 = 0xffff;
    pub const ACCEPTCONN: i32 = 0x2;
    pub const REUSEADDR: i32 = 0x4;
    pub const REUSEPORT: i32 = 0x200;
    pub const LINGER: i32 = 0x80;
    pub const OOBINLINE: i32 = 0x100;
    pub const NOSIGPIPE: i32 = 0x800;
    /// SO_TIMESTAMP with the `struct timeval` of earlier releases.
    pub const OLD_TIMESTAMP: i32 = 0x400;
    pub const TIMESTAMP: i32 = 0x2000;
    /// An accept filter; this kernel has none.
    pub const ACCEPTFILTER: i32 = 0x1000;
    /// The options that are on or off: DEBUG, REUSEADDR, KEEPALIVE, DONTROUTE, BROADCAST, USELOOPBACK,
    /// OOBINLINE, REUSEPORT, OTIMESTAMP, NOSIGPIPE, TIMESTAMP.
    pub const SWITCHES: [i32; 11] =
        [0x1, 0x4, 0x8, 0x10, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800, 0x2000];
    pub const SNDBUF: i32 = 0x1001;
    pub const RCVBUF: i32 = 0x1002;
    pub const SNDLOWAT: i32 = 0x1003;
    pub const RCVLOWAT: i32 = 0x1004;
    pub const ERROR: i32 = 0x1007;
    pub const TYPE: i32 = 0x1008;
    pub const OVERFLOWED: i32 = 0x1009;
    pub const NOHEADER: i32 = 0x100a;
    /// The two timeouts by the numbers of earlier releases.
    pub const OLD_SNDTIMEO: i32 = 0x1005;
    pub const OLD_RCVTIMEO: i32 = 0x1006;
    pub const SNDTIMEO: i32 = 0x100b;
    pub const RCVTIMEO: i32 = 0x100c;
}

/// The clock ticks in a second, the unit of socket timeouts (`hz`).
pub(super) const TICKS: i64 = 100;
/// The largest buffer a client may ask for (`sb_max_adj`).
const BUFFER_MAX: i32 = 209_715;
/// The length of a `struct accept_filter_arg`.
const ACCEPT_FILTER: usize = 256;
/// The longest option value (`MCLBYTES`).
const OPTION_MAX: u32 = 2048;

/// `int setsockopt(int s, int level, int name, const void *val, socklen_t valsize)`
pub(super) fn setsockopt(run: &mut SyscallContext<'_, '_>) -> Answer {
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
        let most = run.proc.rlimits().socket_bytes();
        let done = set(&socket, &mut state, name, &value, under_way, most);
        file.set(open::NOSIGPIPE, state.options & option::NOSIGPIPE != 0);
        if matches!(done, Ok(()) | Err(Errno::ENOPROTOOPT)) {
            // The option is set even so, but the protocol is told of it, too. NetBSD: `sosetopt`.
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
    ip_options::set(&socket, &mut state, (level, name), &value)?;
    if (level, name) == ip_options::KEEP_INIT && state.alarm.is_some() {
        socket.arm(&mut state);
    }
    Ok([0, 0])
}

/// Returns the bytes that make the send buffer of a local socket smaller: those its peer has not taken.
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

/// Returns ECONNRESET for a TCP connection that is over. NetBSD: `tcp_ctloutput`.
fn check_alive(socket: &Socket, state: &State) -> Result<(), Errno> {
    if socket.is_tcp() && socket.is_over(state) { Err(Errno::ECONNRESET) } else { Ok(()) }
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
        option::ACCEPTFILTER => return no_filter(state, value).map_or(Ok(()), Err),
        // Raw sockets have the option, and their protocol accepts every value.
        option::NOHEADER if socket.family == INET => {}
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
        option::SNDTIMEO | option::RCVTIMEO | option::OLD_SNDTIMEO | option::OLD_RCVTIMEO => {
            state.timeouts[time_side(name)] = ticks(value)?;
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// Decodes a `struct timeval` into ticks; its microseconds are an `int`.
fn ticks(value: &[u8]) -> Result<i64, Errno> {
    if value.len() != 16 {
        return Err(Errno::EINVAL);
    }
    let (seconds, micros) = timeval_at(value, 0);
    let part = micros / (1_000_000 / TICKS);
    if seconds > (i64::from(i32::MAX) - part) / TICKS {
        return Err(Errno::EDOM);
    }
    let ticks = seconds.saturating_mul(TICKS).saturating_add(part);
    Ok(if ticks == 0 && micros != 0 { 1 } else { ticks })
}

/// Returns the side of a timeout: 0 for sending, 1 for receiving.
fn time_side(name: i32) -> usize {
    usize::from(matches!(name, option::RCVTIMEO | option::OLD_RCVTIMEO))
}

/// Returns the error for setting or removing an accept filter. NetBSD: `accept_filt_setopt`.
fn no_filter(state: &State, value: &[u8]) -> Option<Errno> {
    match value.len() {
        0 if state.has(state::LISTENING) => None,
        ACCEPT_FILTER => Some(Errno::ENOENT),
        _ => Some(Errno::EINVAL),
    }
}

fn switch(state: &mut State, name: i32, on: bool) {
    state.options = if on { state.options | name } else { state.options & !name };
}

fn at_least_one(value: &[u8]) -> Result<i32, Errno> {
    let value = integer(value)?;
    if value < 1 { Err(Errno::EINVAL) } else { Ok(value) }
}

/// `int getsockopt(int s, int level, int name, void *val, socklen_t *avalsize)`
pub(super) fn getsockopt(run: &mut SyscallContext<'_, '_>) -> Answer {
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
            ip_options::get(&socket, &state, (level, name))?
        }
    };
    if size > 0 {
        let part = &value[..value.len().min(size as usize)];
        if !part.is_empty() {
            run.copyout(part, addr)?;
        }
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
        option::ACCEPTFILTER => return Err(Errno::EINVAL),
        option::SNDTIMEO | option::RCVTIMEO | option::OLD_SNDTIMEO | option::OLD_RCVTIMEO => {
            let ticks = state.timeouts[time_side(name)];
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
