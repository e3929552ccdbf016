//! Fork and exec: a token from the parent, a connection for the child; another program in the same
//! process.

mod support;

use std::time::Duration;

use client::numbers::{O_CLOEXEC, sys};
use rumpsp::wire::{ErrorCode, Handshake, Kind, Token, read_u32};
use support::*;

const EINTR: i32 = 4;
const EBADF: i32 = 9;

/// Shows a token that is not valid.
#[track_caller]
fn is_refused(test_server: &TestServer, token: &Token) {
    let mut client = FrameClient::connected(test_server);
    client.send(&fork(3, token));
    client.expect(Said::refused(3, ErrorCode::InvalidPrefork));
    client.expect_end();
}

#[track_caller]
fn reads(client: &mut FrameClient, fd: u64, expected: &[u8]) {
    client.send(&call(sys::READ, 60, &[fd, 0x9000, 100]));
    if !expected.is_empty() {
        client.expect(Said::Copyout { addr: 0x9000, bytes: expected.to_vec() });
    }
    client.expect(Said::ok(60, expected.len() as i64));
}

#[test]
fn a_child_is_a_new_process_with_the_parents_files() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let [reader, writer] = parent.pipe();
        let token = parent.prefork();
        let mut child = FrameClient::child(test_server, &token);
        assert_ne!(child.getpid(), parent.getpid());
        parent.write(writer, b"from the parent");
        reads(&mut child, reader, b"from the parent");
        child.write(writer, b"from the child");
        reads(&mut parent, reader, b"from the child");

        // The descriptors are the child's own, the open files are shared.
        child.call(sys::CLOSE, &[reader]);
        child.call_fails(sys::READ, &[reader, 0x1000, 1], EBADF);
        parent.write(writer, b"still");
        reads(&mut parent, reader, b"still");
        parent.call(sys::CLOSE, &[writer]);
        child.write(writer, b"open");
        reads(&mut parent, reader, b"open");
        drop(child);
        reads(&mut parent, reader, b"");
        drop(parent);
        test_server.becomes_empty();
    });
}

#[test]
fn a_child_has_the_files_of_the_moment_of_the_prefork() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let [reader, writer] = parent.pipe();
        let token = parent.prefork();
        parent.call(sys::CLOSE, &[reader]);
        let [later, _] = parent.pipe();
        assert_eq!(later, reader, "the lowest free number");
        let mut child = FrameClient::child(test_server, &token);
        child.write(writer, b"kept");
        reads(&mut child, reader, b"kept");
        // Files that the parent has opened since are not the child's.
        child.call_fails(sys::CLOSE, &[writer + 1], EBADF);
    });
}

#[test]
fn a_token_is_good_once() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let token = parent.prefork();
        let mut child = FrameClient::child(test_server, &token);
        is_refused(test_server, &token);
        child.getpid();
        // The token does not come back when the child goes.
        drop(child);
        test_server.releases_all_but(1);
        is_refused(test_server, &token);
    });
}

#[test]
fn tokens_differ_and_each_has_its_child() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let tokens: Vec<Token> = (0..20).map(|_| parent.prefork()).collect();
        test_server.core_becomes("20 preforks", |core| core.preforks == 20);
        let mut pids: Vec<i32> = tokens
            .iter()
            .rev()
            .map(|token| FrameClient::child(test_server, token).getpid())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 20, "20 children, 20 pids: {pids:?}");
        assert_eq!(test_server.core().preforks, 0);
    });
}

#[test]
fn a_forged_token_is_refused_and_spoils_no_other() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let token = parent.prefork();
        for byte in 0..token.len() {
            let mut forged = token;
            forged[byte] ^= 1;
            is_refused(test_server, &forged);
        }
        is_refused(test_server, &[0; 16]);
        FrameClient::child(test_server, &token).getpid();
    });
}

#[test]
fn a_fork_handshake_of_another_length_is_malformed() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let token = parent.prefork();
        let good = fork(0, &token)[24..].to_vec();
        let longer = [&good[..], &[0]].concat();
        for body in [&good[..19], &good[..16], &good[..1], &[], &longer] {
            let mut client = FrameClient::connected(test_server);
            client.send(&request(Kind::Handshake, Handshake::Fork.number(), 4, body));
            client.expect(Said::refused(4, ErrorCode::Malformed));
            client.expect_end();
        }
        FrameClient::child(test_server, &token).getpid();
    });
}

#[test]
fn a_cancelled_prefork_is_gone() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let token = parent.prefork();
        test_server.releases_all_but(2);
        let mut client = FrameClient::connected(test_server);
        client.send(&cancel(5, &token));
        client.expect_end();
        test_server.releases_all_but(1);
        is_refused(test_server, &token);
        let mut client = FrameClient::connected(test_server);
        client.send(&cancel(6, &token));
        client.expect(Said::refused(6, ErrorCode::InvalidPrefork));
        client.expect_end();
        parent.getpid();
    });
}

#[test]
fn a_parent_may_go_before_its_child_comes() {
    on_each_transport(|test_server| {
        let mut parent = FrameClient::guest(test_server);
        let [reader, writer] = parent.pipe();
        parent.write(writer, b"legacy");
        let token = parent.prefork();
        drop(parent);
        test_server.core_becomes("the parent has gone", |core| core.connections == 0);
        assert_eq!(test_server.core().preforks, 1);
        let mut child = FrameClient::child(test_server, &token);
        reads(&mut child, reader, b"legacy");
        drop(child);
        test_server.becomes_empty();
    });
}

