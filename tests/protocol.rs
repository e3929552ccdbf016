//! The protocol as a client sees it, over real sockets: one test for each promise.

mod support;

use client::numbers::{O_NONBLOCK, O_RDONLY, RB_HALT, sys};
use rumpsp::wire::{ErrorCode, Kind, read_u32};
use support::*;

#[test]
fn the_banner_is_one_line_and_travels_alone() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::silent(test_server);
        let mut line = [0; 4096];
        let len = client.read_bytes(&mut line);
        assert_eq!(
            String::from_utf8_lossy(&line[..len]),
            "RUMPSP-0.4-NetBSD-7.99.34/amd64\n",
            "one read brings the banner, its newline last, no NUL"
        );
        // Bytes behind the banner would come before the answer.
        client.send(&guest(5, "one"));
        client.expect(Said::Welcome { reqno: 5 });
    });
}

#[test]
fn a_guest_is_welcome_and_can_call_at_once() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::connected(test_server);
        client.send(&guest(u64::MAX, "one"));
        let frame = client.hear_frame();
        assert_eq!((frame.header.len, frame.header.reqno), (28, u64::MAX));
        assert_eq!((frame.header.class, frame.header.kind), (1, 0));
        assert_eq!(read_u32(&frame.body, 0), 0);
        assert!(client.getpid() > 1, "no client is init");
    });
}

#[test]
fn every_client_has_a_process_of_its_own() {
    on_each_transport(|test_server| {
        let mut clients: Vec<FrameClient> =
            (0..10).map(|_| FrameClient::guest(test_server)).collect();
        let mut pids: Vec<i32> = clients.iter_mut().map(FrameClient::getpid).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 10, "ten pids: {pids:?}");
    });
}

#[test]
fn no_other_handshake_can_be_the_first() {
    on_each_transport(|test_server| {
        let name = b"name\0";
        // Auth, exec, and numbers without a meaning.
        for word in [1, 3, 4, 0xffff_ffff] {
            let mut client = FrameClient::connected(test_server);
            client.send(&request(Kind::Handshake, word, 9, name));
            client.expect(Said::refused(9, ErrorCode::Auth));
            client.expect_end();
        }
        let mut client = FrameClient::connected(test_server);
        client.send(&fork(9, &[7; 16]));
        client.expect(Said::refused(9, ErrorCode::InvalidPrefork));
        client.expect_end();
    });
}

#[test]
fn a_second_handshake_must_be_an_exec() {
    on_each_transport(|test_server| {
        for word in [0, 1, 2, 4] {
            let mut client = FrameClient::guest(test_server);
            client.send(&request(Kind::Handshake, word, 9, b"name\0"));
            client.expect(Said::refused(9, ErrorCode::Malformed));
            client.expect_end();
        }
    });
}

#[test]
fn nothing_but_a_handshake_comes_first() {
    on_each_transport(|test_server| {
        let firsts = [
            call(sys::GETPID, 3, &[]),
            prefork(3),
            request(Kind::Copyin, 0, 3, &[0; 16]),
            request(Kind::Raise, 15, 3, &[]),
        ];
        for first in firsts {
            let mut client = FrameClient::connected(test_server);
            client.send(&first);
            client.expect(Said::refused(3, ErrorCode::Auth));
            client.expect_end();
        }
    });
}

#[test]
fn a_blocked_call_is_overtaken() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        client.send(&call(sys::READ, 1000, &[reader, 0x5000, 10]));
        let pid = client.getpid();
        assert!(pid > 0, "getpid is answered while the read blocks");
        client.send(&call(sys::WRITE, 1001, &[writer, 0x6000, 3]));
        client.serve_copyin(0x6000, b"abc");
        // The write and the read that it wakes end in either order.
        let mut results = Vec::new();
        while results.len() < 2 {
            match client.hear() {
                Said::Copyout { addr, bytes } => {
                    assert_eq!((addr, &bytes[..]), (0x5000, &b"abc"[..]));
                    assert!(!results.contains(&1000), "the bytes come before the read's response");
                }
                Said::Result { reqno, error: 0, retval: [3, 0] } => results.push(reqno),
                said => panic!("expected the read and the write to end: {said:?}"),
            }
        }
        results.sort_unstable();
        assert_eq!(results, [1000, 1001]);
    });
}

