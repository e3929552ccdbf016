//! Receiving: from a socket's buffer to the client.
//!
//! Source: NetBSD `sys/kern/uipc_socket.c` (`soreceive`).

use std::sync::Arc;

use super::buffer::{Control, Record};
use super::oob::is_urgent;
use super::send::msg;
use super::{RAW, Socket, State, state};
use crate::abi::open;
use crate::call::{Result, Stop, SyscallContext};
use crate::file::OpenFile;
use crate::io::Transfer;
use crate::paid::Paid;
use crate::sync::lock;
use crate::wait::Side;
use kernel::Errno;

/// The parameters of a receive.
pub(super) struct Incoming<'t> {
    pub transfer: &'t Transfer,
    pub flags: u32,
    /// True if control messages are wanted.
    pub control: bool,
}

/// The result of a receive, except the bytes.
#[derive(Default)]
pub(super) struct Received {
    pub name: Option<Box<[u8]>>,
    pub control: Vec<Arrived>,
    pub flags: u32,
}

/// A control message in the client's format.
pub(super) struct Arrived {
    pub bytes: Vec<u8>,
    /// The descriptors in the message, which are closed if it does not reach the client.
    pub fds: Vec<i32>,
}

/// A message that has left its socket and not yet reached the client in full.
pub(crate) struct Message(Rest, #[expect(dead_code, reason = "lives as long")] Paid);

enum Rest {
    /// A message.
    Whole(Vec<u8>, Received),
    /// The name and control messages of the first bytes of a stream, while the call waits for more bytes.
    Begun(Received),
}

/// Returns `true` if a message waits to be copied out.
fn has_message(run: &SyscallContext<'_, '_>) -> bool {
    let message = run.kept().and_then(|kept| kept.message.as_deref());
    matches!(message, Some(Message(Rest::Whole(..), _)))
}

/// Takes the result kept with the first bytes of a stream, if there is one.
fn begun(run: &mut SyscallContext<'_, '_>) -> Option<Received> {
    run.kept()?.message.as_ref()?;
    match run.keep().message.take().map(|message| message.0) {
        Some(Rest::Begun(received)) => Some(received),
        _ => None,
    }
}

/// The result of a look at the buffer.
enum Verdict {
    Ready,
    /// There are no bytes and none will come.
    Over,
    Wait,
}

/// Receives as `read` does.
pub(super) fn read(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    socket: &Arc<Socket>,
    transfer: &Transfer,
) -> Result<()> {
    let incoming = Incoming { transfer, flags: 0, control: false };
    loop {
        if !ready(run, file, socket, &incoming)? || take(run, socket, &incoming)?.is_some() {
            return Ok(());
        }
    }
}

/// Waits until there is something to take. Returns `false` if there never will be.
pub(super) fn ready(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
) -> Result<bool> {
    if incoming.flags & msg::OOB != 0 {
        // NetBSD: `unp_recvoob`, `udp_recvoob`.
        return if is_urgent(socket, incoming.flags) {
            Ok(true)
        } else {
            Err(Errno::EOPNOTSUPP.into())
        };
    }
    if socket.kind == RAW {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut waiting = false;
    loop {
        if has_message(run) {
            return Ok(true);
        }
        let left = incoming.transfer.total - run.done();
        let more = run.done() > 0;
        match verdict(socket, &mut lock(&socket.state), incoming.flags, left, more)? {
            Verdict::Ready => return Ok(true),
            Verdict::Over => return Ok(false),
            Verdict::Wait => {}
        }
        let at_once = file.has(open::NONBLOCK) || incoming.flags & (msg::DONTWAIT | msg::NBIO) != 0;
        if at_once && !more || super::is_late(run) {
            return Err(Errno::EAGAIN.into());
        }
        if waiting {
            super::deadline(run, socket, 1);
            return Err(Stop::Sleep(run.call.progress.deadline));
        }
        run.wait_for(socket.clone(), Side::Read);
        waiting = true;
    }
}

/// Returns whether `left` bytes can be taken now: the first ones or, with `more`, those after them.
fn verdict(
    socket: &Socket,
    state: &mut State,
    flags: u32,
    left: u64,
    more: bool,
) -> Result<Verdict, Errno> {
    if more {
        return Ok(verdict_on_more(state));
    }
    let count = state.buffer.len() as u64;
    let front = state.buffer.front();
    let all = flags & msg::WAITALL != 0 && left <= state.receive_limit.max(0) as u64;
    let few = flags & msg::DONTWAIT == 0
        && count < left
        && (count < state.low_water[1].max(0) as u64 || all)
        && !state.buffer.has_next()
        && !socket.is_atomic();
    if front.is_some() && !few {
        return Ok(Verdict::Ready);
    }
    let (some, ends) = (front.is_some(), front.is_some_and(|record| record.ends));
    if let Some(errno) = state.error {
        if some {
            return Ok(Verdict::Ready);
        }
        if flags & msg::PEEK == 0 {
            state.error = None;
        }
        return Err(errno);
    }
    if state.has(state::CANT_RECEIVE) {
        return Ok(if some { Verdict::Ready } else { Verdict::Over });
    }
    if ends {
        return Ok(Verdict::Ready);
    }
    let joined = state.has(state::CONNECTED | state::CONNECTING);
    if !joined && socket.needs_connection() {
        return Err(Errno::ENOTCONN);
    }
    Ok(if left == 0 { Verdict::Over } else { Verdict::Wait })
}

/// Returns whether bytes that belong to the previous ones can be taken: those up to the next control
/// message.
fn verdict_on_more(state: &State) -> Verdict {
    let over = state.error.is_some() || state.has(state::CANT_RECEIVE);
    match state.buffer.front() {
        Some(record) if record.control.is_empty() => Verdict::Ready,
        Some(_) => Verdict::Over,
        None if over => Verdict::Over,
        None => Verdict::Wait,
    }
}

/// Takes what is there. Returns `None` if another call was first, or an empty record was skipped.
pub(super) fn take(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
) -> Result<Option<Received>> {
    if has_message(run)
        && let Some(Rest::Whole(data, received)) =
            run.keep().message.take().map(|message| message.0)
    {
        return deliver(run, incoming.transfer, data, received).map(Some);
    }
    if incoming.transfer.total > run.done() && run.memory().room() == 0 {
        return Err(Stop::Flush);
    }
    let taken = if incoming.flags & msg::OOB != 0 {
        take_urgent(run, socket, incoming).map(Some)
    } else if socket.is_atomic() {
        take_message(run, socket, incoming)
    } else {
        take_stream(run, socket, incoming)
    };
    run.call.progress.deadline = None;
    taken
}

/// Returns `true` if the first record contains files.
fn has_rights(record: Option<&Record>) -> bool {
    let control = record.into_iter().flat_map(|record| &record.control);
    control.into_iter().any(|control| matches!(control, Control::Rights(_)))
}

/// Takes the out-of-band byte.
fn take_urgent(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
) -> Result<Received> {
    let byte = {
        let mut state = lock(&socket.state);
        if socket.is_over(&state) {
            return Err(Errno::EINVAL.into());
        }
        state.take_urgent(incoming.flags & msg::PEEK != 0)?
    };
    if incoming.transfer.total > 0 {
        incoming.transfer.copyout(run, &[byte])?;
    }
    Ok(nothing(run, incoming))
}

fn take_message(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
) -> Result<Option<Received>> {
    let peek = incoming.flags & msg::PEEK != 0;
    let files = has_rights(lock(&socket.state).buffer.front());
    let flights = socket.net.flights.clone();
    let moving = match files {
        true => Some(flights.moving(run)?),
        false => None,
    };
    let mut state = lock(&socket.state);
    if has_rights(state.buffer.front()) != files {
        return Ok(None);
    }
    let wanted = usize::try_from(incoming.transfer.total).unwrap_or(usize::MAX);
    let record = if peek {
        state.buffer.front().map(|record| Taken::looked_at(record, wanted))
    } else {
        state.buffer.pop(&socket.resource_group).map(Taken::from)
    };
    let Some(Taken { name, control, shown, mut data, len, ends }) = record else {
        return Ok(None);
    };
    let over = state.has(state::CANT_RECEIVE);
    let peer = state.peer.upgrade();
    drop(state);
    if socket.needs_connection()
        && let Some(peer) = &peer
    {
        peer.writers.wake();
    }
    let came = name.is_some() || !control.is_empty() || !shown.is_empty();
    let arrived = if peek { Ok(shown) } else { externalize(run, &control, incoming) };
    drop(moving);
    drop(control);
    let control = arrived?;
    if len == 0 && wanted > 0 && !came && !ends && !over {
        return Ok(None);
    }
    let mut received = Received { name, control, flags: flags(incoming) };
    if len > wanted || wanted == 0 {
        received.flags |= msg::TRUNC;
    } else if ends {
        received.flags |= msg::EOR;
    }
    data.truncate(wanted);
    deliver(run, incoming.transfer, data, received).map(Some)
}

/// A message that was taken out or, for a peek, copied as far as asked.
struct Taken {
    name: Option<Box<[u8]>>,
    control: Vec<Control>,
    /// The control messages, for a peek.
    shown: Vec<Arrived>,
    data: Vec<u8>,
    /// The length of the whole message.
    len: usize,
    ends: bool,
}

impl Taken {
    fn looked_at(record: &Record, wanted: usize) -> Taken {
        Taken {
            name: record.name.clone(),
            control: Vec::new(),
            shown: record.control.iter().map(seen).collect(),
            data: record.data.iter().take(wanted).copied().collect(),
            len: record.data.len(),
            ends: record.ends,
        }
    }

    fn from(record: Record) -> Taken {
        let (len, ends) = (record.data.len(), record.ends);
        let Record { name, control, data, .. } = record;
        Taken { name, control, shown: Vec::new(), data: data.into(), len, ends }
    }
}

/// Copies out the rest of a message.
fn deliver(
    run: &mut SyscallContext<'_, '_>,
    transfer: &Transfer,
    data: Vec<u8>,
    received: Received,
) -> Result<Received> {
    while (run.done() as usize) < data.len() {
        let from = run.done() as usize;
        let count = (data.len() - from).min(run.memory().room());
        if count == 0 {
            let paid = Paid::moved(&run.proc.family, data.capacity() as u64);
            run.keep().message = Some(Box::new(Message(Rest::Whole(data, received), paid)));
            return Err(Stop::Flush);
        }
        if let Err(stop) = transfer.copyout(run, &data[from..from + count]) {
            close_all(run, received.control);
            return Err(stop);
        }
    }
    Ok(received)
}

fn take_stream(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
) -> Result<Option<Received>> {
    let peek = incoming.flags & msg::PEEK != 0;
    let mut received = Received { flags: flags(incoming), ..Received::default() };
    let came = lock(&socket.state).buffer.front().is_some_and(|record| !record.control.is_empty());
    if came {
        if run.done() > 0 {
            // These bytes are for the next call.
            return Ok(Some(nothing(run, incoming)));
        }
        received.control = stream_control(run, socket, incoming, peek)?;
    }
    let bytes = match take_bytes(run, socket, incoming, peek) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(came.then_some(received)),
        Err(stop) => {
            close_all(run, received.control);
            return Err(stop);
        }
    };
    if bytes.ends {
        received.flags |= msg::EOR;
    }
    if bytes.more {
        if came {
            let paid = Paid::moved(&run.proc.family, 0);
            run.keep().message = Some(Box::new(Message(Rest::Begun(received), paid)));
        }
        return Err(Stop::Flush);
    }
    if bytes.none && !came {
        return Ok(None);
    }
    if let Some(earlier) = begun(run) {
        received.control = earlier.control;
    }
    Ok(Some(received))
}

/// The result of taking bytes of a stream.
struct Bytes {
    /// True if the bytes end with MSG_EOR.
    ends: bool,
    /// True if the call goes on for more bytes.
    more: bool,
    /// True if there were no bytes where some are wanted and may still come.
    none: bool,
}

/// Takes bytes of a stream's first record. Returns `None` if there is none, or one with control messages.
fn take_bytes(
    run: &mut SyscallContext<'_, '_>,
    socket: &Socket,
    incoming: &Incoming<'_>,
    peek: bool,
) -> Result<Option<Bytes>> {
    let wanted = incoming.transfer.total - run.done();
    let room = run.memory().room() as u64;
    let mut state = lock(&socket.state);
    let Some(record) = state.buffer.front() else { return Ok(None) };
    if !peek && !record.control.is_empty() {
        // Another call took what was before this record, which then comes with the next call.
        return Ok(None);
    }
    let here = record.data.len();
    let most = here.min(state.to_mark());
    let count = usize::try_from(wanted.min(room)).unwrap_or(usize::MAX).min(most);
    let mut ends = count == here && record.ends && count > 0;
    if count > 0 {
        incoming.transfer.copyout(run, state.buffer.bytes(count))?;
    }
    let marked = state.pass(count, peek);
    if !peek {
        ends |= state.buffer.consume(count, &socket.resource_group);
    }
    let over = state.has(state::CANT_RECEIVE) || state.error.is_some();
    let more = incoming.flags & msg::WAITALL != 0
        && !(over || ends || peek || marked)
        && (1..wanted).contains(&(count as u64))
        && (state.buffer.front().is_none() || count as u64 == room);
    let peer = state.peer.upgrade();
    drop(state);
    if !peek && let Some(peer) = peer {
        peer.writers.wake();
    }
    Ok(Some(Bytes { ends, more, none: count == 0 && wanted > 0 && !(ends || over) }))
}

/// Takes the control messages of a stream's first record.
fn stream_control(
    run: &mut SyscallContext<'_, '_>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
    peek: bool,
) -> Result<Vec<Arrived>> {
    let flights = socket.net.flights.clone();
    let moving = flights.moving(run)?;
    let mut state = lock(&socket.state);
    if peek {
        let record = state.buffer.front();
        return Ok(record.map_or(Vec::new(), |record| record.control.iter().map(seen).collect()));
    }
    let control = state.buffer.take_control();
    drop(state);
    let arrived = externalize(run, &control, incoming);
    drop(moving);
    drop(control);
    arrived
}

/// Closes the files in control messages that do not reach the client. NetBSD: `free_control_mbuf`.
pub(super) fn close_all(run: &SyscallContext<'_, '_>, control: impl IntoIterator<Item = Arrived>) {
    for fd in control.into_iter().flat_map(|message| message.fds) {
        // Another thread may have closed the descriptor already.
        let _ = run.proc.files.close(fd);
    }
}

/// Returns the result when nothing more will come.
pub(super) fn nothing(run: &mut SyscallContext<'_, '_>, incoming: &Incoming<'_>) -> Received {
    let flags = flags(incoming);
    begun(run).unwrap_or(Received { flags, ..Received::default() })
}

/// Returns the flags that a receive reports for a message.
fn flags(incoming: &Incoming<'_>) -> u32 {
    incoming.flags & msg::USER & !msg::EOR
}

/// Encodes a control message, its header first.
fn encode(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + data.len().next_multiple_of(8));
    bytes.extend((16 + data.len() as u32).to_le_bytes());
    bytes.extend(level.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Encodes a control message that stays in the buffer. NetBSD shows pointers for files; this kernel shows
/// none.
fn seen(control: &Control) -> Arrived {
    let bytes = match control {
        Control::Data(level, kind, data) => encode(*level, *kind, data),
        Control::Rights(rights) => encode(0xffff, 1, &vec![0; 8 * rights.files().len()]),
    };
    Arrived { bytes, fds: Vec::new() }
}

/// Gives the files in a message descriptors. If there are not enough, closes the files and returns
/// EMSGSIZE. NetBSD: `unp_externalize`.
fn externalize(
    run: &SyscallContext<'_, '_>,
    control: &[Control],
    incoming: &Incoming<'_>,
) -> Result<Vec<Arrived>> {
    if !incoming.control {
        return Ok(Vec::new());
    }
    let close_on_exec = incoming.flags & msg::CMSG_CLOEXEC != 0;
    let mut arrived: Vec<Arrived> = Vec::with_capacity(control.len());
    for message in control {
        let Control::Rights(rights) = message else {
            arrived.push(seen(message));
            continue;
        };
        let mut fds = Vec::new();
        for file in rights.files() {
            match run.proc.files.insert(file.clone(), 0, close_on_exec) {
                Ok(fd) => fds.push(fd),
                Err(_) => {
                    for fd in fds {
                        let _ = run.proc.files.close(fd);
                    }
                    return Err(Errno::EMSGSIZE.into());
                }
            }
        }
        let numbers: Vec<u8> = fds.iter().flat_map(|fd: &i32| fd.to_le_bytes()).collect();
        arrived.push(Arrived { bytes: encode(0xffff, 1, &numbers), fds });
    }
    Ok(arrived)
}
