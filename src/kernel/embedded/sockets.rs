//! Sockets: making, naming, setting up and asking about them, on AF_LOCAL, AF_INET and AF_INET6.
//! Nothing is sent over them yet.
//!
//! Sources: NetBSD `sys/kern/{uipc_syscalls,uipc_socket,uipc_usrreq}.c`,
//! `sys/netinet/in_pcb.c`, `sys/netinet6/in6_pcb.c`; socket(2), bind(2), getsockopt(2).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::abi::{Stat, i32_at, i64_at, mode, open, pair};
use super::call::{Answer, PATH_MAX, Result, Run};
use super::file::{FileOps, OpenFile};
use super::io::Transfer;
use super::ioctl;
use super::limits::Counters;
use super::memfs::Make;
use super::sync::lock;
use super::table::{Listed, call, partly};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[
    partly(27, no_data, NO_DATA),
    partly(28, no_data, NO_DATA),
    partly(29, no_data, NO_DATA),
    partly(30, no_data, NO_DATA),
    partly(31, getpeername, "no socket is ever connected: ENOTCONN"),
    call(32, getsockname),
    partly(98, no_data, NO_DATA),
    partly(104, bind, "the only addresses are the wildcard, loopback and multicast ones"),
    partly(
        105,
        setsockopt,
        "below SOL_SOCKET a handful of TCP, IP and IPv6 options; none has an effect",
    ),
    partly(106, no_data, NO_DATA),
    partly(118, getsockopt, "below SOL_SOCKET a handful of TCP, IP and IPv6 options"),
    partly(133, no_data, NO_DATA),
    partly(134, shutdown, "no socket is ever connected: ENOTCONN"),
    partly(394, socket, "AF_LOCAL, AF_INET and AF_INET6 only"),
    partly(456, no_data, NO_DATA),
];

const NO_DATA: &str = "sockets carry no data yet: EOPNOTSUPP";

const LOCAL: u8 = 1;
const INET: u8 = 2;
const INET6: u8 = 24;

const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;
const SEQUENCED: i32 = 5;
const CLOEXEC: u32 = 0x1000_0000;
const NONBLOCK: u32 = 0x2000_0000;
const NOSIGPIPE: u32 = 0x4000_0000;
const FLAGS: u32 = 0xf000_0000;

/// `socket.h`: the options of `SOL_SOCKET`.
mod option {
    pub const SOCKET: i32 = 0xffff;
    pub const ACCEPTCONN: i32 = 0x2;
    pub const REUSEADDR: i32 = 0x4;
    pub const REUSEPORT: i32 = 0x200;
    pub const LINGER: i32 = 0x80;
    pub const NOSIGPIPE: i32 = 0x800;
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
/// any), level, name and initial value. TCP_NODELAY, KEEPIDLE, KEEPINTVL, KEEPCNT, KEEPINIT; IP_TOS,
/// IP_TTL, IP_RECVDSTADDR; IPV6_UNICAST_HOPS, IPV6_V6ONLY.
const LOWER: [(u8, i32, i32, i32, i32); 10] = [
    (0, STREAM, 6, 1, 0),
    (0, STREAM, 6, 3, 14400),
    (0, STREAM, 6, 5, 150),
    (0, STREAM, 6, 6, 8),
    (0, STREAM, 6, 7, 150),
    (INET, 0, 0, 3, 0),
    (INET, 0, 0, 4, 64),
    (INET, 0, 0, 7, 0),
    (INET6, 0, 41, 4, -1),
    (INET6, 0, 41, 27, 1),
];

/// Clock ticks a second, in which socket timeouts are counted (`hz`).
const TICKS: i64 = 100;
/// The largest buffer that may be asked for (`sb_max_adj`).
const BUFFER_MAX: i32 = 209_715;
/// The longest option value (`MCLBYTES`).
const OPTION_MAX: u32 = 2048;

/// A socket.
pub(super) struct Socket {
    id: u64,
    family: u8,
    kind: i32,
    protocol: u8,
    state: Mutex<State>,
    ports: Arc<Ports>,
}

struct State {
    /// The switches that are on.
    options: i32,
    linger: i32,
    /// Send and receive side.
    buffers: [i32; 2],
    low_water: [i32; 2],
    /// In ticks.
    timeouts: [i64; 2],
    lower: Vec<(i32, i32, i32)>,
    /// The name it is bound to, as a `sockaddr`.
    name: Option<Box<[u8]>>,
}

/// Which ports are taken, by whom.
pub(super) struct Ports {
    counters: Arc<Counters>,
    next: AtomicU64,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// By family, protocol and port.
    ports: HashMap<(u8, u8, u16), Vec<Bound>>,
    /// The last port that was chosen for somebody, by family and protocol.
    last: HashMap<(u8, u8), u16>,
}

/// The ports that are chosen for who asks for none in particular (`IPPORT_ANONMIN`).
const CHOSEN_FROM: u16 = 49152;

struct Bound {
    socket: u64,
    addr: [u8; 16],
    shares: bool,
}

impl Ports {
    pub fn new(counters: &Arc<Counters>) -> Self {
        Ports { counters: counters.clone(), next: AtomicU64::new(0), taken: Mutex::default() }
    }

