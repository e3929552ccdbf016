use std::time::{Duration, Instant};

use super::super::testing::{Guest, NOWHERE, kernel};
use kernel::Errno;

fn spec(seconds: i64, nanos: i64) -> Vec<u8> {
    [seconds.to_le_bytes(), nanos.to_le_bytes()].concat()
}

fn pair(guest: &Guest) -> (i64, i64) {
    pair_at(guest, 0)
}

fn pair_at(guest: &Guest, at: u64) -> (i64, i64) {
    let bytes = guest.get(guest.buffer() + at, 16);
    let word = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

#[test]
fn clocks_go() {
    let guest = Guest::new(&kernel());
    let host = super::super::time::now() / 1_000_000_000;
    assert_eq!(guest.call(427, &[0, guest.buffer()]), Ok(0));
    assert!((host..host + 20).contains(&pair(&guest).0));
    assert_eq!(guest.call(427, &[3, guest.buffer()]), Ok(0));
    let first = pair(&guest);
    assert_eq!(guest.call(427, &[3, guest.buffer()]), Ok(0));
    assert!(pair(&guest) >= first && first.0 < 100);
    assert_eq!(guest.fails(427, &[1, guest.buffer()]), Errno::EINVAL);
    assert_eq!(guest.call(429, &[0, guest.buffer()]), Ok(0));
    assert_eq!(pair(&guest), (0, 1));
    assert_eq!(guest.call(429, &[3, 0]), Ok(0));
    assert_eq!(guest.fails(429, &[9, 0]), Errno::EINVAL);
    assert_eq!(guest.call(418, &[guest.buffer(), guest.buffer() + 16]), Ok(0));
    assert!((host..host + 20).contains(&pair(&guest).0) && pair(&guest).1 < 1_000_000);
    assert_eq!(guest.call(418, &[0, 0]), Ok(0));
}

#[test]
fn the_clock_can_be_set_for_all_of_this_kernel() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let time = |guest: &Guest| {
        guest.call(427, &[0, guest.buffer()]).unwrap();
        pair(guest).0
    };
    assert_eq!(guest.call(428, &[0, guest.place(&spec(1_000_000, 5))]), Ok(0));
    assert!((1_000_000..1_000_020).contains(&time(&guest)));
    assert!((1_000_000..1_000_020).contains(&time(&other)));
    other.call(418, &[other.buffer(), 0]).unwrap();
    assert!((1_000_000..1_000_020).contains(&pair(&other).0));
    // The clock of no other kernel changes, nor the monotonic clock.
    let elsewhere = Guest::new(&super::super::testing::kernel());
    assert!(time(&elsewhere) > 1_600_000_000);
    guest.call(427, &[3, guest.buffer()]).unwrap();
    assert!(pair(&guest).0 < 100);
    assert_eq!(guest.call(419, &[guest.place(&spec(2_000_000, 5)), NOWHERE]), Ok(0));
    assert!((2_000_000..2_000_020).contains(&time(&other)));
    assert_eq!(guest.call(419, &[0, 0]), Ok(0));
    assert_eq!(guest.call(428, &[0, guest.place(&spec(-10, 0))]), Ok(0));
    assert!((-10..10).contains(&time(&other)));
    guest.call(418, &[guest.buffer(), 0]).unwrap();
    assert!((0..1_000_000).contains(&pair(&guest).1));
    for id in [1, 3, 9] {
        assert_eq!(guest.fails(428, &[id, guest.place(&spec(1, 0))]), Errno::EINVAL);
    }
    assert_eq!(guest.fails(428, &[9, NOWHERE]), Errno::EFAULT);
    assert_eq!(guest.fails(419, &[NOWHERE, 0]), Errno::EFAULT);
    // A time far past the range of the clock.
    assert_eq!(guest.call(428, &[0, guest.place(&spec(i64::MAX, i64::MAX))]), Ok(0));
    time(&guest);
    assert_eq!(guest.call(428, &[0, guest.place(&spec(i64::MIN, i64::MIN))]), Ok(0));
    time(&guest);
}

