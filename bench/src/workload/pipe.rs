//! A byte that two connections pass to and fro over two pipes. Reads sleep in the server.
//!
//! The first connection of a pair makes both pipes and forks; the second is its child. Each call slot
//! of the first writes, then reads; each of the second reads, then writes. So however many calls are in
//! flight, there are never more reads than bytes to come, and no more bytes than slots, which a pipe
//! has room for.

use client::numbers::sys;
use rumpsp::wire;

use super::{Answer, Op};

/// The ends of the pipes that one connection of the pair uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub read: u64,
    pub write: u64,
}

/// Returns the operation after `last`; `None` means that nothing was done yet.
pub fn next(last: Option<Op>, is_first: bool) -> Op {
    match last {
        Some(Op::PipeWrite) => Op::PipeRead,
        Some(Op::PipeRead) => Op::PipeWrite,
        _ if is_first => Op::PipeWrite,
        _ => Op::PipeRead,
    }
}

/// Appends a call that reads a byte to this address.
pub fn read(out: &mut Vec<u8>, reqno: u64, ends: Ends, buffer: u64) {
    wire::syscall_request(out, reqno, sys::READ, &[ends.read, buffer, 1]);
}

/// Appends a call that writes a byte from this address.
pub fn write(out: &mut Vec<u8>, reqno: u64, ends: Ends, buffer: u64) {
    wire::syscall_request(out, reqno, sys::WRITE, &[ends.write, buffer, 1]);
}

pub fn is_read(answer: &Answer, copied: u64) -> bool {
    (answer.values[0], copied) == (1, 1)
}

pub fn is_written(answer: &Answer) -> bool {
    answer.values[0] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_take_turns() {
        let mut first = None;
        let mut second = None;
        for _ in 0..5 {
            first = Some(next(first, true));
            second = Some(next(second, false));
            assert_ne!(first, second);
        }
        assert_eq!((first, second), (Some(Op::PipeWrite), Some(Op::PipeRead)));
    }
}
