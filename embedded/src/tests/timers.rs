use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::testing::{Guest, NOWHERE, PATIENCE, kernel};
use super::super::timers::TIMERS;
use kernel::Errno;

const ALRM: i32 = 14;

/// Encodes an interval and a value, as `struct itimerval` or `struct itimerspec`.
fn setting(interval: (i64, i64), value: (i64, i64)) -> Vec<u8> {
    [interval.0, interval.1, value.0, value.1].map(i64::to_le_bytes).concat()
}

fn taken(guest: &Guest) -> [i64; 4] {
    let bytes = guest.get(guest.buffer(), 32);
    [0, 8, 16, 24].map(|at| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
}

/// Waits for so many signals, and returns them.
fn signals(guest: &Guest, count: usize) -> Vec<i32> {
    let begin = Instant::now();
    let mut got = Vec::new();
    while got.len() < count {
        assert!(begin.elapsed() < PATIENCE, "{got:?} of {count} signals");
        thread::sleep(Duration::from_millis(1));
        got.extend(guest.signals.taken());
    }
    got
}

#[test]
fn an_interval_timer_sends_signals() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let begin = Instant::now();
    let at = guest.place(&setting((0, 0), (0, 30_000)));
    assert_eq!(guest.call(425, &[0, at, 0]), Ok(0));
    assert_eq!(signals(&guest, 1), [ALRM]);
    assert!(begin.elapsed() >= Duration::from_millis(30));
    guest.call(426, &[0, guest.buffer()]).unwrap();
    assert_eq!(taken(&guest), [0; 4]);
    assert_eq!(kernel.system.timer_thread.len(), 0);
    // A periodic timer, by the monotonic clock's timer too.
    for which in [0, 3] {
        let guest = Guest::new(&kernel);
        let begin = Instant::now();
        let at = guest.place(&setting((0, 10_000), (0, 20_000)));
        assert_eq!(guest.call(425, &[which, at, 0]), Ok(0));
        assert_eq!(signals(&guest, 4)[..4], [ALRM; 4]);
        assert!(begin.elapsed() >= Duration::from_millis(50));
        guest.call(426, &[which, guest.buffer()]).unwrap();
        assert_eq!(taken(&guest)[..2], [0, 10_000]);
        let off = guest.place(&[0; 32]);
        guest.call(425, &[which, off, guest.buffer()]).unwrap();
        assert_eq!(taken(&guest)[1], 10_000);
        assert_eq!(kernel.system.timer_thread.len(), 0);
        // One signal may have been on its way.
        while !guest.signals.taken().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "they go on");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn interval_timers_are_told_of_and_refused() {
    let guest = Guest::new(&kernel());
    guest.put(guest.buffer(), &[1; 32]);
    assert_eq!(guest.call(426, &[2, guest.buffer()]), Ok(0));
    assert_eq!(taken(&guest), [0; 4]);
    let long = guest.place(&setting((7, 1), (1000, 5)));
    for which in 0..4 {
        assert_eq!(guest.call(425, &[which, long, guest.buffer()]), Ok(0));
        assert_eq!(taken(&guest), [0; 4]);
        assert_eq!(guest.call(426, &[which, guest.buffer()]), Ok(0));
        let [seconds, micros, value, _] = taken(&guest);
        assert_eq!((seconds, micros), (7, 1));
        assert!((990..=1000).contains(&value));
    }
    // A time far away is returned as it was set.
    let far = guest.place(&setting((0, 0), (1 << 40, 0)));
    guest.call(425, &[0, far, 0]).unwrap();
    guest.call(426, &[0, guest.buffer()]).unwrap();
    assert!(((1 << 40) - 20..=1 << 40).contains(&taken(&guest)[2]), "{:?}", taken(&guest));
    // Timers of CPU time stand still; short times are a tick.
    guest.call(425, &[1, guest.place(&setting((0, 1), (0, 1))), 0]).unwrap();
    guest.call(426, &[1, guest.buffer()]).unwrap();
    assert_eq!(taken(&guest), [0, 10_000, 0, 10_000]);
    assert_eq!(guest.call(425, &[1, 0, guest.buffer()]), Ok(0));
    assert_eq!(taken(&guest), [0, 10_000, 0, 10_000]);
    for (interval, value) in
        [((0, 0), (0, 1_000_000)), ((0, -1), (1, 0)), ((-1, 0), (1, 0)), ((0, 0), (-1, 0))]
    {
        let bad = guest.place(&setting(interval, value));
        assert_eq!(guest.fails(425, &[0, bad, 0]), Errno::EINVAL);
    }
    assert_eq!(guest.fails(425, &[4, NOWHERE, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(426, &[4, guest.buffer()]), Errno::EINVAL);
    assert_eq!(guest.fails(426, &[u64::MAX, guest.buffer()]), Errno::EINVAL);
    assert_eq!(guest.fails(425, &[0, NOWHERE, 0]), Errno::EFAULT);
    assert_eq!(guest.call(425, &[0, guest.place(&setting((0, 0), (i64::MAX, 0))), 0]), Ok(0));
}

fn sigevent(how: i32, signo: i32) -> Vec<u8> {
    [&how.to_le_bytes()[..], &signo.to_le_bytes(), &[0; 24]].concat()
}

fn create(guest: &Guest, clock: u64, event: u64) -> Result<u64, Errno> {
    guest.call(235, &[clock, event, guest.buffer()])?;
    Ok(guest.get(guest.buffer(), 4)[0].into())
}

#[test]
fn posix_timers_send_their_signals() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let by = guest.place(&sigevent(1, 31));
    let timer = create(&guest, 0, by).unwrap();
    assert_eq!(timer, 4);
    let silent = create(&guest, 3, guest.place(&sigevent(0, 0))).unwrap();
    let usual = create(&guest, 3, 0).unwrap();
    assert_eq!((silent, usual), (5, 6));
    let soon = guest.place(&setting((0, 0), (0, 20_000_000)));
    for timer in [silent, timer] {
        assert_eq!(guest.call(446, &[timer, 0, soon, guest.buffer()]), Ok(0));
        assert_eq!(taken(&guest), [0; 4]);
    }
    assert_eq!(signals(&guest, 1), [31]);
    // An absolute time of the clock, which may have passed.
    guest.call(427, &[3, guest.buffer()]).unwrap();
    let bytes = guest.get(guest.buffer(), 16);
    let now = i64::from_le_bytes(bytes[..8].try_into().unwrap());
    let then = guest.place(&setting((0, 0), (now + 500, 0)));
    assert_eq!(guest.call(446, &[usual, 1, then, 0]), Ok(0));
    guest.call(447, &[usual, guest.buffer()]).unwrap();
    assert!((480..=500).contains(&taken(&guest)[2]));
    let past = guest.place(&setting((0, 0), (0, 1)));
    assert_eq!(guest.call(446, &[usual, 1, past, guest.buffer()]), Ok(0));
    assert!((now + 499..=now + 501).contains(&taken(&guest)[2]), "the time, not what was left");
    assert_eq!(signals(&guest, 1), [ALRM]);
    assert_eq!(guest.call(239, &[usual]), Ok(0));
    assert_eq!(kernel.system.timer_thread.len(), 0);
    let often = guest.place(&setting((0, 10_000_000), (0, 10_000_000)));
    guest.call(446, &[timer, 0, often, 0]).unwrap();
    assert_eq!(signals(&guest, 3)[..3], [31; 3]);
    guest.call(236, &[timer]).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 0);
    assert_eq!(create(&guest, 2, 0), Ok(timer));
}

#[test]
fn posix_timers_are_bounded_and_named() {
    let guest = Guest::new(&kernel());
    assert_eq!(guest.fails(235, &[4, NOWHERE, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(235, &[0, NOWHERE, 0]), Errno::EFAULT);
    for (how, signo) in [(-1, 1), (4, 1), (1, 0), (1, 64), (1, -1)] {
        let event = guest.place(&sigevent(how, signo));
        assert_eq!(create(&guest, 0, event), Err(Errno::EINVAL));
    }
    for number in [0, 1, 2, 4, 35, 36, u64::MAX] {
        let value = guest.place(&[0; 32]);
        assert_eq!(guest.fails(446, &[number, 0, value, 0]), Errno::EINVAL);
        for call in [236, 239, 447] {
            assert_eq!(guest.fails(call, &[number, guest.buffer()]), Errno::EINVAL);
        }
    }
    for number in 4..TIMERS as u64 {
        assert_eq!(create(&guest, 0, 0), Ok(number));
    }
    assert_eq!(create(&guest, 0, 0), Err(Errno::EAGAIN));
    guest.call(236, &[20]).unwrap();
    assert_eq!(create(&guest, 0, 0), Ok(20));
    assert_eq!(guest.fails(446, &[99, 0, NOWHERE, 0]), Errno::EFAULT);
    let value = |interval, value| guest.place(&setting(interval, value));
    for bad in [value((0, 0), (0, 1_000_000_000)), value((0, -1), (1, 0))] {
        assert_eq!(guest.fails(446, &[20, 0, bad, 0]), Errno::EINVAL);
    }
    for past in [value((0, 0), (-1, 0)), value((-1, 0), (1, 0))] {
        assert_eq!(guest.fails(446, &[20, 0, past, 0]), Errno::ETIMEDOUT);
    }
}

/// Without a table of timers every number fails with EINVAL, before other errors.
#[test]
fn a_process_without_timers_says_so_first() {
    let guest = Guest::new(&kernel());
    let past = guest.place(&setting((0, 0), (-1, 0)));
    let settime = || guest.fails(446, &[4, 0, past, 0]);
    let off = guest.place(&[0; 32]);
    assert_eq!(guest.call(425, &[0, off, 0]), Ok(0));
    assert_eq!(settime(), Errno::EINVAL);
    let bad = guest.place(&sigevent(4, 30));
    assert_eq!(create(&guest, 0, bad), Err(Errno::EINVAL));
    assert_eq!(settime(), Errno::ETIMEDOUT);
    guest.process.exec(b"new");
    assert_eq!(settime(), Errno::EINVAL);
    let long = guest.place(&setting((0, 0), (1000, 0)));
    assert_eq!(guest.call(425, &[0, long, 0]), Ok(0));
    guest.process.exec(b"newer");
    assert_eq!(settime(), Errno::ETIMEDOUT);
}

/// A timer that two threads set at once has one alarm.
#[test]
fn a_timer_has_one_alarm_whoever_sets_it() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let long = guest.place(&setting((0, 0), (1000, 0)));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    guest.call(425, &[0, long, 0]).unwrap();
                }
            });
        }
    });
    assert_eq!(kernel.system.timer_thread.len(), 1);
}

