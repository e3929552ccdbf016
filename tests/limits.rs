//! Each bound as a client sees it: it holds exactly at its value, neither before nor after.

mod support;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use client::numbers::sys;
use kernel::{Call, Client, Errno, Identity, Kernel, Outcome, Process};
use rumpsp::wire::{ErrorCode, Kind};
use support::*;

const EIO: i32 = 5;

#[test]
fn calls_in_flight() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| config.limits.session.calls = 3);
        let mut client = FrameClient::guest(&test_server);
        let [reader, writer] = client.pipe();
        let sleep = |reqno| call(sys::READ, reqno, &[reader, 0x1000, 1]);
        client.send(&sleep(1));
        client.send(&sleep(2));
        // The third call is the last that is taken.
        client.getpid();
        client.send(&sleep(3));
        for reqno in 4..10 {
            client.send(&call(sys::GETEUID, reqno, &[]));
            client.expect(Said::refused(reqno, ErrorCode::TryAgain));
        }
        // The bound is for each client on its own.
        test_server.is_sound();
        // A call that ends makes room. A prefork is no call, so a child can come and wake one of the
        // reads.
        let token = client.prefork();
        let mut child = FrameClient::child(&test_server, &token);
        child.write(writer, b"x");
        match [client.hear(), client.hear()] {
            [Said::Copyout { .. }, Said::Result { reqno: 1..=3, error: 0, .. }] => {}
            said => panic!("expected the end of one read: {said:?}"),
        }
        client.getpid();
        drop((client, child));
        test_server.becomes_empty();
    }
}

#[test]
fn calls_in_flight_that_wait_for_their_client() {
    let test_server = TestServer::with(Transport::Unix, |config| config.limits.session.calls = 2);
    let mut client = FrameClient::guest(&test_server);
    let [_, writer] = client.pipe();
    client.send(&call(sys::WRITE, 1, &[writer, 0x1000, 1]));
    client.send(&call(sys::WRITE, 2, &[writer, 0x1000, 1]));
    let [Said::Copyin { reqno, .. }, Said::Copyin { .. }] = [client.hear(), client.hear()] else {
        panic!("expected two copyins");
    };
    client.send(&call(sys::GETEUID, 3, &[]));
    client.expect(Said::refused(3, ErrorCode::TryAgain));
    // Answers are taken all the same.
    client.send(&response(Kind::Copyin, reqno, b"x"));
    match client.hear() {
        Said::Result { error: 0, retval: [1, 0], .. } => {}
        said => panic!("expected the end of a write: {said:?}"),
    }
    client.getpid();
}

#[test]
fn preforks_that_wait() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| config.limits.preforks_in_all = 3);
        let mut one = FrameClient::guest(&test_server);
        let mut other = FrameClient::guest(&test_server);
        let token = one.prefork();
        one.prefork();
        other.prefork();
        // The bound is for all clients together.
        for client in [&mut one, &mut other] {
            client.send(&prefork(9));
            client.expect(Said::refused(9, ErrorCode::NoMemory));
            client.getpid();
        }
        assert_eq!(test_server.core().preforks, 3);
        test_server.releases_all_but(5);
        FrameClient::child(&test_server, &token).getpid();
        other.prefork();
    }
}

#[test]
fn processes_of_the_kernel() {
    let limits = embedded::Limits { processes: 3, ..embedded::Limits::default() };
    let config = embedded::Config { limits, ..Default::default() };
    let kernel = Arc::new(embedded::Embedded::new(config));
    let test_server = TestServer::inside(Transport::Unix, |_| {}, |_| kernel.clone());
    let mut clients: Vec<FrameClient> = (0..3).map(|_| FrameClient::guest(&test_server)).collect();
    let mut one_more = FrameClient::connected(&test_server);
    one_more.send(&guest(5, "late"));
    one_more.expect(Said::refused(5, ErrorCode::RforkFailed));
    one_more.expect_end();
    clients[0].send(&prefork(6));
    clients[0].expect(Said::refused(6, ErrorCode::RforkFailed));
    clients[0].getpid();
    let full = kernel.usage().processes;
    drop(clients.pop());
    eventually("a process less", || kernel.usage().processes < full);
    FrameClient::guest(&test_server).getpid();
}

/// An embedded kernel that can hold up its processes, and that has a call that panics.
struct Doored {
    inner: Arc<embedded::Embedded>,
    door: Arc<Door>,
}

#[derive(Default)]
struct Door {
    is_shut: Mutex<bool>,
    moved: Condvar,
}

/// A guest of this name waits at the door.
const WAITS: &[u8] = b"waits";

