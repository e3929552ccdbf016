//! A server on a socket of its own, its kernel, and the counters of both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use embedded::{Embedded, Usage};
use kernel::Kernel;
use rumpring::server::{Config, CoreStats, Running, Stats};
use rumpsp::url::Url;
use tempfile::TempDir;

use super::frame_client::FrameClient;

/// The time after which a test gives up on anything, on a machine with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The kind of socket that a server listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Unix,
    Tcp,
    Tcp6,
}

/// A server and its kernel.
pub struct TestServer {
    server: Option<Running>,
    pub kernel: Arc<Embedded>,
    pub url: Url,
    /// The usage of the kernel before any client came.
    empty: Usage,
    _dir: TempDir,
}

/// Runs a test on each transport, each time on a server of its own.
pub fn on_each_transport(test: impl Fn(&TestServer)) {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        // This line is shown if the test fails.
        println!("on {transport:?}");
        let test_server = TestServer::new(transport);
        test(&test_server);
        test_server.is_sound();
    }
}

/// Polls until `condition` holds.
pub fn eventually(expected: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "expected in vain: {expected}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl AsRef<Url> for TestServer {
    fn as_ref(&self) -> &Url {
        &self.url
    }
}

impl TestServer {
    pub fn new(transport: Transport) -> TestServer {
        TestServer::with(transport, |_| {})
    }

    pub fn unix() -> TestServer {
        TestServer::new(Transport::Unix)
    }

    /// Starts a server whose configuration `change` has changed.
    pub fn with(transport: Transport, change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::inside(transport, change, |kernel| kernel)
    }

    /// Starts a server of a kernel that `wrap` has put around the embedded one.
    pub fn inside<K: Kernel>(
        transport: Transport,
        change: impl FnOnce(&mut Config),
        wrap: impl FnOnce(Arc<Embedded>) -> Arc<K>,
    ) -> TestServer {
        // The tests of a file share one process, and their clients are many.
        super::files::raise_file_limit();
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let url = match transport {
            Transport::Unix => Url::Unix(dir.path().join("sock")),
            Transport::Tcp => "tcp://127.0.0.1:0".parse().expect("a URL"),
            Transport::Tcp6 => "tcp6://[::1]:0".parse().expect("a URL"),
        };
        let kernel = Arc::new(Embedded::default());
        let mut config = Config::new(url);
        change(&mut config);
        let server = Running::start(config, wrap(kernel.clone())).expect("a server");
        let (url, empty) = (server.url().clone(), kernel.usage());
        TestServer { server: Some(server), kernel, url, empty, _dir: dir }
    }

    /// Connects a well-behaved client.
    pub fn client(&self) -> Client {
        let builder = Client::builder().name("good").timeout(PATIENCE);
        builder.connect(&self.url).expect("a client")
    }

    pub fn stats(&self) -> Stats {
        let server = self.server.as_ref().expect("a running server");
        server.control().stats().expect("a server that answers")
    }

    pub fn core(&self) -> CoreStats {
        self.stats().core
    }

    /// Waits until the server's counters satisfy `condition`.
    pub fn core_becomes(&self, expected: &str, condition: impl Fn(&CoreStats) -> bool) {
        let mut seen = self.stats();
        let end = Instant::now() + PATIENCE;
        while !condition(&seen.core) {
            let held = self.kernel.usage();
            assert!(Instant::now() < end, "expected in vain: {expected}; {seen:#?} {held:?}");
            std::thread::sleep(Duration::from_millis(1));
            seen = self.stats();
        }
    }

    /// Waits until nothing of any client is left in the server or in the kernel.
    pub fn becomes_empty(&self) {
        self.core_becomes("no client, no call, no prefork", |core| {
            (core.connections, core.calls_in_flight, core.preforks) == (0, 0, 0)
        });
        self.releases_all_but(0);
    }

    /// Waits until the kernel has `processes` processes more than at its start, and, if that is 0, no
    /// open file or name of theirs.
    pub fn releases_all_but(&self, processes: u64) {
        let Usage { processes: before, .. } = self.empty;
        eventually(&format!("{processes} processes left in the kernel"), || {
            self.kernel.usage().processes == before + processes
        });
        if processes == 0 {
            let held = |usage: Usage| (usage.processes, usage.files, usage.ports);
            eventually("no process, open file or name left in the kernel", || {
                held(self.kernel.usage()) == held(self.empty)
            });
        }
    }

    /// Asserts that the server has not panicked and serves a newcomer.
    pub fn is_sound(&self) {
        let client = self.client();
        let pid = client.getpid().expect("a getpid of a good client");
        assert!(pid > 0, "a process id, not {pid}");
        assert_eq!(self.stats().scheduler.panics, 0, "tasks that panicked");
    }

    /// Makes a round trip of another client, after which the server has seen everything that was in its
    /// sockets before.
    pub fn barrier(&self, other: &Client) {
        other.getpid().expect("a getpid of a good client");
    }

    /// Has `client` send the bytes of `batch` until the server takes no more, and returns the rest of
    /// the last batch. A moment in which the server took nothing may be the machine's fault: so the
    /// server must also have served another client meanwhile.
    pub fn fill(&self, client: &mut FrameClient, mut batch: impl FnMut() -> Vec<u8>) -> Vec<u8> {
        let other = self.client();
        let (mut left, mut refusals) = (Vec::new(), 0);
        while refusals < 3 {
            if left.is_empty() {
                left = batch();
            }
            let written = client.send_within(&left, Duration::from_millis(50));
            left.drain(..written);
            refusals = if written == 0 { refusals + 1 } else { 0 };
            for _ in 0..20 {
                self.barrier(&other);
            }
        }
        left
    }

    /// Stops the server, which must end well.
    pub fn ends_well(self) {
        self.server.as_ref().expect("a running server").control().stop();
        self.ended().expect("a server that ends well");
    }

    /// Waits for the end of a server that a client has halted.
    pub fn ended(mut self) -> Result<(), rumpring::server::Error> {
        let server = self.server.take().expect("a running server");
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || drop(done.send(server.wait())));
        wait.recv_timeout(PATIENCE).expect("expected in vain: the end of a halted server")
    }
}
