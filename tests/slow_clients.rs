//! A client that does not read, or does not answer, delays no other client and costs no more than the
//! bounds allow.

mod support;

use std::time::Duration;

use client::numbers::{O_RDONLY, sys};
use rumpsp::wire::{HEADER_LEN, Kind};
use support::*;

/// The time for a write that the server may take, or not.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Makes calls that must be served, however slow other clients are.
fn is_served(test_server: &TestServer) {
    let client = test_server.client();
    let [reader, writer] = client.pipe().unwrap();
    for round in 0..200 {
        assert!(client.getpid().unwrap() > 0);
        if round % 20 == 0 {
            assert_eq!(client.write(writer, b"quick").unwrap(), 5);
            assert_eq!(client.read(reader, 10).unwrap(), b"quick");
        }
    }
}

#[test]
fn thousands_of_reads_that_nobody_takes() {
    on_each_transport(|test_server| {
        let mut slow = FrameClient::guest(test_server);
        let zero = slow.open("/dev/zero", O_RDONLY);
        let reads: Vec<u8> =
            (0..4000).flat_map(|reqno| call(sys::READ, reqno, &[zero, 0x1000, 65_536])).collect();
        let mut left = &reads[..];
        eventually("more than 3000 reads wait for their reader", || {
            left = &left[slow.send_within(left, A_MOMENT)..];
            test_server.core().calls_in_flight > 3000
        });
        is_served(test_server);
        // The client is owed 250 MiB and keeps its connection, since no more than its bound is queued
        // for it.
        assert_eq!(test_server.core().hang_ups, 0);
        drop(slow);
        test_server.becomes_empty();
    });
}

#[test]
fn one_endless_read_that_nobody_takes() {
    on_each_transport(|test_server| {
        let mut slow = FrameClient::guest(test_server);
        let zero = slow.open("/dev/zero", O_RDONLY);
        slow.send(&call(sys::READ, 1, &[zero, 0x1000, 1 << 50]));
        is_served(test_server);
        drop(slow);
        test_server.becomes_empty();
    });
}

#[test]
fn an_endless_read_that_somebody_takes_delays_nobody() {
    on_each_transport(|test_server| {
        let mut greedy = FrameClient::guest(test_server);
        let zero = greedy.open("/dev/zero", O_RDONLY);
        greedy.send(&call(sys::READ, 1, &[zero, 0x1000, 1 << 50]));
        let client = test_server.client();
        for _ in 0..100 {
            let Said::Copyout { .. } = greedy.hear() else {
                panic!("expected zeros");
            };
            client.getpid().unwrap();
        }
        drop((greedy, client));
        test_server.becomes_empty();
    });
}

/// At a bound on what it owes, the server reads no more; below the bound it goes on, and nothing is
/// lost.
#[test]
fn a_client_that_does_not_read_is_not_read_from_until_it_does() {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        println!("on {transport:?}");
        let test_server = TestServer::with(transport, |config| {
            config.limits.send_queue_pause = 10_000;
            config.limits.session.calls = 1 << 20;
        });
        let mut slow = FrameClient::guest(&test_server);
        let mut sent = 0;
        // The loop ends when the socket takes no more; the socket of a server that reads always does.
        let batch = test_server.fill(&mut slow, || {
            assert!(sent < 10_000_000, "expected the server to stop reading");
            sent += 1000;
            (0..1000).flat_map(|n| call(sys::GETEUID, sent - 1000 + n, &[])).collect()
        });
        println!("{transport:?}: {sent} calls");
        is_served(&test_server);
        let answered = test_server.core().calls;
        assert!(answered < sent, "{answered} of {sent} calls have been answered: it went on");
        // Of the bytes that the socket did not take, only the end of a frame that was sent in part is
        // sent.
        let part = batch.len() % HEADER_LEN;
        sent -= (batch.len() / HEADER_LEN) as u64;
        let mut answers = vec![0_u8; sent as usize];
        for heard in 0..sent {
            if heard == sent - 1 && part > 0 {
                slow.send(&batch[..part]);
            }
            match slow.hear() {
                Said::Result { reqno, error: 0, .. } => answers[reqno as usize] += 1,
                said => panic!("expected the result of a call: {said:?}"),
            }
        }
        assert!(answers.iter().all(|&count| count == 1), "each call is answered once");
        slow.getpid();
        assert_eq!(test_server.core().hang_ups, 0);
        test_server.is_sound();
    }
}

