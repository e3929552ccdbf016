use std::sync::Arc;
use std::thread;

use super::super::testing::{Guest, NOWHERE, kernel, o};
use crate::kernel::Errno;

const CAPACITY: usize = 16 * 1024;
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
    // Woken for what somebody else took: it sleeps on.
    let mut first = reader.start(3, &[fd, reader.buffer(), 100]);
    let mut second = other.start(3, &[fd, other.buffer(), 100]);
    assert_eq!((first.run(), second.run()), (None, None));
    other.write(writer, b"x").unwrap();
    assert!(first.woken() && second.woken());
    assert_eq!(second.run(), Some(Ok([1, 0])));
    assert_eq!(first.run(), None);
    assert_eq!(first.interrupt(), Err(Errno::EINTR));
    // The writers gone, it is the end.
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
    let data: Vec<u8> = (0..50_000u32).map(|i| (i % 253) as u8).collect();
    guest.put(guest.buffer(), &data);
    let mut pending = guest.start(4, &[writer, guest.buffer(), data.len() as u64]);
    assert_eq!(pending.run(), None);
    let other = guest.fork();
    let mut got = other.read(reader, CAPACITY + 1).unwrap();
    assert_eq!(got.len(), CAPACITY);
    while got.len() < data.len() {
        assert!(pending.woken());
        let ended = pending.run();
        got.extend(other.read(reader, 7000).unwrap());
        if ended.is_some() {
            assert_eq!(ended, Some(Ok([50_000, 0])));
            got.extend(other.read(reader, data.len()).unwrap());
        }
    }
    assert_eq!(got, data);
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
    // Waiting and interrupted: what went in counts.
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
    let mut pending = guest.start(4, &[writer, guest.buffer(), 20_000]);
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
    // The number means something else by now.
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
                    // Records up to PIPE_BUF are never torn.
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
