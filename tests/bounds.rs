//! Bounds of time, and bounds that all clients share: clients meet them, and others are served.

mod support;

use std::time::Duration;

use client::numbers::{O_APPEND, O_CREAT, O_RDONLY, O_RDWR, sys};
use client::raw::RawConnection;
use rumpring::server::{Access, AnswerTime};
use rumpsp::wire::{ErrorCode, Kind};
use support::*;

/// A time limit that is soon over, and yet long enough to do something before, even on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// The bytes of one request for 64 KiB of a client.
const PIECE: u64 = 65_536;

#[test]
fn who_makes_no_handshake_is_hung_up_on() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| config.limits.handshake = SOON);
        let mut early = FrameClient::guest(&test_server);
        let mut silent: Vec<FrameClient> =
            (0..300).map(|_| FrameClient::silent(&test_server)).collect();
        test_server.is_sound();
        // A client that sends bytes of a handshake, but never all.
        let mut slow = FrameClient::connected(&test_server);
        for byte in guest(0, "slow").iter().take(20) {
            slow.send(&[*byte]);
        }
        for client in &mut silent {
            client.read_banner();
            client.expect_end();
        }
        slow.expect_end();
        assert_eq!(test_server.core().hang_ups, 301);
        // A client that has made its handshake in time stays.
        early.getpid();
        drop(early);
        test_server.becomes_empty();
        test_server.core_becomes("no timers of who has gone", |core| core.timers == 0);
    }
}

#[test]
fn who_does_not_answer_a_copyin_in_time_is_hung_up_on() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server =
            TestServer::with(transport, |config| config.limits.answer = AnswerTime::Bounded(SOON));
        let mut good = FrameClient::guest(&test_server);
        let [reader, writer] = good.pipe();
        let mut bad = FrameClient::guest(&test_server);
        let [_, other] = bad.pipe();
        bad.send(&call(sys::WRITE, 1, &[other, 0x1000, 8]));
        bad.send(&call(sys::OPEN, 2, &[0x1000, 0, 0]));
        for _ in 0..2 {
            assert!(matches!(bad.hear(), Said::Copyin { .. } | Said::Copyinstr { .. }));
        }
        good.write(writer, b"in time");
        bad.expect_end();
        assert_eq!(test_server.core().hang_ups, 1);
        // A call may sleep for longer: the server is not waiting for the client then.
        good.call(sys::READ, &[reader, 0, 0]);
        drop((good, bad));
        test_server.becomes_empty();
    }
}

#[test]
fn calls_in_flight_of_all_clients() {
    let test_server = TestServer::with(Transport::Unix, |config| config.limits.calls_in_all = 3);
    let mut clients: Vec<FrameClient> = (0..3).map(|_| FrameClient::guest(&test_server)).collect();
    for client in &mut clients {
        let [reader, _] = client.pipe();
        client.send(&call(sys::READ, 1, &[reader, 0x1000, 1]));
    }
    test_server.core_becomes("three calls", |core| core.calls_in_flight == 3);
    let mut late = FrameClient::guest(&test_server);
    late.send(&call(sys::GETEUID, 2, &[]));
    late.expect(Said::refused(2, ErrorCode::TryAgain));
    drop(clients.pop());
    test_server.core_becomes("two calls", |core| core.calls_in_flight == 2);
    late.getpid();
    drop((clients, late));
    test_server.becomes_empty();
}

#[test]
fn of_the_calls_of_all_greedy_clients_leave_some() {
    let test_server = TestServer::with(Transport::Unix, |config| config.limits.calls_in_all = 400);
    let mut greedy: Vec<FrameClient> = (0..20).map(|_| FrameClient::guest(&test_server)).collect();
    for client in &mut greedy {
        let [reader, _] = client.pipe();
        let calls = (0..100).flat_map(|reqno| call(sys::READ, reqno, &[reader, 0x1000, 1]));
        client.send(&calls.collect::<Vec<u8>>());
    }
    // The first client has three quarters of the calls, each of the others has one call.
    test_server.core_becomes("as many as may be", |core| core.calls_in_flight >= 300 + 16);
    assert!(test_server.core().calls_in_flight <= 300 + 20);
    let mut stranger = FrameClient::guest(&test_server);
    stranger.getpid();
    let [_, writer] = stranger.pipe();
    stranger.write(writer, b"x");
    drop(greedy);
    test_server.core_becomes("none", |core| core.calls_in_flight == 0);
    drop(stranger);
    test_server.becomes_empty();
}

