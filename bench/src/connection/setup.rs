//! What a connection does before it counts: opens files, makes pipes.

use client::numbers::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, sys};
use rumpsp::wire;

use super::client::{BUFFER, PATH};
use crate::workload::{Answer, Call};

/// One request of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new file, to be read and written,
    Open,
    /// that has no name from here on: it goes when the connection does,
    Unlink,
    /// filled for those who read it.
    Fill,
    /// A file that is to be opened by its name,
    Create,
    /// and is not open.
    CloseCreated,
    /// The pipe that the first of a pair writes to.
    PipeThere,
    /// The pipe that it reads from.
    PipeBack,
    /// The token for the second of a pair.
    Prefork,
}

/// The steps of a connection.
pub fn steps(call: Call, is_first_of_pair: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if call.needs_file() {
        steps.extend([Step::Open, Step::Unlink, Step::Fill]);
    }
    if call.needs_path() {
        steps.extend([Step::Create, Step::CloseCreated]);
    }
    if is_first_of_pair {
        steps.extend([Step::PipeThere, Step::PipeBack, Step::Prefork]);
    }
    steps
}

impl Step {
    /// Appends its request. `file` is the one it is about, `size` how large that is to be.
    pub fn request(self, out: &mut Vec<u8>, reqno: u64, file: u64, size: u32) {
        let mut call = |number, args: &[u64]| wire::syscall_request(out, reqno, number, args);
        match self {
            Step::Open => call(sys::OPEN, &[PATH, (O_RDWR | O_CREAT | O_EXCL) as u64, 0o600]),
            Step::Unlink => call(sys::UNLINK, &[PATH]),
            Step::Fill => call(sys::PWRITE, &[file, BUFFER, size.into(), 0, 0]),
            Step::Create => call(sys::OPEN, &[PATH, (O_RDONLY | O_CREAT | O_EXCL) as u64, 0o600]),
            Step::CloseCreated => call(sys::CLOSE, &[file]),
            Step::PipeThere | Step::PipeBack => call(sys::PIPE, &[]),
            Step::Prefork => wire::prefork_request(out, reqno),
        }
    }

    /// Whether it did what it was to do.
    pub fn check(self, answer: &Answer, size: u32) -> Result<(), String> {
        let value = answer.values[0];
        if answer.error != 0 {
            let error = answer.error;
            return Err(format!("{self:?} ended with NetBSD's error {error}"));
        }
        match self {
            Step::Fill if value != u64::from(size) => {
                Err(format!("the server wrote {value} bytes of {size}"))
            }
            _ => Ok(()),
        }
    }
}
