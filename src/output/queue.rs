//! Lines that wait for the thread that writes them. There is a bound; lines over it are lost, and counted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes that wait.
const MOST: usize = 256 << 10;

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Something has changed that somebody may wait for.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Lines that wait, one behind the other.
    lines: Vec<u8>,
    /// There was no room for a line: the next ones are lost, too, until those that wait are taken, so that
    /// it is known where they are missing.
    is_full: bool,
    /// Lines that were lost and have not been told of.
    lost: u64,
    /// Lines were taken and are not written yet.
    is_writing: bool,
    has_writer: bool,
}

impl Queue {
    /// Has lines written, if there is room for them.
    pub fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        state.is_full |= state.lines.len() + lines.len() > MOST;
        if state.is_full {
            state.lost += count(lines);
        } else {
            state.lines.extend_from_slice(lines);
            self.changed.notify_all();
        }
    }

    /// Hands lines to `write` for ever, without holding up those who push. What it returns as left is lost.
    pub fn write(&self, mut write: impl FnMut(&[u8]) -> Result<(), &[u8]>) {
        self.lock().has_writer = true;
        loop {
            let (lines, lost) = self.take();
            let mut left = write(&lines).map_or_else(count, |()| 0);
            if lost > 0 {
                let told =
                    format!("rumpring: {lost} lines were lost here, as stderr did not take them\n");
                if left > 0 || write(told.as_bytes()).is_err() {
                    left += lost;
                }
            }
            let mut state = self.lock();
            state.is_writing = false;
            state.lost += left;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes them, and the number of those lost.
    fn take(&self) -> (Vec<u8>, u64) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| state.lines.is_empty());
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        (state.is_full, state.is_writing) = (false, true);
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.lost))
    }

    /// Whether there is a thread that writes.
    pub fn has_writer(&self) -> bool {
        self.lock().has_writer
    }

    /// Waits until all lines are written, but no longer than that.
    pub fn wait_until_written(&self, most: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), most, is_busy));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}