#[test]
fn of_the_preforks_of_all_greedy_clients_leave_some() {
    let test_server = TestServer::with(Transport::Unix, |config| {
        config.limits.preforks = 20;
        config.limits.preforks_in_all = 80;
    });
    let mut greedy: Vec<FrameClient> = (0..5).map(|_| FrameClient::guest(&test_server)).collect();
    let mut counts = Vec::new();
    for client in &mut greedy {
        let mut count = 0;
        loop {
            client.send(&prefork(9));
            match client.hear() {
                Said::Token { .. } => count += 1,
                said => break assert_eq!(said, Said::refused(9, ErrorCode::NoMemory)),
            }
        }
        counts.push(count);
    }
    assert_eq!(counts, [20, 20, 20, 1, 1]);
    let mut stranger = FrameClient::guest(&test_server);
    let token = stranger.prefork();
    FrameClient::child(&test_server, &token).getpid();
    drop((greedy, stranger));
    test_server.core_becomes("orphans", |core| core.connections == 0);
    let again = FrameClient::guest(&test_server).prefork();
    FrameClient::child(&test_server, &again).getpid();
}

#[test]
fn calls_that_wait_for_a_thread() {
    for queued in [1, 2, 7] {
        let test_server = TestServer::with(Transport::Unix, |config| config.limits.queued = queued);
        let mut client = FrameClient::guest(&test_server);
        let calls: Vec<u8> = (0..2000).flat_map(|reqno| call(sys::GETEUID, reqno, &[])).collect();
        client.send(&calls);
        let mut seen = vec![false; 2000];
        for _ in 0..2000 {
            match client.hear() {
                Said::Result { reqno, error: 0, .. } => seen[reqno as usize] = true,
                said => panic!("expected the result of a call: {said:?}"),
            }
        }
        assert!(seen.iter().all(|seen| *seen), "each call is answered");
        // Calls that sleep do not count: the call that wakes them gets through.
        let [reader, writer] = client.pipe();
        for reqno in 0..20 {
            client.send(&call(sys::READ, reqno, &[reader, 0x1000, 1]));
        }
        client.send(&call(sys::WRITE, 99, &[writer, 0x1000, 20]));
        client.serve_copyin(0x1000, &[7; 20]);
        let mut results = 0;
        while results < 21 {
            match client.hear() {
                Said::Copyout { .. } => {}
                Said::Result { error: 0, .. } => results += 1,
                said => panic!("expected the ends of 20 reads and a write: {said:?}"),
            }
        }
        drop(client);
        test_server.becomes_empty();
    }
}

#[test]
fn preforks_of_one_client_and_of_all() {
    let test_server = TestServer::with(Transport::Unix, |config| {
        (config.limits.preforks, config.limits.preforks_in_all) = (2, 3);
    });
    let mut one = FrameClient::guest(&test_server);
    let mut other = FrameClient::guest(&test_server);
    let tokens = [one.prefork(), one.prefork()];
    one.send(&prefork(9));
    one.expect(Said::refused(9, ErrorCode::NoMemory));
    other.prefork();
    other.send(&prefork(9));
    other.expect(Said::refused(9, ErrorCode::NoMemory));
    FrameClient::child(&test_server, &tokens[0]).getpid();
    // The place of the prefork that was used is free.
    one.prefork();
    drop((one, other));
    test_server.core_becomes("preforks of nobody", |core| core.connections == 0);
    // A used token is no longer good; a token of a parent that has gone is good for a while.
    let mut again = FrameClient::connected(&test_server);
    again.send(&fork(1, &tokens[0]));
    again.expect(Said::refused(1, ErrorCode::InvalidPrefork));
    FrameClient::child(&test_server, &tokens[1]).getpid();
}

#[test]
fn preforks_of_who_has_gone_make_room() {
    let test_server = TestServer::with(Transport::Unix, |config| {
        config.limits.preforks_in_all = 3;
        config.limits.orphan = Duration::from_secs(3600);
    });
    let mut gone = FrameClient::guest(&test_server);
    let tokens = [gone.prefork(), gone.prefork()];
    drop(gone);
    test_server.core_becomes("its preforks alone", |core| core.connections == 0);
    let mut one = FrameClient::guest(&test_server);
    one.prefork();
    // All three places are taken: the oldest orphan goes first, and none of the connected clients'
    // preforks.
    one.prefork();
    let mut again = FrameClient::connected(&test_server);
    again.send(&fork(1, &tokens[0]));
    again.expect(Said::refused(1, ErrorCode::InvalidPrefork));
    FrameClient::child(&test_server, &tokens[1]).getpid();
    one.prefork();
    one.send(&prefork(9));
    one.expect(Said::refused(9, ErrorCode::NoMemory));
}

