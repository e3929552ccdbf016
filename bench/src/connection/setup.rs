//! The setup of a connection before it counts: opening files, making pipes.

use client::numbers::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, sys};
use rumpsp::wire;

use super::client::{BUFFER, PATH};
use crate::workload::{Answer, Call};

/// One request of the setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a new file to read and write.
    Open,
    /// Removes the file's name: the file goes when the connection does.
    Unlink,
    /// Fills the file for calls that read it.
    Fill,
    /// Makes a file to be opened by its name.
    Create,
    /// Closes that file.
    CloseCreated,
    /// Makes the pipe that the first client of a pair writes to.
    PipeThere,
    /// Makes the pipe that the first client of a pair reads from.
    PipeBack,
    /// Asks for the token for the second client of a pair.
    Prefork,
}

/// Returns the steps of a connection.
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
    /// Appends the step's request. `file` is the file it is about, `size` the file's size.
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

    /// Checks the answer to the step's request.
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
