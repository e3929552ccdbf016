//! Opening a file by its name, which the server fetches as a string, and closing it, in turns.

use client::numbers::{O_RDONLY, sys};
use rumpsp::wire;

use super::{Answer, Op};

/// Returns the next call: an open if no file is open, else a close.
pub fn next(opened: Option<u64>) -> Op {
    opened.map_or(Op::Open, Op::Close)
}

/// Appends a call that opens the file whose name is at this address.
pub fn open(out: &mut Vec<u8>, reqno: u64, path: u64) {
    wire::syscall_request(out, reqno, sys::OPEN, &[path, O_RDONLY as u64, 0]);
}

pub fn close(out: &mut Vec<u8>, reqno: u64, file: u64) {
    wire::syscall_request(out, reqno, sys::CLOSE, &[file]);
}

/// Returns the descriptor of the opened file, or `None` if the open failed.
pub fn opened(answer: &Answer) -> Option<u64> {
    (answer.values[0] <= i32::MAX as u64).then_some(answer.values[0])
}

pub fn is_closed(answer: &Answer) -> bool {
    answer.values[0] == 0
}