#[test]
fn an_orphaned_prefork_goes_after_its_grace() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| {
            config.limits.orphan = Duration::from_millis(20);
        });
        let mut living = FrameClient::guest(&test_server);
        let good = living.prefork();
        let mut parent = FrameClient::guest(&test_server);
        parent.pipe();
        let tokens = [parent.prefork(), parent.prefork()];
        drop(parent);
        test_server.core_becomes("orphans have gone", |core| core.preforks == 1);
        test_server.releases_all_but(2);
        for token in &tokens {
            is_refused(&test_server, token);
        }
        // The grace time counts for orphans only.
        let mut child = FrameClient::child(&test_server, &good);
        child.getpid();
        drop((living, child));
        test_server.becomes_empty();
        test_server.is_sound();
    }
}

#[test]
fn a_fork_chain_outlives_its_beginning() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        for generation in 0..10 {
            client.write(writer, &[generation]);
            let token = client.prefork();
            // The old connection ends here.
            client = FrameClient::child(test_server, &token);
            reads(&mut client, reader, &[generation]);
        }
        test_server.releases_all_but(1);
    });
}

/// Makes two pipes, the second of them close-on-exec.
fn pipes(client: &mut FrameClient) -> ([u64; 2], [u64; 2]) {
    let kept = client.pipe();
    client.send(&call(sys::PIPE2, 61, &[0xa000, O_CLOEXEC as u64]));
    let Said::Copyout { addr: 0xa000, bytes } = client.hear() else {
        panic!("expected two descriptors");
    };
    client.expect(Said::ok(61, 0));
    (kept, [read_u32(&bytes, 0).into(), read_u32(&bytes, 4).into()])
}

#[test]
fn an_exec_keeps_pid_and_files_less_close_on_exec() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let pid = client.getpid();
        let (kept, closed) = pipes(&mut client);
        for round in 0..3 {
            client.send(&exec(62, "another"));
            client.expect(Said::Welcome { reqno: 62 });
            assert_eq!(client.getpid(), pid, "after exec {round}");
            client.write(kept[1], b"kept");
            reads(&mut client, kept[0], b"kept");
            for fd in closed {
                client.call_fails(sys::CLOSE, &[fd], EBADF);
            }
        }
        // A child may exec, too.
        let token = client.prefork();
        let mut child = FrameClient::child(test_server, &token);
        let pid = child.getpid();
        child.send(&exec(63, "child"));
        child.expect(Said::Welcome { reqno: 63 });
        assert_eq!(child.getpid(), pid);
    });
}

#[test]
fn an_exec_ends_the_calls_of_other_threads_first() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        // Reads of an empty pipe, and a sleep of an hour.
        for reqno in 10..15 {
            client.send(&call(sys::READ, reqno, &[reader, 0x1000, 1]));
        }
        client.send(&call(sys::NANOSLEEP, 15, &[0x3000, 0]));
        client.serve_copyin(0x3000, &[3600u64.to_le_bytes(), [0; 8]].concat());
        client.getpid();
        client.send(&exec(20, "another"));
        let mut ended = Vec::new();
        let reqnos = loop {
            match client.hear() {
                Said::Result { reqno, error: EINTR, .. } => ended.push(reqno),
                Said::Welcome { reqno: 20 } => {
                    ended.sort_unstable();
                    break ended;
                }
                said => panic!("expected EINTR for each call, then the exec's answer: {said:?}"),
            }
        };
        assert_eq!(reqnos, [10, 11, 12, 13, 14, 15], "all ended before the exec was answered");
        client.write(writer, b"x");
        reads(&mut client, reader, b"x");
    });
}

/// Returns a client with an exec that waits for a call, which waits for the client; and the number of
/// that call's copyin.
fn in_exec(test_server: &TestServer) -> (FrameClient, u64) {
    let mut client = FrameClient::guest(test_server);
    let [_, writer] = client.pipe();
    client.send(&call(sys::WRITE, 10, &[writer, 0x1000, 4]));
    let Said::Copyin { reqno, .. } = client.hear() else {
        panic!("expected a copyin of the write");
    };
    client.send(&exec(11, "another"));
    // The client is still served, and the exec has not been answered.
    client.getpid();
    (client, reqno)
}

#[test]
fn an_exec_waits_for_a_call_that_waits_for_its_client() {
    on_each_transport(|test_server| {
        let (mut client, copyin) = in_exec(test_server);
        client.send(&response(Kind::Copyin, copyin, b"four"));
        match client.hear() {
            Said::Result { reqno: 10, .. } => {}
            said => panic!("expected the end of the write: {said:?}"),
        }
        client.expect(Said::Welcome { reqno: 11 });
        client.getpid();
    });
}

#[test]
fn a_prefork_during_an_exec_is_refused() {
    on_each_transport(|test_server| {
        let (mut client, _) = in_exec(test_server);
        client.send(&prefork(12));
        client.expect(Said::refused(12, ErrorCode::InExec));
        client.expect_end();
        test_server.becomes_empty();
    });
}

#[test]
fn an_exec_during_an_exec_is_refused() {
    on_each_transport(|test_server| {
        let (mut client, _) = in_exec(test_server);
        client.send(&exec(12, "third"));
        client.expect(Said::refused(12, ErrorCode::InExec));
        client.expect_end();
        test_server.becomes_empty();
    });
}

#[test]
fn an_exec_without_a_whole_name_is_malformed() {
    on_each_transport(|test_server| {
        for body in [&b""[..], b"name", &[b'a'; 1024]] {
            let mut client = FrameClient::guest(test_server);
            client.send(&request(Kind::Handshake, Handshake::Exec.number(), 9, body));
            client.expect(Said::refused(9, ErrorCode::Malformed));
            client.expect_end();
        }
        test_server.becomes_empty();
    });
}
