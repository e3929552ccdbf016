//! The bytes of a client that were fetched before the kernel asked for them ("prefetch").
//!
//! NetBSD's kernel copies a write in by pieces of a page or less, and each piece costs a round trip to
//! the client. If the server knows which range a call will read, the first piece brings the following
//! ones along. Nothing outside of that range is ever asked for: the client's program has named it.
//! [`super::predictor`] decides if the first piece is asked for before the call runs.

/// The most that is fetched at once.
pub const WINDOW: usize = 64 * 1024;

/// The capacity that the buffer keeps between calls.
const KEEP: usize = 4 * 1024;

/// The range that a call will read, and the part of it that has been fetched.
#[derive(Debug, Default)]
pub struct Prefetch {
    start: u64,
    end: u64,
    /// The client's address of `bytes`.
    addr: u64,
    bytes: Vec<u8>,
    used: bool,
}

impl Prefetch {
    /// Notes that the call will read this range, if anything.
    pub fn expect(&mut self, addr: u64, len: u64) {
        (self.start, self.end) = (addr, addr.saturating_add(len));
    }

    /// Forgets the range and the bytes fetched of it.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.used = false;
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// Returns `true` if this address is in the range.
    pub fn is_in(&self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }

    /// Returns the memory that the buffer takes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns the whole range, address and length, if it is not empty and fits into one window.
    pub fn whole(&self) -> Option<(u64, usize)> {
        let len = usize::try_from(self.end - self.start).ok()?;
        (1..=WINDOW).contains(&len).then_some((self.start, len))
    }

    /// Notes that the call wants bytes at this address.
    pub fn note_use(&mut self, addr: u64) {
        self.used |= self.is_in(addr);
    }

    /// Returns `true` if the call wanted any of the range.
    pub fn was_used(&self) -> bool {
        self.used
    }

    /// Returns these bytes, if they have been fetched.
    pub fn get(&self, addr: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(addr.checked_sub(self.addr)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// Returns how many bytes to ask for when `len` are needed: those, and the ones that will be needed
    /// next.
    pub fn worth(&self, addr: u64, len: usize) -> usize {
        if !self.is_in(addr) {
            return len;
        }
        let rest = usize::try_from(self.end - addr).unwrap_or(usize::MAX);
        rest.min(WINDOW).max(len)
    }

    /// Keeps fetched bytes, and returns the previous buffer.
    pub fn keep(&mut self, addr: u64, bytes: Vec<u8>) -> Vec<u8> {
        self.addr = addr;
        std::mem::replace(&mut self.bytes, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_the_call_will_read() {
        let mut prefetch = Prefetch::default();
        assert_eq!(prefetch.worth(0x1000, 512), 512, "nothing is expected");
        prefetch.expect(0x1000, 10_000);
        assert_eq!(prefetch.worth(0x1000, 512), 10_000);
        assert_eq!(prefetch.worth(0x1000 + 9_999, 1), 1);
        assert_eq!(prefetch.worth(0x1000 + 10_000, 8), 8, "behind the range");
        assert_eq!(prefetch.worth(0xfff, 8), 8, "before the range");
        assert_eq!(
            prefetch.worth(0x1000, 20_000),
            20_000,
            "what is needed is asked for all the same"
        );
        prefetch.expect(0x1000, u64::MAX);
        assert_eq!(prefetch.worth(0x2000, 16), WINDOW, "a window at a time");
    }

    #[test]
    fn the_whole_range_and_whether_it_was_wanted() {
        let mut prefetch = Prefetch::default();
        assert_eq!(prefetch.whole(), None);
        prefetch.expect(0x1000, 0);
        assert_eq!(prefetch.whole(), None, "an empty range");
        prefetch.expect(0x1000, 16);
        assert_eq!(prefetch.whole(), Some((0x1000, 16)));
        prefetch.note_use(0x2000);
        assert!(!prefetch.was_used(), "something else was wanted");
        prefetch.note_use(0x100f);
        assert!(prefetch.was_used());
        prefetch.clear();
        assert!(!prefetch.was_used());
        prefetch.expect(0x1000, WINDOW as u64);
        assert_eq!(prefetch.whole(), Some((0x1000, WINDOW)));
        prefetch.expect(0x1000, WINDOW as u64 + 1);
        assert_eq!(prefetch.whole(), None);
        prefetch.expect(0x1000, 1 << 63);
        assert_eq!(prefetch.whole(), None, "what no kernel takes");
    }

    #[test]
    fn only_whole_ranges_that_are_here_are_handed_out() {
        let mut prefetch = Prefetch::default();
        assert_eq!(prefetch.get(0, 1), None);
        prefetch.expect(100, 8);
        prefetch.keep(100, b"abcdefgh".to_vec());
        assert_eq!(prefetch.get(102, 3), Some(&b"cde"[..]));
        assert_eq!(prefetch.get(106, 3), None, "one byte too many");
        assert_eq!(prefetch.get(99, 2), None);
        assert_eq!(prefetch.get(u64::MAX, 2), None);
        prefetch.clear();
        assert_eq!(prefetch.get(102, 3), None, "another call sees nothing of it");
        assert_eq!(prefetch.worth(100, 1), 1);
    }
}
