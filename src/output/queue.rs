//! A bounded queue of lines for the thread that writes them. Lines over the bound are lost, and counted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes that wait.
const MOST: usize = 256 << 10;

pub struct Queue {
    /// The name of the stream, for the message that lines were lost.
    stream: &'static str,
    state: Mutex<State>,
    /// Signalled when the state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The lines that wait, one after the other.
    lines: Vec<u8>,
    /// True if there was no room for a line. The next lines are lost, too, until those that wait are
    /// taken, so that all lost lines are missing at one place.
    is_full: bool,
    /// The number of lines that were lost and have not been reported.
    lost: u64,
    /// True if lines were taken and are not written yet.
    is_writing: bool,
    has_writer: bool,
}

impl Queue {
    /// Creates a queue of lines for this stream.
    pub fn new(stream: &'static str) -> Self {
        Self { stream, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Queues lines, if there is room for them.
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

    /// Hands lines to `write`, for ever, without delaying those who push. The bytes that `write` returns
    /// as left are lost. If another thread does this already, waits for ever: two could not keep lines in
    /// order.
    pub fn write(&self, mut write: impl FnMut(&[u8]) -> Result<(), &[u8]>) {
        let others = self.changed.wait_while(self.lock(), |state| state.has_writer);
        others.unwrap_or_else(PoisonError::into_inner).has_writer = true;
        loop {
            let (lines, lost) = self.take();
            let mut left = write(&lines).map_or_else(count, |()| 0);
            if lost > 0 {
                let stream = self.stream;
                let told = format!(
                    "rumpring: {lost} lines were lost here, as {stream} did not take them\n"
                );
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

    /// Waits for lines and takes them, and the number of lost lines.
    fn take(&self) -> (Vec<u8>, u64) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| state.lines.is_empty());
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        (state.is_full, state.is_writing) = (false, true);
        (std::mem::take(&mut state.lines), std::mem::take(&mut state.lost))
    }

    /// Returns `true` if there is a thread that writes.
    pub fn has_writer(&self) -> bool {
        self.lock().has_writer
    }

    /// Waits until all lines are written, but no longer than `most`.
    pub fn wait_until_written(&self, most: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), most, is_busy));
    }

    /// Waits as [`Queue::wait_until_written`] does. If no thread writes yet, starts one of this name that
    /// runs `write`.
    pub fn wait_until_written_by(&self, name: &str, write: fn(), most: Duration) {
        if !self.has_writer() {
            // The program failed before there was such a thread. If none can be started, the lines are
            // lost.
            drop(std::thread::Builder::new().name(name.into()).spawn(write));
        }
        self.wait_until_written(most);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Barrier};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Starts a thread that writes to the returned channel, as text, unless `fails` returns `true`.
    fn writer(queue: &Arc<Queue>, fails: fn(&[u8]) -> bool) -> Receiver<String> {
        let (queue, (sender, written)) = (queue.clone(), channel());
        std::thread::spawn(move || {
            queue.write(|lines| match fails(lines) {
                true => Err(lines),
                false => {
                    // A test that has seen enough may have gone.
                    let _ = sender.send(String::from_utf8(lines.to_vec()).unwrap());
                    Ok(())
                }
            });
        });
        written
    }

    #[test]
    fn lines_come_in_order() {
        let queue = Arc::new(Queue::new("stderr"));
        queue.push(b"before\n");
        assert!(!queue.has_writer());
        let written = writer(&queue, |_| false);
        (0..100).for_each(|n| queue.push(format!("{n}\n").as_bytes()));
        queue.wait_until_written(PATIENCE);
        assert!(queue.has_writer());
        let expected = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        assert_eq!(written.try_iter().collect::<String>(), format!("before\n{expected}"));
    }

    #[test]
    fn of_two_that_would_write_one_does() {
        let queue = Arc::new(Queue::new("stderr"));
        let met = Arc::new(Barrier::new(2));
        let (its, other, (sender, written)) = (queue.clone(), met.clone(), channel());
        std::thread::spawn(move || {
            its.write(|lines| {
                other.wait();
                other.wait();
                sender.send(lines.to_vec()).unwrap();
                Ok(())
            });
        });
        queue.push(b"one\n");
        met.wait();
        // The first is in the middle of a line, and the second has time for the next one.
        let second = writer(&queue, |_| false);
        queue.push(b"two\n");
        std::thread::sleep(Duration::from_millis(20));
        met.wait();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"one\n");
        met.wait();
        met.wait();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"two\n");
        assert!(second.try_recv().is_err());
    }

    #[test]
    fn lines_over_the_bound_are_lost_and_counted_where_they_are_missing() {
        let queue = Arc::new(Queue::new("stderr"));
        let most = vec![b'x'; MOST - 1];
        queue.push(&[&most[..], b"\n"].concat());
        assert_eq!(queue.lock().lost, 0, "at the bound there is room");
        queue.push(b"a\n");
        queue.push(b"b\nc\n");
        assert_eq!(queue.lock().lines.len(), MOST);
        assert_eq!(queue.lock().lost, 3);
        let written = writer(&queue, |_| false);
        queue.wait_until_written(PATIENCE);
        queue.push(b"after\n");
        queue.wait_until_written(PATIENCE);
        let text = written.try_iter().collect::<String>();
        assert!(text.starts_with("xxx"));
        let told = "x\nrumpring: 3 lines were lost here, as stderr did not take them\nafter\n";
        assert!(text.ends_with(told), "{}", &text[MOST - 10..]);
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_with_the_next_that_are() {
        let queue = Arc::new(Queue::new("stderr"));
        let written = writer(&queue, |lines| lines.starts_with(b"full"));
        queue.push(b"full 1\nfull 2\n");
        queue.wait_until_written(PATIENCE);
        queue.push(b"full 3\n");
        queue.wait_until_written(PATIENCE);
        assert_eq!(written.try_recv().ok(), None, "nothing is told of to what takes nothing");
        queue.push(b"again\n");
        queue.wait_until_written(PATIENCE);
        let text = written.try_iter().collect::<String>();
        assert!(text.starts_with("again\nrumpring: 3 lines were lost"), "{text}");
    }

    #[test]
    fn who_says_something_does_not_wait_for_who_writes() {
        let queue = Arc::new(Queue::new("stderr"));
        let (met, its) = (Arc::new(Barrier::new(2)), queue.clone());
        let other = met.clone();
        std::thread::spawn(move || {
            its.write(|_| {
                other.wait();
                other.wait();
                Ok(())
            });
        });
        queue.push(b"one\n");
        met.wait();
        // The line is being written from here on, which takes a while.
        for _ in 0..MOST {
            queue.push(b"more\n");
        }
        queue.wait_until_written(Duration::ZERO);
        assert!(queue.lock().is_writing);
        assert!(queue.lock().lost > 0);
        met.wait();
    }
}
