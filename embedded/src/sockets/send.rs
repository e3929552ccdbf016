//! Sending: from the client into the buffer of the peer, as far as there is room.
//!
//! Source: NetBSD `sys/kern/uipc_socket.c` (`sosend`), `sys/kern/uipc_usrreq.c` (`unp_send`).

use std::sync::Arc;

use super::buffer::{self, Control, Record};
use super::oob::is_urgent;
use super::{
    DATAGRAM, INET6, LOCAL, RAW, SEQUENCED, STREAM, Socket, State, close, local, state, udp,
};
use crate::abi::{i32_at, open};
use crate::call::{Result, Stop, SyscallContext};
use crate::file::OpenFile;
use crate::io::{Buffer, Transfer};
use crate::sync::lock;
use crate::wait::Side;
use kernel::Errno;

/// `socket.h`: flags of a message.
pub(super) mod msg {
    pub const OOB: u32 = 0x1;
    pub const PEEK: u32 = 0x2;
    pub const EOR: u32 = 0x8;
    pub const TRUNC: u32 = 0x10;
    pub const CTRUNC: u32 = 0x20;
    pub const WAITALL: u32 = 0x40;
    pub const DONTWAIT: u32 = 0x80;
    pub const NOSIGNAL: u32 = 0x400;
    pub const CMSG_CLOEXEC: u32 = 0x800;
    pub const NBIO: u32 = 0x1000;
    pub const WAITFORONE: u32 = 0x2000;
    /// The flags a client may use.
    pub const USER: u32 = 0xff_ffff;
}

/// The bytes by which out-of-band data may exceed the limit of a buffer.
const URGENT_MORE: i64 = 1024;

/// The size of the pieces in which a stream is sent.
const PIECE: u64 = 16 * 1024;

/// The parameters of a send.
pub(super) struct Outgoing<'t> {
    pub transfer: &'t Transfer,
    pub to: Option<Vec<u8>>,
    pub control: Option<Vec<u8>>,
    pub flags: u32,
}

impl<'t> Outgoing<'t> {
    /// Returns the parameters of a `write`.
    pub fn plain(transfer: &'t Transfer) -> Self {
        Outgoing { transfer, to: None, control: None, flags: 0 }
    }
}

/// The result of one step of a send.
#[derive(PartialEq, Eq)]
enum Put {
    /// All of it is sent.
    All,
    /// A part is sent, or there was no room after all.
    Some,
    /// There is room, but the family cannot pay for it.
    Unpaid,
}

/// Sends all of `out`. NetBSD: `sosend`.
pub(super) fn send(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    socket: &Arc<Socket>,
    out: &Outgoing<'_>,
) -> Result<()> {
    let mut waiting = false;
    loop {
        let left = out.transfer.total - run.done();
        if left == 0 && run.done() > 0 {
            return Ok(());
        }
        if has_room(socket, out, left, run.done())? {
            match put(run, socket, out, left)? {
                Put::All => return Ok(()),
                Put::Some => {
                    (waiting, run.call.progress.deadline) = (false, None);
                    continue;
                }
                Put::Unpaid => {}
            }
        }
        if file.has(open::NONBLOCK) || out.flags & msg::NBIO != 0 || super::is_late(run) {
            return Err(Errno::EAGAIN.into());
        }
        if waiting {
            super::deadline(run, socket, 0);
            return Err(Stop::Sleep(run.call.progress.deadline));
        }
        run.wait_for(socket.clone(), Side::Write);
        waiting = true;
    }
}

/// Returns the bytes that `from`, with a send limit of `limit`, can send to a socket in the state `peer`.
pub(super) fn room_at(from: &Socket, limit: i64, peer: &State) -> i64 {
    let count = peer.buffer.len() as i64;
    match (from.family, from.kind) {
        (LOCAL, SEQUENCED) => {
            (limit - count).min(buffer::held_limit(limit) - peer.buffer.held() as i64)
        }
        (LOCAL, _) => limit - count,
        _ => limit.min(limit + peer.receive_limit - count),
    }
}

