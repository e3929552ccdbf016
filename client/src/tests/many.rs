//! Tests with many calls, many threads and many clients.

use std::sync::Barrier;
use std::time::Duration;

use super::connect;
use super::fake::{self, LONG};
use crate::{CallError, Client, Completed, Lost};
use rumpsp::wire::{self, Kind};

#[test]
fn answers_may_come_in_any_order() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let mut calls: Vec<_> = (0..50).map(|_| peer.expect(Kind::Syscall)).collect();
        calls.sort_by_key(|call| call.header.word.wrapping_mul(31) % 17);
        for call in calls.iter().rev() {
            peer.answer(call, call.header.word.into());
        }
    });
    let client = connect(&server);
    let pending: Vec<_> = (0..50).map(|number| client.begin(number, &[])).collect();
    for (number, call) in pending.into_iter().enumerate() {
        assert_eq!(call.finish(), Ok([number as i64, 0]));
    }
}

#[test]
fn threads_share_a_connection() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let mut held = Vec::new();
        while let Some(call) = peer.read() {
            held.push(call);
            if held.len() % 3 == 0 || held.iter().any(|call| call.arg(0) == 1) {
                for call in held.drain(..).rev() {
                    peer.answer(&call, call.header.word.into());
                }
            }
        }
    });
    let client = connect(&server);
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, start) = (&client, &start);
            scope.spawn(move || {
                start.wait();
                for number in 0..300 {
                    let number = thread * 1000 + number;
                    assert_eq!(client.call(number, &[1]), Ok([number.into(), 0]));
                }
            });
        }
    });
}

#[test]
fn a_waiter_gets_the_receivers_role_when_the_receiver_leaves() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let calls: Vec<_> = (0..4).map(|_| peer.expect(Kind::Syscall)).collect();
        for call in calls {
            std::thread::sleep(Duration::from_millis(20));
            peer.answer(&call, 0);
        }
        while peer.read().is_some() {}
    });
    let client = connect(&server);
    let mut pending: Vec<_> = (0..4).map(|_| client.begin(1, &[])).collect();
    let mut given_up = client.begin(1, &[]);
    std::thread::scope(|scope| {
        scope.spawn(move || assert_eq!(given_up.finish_timeout(Duration::from_millis(30)), None));
        for mut call in pending.drain(..) {
            scope.spawn(move || assert_eq!(call.finish_timeout(LONG), Some(Ok([0, 0]))));
        }
    });
}

#[test]
fn every_waiter_hears_of_the_servers_death() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        for _ in 0..6 {
            peer.expect(Kind::Syscall);
        }
        std::thread::sleep(Duration::from_millis(20));
        peer.hang_up();
    });
    let client = connect(&server);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let error = client.call(1, &[]).unwrap_err();
                assert_eq!(error, CallError::Lost(Lost::Closed));
            });
        }
    });
}

#[test]
fn a_dropped_call_confuses_nobody() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let calls: Vec<_> = (0..20).map(|_| peer.expect(Kind::Syscall)).collect();
        for call in calls {
            peer.answer(&call, call.header.word.into());
        }
    });
    let client = connect(&server);
    let mut kept = Vec::new();
    for number in 0..20 {
        let call = client.begin(number, &[]);
        if number % 2 == 1 {
            kept.push((number, call));
        }
    }
    for (number, call) in kept {
        assert_eq!(call.finish(), Ok([number.into(), 0]));
    }
    assert_eq!(client.outstanding(), 0);
}

#[test]
fn trying_waits_for_nothing_and_keeps_the_result() {
    let (go, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let server = fake::unix(move |mut peer| {
        peer.hello();
        let call = peer.expect(Kind::Syscall);
        wait.lock().unwrap().recv().unwrap();
        peer.answer(&call, 3);
    });
    let client = connect(&server);
    let mut call = client.begin(1, &[]);
    assert_eq!(call.try_finish(), None);
    assert_eq!(call.finish_timeout(Duration::from_millis(5)), None);
    go.send(()).unwrap();
    assert_eq!(call.finish_timeout(LONG), Some(Ok([3, 0])));
    assert_eq!(call.try_finish(), Some(Ok([3, 0])));
    assert_eq!(call.finish(), Ok([3, 0]));
}

#[test]
fn one_thread_has_thousands_of_calls_on_many_clients() {
    const CLIENTS: usize = 100;
    const CALLS: usize = 50;
    let server = fake::unix_many(CLIENTS, |mut peer, _| {
        peer.hello();
        let calls: Vec<_> = (0..CALLS).map(|_| peer.expect(Kind::Syscall)).collect();
        for call in calls.iter().rev() {
            peer.answer(call, call.arg(0) as i64);
        }
    });
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(&server)).collect();
    let mut pending = Vec::new();
    for round in 0..CALLS {
        for (index, client) in clients.iter().enumerate() {
            let value = (round * CLIENTS + index) as u64;
            pending.push((value as i64, client.begin(1, &[value])));
        }
    }
    for (value, call) in pending {
        assert_eq!(call.finish(), Ok([value, 0]));
    }
}

#[test]
fn posted_calls_complete_by_pumping() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        let first = peer.expect(Kind::Syscall);
        let second = peer.expect(Kind::Syscall);
        let copied = peer.copyin(Kind::Copyin, 2, second.arg(0));
        peer.send(&wire::syscall_response(second.header.reqno, 2, [-1, 0]));
        peer.answer(&first, copied.body[1].into());
        peer.hang_up();
    });
    let client = connect(&server);
    let addr = client.space().alloc_from(&[4, 5]).unwrap();
    let ids = [client.post(1, &[]), client.post(2, &[addr])];
    assert!(client.wants_write());
    let mut done = Vec::new();
    while done.len() < 2 {
        let _ = client.pump();
        client.take_completed(&mut done);
    }
    let failed = Err(CallError::Errno(kernel::Errno::ENOENT));
    let expected =
        [Completed { id: ids[1], result: failed }, Completed { id: ids[0], result: Ok([5, 0]) }];
    assert_eq!(done, expected);
    let late = client.post(3, &[]);
    while client.pump().is_ok() {}
    done.clear();
    client.take_completed(&mut done);
    assert_eq!(done, [Completed { id: late, result: Err(Lost::Closed.into()) }]);
}

#[test]
fn pumping_and_waiting_may_be_mixed() {
    let server = fake::unix(|mut peer| {
        peer.hello();
        peer.echo();
    });
    let client = connect(&server);
    for number in 0..20 {
        assert_eq!(client.call(number, &[]), Ok([number.into(), 0]));
        let posted = client.post(number, &[]);
        assert_eq!(client.call(number, &[]), Ok([number.into(), 0]));
        let mut done = Vec::new();
        while done.is_empty() {
            client.pump().unwrap();
            client.take_completed(&mut done);
        }
        assert_eq!(done, [Completed { id: posted, result: Ok([number.into(), 0]) }]);
    }
}

#[test]
fn one_builder_connects_many() {
    let server = fake::unix_many(3, |mut peer, _| {
        assert_eq!(peer.hello().body, b"same\0");
        peer.echo();
    });
    let builder = Client::builder().name("same").timeout(LONG);
    let clients: Vec<_> = (0..3).map(|_| builder.connect(&server.url).unwrap()).collect();
    clients[0].space().alloc(5).unwrap();
    assert_eq!(clients[1].space().total(), 0, "each has memory of its own");
    for client in &clients {
        assert_eq!(client.call(20, &[]), Ok([20, 0]));
    }
}
