//! The send queue of a connection: small frames as they are, and large copies as a number of bytes
//! only, so that their bytes are moved once.

use std::collections::VecDeque;

use crate::workload::MAX_SIZE;

/// The bytes of copies in, which nobody looks at.
static ZEROES: [u8; MAX_SIZE as usize] = [0; MAX_SIZE as usize];

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
pub struct SendQueue {
    bytes: Vec<u8>,
    /// The number of `bytes` that have been taken.
    taken: usize,
    /// Pairs of a position in `bytes` and the number of zeroes that follow there.
    zeroes: VecDeque<(usize, usize)>,
    len: usize,
}

impl SendQueue {
    /// Adds the bytes that `write` appends.
    pub fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.len += self.bytes.len() - before;
    }

    /// Adds zeroes, at most [`MAX_SIZE`].
    pub fn put_zeroes(&mut self, count: usize) {
        if count > 0 {
            self.zeroes.push_back((self.bytes.len(), count.min(ZEROES.len())));
            self.len += count.min(ZEROES.len());
        }
    }

    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes at most `most` bytes, in pieces.
    pub fn take(&mut self, most: usize, mut each: impl FnMut(&[u8])) {
        let mut left = most.min(self.len);
        self.len -= left;
        while left > 0 {
            let stop = self.zeroes.front().map_or(self.bytes.len(), |zeroes| zeroes.0);
            let piece = match self.zeroes.front_mut() {
                Some((_, count)) if self.taken == stop => {
                    let now = left.min(*count);
                    *count -= now;
                    &ZEROES[..now]
                }
                _ => {
                    let start = self.taken;
                    self.taken += left.min(stop - start);
                    &self.bytes[start..self.taken]
                }
            };
            left -= piece.len();
            each(piece);
            if self.zeroes.front().is_some_and(|zeroes| zeroes.1 == 0) {
                self.zeroes.pop_front();
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_the_whole() {
        let fill = |send_queue: &mut SendQueue| {
            send_queue.put_zeroes(2);
            send_queue.put(|out| out.extend(b"head"));
            send_queue.put(|out| out.extend(b"er"));
            send_queue.put_zeroes(3);
            send_queue.put_zeroes(0);
            send_queue.put_zeroes(1);
            send_queue.put(|out| out.extend(b"tail"));
            send_queue.put_zeroes(5);
        };
        let whole = b"\0\0header\0\0\0\0tail\0\0\0\0\0";
        for piece in 1..=whole.len() + 1 {
            let mut send_queue = SendQueue::default();
            fill(&mut send_queue);
            assert_eq!(send_queue.len(), whole.len());
            let mut seen: Vec<u8> = Vec::new();
            while !send_queue.is_empty() {
                let before = seen.len();
                send_queue.take(piece, |bytes| seen.extend(bytes));
                assert_eq!(seen.len() - before, piece.min(whole.len() - before));
            }
            assert_eq!(seen, whole, "{piece} at a time");
            assert_eq!(
                (send_queue.taken, send_queue.bytes.len(), send_queue.zeroes.len()),
                (0, 0, 0)
            );
        }
    }
}
