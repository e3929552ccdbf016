use std::sync::Arc;
use std::thread;

use super::super::Limits;
use super::super::testing::{BASE, Guest, NOWHERE, kernel, kernel_with, o};
use kernel::Errno;

const CAPACITY: usize = 16 * 1024;
const LARGE: usize = 4 * CAPACITY;
const FIONREAD: u64 = 0x4004_667f;
const FIONWRITE: u64 = 0x4004_6679;
const FIONSPACE: u64 = 0x4004_6678;
const SIGPIPE: i32 = 13;

#[test]
fn bytes_go_through_in_order() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    assert_eq!((reader, writer), (3, 4));
    assert_eq!(guest.write(writer, b"one"), Ok(3));
    assert_eq!(guest.write(writer, b"two"), Ok(3));
    assert_eq!(guest.read(reader, 4).unwrap(), b"onet");
    assert_eq!(guest.read(reader, 0).unwrap(), b"");
    assert_eq!(guest.read(reader, 100).unwrap(), b"wo");
    assert_eq!(guest.write(reader, b"x"), Err(Errno::EBADF));
    assert_eq!(guest.read(writer, 1), Err(Errno::EBADF));
    assert_eq!(guest.fails(199, &[reader, 0, 0, 0]), Errno::ESPIPE);
    guest.write(writer, b"xyz").unwrap();
    guest.call(440, &[reader, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o010_600u32.to_le_bytes());
    assert_eq!(guest.get(guest.buffer() + 112, 1), [3]);
}

#[test]
fn a_pair_wants_its_numbers_before_its_open_files() {
    let kernel = kernel_with(Limits { files_per_process: 6, files: 4, ..Limits::default() });
    let guest = Guest::new(&kernel);
    guest.open("/dev/null", o::RDWR).unwrap();
    guest.open("/dev/null", o::RDWR).unwrap();
    let before = kernel.usage();
    let pairs = |errno| {
        let socketpair = guest.fails(135, &[1, 1, 0, guest.buffer()]);
        assert_eq!((guest.fails(42, &[]), socketpair), (errno, errno));
    };
    // One descriptor and one open file are left, enough for the first end only.
    pairs(Errno::EMFILE);
    assert_eq!(kernel.usage(), before);
    let last = guest.open("/dev/null", o::RDWR).unwrap();
    pairs(Errno::EMFILE);
    guest.close(last).unwrap();
    assert_eq!(guest.call(41, &[3]), Ok(5));
    pairs(Errno::EMFILE);
    guest.close(4).unwrap();
    guest.close(5).unwrap();
    // Descriptors enough, but only one more open file.
    let other = Guest::new(&kernel);
    other.call(440, &[0, other.buffer()]).unwrap();
    pairs(Errno::ENFILE);
    assert_eq!(kernel.usage().files, 3);
}

#[test]
fn pipe2_takes_flags_and_copies_descriptors_out() {
    let guest = Guest::new(&kernel());
    assert_eq!(guest.call(453, &[guest.buffer(), o::NONBLOCK | o::CLOEXEC]), Ok(0));
    assert_eq!(guest.get(guest.buffer(), 8), [3, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(guest.read(3, 1), Err(Errno::EAGAIN));
    assert_eq!(guest.call(92, &[3, 1]), Ok(1));
    assert_eq!(guest.fails(453, &[guest.buffer(), o::APPEND]), Errno::EINVAL);
    guest.process.exec(b"new");
    assert_eq!(guest.read(3, 1), Err(Errno::EBADF));
}

#[test]
fn a_reader_sleeps_until_there_is_something() {
    let kernel = kernel();
    let (reader, writer) = (Guest::new(&kernel), 4);
    let (fd, _) = reader.pipe();
    let other = reader.fork();
    let mut pending = reader.start(3, &[fd, reader.buffer(), 100]);
    assert_eq!(pending.run(), None);
    assert!(!pending.woken());
    assert_eq!(pending.run(), None);
    assert_eq!(other.write(writer, b"wake up"), Ok(7));
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([7, 0])));
    assert_eq!(reader.get(reader.buffer(), 7), b"wake up");
    // The call is woken, but another has taken the bytes: it sleeps on.
    let mut first = reader.start(3, &[fd, reader.buffer(), 100]);
    let mut second = other.start(3, &[fd, other.buffer(), 100]);
    assert_eq!((first.run(), second.run()), (None, None));
    other.write(writer, b"x").unwrap();
    assert!(first.woken() && second.woken());
    assert_eq!(second.run(), Some(Ok([1, 0])));
    assert_eq!(first.run(), None);
    assert_eq!(first.interrupt(), Err(Errno::EINTR));
    // Without writers, the read returns end of file.
    let mut pending = reader.start(3, &[fd, reader.buffer(), 100]);
    assert_eq!(pending.run(), None);
    other.process.release();
    assert!(!pending.woken());
    reader.close(4).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([0, 0])));
}