/// The microseconds of a `struct timeval` are an int, and the bytes behind them may be anything.
#[test]
fn what_is_behind_microseconds_does_not_count() {
    let guest = Guest::new(&kernel());
    let timeval = |seconds: i64, micros: i32| {
        [&seconds.to_le_bytes()[..], &micros.to_le_bytes(), &[0xa5; 4]].concat()
    };
    let path = guest.string("/tmp/f");
    guest.call(5, &[path, 0x202, 0o644]).unwrap();
    let times = [timeval(1, 2), timeval(3, 4)].concat();
    guest.call(420, &[path, guest.place(&times)]).unwrap();
    guest.call(439, &[path, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 64, 16), [3i64, 4000].map(i64::to_le_bytes).concat());
    // utimes' values for the present and for no change, with bytes behind them.
    let kept = [timeval(9, (1 << 30) - 2), timeval(9, (1 << 30) - 2)].concat();
    guest.call(420, &[path, guest.place(&kept)]).unwrap();
    guest.call(439, &[path, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 64, 16), [3i64, 4000].map(i64::to_le_bytes).concat());

    assert_eq!(guest.call(417, &[0, 0, 0, 0, guest.place(&timeval(0, 1000))]), Ok(0));
    assert_eq!(guest.fails(417, &[0, 0, 0, 0, guest.place(&timeval(0, -1))]), Errno::EINVAL);
    let timer = [timeval(0, 0), timeval(1000, 500)].concat();
    assert_eq!(guest.call(425, &[0, guest.place(&timer), 0]), Ok(0));
    guest.call(426, &[0, guest.buffer()]).unwrap();
    assert!((900..=1000).contains(&pair_at(&guest, 16).0), "{:?}", pair_at(&guest, 16));
    let socket = guest.call(394, &[2, 1, 0]).unwrap() as u64;
    let time = guest.place(&timeval(0, 20_000));
    guest.call(105, &[socket, 0xffff, 0x100c, time, 16]).unwrap();
    let (value, len) = (guest.buffer(), guest.place(&16u32.to_le_bytes()));
    guest.call(118, &[socket, 0xffff, 0x100c, value, len]).unwrap();
    assert_eq!(pair(&guest), (0, 20_000));
    assert_eq!(guest.call(421, &[guest.place(&timeval(0, 300)), 0]), Ok(0));
    guest.call(421, &[0, guest.buffer()]).unwrap();
    assert_eq!(pair(&guest), (0, 300));
    assert_eq!(guest.call(419, &[guest.place(&timeval(1_000_000, 7)), 0]), Ok(0));
    guest.call(427, &[0, guest.buffer()]).unwrap();
    assert_eq!(pair(&guest).0, 1_000_000);
}

#[test]
fn adjtime_moves_the_clock_slowly() {
    let guest = Guest::new(&kernel());
    let host = super::super::time::now() / 1_000_000_000;
    assert_eq!(guest.call(421, &[guest.place(&spec(3600, 250_000)), guest.buffer()]), Ok(0));
    assert_eq!(pair(&guest), (0, 0));
    assert_eq!(guest.call(421, &[guest.place(&spec(-1, -500_000)), guest.buffer()]), Ok(0));
    let left = pair(&guest);
    assert!(left.0 == 3599 || left == (3600, 250_000), "{left:?}");
    assert_eq!(guest.call(421, &[0, guest.buffer()]), Ok(0));
    assert!(pair(&guest).0 == -2, "{:?}", pair(&guest));
    guest.call(427, &[0, guest.buffer()]).unwrap();
    assert!((host..host + 20).contains(&pair(&guest).0));
    assert_eq!(guest.fails(421, &[NOWHERE, 0]), Errno::EFAULT);
    assert_eq!(guest.call(421, &[guest.place(&spec(0, 0)), 0]), Ok(0));
    assert_eq!(guest.call(421, &[0, guest.buffer()]), Ok(0));
    assert_eq!(pair(&guest), (0, 0));
}

