use std::time::{Duration, Instant};

use super::super::testing::{Guest, NOWHERE, kernel};
use crate::kernel::Errno;

fn spec(seconds: i64, nanos: i64) -> Vec<u8> {
    [seconds.to_le_bytes(), nanos.to_le_bytes()].concat()
}

fn pair(guest: &Guest) -> (i64, i64) {
    let bytes = guest.get(guest.buffer(), 16);
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
fn sleep_takes_its_time() {
    let guest = Guest::new(&kernel());
    let request = guest.place(&spec(0, 30_000_000));
    let begin = Instant::now();
    let mut pending = guest.start(430, &[request, guest.buffer()]);
    assert_eq!(pending.run(), None);
    // Woken early, it keeps its deadline.
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
    assert_eq!(guest.call(477, &[0, 0, NOWHERE, 0]), Ok(14));
    let mut pending = guest.start(477, &[0, 0, guest.place(&spec(100, 0)), guest.buffer()]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Ok([4, 0]));
}
