//! Bytes, cut anywhere, to frames.

use super::{HEADER_LEN, Header};

/// One frame, borrowed from the input where it lay there whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

/// Collects a connection's bytes into frames.
///
/// Idle, it holds no memory. Of a frame that is not here yet it holds what has arrived, so a peer
/// pays for each byte it makes the reader keep, whatever its header claims.
#[derive(Debug, Default)]
pub struct Reader {
    /// The start of a frame whose end has not arrived; or one that has been handed out.
    partial: Vec<u8>,
    /// The header of `partial`, once it is whole and within its bound.
    header: Option<Header>,
    /// `partial` was handed out and is cleared by the next call.
    handed_out: bool,
}

/// Capacity that an idle reader may keep; a larger buffer is given back.
const KEEP: usize = 4096;

impl Reader {
    /// The next frame of `input`, which is advanced past what was taken. `None` when all of it is
    /// taken and no frame is whole.
    ///
    /// `bound` sees each header once, before any of its body is kept, and says how long that body
    /// may be or why the frame is refused. A frame over its bound is refused by `refuse`. After a
    /// refusal the stream has lost its frames: the connection must end.
    pub fn next<'a, 'i: 'a, E>(
        &'a mut self,
        input: &mut &'i [u8],
        mut bound: impl FnMut(&Header) -> Result<usize, E>,
        refuse: impl FnOnce(&Header) -> E,
    ) -> Result<Option<Frame<'a>>, E> {
        if self.handed_out {
            self.reset();
        }
        if self.partial.is_empty() && input.len() >= HEADER_LEN {
            let header = Header::decode(input[..HEADER_LEN].try_into().expect("a header"));
            let len = match check(&header, &mut bound)? {
                Some(len) => len,
                None => return Err(refuse(&header)),
            };
            if input.len() >= len {
                let (frame, rest) = input.split_at(len);
                *input = rest;
                return Ok(Some(Frame { header, body: &frame[HEADER_LEN..] }));
            }
            self.header = Some(header);
        }
        if self.header.is_none() {
            self.take(input, HEADER_LEN);
            let Some(bytes) = self.partial.first_chunk() else {
                return Ok(None);
            };
            let header = Header::decode(bytes);
            if check(&header, &mut bound)?.is_none() {
                return Err(refuse(&header));
            }
            self.header = Some(header);
        }
        let header = self.header.expect("just set");
        self.take(input, header.len as usize);
        if (self.partial.len() as u64) < header.len {
            return Ok(None);
        }
        self.handed_out = true;
        Ok(Some(Frame { header, body: &self.partial[HEADER_LEN..] }))
    }

    /// Whether the peer is in the middle of a frame.
    pub fn is_partial(&self) -> bool {
        !self.handed_out && !self.partial.is_empty()
    }

    /// What is here of a frame that is not whole yet: its header, and the start of its body.
    pub fn partial(&self) -> Option<(Header, &[u8])> {
        let header = self.header.filter(|_| !self.handed_out)?;
        Some((header, &self.partial[HEADER_LEN..]))
    }

    /// Gives up the frame that is not whole yet and returns how many of its bytes are still to come:
    /// the caller drops those before the next call of [`Reader::next`].
    pub fn abandon(&mut self) -> u64 {
        let Some(header) = self.header.filter(|_| !self.handed_out) else {
            return 0;
        };
        let missing = header.len - self.partial.len() as u64;
        self.reset();
        missing
    }

    /// Moves bytes from `input` until `partial` holds `len`.
    fn take(&mut self, input: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.partial.len());
        let (now, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = rest;
    }

    fn reset(&mut self) {
        self.handed_out = false;
        self.header = None;
        self.partial.clear();
        if self.partial.capacity() > KEEP {
            self.partial = Vec::new();
        }
    }
}

