//! Much at once on one connection: threads, large transfers, pieces; every byte is checked.

mod support;

use std::thread;

use client::Client;
use client::numbers::{O_CREAT, O_RDONLY, O_RDWR, SEEK_SET, sys};
use support::*;

const MIB: usize = 1 << 20;

/// Returns bytes that differ from place to place and from seed to seed.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64 + 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Asserts equality without printing megabytes.
#[track_caller]
fn same(got: &[u8], expected: &[u8], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    if let Some(at) = (0..got.len()).find(|&at| got[at] != expected[at]) {
        panic!("{what}: byte {at} is {}, expected {}", got[at], expected[at]);
    }
}

#[test]
fn many_threads_on_one_connection() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let pid = client.getpid().unwrap();
        thread::scope(|scope| {
            for number in 0..16 {
                let client = &client;
                scope.spawn(move || {
                    let name = format!("/thread{number}");
                    let fd = client.open(&name, O_RDWR | O_CREAT, 0o600).unwrap();
                    for round in 0..20 {
                        let bytes = pattern(number * 100 + round, 1 + number * 311 + round * 977);
                        assert_eq!(client.pwrite(fd, &bytes, 0).unwrap(), bytes.len());
                        let back = client.pread(fd, bytes.len(), 0).unwrap();
                        same(&back, &bytes, &format!("thread {number}, round {round}"));
                        assert_eq!(client.getpid().unwrap(), pid);
                    }
                    client.close(fd).unwrap();
                    client.unlink(&name).unwrap();
                });
            }
        });
        drop(client);
        test_server.becomes_empty();
    });
}

#[test]
fn threads_that_block_are_woken_by_others() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let pipes: Vec<[i32; 2]> = (0..32).map(|_| client.pipe().unwrap()).collect();
        thread::scope(|scope| {
            for (number, [reader, _]) in pipes.iter().enumerate() {
                let client = &client;
                scope.spawn(move || {
                    let expected = pattern(number, 100);
                    let got = client.read(*reader, 100).unwrap();
                    same(&got, &expected, &format!("reader {number}"));
                });
            }
            for (number, [_, writer]) in pipes.iter().enumerate().rev() {
                assert_eq!(client.write(*writer, &pattern(number, 100)).unwrap(), 100);
            }
        });
    });
}

#[test]
fn megabytes_go_in_and_come_back() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let bytes = pattern(1, 5 * MIB + 12_345);
        let fd = client.open("/large", O_RDWR | O_CREAT, 0o600).unwrap();
        assert_eq!(client.write(fd, &bytes).unwrap(), bytes.len());
        assert_eq!(client.fstat(fd).unwrap().size, bytes.len() as i64);
        same(&client.pread(fd, 6 * MIB, 0).unwrap(), &bytes, "in one read");

        client.lseek(fd, 0, SEEK_SET).unwrap();
        let mut pieces = Vec::new();
        for len in [1, 4095, 65_535, 65_536, 65_537, MIB, 8 * MIB, 1] {
            pieces.extend(client.read(fd, len).unwrap());
        }
        same(&pieces, &bytes, "in pieces");
        client.close(fd).unwrap();
    });
}

#[test]
fn vectors_are_one_transfer() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let fd = client.open("/vector", O_RDWR | O_CREAT, 0o600).unwrap();
        let lens = [0, 1, 70_000, 3, 0, 65_536, MIB, 5];
        let pieces: Vec<Vec<u8>> =
            lens.iter().enumerate().map(|(at, &len)| pattern(at, len)).collect();
        let whole = pieces.concat();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        assert_eq!(client.writev(fd, &slices).unwrap(), whole.len());
        same(&client.pread(fd, 2 * MIB, 0).unwrap(), &whole, "writev, then pread");

        client.lseek(fd, 0, SEEK_SET).unwrap();
        let lens = [65_537, 0, 1, MIB, 2 * MIB];
        let back = client.readv(fd, &lens).unwrap().concat();
        same(&back, &whole, "readv");
    });
}

#[test]
fn large_reads_of_several_threads_do_not_mix() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let files: Vec<i32> = (0..4)
            .map(|number| {
                let fd = client.open(&format!("/file{number}"), O_RDWR | O_CREAT, 0o600).unwrap();
                client.write(fd, &pattern(number, 2 * MIB)).unwrap();
                fd
            })
            .collect();
        thread::scope(|scope| {
            for (number, fd) in files.iter().enumerate() {
                let client = &client;
                scope.spawn(move || {
                    let got = client.pread(*fd, 3 * MIB, 0).unwrap();
                    same(&got, &pattern(number, 2 * MIB), &format!("file {number}"));
                });
            }
        });
    });
}

#[test]
fn a_pipe_between_two_clients_carries_megabytes() {
    on_each_transport(|test_server| {
        let writer = test_server.client();
        let [from, to] = writer.pipe().unwrap();
        let reader = writer.prefork().unwrap().connect().unwrap();
        reader.close(to).unwrap();
        let bytes = pattern(9, 3 * MIB);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    let piece = reader.read(from, 100_000).unwrap();
                    assert!(!piece.is_empty(), "the end after {} bytes", got.len());
                    got.extend(piece);
                }
                same(&got, &bytes, "through the pipe");
                assert_eq!(reader.read(from, 10).unwrap(), [], "the end of the file");
            });
            assert_eq!(writer.write(to, &bytes).unwrap(), bytes.len());
            writer.close(to).unwrap();
        });
    });
}

/// A client that reads gets more bytes in all than may be owed to it at a time.
#[test]
fn many_large_reads_in_flight_are_all_answered() {
    on_each_transport(|test_server| {
        let client = test_server.client();
        let zero = client.open("/dev/zero", O_RDONLY, 0).unwrap();
        const LEN: usize = 64 * 1024;
        let buffer = client.space().buffer(LEN).unwrap();
        let args = [zero as u64, buffer.addr(), LEN as u64];
        let reads: Vec<_> = (0..1500).map(|_| client.begin(sys::READ, &args)).collect();
        finish(&client, reads, LEN as i64);
    });
}

fn finish(client: &Client, calls: Vec<client::Pending>, expected: i64) {
    for (number, mut pending) in calls.into_iter().enumerate() {
        let result = pending.finish_timeout(PATIENCE);
        let result = result.unwrap_or_else(|| panic!("expected in vain: the end of call {number}"));
        let retval = result.unwrap_or_else(|error| panic!("call {number}: {error}"));
        assert_eq!(retval, [expected, 0], "call {number}");
    }
    assert_eq!(client.lost(), None);
}

#[test]
fn sends_that_are_not_copied_carry_the_same_bytes() {
    let test_server =
        TestServer::with(Transport::Tcp, |config| config.ring.zero_copy_from = Some(4096));
    let client = test_server.client();
    let fd = client.open("/file", O_RDWR | O_CREAT, 0o600).unwrap();
    let bytes = pattern(1, MIB);
    assert_eq!(client.pwrite(fd, &bytes, 0).unwrap(), bytes.len());
    same(&client.pread(fd, bytes.len(), 0).unwrap(), &bytes, "read back");
    assert!(test_server.stats().ring.zero_copy_sends > 0, "nothing was sent without a copy");
}