#[test]
fn preforks_that_are_refused_cost_nobody_theirs() {
    let test_server = TestServer::with(Transport::Unix, |config| {
        config.limits.preforks_in_all = 80;
        config.limits.orphan = Duration::from_secs(3600);
    });
    let mut gone = FrameClient::guest(&test_server);
    let token = gone.prefork();
    drop(gone);
    test_server.core_becomes("its prefork alone", |core| core.connections == 0);
    let mut greedy = FrameClient::guest(&test_server);
    for _ in 0..59 {
        greedy.prefork();
    }
    // Three quarters are taken: this client has its share, whoever else goes.
    for reqno in 0..5 {
        greedy.send(&prefork(reqno));
        greedy.expect(Said::refused(reqno, ErrorCode::NoMemory));
    }
    FrameClient::child(&test_server, &token).getpid();
}

#[test]
fn preforks_end_with_their_parent_if_that_is_wanted() {
    let test_server =
        TestServer::with(Transport::Unix, |config| config.limits.orphan = Duration::ZERO);
    let mut parent = FrameClient::guest(&test_server);
    let token = parent.prefork();
    drop(parent);
    test_server.becomes_empty();
    let mut late = FrameClient::connected(&test_server);
    late.send(&fork(1, &token));
    late.expect(Said::refused(1, ErrorCode::InvalidPrefork));
}

/// Starts a client that reads zeros without end, and takes none of them.
fn greedy(test_server: &TestServer) -> FrameClient {
    let mut client = FrameClient::guest(test_server);
    let zero = client.open("/dev/zero", O_RDONLY);
    client.send(&call(sys::READ, 1, &[zero, 0x1000, 1 << 50]));
    client
}

#[test]
fn what_all_clients_are_owed() {
    const MOST: usize = 2 << 20;
    for transport in [Transport::Unix, Transport::Tcp] {
        println!("on {transport:?}");
        let test_server =
            TestServer::with(transport, |config| config.limits.send_queue_total = MOST);
        let few: Vec<FrameClient> = (0..6).map(|_| greedy(&test_server)).collect();
        test_server.is_sound();
        assert_eq!(test_server.core().hang_ups, 0, "those few only wait earlier");
        let many: Vec<FrameClient> = (0..60).map(|_| greedy(&test_server)).collect();
        test_server.core_becomes("the worst have gone", |core| core.hang_ups > 0);
        test_server.is_sound();
        test_server.core_becomes("no more is owed than may be", |core| core.unsent <= MOST);
        drop((few, many));
        test_server.becomes_empty();
        assert_eq!(test_server.core().unsent, 0);
    }
}

/// Returns how often a write asks for the bytes at `MARK`, if it sleeps over a full pipe.
fn asks_of_a_sleeper(kept: usize) -> usize {
    const MARK: u64 = 0xaaaa_0000;
    let test_server = TestServer::with(Transport::Unix, |config| config.limits.copyin_cache = kept);
    let mut client = FrameClient::guest(&test_server);
    let [reader, writer] = client.pipe();
    // First comes more than the pipe takes; then a write that has copied in everything it needs when it
    // falls asleep.
    client.send(&call(sys::WRITE, 1, &[writer, 0x1000, 4 * PIECE]));
    client.send(&call(sys::WRITE, 2, &[writer, MARK, 100]));
    let mut asks = 0;
    let mut is_reading = false;
    let mut left = 4 * PIECE + 100;
    while left > 0 {
        match client.hear() {
            Said::Copyin { reqno, len, addr } => {
                asks += usize::from(addr == MARK);
                client.send(&response(Kind::Copyin, reqno, &vec![1; len as usize]));
            }
            Said::Copyout { bytes, .. } => left -= bytes.len() as u64,
            Said::Result { reqno: 1 | 2, error: 0, .. } => {}
            Said::Result { reqno: 3, error: 0, .. } => is_reading = false,
            said => panic!("expected two writes and reads: {said:?}"),
        }
        if asks > 0 && !is_reading && left > 0 {
            // Both writes are asleep by now, most likely, or never will be.
            test_server.is_sound();
            is_reading = true;
            client.send(&call(sys::READ, 3, &[reader, 0x1000, 1 << 20]));
        }
    }
    asks
}

