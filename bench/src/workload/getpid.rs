//! getpid: a call that does nothing, and so measures only the round trip.

use client::numbers::sys;
use rumpsp::wire;

use super::Answer;

pub fn request(out: &mut Vec<u8>, reqno: u64) {
    wire::syscall_request(out, reqno, sys::GETPID, &[]);
}

pub fn is_done(answer: &Answer) -> bool {
    answer.values[0] > 0
}
