//! A client that is driven frame by frame, and that prints the frame it expected where another came.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use client::raw::{RawConnection, RawError, RawFrame};
use rumpsp::url::Url;
use rumpsp::wire::{Class, ErrorCode, Header, Kind, TOKEN_LEN, Token, read_u32, read_u64};

use super::frames;
use super::test_server::PATIENCE;

/// A connection on which the test makes every frame.
pub struct FrameClient {
    raw: RawConnection,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The response of a call.
    Result {
        reqno: u64,
        error: i32,
        retval: [i64; 2],
    },
    /// The success of a handshake.
    Welcome {
        reqno: u64,
    },
    Token {
        reqno: u64,
        token: Token,
    },
    Refused {
        reqno: u64,
        code: ErrorCode,
    },
    Copyin {
        reqno: u64,
        len: u64,
        addr: u64,
    },
    Copyinstr {
        reqno: u64,
        len: u64,
        addr: u64,
    },
    Copyout {
        addr: u64,
        bytes: Vec<u8>,
    },
    Anonmmap {
        reqno: u64,
        len: u64,
    },
    Raise {
        signo: u32,
    },
}

impl Said {
    /// Decodes a frame; every field that the protocol fixes is checked.
    fn read(RawFrame { header, body }: &RawFrame) -> Said {
        let Header { reqno, word, .. } = *header;
        let kind = header.kind().unwrap_or_else(|| panic!("a type of the protocol: {header:?}"));
        let length = |expected: usize| assert_eq!(body.len(), expected, "body of {header:?}");
        match header.class() {
            Some(Class::Request) => match kind {
                Kind::Copyin | Kind::Copyinstr => {
                    length(16);
                    let (len, addr) = (read_u64(body, 0), read_u64(body, 8));
                    match kind {
                        Kind::Copyin => Said::Copyin { reqno, len, addr },
                        _ => Said::Copyinstr { reqno, len, addr },
                    }
                }
                Kind::Copyout | Kind::Copyoutstr => {
                    assert!(body.len() >= 16, "a copyout has an address: {header:?}");
                    length(16 + read_u64(body, 0) as usize);
                    Said::Copyout { addr: read_u64(body, 8), bytes: body[16..].to_vec() }
                }
                Kind::Anonmmap => {
                    length(8);
                    Said::Anonmmap { reqno, len: read_u64(body, 0) }
                }
                Kind::Raise => {
                    length(0);
                    Said::Raise { signo: word }
                }
                _ => panic!("no request a server makes: {header:?}"),
            },
            Some(Class::Response) => match kind {
                Kind::Handshake => {
                    length(4);
                    assert_eq!(read_u32(body, 0), 0, "a handshake's error");
                    Said::Welcome { reqno }
                }
                Kind::Syscall => {
                    length(24);
                    let retval = [read_u64(body, 8) as i64, read_u64(body, 16) as i64];
                    Said::Result { reqno, error: read_u32(body, 0) as i32, retval }
                }
                Kind::Prefork => {
                    length(TOKEN_LEN);
                    Said::Token { reqno, token: body[..].try_into().expect("a token") }
                }
                _ => panic!("no response a server gives: {header:?}"),
            },
            Some(Class::Error) => {
                length(0);
                let code = ErrorCode::from_number(word);
                Said::Refused {
                    reqno,
                    code: code.unwrap_or_else(|| panic!("an error code, not {word}")),
                }
            }
            None => panic!("a class of the protocol: {header:?}"),
        }
    }

    /// Returns the result of a call that succeeded with one value.
    pub fn ok(reqno: u64, value: i64) -> Said {
        Said::Result { reqno, error: 0, retval: [value, 0] }
    }

    /// Returns the result of a call that failed with a NetBSD errno.
    pub fn errno(reqno: u64, error: i32) -> Said {
        Said::Result { reqno, error, retval: [-1, 0] }
    }

    pub fn refused(reqno: u64, code: ErrorCode) -> Said {
        Said::Refused { reqno, code }
    }
}

