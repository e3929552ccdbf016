//! One call of any kind: its request, and the check of its answer.

use super::pipe::Ends;
use super::{copyinstr, fork, getpid, pipe, transfer};

/// A call to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Getpid,
    /// Reads this many bytes.
    Read(u32),
    /// Writes this many bytes.
    Pwrite(u32),
    Open,
    /// Closes this file.
    Close(u64),
    PipeRead,
    PipeWrite,
    Fork,
    Connect,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// NetBSD's error number, 0 for none.
    pub error: u32,
    pub values: [u64; 2],
}

/// The things a call refers to: files of the connection, addresses of its memory.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub file: u64,
    pub path: u64,
    pub buffer: u64,
    pub ends: Ends,
}

impl Op {
    /// Returns the most bytes that are copied in or out of the call's buffer.
    pub fn size(self) -> u32 {
        match self {
            Op::Read(size) | Op::Pwrite(size) => size,
            Op::PipeRead | Op::PipeWrite => 1,
            _ => 0,
        }
    }

    /// Appends the call's request. A [`Op::Connect`] has no request but its connection.
    pub fn request(self, out: &mut Vec<u8>, reqno: u64, names: Names) {
        let Names { file, path, buffer, ends } = names;
        match self {
            Op::Getpid => getpid::request(out, reqno),
            Op::Read(size) => transfer::read(out, reqno, file, buffer, size),
            Op::Pwrite(size) => transfer::write(out, reqno, file, buffer, size),
            Op::Open => copyinstr::open(out, reqno, path),
            Op::Close(file) => copyinstr::close(out, reqno, file),
            Op::PipeRead => pipe::read(out, reqno, ends, buffer),
            Op::PipeWrite => pipe::write(out, reqno, ends, buffer),
            Op::Fork => fork::prefork(out, reqno),
            Op::Connect => {}
        }
    }

    /// Checks that the call succeeded, and copied this many bytes out: a load of failures measures
    /// nothing.
    pub fn check(self, answer: &Answer, copied: u64) -> Result<(), String> {
        let is_done = match self {
            Op::Getpid => getpid::is_done(answer),
            Op::Read(size) => transfer::is_read(answer, size, copied),
            Op::Pwrite(size) => transfer::is_written(answer, size),
            Op::Open => copyinstr::opened(answer).is_some(),
            Op::Close(_) => copyinstr::is_closed(answer),
            Op::PipeRead => pipe::is_read(answer, copied),
            Op::PipeWrite => pipe::is_written(answer),
            // These calls do not end with an answer.
            Op::Fork | Op::Connect => false,
        };
        if answer.error == 0 && is_done {
            return Ok(());
        }
        let (error, value) = (answer.error, answer.values[0]);
        Err(format!(
            "{self:?} returned {value} with NetBSD's error {error}; {copied} bytes were copied out"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_or_a_short_copy_is_no_success() {
        let good = |value| Answer { error: 0, values: [value, 0] };
        for (op, value, copied) in [
            (Op::Getpid, 2, 0),
            (Op::Read(10), 10, 10),
            (Op::Pwrite(10), 10, 0),
            (Op::Open, 0, 0),
            (Op::Close(3), 0, 0),
            (Op::PipeRead, 1, 1),
            (Op::PipeWrite, 1, 0),
        ] {
            assert_eq!(op.check(&good(value), copied), Ok(()), "{op:?}");
            let failed = Answer { error: 9, ..good(value) };
            assert!(op.check(&failed, copied).unwrap_err().contains("error 9"), "{op:?}");
        }
        for (op, value, copied) in [
            (Op::Getpid, 0, 0),
            (Op::Read(10), 9, 10),
            (Op::Read(10), 10, 9),
            (Op::Pwrite(10), 0, 0),
            (Op::Open, u64::MAX, 0),
            (Op::Close(3), 1, 0),
            (Op::PipeRead, 0, 0),
            (Op::PipeRead, 1, 0),
            (Op::PipeWrite, 0, 0),
            (Op::Fork, 0, 0),
            (Op::Connect, 0, 0),
        ] {
            assert!(op.check(&good(value), copied).is_err(), "{op:?} {value} {copied}");
        }
    }
}
