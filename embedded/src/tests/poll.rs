use std::thread;
use std::time::{Duration, Instant};

use super::super::Limits;
use super::super::testing::{Guest, NOWHERE, Pending, kernel, kernel_with, o};
use kernel::Errno;

const IN: i16 = 0x1;
const OUT: i16 = 0x4;
const HUP: i16 = 0x10;
const NVAL: i16 = 0x20;
const RDNORM: i16 = 0x40;
const RDBAND: i16 = 0x80;

const FOREVER: u64 = -1i32 as u32 as u64;

fn pollfds(fds: &[(u64, i16)]) -> Vec<u8> {
    let one = |&(fd, events): &(u64, i16)| {
        [&(fd as i32).to_le_bytes()[..], &events.to_le_bytes(), &[0xff; 2]].concat()
    };
    fds.iter().flat_map(one).collect()
}

/// Puts the `struct pollfd`s into memory and begins a poll. Returns their address, and the call.
fn start(guest: &Guest, fds: &[(u64, i16)], millis: u64) -> (u64, Pending) {
    let at = guest.place(&pollfds(fds));
    (at, guest.start(209, &[at, fds.len() as u64, millis]))
}

fn revents(guest: &Guest, at: u64, count: usize) -> Vec<i16> {
    let bytes = guest.get(at, count * 8);
    bytes.chunks(8).map(|fd| i16::from_le_bytes([fd[6], fd[7]])).collect()
}

/// Polls without waiting. Returns the number of ready files, and the events of each.
fn look(guest: &Guest, fds: &[(u64, i16)]) -> (i64, Vec<i16>) {
    let (at, mut pending) = start(guest, fds, 0);
    let count = pending.wait().unwrap()[0];
    (count, revents(guest, at, fds.len()))
}

#[test]
fn poll_says_what_holds() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let all = IN | OUT | RDNORM | RDBAND;
    assert_eq!(look(&guest, &[(reader, all), (writer, all)]), (1, vec![0, OUT]));
    guest.write(writer, b"x").unwrap();
    assert_eq!(look(&guest, &[(reader, all), (writer, IN)]), (1, vec![IN | RDNORM, 0]));
    assert_eq!(look(&guest, &[(reader, IN), (reader, OUT), (reader, 0)]), (1, vec![IN, 0, 0]));
    // A closed descriptor, and a negative one, which is skipped.
    assert_eq!(look(&guest, &[(99, IN), (-5i32 as u64, IN)]), (1, vec![NVAL, 0]));
    // The console, a file and a device.
    let file = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    let null = guest.open("/dev/null", o::RDWR).unwrap();
    let found = look(&guest, &[(0, all), (file, all), (null, all)]);
    assert_eq!(found, (3, vec![OUT, IN | OUT | RDNORM, IN | OUT | RDNORM]));
    // A full pipe; room for less than a whole small write does not count.
    guest.write(writer, &[0; 16 * 1024 - 1]).unwrap();
    assert_eq!(look(&guest, &[(writer, OUT)]), (0, vec![0]));
    guest.read(reader, 511).unwrap();
    assert_eq!(look(&guest, &[(writer, OUT)]), (0, vec![0]));
    guest.read(reader, 1).unwrap();
    assert_eq!(look(&guest, &[(writer, OUT)]), (1, vec![OUT]));
    // An end without the other end reports that, whatever is asked.
    guest.close(reader).unwrap();
    assert_eq!(
        look(&guest, &[(writer, 0), (writer, all)]),
        (2, vec![HUP, IN | OUT | HUP | RDNORM])
    );
    let (reader, writer) = guest.pipe();
    guest.close(writer).unwrap();
    assert_eq!(look(&guest, &[(reader, 0), (reader, IN | OUT)]), (2, vec![HUP, IN | OUT | HUP]));
}