#[test]
fn a_writer_sleeps_until_there_is_room() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let data: Vec<u8> = (0..150_000u32).map(|i| (i % 253) as u8).collect();
    guest.put(guest.buffer(), &data);
    let mut pending = guest.start(4, &[writer, guest.buffer(), data.len() as u64]);
    assert_eq!(pending.run(), None);
    let other = guest.fork();
    let mut got = other.read(reader, LARGE + 1).unwrap();
    assert_eq!(got.len(), LARGE);
    let mut ended = None;
    while got.len() < data.len() {
        if pending.woken() && ended.is_none() {
            ended = pending.run();
        }
        got.extend(other.read(reader, 7000).unwrap());
    }
    assert_eq!(ended, Some(Ok([150_000, 0])));
    assert_eq!(got, data);
}

#[test]
fn a_writer_that_waits_goes_on_once_a_third_of_a_pipe_is_left() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let held = || {
        guest.call(54, &[reader, FIONREAD, BASE]).unwrap();
        u32::from_le_bytes(guest.get(BASE, 4).try_into().unwrap()) as usize
    };
    guest.write(writer, &[1; CAPACITY]).unwrap();
    let mut pending = guest.start(4, &[writer, guest.buffer(), 8000]);
    assert_eq!(pending.run(), None);
    // There is room for a new write, but not for the waiting one.
    guest.read(reader, 10_000).unwrap();
    assert_eq!(pending.run(), None);
    assert_eq!(guest.write(writer, b"x"), Ok(1));
    assert_eq!(held(), CAPACITY - 9_999);
    guest.read(reader, 924).unwrap();
    assert_eq!((pending.run(), held()), (None, CAPACITY / 3));
    guest.read(reader, 1).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([8000, 0])));
    assert_eq!(held(), CAPACITY / 3 - 1 + 8000);
}

#[test]
fn a_larger_write_makes_an_empty_pipe_large() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let pipe = || {
        guest.call(453, &[BASE, o::NONBLOCK]).unwrap();
        let fds = guest.get(BASE, 8);
        [fds[0].into(), fds[4].into()]
    };
    let [reader, writer] = pipe();
    assert_eq!(guest.write(writer, &[1; CAPACITY]), Ok(CAPACITY as i64));
    assert_eq!(guest.write(writer, &[1; 100_000]), Err(Errno::EAGAIN));
    guest.read(reader, CAPACITY).unwrap();
    assert_eq!(guest.write(writer, &[1; 100_000]), Ok(LARGE as i64));
    assert_eq!(kernel.usage().bytes, LARGE as u64);
    guest.read(reader, LARGE).unwrap();
    assert_eq!(kernel.usage().bytes, 1024);
    // The pipe stays large; but there are not many large ones.
    assert_eq!(guest.write(writer, &[1; CAPACITY]), Ok(CAPACITY as i64));
    assert_eq!(guest.write(writer, &[1; LARGE]), Ok((LARGE - CAPACITY) as i64));
    let more: Vec<_> = (1..32).map(|_| pipe()).collect();
    for [_, writer] in &more {
        assert_eq!(guest.write(*writer, &[1; 100_000]), Ok(LARGE as i64));
    }
    let [_, last] = pipe();
    assert_eq!(guest.write(last, &[1; 100_000]), Ok(CAPACITY as i64));
    // Closing its reader frees one large pipe.
    guest.close(more[7][0]).unwrap();
    let [_, last] = pipe();
    assert_eq!(guest.write(last, &[1; 100_000]), Ok(LARGE as i64));
    guest.process.release();
    assert_eq!((kernel.usage().bytes, kernel.system.counters.large_pipes.get()), (0, 0));
}

