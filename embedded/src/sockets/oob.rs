//! TCP's out-of-band data: the last byte sent with MSG_OOB, which overtakes all others and leaves a mark at
//! its place in the stream.
//!
//! Sources: NetBSD `sys/netinet/{tcp_input,tcp_usrreq}.c`, `sys/kern/uipc_socket.c`; send(2), sockatmark(3).

use super::options::option;
use super::send::msg;
use super::{Socket, State};
use crate::call::SyscallContext;
use kernel::Errno;

/// `signal.h`: urgent data has come.
const SIGURG: i32 = 16;

/// The out-of-band state of a socket. It has at most one mark, the latest.
#[derive(Default)]
pub(super) struct OutOfBand {
    /// The bytes of the buffer before the mark (`so_oobmark`).
    before: usize,
    /// True if no bytes are before the mark and none behind it were taken (`SS_RCVATMARK`).
    at_mark: bool,
    /// The out-of-band byte, `None` if it is in the buffer or was taken.
    byte: Option<u8>,
    /// True once the byte was taken.
    taken: bool,
}

impl State {
    /// Returns the part of `bytes` that goes into the buffer, where the last byte is out of band: all of it
    /// with SO_OOBINLINE, otherwise all but that byte.
    pub(super) fn without_urgent<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        match bytes {
            [plain @ .., _] if !self.on(option::OOBINLINE) => plain,
            _ => bytes,
        }
    }

    /// Sets the mark, after all of the bytes but the out-of-band one are in the buffer. NetBSD:
    /// `tcp_pulloutofband`.
    pub(super) fn mark(&mut self, byte: u8) {
        let inside = self.on(option::OOBINLINE);
        let before = self.buffer.len() - usize::from(inside);
        let byte = (!inside).then_some(byte);
        let at_mark = before == 0;
        self.oob = Some(Box::new(OutOfBand { before, at_mark, byte, taken: false }));
    }

    /// Returns `true` if there is a mark that was not passed.
    pub(super) fn has_mark(&self) -> bool {
        self.oob.as_ref().is_some_and(|oob| oob.before > 0 || oob.at_mark)
    }

    /// Returns `true` if the next byte is the one behind the mark.
    pub(super) fn is_at_mark(&self) -> bool {
        self.oob.as_ref().is_some_and(|oob| oob.at_mark)
    }

    /// Returns the most bytes that may be taken at once: those up to the mark.
    pub(super) fn to_mark(&self) -> usize {
        match self.oob.as_ref().map_or(0, |oob| oob.before) {
            0 => usize::MAX,
            before => before,
        }
    }

    /// Advances by `count` bytes, which are taken or, with `peek`, only looked at. Returns `true` if the
    /// mark was reached.
    pub(super) fn pass(&mut self, count: usize, peek: bool) -> bool {
        let Some(oob) = self.oob.as_mut().filter(|_| count > 0) else { return false };
        oob.at_mark = false;
        let reached = oob.before == count;
        if !peek && oob.before > 0 {
            oob.before = oob.before.saturating_sub(count);
            oob.at_mark = reached;
        }
        reached
    }

    /// Returns the out-of-band byte. EINVAL if there is none, or it was taken already, EAGAIN if it is
    /// still to come. NetBSD: `tcp_recvoob`.
    pub(super) fn take_urgent(&mut self, peek: bool) -> Result<u8, Errno> {
        let inside = self.on(option::OOBINLINE);
        if inside || !self.has_mark() {
            return Err(Errno::EINVAL);
        }
        let oob = self.oob.as_mut().filter(|oob| !oob.taken).ok_or(Errno::EINVAL)?;
        let byte = oob.byte.ok_or(Errno::EAGAIN)?;
        if !peek {
            (oob.byte, oob.taken) = (None, true);
        }
        Ok(byte)
    }
}

impl Socket {
    /// Sends SIGURG to the owner of this socket. NetBSD: `sohasoutofband`.
    pub(super) fn signal_urgent(&self, run: &SyscallContext<'_, '_>) {
        self.owner.send(run.system(), SIGURG);
    }
}

/// Returns `true` if a message with these flags is out of band, which needs a TCP socket.
pub(super) fn is_urgent(socket: &Socket, flags: u32) -> bool {
    socket.is_tcp() && flags & msg::OOB != 0
}