#[test]
fn timers_end_with_their_process_and_stay_with_it() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let timer = create(&guest, 0, 0).unwrap();
    let long = guest.place(&setting((0, 0), (1000, 0)));
    guest.call(446, &[timer, 0, long, 0]).unwrap();
    guest.call(425, &[0, long, 0]).unwrap();
    let child = guest.fork();
    child.call(426, &[0, child.buffer()]).unwrap();
    assert_eq!(taken(&child), [0; 4]);
    assert_eq!(child.fails(236, &[timer]), Errno::EINVAL);
    assert_eq!(kernel.system.timer_thread.len(), 2);
    // An exec keeps the interval timers only.
    guest.process.exec(b"new");
    assert_eq!(kernel.system.timer_thread.len(), 1);
    assert_eq!(guest.fails(236, &[timer]), Errno::EINVAL);
    guest.call(426, &[0, guest.buffer()]).unwrap();
    assert!(taken(&guest)[2] > 900);
    guest.process.release();
    assert_eq!(kernel.system.timer_thread.len(), 0);
    // The kernel ends with a timer set, from any thread.
    let at = child.place(&setting((0, 10_000), (0, 10_000)));
    child.call(425, &[0, at, 0]).unwrap();
    signals(&child, 1);
    let system = Arc::downgrade(&kernel.system);
    drop(kernel);
    drop((guest, child));
    let begin = Instant::now();
    while system.strong_count() > 0 {
        assert!(begin.elapsed() < PATIENCE, "the kernel does not end");
        thread::sleep(Duration::from_millis(1));
    }
}

