//! The memory that clients make the server use: for bytes they have sent, never for bytes they only
//! claim, and for answers no more than the bounds allow.
//!
//! The memory of the whole process is measured, so this file has one test.

mod support;

use std::time::Duration;

use client::numbers::{O_CREAT, O_RDONLY, O_RDWR, sys};
use rumpsp::wire::Kind;
use support::*;

const MIB: u64 = 1 << 20;

/// Returns the resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

/// Asserts that `grow` makes the process at most `most` bytes larger, while its result lives.
fn costs_at_most<T>(most: u64, what: &str, grow: impl FnOnce() -> T) -> T {
    let before = resident();
    let result = grow();
    let more = resident().saturating_sub(before);
    println!("{what}: {} KiB more", more / 1024);
    assert!(more <= most, "{what}: {} KiB more, not {} KiB", more / 1024, most / 1024);
    result
}

const CLIENTS: u64 = 400;

#[test]
fn memory_is_paid_for_byte_by_byte() {
    let test_server = TestServer::unix();
    // Buffers that are made once do not count for any client.
    let warm: Vec<FrameClient> = (0..CLIENTS).map(|_| FrameClient::guest(&test_server)).collect();
    drop(warm);
    test_server.becomes_empty();

    // Each client has a request for 64 KiB to answer, and sends a few bytes of the answer.
    let claims = costs_at_most(CLIENTS * 16 * 1024, "answers that were begun", || {
        let clients: Vec<FrameClient> = (0..CLIENTS).map(|_| half_answered(&test_server)).collect();
        test_server.is_sound();
        clients
    });
    drop(claims);
    test_server.becomes_empty();

    // Frames of any length, which end at their header.
    costs_at_most(4 * MIB, "frames that claim to be huge", || {
        for number in 0..CLIENTS {
            let mut client = FrameClient::guest(&test_server);
            let (class, kind) = (number % 4, number % 10);
            let len = 1 << (13 + number % 50);
            client.try_send(&claiming(len, class as u16, kind as u16, 0, number, &[7; 100]));
        }
        test_server.becomes_empty();
    });

    // These are counts of any size: the server asks for pieces, and takes as much as fits.
    let counts = costs_at_most(CLIENTS * 16 * 1024, "counts beyond all memory", || {
        let clients: Vec<FrameClient> = (0..CLIENTS)
            .map(|number| {
                let mut client = FrameClient::guest(&test_server);
                let [_, writer] = client.pipe();
                client.send(&call(sys::WRITE, 1, &[writer, 0x1000, 1 << (10 + number % 52)]));
                client.send(&call(sys::READV, 2, &[writer, 0x1000, 1 << (10 + number % 52)]));
                client
            })
            .collect();
        test_server.is_sound();
        clients
    });
    drop(counts);
    test_server.becomes_empty();

    // Gigabytes that nobody takes: for each client the server keeps a bound, and the pieces that the
    // cores worked on. Beside that there is a task for each call.
    let (readers, calls) = (8, 2000);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let most = readers * (2 * MIB + cores * 128 * 1024 + calls * 1024) + 4 * MIB;
    let slow = costs_at_most(most, "reads that nobody takes", || {
        let clients: Vec<FrameClient> = (0..readers)
            .map(|_| {
                let mut client = FrameClient::guest(&test_server);
                let zero = client.open("/dev/zero", O_RDONLY);
                let reads: Vec<u8> =
                    (0..calls).flat_map(|n| call(sys::READ, n, &[zero, 0x1000, 1 << 40])).collect();
                client.send_within(&reads, Duration::from_millis(200));
                client
            })
            .collect();
        test_server.is_sound();
        clients
    });
    assert_eq!(test_server.core().hang_ups, CLIENTS, "those that claimed too much, and no other");
    drop(slow);
    test_server.becomes_empty();
}

/// Returns a client that has begun to answer a copy of 64 KiB.
fn half_answered(test_server: &TestServer) -> FrameClient {
    let mut client = FrameClient::guest(test_server);
    let file = client.open("/file", O_RDWR | O_CREAT);
    client.send(&call(sys::WRITE, 1, &[file, 0x1000, 1 << 20]));
    let Said::Copyin { reqno, len: 65_536, .. } = client.hear() else {
        panic!("expected a copyin of 64 KiB");
    };
    client.send(&claiming(24 + 65_536, 1, Kind::Copyin.number(), 0, reqno, &[7; 100]));
    client
}