impl FrameClient {
    /// Connects, and neither reads nor sends anything.
    pub fn silent(server: impl AsRef<Url>) -> FrameClient {
        FrameClient { raw: RawConnection::connect(server.as_ref()).expect("a connection") }
    }

    /// Connects and reads the banner.
    pub fn connected(server: impl AsRef<Url>) -> FrameClient {
        let mut frame_client = FrameClient::silent(server);
        frame_client.read_banner();
        frame_client
    }

    /// Connects and makes a guest's handshake.
    pub fn guest(server: impl AsRef<Url>) -> FrameClient {
        let mut frame_client = FrameClient::connected(server);
        frame_client.send(&frames::guest(0, "speaker"));
        frame_client.expect(Said::Welcome { reqno: 0 });
        frame_client
    }

    /// Connects as the child of a prefork.
    pub fn child(server: impl AsRef<Url>, token: &Token) -> FrameClient {
        let mut frame_client = FrameClient::connected(server);
        frame_client.send(&frames::fork(0, token));
        frame_client.expect(Said::Welcome { reqno: 0 });
        frame_client
    }

    /// Reads the banner, with which nothing else may have come.
    pub fn read_banner(&mut self) {
        self.raw.read_banner(PATIENCE).expect("a banner");
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.raw.write(bytes).expect("a write to the server");
    }

    /// Sends as much as the socket takes within `time`; a server that has hung up takes nothing.
    pub fn send_within(&mut self, bytes: &[u8], time: Duration) -> usize {
        self.raw.write_within(bytes, time).unwrap_or(0)
    }