#[test]
fn responses_come_in_the_order_in_which_calls_end() {
    on_each_transport(|test_server| {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut client = FrameClient::guest(test_server);
            let pipes = [client.pipe(), client.pipe(), client.pipe()];
            for (at, [reader, _]) in pipes.iter().enumerate() {
                let reqno = 100 + at as u64;
                client.send(&call(sys::READ, reqno, &[*reader, 0x1000 * reqno, 10]));
            }
            for at in order {
                // The end of the file ends the read.
                let reqno = 100 + at as u64;
                client.send(&call(sys::CLOSE, 500, &[pipes[at][1]]));
                let mut heard = [client.hear(), client.hear()];
                heard.sort_by_key(|said| matches!(said, Said::Result { reqno: 500, .. }));
                assert_eq!(heard, [Said::ok(reqno, 0), Said::ok(500, 0)], "order {order:?}");
            }
        }
    });
}

#[test]
fn request_numbers_are_the_clients_business() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        for reqno in [0, 1, 1 << 32, u64::MAX] {
            client.send(&call(sys::GETEUID, reqno, &[]));
            client.expect(Said::ok(reqno, 0));
        }
        client.send(&[call(sys::GETEUID, 4, &[]), call(sys::GETEUID, 4, &[])].concat());
        client.expect(Said::ok(4, 0));
        client.expect(Said::ok(4, 0));
    });
}

#[test]
fn copyouts_come_before_the_response_of_their_call() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        client.send(&call(sys::CLOCK_GETTIME, 7, &[0, 0x8000]));
        match client.hear() {
            Said::Copyout { addr: 0x8000, bytes } => assert_eq!(bytes.len(), 16),
            said => panic!("expected the time before the response: {said:?}"),
        }
        client.expect(Said::ok(7, 0));
    });
}

#[test]
fn copyouts_of_a_long_read_come_in_order_before_its_response() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let zero = client.open("/dev/zero", O_RDONLY);
        const LEN: u64 = 300_000;
        // Two reads run at once: all bytes of each come before its response.
        client.send(&call(sys::READ, 1, &[zero, 0x10_0000, LEN]));
        client.send(&call(sys::READ, 2, &[zero, 0x20_0000, LEN]));
        let mut got = [0, 0];
        let mut ended = [false, false];
        while ended != [true, true] {
            match client.hear() {
                Said::Copyout { addr, bytes } => {
                    let at = (addr >> 20) as usize - 1;
                    assert_eq!(addr & 0xf_ffff, got[at], "the next byte of read {at}");
                    assert!(bytes.iter().all(|&byte| byte == 0));
                    got[at] += bytes.len() as u64;
                }
                Said::Result { reqno, error: 0, retval } => {
                    let at = reqno as usize - 1;
                    assert_eq!((retval[0] as u64, got[at]), (LEN, LEN), "read {at} has all");
                    ended[at] = true;
                }
                said => panic!("expected zeros: {said:?}"),
            }
        }
    });
}

#[test]
fn a_copyin_is_asked_for_and_answered_on_the_same_socket() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        client.send(&call(sys::WRITE, 11, &[writer, 0x7777, 5]));
        let Said::Copyin { reqno, len: 5, addr: 0x7777 } = client.hear() else {
            panic!("expected a copyin of 5 bytes at 0x7777");
        };
        // Other calls go on meanwhile.
        client.getpid();
        client.send(&response(Kind::Copyin, reqno, b"hello"));
        client.expect(Said::ok(11, 5));
        client.send(&call(sys::READ, 12, &[reader, 0x9000, 100]));
        client.expect(Said::Copyout { addr: 0x9000, bytes: b"hello".to_vec() });
        client.expect(Said::ok(12, 5));
    });
}

