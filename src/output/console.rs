//! The console of a kernel. What the kernel prints, a byte at a time, goes to stdout by a [`Queue`], so
//! that a client which writes to the console never waits for the reader of stdout.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use super::queue::Queue;
use super::{block_signals, write};

/// The name of the thread that writes.
const THREAD: &str = "console";

/// The longest line; a longer one is queued in pieces.
const LINE: usize = 1024;

static CONSOLE: OnceLock<Console> = OnceLock::new();

struct Console {
    /// The line that has not ended yet. It is queued under this lock, so that lines stay in order.
    line: Mutex<Vec<u8>>,
    queue: Queue,
}

impl Console {
    fn line(&self) -> MutexGuard<'_, Vec<u8>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what there is of the line, under its lock.
    fn queue_line(&self, line: &mut Vec<u8>) {
        if !line.is_empty() {
            self.queue.push(line);
            line.clear();
        }
    }
}

/// Returns the console. From its first use on, a thread writes what is queued.
fn console() -> &'static Console {
    CONSOLE.get_or_init(|| {
        // If the thread cannot be made, `flush` tries again.
        drop(Builder::new().name(THREAD.into()).spawn(write_queued));
        Console { line: Mutex::default(), queue: Queue::new("standard output") }
    })
}

/// Queues a byte that the kernel prints.
pub fn print_byte(byte: u8) {
    let console = console();
    let mut line = console.line();
    line.push(byte);
    if byte == b'\n' || line.len() == LINE {
        console.queue_line(&mut line);
    }
}

/// Writes what is queued, for ever.
fn write_queued() {
    block_signals();
    console().queue.write(|bytes| write(io::stdout(), bytes).map_err(|(_, left)| left));
}

/// Waits until what is queued is written, including an unfinished line, but no longer than `most`.
pub fn flush(most: Duration) {
    let Some(console) = CONSOLE.get() else { return };
    console.queue_line(&mut console.line());
    console.queue.wait_until_written_by(THREAD, write_queued, most);
}