/// The length of a frame if it is one and within its bound.
fn check<E>(
    header: &Header,
    bound: &mut impl FnMut(&Header) -> Result<usize, E>,
) -> Result<Option<usize>, E> {
    let Some(body) = header.len.checked_sub(HEADER_LEN as u64) else {
        return Ok(None);
    };
    let most = bound(header)?;
    Ok((body <= most as u64).then_some(header.len as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Class, Kind};

    fn two_frames() -> Vec<u8> {
        let mut bytes = wire::copyin_request(7, Kind::Copyin, 5, 0x1000).to_vec();
        bytes.extend(wire::raise_request(8, 15));
        bytes
    }

    fn read_all(reader: &mut Reader, mut input: &[u8], seen: &mut Vec<(u64, Vec<u8>)>) {
        while let Some(frame) = reader.next(&mut input, |_| Ok::<_, ()>(64), |_| ()).unwrap() {
            seen.push((frame.header.reqno, frame.body.to_vec()));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_cut_at_every_byte_is_the_same_frame() {
        let bytes = two_frames();
        let mut whole = Vec::new();
        read_all(&mut Reader::default(), &bytes, &mut whole);
        assert_eq!(whole.len(), 2);
        for cut in 0..=bytes.len() {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            read_all(&mut reader, &bytes[..cut], &mut seen);
            read_all(&mut reader, &bytes[cut..], &mut seen);
            assert_eq!(seen, whole, "cut at {cut}");
        }
    }

    #[test]
    fn byte_by_byte() {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for byte in two_frames() {
            read_all(&mut reader, &[byte], &mut seen);
        }
        assert_eq!(seen.len(), 2);
        assert!(!reader.is_partial());
    }

    #[test]
    fn an_abandoned_frame_leaves_the_next_one_whole() {
        let bytes = two_frames();
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        read_all(&mut reader, &bytes[..30], &mut seen);
        let (header, body) = reader.partial().unwrap();
        assert_eq!((header.reqno, body.len()), (7, 6));
        let missing = reader.abandon() as usize;
        assert_eq!((missing, reader.partial()), (10, None));
        assert_eq!(reader.abandon(), 0);
        read_all(&mut reader, &bytes[30 + missing..], &mut seen);
        assert_eq!(seen, [(8, vec![])]);
    }

    #[test]
    fn a_length_under_the_header_is_refused() {
        for len in [0, 23] {
            let mut header = Header { len, reqno: 1, class: 0, kind: 1, word: 0 };
            header.len = len;
            let bytes = header.encode();
            let mut reader = Reader::default();
            let refused = reader.next(&mut &bytes[..], |_| Ok(100), |h| h.reqno);
            assert_eq!(refused, Err(1), "length {len}");
        }
    }

    #[test]
    fn a_claimed_length_costs_no_memory() {
        let header = Header { len: 1 << 40, reqno: 1, class: 0, kind: 1, word: 0 };
        let mut reader = Reader::default();
        let bytes = header.encode();
        let got = reader.next(&mut &bytes[..], |_| Ok::<_, ()>(usize::MAX), |_| ());
        assert_eq!(got, Ok(None));
        assert!(reader.partial.capacity() <= 64, "kept {}", reader.partial.capacity());
    }

    #[test]
    fn the_bound_is_the_last_length_allowed() {
        for (most, allowed) in [(16, true), (15, false)] {
            let bytes = wire::copyin_request(1, Kind::Copyin, 5, 0);
            let got = Reader::default().next(&mut &bytes[..], |_| Ok(most), |_| ()).is_ok();
            assert_eq!(got, allowed, "bound {most}");
        }
    }

    #[test]
    fn a_large_frame_leaves_no_large_buffer() {
        let header = Header {
            len: 24 + 100_000,
            reqno: 1,
            class: Class::Response.number(),
            kind: Kind::Copyin.number(),
            word: 0,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize(24 + 100_000, 7);
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(1000) {
            let mut input = piece;
            while let Some(frame) =
                reader.next(&mut input, |_| Ok::<_, ()>(100_000), |_| ()).unwrap()
            {
                seen.push(frame.body.len());
            }
        }
        assert_eq!(seen, [100_000]);
        assert!(reader.partial.capacity() <= KEEP);
    }
}