#[test]
fn poll_refuses_what_it_cannot_do() {
    let guest = Guest::new(&kernel());
    // A new table has room for 20, and a poll may name a thousand more.
    let fds = pollfds(&vec![(-1i32 as u64, IN); 1020]);
    guest.put(guest.buffer(), &fds);
    assert_eq!(guest.call(209, &[guest.buffer(), 1020, 0]), Ok(0));
    assert_eq!(guest.fails(209, &[guest.buffer(), 1021, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(209, &[NOWHERE, u32::MAX.into(), 0]), Errno::EINVAL);
    // The bound grows with the table, by steps.
    guest.call(90, &[0, 20]).unwrap();
    guest.put(guest.buffer(), &pollfds(&vec![(-1i32 as u64, IN); 1050]));
    assert_eq!(guest.call(209, &[guest.buffer(), 1050, 0]), Ok(0));
    assert_eq!(guest.fails(209, &[guest.buffer(), 1051, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(209, &[NOWHERE, 1, 0]), Errno::EFAULT);
    assert_eq!(guest.call(209, &[NOWHERE, 0, 0]), Ok(0));
    for millis in [-2i32, -1000, i32::MIN] {
        assert_eq!(guest.fails(209, &[guest.buffer(), 1, millis as u32 as u64]), Errno::EINVAL);
        assert_eq!(guest.fails(209, &[NOWHERE, 1, millis as u32 as u64]), Errno::EFAULT);
    }
}

#[test]
fn poll_sleeps_until_one_is_ready() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let ((first, first_in), (second, second_in)) = (guest.pipe(), guest.pipe());
    let other = guest.fork();
    let (at, mut pending) = start(&guest, &[(first, IN), (second, IN), (99, 0)], FOREVER);
    assert_eq!(pending.wait(), Ok([1, 0]), "a closed one is no reason to sleep");
    assert_eq!(revents(&guest, at, 3), [0, 0, NVAL]);
    let (at, mut pending) = start(&guest, &[(first, IN), (second, RDNORM)], FOREVER);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.run(), None);
    assert!(!pending.woken());
    other.write(second_in, b"x").unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(revents(&guest, at, 2), [0, RDNORM]);
    // Wait for room, while another waits for the same on the other side.
    other.read(second, 1).unwrap();
    other.write(first_in, &[0; 16 * 1024]).unwrap();
    let (at, mut pending) = start(&guest, &[(first_in, OUT), (second, IN)], FOREVER);
    assert_eq!(pending.run(), None);
    let (_, mut also) = start(&other, &[(first_in, OUT | IN)], FOREVER);
    assert_eq!(also.run(), None);
    other.read(first, 600).unwrap();
    assert!(pending.woken() && also.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(also.run(), Some(Ok([1, 0])));
    assert_eq!(revents(&guest, at, 2), [OUT, 0]);
    // Wait for nothing but the end.
    guest.close(second_in).unwrap();
    let (at, mut pending) = start(&guest, &[(second, 0)], FOREVER);
    assert_eq!(pending.run(), None);
    other.process.release();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(revents(&guest, at, 1), [HUP]);
}

#[test]
fn a_descriptor_closed_meanwhile_is_said_to_be() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, _writer) = guest.pipe();
    let (at, mut pending) = start(&guest, &[(reader, IN)], FOREVER);
    assert_eq!(pending.run(), None);
    guest.close(reader).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(revents(&guest, at, 1), [NVAL]);
}

#[test]
fn timeouts_end_a_poll_with_nothing() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let begin = Instant::now();
    let (at, mut pending) = start(&guest, &[(reader, IN), (writer, IN)], 30);
    assert_eq!(pending.run(), None);
    // A call that is woken early keeps its deadline.
    assert_eq!(pending.run(), None);
    assert_eq!(pending.wait(), Ok([0, 0]));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(revents(&guest, at, 2), [0, 0]);
    assert_eq!(guest.call(209, &[0, 0, 10]), Ok(0));
    assert!(begin.elapsed() >= Duration::from_millis(40));
}

#[test]
fn an_interrupted_poll_leaves_every_queue() {
    let kernel = kernel();
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    for _ in 0..50 {
        let (_, mut pending) = start(&guest, &[(reader, IN | OUT), (writer, 0)], FOREVER);
        assert_eq!(pending.run(), None);
        assert_eq!(pending.interrupt(), Err(Errno::EINTR));
        let (_, mut dropped) = start(&guest, &[(reader, IN)], FOREVER);
        assert_eq!(dropped.run(), None);
    }
    let (_, mut pending) = start(&guest, &[(reader, IN)], FOREVER);
    assert_eq!(pending.run(), None);
    guest.write(writer, b"x").unwrap();
    assert_eq!(pending.interrupt(), Ok([1, 0]));
    guest.process.release();
    assert_eq!(kernel.usage(), before);
}

fn times(first: i64, second: i64) -> Vec<u8> {
    [first.to_le_bytes(), second.to_le_bytes()].concat()
}

#[test]
fn pollts_takes_a_timespec_and_a_mask() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let fds = guest.place(&pollfds(&[(reader, IN)]));
    let pollts = |ts: u64, mask: u64| guest.start(437, &[fds, 1, ts, mask]).wait();
    let soon = guest.place(&times(0, 20_000_000));
    let begin = Instant::now();
    assert_eq!(pollts(soon, guest.place(&[0xff; 16])), Ok([0, 0]));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    assert_eq!(pollts(NOWHERE, NOWHERE), Err(Errno::EFAULT));
    assert_eq!(pollts(soon, NOWHERE), Err(Errno::EFAULT));
    for (seconds, nanos) in [(0, 1_000_000_000), (0, -1), (-1, 0)] {
        assert_eq!(pollts(guest.place(&times(seconds, nanos)), 0), Err(Errno::EINVAL));
    }
    let mut pending = guest.start(437, &[fds, 1, guest.place(&times(i64::MAX, 0)), 0]);
    assert_eq!(pending.run(), None);
    guest.write(writer, b"x").unwrap();
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(pollts(0, 0), Ok([1, 0]));
}

