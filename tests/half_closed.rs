//! Clients that send no more and wait: they get their answers, then the end of the connection.

mod support;

use std::time::Duration;

use client::numbers::{O_RDONLY, sys};
use rumpsp::wire::{ErrorCode, Kind};
use support::*;

const EINTR: i32 = 4;
const EFAULT: i32 = 14;

/// Returns the frames up to the end of the connection.
fn all_that_comes(client: &mut FrameClient) -> Vec<Said> {
    std::iter::from_fn(|| client.hear_or_end()).collect()
}

/// Returns a client with a pipe, a child of it that has the pipe, too, and the pipe.
fn with_a_pipe(test_server: &TestServer) -> (FrameClient, FrameClient, [u64; 2]) {
    let mut client = FrameClient::guest(test_server);
    let pipe = client.pipe();
    let token = client.prefork();
    (client, FrameClient::child(test_server, &token), pipe)
}

#[test]
fn everything_sent_before_is_answered() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let zero = client.open("/dev/zero", O_RDONLY);
        let calls = (0..3000).flat_map(|reqno| call(sys::GETPPID, reqno, &[])).collect::<Vec<_>>();
        client.send(&calls);
        client.send(&call(sys::READ, 3000, &[zero, 0x1000, 100_000]));
        client.end_sending();
        let said = all_that_comes(&mut client);
        let answers = said.iter().filter(|said| matches!(said, Said::Result { error: 0, .. }));
        assert_eq!(answers.count(), 3001);
        let copied = said.iter().map(|said| match said {
            Said::Copyout { bytes, .. } => bytes.len(),
            _ => 0,
        });
        assert_eq!(copied.sum::<usize>(), 100_000);
        test_server.becomes_empty();
    });
}

#[test]
fn so_is_a_handshake_with_all_that_is_right_behind_it() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::connected(test_server);
        let calls = [guest(1, "brief"), prefork(2), call(sys::GETPPID, 3, &[]), exec(4, "other")];
        client.send(&calls.concat());
        client.end_sending();
        client.expect(Said::Welcome { reqno: 1 });
        assert!(matches!(client.hear(), Said::Token { reqno: 2, .. }));
        let mut rest = all_that_comes(&mut client);
        rest.sort_by_key(|said| matches!(said, Said::Welcome { .. }));
        assert!(matches!(rest[..], [Said::Result { reqno: 3, .. }, Said::Welcome { reqno: 4 }]));
    });
}

#[test]
fn nothing_said_and_no_more_to_come_is_the_end() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::connected(test_server);
        client.end_sending();
        client.expect_end();
        test_server.becomes_empty();
    });
}

#[test]
fn a_refusal_is_still_told() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::connected(test_server);
        client.send(&call(sys::GETPID, 5, &[]));
        client.end_sending();
        client.expect(Said::refused(5, ErrorCode::Auth));
        client.expect_end();
    });
}

#[test]
fn what_would_be_asked_is_a_bad_address() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [_, writer] = client.pipe();
        client.send(&call(sys::OPEN, 1, &[0x2000, 0, 0]));
        assert!(matches!(client.hear(), Said::Copyinstr { .. }));
        client.send(&call(sys::WRITE, 2, &[writer, 0x3000, 7]));
        client.end_sending();
        let said = all_that_comes(&mut client);
        for reqno in [1, 2] {
            assert!(said.contains(&Said::errno(reqno, EFAULT)), "{said:?}");
        }
    });
}

#[test]
fn calls_of_a_unix_client_sleep_on_until_they_are_woken() {
    let test_server = TestServer::new(Transport::Unix);
    let (mut client, mut child, [reader, writer]) = with_a_pipe(&test_server);
    client.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
    client.send(&call(sys::NANOSLEEP, 2, &[0x3000, 0]));
    client.serve_copyin(0x3000, &[0u64.to_le_bytes(), 50_000_000u64.to_le_bytes()].concat());
    client.end_sending();
    client.expect(Said::ok(2, 0));
    assert_eq!(client.hear_within(Duration::from_millis(50)), None, "nobody has written");
    child.write(writer, b"wake");
    client.expect(Said::Copyout { addr: 0x1000, bytes: b"wake".to_vec() });
    client.expect(Said::ok(1, 4));
    client.expect_end();
    test_server.releases_all_but(1);
}

#[test]
fn a_unix_client_that_then_goes_takes_its_sleeping_calls_with_it() {
    let test_server = TestServer::new(Transport::Unix);
    let (mut client, mut child, [reader, writer]) = with_a_pipe(&test_server);
    child.call(sys::CLOSE, &[writer]);
    child.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
    client.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
    client.end_sending();
    assert_eq!(client.hear_within(Duration::from_millis(50)), None);
    drop(client);
    child.expect(Said::ok(1, 0));
    drop(child);
    test_server.becomes_empty();
    assert_eq!(test_server.core().timers, 0);
}

/// Over TCP the server cannot tell whether the client has gone.
#[test]
fn sleeping_calls_of_a_tcp_client_end() {
    for transport in [Transport::Tcp, Transport::Tcp6] {
        let test_server = TestServer::new(transport);
        let mut client = FrameClient::guest(&test_server);
        let [reader, _] = client.pipe();
        client.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
        client.send(&call(sys::GETPPID, 2, &[]));
        client.end_sending();
        let said = all_that_comes(&mut client);
        assert!(said.contains(&Said::errno(1, EINTR)), "{said:?}");
        assert!(said.iter().any(|said| matches!(said, Said::Result { reqno: 2, error: 0, .. })));
        test_server.becomes_empty();
    }
}

#[test]
fn who_does_not_take_its_answers_has_only_so_long() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| {
            config.limits.linger = Duration::from_millis(100);
        });
        let mut client = FrameClient::guest(&test_server);
        let zero = client.open("/dev/zero", O_RDONLY);
        // These are more bytes than the sockets hold.
        for reqno in 0..9 {
            client.send(&call(sys::READ, reqno, &[zero, 0x1000, 100_000]));
        }
        client.end_sending();
        test_server.becomes_empty();
        drop(client);
    }
}

#[test]
fn an_answer_behind_the_end_never_comes() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [_, writer] = client.pipe();
        client.send(&call(sys::WRITE, 1, &[writer, 0x3000, 7]));
        let Said::Copyin { reqno, .. } = client.hear() else {
            panic!("expected a copyin");
        };
        let answer = response(Kind::Copyin, reqno, b"0123456");
        client.send(&answer[..answer.len() - 1]);
        client.end_sending();
        client.expect(Said::errno(1, EFAULT));
        client.expect_end();
    });
}