#[test]
fn what_sleeping_calls_keep() {
    assert_eq!(asks_of_a_sleeper(4 << 20), 1, "within the bound a call keeps what it has");
    // A call beyond the bound asks again, unless it was read to before it fell asleep.
    eventually("a call beyond the bound that asks for the same again", || asks_of_a_sleeper(0) > 1);
}

/// Addresses of a call that writes two segments: a large segment, and a small one that is asked for
/// when the large one is here.
const SEGMENTS: u64 = 0x50_0000;
const LARGE: u64 = 0x100_0000;
const SMALL: u64 = 0x300_0000;
const LARGE_LEN: u64 = 60_000;
const SMALL_LEN: u64 = 16;

/// The bytes by which the call that exceeds the bound may exceed it.
const ONE_CALL: usize = 128 * 1024;

/// Sends writes of two segments to this file, numbered from 0.
fn send_writes(client: &mut FrameClient, fd: u64, count: u64) {
    for reqno in 0..count {
        client.send(&call(sys::WRITEV, reqno, &[fd, SEGMENTS, 2]));
    }
}

/// Answers the requests of those writes, except for the small segments, until no frame comes for a
/// while. Returns the numbers of the requests left, and the number of results of calls.
fn answer_all_but_small(client: &mut FrameClient, mut look: impl FnMut()) -> (Vec<u64>, u64) {
    let segments: Vec<u8> =
        [LARGE, LARGE_LEN, SMALL, SMALL_LEN].iter().flat_map(|word| word.to_le_bytes()).collect();
    let (mut put_off, mut results) = (Vec::new(), 0);
    while let Some(said) = client.hear_within(SOON) {
        match said {
            Said::Copyin { reqno, addr: SEGMENTS, .. } => {
                client.send(&response(Kind::Copyin, reqno, &segments));
            }
            Said::Copyin { reqno, addr: SMALL, .. } => put_off.push(reqno),
            Said::Copyin { reqno, len, .. } => {
                client.send(&response(Kind::Copyin, reqno, &vec![7; len as usize]));
            }
            Said::Result { error: 0, retval: [len, _], .. } => {
                assert_eq!(len as u64, LARGE_LEN + SMALL_LEN);
                results += 1;
            }
            said => panic!("expected writes of two segments: {said:?}"),
        }
        look();
    }
    (put_off, results)
}

#[test]
fn what_calls_hold_that_wait_for_a_further_answer() {
    const KEPT: usize = 1 << 20;
    const CALLS: u64 = 64;
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| config.limits.copyin_cache = KEPT);
        let mut client = FrameClient::guest(&test_server);
        let file = client.open("/file", O_RDWR | O_CREAT | O_APPEND);
        send_writes(&mut client, file, CALLS);
        // All calls end in the course of time, however few may hold bytes at once.
        let (mut done, mut rounds) = (0, 0);
        while done < CALLS {
            let (put_off, results) = answer_all_but_small(&mut client, || {
                let kept = test_server.core().kept;
                assert!(kept <= KEPT / 2 + ONE_CALL, "{kept} bytes are held");
            });
            done += results;
            rounds += 1;
            assert!(!put_off.is_empty() || done == CALLS, "{done} of {CALLS} calls, and no asks");
            if rounds == 1 {
                // Calls that wait hold up neither other clients nor calls that ask for nothing.
                test_server.is_sound();
                client.getpid();
            }
            for reqno in put_off {
                client.send(&response(Kind::Copyin, reqno, &[7; SMALL_LEN as usize]));
            }
        }
        assert!(rounds > 2, "not all were asked for at once");
        assert_eq!(test_server.core().kept, 0);
        // The same holds when the client goes in the middle of it.
        send_writes(&mut client, file, CALLS);
        let (put_off, _) = answer_all_but_small(&mut client, || {});
        assert!(!put_off.is_empty());
        drop(client);
        test_server.becomes_empty();
        assert_eq!(test_server.core().kept, 0);
    }
}

#[test]
fn what_is_held_of_all_that_clients_have_sent() {
    const MOST: usize = 2 << 20;
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server =
            TestServer::with(transport, |config| config.limits.copyin_cache_total = MOST);
        let mut worst = FrameClient::guest(&test_server);
        let file = worst.open("/file", O_RDWR | O_CREAT | O_APPEND);
        send_writes(&mut worst, file, 32);
        let _ = answer_all_but_small(&mut worst, || {});
        let kept = test_server.core().kept;
        assert!((900_000..=MOST).contains(&kept), "{kept} bytes of one client");
        // Others may still have a little each, until it is too much together: the start of an answer
        // that does not end.
        let mut others: Vec<FrameClient> = Vec::new();
        while test_server.core().hang_ups == 0 {
            assert!(others.len() < 100, "{} bytes are held", test_server.core().kept);
            others.push(begun_answer(&test_server));
            test_server.is_sound();
        }
        worst.expect_end();
        test_server.core_becomes("what may be", |core| core.kept <= MOST);
        for other in &mut others {
            assert_eq!(other.hear_within(Duration::ZERO), None, "nobody else is hung up on");
        }
        drop((worst, others));
        test_server.becomes_empty();
        assert_eq!(test_server.core().kept, 0);
    }
}

