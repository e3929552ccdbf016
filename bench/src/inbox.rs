//! Turns bytes from a server, cut anywhere, into frames of which only the start is kept.
//!
//! A load looks at a frame's header and at the few bytes behind it that say what the frame is about.
//! The other bytes of a read are counted and dropped, so that a large copy costs the load no second
//! copy.

use rumpsp::wire::{HEADER_LEN, Header};

/// Bytes of a body that are kept: a response's body, and the part of a copy's body before the data.
pub const LOOK: usize = 24;

/// A frame whose bytes have all come.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    /// Bytes of the whole body.
    pub len: u64,
    /// The first bytes of the body, as far as it has them.
    pub start: [u8; LOOK],
}

/// The frame that is coming in.
pub struct Inbox {
    kept: [u8; HEADER_LEN + LOOK],
    /// The number of bytes of `kept` that are here.
    have: usize,
    /// The number of bytes still to come once `kept` is as full as this frame makes it.
    skip: u64,
    is_skipping: bool,
}

/// The error for a frame that is shorter than its own header, or longer than any expected frame.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLength(pub u64);

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox { kept: [0; HEADER_LEN + LOOK], have: 0, skip: 0, is_skipping: false }
    }
}

impl Inbox {
    /// Returns the next whole frame of `input`, which is advanced past the bytes taken; `None` when all
    /// of it is taken. No frame may be longer than `most`.
    pub fn next(&mut self, input: &mut &[u8], most: u64) -> Result<Option<Frame>, BadLength> {
        if !self.is_skipping {
            self.keep(input, HEADER_LEN);
            if self.have < HEADER_LEN {
                return Ok(None);
            }
            let len = self.header().len;
            if len < HEADER_LEN as u64 || len > most {
                return Err(BadLength(len));
            }
            let kept = len.min(self.kept.len() as u64) as usize;
            self.keep(input, kept);
            if self.have < kept {
                return Ok(None);
            }
            self.skip = len - kept as u64;
            self.is_skipping = true;
        }
        let now = self.skip.min(input.len() as u64);
        *input = &input[now as usize..];
        self.skip -= now;
        if self.skip > 0 {
            return Ok(None);
        }
        let header = self.header();
        let mut start = [0; LOOK];
        let body = self.have - HEADER_LEN;
        start[..body].copy_from_slice(&self.kept[HEADER_LEN..self.have]);
        self.have = 0;
        self.is_skipping = false;
        Ok(Some(Frame { header, len: header.len - HEADER_LEN as u64, start }))
    }

    /// Moves bytes from `input` until `len` are kept.
    fn keep(&mut self, input: &mut &[u8], len: usize) {
        let (now, rest) = input.split_at(len.saturating_sub(self.have).min(input.len()));
        self.kept[self.have..self.have + now.len()].copy_from_slice(now);
        self.have += now.len();
        *input = rest;
    }

    fn header(&self) -> Header {
        Header::decode(self.kept.first_chunk().expect("longer than a header"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumpsp::wire::{self, Kind};

    fn frames() -> Vec<u8> {
        let mut bytes = wire::copyout_head(1, Kind::Copyout, 100, 0x1000).to_vec();
        bytes.extend([7; 100]);
        bytes.extend(wire::raise_request(2, 15));
        bytes.extend(wire::syscall_response(3, 0, [5, 6]));
        bytes.extend(wire::copyin_request(4, Kind::Copyin, 16, 0x2000));
        bytes
    }

    fn read_all(inbox: &mut Inbox, mut input: &[u8], seen: &mut Vec<Frame>) {
        while let Some(frame) = inbox.next(&mut input, 1000).unwrap() {
            seen.push(frame);
        }
        assert!(input.is_empty());
    }

    #[test]
    fn frames_cut_anywhere_are_the_same() {
        let bytes = frames();
        let mut whole = Vec::new();
        read_all(&mut Inbox::default(), &bytes, &mut whole);
        let lens: Vec<_> = whole.iter().map(|frame| (frame.header.reqno, frame.len)).collect();
        assert_eq!(lens, [(1, 116), (2, 0), (3, 24), (4, 16)]);
        assert_eq!(wire::read_u64(&whole[0].start, 8), 0x1000);
        assert_eq!(wire::read_u64(&whole[2].start, 8), 5);
        for cut in 0..=bytes.len() {
            let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
            read_all(&mut inbox, &bytes[..cut], &mut seen);
            read_all(&mut inbox, &bytes[cut..], &mut seen);
            assert_eq!(seen, whole, "cut at {cut}");
        }
        let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
        bytes.iter().for_each(|byte| read_all(&mut inbox, &[*byte], &mut seen));
        assert_eq!(seen, whole);
    }

    #[test]
    fn lengths_have_bounds() {
        let mut header = Header::decode(frames().first_chunk().unwrap());
        for (len, is_good) in [(0, false), (23, false), (24, true), (1000, true), (1001, false)] {
            header.len = len;
            let next = Inbox::default().next(&mut &header.encode()[..], 1000);
            assert_eq!(next.is_ok(), is_good, "{len}");
        }
    }
}
