//! A server that does what a test's script says.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rumpsp::url::Url;
use rumpsp::wire::{self, Class, HEADER_LEN, Header, Kind};

/// The longest that anything in these tests may take.
pub const LONG: Duration = Duration::from_secs(60);

/// A frame that the client sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Got {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Got {
    pub fn kind(&self) -> Kind {
        self.header.kind().unwrap()
    }

    pub fn arg(&self, index: usize) -> u64 {
        wire::read_u64(&self.body, index * 8)
    }
}

trait Stream: Read + Write + Send {
    fn end(&self);
}

impl Stream for UnixStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for TcpStream {
    fn end(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

/// The server's end of one connection.
pub struct Peer {
    stream: Box<dyn Stream>,
}

impl Peer {
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn banner(&mut self) {
        self.send(&wire::banner("NetBSD", "7.99.34", "amd64"));
    }

    /// Returns the next frame, or `None` at the end of the stream.
    pub fn read(&mut self) -> Option<Got> {
        let mut head = [0; HEADER_LEN];
        self.stream.read_exact(&mut head).ok()?;
        let header = Header::decode(&head);
        let mut body = vec![0; header.len as usize - HEADER_LEN];
        self.stream.read_exact(&mut body).ok()?;
        Some(Got { header, body })
    }

    /// Returns the next frame, which must be a request of this kind.
    pub fn expect(&mut self, kind: Kind) -> Got {
        let got = self.read().expect("a frame");
        assert_eq!((got.header.class(), got.kind()), (Some(Class::Request), kind), "{got:?}");
        got
    }

    /// Sends the banner and answers the handshake.
    pub fn hello(&mut self) -> Got {
        self.banner();
        let got = self.expect(Kind::Handshake);
        self.send(&wire::handshake_response(got.header.reqno));
        got
    }

    pub fn answer(&mut self, call: &Got, value: i64) {
        self.send(&wire::syscall_response(call.header.reqno, 0, [value, 0]));
    }

    /// Answers every call with its number, until the client goes.
    pub fn echo(&mut self) {
        while let Some(got) = self.read() {
            self.answer(&got, got.header.word.into());
        }
    }

    pub fn copyout(&mut self, addr: u64, data: &[u8]) {
        self.send(&wire::copyout_head(1, Kind::Copyout, data.len(), addr));
        self.send(data);
    }

    /// Asks for a copy and returns the client's answer.
    pub fn copyin(&mut self, kind: Kind, len: u64, addr: u64) -> Got {
        self.send(&wire::copyin_request(77, kind, len, addr));
        let got = self.read().expect("an answer");
        assert_eq!(got.header.reqno, 77);
        got
    }

    pub fn hang_up(self) {
        self.stream.end();
    }
}

/// A scripted server. Dropping it waits for its scripts and passes on their panics. A test that fails
/// does not wait: the clients that the scripts await may never come.
pub struct Fake {
    pub url: Url,
    thread: Option<JoinHandle<()>>,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Runs the script on one connection, over a Unix socket.
pub fn unix(script: impl Fn(Peer) + Send + Sync + 'static) -> Fake {
    unix_many(1, move |peer, _| script(peer))
}

/// Runs the script on each of `count` connections, at once, with the connection's index.
pub fn unix_many(count: usize, script: impl Fn(Peer, usize) + Send + Sync + 'static) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let accept = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Peer { stream: Box::new(stream) }
    };
    Fake { url: Url::Unix(path), thread: Some(run(count, accept, script)), _dir: Some(dir) }
}

/// Runs the script on one connection, over TCP.
pub fn tcp(address: &str, script: impl Fn(Peer) + Send + Sync + 'static) -> Fake {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let url = Url::from_socket_addr(listener.local_addr().unwrap());
    let accept = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Peer { stream: Box::new(stream) }
    };
    let thread = run(1, accept, move |peer, _| script(peer));
    Fake { url, thread: Some(thread), _dir: None }
}

fn run(
    count: usize,
    accept: impl Fn() -> Peer + Send + 'static,
    script: impl Fn(Peer, usize) + Send + Sync + 'static,
) -> JoinHandle<()> {
    let script = Arc::new(script);
    std::thread::spawn(move || {
        let scripts: Vec<_> = (0..count)
            .map(|index| {
                let (peer, script) = (accept(), script.clone());
                std::thread::spawn(move || script(peer, index))
            })
            .collect();
        for script in scripts {
            if let Err(panic) = script.join() {
                std::panic::resume_unwind(panic);
            }
        }
    })
}