/// Encodes a set.
fn set(fds: &[u64]) -> Vec<u8> {
    let mut bits = vec![0; 32];
    for &fd in fds {
        bits[fd as usize / 8] |= 1 << (fd % 8);
    }
    bits
}

/// Selects without waiting. Returns the number of ready files, and the three sets.
fn pick(guest: &Guest, nd: u64, sets: [&[u64]; 3]) -> Result<(i64, [Vec<u8>; 3]), Errno> {
    let at = sets.map(|fds| guest.place(&set(fds)));
    let now = guest.place(&times(0, 0));
    let count = guest.call(417, &[nd, at[0], at[1], at[2], now])?;
    Ok((count, at.map(|at| guest.get(at, 32))))
}

/// Very many calls may wait for very many files: beyond a few, the places are paid for.
#[test]
fn many_places_are_paid_for_while_a_call_sleeps() {
    let limits = Limits { bytes_per_family: 60_000, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let before = kernel.usage().bytes;
    let many = |count| start(&guest, &vec![(reader, IN); count], FOREVER).1;
    let mut few = many(64);
    assert_eq!((few.run(), kernel.usage().bytes), (None, before));
    let mut more = many(1000);
    assert_eq!((more.run(), kernel.usage().bytes), (None, before + 936 * 48));
    // Asleep again, the call has paid once.
    assert_eq!((more.run(), kernel.usage().bytes), (None, before + 936 * 48));
    let mut third = many(600);
    assert_eq!(third.run(), Some(Err(Errno::ENOMEM)));
    // All sets of a select count together.
    guest.call(90, &[writer, 100]).unwrap();
    for fd in 0..64 {
        guest.call(90, &[reader, fd]).unwrap();
    }
    let all = guest.place(&[0xff; 8]);
    let descriptors = kernel.usage().bytes - (before + 936 * 48);
    let mut select = guest.start(417, &[64, all, 0, all, 0]);
    let paid = descriptors + (936 + 64) * 48;
    assert_eq!((select.run(), kernel.usage().bytes), (None, before + paid));
    for mut call in [few, more, select] {
        assert_eq!(call.interrupt(), Err(Errno::EINTR));
    }
    assert_eq!(kernel.usage().bytes, before + descriptors);
}

#[test]
fn select_sorts_files_into_its_sets() {
    let guest = Guest::new(&kernel());
    let (reader, writer) = guest.pipe();
    let both = &[reader, writer][..];
    let found = pick(&guest, 20, [both, both, both]).unwrap();
    assert_eq!(found, (1, [set(&[]), set(&[writer]), set(&[])]));
    guest.write(writer, b"x").unwrap();
    let found = pick(&guest, 20, [both, both, both]).unwrap();
    assert_eq!(found, (2, [set(&[reader]), set(&[writer]), set(&[])]));
    // Descriptors from nd on are not looked at; their bits in the last word are cleared, further words are
    // left.
    let found = pick(&guest, reader, [both, &[100], &[]]).unwrap();
    assert_eq!(found, (0, [set(&[]), set(&[100]), set(&[])]));
    // The end of a pipe is ready for everything, as on NetBSD.
    guest.close(reader).unwrap();
    let only = &[writer][..];
    let found = pick(&guest, 20, [only, only, only]).unwrap();
    assert_eq!(found, (3, [set(only), set(only), set(only)]));
    // High descriptors are in later words.
    guest.call(90, &[writer, 200]).unwrap();
    let high = &[writer, 200][..];
    let found = pick(&guest, 201, [&[], high, &[]]).unwrap();
    assert_eq!(found, (2, [set(&[]), set(high), set(&[])]));
}

#[test]
fn select_refuses_what_it_cannot_do() {
    let guest = Guest::new(&kernel());
    assert_eq!(pick(&guest, 20, [&[7], &[], &[]]), Err(Errno::EBADF));
    assert_eq!(pick(&guest, 20, [&[], &[], &[7]]), Err(Errno::EBADF));
    // With a table of 20, nothing past that is looked at.
    assert_eq!(pick(&guest, 256, [&[30], &[], &[]]).unwrap().0, 0);
    let sets = guest.place(&[0; 32]);
    let call = |nd: i32, at: [u64; 4]| {
        guest.start(417, &[nd as u32 as u64, at[0], at[1], at[2], at[3]]).wait()
    };
    assert_eq!(call(-1, [sets; 4]), Err(Errno::EINVAL));
    assert_eq!(call(-1, [sets, sets, sets, NOWHERE]), Err(Errno::EFAULT));
    for which in 0..3 {
        let mut at = [0, 0, 0, guest.place(&times(-1, 0))];
        at[which] = NOWHERE;
        assert_eq!(call(20, at), Err(Errno::EFAULT));
        assert_eq!(call(0, at), Err(Errno::EINVAL), "no words, no copy");
    }
    for (seconds, micros) in [(-1, 0), (0, -1), (0, 1_000_000), (0, i64::MAX)] {
        assert_eq!(call(20, [0, 0, 0, guest.place(&times(seconds, micros))]), Err(Errno::EINVAL));
    }
    // A bad descriptor is reported before the call waits.
    assert_eq!(call(20, [guest.place(&set(&[9])), 0, 0, 0]), Err(Errno::EBADF));
}

#[test]
fn select_and_pselect_wait() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let other = guest.fork();
    let begin = Instant::now();
    let at = guest.place(&set(&[reader]));
    let soon = guest.place(&times(0, 20_000));
    assert_eq!(guest.call(417, &[20, at, at, 0, soon]), Ok(0));
    assert_eq!(guest.call(436, &[20, at, 0, 0, guest.place(&times(0, 10_000_000)), soon]), Ok(0));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    for number in [417, 436] {
        let at = guest.place(&set(&[reader]));
        let mut pending = guest.start(number, &[20, at, 0, 0, 0, 0]);
        assert_eq!(pending.run(), None);
        assert!(!pending.woken());
        other.write(writer, b"x").unwrap();
        assert!(pending.woken());
        assert_eq!(pending.run(), Some(Ok([1, 0])));
        assert_eq!(guest.get(at, 32), set(&[reader]));
        other.read(reader, 1).unwrap();
        let mut pending = guest.start(number, &[20, at, 0, 0, 0, 0]);
        assert_eq!(pending.run(), None);
        assert_eq!(pending.interrupt(), Err(Errno::EINTR));
    }
    let at = guest.place(&set(&[reader]));
    let mut pending = guest.start(417, &[20, at, 0, 0, 0]);
    assert_eq!(pending.run(), None);
    guest.close(reader).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::EBADF)));
    assert_eq!(guest.fails(436, &[20, at, 0, 0, NOWHERE, 0]), Errno::EFAULT);
    assert_eq!(guest.fails(436, &[20, at, 0, 0, 0, NOWHERE]), Errno::EFAULT);
}

