//! Clients that vanish at every byte and at every stage leave nothing behind.

mod support;

use std::time::Duration;

use client::numbers::{O_CREAT, O_RDONLY, O_RDWR, sys};
use rumpsp::wire::Kind;
use support::*;

/// The ways to vanish.
const WAYS: [fn(FrameClient); 3] = [drop, FrameClient::reset, FrameClient::half_close_and_go];

/// Has a client vanish after `stage`, in each way, and checks that nothing of it stays.
fn vanishes(test_server: &TestServer, stage: impl Fn() -> FrameClient) {
    for way in WAYS {
        way(stage());
        test_server.becomes_empty();
    }
    test_server.is_sound();
}

/// Makes a client at some stage, and returns it with the frame it is about to send.
type Opening = fn(&TestServer) -> (FrameClient, Vec<u8>);

#[test]
fn at_every_byte_of_every_frame() {
    for transport in [Transport::Unix, Transport::Tcp, Transport::Tcp6] {
        let test_server =
            TestServer::with(transport, |config| config.limits.orphan = Duration::ZERO);
        // Each entry has the name of a frame, and makes a client that is about to send it.
        let frames: [(&str, Opening); 7] = [
            ("guest", |test_server| (FrameClient::connected(test_server), guest(1, "gone"))),
            ("call", |test_server| {
                (FrameClient::guest(test_server), call(sys::LSEEK, 2, &[1, 2, 3]))
            }),
            ("answer", |test_server| {
                let mut client = FrameClient::guest(test_server);
                let [_, writer] = client.pipe();
                client.send(&call(sys::WRITE, 3, &[writer, 0x1000, 12]));
                let Said::Copyin { reqno, .. } = client.hear() else {
                    panic!("expected a copyin");
                };
                (client, response(Kind::Copyin, reqno, b"twelve bytes"))
            }),
            ("prefork", |test_server| (FrameClient::guest(test_server), prefork(4))),
            ("exec", |test_server| (FrameClient::guest(test_server), exec(5, "gone"))),
            ("fork", |test_server| {
                let token = FrameClient::guest(test_server).prefork();
                (FrameClient::connected(test_server), fork(6, &token))
            }),
            ("nonsense", |test_server| {
                (FrameClient::guest(test_server), frame(7, 7, 7, 7, b"7777777"))
            }),
        ];
        for (name, frame) in frames {
            let len = frame(&test_server).1.len();
            for cut in 0..=len {
                let (mut client, bytes) = frame(&test_server);
                // A fork that came too late has been hung up on.
                client.try_send(&bytes[..cut]);
                WAYS[cut % 2](client);
            }
            println!("{transport:?}: {name}, {len} bytes");
            test_server.becomes_empty();
        }
        test_server.is_sound();
    }
}

#[test]
fn before_anything_was_said() {
    on_each_transport(|test_server| {
        vanishes(test_server, || FrameClient::silent(test_server));
        vanishes(test_server, || FrameClient::connected(test_server));
        vanishes(test_server, || FrameClient::guest(test_server));
    });
}

#[test]
fn with_files_open() {
    on_each_transport(|test_server| {
        vanishes(test_server, || {
            let mut client = FrameClient::guest(test_server);
            for _ in 0..20 {
                client.pipe();
            }
            client.open("/file", O_RDWR | O_CREAT);
            client
        });
    });
}

#[test]
fn with_calls_that_sleep() {
    on_each_transport(|test_server| {
        vanishes(test_server, || {
            let mut client = FrameClient::guest(test_server);
            let [reader, writer] = client.pipe();
            for reqno in 0..50 {
                client.send(&call(sys::READ, reqno, &[reader, 0x1000, 10]));
            }
            // This call sleeps for an hour.
            client.send(&call(sys::NANOSLEEP, 50, &[0x3000, 0]));
            client.serve_copyin(0x3000, &[3600u64.to_le_bytes(), [0; 8]].concat());
            let [_, full] = client.pipe();
            client.send(&call(sys::WRITE, 51, &[full, 0x5000, 100_000]));
            client.serve_copyin(0x5000, &[7; 65_536]);
            let _ = writer;
            test_server.core_becomes("all sleep", |core| core.calls_in_flight >= 52);
            client
        });
        test_server.core_becomes("no timer stays", |core| core.timers == 0);
    });
}