#[test]
fn copyins_of_several_calls_are_answered_in_any_order() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [reader, writer] = client.pipe();
        for reqno in 1..=3 {
            client.send(&call(sys::WRITE, reqno, &[writer, 0x1000 * reqno, 1]));
        }
        let mut asks = [0; 4];
        for _ in 0..3 {
            match client.hear() {
                Said::Copyin { reqno, len: 1, addr } => asks[(addr / 0x1000) as usize] = reqno,
                said => panic!("expected a copyin of each write: {said:?}"),
            }
        }
        for call in [2, 3, 1] {
            client.send(&response(Kind::Copyin, asks[call as usize], &[b'0' + call]));
            client.expect(Said::ok(call.into(), 1));
        }
        client.send(&call(sys::READ, 12, &[reader, 0x9000, 100]));
        client.expect(Said::Copyout { addr: 0x9000, bytes: b"231".to_vec() });
        client.expect(Said::ok(12, 3));
    });
}

#[test]
fn a_copyinstr_may_be_answered_as_either_type() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        for kind in [Kind::Copyin, Kind::Copyinstr] {
            client.send(&call(sys::OPEN, 20, &[0x4000, 0, 0]));
            let Said::Copyinstr { reqno, len, addr: 0x4000 } = client.hear() else {
                panic!("expected a copyinstr of the path");
            };
            assert_eq!(len, 1024, "as much as a path may have");
            client.send(&response(kind, reqno, b"/dev/null\0"));
            match client.hear() {
                Said::Result { reqno: 20, error: 0, retval: [fd, 0] } => assert!(fd > 2),
                said => panic!("expected a descriptor for an answer as {kind:?}: {said:?}"),
            }
        }
        // As many bytes come as asked for, without a NUL: the string is longer.
        client.send(&call(sys::OPEN, 21, &[0x4000, 0, 0]));
        let Said::Copyinstr { reqno, len, .. } = client.hear() else {
            panic!("expected a copyinstr of the path");
        };
        client.send(&response(Kind::Copyin, reqno, &vec![b'a'; len as usize]));
        client.expect(Said::errno(21, 63));
    });
}

#[test]
fn a_refused_copy_is_a_bad_address() {
    const EFAULT: i32 = 14;
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [_, writer] = client.pipe();
        let calls = [
            call(sys::WRITE, 1, &[writer, 0x7777, 5]),
            call(sys::OPEN, 1, &[0x4000, 0, 0]),
            call(sys::MMAP, 1, &[0, 4096, 3, 0x1002, u64::MAX, 0, 0]),
        ];
        for call in calls {
            client.send(&call);
            let (Said::Copyin { reqno, .. }
            | Said::Copyinstr { reqno, .. }
            | Said::Anonmmap { reqno, .. }) = client.hear()
            else {
                panic!("expected to be asked");
            };
            client.send(&refusal(reqno));
            client.expect(Said::errno(1, EFAULT));
        }
    });
}

#[test]
fn anonymous_memory_is_mapped_by_the_client() {
    const ENOMEM: i32 = 12;
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        for (answer, expected) in [
            (0x7f00_0000_1000, Said::ok(30, 0x7f00_0000_1000)),
            (0, Said::errno(30, ENOMEM)),
            (u64::MAX - 0xfff, Said::ok(30, -0x1000)),
        ] {
            client.send(&call(sys::MMAP, 30, &[0, 8192, 3, 0x1002, u64::MAX, 0, 0]));
            let Said::Anonmmap { reqno, len: 8192 } = client.hear() else {
                panic!("expected to be asked for 8192 bytes");
            };
            client.send(&response(Kind::Anonmmap, reqno, &answer.to_le_bytes()));
            client.expect(expected);
        }
    });
}

