//! getpid: nothing but a way there and back.

use client::numbers::sys;
use rumpsp::wire;

use super::Answer;

pub fn request(out: &mut Vec<u8>, reqno: u64) {
    wire::syscall_request(out, reqno, sys::GETPID, &[]);
}

pub fn is_done(answer: &Answer) -> bool {
    answer.values[0] > 0
}
