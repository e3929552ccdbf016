//! Timers of the server and of its clients: they go with the things they are for, and a client that
//! does not take its own signals costs no more for that.

mod support;

use std::time::Duration;

use client::numbers::{O_RDONLY, sys};
use kernel::sys::{SETITIMER, TIMER_CREATE, TIMER_SETTIME};
use rumpsp::wire::Kind;
use support::*;

#[test]
fn preforks_of_those_who_have_gone_have_one_timer() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let hour = Duration::from_secs(3600);
        let test_server = TestServer::with(transport, |config| {
            (config.limits.orphan, config.limits.preforks_in_all) = (hour, 100);
        });
        let tokens: Vec<_> = (0..100).map(|_| FrameClient::guest(&test_server).prefork()).collect();
        test_server.core_becomes("a hundred orphans and a timer", |core| {
            (core.connections, core.preforks, core.timers) == (0, 100, 1)
        });
        // The first preforks are used, and the next makes room for another's.
        for token in &tokens[..10] {
            FrameClient::child(&test_server, token).getpid();
        }
        let mut parents: Vec<FrameClient> =
            (0..11).map(|_| FrameClient::guest(&test_server)).collect();
        for parent in &mut parents {
            parent.prefork();
        }
        test_server.core_becomes("as many as there may be, and a timer", |core| {
            (core.preforks, core.timers) == (100, 1)
        });
        // No orphans are left: nor is a timer.
        for token in &tokens[11..] {
            FrameClient::child(&test_server, token).getpid();
        }
        test_server.core_becomes("no timer", |core| (core.preforks, core.timers) == (11, 0));
        drop(parents);
        test_server.core_becomes("the timer of the others", |core| core.timers == 1);
        test_server.is_sound();
    }
}

/// Returns a client in one of the states that have a timer.
fn timed(test_server: &TestServer, state: usize) -> FrameClient {
    match state % 5 {
        // The client has made no handshake.
        0 => FrameClient::connected(test_server),
        // The client sleeps in calls, for an hour.
        1 => {
            let mut client = FrameClient::guest(test_server);
            for reqno in 0..5 {
                client.send(&call(sys::NANOSLEEP, reqno, &[0x3000, 0]));
                client.serve_copyin(0x3000, &[3600u64.to_le_bytes(), [0; 8]].concat());
            }
            client.getpid();
            client
        }
        // The client does not answer.
        2 => {
            let mut client = FrameClient::guest(test_server);
            let [_, writer] = client.pipe();
            for reqno in 0..5 {
                client.send(&call(sys::WRITE, reqno, &[writer, 0x1000, 10]));
                client.hear();
            }
            client
        }
        // The client takes nothing of its answers, and may have been hung up on by now.
        3 => {
            let mut client = FrameClient::guest(test_server);
            let zero = client.open("/dev/zero", O_RDONLY);
            client.send(&call(sys::READ, 1, &[zero, 0x1000, 1 << 30]));
            client.hear();
            client.send(&claiming(3, 0, Kind::Syscall.number(), 20, 9, &[]));
            client
        }
        // The client has a prefork.
        _ => {
            let mut client = FrameClient::guest(test_server);
            client.prefork();
            client
        }
    }
}

#[test]
fn no_timer_outlives_what_it_is_for() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let hour = Duration::from_secs(3600);
        let test_server = TestServer::with(transport, |config| {
            config.limits.answer = rumpring::server::AnswerTime::Bounded(hour);
            (config.limits.handshake, config.limits.linger) = (hour, hour);
            config.limits.orphan = Duration::ZERO;
        });
        for round in 0..3 {
            let clients: Vec<FrameClient> =
                (0..100).map(|state| timed(&test_server, state)).collect();
            test_server.core_becomes("timers of all who have any", |core| core.timers >= 220);
            for (at, client) in clients.into_iter().enumerate() {
                if (at + round) % 2 == 0 { drop(client) } else { client.reset() }
            }
            test_server.becomes_empty();
            test_server.core_becomes("no timer", |core| core.timers == 0);
        }
        test_server.is_sound();
    }
}

/// Gives a process `count` timers that go off as often as possible.
fn set_timers(client: &mut FrameClient, count: u64) {
    let often = [0_u64, 1, 0, 1].map(u64::to_le_bytes).concat();
    for which in 0..count {
        let (number, set) = match which {
            0 => (0, SETITIMER),
            _ => {
                client.send(&call(TIMER_CREATE, 2, &[0, 0, 0x2000]));
                let Said::Copyout { bytes, .. } = client.hear_no_signal() else {
                    panic!("expected a timer's number");
                };
                assert_eq!(client.hear_no_signal(), Said::ok(2, 0));
                (bytes[0].into(), TIMER_SETTIME)
            }
        };
        let args = if set == SETITIMER { [number, 0x1000, 0, 0] } else { [number, 0, 0x1000, 0] };
        client.send(&call(set, 3, &args));
        let Said::Copyin { reqno, .. } = client.hear_no_signal() else {
            panic!("expected to be asked for the time");
        };
        client.send(&response(Kind::Copyin, reqno, &often));
        assert_eq!(client.hear_no_signal(), Said::ok(3, 0));
    }
}

#[test]
fn timers_of_who_reads_nothing_owe_one_signal_at_a_time() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::new(transport);
        let mut deaf: Vec<FrameClient> = (0..8).map(|_| FrameClient::guest(&test_server)).collect();
        deaf.iter_mut().for_each(|client| set_timers(client, 32));
        // Each client fills its socket, so that further frames wait in the server.
        for client in &mut deaf {
            let zero = client.open("/dev/zero", O_RDONLY);
            client.send(&call(sys::READ, 9, &[zero, 0x1000, 1 << 30]));
        }
        eventually("the sockets to be full", || {
            let before = test_server.core().unsent;
            std::thread::sleep(Duration::from_millis(300));
            before > 0 && test_server.core().unsent == before
        });
        let owed = test_server.core().unsent;
        std::thread::sleep(Duration::from_secs(1));
        let more = test_server.core().unsent.saturating_sub(owed);
        assert!(more <= 8 * 24, "{more} bytes more are owed to 8 clients after 100 ticks");
        test_server.is_sound();
        drop(deaf);
        test_server.becomes_empty();
    }
}

/// At most one signal of each number is pending, as in a kernel, however often it is sent.
#[test]
fn signals_that_nobody_takes_are_one_of_each() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server =
            TestServer::with(transport, |config| config.limits.send_queue_max = 50_000);
        let mut slow = FrameClient::guest(&test_server);
        let pid = slow.getpid();
        let client = test_server.client();
        for _ in 0..20_000 / 63 {
            for signo in 1..64 {
                client.kill(pid, signo).expect("it is there");
            }
        }
        assert_eq!(test_server.core().hang_ups, 0);
        slow.send(&call(sys::GETPID, 5, &[]));
        let (mut seen, mut count) = ([false; 64], 0);
        loop {
            match slow.hear() {
                Said::Raise { signo } => {
                    seen[signo as usize] = true;
                    count += 1;
                }
                Said::Result { reqno: 5, error: 0, .. } => break,
                said => panic!("expected signals and a pid: {said:?}"),
            }
        }
        println!("{transport:?}: {count} signals of 20000");
        assert!(seen[1..].iter().all(|&seen| seen), "each was sent: {seen:?}");
        drop((slow, client));
        test_server.becomes_empty();
    }
}