/// While its signal waits, a timer sends no other: it counts, and is looked at less and less often.
#[test]
fn a_timer_whose_signal_is_not_taken_sends_one_and_counts() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    guest.signals.waits(true);
    let timer = create(&guest, 0, 0).unwrap();
    let often = guest.place(&setting((0, 10_000_000), (0, 10_000_000)));
    let begin = Instant::now();
    guest.call(446, &[timer, 0, often, 0]).unwrap();
    let until_looked = |count: usize| {
        while guest.signals.looks() < count {
            assert!(begin.elapsed() < PATIENCE, "{} looks of {count}", guest.signals.looks());
            thread::sleep(Duration::from_millis(1));
        }
    };
    // The timer is looked at after 1, 2, 4 .. 64 intervals: 127 in all.
    until_looked(8);
    assert!(begin.elapsed() >= Duration::from_millis(1270), "it was looked at too often");
    assert_eq!((guest.signals.untaken(), kernel.system.timer_thread.len()), (1, 1));
    // Its time left is as if it had been looked at.
    guest.call(447, &[timer, guest.buffer()]).unwrap();
    let [interval, interval_nanos, value, nanos] = taken(&guest);
    assert_eq!((interval, interval_nanos, value), (0, 10_000_000, 0));
    assert!((1..=10_000_000).contains(&nanos), "{nanos}");
    // Once the signal has been taken there is another, whose overrun count says how many were missed.
    guest.signals.waits(false);
    guest.signals.taken();
    assert_eq!(signals(&guest, 1)[0], ALRM);
    assert_eq!(guest.call(239, &[timer]), Ok(32), "as many as are told at most");
    // Then it goes off as often as it should again.
    assert_eq!(signals(&guest, 3)[..3], [ALRM; 3]);
    guest.call(236, &[timer]).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 0);
}

#[test]
fn a_timer_without_a_signal_is_never_looked_at() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let timer = create(&guest, 3, guest.place(&sigevent(0, 0))).unwrap();
    for (interval, value) in [((0, 0), (1000, 0)), ((0, 10_000_000), (0, 10_000_000))] {
        let at = guest.place(&setting(interval, value));
        guest.call(446, &[timer, 0, at, 0]).unwrap();
        assert_eq!(kernel.system.timer_thread.len(), 0);
    }
    thread::sleep(Duration::from_millis(25));
    guest.call(447, &[timer, guest.buffer()]).unwrap();
    assert!((1..=10_000_000).contains(&taken(&guest)[3]), "{:?}", taken(&guest));
    let once = guest.place(&setting((0, 0), (0, 10_000_000)));
    guest.call(446, &[timer, 0, once, 0]).unwrap();
    thread::sleep(Duration::from_millis(25));
    guest.call(447, &[timer, guest.buffer()]).unwrap();
    assert_eq!(taken(&guest), [0; 4], "it has gone off");
}
