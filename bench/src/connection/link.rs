//! The protocol of a connection: a banner comes, a handshake goes out, and then frames come.

use std::io;

use rumpsp::wire::{self, Class, Kind};

use super::{SendQueue, unexpected};
use crate::inbox::{BadLength, Frame, Inbox, LOOK};
use crate::workload::{Answer, connect, fork};

/// The handshake by which a connection introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    Guest,
    /// Introduces itself as the child that this token is for.
    Fork(wire::Token),
}

/// A connection's protocol.
pub struct Link {
    stage: Stage,
    hello: Hello,
    inbox: Inbox,
    /// The bytes to be sent.
    pub out: SendQueue,
    /// The most bytes of a frame that may come.
    most: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// This many bytes of the banner have come.
    Banner(usize),
    Handshake,
    Up,
}

/// A message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer to the handshake.
    Up,
    /// The answer to a call.
    Answer { reqno: u64, answer: Answer },
    /// The answer to a prefork.
    Token { reqno: u64, token: wire::Token },
    /// The server's request for `len` bytes of memory at an address.
    CopyIn { reqno: u64, len: u64, addr: u64 },
    /// The server's request for the string at an address, at most `len` bytes of it.
    CopyInStr { reqno: u64, len: u64, addr: u64 },
    /// A copy of `len` bytes from the server to an address.
    CopyOut { len: u64, addr: u64 },
}

impl Link {
    /// Makes a link whose copies have at most `most_copied` bytes.
    pub fn new(hello: Hello, most_copied: u32) -> Link {
        let most = (wire::HEADER_LEN + wire::COPY_BODY_LEN + LOOK) as u64 + u64::from(most_copied);
        let (inbox, out) = (Inbox::default(), SendQueue::default());
        Link { stage: Stage::Banner(0), hello, inbox, out, most }
    }

    /// Returns the next message of `input`, which is advanced past it; `None` when all of it is taken.
    pub fn hear(&mut self, input: &mut &[u8]) -> io::Result<Option<Heard>> {
        if let Stage::Banner(len) = self.stage {
            return self.hear_banner(input, len).map(|()| None);
        }
        let frame = self.inbox.next(input, self.most);
        match frame.map_err(|BadLength(len)| unexpected("a frame of bytes:", len))? {
            None => Ok(None),
            Some(frame) if self.stage == Stage::Handshake => self.hear_handshake(&frame).map(Some),
            Some(frame) => hear_frame(&frame).map(Some),
        }
    }

    /// Takes the banner, which is one line with nothing behind it before the handshake was sent.
    fn hear_banner(&mut self, input: &mut &[u8], len: usize) -> io::Result<()> {
        let bytes = std::mem::take(input);
        let has_end = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) if end + 1 < bytes.len() => {
                return Err(unexpected("bytes behind its banner:", (bytes.len() - end - 1) as u64));
            }
            end => end.is_some(),
        };
        let len = len + bytes.len();
        if len > wire::MAX_BANNER || (len == wire::MAX_BANNER && !has_end) {
            return Err(io::Error::other("the server's banner has no end"));
        }
        self.stage = Stage::Banner(len);
        if has_end {
            self.stage = Stage::Handshake;
            match &self.hello {
                Hello::Guest => self.out.put(connect::handshake),
                Hello::Fork(token) => self.out.put(|out| fork::handshake(out, token)),
            }
        }
        Ok(())
    }

    fn hear_handshake(&mut self, frame: &Frame) -> io::Result<Heard> {
        let (class, kind) = (frame.header.class(), frame.header.kind());
        if class == Some(Class::Error) {
            let code = frame.header.word;
            return Err(io::Error::other(format!("the server refused the handshake, code {code}")));
        }
        let is_handshake = (class, kind) == (Some(Class::Response), Some(Kind::Handshake));
        if !is_handshake || frame.len != 4 || wire::read_u32(&frame.start, 0) != 0 {
            return Err(io::Error::other("the server refused the handshake"));
        }
        self.stage = Stage::Up;
        Ok(Heard::Up)
    }
}