    /// Gives `socket` a port at `addr`: this one, or a free one for 0. With `wild`, a wildcard
    /// address collides with every other (`in_pcblookup_port`).
    fn take(
        &self,
        socket: &Socket,
        addr: [u8; 16],
        port: u16,
        wild: bool,
        shares: bool,
    ) -> Result<u16, Errno> {
        let mut taken = lock(&self.taken);
        let key = |port| (socket.family, socket.protocol, port);
        let port = if port == 0 {
            taken.choose(socket)?
        } else {
            let any = [0; 16];
            let meets =
                |other: &&Bound| other.addr == addr || wild && (other.addr == any || addr == any);
            let other = taken.ports.get(&key(port)).and_then(|bound| bound.iter().find(meets));
            if other.is_some_and(|other| !(shares && other.shares)) {
                return Err(Errno::EADDRINUSE);
            }
            port
        };
        self.counters.ports.take(1, u64::MAX);
        taken.ports.entry(key(port)).or_default().push(Bound { socket: socket.id, addr, shares });
        Ok(port)
    }

    fn give(&self, socket: &Socket, port: u16) {
        let key = (socket.family, socket.protocol, port);
        let ports = &mut lock(&self.taken).ports;
        if let Some(bound) = ports.get_mut(&key) {
            let before = bound.len();
            bound.retain(|bound| bound.socket != socket.id);
            self.counters.ports.give((before - bound.len()) as u64);
            if bound.is_empty() {
                ports.remove(&key);
            }
        }
    }
}

impl Taken {
    /// The next free port downwards from the last one that was chosen. NetBSD: `in_pcbsetport`.
    fn choose(&mut self, socket: &Socket) -> Result<u16, Errno> {
        let last = self.last.entry((socket.family, socket.protocol)).or_insert(CHOSEN_FROM);
        for _ in CHOSEN_FROM..=u16::MAX {
            *last = if *last > CHOSEN_FROM { *last - 1 } else { u16::MAX };
            if !self.ports.contains_key(&(socket.family, socket.protocol, *last)) {
                return Ok(*last);
            }
        }
        Err(Errno::EAGAIN)
    }
}

impl Socket {
    fn new(ports: &Arc<Ports>, family: u8, kind: i32, protocol: u8) -> Socket {
        let buffers = match (family, kind) {
            (LOCAL, DATAGRAM) => [2048, 4096],
            (LOCAL, _) => [4096, 4096],
            (_, STREAM) => [32768, 32768],
            (INET6, DATAGRAM) => [9216, 42080],
            (_, DATAGRAM) => [9216, 41600],
            _ => [8192, 8192],
        };
        Socket {
            id: ports.next.fetch_add(1, Relaxed),
            family,
            kind,
            protocol,
            state: Mutex::new(State {
                options: 0,
                linger: 0,
                buffers,
                low_water: [2048.min(buffers[0]), 1],
                timeouts: [0; 2],
                lower: Vec::new(),
                name: None,
            }),
            ports: ports.clone(),
        }
    }