#[test]
fn a_pipe_holds_what_can_be_paid_for() {
    let least = 1024;
    let limits = |bytes| Limits { bytes, ..Limits::default() };
    for (bytes, holds) in
        [(LARGE, LARGE), (LARGE - 1, CAPACITY), (CAPACITY, CAPACITY), (CAPACITY - 1, least)]
    {
        let kernel = kernel_with(limits(bytes as u64));
        let guest = Guest::new(&kernel);
        guest.call(453, &[BASE, o::NONBLOCK]).unwrap();
        assert_eq!(guest.write(4, &[1; 100_000]), Ok(holds as i64));
        assert_eq!(kernel.usage().bytes, holds as u64);
        guest.process.release();
        assert_eq!(kernel.usage().bytes, 0);
    }
}

#[test]
fn each_end_tells_of_what_it_has() {
    let guest = Guest::new(&kernel());
    guest.call(23, &[7]).unwrap();
    let (reader, writer) = guest.pipe();
    guest.write(writer, b"hello").unwrap();
    let asks = |fd, request| {
        guest.call(54, &[fd, request, BASE]).unwrap();
        u32::from_le_bytes(guest.get(BASE, 4).try_into().unwrap())
    };
    assert_eq!([FIONREAD, FIONWRITE, FIONSPACE].map(|asked| asks(reader, asked)), [5, 0, 0]);
    let room = CAPACITY as u32 - 5;
    assert_eq!([FIONREAD, FIONWRITE, FIONSPACE].map(|asked| asks(writer, asked)), [0, 5, room]);
    assert_eq!(guest.fails(54, &[reader, 0x1234_5678, BASE]), Errno::ENOTTY);
    for (fd, size) in [(reader, 5), (writer, 0)] {
        guest.call(440, &[fd, BASE]).unwrap();
        assert_eq!(
            (guest.get(BASE + 112, 1), guest.get(BASE + 120, 1)),
            (vec![size], vec![size.min(1)])
        );
        assert_eq!(guest.get(BASE + 28, 4), 7u32.to_le_bytes());
    }
}

#[test]
fn small_writes_are_whole_and_large_ones_partial_without_blocking() {
    let guest = Guest::new(&kernel());
    guest.call(453, &[guest.buffer(), o::NONBLOCK]).unwrap();
    let (reader, writer) = (3, 4);
    assert_eq!(guest.write(writer, &[1; CAPACITY - 100]), Ok(CAPACITY as i64 - 100));
    assert_eq!(guest.write(writer, &[2; 512]), Err(Errno::EAGAIN));
    assert_eq!(guest.write(writer, &[2; 513]), Ok(100));
    assert_eq!(guest.write(writer, &[2; 513]), Err(Errno::EAGAIN));
    assert_eq!(guest.write(writer, &[]), Ok(0));
    assert_eq!(guest.call(4, &[writer, NOWHERE, 5]), Err(Errno::EAGAIN));
    guest.read(reader, 512).unwrap();
    assert_eq!(guest.call(4, &[writer, NOWHERE, 5]), Err(Errno::EFAULT));
    assert_eq!(guest.write(writer, &[3; 512]), Ok(512));
    // An interrupted write returns what went in.
    guest.call(92, &[writer, 4, 0]).unwrap();
    guest.read(reader, 1000).unwrap();
    let mut pending = guest.start(4, &[writer, guest.buffer(), 2000]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Ok([1000, 0]));
    let mut pending = guest.start(4, &[writer, guest.buffer(), 2000]);
    assert_eq!(pending.interrupt(), Err(Errno::EINTR));
}

#[test]
fn a_broken_pipe_comes_with_its_signal() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let mut pending = guest.start(4, &[writer, guest.buffer(), 70_000]);
    assert_eq!(pending.run(), None);
    guest.close(reader).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::EPIPE)));
    assert_eq!(guest.signals.taken(), [SIGPIPE]);
    assert_eq!(guest.write(writer, b""), Err(Errno::EPIPE));
    assert_eq!(guest.signals.taken(), [SIGPIPE]);
    guest.call(92, &[writer, 14, 1]).unwrap();
    assert_eq!(guest.write(writer, b"x"), Err(Errno::EPIPE));
    assert_eq!(guest.signals.taken(), [] as [i32; 0]);
}

