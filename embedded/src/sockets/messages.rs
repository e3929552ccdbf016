//! The calls that send and receive, with their structures in the client's memory.
//!
//! Source: NetBSD `sys/kern/uipc_syscalls.c`; send(2), recv(2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::{copyin_name, room_for_name};
use super::receive::{self, Arrived, Incoming, Received};
use super::send::{self, Outgoing, msg};
use super::{Socket, get};
use crate::abi::{IOV_MAX, i32_at, i64_at, open, signal, u64_at};
use crate::call::{Answer, Result, Stop, SyscallContext};
use crate::file::OpenFile;
use crate::io::{INLINE_BYTES, Transfer, other_file};
use crate::sync::lock;
use crate::work;
use kernel::Errno;

/// The size of `struct msghdr`, and of `struct mmsghdr`, which ends with a count.
const HEADER: usize = 48;
const MANY_HEADER: u64 = 56;
const COUNT_AT: u64 = 48;

/// The most messages of one call, and the most control data.
const MESSAGES_MAX: u32 = 1024;
const CONTROL_MAX: u32 = 4096;

/// `struct msghdr`
struct Header {
    name: u64,
    name_len: u32,
    segments: u64,
    count: u32,
    control: u64,
    control_len: u32,
}

impl Header {
    fn copyin(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<Header> {
        let bytes = run.copyin::<HEADER>(addr)?;
        let word = |at| i32_at(&bytes, at) as u32;
        Ok(Header {
            name: u64_at(&bytes, 0),
            name_len: word(8),
            segments: u64_at(&bytes, 16),
            count: word(24),
            control: u64_at(&bytes, 32),
            control_len: word(40),
        })
    }

    /// Copies out the fields that may have changed: lengths and flags.
    fn copyout(&self, run: &mut SyscallContext<'_, '_>, addr: u64, flags: u32) -> Result<()> {
        run.copyout(&self.name_len.to_le_bytes(), addr + 8)?;
        run.copyout(&[self.control_len.to_le_bytes(), flags.to_le_bytes()].concat(), addr + 40)
    }
}

/// Returns the checked buffers of a message.
fn segments(run: &mut SyscallContext<'_, '_>, header: &Header) -> Result<Transfer> {
    let kept = run.kept().and_then(|kept| kept.segments.clone());
    let segments: Arc<[(u64, u64)]> = match kept {
        Some(segments) => segments,
        None => {
            if header.count > IOV_MAX {
                return Err(Errno::EMSGSIZE.into());
            }
            let mut bytes = vec![0; header.count as usize * 16];
            if !bytes.is_empty() {
                run.memory().copyin(header.segments, &mut bytes)?;
            }
            let parts = bytes.chunks_exact(16).map(|part| (u64_at(part, 0), u64_at(part, 8)));
            let segments = parts.collect();
            run.keep_segments(&segments)?;
            segments
        }
    };
    let mut total = 0u64;
    for &(_, len) in segments.iter() {
        total =
            total.checked_add(len).filter(|&sum| sum <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
    }
    work::spend(segments.len())?;
    if total > INLINE_BYTES {
        work::elsewhere()?;
    }
    Ok(Transfer::many(segments, total))
}

/// Returns a transfer of one buffer, arguments 1 and 2.
fn single(run: &SyscallContext<'_, '_>) -> Result<Transfer> {
    let (addr, total) = (run.word(1), run.word(2));
    if total > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    Ok(Transfer::one(addr, total))
}

/// Returns the answer of a send: a partial count if bytes were sent before it had to wait; a broken
/// connection raises SIGPIPE.
fn sent(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    flags: u32,
    result: Result<()>,
) -> Answer {
    let done = run.done() as i64;
    match result {
        Ok(()) => Ok([done, 0]),
        Err(Stop::Errno(Errno::EAGAIN | Errno::EINTR)) if done > 0 => Ok([done, 0]),
        Err(Stop::Sleep(_) | Stop::Flush) if run.call.interrupted && done > 0 => Ok([done, 0]),
        Err(Stop::Errno(Errno::EPIPE)) => {
            if !file.has(open::NOSIGPIPE) && flags & msg::NOSIGNAL == 0 {
                run.proc.raise(signal::PIPE);
            }
            Err(Errno::EPIPE.into())
        }
        Err(stop) => Err(unfinished(run, file, stop)),
    }
}

/// Keeps the open file for the next run, if the call goes on after this one.
fn unfinished(run: &mut SyscallContext<'_, '_>, file: &Arc<OpenFile>, stop: Stop) -> Stop {
    let waits = matches!(stop, Stop::Sleep(_) | Stop::Flush);
    if waits || stop == Stop::Asked && run.done() > 0 {
        run.keep().file = Some(Arc::downgrade(file));
    }
    stop
}

/// `ssize_t sendto(int s, const void *buf, size_t len, int flags, const struct sockaddr *to,
/// socklen_t tolen)`
pub(super) fn sendto(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (flags, to, to_len) = (run.uint(3), run.word(4), run.uint(5));
    let (file, socket) = get(run, run.int(0))?;
    if let Some(over) = other_file(run, &file) {
        return over;
    }
    let transfer = single(run)?;
    let to = if to == 0 { None } else { Some(copyin_name(run, to, to_len)?) };
    let out = Outgoing { transfer: &transfer, to, control: None, flags };
    let result = send::send(run, &file, &socket, &out);
    sent(run, &file, flags, result)
}

/// `ssize_t sendmsg(int s, const struct msghdr *msg, int flags)`
pub(super) fn sendmsg(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, flags) = (run.word(1), run.uint(2));
    let header = Header::copyin(run, addr)?;
    let (file, socket) = get(run, run.int(0))?;
    if let Some(over) = other_file(run, &file) {
        return over;
    }
    send_one(run, &file, &socket, &header, flags)
}

/// NetBSD: `do_sys_sendmsg_so`.
fn send_one(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    socket: &Arc<Socket>,
    header: &Header,
    flags: u32,
) -> Answer {
    let transfer = segments(run, header)?;
    let to = match header.name {
        0 => None,
        name => Some(copyin_name(run, name, header.name_len)?),
    };
    let control = match header.control {
        0 => None,
        _ if !(16..=CONTROL_MAX).contains(&header.control_len) => return Err(Errno::EINVAL.into()),
        addr => {
            let mut bytes = vec![0; header.control_len as usize];
            run.memory().copyin(addr, &mut bytes)?;
            Some(bytes)
        }
    };
    let out = Outgoing { transfer: &transfer, to, control, flags };
    let result = send::send(run, file, socket, &out);
    sent(run, file, flags, result)
}

/// Receives into `incoming`. `before` runs once it is certain that something has come.
fn receive(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
    before: &mut dyn FnMut(&mut SyscallContext<'_, '_>) -> Result<()>,
) -> Result<Received> {
    let result = try_receive(run, file, socket, incoming, before);
    let some = run.done() > 0;
    match result {
        Err(Stop::Errno(Errno::EAGAIN | Errno::EINTR)) if some => {
            Ok(receive::nothing(run, incoming))
        }
        Err(Stop::Sleep(_) | Stop::Flush) if run.call.interrupted && some => {
            Ok(receive::nothing(run, incoming))
        }
        Err(stop) => Err(unfinished(run, file, stop)),
        Ok(received) => Ok(received),
    }
}

fn try_receive(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    socket: &Arc<Socket>,
    incoming: &Incoming<'_>,
    before: &mut dyn FnMut(&mut SyscallContext<'_, '_>) -> Result<()>,
) -> Result<Received> {
    loop {
        let comes = receive::ready(run, file, socket, incoming)?;
        before(run)?;
        if !comes {
            return Ok(receive::nothing(run, incoming));
        }
        if let Some(received) = receive::take(run, socket, incoming)? {
            return Ok(received);
        }
    }
}

/// `ssize_t recvfrom(int s, void *buf, size_t len, int flags, struct sockaddr *from,
/// socklen_t *fromlen)`
pub(super) fn recvfrom(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (flags, from, len_addr) = (run.uint(3) & msg::USER, run.word(4), run.word(5));
    let (file, socket) = get(run, run.int(0))?;
    if let Some(over) = other_file(run, &file) {
        return over;
    }
    let transfer = single(run)?;
    let incoming = Incoming { transfer: &transfer, flags, control: false };
    let mut room = 0;
    let received = receive(run, &file, &socket, &incoming, &mut |run| {
        if from != 0 {
            room = room_for_name(run, len_addr)?;
        }
        Ok(())
    })?;
    if from != 0 {
        let len = copyout_name(run, received.name.as_deref(), from, room)?;
        run.copyout(&len.to_le_bytes(), len_addr)?;
    }
    Ok([run.done() as i64, 0])
}

/// Copies out the name of a sender, and returns how much of it there was room for.
fn copyout_name(
    run: &mut SyscallContext<'_, '_>,
    name: Option<&[u8]>,
    to: u64,
    room: usize,
) -> Result<u32> {
    let name = name.unwrap_or_default();
    let part = &name[..room.min(name.len())];
    if !part.is_empty() {
        run.copyout(part, to)?;
    }
    Ok(part.len() as u32)
}

/// `ssize_t recvmsg(int s, struct msghdr *msg, int flags)`
pub(super) fn recvmsg(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (addr, flags) = (run.word(1), run.uint(2) & msg::USER);
    let header = Header::copyin(run, addr)?;
    let (file, socket) = get(run, run.int(0))?;
    if let Some(over) = other_file(run, &file) {
        return over;
    }
    receive_one(run, &file, &socket, header, addr, flags)?;
    Ok([run.done() as i64, 0])
}

/// NetBSD: `do_sys_recvmsg_so`, and the work of its callers after it.
fn receive_one(
    run: &mut SyscallContext<'_, '_>,
    file: &Arc<OpenFile>,
    socket: &Arc<Socket>,
    mut header: Header,
    addr: u64,
    flags: u32,
) -> Result<()> {
    let transfer = segments(run, &header)?;
    let incoming = Incoming { transfer: &transfer, flags, control: header.control != 0 };
    let mut received = receive(run, file, socket, &incoming, &mut |_| Ok(()))?;
    if header.control != 0 {
        header.control_len =
            copyout_control(run, header.control, header.control_len, &mut received)?;
    }
    if header.name != 0 {
        let room = i32::try_from(header.name_len).map_err(|_| Errno::EINVAL)?;
        header.name_len = copyout_name(run, received.name.as_deref(), header.name, room as usize)?;
    }
    header.copyout(run, addr, received.flags)
}

/// Copies out control messages as far as there is room, and returns the bytes used. Files that do not fit
/// are closed. NetBSD: `copyout_msg_control`.
fn copyout_control(
    run: &mut SyscallContext<'_, '_>,
    addr: u64,
    room: u32,
    received: &mut Received,
) -> Result<u32> {
    let control = std::mem::take(&mut received.control);
    let (mut at, mut left) = (0i64, i64::from(room as i32));
    let mut rest = control.into_iter().peekable();
    while left > 0
        && let Some(message) = rest.peek()
    {
        let mut len = message.bytes.len() as i64;
        if left < len {
            received.flags |= msg::CTRUNC;
            if message.is_rights() {
                break;
            }
            len = left;
        }
        run.copyout(&message.bytes[..len as usize], addr.wrapping_add(at as u64))?;
        rest.next();
        if rest.peek().is_some() {
            len = (len as u64).next_multiple_of(8) as i64;
        }
        (at, left) = (at + len, left - len);
    }
    receive::close_all(run, rest);
    Ok(at as u32)
}

impl Arrived {
    fn is_rights(&self) -> bool {
        i32_at(&self.bytes, 4) == 0xffff && i32_at(&self.bytes, 8) == 1
    }
}

/// `int sendmmsg(int s, struct mmsghdr *mmsg, unsigned int vlen, unsigned int flags)`
pub(super) fn sendmmsg(run: &mut SyscallContext<'_, '_>) -> Answer {
    let flags = run.uint(3) & msg::USER;
    many(run, &mut |run, file, socket, addr, _| {
        let header = Header::copyin(run, addr)?;
        send_one(run, file, socket, &header, flags).map(|_| true)
    })
}

/// `int recvmmsg(int s, struct mmsghdr *mmsg, unsigned int vlen, unsigned int flags,
/// struct timespec *timeout)`
pub(super) fn recvmmsg(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (flags, timeout) = (run.uint(3) & msg::USER, run.word(4));
    if timeout != 0 && run.kept().is_none_or(|kept| kept.until.is_none()) {
        let wanted = run.copyin::<16>(timeout)?;
        // A timeout exceeded by less than a second does not count as over.
        let seconds = u64::try_from(i64_at(&wanted, 0)).unwrap_or(0).saturating_add(1);
        let nanos = u32::try_from(i64_at(&wanted, 8)).unwrap_or(0).min(999_999_999);
        let until = Instant::now().checked_add(Duration::new(seconds, nanos));
        run.keep().until = until;
    }
    many(run, &mut |run, file, socket, addr, done| {
        let mut flags = flags & !msg::WAITFORONE;
        if done > 0 && run.uint(3) & msg::WAITFORONE != 0 {
            flags |= msg::DONTWAIT;
        }
        let header = Header::copyin(run, addr)?;
        match receive_one(run, file, socket, header, addr, flags) {
            Err(Stop::Errno(Errno::EAGAIN)) if done > 0 => Ok(false),
            received => received.map(|()| true),
        }
    })
}

/// The body for one of several messages, given its address and the number of messages before it. Returns
/// `false` at the end.
type Each<'e> = dyn FnMut(&mut SyscallContext<'_, '_>, &Arc<OpenFile>, &Arc<Socket>, u64, u32) -> Result<bool>
    + 'e;

/// Sends or receives several messages. What one message has copied out is sent before the next begins. An
/// error after the first message is kept for the next call.
fn many(run: &mut SyscallContext<'_, '_>, each: &mut Each<'_>) -> Answer {
    let (file, socket) = get(run, run.int(0))?;
    let (base, count) = (run.word(1), run.uint(2).min(MESSAGES_MAX));
    let done = run.kept().map_or(0, |kept| kept.messages);
    match other_file(run, &file) {
        Some(over) if done == 0 => return over,
        Some(_) => return Ok([done.into(), 0]),
        None => {}
    }
    if done >= count || done > 0 && run.kept().is_some_and(is_over) {
        return Ok([done.into(), 0]);
    }
    let addr = base.wrapping_add(u64::from(done) * MANY_HEADER);
    match each(run, &file, &socket, addr, done) {
        Ok(true) => {
            run.copyout(&(run.done() as u32).to_le_bytes(), addr.wrapping_add(COUNT_AT))?;
            run.call.progress.done = 0;
            run.call.progress.deadline = None;
            run.memory().forget();
            let kept = run.keep();
            kept.messages = done + 1;
            (kept.segments, kept.file) = (None, Some(Arc::downgrade(&file)));
            if done + 1 == count || run.kept().is_some_and(is_over) {
                return Ok([i64::from(done) + 1, 0]);
            }
            Err(Stop::Flush)
        }
        Ok(false) => Ok([done.into(), 0]),
        Err(Stop::Errno(errno)) => {
            lock(&socket.state).error = Some(errno);
            if done > 0 { Ok([done.into(), 0]) } else { Err(errno.into()) }
        }
        Err(Stop::Sleep(_) | Stop::Flush) if run.call.interrupted && done > 0 => {
            Ok([done.into(), 0])
        }
        Err(stop) => Err(stop),
    }
}

/// Returns `true` if the time for several messages is over.
fn is_over(kept: &crate::call::CallState) -> bool {
    kept.until.is_some_and(|until| Instant::now() >= until)
}