    /// What comes of reading or writing a socket nobody is at the other end of.
    pub fn no_data(&self) -> Errno {
        match self.kind {
            STREAM | SEQUENCED => Errno::ENOTCONN,
            _ => Errno::EOPNOTSUPP,
        }
    }

    /// NetBSD: `in_pcbbind`, `in6_pcbbind`.
    fn bind_port(&self, name: &[u8]) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        let (size, at, len) = if self.family == INET { (16, 4, 4) } else { (28, 8, 16) };
        if state.name.is_some() || name.len() != size {
            return Err(Errno::EINVAL);
        }
        let mut addr = [0; 16];
        addr[..len].copy_from_slice(&name[at..at + len]);
        if !is_ours(self.family, &addr) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let port = u16::from_be_bytes([name[2], name[3]]);
        let reuse = option::REUSEADDR | option::REUSEPORT;
        let many = is_multicast(self.family, &addr) && state.options & reuse != 0;
        let shares = many || state.options & option::REUSEPORT != 0;
        let port = match self.kind {
            RAW => port,
            _ => self.ports.take(self, addr, port, state.options & reuse == 0, shares)?,
        };
        let mut bound: Box<[u8]> = name.into();
        bound[2..4].copy_from_slice(&port.to_be_bytes());
        if self.family == INET {
            bound[8..].fill(0);
        }
        state.name = Some(bound);
        Ok(())
    }

    /// Its name as a `sockaddr`, an empty one while it has none.
    fn name(&self) -> Vec<u8> {
        if let Some(name) = &lock(&self.state).name {
            return name.to_vec();
        }
        let len = match self.family {
            LOCAL => 2,
            INET => 16,
            _ => 28,
        };
        let mut name = vec![0; len];
        name[0] = len as u8;
        name[1] = self.family;
        name
    }

    /// The option of this level and name below `SOL_SOCKET`, with its initial value.
    fn lower(&self, level: i32, name: i32) -> Option<i32> {
        let fits = |&&(family, kind, at, which, _): &&(u8, i32, i32, i32, i32)| {
            (family == self.family || family == 0 && self.family != LOCAL)
                && (kind == self.kind || kind == 0)
                && (at, which) == (level, name)
        };
        LOWER.iter().find(fits).map(|lower| lower.4)
    }
}

/// A socket that is open.
struct SocketFile(Arc<Socket>);

impl FileOps for SocketFile {
    fn read(
        &self,
        _run: &mut Run<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        Err(self.0.no_data().into())
    }

    fn write(
        &self,
        _run: &mut Run<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        Err(self.0.no_data().into())
    }

    /// Only the type and the mode bits of a socket mean anything (`soo_stat`).
    fn stat(&self) -> Result<Stat> {
        Ok(Stat { mode: mode::SOCKET, ..Stat::default() })
    }