#[test]
fn closing_a_descriptor_ends_who_waits_on_it() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, _writer) = guest.pipe();
    let twin = guest.call(41, &[reader]).unwrap() as u64;
    let mut on_it = guest.start(3, &[reader, guest.buffer(), 1]);
    let mut on_twin = guest.start(3, &[twin, guest.buffer(), 1]);
    assert_eq!((on_it.run(), on_twin.run()), (None, None));
    guest.close(reader).unwrap();
    assert!(on_it.woken());
    // The descriptor means another file by now.
    let (other, _) = guest.pipe();
    assert_eq!(other, reader);
    assert_eq!(on_it.run(), Some(Err(Errno::EBADF)));
    assert_eq!(on_twin.run(), None);
    drop(on_twin);
}

#[test]
fn no_wake_up_is_lost_between_threads() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    const WRITERS: usize = 4;
    const READERS: usize = 3;
    const EACH: usize = 400;
    let writers: Vec<_> = (0..WRITERS)
        .map(|who| {
            let mut child = guest.fork();
            child.slow = who % 2 == 0;
            thread::spawn(move || {
                child.close(reader).unwrap();
                for turn in 0..EACH {
                    // Writes up to PIPE_BUF are never torn.
                    let len = 1 + (turn * 37 + who * 11) % 512;
                    assert_eq!(child.write(writer, &vec![b'a' + who as u8; len]), Ok(len as i64));
                }
                child.process.release();
                (0..EACH).map(|turn| 1 + (turn * 37 + who * 11) % 512).sum::<usize>()
            })
        })
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|who| {
            let child = guest.fork();
            thread::spawn(move || {
                child.close(writer).unwrap();
                let mut sum = 0;
                loop {
                    let got = child.read(reader, 100 + who * 300).unwrap().len();
                    if got == 0 {
                        break sum;
                    }
                    sum += got;
                }
            })
        })
        .collect();
    guest.process.release();
    let sent: usize = writers.into_iter().map(|thread| thread.join().unwrap()).sum();
    let received: usize = readers.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(sent, received);
}

#[test]
fn two_threads_of_a_client_may_play_ping_pong() {
    let kernel = kernel();
    let guest = Arc::new(Guest::new(&kernel));
    let ((there_out, there), (back_out, back)) = (guest.pipe(), guest.pipe());
    let echo = guest.fork();
    let thread = thread::spawn(move || {
        echo.close(there).unwrap();
        loop {
            let ball = echo.read(there_out, 1).unwrap();
            if ball.is_empty() {
                break;
            }
            echo.write(back, &ball).unwrap();
        }
    });
    for turn in 0..2000u32 {
        guest.write(there, &[turn as u8]).unwrap();
        assert_eq!(guest.read(back_out, 1).unwrap(), [turn as u8]);
    }
    guest.close(there).unwrap();
    thread.join().unwrap();
}

#[test]
fn who_waits_hears_of_o_nonblock_only_when_there_is_something() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let other = guest.fork();
    let read = |guest: &Guest| guest.start(3, &[reader, guest.buffer(), 10]);
    let (mut first, mut second) = (read(&guest), read(&other));
    assert_eq!((first.run(), second.run()), (None, None));
    guest.call(92, &[reader, 4, o::NONBLOCK]).unwrap();
    // A close in another process does not affect this call.
    guest.fork().close(reader).unwrap();
    assert_eq!(first.run(), None);
    guest.write(writer, b"x").unwrap();
    assert_eq!(second.run(), Some(Ok([1, 0])));
    assert_eq!(first.run(), Some(Err(Errno::EAGAIN)));
    guest.call(92, &[reader, 4, 0]).unwrap();
    let mut last = read(&guest);
    assert_eq!(last.run(), None);
    guest.call(92, &[reader, 4, o::NONBLOCK]).unwrap();
    assert_eq!(last.interrupt(), Err(Errno::EINTR));
    assert_eq!(guest.read(reader, 1), Err(Errno::EAGAIN));
}
