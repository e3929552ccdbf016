//! Measures reading frames from bytes, as they come from a socket: whole, and cut in the middle of
//! each.

use std::hint::black_box;

use client::numbers::sys;
use criterion::{Criterion, Throughput};
use rumpsp::wire::{self, Reader};

/// The number of frames read at once.
const FRAMES: u64 = 64;

/// The longest body.
const MOST: usize = 128;

/// Returns [`FRAMES`] requests for one call.
fn requests(number: i32, args: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..FRAMES).for_each(|reqno| wire::syscall_request(&mut bytes, reqno, number, args));
    bytes
}

/// Reads all frames of some bytes and returns their number.
fn read(reader: &mut Reader, mut bytes: &[u8]) -> u64 {
    let mut frames = 0;
    while let Some(frame) = reader.next(&mut bytes, |_| Ok::<_, ()>(MOST), |_| ()).unwrap() {
        black_box(frame);
        frames += 1;
    }
    frames
}

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(FRAMES));
    let pread = &[3, 1 << 32, 4096, 0, 0];
    for (name, number, args) in [("getpid", sys::GETPID, &[][..]), ("pread", sys::PREAD, pread)] {
        let bytes = requests(number, args);
        let mut reader = Reader::default();
        group.bench_function(format!("{name}, whole"), |bencher| {
            bencher.iter(|| assert_eq!(read(&mut reader, black_box(&bytes)), FRAMES));
        });
        // Pieces of this length cut nearly every frame at another place.
        let piece = bytes.len() / FRAMES as usize - 1;
        group.bench_function(format!("{name}, each cut"), |bencher| {
            bencher.iter(|| {
                let frames: u64 = bytes.chunks(piece).map(|cut| read(&mut reader, cut)).sum();
                assert_eq!(frames, FRAMES);
            });
        });
    }
    group.finish();
}