/// Returns `true` if some of `left` bytes can be sent now. NetBSD: the checks of `sosend`.
fn has_room(socket: &Socket, out: &Outgoing<'_>, left: u64, done: u64) -> Result<bool> {
    if socket.kind == RAW {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let control = if done == 0 { out.control.as_ref().map_or(0, Vec::len) as i64 } else { 0 };
    let (peer, limit, low_water) = {
        let mut state = lock(&socket.state);
        if state.has(state::CANT_SEND) {
            return Err(Errno::EPIPE.into());
        }
        if let Some(errno) = state.error.take() {
            return Err(errno.into());
        }
        if !state.has(state::CONNECTED) {
            if socket.needs_connection() {
                if left > 0 || control == 0 {
                    return Err(Errno::ENOTCONN.into());
                }
            } else if out.to.is_none() {
                return Err(Errno::EDESTADDRREQ.into());
            }
        }
        (state.peer.clone(), state.send_limit, i64::from(state.low_water[0]))
    };
    let (mut space, mut most) = (limit, limit);
    if socket.needs_connection()
        && let Some(peer) = peer.upgrade()
    {
        let there = lock(&peer.state);
        space = room_at(socket, limit, &there);
        if socket.family == LOCAL {
            // The bytes under way make the send buffer of a local socket smaller.
            most -= there.buffer.len() as i64;
        }
    }
    if out.flags & msg::OOB != 0 {
        space += URGENT_MORE;
    }
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    let atomic = socket.is_atomic();
    if atomic && left > most || control > most.max(0) {
        return Err(Errno::EMSGSIZE.into());
    }
    let all = space >= left.saturating_add(control);
    Ok(all || !(atomic || space < low_water || space < control))
}

/// Sends what fits of the next piece, which may be nothing by now.
fn put(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    out: &Outgoing<'_>,
    left: u64,
) -> Result<Put> {
    if socket.is_atomic() {
        let data = out.transfer.all(run)?;
        let count = data.len();
        let sent = message(run, socket, out, data)?;
        if sent == Put::All {
            run.advance(count);
        }
        return Ok(sent);
    }
    let mut buffer = Buffer::default();
    let piece = out.transfer.copyin(run, PIECE, &mut buffer)?;
    let mut control = match &out.control {
        // NetBSD: `tcp_sendoob`, which ignores control messages.
        _ if is_urgent(socket, out.flags) => Vec::new(),
        Some(control) if run.done() == 0 => controls(run, socket, out.flags, control)?,
        _ if out.flags & msg::OOB != 0 => return Err(Errno::EOPNOTSUPP.into()),
        _ => Vec::new(),
    };
    let last = piece.len() as u64 == left;
    let piece = Piece {
        bytes: piece,
        asked: if control.is_empty() { 0 } else { out.control.as_ref().map_or(0, Vec::len) },
        ends: out.flags & msg::EOR != 0 && socket.family == LOCAL && last,
        oob: is_urgent(socket, out.flags) && last && !piece.is_empty(),
    };
    let Some(count) = append(run, socket, &piece, &mut control)? else {
        return Ok(Put::Unpaid);
    };
    out.transfer.consumed(run, PIECE, count);
    Ok(if count as u64 == left && control.is_empty() { Put::All } else { Put::Some })
}

/// Returns the control messages to send along. NetBSD: `unp_internalize`; internet sockets take none.
fn controls(
    run: &SyscallContext<'_, '_>,
    socket: &Socket,
    flags: u32,
    control: &[u8],
) -> Result<Vec<Control>> {
    if flags & msg::OOB != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (len, level, kind) = (i32_at(control, 0), i32_at(control, 4), i32_at(control, 8));
    let len = usize::try_from(len).unwrap_or(0);
    let fits = (16..=control.len()).contains(&len);
    if socket.family != LOCAL || (level, kind) != (0xffff, 1) || !fits {
        return Err(Errno::EINVAL.into());
    }
    let mut files = Vec::new();
    for fd in control[16..len].chunks_exact(4) {
        let file = run.file(i32_at(fd, 0))?;
        if !file.ops.travels() {
            return Err(Errno::EBADF.into());
        }
        files.push(file);
    }
    let flights = &socket.net.flights;
    let sender = &run.proc.family;
    let rights = match flights.send(files.clone(), sender) {
        Ok(rights) => rights,
        Err(errno) => match flights.collect()? {
            true => flights.send(files, sender)?,
            false => return Err(errno.into()),
        },
    };
    Ok(vec![Control::Rights(rights)])
}

/// The bytes of a stream to be sent.
struct Piece<'p> {
    bytes: &'p [u8],
    /// The length of the control message with the bytes, as the client has passed it.
    asked: usize,
    /// True if a record ends with the bytes.
    ends: bool,
    /// True if the last byte is out of band.
    oob: bool,
}