fn hear_frame(frame: &Frame) -> io::Result<Heard> {
    let (header, start) = (&frame.header, &frame.start);
    let reqno = header.reqno;
    match (header.class(), header.kind()) {
        (Some(Class::Response), Some(Kind::Syscall))
            if frame.len == wire::SYSCALL_RESPONSE_LEN as u64 =>
        {
            let error = wire::read_u32(start, 0);
            let values = [wire::read_u64(start, 8), wire::read_u64(start, 16)];
            Ok(Heard::Answer { reqno, answer: Answer { error, values } })
        }
        (Some(Class::Response), Some(Kind::Prefork)) if frame.len == wire::TOKEN_LEN as u64 => {
            let token = *start.first_chunk().expect("as long as a token");
            Ok(Heard::Token { reqno, token })
        }
        (Some(Class::Request), Some(kind @ (Kind::Copyin | Kind::Copyinstr | Kind::Copyout)))
            if frame.len >= wire::COPY_BODY_LEN as u64 =>
        {
            let (len, addr) = (wire::read_u64(start, 0), wire::read_u64(start, 8));
            match kind {
                Kind::Copyin => Ok(Heard::CopyIn { reqno, len, addr }),
                Kind::Copyinstr => Ok(Heard::CopyInStr { reqno, len, addr }),
                _ if frame.len - wire::COPY_BODY_LEN as u64 == len => {
                    Ok(Heard::CopyOut { len, addr })
                }
                _ => Err(unexpected("a copy whose length is not", len)),
            }
        }
        (Some(Class::Error), _) => Err(unexpected("an error frame, code", header.word.into())),
        _ => Err(unexpected("a frame of type", header.kind.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all messages in these bytes, which are given in pieces of `piece` bytes.
    fn hear(link: &mut Link, bytes: &[u8], piece: usize) -> io::Result<Vec<Heard>> {
        let mut all = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(heard) = link.hear(&mut input)? {
                all.push(heard);
            }
            assert!(input.is_empty());
        }
        Ok(all)
    }

    fn sent(link: &mut Link) -> Vec<u8> {
        let mut bytes = Vec::new();
        link.out.take(usize::MAX, |piece| bytes.extend(piece));
        bytes
    }

    fn up(hello: Hello) -> Link {
        let mut link = Link::new(hello, 100);
        hear(&mut link, b"RUMPSP-0.4-NetBSD-7/amd64\n", 7).unwrap();
        sent(&mut link);
        assert_eq!(hear(&mut link, &wire::handshake_response(0), 5).unwrap(), [Heard::Up]);
        link
    }

    #[test]
    fn a_handshake_goes_when_the_banner_is_whole() {
        let mut expected = [Vec::new(), Vec::new()];
        connect::handshake(&mut expected[0]);
        fork::handshake(&mut expected[1], &[7; 16]);
        for (hello, expected) in [Hello::Guest, Hello::Fork([7; 16])].into_iter().zip(expected) {
            let mut link = Link::new(hello, 0);
            hear(&mut link, b"RUMPSP-0.4-Net", 3).unwrap();
            assert!(link.out.is_empty());
            hear(&mut link, b"BSD-7/amd64\n", 3).unwrap();
            assert_eq!(sent(&mut link), expected);
        }
    }

    #[test]
    fn what_is_no_banner_is_an_error() {
        for bytes in [&b"x\nmore"[..], &[b'x'; 96], &[b'x'; 200]] {
            assert!(hear(&mut Link::new(Hello::Guest, 0), bytes, 200).is_err(), "{bytes:?}");
        }
        let mut longest = [b'x'; 96];
        longest[95] = b'\n';
        let mut link = Link::new(Hello::Guest, 0);
        hear(&mut link, &longest, 10).unwrap();
        assert!(!link.out.is_empty());
    }

    #[test]
    fn a_refused_handshake_is_an_error() {
        let refusal = wire::error_response(0, wire::ErrorCode::InvalidPrefork);
        let mut other = wire::handshake_response(0);
        other[24] = 1;
        for (bytes, says) in [(&refusal[..], "code 3"), (&other[..], "refused")] {
            let mut link = Link::new(Hello::Fork([1; 16]), 0);
            hear(&mut link, b"banner\n", 7).unwrap();
            let error = hear(&mut link, bytes, 100).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn frames_are_heard_as_what_they_are() {
        let mut bytes = wire::syscall_response(3, 2, [5, 6]).to_vec();
        bytes.extend(wire::prefork_response(4, &[9; 16]));
        bytes.extend(wire::copyin_request(5, Kind::Copyin, 10, 0x1000));
        bytes.extend(wire::copyin_request(6, Kind::Copyinstr, 1024, 0x2000));
        bytes.extend(wire::copyout_head(7, Kind::Copyout, 3, 0x3000));
        bytes.extend(b"abc");
        for piece in [1, 10, 1000] {
            let heard = hear(&mut up(Hello::Guest), &bytes, piece).unwrap();
            let answer = Answer { error: 2, values: [5, 6] };
            assert_eq!(
                heard,
                [
                    Heard::Answer { reqno: 3, answer },
                    Heard::Token { reqno: 4, token: [9; 16] },
                    Heard::CopyIn { reqno: 5, len: 10, addr: 0x1000 },
                    Heard::CopyInStr { reqno: 6, len: 1024, addr: 0x2000 },
                    Heard::CopyOut { len: 3, addr: 0x3000 },
                ]
            );
        }
    }

    #[test]
    fn what_nobody_waits_for_is_an_error() {
        let raise = wire::raise_request(1, 15).to_vec();
        let error = wire::error_response(1, wire::ErrorCode::TryAgain).to_vec();
        let mut lies = wire::copyout_head(1, Kind::Copyout, 10, 0).to_vec();
        lies[24] = 9;
        lies.extend([0; 10]);
        let mut long = wire::syscall_response(1, 0, [0; 2]).to_vec();
        long[0..8].copy_from_slice(&10_000u64.to_le_bytes());
        let mut short = wire::syscall_response(1, 0, [0; 2])[..32].to_vec();
        short[0] = 32;
        for bytes in [raise, error, lies, long, short] {
            assert!(hear(&mut up(Hello::Guest), &bytes, 1000).is_err(), "{bytes:?}");
        }
    }
}