    fn ioctl(
        &self,
        run: &mut Run<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        match request {
            ioctl::FIONREAD => run.copyout(&[0; 4], addr),
            ioctl::FIONBIO | ioctl::FIOASYNC => Ok(()),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn socket(&self) -> Option<&Arc<Socket>> {
        Some(&self.0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.family == LOCAL || self.kind == RAW {
            return;
        }
        let port =
            lock(&self.state).name.as_ref().map(|name| u16::from_be_bytes([name[2], name[3]]));
        if let Some(port) = port {
            self.ports.give(self, port);
        }
    }
}

/// Whether an address is one of this kernel's: anything, loopback, multicast.
fn is_ours(family: u8, addr: &[u8; 16]) -> bool {
    let loopback = match family {
        INET => addr[..4] == [127, 0, 0, 1],
        _ => u128::from_be_bytes(*addr) == 1,
    };
    loopback || *addr == [0; 16] || is_multicast(family, addr)
}

fn is_multicast(family: u8, addr: &[u8; 16]) -> bool {
    if family == INET { addr[0] & 0xf0 == 0xe0 } else { addr[0] == 0xff }
}

/// `int __socket30(int domain, int type, int protocol)`
fn socket(run: &mut Run<'_, '_>) -> Answer {
    let (domain, kind, protocol) = (run.int(0), run.uint(1), run.int(2));
    run.task.files.check_room()?;
    let (flags, kind) = (kind & FLAGS, (kind & !FLAGS) as i32);
    let (family, protocol) = protocol_of(domain, kind, protocol)?;
    let mut file_flags = open::FREAD | open::FWRITE;
    if flags & NONBLOCK != 0 {
        file_flags |= open::NONBLOCK;
    }
    if flags & NOSIGPIPE != 0 {
        file_flags |= open::NOSIGPIPE;
    }
    let system = run.system();
    let socket = Arc::new(Socket::new(&system.ports, family, kind, protocol));
    let file = OpenFile::new(SocketFile(socket), file_flags, &system.limits, &system.counters)?;
    let fd = run.task.files.insert(file, 0, flags & CLOEXEC != 0)?;
    Ok([fd.into(), 0])
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

/// The socket of descriptor `fd`. NetBSD: `fd_getsock`.
fn get(run: &Run<'_, '_>, fd: i32) -> Result<(Arc<OpenFile>, Arc<Socket>)> {
    let file = run.file(fd)?;
    let socket = file.ops.socket().ok_or(Errno::ENOTSOCK)?.clone();
    Ok((file, socket))
}

/// Calls that would need another end: connect, listen, accept and all that send or receive.
fn no_data(run: &mut Run<'_, '_>) -> Answer {
    get(run, run.int(0))?;
    Err(Errno::EOPNOTSUPP.into())
}

/// `int shutdown(int s, int how)`
fn shutdown(run: &mut Run<'_, '_>) -> Answer {
    get(run, run.int(0))?;
    Err(if run.uint(1) > 2 { Errno::EINVAL } else { Errno::ENOTCONN }.into())
}

/// `int bind(int s, const struct sockaddr *name, socklen_t namelen)`
fn bind(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len) = (run.word(1), run.uint(2));
    if !(3..=255).contains(&len) {
        return Err(Errno::EINVAL.into());
    }
    let mut buffer = [0; 255];
    let name = &mut buffer[..len as usize];
    run.memory().copyin(addr, name)?;
    // What 4.3BSD programs pass: no length, and the family where the length belongs.
    if name[1] == 0 && name[0] < 35 {
        name[1] = name[0];
    }
    name[0] = len as u8;
    let (_, socket) = get(run, run.int(0))?;
    if name[1] != socket.family {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    if socket.family == LOCAL {
        bind_local(run, &socket, name)?;
    } else {
        socket.bind_port(name)?;
    }
    Ok([0, 0])
}

/// NetBSD: `unp_bind`.
fn bind_local(run: &Run<'_, '_>, socket: &Socket, name: &[u8]) -> Result<()> {
    let mut state = lock(&socket.state);
    if state.name.is_some() {
        return Err(Errno::EINVAL.into());
    }
    let path = name[2..].split(|&byte| byte == 0).next().unwrap_or_default();
    debug_assert!(path.len() < PATH_MAX);
    let found = run.socket_name(path)?;
    if found.inode.is_some() {
        return Err(Errno::EADDRINUSE.into());
    }
    if found.slash {
        return Err(Errno::ENOENT.into());
    }
    run.make_at(&found, Make::Socket, 0o777).map_err(|stop| {
        if stop == Errno::EEXIST.into() { Errno::EADDRINUSE.into() } else { stop }
    })?;
    state.name = Some(name.into());
    Ok(())
}

/// `int getsockname(int fdes, struct sockaddr *asa, socklen_t *alen)`
fn getsockname(run: &mut Run<'_, '_>) -> Answer {
    let (addr, len_addr) = (run.word(1), run.word(2));
    let (_, socket) = get(run, run.int(0))?;
    if addr == 0 {
        return Ok([0, 0]);
    }
    let len = i32::from_le_bytes(run.copyin(len_addr)?);
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let name = socket.name();
    let part = &name[..len.min(name.len())];
    if !part.is_empty() {
        run.copyout(part, addr)?;
    }
    run.copyout(&(part.len() as u32).to_le_bytes(), len_addr)?;
    Ok([0, 0])
}

/// `int getpeername(int fdes, struct sockaddr *asa, socklen_t *alen)`
fn getpeername(run: &mut Run<'_, '_>) -> Answer {
    get(run, run.int(0))?;
    Err(Errno::ENOTCONN.into())
}

/// `int setsockopt(int s, int level, int name, const void *val, socklen_t valsize)`
fn setsockopt(run: &mut Run<'_, '_>) -> Answer {
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
        let mut state = lock(&socket.state);
        set(&mut state, name, &value)?;
        file.set(open::NOSIGPIPE, state.options & option::NOSIGPIPE != 0);
        return Ok([0, 0]);
    }
    socket.lower(level, name).ok_or(Errno::ENOPROTOOPT)?;
    let value = integer(&value)?;
    let mut state = lock(&socket.state);
    state.lower.retain(|&(at, which, _)| (at, which) != (level, name));
    state.lower.push((level, name, value));
    Ok([0, 0])
}

fn integer(value: &[u8]) -> Result<i32, Errno> {
    if value.len() == 4 { Ok(i32_at(value, 0)) } else { Err(Errno::EINVAL) }
}

/// NetBSD: `sosetopt1`.
fn set(state: &mut State, name: i32, value: &[u8]) -> Result<(), Errno> {
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
            if size > BUFFER_MAX {
                return Err(Errno::ENOBUFS);
            }
            let side = (name - option::SNDBUF) as usize;
            state.buffers[side] = size;
            state.low_water[side] = state.low_water[side].min(size);
        }
        option::SNDLOWAT | option::RCVLOWAT => {
            let side = (name - option::SNDLOWAT) as usize;
            state.low_water[side] = at_least_one(value)?.min(state.buffers[side]);
        }
        option::SNDTIMEO | option::RCVTIMEO => {
            if value.len() != 16 {
                return Err(Errno::EINVAL);
            }
            let (seconds, micros) = (i64_at(value, 0), i64_at(value, 8));
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
fn getsockopt(run: &mut Run<'_, '_>) -> Answer {
    let (level, name, addr, size_addr) = (run.int(1), run.int(2), run.word(3), run.word(4));
    let size = match addr {
        0 => 0,
        _ => u32::from_le_bytes(run.copyin(size_addr)?),
    };
    let (file, socket) = get(run, run.int(0))?;
    let value = {
        let mut state = lock(&socket.state);
        switch(&mut state, option::NOSIGPIPE, file.has(open::NOSIGPIPE));
        if level == option::SOCKET {
            ask(&socket, &state, name)?
        } else {
            let initial = socket.lower(level, name).ok_or(Errno::ENOPROTOOPT)?;
            let mut kept = state.lower.iter();
            let kept = kept.find(|&&(at, which, _)| (at, which) == (level, name));
            kept.map_or(initial, |kept| kept.2).to_le_bytes().to_vec()
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
fn ask(socket: &Socket, state: &State, name: i32) -> Result<Vec<u8>, Errno> {
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
        option::ACCEPTCONN | option::ERROR | option::OVERFLOWED => 0,
        option::SNDBUF | option::RCVBUF => state.buffers[(name - option::SNDBUF) as usize],
        option::SNDLOWAT | option::RCVLOWAT => state.low_water[(name - option::SNDLOWAT) as usize],
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(value.to_le_bytes().to_vec())
}
