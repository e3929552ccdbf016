//! Decodes bytes, cut anywhere, to frames.

use std::ops::Deref;

use super::{HEADER_LEN, Header};

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: Header,
    pub body: Body<'a>,
}

/// The body of a frame: a slice of bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Borrowed from the input, which held the whole body.
    Lent(&'a [u8]),
    /// Gathered from pieces.
    Gathered(&'a mut Vec<u8>),
}

impl Body<'_> {
    /// Moves the body into `buffer`, without a copy if it had to be gathered.
    pub fn move_into(self, buffer: &mut Vec<u8>) {
        match self {
            Body::Lent(bytes) => {
                buffer.clear();
                buffer.extend_from_slice(bytes);
            }
            Body::Gathered(bytes) => {
                std::mem::swap(bytes, buffer);
                bytes.clear();
            }
        }
    }
}

impl Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Body::Lent(bytes) => bytes,
            Body::Gathered(bytes) => bytes,
        }
    }
}

/// Collects a connection's bytes into frames.
///
/// An idle reader holds no memory. For a frame that has arrived in part it holds the bytes that have
/// arrived, and room for a few times as much, so a peer pays for the bytes it makes the reader keep,
/// whatever its header claims.
#[derive(Debug, Default)]
pub struct Reader {
    /// The header of a frame whose end has not arrived, and the number of its bytes that have arrived.
    head: [u8; HEADER_LEN],
    have: u8,
    /// True once the header was found within its bound.
    is_checked: bool,
    /// True once the frame was handed out: the next call clears all of it.
    handed_out: bool,
    /// The part of the body that has arrived.
    body: Vec<u8>,
}

/// Capacity that an idle reader may keep; a larger buffer is given back.
const KEEP: usize = 4096;

/// The room made for a body, as a multiple of the bytes that have arrived.
const GROWTH: usize = 4;

impl Reader {
    /// Returns the next frame of `input`, which is advanced past the bytes taken. Returns `None` when
    /// all of it is taken and no frame is whole.
    ///
    /// `bound` sees each header once, before any of its body is kept, and returns the most bytes that
    /// body may have, or why the frame is refused. A frame over its bound is refused by `refuse`. After
    /// a refusal the boundaries of frames are lost: the connection must end.
    pub fn next<'a, 'i: 'a, E>(
        &'a mut self,
        input: &mut &'i [u8],
        mut bound: impl FnMut(&Header) -> Result<usize, E>,
        refuse: impl FnOnce(&Header) -> E,
    ) -> Result<Option<Frame<'a>>, E> {
        if self.handed_out {
            self.reset();
        }
        if self.have == 0
            && let Some(head) = input.first_chunk()
        {
            let header = Header::decode(head);
            let Some(len) = check(&header, &mut bound)? else {
                return Err(refuse(&header));
            };
            if input.len() >= len {
                let (frame, rest) = input.split_at(len);
                *input = rest;
                return Ok(Some(Frame { header, body: Body::Lent(&frame[HEADER_LEN..]) }));
            }
            self.is_checked = true;
        }
        if !self.take_head(input) {
            return Ok(None);
        }
        let header = Header::decode(&self.head);
        if !self.is_checked {
            if check(&header, &mut bound)?.is_none() {
                return Err(refuse(&header));
            }
            self.is_checked = true;
        }
        if self.take_body(input, &header) > 0 {
            return Ok(None);
        }
        self.handed_out = true;
        Ok(Some(Frame { header, body: Body::Gathered(&mut self.body) }))
    }

    /// Returns `true` if the peer is in the middle of a frame.
    pub fn is_partial(&self) -> bool {
        !self.handed_out && self.have > 0
    }

    /// Returns the memory that the reader takes.
    pub fn capacity(&self) -> usize {
        self.body.capacity()
    }

    /// Returns the header of a frame that is not whole yet, and the part of its body that has arrived.
    pub fn partial(&self) -> Option<(Header, &[u8])> {
        let is_here = self.is_checked && !self.handed_out;
        is_here.then(|| (Header::decode(&self.head), &self.body[..]))
    }

    /// Drops the frame that is not whole yet and returns the number of its bytes still to come: the
    /// caller drops those before the next call of [`Reader::next`].
    pub fn abandon(&mut self) -> u64 {
        let Some((header, body)) = self.partial() else {
            return 0;
        };
        let missing = header.len - (HEADER_LEN + body.len()) as u64;
        self.reset();
        missing
    }

    /// Moves bytes from `input` to the header. Returns `true` if the header is whole.
    fn take_head(&mut self, input: &mut &[u8]) -> bool {
        let have = usize::from(self.have);
        let (now, rest) = input.split_at((HEADER_LEN - have).min(input.len()));
        self.head[have..have + now.len()].copy_from_slice(now);
        self.have += now.len() as u8;
        *input = rest;
        usize::from(self.have) == HEADER_LEN
    }

    /// Moves bytes from `input` to the body. Returns the number of bytes still missing.
    fn take_body(&mut self, input: &mut &[u8], header: &Header) -> usize {
        let missing = header.len as usize - HEADER_LEN - self.body.len();
        let (now, rest) = input.split_at(missing.min(input.len()));
        if now.len() > self.body.capacity() - self.body.len() {
            let room = (self.body.len() + now.len()) * GROWTH - self.body.len();
            self.body.reserve_exact(room.min(missing));
        }
        self.body.extend_from_slice(now);
        *input = rest;
        missing - now.len()
    }

    fn reset(&mut self) {
        (self.have, self.is_checked, self.handed_out) = (0, false, false);
        self.body.clear();
        if self.body.capacity() > KEEP {
            self.body = Vec::new();
        }
    }
}

/// Returns the length of a frame, or `None` if it is shorter than a header or over its bound.
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
        assert!(reader.body.capacity() <= 64, "kept {}", reader.body.capacity());
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
    fn what_was_gathered_moves_and_what_was_lent_is_copied() {
        let bytes = two_frames();
        let mut reader = Reader::default();
        for cut in [0, 30] {
            let mut buffer = vec![1, 2, 3];
            let mut input = &bytes[..cut];
            assert_eq!(reader.next(&mut input, |_| Ok::<_, ()>(64), |_| ()), Ok(None));
            let mut input = &bytes[cut..];
            let frame = reader.next(&mut input, |_| Ok::<_, ()>(64), |_| ()).unwrap().unwrap();
            assert_eq!(matches!(frame.body, Body::Gathered(_)), cut > 0);
            frame.body.move_into(&mut buffer);
            assert_eq!(buffer, bytes[HEADER_LEN..][..16], "cut at {cut}");
        }
    }

    #[test]
    fn room_is_made_for_a_few_times_what_has_come() {
        let header = Header { len: 24 + 1_000_000, reqno: 1, class: 1, kind: 2, word: 0 };
        let mut bytes = header.encode().to_vec();
        bytes.resize(24 + 1000, 7);
        let mut reader = Reader::default();
        let got = reader.next(&mut &bytes[..], |_| Ok::<_, ()>(1_000_000), |_| ());
        assert_eq!(got, Ok(None));
        assert!(reader.body.capacity() <= 1000 * GROWTH, "room for {}", reader.body.capacity());
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
        assert!(reader.body.capacity() <= KEEP);
    }
}