/// While a client is asked for memory, it may be unable to read before it has answered, so the server
/// reads from it; a client that uses this to ask and never read is hung up on.
#[test]
fn a_client_that_is_owed_too_much_is_hung_up_on() {
    for transport in [Transport::Unix, Transport::Tcp] {
        println!("on {transport:?}");
        let test_server = TestServer::with(transport, |config| {
            config.limits.send_queue_pause = 10_000;
            config.limits.send_queue_max = 50_000;
            config.limits.linger = Duration::from_millis(50);
        });
        let mut slow = FrameClient::guest(&test_server);
        let [_, writer] = slow.pipe();
        slow.send(&call(sys::WRITE, 1, &[writer, 0x1000, 5]));
        let batch: Vec<u8> = (0..1000).flat_map(|n| call(sys::GETEUID, n, &[])).collect();
        let mut batches = 0;
        while test_server.core().hang_ups == 0 {
            assert!(batches < 10_000, "expected a hang-up");
            slow.try_send(&batch);
            batches += 1;
        }
        test_server.becomes_empty();
        slow.expect_end_after_anything();
        test_server.is_sound();
    }
}

#[test]
fn copies_that_are_never_answered_delay_nobody() {
    on_each_transport(|test_server| {
        let mut silent: Vec<FrameClient> =
            (0..50).map(|_| FrameClient::guest(test_server)).collect();
        for client in &mut silent {
            let [_, writer] = client.pipe();
            let calls: Vec<u8> = (0..20)
                .flat_map(|reqno| {
                    let write = call(sys::WRITE, reqno, &[writer, 0x1000, 100]);
                    let open = call(sys::OPEN, reqno, &[0x1000, 0, 0]);
                    [write, open].concat()
                })
                .collect();
            client.send(&calls);
        }
        test_server.core_becomes("every call has asked", |core| core.asks == 2000);
        is_served(test_server);
        assert_eq!(test_server.core().calls_in_flight, 2000);
        // They do not delay the other calls of the same client either.
        let mut first = silent.swap_remove(0);
        let mut asks = Vec::new();
        for _ in 0..40 {
            match first.hear() {
                Said::Copyin { reqno, .. } => asks.push(reqno),
                Said::Copyinstr { .. } => {}
                said => panic!("expected to be asked: {said:?}"),
            }
        }
        first.getpid();
        // An answer is never too late.
        first.send(&response(Kind::Copyin, asks[7], &[1; 100]));
        match first.hear() {
            Said::Result { error: 0, retval: [100, 0], .. } => {}
            said => panic!("expected the end of the write: {said:?}"),
        }
        drop((silent, first));
        test_server.becomes_empty();
    });
}

/// A client that was asked, and reads nothing else of its answers, still gets its own answer through.
#[test]
fn an_answer_gets_past_a_full_outbox() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        let token = client.prefork();
        let mut child = FrameClient::child(test_server, &token);
        let zero = client.open("/dev/zero", O_RDONLY);
        client.send(&call(sys::WRITE, 1, &[writer, 0x1000, 5]));
        let Said::Copyin { reqno, .. } = client.hear() else {
            panic!("expected a copyin");
        };
        for n in 2..100 {
            client.send(&call(sys::READ, n, &[zero, 0x1000, 65_536]));
        }
        is_served(test_server);
        client.send(&response(Kind::Copyin, reqno, b"there"));
        // The bytes it wrote arrive, though it has read nothing.
        child.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
        child.expect(Said::Copyout { addr: 0x1000, bytes: b"there".to_vec() });
        child.expect(Said::ok(1, 5));
        let mut results = 0;
        while results < 99 {
            match client.hear() {
                Said::Copyout { .. } => {}
                Said::Result { error: 0, .. } => results += 1,
                said => panic!("expected zeros and results: {said:?}"),
            }
        }
        client.getpid();
    });
}