#[test]
fn a_signal_comes_before_the_response_of_the_kill() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let pid = client.getpid() as u64;
        for signo in [1, 15, 63] {
            client.send(&call(sys::KILL, 40, &[pid, signo]));
            client.expect(Said::Raise { signo: signo as u32 });
            client.expect(Said::ok(40, 0));
        }
        // Signal 0 only checks that the process exists.
        client.send(&call(sys::KILL, 41, &[pid, 0]));
        client.expect(Said::ok(41, 0));
    });
}

#[test]
fn a_signal_reaches_another_client() {
    on_each_transport(|test_server| {
        let mut target = FrameClient::guest(test_server);
        let pid = target.getpid() as u64;
        FrameClient::guest(test_server).call(sys::KILL, &[pid, 30]);
        target.expect(Said::Raise { signo: 30 });
        target.getpid();
    });
}

#[test]
fn error_numbers_are_those_of_netbsd() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let fds = 0xa000;
        client.send(&call(sys::PIPE2, 50, &[fds, O_NONBLOCK as u64]));
        let Said::Copyout { addr, bytes } = client.hear() else {
            panic!("expected two descriptors");
        };
        assert_eq!(addr, fds);
        client.expect(Said::ok(50, 0));
        let (reader, writer) = (read_u32(&bytes, 0).into(), read_u32(&bytes, 4).into());
        client.call_fails(sys::READ, &[reader, 0x1000, 1], 35); // EAGAIN; 11 on Linux
        client.call_fails(sys::WRITE, &[reader, 0x1000, 1], 9); // EBADF
        client.call_fails(sys::CLOSE, &[99], 9);
        client.call_fails(sys::LSEEK, &[writer, 0, 0, 0], 29); // ESPIPE
        client.call_fails(sys::KILL, &[99_999_999, 15], 3); // ESRCH
        client.call_fails(sys::KILL, &[1, 1000], 22); // EINVAL
        client.call_fails(400, &[], 78); // ENOSYS; 38 on Linux
    });
}

/// The server asks for nothing at NULL, as NetBSD's rump kernel: a stock client that is asked for it
/// dies of it.
#[test]
fn nobody_is_asked_for_what_is_at_null() {
    on_each_transport(|test_server| {
        let mut client = FrameClient::guest(test_server);
        let [_, writer] = client.pipe();
        client.call_fails(sys::WRITE, &[writer, 0, 5], 14); // EFAULT
        client.call_fails(sys::OPEN, &[0, 0, 0], 14);
        client.call_fails(sys::PIPE2, &[0, 0], 14);
        client.call(sys::WRITE, &[writer, 0, 0]);
        client.getpid();
    });
}

#[test]
fn who_halts_the_kernel_gets_the_answer_and_the_server_ends() {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        println!("on {transport:?}");
        let test_server = TestServer::new(transport);
        let (url, kernel) = (test_server.url.clone(), test_server.kernel.clone());
        let mut sleeper = FrameClient::guest(&test_server);
        let [reader, _] = sleeper.pipe();
        sleeper.send(&call(sys::READ, 1, &[reader, 0x1000, 1]));
        let mut bystander = FrameClient::guest(&test_server);
        let mut newcomer = FrameClient::connected(&test_server);
        let mut parent = FrameClient::guest(&test_server);
        parent.prefork();

        let mut client = FrameClient::guest(&test_server);
        client.send(&call(sys::REBOOT, 60, &[RB_HALT as u64, 0]));
        client.expect(Said::ok(60, 0));
        client.expect_end();
        for other in [&mut sleeper, &mut bystander, &mut newcomer, &mut parent] {
            other.expect_end_after_anything();
        }
        test_server.ended().expect("a server that ends well");
        eventually("no process left", || kernel.usage().processes == 0);
        assert!(client::Client::connect(&url).is_err(), "nobody listens any more");
        if let Some(path) = url.path() {
            assert!(!path.exists(), "the socket file went with the server");
        }
    }
}
