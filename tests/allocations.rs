//! In steady state a call allocates nothing: frames, tasks, buffers and chunks are used again.
//!
//! This file has one test, since the test counts the allocations of the whole process.

use std::alloc::System;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use embedded::Embedded;
use rumpring::server::{Config, Running};
use rumpsp::url::Url;
use rumpsp::wire::{self, Handshake};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls that are counted.
const CALLS: usize = 20_000;

/// Calls sent at once.
const BATCH: usize = 16;

const SYS_GETPID: i32 = 20;

/// A client that does not allocate while it makes calls: it sends the same bytes each time.
struct Client {
    socket: UnixStream,
    calls: Vec<u8>,
    answers: Vec<u8>,
}

impl Client {
    fn connect(url: &Url) -> Client {
        let mut socket = UnixStream::connect(url.path().unwrap()).unwrap();
        let mut banner = [0; wire::MAX_BANNER];
        let len = socket.read(&mut banner).unwrap();
        assert_eq!(banner[len - 1], b'\n');
        let mut hello = Vec::new();
        wire::handshake_request(&mut hello, 0, Handshake::Guest, "test");
        socket.write_all(&hello).unwrap();
        socket.read_exact(&mut wire::handshake_response(0)).unwrap();
        let mut calls = Vec::new();
        for reqno in 0..BATCH {
            wire::syscall_request(&mut calls, reqno as u64, SYS_GETPID, &[]);
        }
        let answers = vec![0; BATCH * wire::syscall_response(0, 0, [0, 0]).len()];
        Client { socket, calls, answers }
    }

    fn call(&mut self) {
        self.socket.write_all(&self.calls).unwrap();
        self.socket.read_exact(&mut self.answers).unwrap();
    }
}

#[test]
fn a_call_in_steady_state_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(Url::Unix(dir.path().join("s")));
    let server = Running::start(config, Arc::new(Embedded::default())).unwrap();
    let mut client = Client::connect(server.url());
    for _ in 0..CALLS / BATCH {
        client.call();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..CALLS / BATCH {
        client.call();
    }
    let change = region.change();
    let made = change.allocations + change.reallocations;
    // Buffers that grow once with a large batch are allowed for; one allocation a call is not.
    assert!(made < CALLS / 100, "{CALLS} calls made {made} allocations: {change:?}");
    server.stop().unwrap();
}