    /// Sends bytes to a server that may have hung up already.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.raw.write_within(bytes, PATIENCE);
    }

    /// Returns the server's next frame.
    pub fn hear(&mut self) -> Said {
        match self.raw.read_frame(PATIENCE) {
            Ok(frame) => Said::read(&frame),
            Err(error) => panic!("expected a frame of the server: {error}"),
        }
    }

    /// Returns the server's next frame, if one comes within `time`.
    pub fn hear_within(&mut self, time: Duration) -> Option<Said> {
        self.raw.read_frame(time).ok().as_ref().map(Said::read)
    }

    /// Returns the server's next frame, or `None` at the end of the connection.
    pub fn hear_or_end(&mut self) -> Option<Said> {
        match self.raw.read_frame(PATIENCE) {
            Ok(frame) => Some(Said::read(&frame)),
            Err(RawError::Closed) => None,
            Err(error) => panic!("expected a frame of the server, or its end: {error}"),
        }
    }

    /// Returns the next frame with its header.
    pub fn hear_frame(&mut self) -> RawFrame {
        self.raw.read_frame(PATIENCE).unwrap_or_else(|error| panic!("expected a frame: {error}"))
    }

    #[track_caller]
    pub fn expect(&mut self, expected: Said) {
        let said = match self.raw.read_frame(PATIENCE) {
            Ok(frame) => Said::read(&frame),
            Err(error) => panic!("expected {expected:?}: {error}"),
        };
        assert_eq!(said, expected, "what the server said next");
    }

    /// Asserts that the server hangs up and sends nothing before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.raw.read_frame(PATIENCE) {
            Err(RawError::Closed) => {}
            Ok(frame) => panic!("expected the end of the connection, not {frame:?}"),
            Err(error) => panic!("expected the end of the connection: {error}"),
        }
    }

    /// Drops all frames until the server hangs up.
    #[track_caller]
    pub fn expect_end_after_anything(&mut self) {
        let closed = self.raw.closes_within(PATIENCE).expect("a connection that ends");
        assert!(closed, "expected the end of the connection");
    }

    /// Makes a call that copies nothing and asserts its success.
    #[track_caller]
    pub fn call(&mut self, number: i32, args: &[u64]) -> [i64; 2] {
        const REQNO: u64 = 77;
        self.send(&frames::call(number, REQNO, args));
        match self.hear() {
            Said::Result { reqno: REQNO, error: 0, retval } => retval,
            said => panic!("expected the result of call {number}, not {said:?}"),
        }
    }

    /// Makes a call that copies nothing and asserts its failure.
    #[track_caller]
    pub fn call_fails(&mut self, number: i32, args: &[u64], errno: i32) {
        self.send(&frames::call(number, 78, args));
        self.expect(Said::errno(78, errno));
    }

    /// Returns the process id.
    #[track_caller]
    pub fn getpid(&mut self) -> i32 {
        self.call(client::numbers::sys::GETPID, &[])[0] as i32
    }

    /// Makes a pipe; returns the end to read and the end to write.
    #[track_caller]
    pub fn pipe(&mut self) -> [u64; 2] {
        self.call(client::numbers::sys::PIPE, &[]).map(|fd| fd as u64)
    }

    /// Writes a few bytes at once, and serves their copyin.
    #[track_caller]
    pub fn write(&mut self, fd: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.send(&frames::call(client::numbers::sys::WRITE, 79, &[fd, 0x1000, len]));
        self.serve_copyin(0x1000, bytes);
        self.expect(Said::ok(79, bytes.len() as i64));
    }

    /// Answers the copyin of these bytes from this address.
    #[track_caller]
    pub fn serve_copyin(&mut self, from: u64, bytes: &[u8]) {
        match self.hear() {
            Said::Copyin { reqno, len, addr } if addr == from && len == bytes.len() as u64 => {
                self.send(&frames::response(Kind::Copyin, reqno, bytes));
            }
            said => panic!("expected a copyin of {} bytes at {from:#x}: {said:?}", bytes.len()),
        }
    }

    /// Returns the server's next frame that is no signal.
    pub fn hear_no_signal(&mut self) -> Said {
        loop {
            match self.hear() {
                Said::Raise { .. } => {}
                said => return said,
            }
        }
    }

    /// Opens a file.
    #[track_caller]
    pub fn open(&mut self, path: &str, flags: i32) -> u64 {
        let args = [0x2000, flags as u64, 0o644];
        self.send(&frames::call(client::numbers::sys::OPEN, 80, &args));
        match self.hear_no_signal() {
            Said::Copyinstr { reqno, addr: 0x2000, .. } => {
                let mut name = path.as_bytes().to_vec();
                name.push(0);
                self.send(&frames::response(Kind::Copyin, reqno, &name));
            }
            said => panic!("expected a copyinstr of the path: {said:?}"),
        }
        match self.hear_no_signal() {
            Said::Result { reqno: 80, error: 0, retval } => retval[0] as u64,
            said => panic!("expected {path} to be opened: {said:?}"),
        }
    }

    /// Asks for a prefork's token.
    #[track_caller]
    pub fn prefork(&mut self) -> Token {
        self.send(&frames::prefork(81));
        match self.hear() {
            Said::Token { reqno: 81, token } => token,
            said => panic!("expected a token: {said:?}"),
        }
    }

    /// Reads some bytes as they come, in one read.
    pub fn read_bytes(&mut self, buf: &mut [u8]) -> usize {
        self.raw.read_bytes(buf, PATIENCE).expect("bytes of the server")
    }

    /// Shuts down the sending direction.
    pub fn end_sending(&mut self) {
        self.raw.shutdown(Shutdown::Write).expect("a shutdown");
    }

    /// Shuts down the sending direction, and goes without reading the results of its calls.
    pub fn half_close_and_go(mut self) {
        let _ = self.raw.shutdown(Shutdown::Write);
    }

    /// Shuts down the sending direction, reads what still comes, and goes when the server has hung up.
    pub fn half_close(mut self) {
        // Either call may find that the server has hung up already.
        let _ = self.raw.shutdown(Shutdown::Write);
        let closed = self.raw.closes_within(PATIENCE).unwrap_or(true);
        assert!(closed, "expected the server to hang up on who sends no more");
    }

    /// Returns the socket itself.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }

    /// Vanishes like a host that has crashed and come back: bytes on their way are lost.
    pub fn reset(self) {
        let now = Some(Duration::ZERO);
        // A Unix socket has no linger; there this is an ordinary end.
        let _ = rustix::net::sockopt::set_socket_linger(self.raw.as_fd(), now);
    }
}