/// Adds bytes of a stream to the buffer of the peer, and returns their number; `None` if they cannot be
/// paid for now but may be later.
fn append(
    run: &SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    piece: &Piece<'_>,
    control: &mut Vec<Control>,
) -> Result<Option<usize>> {
    let all = piece.bytes.len();
    let (peer, limit) = {
        let state = lock(&socket.state);
        if state.has(state::CANT_SEND) {
            return Err(Errno::EPIPE.into());
        }
        if !state.has(state::CONNECTED) {
            return Err(Errno::ENOTCONN.into());
        }
        (state.peer.upgrade(), state.send_limit)
    };
    let Some(peer) = peer else { return gone(socket, all) };
    let mut state = lock(&peer.state);
    if state.has(state::CLOSED) {
        drop(state);
        return gone(socket, all);
    }
    if socket.is_tcp() && state.has(state::CANT_RECEIVE) {
        // The peer has shut down reading, and will not take these bytes.
        return Ok(Some(all));
    }
    if is_lost(&state, control) {
        drop(state);
        control.clear();
        return Ok(Some(all));
    }
    let room = room_at(socket, limit, &state) + if piece.oob { URGENT_MORE } else { 0 };
    let put = fill(run, &peer, &mut state, piece, control, usize::try_from(room).unwrap_or(0));
    drop(state);
    if let Ok(Some(count)) = put
        && (count > 0 || all == 0)
    {
        peer.readers.wake();
        if piece.oob && count == all {
            peer.signal_urgent(run);
        }
    }
    put
}

/// Fills the buffer of the peer as far as there is room. A control message goes whole, together with the
/// bytes for which there was room beside it at the length the client has passed. In the buffer it counts
/// for more, and may exceed the limit by the difference.
fn fill(
    run: &SyscallContext<'_, '_>,
    peer: &Socket,
    state: &mut State,
    piece: &Piece<'_>,
    control: &mut Vec<Control>,
    room: usize,
) -> Result<Option<usize>> {
    let bytes = piece.bytes;
    if room == 0 && !bytes.is_empty() {
        return Ok(Some(0));
    }
    let credentials = local::wanted_credentials(run, state, true);
    let told = credentials.is_some();
    control.extend(credentials);
    let count = bytes.len().min(room.saturating_sub(piece.asked).max(1));
    let oob = piece.oob && count == bytes.len();
    let part = if oob { state.without_urgent(bytes) } else { &bytes[..count] };
    let with_control = !control.is_empty();
    let taken = state.buffer.append(part, control, &peer.resource_group);
    if taken == 0 && !part.is_empty() || with_control && !control.is_empty() {
        if told {
            state.local().wants_credentials = true;
        }
        let empty = state.buffer.front().is_none();
        return if empty { Err(Errno::ENOBUFS.into()) } else { Ok(None) };
    }
    if piece.ends && taken == bytes.len() {
        state.buffer.end_record();
    }
    match bytes.last() {
        Some(&byte) if oob && taken == part.len() => {
            state.mark(byte);
            Ok(Some(bytes.len()))
        }
        _ => Ok(Some(taken)),
    }
}

