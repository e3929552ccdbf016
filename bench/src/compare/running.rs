//! The servers that run now, so that none is left behind when the program ends in the middle of a turn.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The servers' process descriptors, since a process's number may belong to another process once it has
/// ended.
static RUNNING: Mutex<Vec<Weak<OwnedFd>>> = Mutex::new(Vec::new());

/// A running server, which is ended with the program as long as this lives.
pub struct Running(#[expect(dead_code, reason = "it only has to live")] Arc<OwnedFd>);

impl Running {
    pub fn new(child: &Child) -> rustix::io::Result<Running> {
        let process = Arc::new(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?);
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|process| process.strong_count() > 0);
        running.push(Arc::downgrade(&process));
        Ok(Running(process))
    }
}

/// Tells all running servers to end.
pub fn end_all() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for process in running.iter().filter_map(Weak::upgrade) {
        // The server may have ended by now.
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
}
