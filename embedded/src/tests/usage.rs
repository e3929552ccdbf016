//! Tests of resource usage and priorities.

use super::super::testing::{Guest, kernel};
use kernel::{
    Errno,
    sys::{GETPRIORITY, GETRUSAGE, SETPRIORITY},
};

const PROCESS: u64 = 0;
const GROUP: u64 = 1;
const USER: u64 = 2;

/// Returns user and system time in microseconds, and all other counts.
fn usage(guest: &Guest, who: u64) -> (i64, i64, Vec<i64>) {
    guest.put(guest.buffer(), &[0xff; 144]);
    guest.call(GETRUSAGE, &[who, guest.buffer()]).unwrap();
    let bytes = guest.get(guest.buffer(), 144);
    let words: Vec<i64> =
        bytes.chunks(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect();
    (words[0] * 1_000_000 + words[1], words[2] * 1_000_000 + words[3], words[4..].to_vec())
}

#[test]
fn time_sleeps_and_signals_are_counted() {
    let guest = Guest::new(&kernel());
    let (_, before, counted) = usage(&guest, 0);
    assert_eq!(counted, [0; 14]);
    let (reader, writer) = guest.pipe();
    let mut asleep = guest.start(3, &[reader, guest.buffer(), 1]);
    assert_eq!(asleep.run(), None);
    std::thread::sleep(std::time::Duration::from_secs(1));
    guest.write(writer, b"x").unwrap();
    assert_eq!(asleep.run(), Some(Ok([1, 0])));
    guest.call(37, &[guest.process.pid() as u64, 30]).unwrap();
    let (user, after, counted) = usage(&guest, 0);
    assert_eq!(user, 0);
    assert_eq!((counted[11], counted[12]), (1, 1), "a signal and a sleep");
    assert!(counted.iter().sum::<i64>() == 2);
    // Many calls take some time, and time asleep does not count.
    assert!(after - before < 1_000_000, "{} us", after - before);
    for _ in 0..2_000 {
        guest.call(20, &[]).unwrap();
    }
    assert!(usage(&guest, 0).1 > before);
    assert_eq!(usage(&guest.fork(), 0).2, [0; 14], "a child begins anew");
    assert_eq!(usage(&guest, u64::MAX), (0, 0, vec![0; 14]), "of children");
    assert_eq!(guest.fails(GETRUSAGE, &[1, guest.buffer()]), Errno::EINVAL);
}

#[test]
fn priorities_are_kept_and_only_the_superuser_s_fall() {
    let kernel = kernel();
    let (root, guest, other) = (Guest::new(&kernel), Guest::new(&kernel), Guest::new(&kernel));
    let pid = |guest: &Guest| guest.process.pid() as u64;
    let minus = |nice: i64| nice as u64;
    guest.call(23, &[5]).unwrap();
    other.call(23, &[6]).unwrap();
    assert_eq!(guest.call(GETPRIORITY, &[PROCESS, 0]), Ok(0));
    assert_eq!(guest.call(SETPRIORITY, &[PROCESS, 0, 4]), Ok(0));
    assert_eq!(other.call(GETPRIORITY, &[PROCESS, pid(&guest)]), Ok(4));
    assert_eq!(guest.fails(SETPRIORITY, &[PROCESS, 0, 3]), Errno::EACCES);
    assert_eq!(other.fails(SETPRIORITY, &[PROCESS, pid(&guest), 5]), Errno::EPERM);
    assert_eq!(guest.call(SETPRIORITY, &[PROCESS, 0, 99]), Ok(0));
    assert_eq!(guest.call(GETPRIORITY, &[PROCESS, 0]), Ok(20));
    assert_eq!(guest.fork().call(GETPRIORITY, &[PROCESS, 0]), Ok(20));
    assert_eq!(root.call(SETPRIORITY, &[USER, 5, minus(-99)]), Ok(0));
    assert_eq!(guest.call(GETPRIORITY, &[PROCESS, 0]), Ok(-20));
    assert_eq!(guest.call(GETPRIORITY, &[USER, 0]), Ok(-20));
    assert_eq!(other.call(GETPRIORITY, &[USER, 0]), Ok(0));
    assert_eq!(root.call(GETPRIORITY, &[GROUP, 0]), Ok(-20), "the best of them");
    guest.call(82, &[0, 0]).unwrap();
    assert_eq!(root.call(GETPRIORITY, &[GROUP, 0]), Ok(0));
    assert_eq!(root.call(SETPRIORITY, &[GROUP, pid(&guest), 1]), Ok(0));
    assert_eq!(guest.call(GETPRIORITY, &[GROUP, 0]), Ok(1));
    for (which, who, errno) in [
        (PROCESS, 29_000, Errno::ESRCH),
        (GROUP, 29_000, Errno::ESRCH),
        (USER, 77, Errno::ESRCH),
        (3, 0, Errno::EINVAL),
    ] {
        assert_eq!(root.fails(GETPRIORITY, &[which, who]), errno);
        assert_eq!(root.fails(SETPRIORITY, &[which, who, 0]), errno);
    }
}
