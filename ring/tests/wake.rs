//! Waking: no wake-up is lost, and few are made.

mod support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rumpring_ring::{Config, Features, Ring, Then};
use support::{Note, PATIENCE, Server, pattern, small};

#[test]
fn no_wake_up_is_lost() {
    for without in [Features::NONE, Features::DEFER_TASKRUN, Features::COOP_TASKRUN] {
        stress(&Config { without, ..small() });
    }
}

/// Threads put items one at a time, each waiting for the one before to be taken, so that any lost
/// wake-up stops everything.
fn stress(config: &Config) {
    const THREADS: u64 = 3;
    const EACH: u64 = 5000;
    let mut ring = Ring::new(config).unwrap();
    let (queued, taken) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (waker, queued, taken) = (ring.waker(), &queued, &taken);
            scope.spawn(move || {
                for _ in 0..EACH {
                    let mine = queued.fetch_add(1, Ordering::Relaxed) + 1;
                    waker.wake();
                    let end = Instant::now() + PATIENCE;
                    while taken.load(Ordering::Acquire) < mine {
                        assert!(Instant::now() < end, "a wake-up was lost");
                        thread::yield_now();
                    }
                }
            });
        }
        let mut done = 0;
        while done < THREADS * EACH {
            let end = Instant::now() + PATIENCE;
            ring.wait(Some(end), || queued.load(Ordering::Relaxed) == done).unwrap();
            assert!(Instant::now() < end, "a wake-up was lost after {done}");
            while ring.next_event().is_some() {}
            done = queued.load(Ordering::Relaxed);
            taken.store(done, Ordering::Release);
        }
    });
    let stats = ring.stats();
    assert!(stats.wakes <= THREADS * EACH, "{stats:?}");
}

#[test]
fn a_sleeping_ring_is_woken() {
    let mut ring = Ring::new(&small()).unwrap();
    let (waker, woken) = (ring.waker(), &AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(50));
            woken.store(true, Ordering::Relaxed);
            waker.wake();
        });
        let end = Instant::now() + PATIENCE;
        while !woken.load(Ordering::Relaxed) {
            assert!(Instant::now() < end);
            ring.wait(Some(end), || !woken.load(Ordering::Relaxed)).unwrap();
            while ring.next_event().is_some() {}
        }
    });
    assert!(ring.stats().wakes >= 1);
}

#[test]
fn waking_who_is_awake_makes_no_system_call() {
    let mut ring = Ring::new(&small()).unwrap();
    for _ in 0..1000 {
        ring.waker().wake();
    }
    ring.wait(Some(Instant::now() + Duration::from_millis(10)), || true).unwrap();
    while ring.next_event().is_some() {}
    assert_eq!(ring.stats().wakes, 0);
}

#[test]
fn work_at_hand_means_no_sleep() {
    let mut ring = Ring::new(&small()).unwrap();
    let begin = Instant::now();
    ring.wait(None, || false).unwrap();
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(ring.stats().waits, 0);
}

#[test]
fn a_deadline_ends_the_sleep() {
    let mut ring = Ring::new(&small()).unwrap();
    let begin = Instant::now();
    let deadline = begin + Duration::from_millis(60);
    while Instant::now() < deadline {
        ring.wait(Some(deadline), || true).unwrap();
        assert!(ring.next_event().is_none());
    }
    assert!(begin.elapsed() < PATIENCE);
    assert!(ring.stats().waits <= 5, "{:?}", ring.stats());
    // With a deadline that has passed there is no sleep at all.
    let waits = ring.stats().waits;
    ring.wait(Some(begin), || true).unwrap();
    assert_eq!(ring.stats().waits, waits);
}

/// Has SIGUSR1 interrupt system calls and do nothing else. Returns this thread, to send it to.
fn interruptible() -> usize {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, and the rest of the action is zeros.
    let me = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        libc::pthread_self()
    };
    me as usize
}

/// Sends SIGUSR1 to a thread that lives.
fn interrupt(thread: usize) {
    // SAFETY: the caller vouches for the thread.
    unsafe { libc::pthread_kill(thread as libc::pthread_t, libc::SIGUSR1) };
}

#[test]
fn a_signal_is_no_error() {
    let mut ring = Ring::new(&small()).unwrap();
    let (me, done) = (interruptible(), &AtomicBool::new(false));
    thread::scope(|scope| {
        // Signals come again and again, since the first may come before the wait has begun.
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(30));
                interrupt(me);
            }
        });
        let begin = Instant::now();
        ring.wait(Some(begin + PATIENCE), || true).unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(begin.elapsed() < PATIENCE, "it returns early instead of failing");
    });
}

/// Has the ring sleep, send in short pieces, accept and close, under signals that never stop.
#[test]
fn signals_without_end_lose_nothing() {
    let config = Config { entries: 4, ..small() };
    let mut server = Server::new(&config);
    let (me, done, sent) = (interruptible(), &AtomicBool::new(false), &AtomicU64::new(0));
    let message = pattern(500_000);
    thread::scope(|scope| {
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                interrupt(me);
                sent.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
        });
        let end = Instant::now() + PATIENCE;
        let mut rounds = 0;
        while rounds < 20 || sent.load(Ordering::Relaxed) < 200 {
            assert!(Instant::now() < end, "the signals do not come");
            rounds += 1;
            let (client, socket) = server.connect();
            server.send(socket, &message, Then::Receive);
            let reader = scope.spawn(move || {
                let mut got = vec![0; 500_000];
                (&client).read_exact(&mut got).unwrap();
                (&client).write_all(b"bye").unwrap();
                got
            });
            server.expect(Note::Sent(socket, Ok(message.len())));
            server.until("bye", |server| server.bytes(socket) == b"bye");
            assert!(reader.join().unwrap() == message);
            server.close(socket);
        }
        done.store(true, Ordering::Relaxed);
    });
    server.assert_empty(&config);
    println!("{} signals, {:?}", sent.load(Ordering::Relaxed), server.ring.stats());
}