#[test]
fn cpu_time_stands_still() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let (process, thread) = (0x4000_0000u64, 0x8000_0000u64);
    for id in [process, process | other.process.pid() as u64, thread, thread | 1] {
        assert_eq!(guest.call(427, &[id, guest.buffer()]), Ok(0));
        assert_eq!(pair(&guest), (0, 0));
        assert_eq!(guest.fails(429, &[id, 0]), Errno::EINVAL);
    }
    assert_eq!(guest.fails(427, &[process | 29_999, guest.buffer()]), Errno::ESRCH);
    assert_eq!(guest.fails(427, &[thread | 7, guest.buffer()]), Errno::ESRCH);
    for (kind, id, clock) in [
        (1, 0, process | guest.process.pid() as u64),
        (1, 77, process | 77),
        (2, 0, thread | 1),
        (2, 5, thread | 5),
    ] {
        assert_eq!(guest.call(482, &[kind, id, guest.buffer()]), Ok(0));
        assert_eq!(guest.get(guest.buffer(), 4), (clock as u32).to_le_bytes());
    }
    // Another user sees the CPU time of its own user's processes, whose programs began as that user.
    guest.call(23, &[5]).unwrap();
    assert_eq!(guest.fails(427, &[process, guest.buffer()]), Errno::EPERM);
    guest.process.exec(b"new");
    assert_eq!(guest.call(427, &[process, guest.buffer()]), Ok(0));
    let others = process | other.process.pid() as u64;
    assert_eq!(guest.fails(427, &[others, guest.buffer()]), Errno::EPERM);
    assert_eq!(guest.fails(482, &[0, 0, guest.buffer()]), Errno::EINVAL);
    assert_eq!(guest.fails(482, &[3, 0, guest.buffer()]), Errno::EINVAL);
}

#[test]
fn sleep_takes_its_time() {
    let guest = Guest::new(&kernel());
    let request = guest.place(&spec(0, 30_000_000));
    let begin = Instant::now();
    let mut pending = guest.start(430, &[request, guest.buffer()]);
    assert_eq!(pending.run(), None);
    // A call that is woken early keeps its deadline.
    assert_eq!(pending.run(), None);
    assert_eq!(pending.wait(), Ok([0, 0]));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(pair(&guest), (0, 0));
    assert_eq!(guest.call(430, &[guest.place(&spec(0, 0)), 0]), Ok(0));
    assert_eq!(guest.call(430, &[guest.place(&spec(-5, 0)), 0]), Ok(0));
}

#[test]
fn sleep_refuses_what_is_no_time() {
    let guest = Guest::new(&kernel());
    for nanos in [-1, 1_000_000_000, i64::MIN, i64::MAX] {
        assert_eq!(guest.fails(430, &[guest.place(&spec(0, nanos)), 0]), Errno::EINVAL);
    }
    assert_eq!(guest.fails(430, &[NOWHERE, 0]), Errno::EFAULT);
}

#[test]
fn sleep_cut_short_says_what_is_left() {
    let guest = Guest::new(&kernel());
    for seconds in [1000, i64::MAX] {
        let request = guest.place(&spec(seconds, 0));
        let mut pending = guest.start(430, &[request, guest.buffer()]);
        assert_eq!(pending.run(), None);
        assert_eq!(pending.interrupt(), Err(Errno::EINTR));
        assert!((990..=1000).contains(&pair(&guest).0) || pair(&guest).0 > 1_000_000);
    }
}

#[test]
fn clock_nanosleep_returns_its_error() {
    let guest = Guest::new(&kernel());
    guest.call(427, &[3, guest.buffer()]).unwrap();
    let (seconds, nanos) = pair(&guest);
    let soon = seconds * 1_000_000_000 + nanos + 20_000_000;
    let until = guest.place(&spec(soon / 1_000_000_000, soon % 1_000_000_000));
    let begin = Instant::now();
    assert_eq!(guest.call(477, &[3, 1, until, 0]), Ok(0));
    assert!(begin.elapsed() >= Duration::from_millis(15));
    assert_eq!(guest.call(477, &[3, 1, until, 0]), Ok(0));
    assert_eq!(guest.call(477, &[7, 0, until, 0]), Ok(22));
    // The nanoseconds are checked after the clock's time was subtracted.
    for (flags, nanos, answer) in [
        (0, -1, 22),
        (0, 1_000_000_000, 22),
        (1, -1, 0),
        (1, 1_000_000_000, 0),
        (1, -2_000_000_000, 22),
        (1, i64::MIN, 22),
        (1, 3_000_000_000, 22),
    ] {
        let until = guest.place(&spec(1, nanos));
        assert_eq!(guest.call(477, &[0, flags, until, 0]), Ok(answer), "{flags} {nanos}");
    }
    assert_eq!(guest.call(477, &[0, 1, guest.place(&spec(i64::MIN, 0)), 0]), Ok(0));
    assert_eq!(guest.call(477, &[0, 0, NOWHERE, 0]), Ok(14));
    let mut pending = guest.start(477, &[0, 0, guest.place(&spec(100, 0)), guest.buffer()]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Ok([4, 0]));
}
