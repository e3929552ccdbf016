use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::super::abi::poll;
use super::super::file::Seen;
use super::super::testing::{Guest, NOWHERE, Pending, kernel, kernel_with, o};
use super::super::wait::Side;
use super::super::{Embedded, Limits};
use kernel::{Errno, sys::MKFIFO};

const CAPACITY: usize = 4096;
const SIGPIPE: i32 = 13;
const NAME: &str = "/tmp/fifo";

fn guests<const N: usize>(kernel: &Embedded) -> [Guest; N] {
    let guests: [Guest; N] = std::array::from_fn(|_| Guest::new(kernel));
    assert_eq!(guests[0].call(MKFIFO, &[guests[0].string(NAME), 0o777]), Ok(0));
    guests
}

fn opening(guest: &Guest, flags: u64) -> Pending {
    guest.start(5, &[guest.string(NAME), flags])
}

/// Opens a reader and a writer, as descriptor 3 of two clients.
fn pair(kernel: &Embedded) -> [Guest; 2] {
    let [reader, writer] = guests(kernel);
    assert_eq!(reader.open(NAME, o::RDONLY | o::NONBLOCK), Ok(3));
    assert_eq!(writer.open(NAME, o::WRONLY), Ok(3));
    reader.call(92, &[3, 4, o::RDONLY]).unwrap();
    [reader, writer]
}

/// Returns what poll and kqueue see of descriptor 3.
fn sees(kernel: &Embedded, guest: &Guest) -> (u32, [Option<Seen>; 2]) {
    let proc = kernel.system.processes.find(guest.process.pid()).unwrap();
    let file = proc.files.get(3).unwrap();
    let filter = |side| file.ops.filter(&file, side, None);
    (file.ops.poll(&file), [filter(Side::Read), filter(Side::Write)])
}

