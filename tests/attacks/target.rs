//! The target of attacks: a server, its kernel, and the kernel's calls that attacks need.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use client::Client;
use client::numbers::{O_RDONLY, sys};
use rumpsp::url::Url;
use rustix::process::Signal;

use crate::fake::sys as own;
use crate::process::{self, SOON, Server};
use crate::support::{FrameClient, TestServer, Transport, call};
use crate::{fake, support};

/// Kernels and transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    EmbeddedUnix,
    EmbeddedTcp,
    StandInUnix,
    StandInTcp,
    NetBsdUnix,
    NetBsdTcp,
}

/// The components of NetBSD's kernel here: pipes, files, devices.
const COMPONENTS: [&str; 3] = ["-lrumpvfs", "-lrumpdev", "-lrumpfs_tmpfs"];

/// The time a well-behaved client waits for anything. This is no measure of speed: a client that waits
/// so long waits for ever.
pub const AT_ONCE: Duration = Duration::from_secs(30);

/// Bytes that a good client writes and reads; fewer than any kernel's pipe takes.
const BYTES: usize = 3000;

/// A server under attack.
pub struct Target {
    kind: Kind,
    url: Url,
    home: Home,
}

enum Home {
    /// A server in this process.
    Here(Box<TestServer>),
    /// A server as a process.
    There(RefCell<Server>),
}

impl Kind {
    /// Returns `true` if there is such a kernel; prints that it is skipped if not.
    pub fn is_here(self) -> bool {
        match self {
            Kind::EmbeddedUnix | Kind::EmbeddedTcp => true,
            Kind::StandInUnix | Kind::StandInTcp => fake::prefix().is_some(),
            Kind::NetBsdUnix | Kind::NetBsdTcp => {
                let is_here = std::env::var_os("RUMP_PREFIX").is_some();
                if !is_here {
                    process::say(&format!("skipped: {self:?}: RUMP_PREFIX names no rump kernel"));
                }
                is_here
            }
        }
    }
}

impl AsRef<Url> for Target {
    fn as_ref(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl Target {
    /// Starts the server of a kernel that is available.
    pub fn start(kind: Kind) -> Target {
        let home = match kind {
            Kind::EmbeddedUnix => Home::Here(embedded(Transport::Unix)),
            Kind::EmbeddedTcp => Home::Here(embedded(Transport::Tcp)),
            Kind::StandInUnix | Kind::StandInTcp => Home::There(RefCell::new(fake(kind))),
            Kind::NetBsdUnix | Kind::NetBsdTcp => Home::There(RefCell::new(netbsd(kind))),
        };
        let url = match &home {
            Home::Here(test_server) => test_server.url.clone(),
            Home::There(server) => server.borrow().url().clone(),
        };
        Target { kind, url, home }
    }

    pub fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::EmbeddedTcp | Kind::StandInTcp | Kind::NetBsdTcp)
    }

    pub fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::EmbeddedUnix | Kind::EmbeddedTcp)
    }

    pub fn is_fake(&self) -> bool {
        matches!(self.kind, Kind::StandInUnix | Kind::StandInTcp)
    }

    /// Returns a new well-behaved client.
    pub fn client(&self) -> Client {
        let builder = Client::builder().name("good").timeout(AT_ONCE);
        builder.connect(&self.url).unwrap_or_else(|error| panic!("a newcomer is served: {error}"))
    }

    /// Asserts that newcomers and clients that are connected already are served.
    pub fn serves(&self, resident: &Client) {
        is_served(resident, "who was there before");
        is_served(&self.client(), "a newcomer");
    }

    /// Returns a call that asks for `len` bytes at 0x1000 of the client's memory.
    pub fn asks_bytes(&self, reqno: u64, writer: u64, len: u64) -> Vec<u8> {
        call(sys::WRITE, reqno, &[writer, 0x1000, len])
    }

    /// Returns a call that asks for a string at 0x1000, of 1024 bytes at most.
    pub fn asks_string(&self, reqno: u64) -> Vec<u8> {
        if self.is_fake() {
            call(own::ECHOSTR, reqno, &[0x1000, 0x2000, 1024])
        } else {
            call(sys::OPEN, reqno, &[0x1000, 0, 0])
        }
    }

    /// Returns a call that asks for fresh memory. NetBSD's kernel has no call that does so for certain.
    pub fn asks_memory(&self, reqno: u64) -> Option<Vec<u8>> {
        if self.is_embedded() {
            Some(call(sys::MMAP, reqno, &[0, 4096, 3, 0x1002, u64::MAX, 0, 0]))
        } else {
            self.is_fake().then(|| call(own::ANONMMAP, reqno, &[4096]))
        }
    }

    /// Returns a call that sleeps until somebody writes.
    pub fn sleeps(&self, reqno: u64, reader: u64) -> Vec<u8> {
        call(sys::READ, reqno, &[reader, 0x1000, 10])
    }

    /// Returns a call that runs for a while, and that nothing ends.
    pub fn runs(&self, client: &mut FrameClient, reqno: u64) -> Vec<u8> {
        if self.is_fake() {
            call(own::HOSTSLEEP, reqno, &[200, 0, 0, 0])
        } else {
            self.flood(client).frame(reqno)
        }
    }

    /// Returns a call that copies out a mebibyte.
    pub fn flood(&self, client: &mut FrameClient) -> Flood {
        if self.is_fake() {
            Flood { number: own::FLOOD, args: [0x1000, 65_536, 16] }
        } else {
            let zero = client.open("/dev/zero", O_RDONLY);
            Flood { number: sys::READ, args: [zero, 0x1000, 1 << 20] }
        }
    }

    /// Returns the number of calls of one client that may sleep within a test's time: each of librump's
    /// has a thread.
    pub fn sleepers(&self) -> u64 {
        if self.is_embedded() { 5000 } else { 500 }
    }

    /// Waits until nothing of any client is left, and ends the server by a signal.
    pub fn ends_well(self) {
        match self.home {
            Home::Here(test_server) => {
                test_server.becomes_empty();
                assert_eq!(test_server.stats().scheduler.panics, 0, "tasks that panicked");
                test_server.ends_well();
            }
            Home::There(server) => ends_well(server.into_inner(), self.kind),
        }
    }

    /// Returns the number of descriptors of the server, if it is a process of its own.
    pub fn descriptors(&self) -> Option<usize> {
        match &self.home {
            Home::Here(_) => None,
            Home::There(server) => Some(server.borrow().fds()),
        }
    }

    /// Asserts that the server's process is alive, and shows its output if not.
    pub fn is_alive(&self) {
        if let Home::There(server) = &self.home {
            let mut server = server.borrow_mut();
            assert!(server.is_running(), "the server has ended; it said {:?}", server.said());
        }
    }
}