#[test]
fn while_it_is_asked_for_memory() {
    on_each_transport(|test_server| {
        vanishes(test_server, || {
            let mut client = FrameClient::guest(test_server);
            let [_, writer] = client.pipe();
            for reqno in 0..10 {
                client.send(&call(sys::WRITE, reqno, &[writer, 0x1000, 10]));
                client.send(&call(sys::OPEN, reqno, &[0x1000, 0, 0]));
                client.send(&call(sys::MMAP, reqno, &[0, 4096, 3, 0x1002, u64::MAX, 0, 0]));
            }
            for _ in 0..30 {
                client.hear();
            }
            client
        });
    });
}

#[test]
fn with_bytes_unread() {
    on_each_transport(|test_server| {
        vanishes(test_server, || {
            let mut client = FrameClient::guest(test_server);
            let zero = client.open("/dev/zero", O_RDONLY);
            client.send(&call(sys::READ, 1, &[zero, 0x1000, 1 << 40]));
            for reqno in 2..50 {
                client.send(&call(sys::READ, reqno, &[zero, 0x1000, 65_536]));
            }
            client.hear();
            client
        });
    });
}

#[test]
fn during_an_exec() {
    on_each_transport(|test_server| {
        vanishes(test_server, || {
            let mut client = FrameClient::guest(test_server);
            let [reader, writer] = client.pipe();
            client.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
            client.send(&call(sys::WRITE, 2, &[writer, 0x1000, 10]));
            client.hear();
            client.send(&exec(3, "gone"));
            // The read has been ended; the exec waits for the write.
            client.expect(Said::errno(1, 4));
            client
        });
    });
}

#[test]
fn with_preforks_unused_and_children_alive() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server =
            TestServer::with(transport, |config| config.limits.orphan = Duration::ZERO);
        let children = std::cell::RefCell::new(Vec::new());
        for way in WAYS {
            let mut parent = FrameClient::guest(&test_server);
            let [reader, writer] = parent.pipe();
            for _ in 0..5 {
                parent.prefork();
            }
            let token = parent.prefork();
            let mut child = FrameClient::child(&test_server, &token);
            child.call(sys::CLOSE, &[writer]);
            child.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
            way(parent);
            // Nobody writes any more: neither the parent nor its preforks.
            child.expect(Said::ok(1, 0));
            children.borrow_mut().push(child);
        }
        test_server.core_becomes("no prefork", |core| core.preforks == 0);
        test_server.releases_all_but(3);
        drop(children);
        test_server.becomes_empty();
        test_server.is_sound();
    }
}

/// Behind a bound the server does not read, but still notices that a client vanishes.
#[test]
fn while_it_is_not_read_from() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let test_server = TestServer::with(transport, |config| {
            config.limits.session.calls = 3;
            config.limits.backlog = 1000;
        });
        vanishes(&test_server, || {
            let mut client = FrameClient::guest(&test_server);
            let [reader, _] = client.pipe();
            for reqno in 0..3 {
                client.send(&call(sys::READ, reqno, &[reader, 0x1000, 10]));
            }
            let more: Vec<u8> = (0..1000).flat_map(|n| call(sys::GETEUID, n, &[])).collect();
            client.send_within(&more, Duration::from_millis(50));
            client
        });
    }
}

#[test]
fn many_at_once() {
    on_each_transport(|test_server| {
        for round in 0..5 {
            let clients: Vec<FrameClient> = (0..100)
                .map(|number| {
                    let mut client = FrameClient::guest(test_server);
                    let [reader, writer] = client.pipe();
                    client.send(&call(sys::READ, 1, &[reader, 0x1000, 10]));
                    if number % 3 == 0 {
                        client.send(&call(sys::WRITE, 2, &[writer, 0x1000, 10]));
                    }
                    client
                })
                .collect();
            for (number, client) in clients.into_iter().enumerate() {
                WAYS[(number + round) % 2](client);
            }
            test_server.becomes_empty();
        }
    });
}
