//! The frame parser: a stream cut anywhere is the same frames as the stream in one piece, and both are
//! what a parser without a state sees.
//!
//! Input: eight lengths of pieces, used in turn (0: all the rest), then the stream.

use rumpsp::wire::{HEADER_LEN, Header, Reader};

use super::input::Input;

/// What a stream comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    frames: Vec<(Header, Vec<u8>)>,
    /// Why it ended before its end, and where: at which header.
    refused: Option<(Refused, Header)>,
    /// The frame whose end is missing: how much of it is there.
    partial: Option<(Header, Vec<u8>)>,
    is_partial: bool,
    /// Headers the bound was asked for.
    asked: Vec<Header>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// By the bound, whatever the length.
    Unwanted,
    /// Its length is out of bounds.
    Length,
}

/// A bound with all its answers: refused, and short to endless.
fn bound(header: &Header) -> Result<usize, (Refused, Header)> {
    match header.kind {
        0 => Ok(1024),
        1 => Ok(128),
        2 => Ok(usize::MAX),
        7 => Ok(0),
        kind if kind & 1 == 0 => Ok(4096),
        _ => Err((Refused::Unwanted, *header)),
    }
}

pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts: Vec<usize> = (0..8).map(|_| input.byte().into()).collect();
    let stream = input.rest();
    let expected = without_state(stream);
    let (whole, _) = read([stream].into_iter());
    assert_eq!(whole, expected, "in one piece");
    let (pieces, reader) = read(Pieces { stream, cuts: cuts.iter().cycle() });
    assert_eq!(pieces, expected, "in pieces of {cuts:?}");
    if expected.refused.is_none() {
        goes_on(reader, &expected);
    }
}

struct Pieces<'a, C> {
    stream: &'a [u8],
    cuts: C,
}

impl<'a, 'c, C: Iterator<Item = &'c usize>> Iterator for Pieces<'a, C> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.stream.len();
        let len = match self.cuts.next() {
            Some(0) | None => left,
            Some(&len) => len.min(left),
        };
        let (piece, rest) = self.stream.split_at(len);
        self.stream = rest;
        (left > 0).then_some(piece)
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Seen, Reader) {
    let mut seen = Seen::default();
    let mut reader = Reader::default();
    for mut piece in pieces {
        loop {
            let before = piece.len();
            let bound = |header: &Header| {
                seen.asked.push(*header);
                bound(header)
            };
            match reader.next(&mut piece, bound, |header| (Refused::Length, *header)) {
                Ok(Some(frame)) => {
                    assert!(piece.len() < before, "a frame takes bytes");
                    seen.frames.push((frame.header, frame.body.to_vec()));
                }
                Ok(None) => break assert!(piece.is_empty(), "bytes were left"),
                Err(refused) => {
                    seen.refused = Some(refused);
                    return (seen, reader);
                }
            }
        }
    }
    seen.is_partial = reader.is_partial();
    seen.partial = reader.partial().map(|(header, body)| (header, body.to_vec()));
    (seen, reader)
}

/// The same of a stream that is all there.
fn without_state(mut stream: &[u8]) -> Seen {
    let mut seen = Seen::default();
    while let Some((head, rest)) = stream.split_first_chunk() {
        let header = Header::decode(head);
        assert_eq!(header.encode(), *head);
        let Some(len) = header.len.checked_sub(HEADER_LEN as u64) else {
            seen.refused = Some((Refused::Length, header));
            return seen;
        };
        seen.asked.push(header);
        match bound(&header) {
            Err(refused) => seen.refused = Some(refused),
            Ok(most) if len > most as u64 => seen.refused = Some((Refused::Length, header)),
            Ok(_) if len > rest.len() as u64 => seen.partial = Some((header, rest.to_vec())),
            Ok(_) => {
                let (body, rest) = rest.split_at(len as usize);
                seen.frames.push((header, body.to_vec()));
                stream = rest;
                continue;
            }
        }
        seen.is_partial = seen.partial.is_some();
        return seen;
    }
    seen.is_partial = !stream.is_empty();
    seen
}

/// A frame given up leaves the reader as good as new, once what is to come of it has been dropped.
fn goes_on(mut reader: Reader, seen: &Seen) {
    let missing = reader.abandon();
    let expected = seen
        .partial
        .as_ref()
        .map_or(0, |(header, body)| header.len - (HEADER_LEN + body.len()) as u64);
    assert_eq!(missing, expected, "what is missing of the frame given up");
    if seen.is_partial && seen.partial.is_none() {
        return;
    }
    let header = Header { len: 27, reqno: 9, class: 0, kind: 1, word: 20 };
    let next = [&header.encode()[..], b"abc"].concat();
    let mut bytes = &next[..];
    let frame = reader.next(&mut bytes, bound, |header| (Refused::Length, *header));
    let frame = frame.expect("a good frame").expect("a whole frame");
    assert_eq!((frame.header, &frame.body[..]), (header, &b"abc"[..]));
}
