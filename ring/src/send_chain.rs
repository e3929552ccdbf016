//! The steps of a round of a send: the bytes and iovecs each takes, and its request.

use io_uring::{opcode, squeue, types};

/// The most iovecs of a SENDMSG.
pub(crate) const MAX_IOVECS: usize = 64;
/// The most steps of a round.
pub(crate) const MAX_STEPS: usize = 8;
/// The most bytes of a step: results are an `i32`, and the kernel sends no more than this at once.
pub(crate) const MAX_STEP_BYTES: usize = 1 << 30;
/// `MSG_NOSIGNAL`: sending to a peer that is gone is an error, not a SIGPIPE.
pub(crate) const FLAGS: i32 = libc::MSG_NOSIGNAL;

/// `IORING_RECVSEND_FIXED_BUF`.
const FIXED_BUF: u16 = 1 << 2;
/// `IORING_SEND_ZC_REPORT_USAGE`.
const REPORT_USAGE: u16 = 1 << 3;

/// The steps of a round.
#[derive(Default)]
pub(crate) struct SendChain {
    send_chain: [Step; MAX_STEPS],
    len: usize,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Step {
    pub iovecs: usize,
    pub bytes: usize,
}

impl SendChain {
    /// Adds an iovec to the last step or begins another step. Returns `false` if the iovec must wait
    /// for the next round.
    pub fn add(&mut self, bytes: usize, most: usize, widest: usize) -> bool {
        let last = self.len.checked_sub(1).map(|last| self.send_chain[last]);
        let fits = |step: Step| step.iovecs < widest && step.bytes + bytes <= MAX_STEP_BYTES;
        if !last.is_some_and(fits) {
            if self.len == most.min(MAX_STEPS) {
                return false;
            }
            self.len += 1;
        }
        let step = &mut self.send_chain[self.len - 1];
        step.iovecs += 1;
        step.bytes += bytes;
        true
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Step> {
        self.send_chain[..self.len].iter()
    }
}

impl<'a> IntoIterator for &'a SendChain {
    type Item = &'a Step;
    type IntoIter = std::slice::Iter<'a, Step>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Returns the header of a step's message. It points to `len` iovecs, which must not move before the
/// step is submitted.
pub(crate) fn header(iovecs: *mut libc::iovec, len: usize) -> libc::msghdr {
    // SAFETY: a msghdr of zeros has no name, data or control messages.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iovecs;
    header.msg_iovlen = len as _;
    header
}

/// Returns one SEND or SENDMSG, or its zero copy variant out of the registered arena.
pub(crate) fn step_entry(
    fd: types::Fixed,
    header: &libc::msghdr,
    flags: i32,
    zero_copy: bool,
) -> squeue::Entry {
    if header.msg_iovlen > 1 {
        return match zero_copy {
            false => opcode::SendMsg::new(fd, header).flags(flags as u32).build(),
            true => opcode::SendMsgZc::new(fd, header)
                .ioprio(FIXED_BUF | REPORT_USAGE)
                .flags(flags as u32)
                .build(),
        };
    }
    // SAFETY: a header of one iovec points to that iovec, in the send's state.
    let iovec = unsafe { *header.msg_iov };
    let (base, len) = (iovec.iov_base.cast_const().cast(), iovec.iov_len as u32);
    match zero_copy {
        false => opcode::Send::new(fd, base, len).flags(flags).build(),
        true => opcode::SendZc::new(fd, base, len)
            .buf_index(Some(0))
            .zc_flags(REPORT_USAGE)
            .flags(flags)
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(send_chain: &SendChain) -> Vec<(usize, usize)> {
        send_chain.iter().map(|step| (step.iovecs, step.bytes)).collect()
    }

    #[test]
    fn a_step_is_filled_before_the_next_begins() {
        let mut send_chain = SendChain::default();
        assert!((0..5).all(|_| send_chain.add(10, 3, 2)));
        assert_eq!(widths(&send_chain), [(2, 20), (2, 20), (1, 10)]);
        assert!(
            send_chain.add(10, 3, 2) && !send_chain.add(10, 3, 2),
            "three steps of two are six"
        );
    }

    #[test]
    fn a_step_is_bounded_in_bytes() {
        let mut send_chain = SendChain::default();
        assert!(
            send_chain.add(MAX_STEP_BYTES - 1, 8, 64)
                && send_chain.add(1, 8, 64)
                && send_chain.add(1, 8, 64)
        );
        assert_eq!(widths(&send_chain), [(2, MAX_STEP_BYTES), (1, 1)]);
        let mut send_chain = SendChain::default();
        assert!((0..MAX_STEPS).all(|_| send_chain.add(1, 100, 1)) && !send_chain.add(1, 100, 1));
    }
}