/// Returns `true` if the data is lost. A local socket that has shut down reading still takes bytes, but no
/// control message, nor the bytes that come with one. NetBSD: `sbappendcontrol`.
fn is_lost(peer: &State, control: &[Control]) -> bool {
    !control.is_empty() && peer.has(state::CANT_RECEIVE)
}

/// Handles a send to a peer that is gone: EPIPE for local sockets; a TCP connection is reset by the answer
/// to what it sends.
fn gone(socket: &Arc<Socket>, count: usize) -> Result<Option<usize>> {
    if socket.family == LOCAL {
        return Err(Errno::EPIPE.into());
    }
    close::reset(socket, Errno::ECONNRESET);
    Ok(Some(count))
}

/// Sends a message, whole or not at all.
fn message(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    out: &Outgoing<'_>,
    data: Vec<u8>,
) -> Result<Put> {
    let own = socket.family == INET6 && out.flags & msg::OOB == 0;
    let control = match &out.control {
        // NetBSD: `udp6_output`, which reads the control messages itself.
        Some(_) if own => Vec::new(),
        Some(control) => controls(run, socket, out.flags, control)?,
        None if out.flags & msg::OOB != 0 => return Err(Errno::EOPNOTSUPP.into()),
        None => Vec::new(),
    };
    match (socket.family, socket.kind) {
        (LOCAL, DATAGRAM) => {
            local::send_datagram(run, socket, out.to.as_deref(), control, data)?;
            Ok(Put::All)
        }
        (LOCAL, _) => {
            let asked = out.control.as_ref().map_or(0, Vec::len);
            packet(run, socket, control, data, asked, out.flags & msg::EOR != 0)
        }
        _ => {
            debug_assert!(socket.kind != STREAM);
            udp::send(socket, out.to.as_deref(), out.control.as_deref().filter(|_| own), data)?;
            Ok(Put::All)
        }
    }
}

/// Sends a message of SOCK_SEQPACKET.
fn packet(
    run: &SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    mut control: Vec<Control>,
    data: Vec<u8>,
    asked: usize,
    ends: bool,
) -> Result<Put> {
    let (peer, limit) = {
        let state = lock(&socket.state);
        if state.has(state::CANT_SEND) {
            return Err(Errno::EPIPE.into());
        }
        (state.peer.upgrade().ok_or(Errno::ENOTCONN)?, state.send_limit)
    };
    // Check for what `has_room` has asked for, as a control message counts for more once it is in the
    // buffer.
    let claimed = data.len() + asked;
    let mut state = lock(&peer.state);
    if state.has(state::CLOSED) {
        return Err(Errno::EPIPE.into());
    }
    if state.buffer.front().is_some() && room_at(socket, limit, &state) < claimed as i64 {
        return Ok(Put::Some);
    }
    if is_lost(&state, &control) {
        drop(state);
        return Ok(Put::All);
    }
    let credentials = local::wanted_credentials(run, &mut state, true);
    let told = credentials.is_some();
    control.extend(credentials);
    let mut record = Record::message(None, control, data);
    record.ends = ends;
    let empty = state.buffer.front().is_none();
    let pushed = state.buffer.push(record, &peer.resource_group);
    if pushed.is_err() && told {
        state.local().wants_credentials = true;
    }
    drop(state);
    match pushed {
        Ok(()) => {
            peer.readers.wake();
            Ok(Put::All)
        }
        Err(_) if empty => Err(Errno::ENOBUFS.into()),
        Err(_) => Ok(Put::Unpaid),
    }
}
