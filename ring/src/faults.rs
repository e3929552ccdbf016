//! For tests: requests and system calls that fail as the host might have them fail.

use std::collections::VecDeque;
use std::io;

use io_uring::{opcode, squeue};

use crate::token::{Op, Token};

/// What is yet to fail.
#[derive(Default)]
pub(crate) struct Faults {
    /// The next request of this kind is not made, and completes with this result.
    pub requests: Vec<(Op, i32)>,
    /// The next `io_uring_enter` fails with this errno.
    pub enters: VecDeque<i32>,
}

impl Faults {
    /// The entries with those replaced that are to fail. Their links stay.
    pub fn spoil(&mut self, chain: &[squeue::Entry]) -> Vec<squeue::Entry> {
        chain.iter().map(|entry| self.fault(entry).unwrap_or_else(|| entry.clone())).collect()
    }

    fn fault(&mut self, entry: &squeue::Entry) -> Option<squeue::Entry> {
        let op = Token::unpack(entry.get_user_data())?.op;
        let at = self.requests.iter().position(|&(of, _)| of == op)?;
        let (_, result) = self.requests.remove(at);
        let linked = if crate::queue::is_linked(entry) {
            squeue::Flags::IO_LINK
        } else {
            squeue::Flags::empty()
        };
        Some(nop(result).flags(linked).user_data(entry.get_user_data()))
    }

    /// The failure of this enter, if it is to fail.
    pub fn enter(&mut self) -> io::Result<()> {
        self.enters.pop_front().map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

/// A request that completes with this result: `IORING_NOP_INJECT_RESULT`, Linux 6.10.
fn nop(result: i32) -> squeue::Entry {
    const INJECT_RESULT: i32 = 1;
    let mut entry = opcode::Nop::new().build();
    // SAFETY: an entry is a `struct io_uring_sqe` of 64 bytes, aligned to 8; `len` is at offset 24 and
    // `nop_flags` at 28.
    unsafe {
        let words = (&raw mut entry).cast::<i32>();
        words.add(6).write(result);
        words.add(7).write(INJECT_RESULT);
    }
    entry
}