#[test]
fn no_poll_misses_a_write_of_another_thread() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let pipes: Vec<(u64, u64)> = (0..3).map(|_| guest.pipe()).collect();
    let other = guest.fork();
    const ROUNDS: usize = 600;
    let ins: Vec<u64> = pipes.iter().map(|pipe| pipe.1).collect();
    let writer = thread::spawn(move || {
        for round in 0..ROUNDS {
            other.write(ins[round % 3], &[round as u8]).unwrap();
        }
    });
    let fds: Vec<(u64, i16)> = pipes.iter().map(|pipe| (pipe.0, IN)).collect();
    let mut got = 0;
    while got < ROUNDS {
        let (at, mut pending) = start(&guest, &fds, FOREVER);
        assert!(pending.wait().unwrap()[0] > 0);
        for (fd, found) in fds.iter().zip(revents(&guest, at, 3)) {
            if found != 0 {
                got += guest.read(fd.0, 100).unwrap().len();
            }
        }
    }
    writer.join().unwrap();
}

#[test]
fn waking_one_of_many_polls_touches_no_other() {
    let kernel = kernel();
    let first = Guest::new(&kernel);
    let mut many = Vec::new();
    for _ in 0..15_000 {
        let mut guest = first.beside(&kernel);
        guest.slow = false;
        let pipes = [(); 4].map(|()| guest.pipe());
        let (_, mut pending) = start(&guest, &pipes.map(|pipe| (pipe.0, IN)), FOREVER);
        assert_eq!(pending.run(), None);
        many.push((guest, pipes, pending));
    }
    for at in [7_777, 0, 14_999] {
        let (guest, pipes, _) = &many[at];
        guest.write(pipes[at % 4].1, b"x").unwrap();
        let woken: Vec<usize> = (0..many.len()).filter(|&at| many[at].2.woken()).collect();
        assert_eq!(woken, [at]);
        let (_, _, pending) = &mut many[at];
        let runs = pending.runs;
        assert_eq!(pending.run(), Some(Ok([1, 0])));
        assert_eq!(pending.runs, runs + 1);
    }
}