#[test]
fn a_fifo_has_a_name_and_no_place_in_it() {
    let kernel = kernel();
    let [guest] = guests(&kernel);
    assert_eq!(guest.fails(MKFIFO, &[guest.string(NAME), 0o666]), Errno::EEXIST);
    assert_eq!(guest.fails(MKFIFO, &[guest.string("/no/fifo"), 0o666]), Errno::ENOENT);
    assert_eq!(guest.fails(MKFIFO, &[NOWHERE, 0o666]), Errno::EFAULT);
    assert_eq!(guest.open(NAME, o::RDWR | o::TRUNC), Ok(3));
    for (call, args) in [(439, [guest.string(NAME), guest.buffer()]), (440, [3, guest.buffer()])] {
        guest.call(call, &args).unwrap();
        assert_eq!(guest.get(guest.buffer() + 8, 4), 0o010_755u32.to_le_bytes());
    }
    assert_eq!(guest.fails(199, &[3, 0, 0, 0]), Errno::ESPIPE);
    assert_eq!(guest.fails(173, &[3, guest.buffer(), 1, 0, 0]), Errno::ESPIPE);
    assert_eq!(guest.fails(13, &[3]), Errno::ENOTDIR);
    // A fifo has no locks either.
    assert_eq!(guest.fails(131, &[3, 1]), Errno::EINVAL);
    let lock = guest.place(&[[0; 16], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat());
    assert_eq!(guest.fails(92, &[3, 8, lock]), Errno::EINVAL);
    assert_eq!(guest.open(NAME, o::RDWR | o::SHLOCK), Err(Errno::EINVAL));
}

#[test]
fn an_open_waits_for_the_other_side() {
    let kernel = kernel();
    let [reader, writer] = guests(&kernel);
    let mut reads = opening(&reader, o::RDONLY);
    assert_eq!(reads.run(), None);
    assert_eq!(reads.run(), None);
    assert!(!reads.woken());
    let mut writes = opening(&writer, o::WRONLY);
    assert_eq!(writes.run(), Some(Ok([3, 0])));
    assert!(reads.woken());
    assert_eq!(reads.run(), Some(Ok([3, 0])));
    assert_eq!(writer.write(3, b"to be read"), Ok(10));
    assert_eq!(reader.read(3, 100).unwrap(), b"to be read");
    assert_eq!(reader.write(3, b"x"), Err(Errno::EBADF));
    reader.close(3).unwrap();
    writer.close(3).unwrap();
    // The other way round; and an open for both waits for nobody.
    let mut writes = opening(&writer, o::WRONLY);
    assert_eq!(writes.run(), None);
    assert_eq!(opening(&reader, o::RDONLY).run(), Some(Ok([3, 0])));
    assert!(writes.woken());
    assert_eq!(writes.run(), Some(Ok([3, 0])));
    writer.close(3).unwrap();
    reader.close(3).unwrap();
    assert_eq!(opening(&reader, o::RDWR).run(), Some(Ok([3, 0])));
    assert_eq!(opening(&writer, o::WRONLY | o::NONBLOCK).run(), Some(Ok([3, 0])));
}

#[test]
fn an_open_that_will_not_wait_reads_nothing_or_has_nobody_to_write_to() {
    let kernel = kernel();
    let [reader, writer] = guests(&kernel);
    assert_eq!(writer.open(NAME, o::WRONLY | o::NONBLOCK), Err(Errno::ENXIO));
    assert_eq!(reader.open(NAME, o::RDONLY | o::NONBLOCK), Ok(3));
    assert_eq!(reader.read(3, 10).unwrap(), b"");
    assert_eq!(sees(&kernel, &reader).0 & poll::IN, 0);
    assert_eq!(writer.open(NAME, o::WRONLY | o::NONBLOCK), Ok(3));
    assert_eq!(reader.read(3, 10), Err(Errno::EAGAIN));
    writer.write(3, b"x").unwrap();
    assert_eq!(reader.read(3, 10).unwrap(), b"x");
}

#[test]
fn an_open_that_waits_has_its_number_already() {
    let kernel = kernel();
    let [reader, writer] = guests(&kernel);
    let mut reads = opening(&reader, o::RDONLY | o::CLOEXEC);
    assert_eq!(reads.run(), None);
    let is_open = |fd| reader.call(92, &[fd, 1]);
    assert_eq!((is_open(3), reader.close(3)), (Err(Errno::EBADF), Err(Errno::EBADF)));
    assert_eq!(reader.call(92, &[0, 11]), Ok(3));
    assert_eq!(reader.open("/tmp", o::RDONLY), Ok(4));
    assert_eq!(reader.pipe(), (5, 6));
    // A child does not get the reserved descriptor.
    let child = reader.fork();
    assert_eq!(child.open("/tmp", o::RDONLY), Ok(3));
    assert_eq!(writer.open(NAME, o::WRONLY), Ok(3));
    assert_eq!(reads.run(), Some(Ok([3, 0])));
    assert_eq!(is_open(3), Ok(1));
    // The descriptor is free again when the open fails, and dup2 may take it.
    writer.close(3).unwrap();
    reader.close(3).unwrap();
    let mut reads = opening(&reader, o::RDONLY);
    assert_eq!(reads.run(), None);
    assert_eq!(reads.interrupt(), Err(Errno::EINTR));
    assert_eq!(reader.open("/tmp", o::RDONLY), Ok(3));
    reader.close(3).unwrap();
    let mut reads = opening(&reader, o::RDONLY);
    assert_eq!(reads.run(), None);
    assert_eq!(reader.call(90, &[4, 3]), Ok(3));
    writer.open(NAME, o::WRONLY).unwrap();
    assert_eq!(reads.run(), Some(Ok([7, 0])));
    let mut reads = opening(&writer, o::RDONLY | o::NONBLOCK);
    assert_eq!(reads.run(), Some(Ok([4, 0])));
    for guest in [reader, writer, child] {
        guest.process.release();
    }
    assert_eq!(kernel.usage().files, 0);
}

#[test]
fn an_open_that_waits_is_counted_among_those_there_may_be() {
    let kernel = kernel_with(Limits { files_per_process: 5, ..Limits::default() });
    let [reader] = guests(&kernel);
    let mut reads = opening(&reader, o::RDONLY);
    assert_eq!(reads.run(), None);
    let mut more = opening(&reader, o::RDONLY);
    assert_eq!(more.run(), None);
    assert_eq!(reader.open("/tmp", o::RDONLY), Err(Errno::EMFILE));
    assert_eq!(reads.interrupt(), Err(Errno::EINTR));
    assert_eq!(reader.open("/tmp", o::RDONLY), Ok(3));
    drop(more);
    assert_eq!(reader.open("/tmp", o::RDONLY), Ok(4));
}

#[test]
fn an_interrupted_open_was_none() {
    let kernel = kernel();
    let [reader, writer] = guests(&kernel);
    let before = kernel.usage();
    let mut writes = opening(&writer, o::WRONLY);
    assert_eq!(writes.run(), None);
    let mut reads = opening(&reader, o::RDONLY | o::CLOEXEC);
    // An open counts for the other side, though it waits itself.
    assert_eq!(writes.interrupt(), Err(Errno::EINTR));
    assert_eq!(reads.run(), None);
    assert_eq!(reads.interrupt(), Err(Errno::EINTR));
    assert_eq!(writer.open(NAME, o::WRONLY | o::NONBLOCK), Err(Errno::ENXIO));
    let mut writes = opening(&writer, o::WRONLY);
    assert_eq!(writes.run(), None);
    drop(writes);
    let mut after = kernel.usage();
    after.files = before.files;
    assert_eq!(after, before);
    // A writer that came and went is enough for the waiting reader, which then reads end of file.
    let mut reads = opening(&reader, o::RDONLY);
    assert_eq!(reads.run(), None);
    assert_eq!(writer.open(NAME, o::WRONLY), Ok(3));
    writer.close(3).unwrap();
    assert_eq!(reads.run(), Some(Ok([3, 0])));
    assert_eq!(reader.read(3, 5).unwrap(), b"");
}

#[test]
fn the_end_of_file_is_told_once_and_a_writer_may_come_back() {
    let kernel = kernel();
    let [reader, writer] = pair(&kernel);
    writer.write(3, b"last words").unwrap();
    let child = writer.fork();
    writer.close(3).unwrap();
    assert_eq!(reader.read(3, 4).unwrap(), b"last");
    child.process.release();
    assert_eq!(reader.read(3, 100).unwrap(), b" words");
    assert_eq!(reader.read(3, 100).unwrap(), b"");
    let mut reads = reader.start(3, &[3, reader.buffer(), 100]);
    assert_eq!(reads.run(), None);
    assert_eq!(writer.open(NAME, o::WRONLY), Ok(3));
    assert_eq!(reads.run(), None);
    writer.write(3, b"again").unwrap();
    assert!(reads.woken());
    assert_eq!(reads.run(), Some(Ok([5, 0])));
    let mut reads = reader.start(3, &[3, reader.buffer(), 100]);
    assert_eq!(reads.run(), None);
    writer.close(3).unwrap();
    assert!(reads.woken());
    assert_eq!(reads.run(), Some(Ok([0, 0])));
}

#[test]
fn what_is_in_it_stays_while_one_side_is_open_and_goes_with_the_last() {
    let kernel = kernel();
    let [reader, writer] = pair(&kernel);
    writer.write(3, b"data").unwrap();
    reader.close(3).unwrap();
    assert_eq!(writer.write(3, b"more"), Err(Errno::EPIPE));
    assert_eq!(writer.signals.taken(), [SIGPIPE]);
    assert_eq!(writer.write(3, b""), Err(Errno::EPIPE));
    writer.signals.taken();
    assert_eq!(reader.open(NAME, o::RDONLY), Ok(3));
    assert_eq!(writer.write(3, b"more"), Ok(4));
    assert_eq!(reader.read(3, 100).unwrap(), b"datamore");
    writer.write(3, b"lost").unwrap();
    // The fifo does not depend on its name.
    writer.call(10, &[writer.string(NAME)]).unwrap();
    writer.close(3).unwrap();
    assert_eq!(reader.read(3, 2).unwrap(), b"lo");
    reader.close(3).unwrap();
    assert_eq!(kernel.usage().bytes, 0);
    assert_eq!(writer.call(MKFIFO, &[writer.string(NAME), 0o666]), Ok(0));
    assert_eq!(reader.open(NAME, o::RDONLY | o::NONBLOCK), Ok(3));
    assert_eq!(reader.read(3, 100).unwrap(), b"");
    reader.process.release();
    assert_eq!(kernel.usage().bytes, 0);
}

#[test]
fn small_writes_are_whole_and_large_ones_begin_with_some_room() {
    let kernel = kernel();
    let [reader, writer] = pair(&kernel);
    writer.call(92, &[3, 4, o::WRONLY | o::NONBLOCK]).unwrap();
    assert_eq!(writer.write(3, &[1; 10_000]), Ok(CAPACITY as i64));
    assert_eq!(writer.write(3, &[2; 1]), Err(Errno::EAGAIN));
    assert_eq!(reader.read(3, 2047).unwrap().len(), 2047);
    assert_eq!(writer.write(3, &[2; 2048]), Err(Errno::EAGAIN));
    assert_eq!(reader.read(3, 1).unwrap().len(), 1);
    assert_eq!(writer.write(3, &[2; 5000]), Ok(2048));
    // A waiting writer goes on as there is room, woken each time.
    writer.call(92, &[3, 4, o::WRONLY]).unwrap();
    let mut writes = writer.start(4, &[3, writer.buffer(), 600]);
    assert_eq!(writes.run(), None);
    assert_eq!(reader.read(3, 599).unwrap().len(), 599);
    assert_eq!(writes.run(), None);
    assert_eq!(reader.read(3, 1).unwrap().len(), 1);
    assert!(writes.woken());
    assert_eq!(writes.run(), Some(Ok([600, 0])));
    // The last part of a waiting write may be small.
    reader.read(3, CAPACITY).unwrap();
    writer.write(3, &[2; 8]).unwrap();
    let mut writes = writer.start(4, &[3, writer.buffer(), CAPACITY as u64]);
    assert_eq!(writes.run(), None);
    reader.read(3, 8).unwrap();
    assert!(writes.woken());
    assert_eq!(writes.run(), Some(Ok([CAPACITY as i64, 0])));
    let mut writes = writer.start(4, &[3, writer.buffer(), 20_000]);
    assert_eq!(writes.run(), None);
    let mut left = CAPACITY + 20_000;
    while left > 0 {
        left -= reader.read(3, 3000).unwrap().len();
        if writes.woken() {
            writes.run();
        }
    }
    assert_eq!(kernel.usage().bytes, 1024);
}

#[test]
fn poll_and_kqueue_see_both_sides() {
    let kernel = kernel();
    let [reader, writer] = pair(&kernel);
    let seen = |ready, data, eof| Some(Seen { ready, data, eof, flags: 0 });
    let both = |expected| {
        assert_eq!(sees(&kernel, &reader), expected);
        assert_eq!(sees(&kernel, &writer), expected);
    };
    both((poll::OUT, [seen(false, 0, false), seen(true, 4096, false)]));
    writer.write(3, &[0; 2048]).unwrap();
    let events = poll::IN | poll::RDNORM;
    both((events | poll::OUT, [seen(true, 2048, false), seen(true, 2048, false)]));
    writer.write(3, b"x").unwrap();
    both((events, [seen(true, 2049, false), seen(false, 2047, false)]));
    reader.put(reader.buffer(), &[0; 4]);
    reader.call(54, &[3, 0x4004_667f, reader.buffer()]).unwrap();
    assert_eq!(reader.get(reader.buffer(), 4), 2049i32.to_le_bytes());
    writer.close(3).unwrap();
    assert_eq!(sees(&kernel, &reader).1[0], seen(true, 2049, true));
    writer.open(NAME, o::WRONLY).unwrap();
    assert_eq!(sees(&kernel, &reader).1[0], seen(true, 2049, false));
    reader.close(3).unwrap();
    assert_eq!(sees(&kernel, &writer).0, events | poll::OUT);
    assert_eq!(sees(&kernel, &writer).1[1], seen(true, 2047, true));
}

#[test]
fn a_fifo_is_paid_for_while_it_is_open() {
    let kernel = kernel_with(Limits { bytes: 3000, ..Limits::default() });
    let [reader, writer] = guests(&kernel);
    let hoard = reader.open("/tmp/hoard", o::RDWR | o::CREAT).unwrap();
    reader.write(hoard, &[1; 2048]).unwrap();
    assert_eq!(reader.open(NAME, o::RDWR), Err(Errno::ENOMEM));
    reader.call(201, &[hoard, 0, 100]).unwrap();
    assert_eq!(reader.open(NAME, o::RDWR | o::NONBLOCK), Ok(4));
    // The fifo holds less while its family cannot pay for more.
    assert_eq!(reader.write(4, &[1; 3000]), Err(Errno::EAGAIN));
    assert_eq!(reader.write(4, &[1; 1024]), Ok(1024));
    assert_eq!(reader.write(4, &[1; 1]), Err(Errno::EAGAIN));
    reader.process.release();
    writer.call(10, &[writer.string("/tmp/hoard")]).unwrap();
    assert_eq!(kernel.usage().bytes, 0);
    assert_eq!(kernel.usage().files, 0);
}

#[test]
fn many_readers_and_writers_lose_nothing() {
    let kernel = kernel();
    let [guest] = guests(&kernel);
    const EACH: usize = 300;
    let writers: Vec<_> = (0..3)
        .map(|who| {
            let mut child = guest.fork();
            child.slow = who == 0;
            thread::spawn(move || {
                let fd = child.open(NAME, o::WRONLY).unwrap();
                let lengths = (0..EACH).map(|turn| 1 + (turn * 37 + who * 11) % 512);
                let sum: i64 =
                    lengths.map(|len| child.write(fd, &vec![who as u8; len]).unwrap()).sum();
                child.process.release();
                sum
            })
        })
        .collect();
    let (ended, ends) = channel();
    for _ in 0..2 {
        let (child, ended) = (guest.fork(), ended.clone());
        thread::spawn(move || {
            let fd = child.open(NAME, o::RDONLY).unwrap();
            let mut sum = 0;
            loop {
                let got = child.read(fd, 700).unwrap();
                sum += got.len() as i64;
                if got.contains(&u8::MAX) {
                    break ended.send(sum - 1).unwrap();
                }
            }
        });
    }
    let keeps = guest.open(NAME, o::RDWR).unwrap();
    let sent: i64 = writers.into_iter().map(|thread| thread.join().unwrap()).sum();
    // Each reader ends with a mark of its own.
    let mut received = 0;
    for _ in 0..2 {
        assert_eq!(guest.write(keeps, &[u8::MAX]), Ok(1));
        received += ends.recv_timeout(Duration::from_secs(60)).expect("a reader ends");
    }
    assert_eq!(sent, received);
}
