//! TCP's out-of-band data: the last byte sent with MSG_OOB, which goes past all others and leaves a mark
//! where it would have been.
//!
//! Sources: NetBSD `sys/netinet/{tcp_input,tcp_usrreq}.c`, `sys/kern/uipc_socket.c`; send(2), sockatmark(3).

use super::options::option;
use super::send::msg;
use super::{Socket, State};
use crate::call::SyscallContext;
use kernel::Errno;

/// `signal.h`: something urgent has come.
const SIGURG: i32 = 16;

/// What is urgent in a socket. There is one mark at most: the last to come.
#[derive(Default)]
pub(super) struct OutOfBand {
    /// How many bytes of the buffer come before the mark (`so_oobmark`).
    before: usize,
    /// Nothing does, and nothing behind it was taken (`SS_RCVATMARK`).
    at_mark: bool,
    /// The byte, if it is not in the buffer and was not taken.
    byte: Option<u8>,
    /// It was taken.
    taken: bool,
}

impl State {
    /// What goes into the buffer of `bytes`, the last of which is urgent: all with SO_OOBINLINE, else all but
    /// that one.
    pub(super) fn without_urgent<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        match bytes {
            [plain @ .., _] if !self.on(option::OOBINLINE) => plain,
            _ => bytes,
        }
    }

    /// All but the urgent byte of what was sent is in the buffer. NetBSD: `tcp_pulloutofband`.
    pub(super) fn mark(&mut self, byte: u8) {
        let inside = self.on(option::OOBINLINE);
        let before = self.buffer.len() - usize::from(inside);
        let byte = (!inside).then_some(byte);
        let at_mark = before == 0;
        self.oob = Some(Box::new(OutOfBand { before, at_mark, byte, taken: false }));
    }

    /// Whether there is a mark that was not passed.
    pub(super) fn has_mark(&self) -> bool {
        self.oob.as_ref().is_some_and(|oob| oob.before > 0 || oob.at_mark)
    }

    /// Whether the next byte is the one behind the mark.
    pub(super) fn is_at_mark(&self) -> bool {
        self.oob.as_ref().is_some_and(|oob| oob.at_mark)
    }

    /// How many bytes may be taken at once: no further than to the mark.
    pub(super) fn to_mark(&self) -> usize {
        match self.oob.as_ref().map_or(0, |oob| oob.before) {
            0 => usize::MAX,
            before => before,
        }
    }

    /// `count` bytes are taken, or with `peek` only looked at. Says whether that was up to the mark.
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

    /// The urgent byte. EINVAL if there is none, or it was taken already, EAGAIN if it is still to come.
    /// NetBSD: `tcp_recvoob`.
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
    /// Tells whom the signals of this socket are for that something urgent has come. NetBSD:
    /// `sohasoutofband`.
    pub(super) fn signal_urgent(&self, run: &SyscallContext<'_, '_>) {
        self.owner.send(run.system(), SIGURG);
    }
}

/// Whether a message of a TCP socket is out of band.
pub(super) fn is_urgent(socket: &Socket, flags: u32) -> bool {
    socket.is_tcp() && flags & msg::OOB != 0
}
