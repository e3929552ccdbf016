//! pread and pwrite at the start of a file of the connection's own: bytes copied out and in.

use client::numbers::sys;
use rumpsp::wire;

use super::Answer;

/// Appends a call that reads `size` bytes to the buffer at this address.
pub fn read(out: &mut Vec<u8>, reqno: u64, file: u64, buffer: u64, size: u32) {
    wire::syscall_request(out, reqno, sys::PREAD, &arguments(file, buffer, size));
}

/// Appends a call that writes `size` bytes from the buffer at this address.
pub fn write(out: &mut Vec<u8>, reqno: u64, file: u64, buffer: u64, size: u32) {
    wire::syscall_request(out, reqno, sys::PWRITE, &arguments(file, buffer, size));
}

/// Returns the arguments: file, buffer, length, a slot for alignment, offset.
fn arguments(file: u64, buffer: u64, size: u32) -> [u64; 5] {
    [file, buffer, size.into(), 0, 0]
}

/// Returns `true` if all bytes were read, and came before the answer did.
pub fn is_read(answer: &Answer, size: u32, copied: u64) -> bool {
    (answer.values[0], copied) == (size.into(), size.into())
}

/// Returns `true` if all bytes were written.
pub fn is_written(answer: &Answer, size: u32) -> bool {
    answer.values[0] == u64::from(size)
}