/// Returns a client that has sent 60,000 bytes of an answer of 64 KiB.
fn begun_answer(test_server: &TestServer) -> FrameClient {
    let mut client = FrameClient::guest(test_server);
    let [_, writer] = client.pipe();
    client.send(&call(sys::WRITE, 1, &[writer, 0x1000, PIECE]));
    let Said::Copyin { reqno, len, .. } = client.hear() else { panic!("expected a copyin") };
    let answer = response(Kind::Copyin, reqno, &vec![1; len as usize]);
    let before = test_server.core().kept;
    client.send(&answer[..answer.len() - 100]);
    test_server.core_becomes("a part of an answer", |core| {
        core.kept >= before + answer.len() / 2 || core.hang_ups > 0
    });
    client
}

/// Returns `true` if the server lets this process in.
fn is_let_in(test_server: &TestServer) -> bool {
    let mut client = RawConnection::connect(&test_server.url).expect("the system's part of it");
    client.hello("knock", PATIENCE).is_ok()
}

fn with_access(transport: Transport, change: impl FnOnce(&mut Access)) -> TestServer {
    TestServer::with(transport, |config| change(&mut config.access))
}

#[test]
fn users_and_groups_that_may_connect() {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let stranger = 4_000_000;
    for (users, groups, may) in [
        (vec![uid], vec![], true),
        (vec![stranger, uid], vec![], true),
        (vec![stranger], vec![], false),
        (vec![], vec![gid], true),
        (vec![], vec![stranger], false),
        (vec![stranger], vec![gid], true),
    ] {
        let said = format!("users {users:?}, groups {groups:?}");
        let test_server =
            with_access(Transport::Unix, |access| (access.users, access.groups) = (users, groups));
        assert_eq!(is_let_in(&test_server), may, "{said}");
        assert_eq!(test_server.core().turned_away, u64::from(!may), "{said}");
        test_server.core_becomes("nobody", |core| core.connections == 0);
    }
}

#[test]
fn networks_that_may_connect() {
    for (transport, network, may) in [
        (Transport::Tcp, "127.0.0.0/8", true),
        (Transport::Tcp, "10.0.0.0/8", false),
        (Transport::Tcp6, "::1/128", true),
        (Transport::Tcp6, "fd00::/8", false),
    ] {
        let test_server =
            with_access(transport, |access| access.networks = vec![network.parse().unwrap()]);
        assert_eq!(is_let_in(&test_server), may, "{network}");
        assert_eq!(test_server.core().turned_away, u64::from(!may), "{network}");
    }
}

#[test]
fn connections_of_one_peer() {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        let test_server = with_access(transport, |access| access.per_peer = Some(3));
        let mut clients: Vec<FrameClient> =
            (0..3).map(|_| FrameClient::guest(&test_server)).collect();
        for _ in 0..5 {
            assert!(!is_let_in(&test_server), "a fourth on {transport:?}");
        }
        for client in &mut clients {
            client.getpid();
        }
        drop(clients.pop());
        test_server.core_becomes("a place that is free", |core| core.connections == 2);
        assert!(is_let_in(&test_server), "the place of one that has gone on {transport:?}");
        assert_eq!(test_server.core().turned_away, 5);
    }
}

#[test]
fn an_address_of_the_world_needs_to_be_said_who_may_come() {
    use embedded::Embedded;
    use rumpring::server::{Config, Running};
    for url in ["tcp://*:0", "tcp6://[::]:0"] {
        let start = |change: fn(&mut Config)| {
            let mut config = Config::new(url.parse().unwrap());
            change(&mut config);
            Running::start(config, std::sync::Arc::new(Embedded::default()))
        };
        let error = start(|_| {}).map(drop).expect_err(url).to_string();
        assert!(error.contains("--allow-from"), "{error}");
        start(|config| config.access.networks = vec!["127.0.0.1/32".parse().unwrap()]).expect(url);
        start(|config| config.access.anywhere = true).expect("as rump_server does");
    }
}