/// A guest of this name meets a kernel that panics.
const PANICS: &[u8] = b"panics";

/// The number of a call that panics.
const PANIC: i32 = 499;

impl Door {
    fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.moved.notify_all();
    }

    /// Sleeps as a kernel's thread does: another thread gets the core meanwhile.
    fn pass(&self) {
        rumpring::scheduler::blocking(|| {
            let is_shut = self.is_shut.lock().unwrap();
            drop(self.moved.wait_while(is_shut, |is_shut| *is_shut).unwrap());
        });
    }
}

struct Inside(Arc<dyn Process>);

impl Kernel for Doored {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn spawn(&self, client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno> {
        assert_ne!(command, PANICS, "a panic that is meant");
        if command == WAITS {
            self.door.pass();
        }
        Ok(Arc::new(Inside(self.inner.spawn(client, command)?)))
    }
}

impl Process for Inside {
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        assert_ne!(call.number, PANIC, "a panic that is meant");
        self.0.syscall(call)
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        self.0.prefork()
    }

    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        self.0.adopt(client)
    }

    fn exec(&self, command: &[u8]) {
        self.0.exec(command);
    }

    fn interrupt(&self) {
        self.0.interrupt();
    }

    fn release(&self) {
        self.0.release();
    }
}

fn doored(transport: Transport, backlog: usize) -> (TestServer, Arc<Door>) {
    let door = Arc::new(Door::default());
    let wrap = |inner| Arc::new(Doored { inner, door: door.clone() });
    let test_server = TestServer::inside(transport, |config| config.limits.backlog = backlog, wrap);
    (test_server, door)
}

#[test]
fn bytes_behind_a_handshake_that_takes_its_time() {
    for transport in [Transport::Unix, Transport::Tcp] {
        println!("on {transport:?}");
        let (test_server, door) = doored(transport, 1000);
        door.shut();
        let mut client = FrameClient::connected(&test_server);
        client.send(&guest(0, "waits"));
        let mut sent = 0;
        // The socket fills up: the server keeps its bound and no more.
        let bytes = test_server.fill(&mut client, || {
            assert!(sent < 1_000_000, "expected the server to stop reading");
            sent += 1000;
            (0..1000).flat_map(|n| call(sys::GETEUID, sent - 1000 + n, &[])).collect()
        });
        assert!(sent > 0, "some fit");
        test_server.is_sound();
        door.open();
        // More calls came at once than the bound allows: a call that is not answered is to be tried
        // again.
        client.expect(Said::Welcome { reqno: 0 });
        sent -= (bytes.len() / 24) as u64;
        let part = bytes.len() % 24;
        let mut answers = vec![0_u8; sent as usize];
        for heard in 0..sent {
            if heard == sent - 1 && part > 0 {
                client.send(&bytes[..part]);
            }
            match client.hear() {
                Said::Result { reqno, error: 0, .. }
                | Said::Refused { reqno, code: ErrorCode::TryAgain } => {
                    answers[reqno as usize] += 1;
                }
                said => panic!("expected an answer to each call: {said:?}"),
            }
        }
        assert!(answers.iter().all(|&count| count == 1), "each is answered once");
        client.getpid();
        drop(client);
        test_server.becomes_empty();
    }
}

#[test]
fn a_client_that_vanishes_during_its_handshake() {
    for transport in [Transport::Unix, Transport::Tcp] {
        println!("on {transport:?}");
        let (test_server, door) = doored(transport, 1000);
        for more in [0, 10, 10_000] {
            door.shut();
            let mut client = FrameClient::connected(&test_server);
            client.send(&guest(0, "waits"));
            let calls: Vec<u8> = (0..more).flat_map(|n| call(sys::GETEUID, n, &[])).collect();
            client.send_within(&calls, Duration::from_millis(50));
            if more == 10 {
                client.reset();
            } else {
                drop(client);
            }
            test_server.is_sound();
            door.open();
            test_server.becomes_empty();
        }
    }
}

#[test]
fn a_kernel_that_panics() {
    let (test_server, _door) = doored(Transport::Unix, 1000);
    let mut client = FrameClient::guest(&test_server);
    for _ in 0..10 {
        client.call_fails(PANIC, &[], EIO);
    }
    client.getpid();
    let mut unlucky = FrameClient::connected(&test_server);
    unlucky.send(&guest(3, std::str::from_utf8(PANICS).unwrap()));
    unlucky.expect(Said::refused(3, ErrorCode::RforkFailed));
    unlucky.expect_end();
    drop(client);
    test_server.becomes_empty();
    test_server.client().getpid().unwrap();
}