/// A call that copies out a lot.
#[derive(Clone, Copy)]
pub struct Flood {
    number: i32,
    args: [u64; 3],
}

impl Flood {
    pub fn frame(&self, reqno: u64) -> Vec<u8> {
        call(self.number, reqno, &self.args)
    }
}

fn start(command: std::process::Command, is_tcp: bool, args: &[&str]) -> Server {
    let dir = tempfile::tempdir().expect("a directory for the socket");
    let url = match is_tcp {
        true => "tcp://127.0.0.1:0".into(),
        false => format!("unix://{}", dir.path().join("s").display()),
    };
    Server::run(command, dir, &url, args)
}

/// Starts a server whose preforks do not outlive their parents for long, since the end of the test
/// waits for them.
fn embedded(transport: Transport) -> Box<TestServer> {
    Box::new(TestServer::with(transport, |config| {
        config.limits.orphan = Duration::from_millis(500)
    }))
}

fn fake(kind: Kind) -> Server {
    let prefix = fake::prefix().and_then(Path::to_str).expect("a path of words");
    let mut command = process::rumpring();
    fake::with_lifetime(&mut command).env("RUMP_NCPU", "2");
    let args = ["--kernel", "librump", "--rump-prefix", prefix];
    start(command, kind == Kind::StandInTcp, &args)
}

fn netbsd(kind: Kind) -> Server {
    let args: Vec<&str> = ["--kernel", "librump"].iter().chain(&COMPONENTS).copied().collect();
    start(process::rumpring(), kind == Kind::NetBsdTcp, &args)
}

fn ends_well(mut server: Server, kind: Kind) {
    let what = "no client, no call, no prefork";
    let counters = server.until(support::PATIENCE, what, process::Counters::is_deserted);
    assert_eq!(counters.get("panics"), 0.0, "tasks that panicked: {}", counters.line());
    server.signal(Signal::TERM);
    let status = server.ended_within(SOON, "SIGTERM");
    let said = server.last_words();
    assert_eq!(status.code(), Some(0), "its end at SIGTERM; it said {said:?}");
    assert!(!said.iter().any(|line| line.contains("holds on")), "nobody is left behind: {said:?}");
    if matches!(kind, Kind::StandInUnix | Kind::StandInTcp) {
        let halts = "fake: halting with 0 processes".to_string();
        assert!(said.contains(&halts), "no process in the kernel at its end: {said:?}");
    }
}

/// Makes a few calls, with copies in and out.
fn is_served(client: &Client, who: &str) {
    let serve = || {
        let pid = client.getpid()?;
        assert!(pid > 0, "{who} has a process id, not {pid}");
        let [reader, writer] = client.pipe()?;
        let bytes: Vec<u8> = (0..BYTES).map(|at| (at as i32 * 7 + pid) as u8).collect();
        assert_eq!(client.write(writer, &bytes)?, BYTES, "{who} writes");
        assert_eq!(client.read(reader, BYTES)?, bytes, "what {who} wrote comes back");
        assert_eq!(client.getpid()?, pid, "{who} keeps its process id");
        client.close(reader)?;
        client.close(writer)
    };
    let served: Result<(), client::CallError> = serve();
    served.unwrap_or_else(|error| panic!("{who} is served: {error}"));
}
