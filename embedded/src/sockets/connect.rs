//! The beginning of sockets and connections: socket, socketpair, bind, connect, and the names of both ends.
//!
//! Source: NetBSD `sys/kern/{uipc_syscalls,uipc_socket}.c`; socket(2), bind(2), connect(2),
//! getsockname(2).

use std::sync::Arc;

use super::accept::Joined;
use super::close::reset;
use super::{
    Charge, DATAGRAM, INET, INET6, LOCAL, RAW, SEQUENCED, STREAM, Socket, State, get, inet, local,
    opened, space, state,
};
use crate::abi::open;
use crate::call::{Answer, Result, Stop, SyscallContext};
use crate::sync::lock;
use crate::wait::Side;
use kernel::Errno;

pub(super) const CLOEXEC: u32 = 0x1000_0000;
const NONBLOCK: u32 = 0x2000_0000;
const NOSIGPIPE: u32 = 0x4000_0000;
const FLAGS: u32 = 0xf000_0000;

/// Returns the open file flags in the type argument of a socket.
pub(super) fn file_flags(flags: u32) -> u32 {
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
pub(super) fn socket(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (domain, kind, protocol) = (run.int(0), run.uint(1), run.int(2));
    run.proc.files.check_room()?;
    let (flags, kind) = (kind & FLAGS, (kind & !FLAGS) as i32);
    let (family, protocol) = protocol_of(run, domain, kind, protocol)?;
    let socket = create(run, (family, kind, protocol))?;
    let file = opened(run, socket, file_flags(flags))?;
    let fd = run.proc.files.insert(file, 0, flags & CLOEXEC != 0)?;
    Ok([fd.into(), 0])
}

/// `int socketpair(int domain, int type, int protocol, int *rsv)`
pub(super) fn socketpair(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (domain, kind, protocol, addr) = (run.int(0), run.uint(1), run.int(2), run.word(3));
    let (flags, kind) = (kind & FLAGS, (kind & !FLAGS) as i32);
    let (family, protocol) = protocol_of(run, domain, kind, protocol)?;
    let make = || create(run, (family, kind, protocol));
    let (one, two) = (make()?, make()?);
    run.proc.files.check_room()?;
    if family != LOCAL {
        return Err(Errno::EOPNOTSUPP.into());
    }
    local::pair(run, &one, &two);
    let one = opened(run, one, file_flags(flags))?;
    // The second descriptor, too, is checked for room before there is an open file.
    run.proc.files.check_room_for_two()?;
    let two = opened(run, two, file_flags(flags))?;
    let fds = run.proc.files.insert_pair([one, two], flags & CLOEXEC != 0)?;
    let bytes: Vec<u8> = fds.iter().flat_map(|fd| fd.to_le_bytes()).collect();
    run.copyout(&bytes, addr)?;
    Ok([0, 0])
}

/// Makes a new socket for the caller.
fn create(run: &SyscallContext<'_, '_>, what: (u8, i32, u8)) -> Result<Arc<Socket>, Errno> {
    let proc = run.proc;
    let (user, most) = (proc.credentials().euid, proc.rlimits().socket_bytes());
    let resource_group = Charge { net: &proc.system.net, resource_group: &proc.family, user, most };
    Socket::new(&resource_group, what, space(what.0, what.1))
}

/// Returns family, type and protocol of a new socket. NetBSD: `socreate`.
fn protocol_of(
    run: &SyscallContext<'_, '_>,
    domain: i32,
    kind: i32,
    protocol: i32,
) -> Result<(u8, u8), Errno> {
    if kind == RAW {
        run.proc.credentials().check_superuser()?;
    }
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
pub(super) fn copyin_name(
    run: &mut SyscallContext<'_, '_>,
    addr: u64,
    len: u32,
) -> Result<Vec<u8>> {
    if !(3..=255).contains(&len) {
        return Err(Errno::EINVAL.into());
    }
    let mut name = vec![0; len as usize];
    run.memory().copyin(addr, &mut name)?;
    // 4.3BSD programs pass no length, and the family in the place of the length.
    if name[1] == 0 && name[0] < 35 {
        name[1] = name[0];
    }
    name[0] = len as u8;
    Ok(name)
}

/// Copies out a `sockaddr`, cut to the client's room, and the length copied. NetBSD: `copyout_sockname_sb`.
pub(super) fn copyout_name(
    run: &mut SyscallContext<'_, '_>,
    name: &[u8],
    addr: u64,
    len_addr: u64,
) -> Result<()> {
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

/// Returns the room for a name that the client says it has.
pub(super) fn room_for_name(run: &mut SyscallContext<'_, '_>, len_addr: u64) -> Result<usize> {
    let len = i32::from_le_bytes(run.copyin(len_addr)?);
    Ok(usize::try_from(len).map_err(|_| Errno::EINVAL)?)
}

/// `int bind(int s, const struct sockaddr *name, socklen_t namelen)`
pub(super) fn bind(run: &mut SyscallContext<'_, '_>) -> Answer {
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

/// `int connect(int s, const struct sockaddr *name, socklen_t namelen)`
pub(super) fn connect(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, len) = (run.word(1), run.uint(2));
    let name = copyin_name(run, addr, len)?;
    let (file, socket) = get(run, run.int(0))?;
    if run.done() == 0 {
        let at_once = file.has(open::NONBLOCK);
        match begin(run, &socket, &name)? {
            Joined::Connected if socket.is_tcp() && at_once => {
                return Err(Errno::EINPROGRESS.into());
            }
            Joined::Connected => {
                // A pending error from before is reported now. NetBSD: `do_sys_connect`.
                let before = lock(&socket.state).error.take();
                return before.map_or(Ok([0, 0]), |errno| Err(errno.into()));
            }
            Joined::Refused(errno) if !socket.is_tcp() => return Err(errno.into()),
            Joined::Refused(errno) => {
                reset(&socket, errno);
                if at_once {
                    return Err(Errno::EINPROGRESS.into());
                }
                lock(&socket.state).error = None;
                return Err(errno.into());
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
fn begin(run: &SyscallContext<'_, '_>, socket: &Arc<Socket>, name: &[u8]) -> Result<Joined> {
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
        if socket.is_over(&state) {
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

/// A known name, or a local socket that has to be asked for its name.
pub(super) enum Name {
    Known(Box<[u8]>),
    Of(Arc<Socket>),
}

impl Name {
    pub fn finish(self) -> Box<[u8]> {
        match self {
            Name::Known(name) => name,
            Name::Of(socket) => lock(&socket.state).local_name(),
        }
    }
}

/// Returns the name of the other end.
pub(super) fn peer_name(socket: &Socket, state: &State) -> Name {
    if socket.family != LOCAL {
        return Name::Known(inet::encode(socket.family, state.far));
    }
    match state.peer.upgrade() {
        Some(peer) => Name::Of(peer),
        None => Name::Known(local::NO_NAME.into()),
    }
}

/// `int getsockname(int fdes, struct sockaddr *asa, socklen_t *alen)`
pub(super) fn getsockname(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, len_addr) = (run.word(1), run.word(2));
    let (_, socket) = get(run, run.int(0))?;
    let name = {
        let state = lock(&socket.state);
        if socket.is_over(&state) {
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
pub(super) fn getpeername(run: &mut SyscallContext<'_, '_>) -> Answer {
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
