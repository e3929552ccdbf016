//! Tests of typed calls: numbers, argument slots, and results read back.

use std::time::Duration;

use super::connect;
use super::fake::{self, Got, Peer};
use crate::numbers::*;
use crate::{Client, sockaddr_in, sockaddr_un};
use rumpsp::wire::Kind;

/// Runs `calls` on a client; the server hands each call to the next of `scripts`.
fn run(scripts: Vec<fn(&mut Peer, Got)>, calls: impl FnOnce(&Client)) {
    let server = fake::unix(move |mut peer| {
        peer.hello();
        for script in &scripts {
            let call = peer.expect(Kind::Syscall);
            script(&mut peer, call);
        }
    });
    let client = connect(&server);
    calls(&client);
    assert_eq!(client.space().regions(), 0, "every buffer is freed");
}

fn slots(call: &Got) -> Vec<u64> {
    (0..call.body.len() / 8).map(|index| call.arg(index)).collect()
}

fn text(peer: &mut Peer, addr: u64) -> Vec<u8> {
    peer.copyin(Kind::Copyinstr, 1024, addr).body
}

#[test]
fn numbers_without_pointers() {
    run(
        vec![
            |peer, call| peer.answer(&call, i64::from(call.header.word) + 100),
            |peer, call| {
                assert_eq!((call.header.word, slots(&call)), (37, vec![-1i64 as u64, 15]));
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, slots(&call)), (199, vec![3, 0, -5i64 as u64, 2]));
                peer.answer(&call, 95);
            },
            |peer, call| {
                assert_eq!((call.header.word, slots(&call)), (92, vec![3, 2, 1]));
                peer.answer(&call, 0);
            },
            |peer, call| {
                let expected = vec![0, 8192, 3, 0x1002, u64::MAX, 0, 0];
                assert_eq!((call.header.word, slots(&call)), (197, expected));
                peer.answer(&call, 0x7000);
            },
            |peer, call| {
                assert_eq!((call.header.word, slots(&call)), (208, vec![8, 0]));
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, slots(&call)), (394, vec![2, 1, 6]));
                peer.answer(&call, 4);
            },
        ],
        |client| {
            assert_eq!(client.getpid(), Ok(120));
            client.kill(-1, 15).unwrap();
            assert_eq!(client.lseek(3, -5, SEEK_END), Ok(95));
            assert_eq!(client.fcntl(3, F_SETFD, FD_CLOEXEC), Ok(0));
            assert_eq!(client.mmap_anon(8192), Ok(0x7000));
            client.halt().unwrap();
            assert_eq!(client.socket(AF_INET, SOCK_STREAM, 6), Ok(4));
        },
    );
}

#[test]
fn files() {
    run(
        vec![
            |peer, call| {
                assert_eq!(call.header.word, 5);
                assert_eq!(text(peer, call.arg(0)), b"/etc/motd\0");
                assert_eq!(slots(&call)[1..], [0x202, 0o644]);
                peer.answer(&call, 3);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(0), call.arg(2)), (4, 3, 5));
                assert_eq!(peer.copyin(Kind::Copyin, 5, call.arg(1)).body, b"hello");
                peer.answer(&call, 5);
            },
            |peer, call| {
                let args = slots(&call);
                assert_eq!((call.header.word, args.len(), &args[2..]), (173, 5, &[9, 0, 77][..]));
                peer.copyout(args[1], b"abc");
                peer.answer(&call, 3);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(1)), (453, 0x40_0000));
                peer.copyout(call.arg(0), &[7, 0, 0, 0, 8, 0, 0, 0]);
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(2)), (120, 2));
                let iovecs = peer.copyin(Kind::Copyin, 32, call.arg(1));
                assert_eq!((iovecs.arg(1), iovecs.arg(3)), (2, 3));
                peer.copyout(iovecs.arg(0), b"ab");
                peer.copyout(iovecs.arg(2), b"c");
                peer.answer(&call, 3);
            },
        ],
        |client| {
            assert_eq!(client.open("/etc/motd", O_CREAT | O_RDWR, 0o644), Ok(3));
            assert_eq!(client.write(3, b"hello"), Ok(5));
            assert_eq!(client.pread(3, 9, 77), Ok(b"abc".to_vec()));
            assert_eq!(client.pipe2(O_CLOEXEC), Ok([7, 8]));
            assert_eq!(client.readv(3, &[2, 3]), Ok(vec![b"ab".to_vec(), b"c".to_vec()]));
        },
    );
}

#[test]
fn stat_reads_netbsds_structure() {
    run(
        vec![|peer, call| {
            assert_eq!((call.header.word, text(peer, call.arg(0))), (439, b"/\0".to_vec()));
            let mut stat = [0; 152];
            stat[8..12].copy_from_slice(&0o040_755u32.to_le_bytes());
            stat[16] = 2;
            stat[112..120].copy_from_slice(&512i64.to_le_bytes());
            peer.copyout(call.arg(1), &stat);
            peer.answer(&call, 0);
        }],
        |client| {
            let stat = client.stat("/").unwrap();
            assert!(stat.is_dir() && !stat.is_file());
            assert_eq!((stat.mode, stat.ino, stat.size), (0o040_755, 2, 512));
        },
    );
}

#[test]
fn sysctl_both_ways() {
    run(
        vec![
            |peer, call| {
                let args = slots(&call);
                assert_eq!((call.header.word, args[1], &args[4..]), (202, 2, &[0, 0][..]));
                let name = peer.copyin(Kind::Copyin, 8, args[0]).body;
                assert_eq!(name, [1, 0, 0, 0, 10, 0, 0, 0]);
                assert_eq!(peer.copyin(Kind::Copyin, 8, args[3]).arg(0), 1024);
                peer.copyout(args[2], b"host\0");
                peer.copyout(args[3], &5u64.to_le_bytes());
                peer.answer(&call, 0);
            },
            |peer, call| {
                let args = slots(&call);
                assert_eq!((&args[2..4], args[5]), (&[0, 0][..], 4));
                assert_eq!(peer.copyin(Kind::Copyin, 4, args[4]).body, b"new\0");
                peer.answer(&call, 0);
            },
            |peer, call| {
                peer.copyout(call.arg(2), &[2, 0, 0, 0]);
                peer.copyout(call.arg(3), &4u64.to_le_bytes());
                peer.answer(&call, 0);
            },
        ],
        |client| {
            let hostname = [CTL_KERN, KERN_HOSTNAME];
            assert_eq!(client.sysctl_string(&hostname), Ok("host".to_string()));
            client.set_sysctl_string(&hostname, "new").unwrap();
            assert_eq!(client.sysctl_int(&[CTL_HW, HW_NCPU]), Ok(2));
        },
    );
}

#[test]
fn names_of_sockets_and_times() {
    let addr = sockaddr_in("127.0.0.1:258".parse().unwrap());
    assert_eq!(addr[..8], [16, 2, 1, 2, 127, 0, 0, 1]);
    assert_eq!(sockaddr_un("/x"), [5, 1, b'/', b'x', 0]);
    run(
        vec![
            |peer, call| {
                assert_eq!((call.header.word, call.arg(0), call.arg(2)), (104, 4, 16));
                assert_eq!(peer.copyin(Kind::Copyin, 16, call.arg(1)).body[0], 16);
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!(call.header.word, 32);
                assert_eq!(peer.copyin(Kind::Copyin, 4, call.arg(2)).body, [255, 0, 0, 0]);
                peer.copyout(call.arg(1), &[16; 16]);
                peer.copyout(call.arg(2), &16u32.to_le_bytes());
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(0)), (427, 3));
                peer.copyout(call.arg(1), &[7u64.to_le_bytes(), 9u64.to_le_bytes()].concat());
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(0)), (427, 0));
                peer.copyout(call.arg(1), &[0xff; 16]);
                peer.answer(&call, 0);
            },
            |peer, call| {
                assert_eq!((call.header.word, call.arg(1)), (430, 0));
                let time = peer.copyin(Kind::Copyin, 16, call.arg(0));
                assert_eq!((time.arg(0), time.arg(1)), (1, 500_000_000));
                peer.answer(&call, 0);
            },
        ],
        |client| {
            client.bind(4, &sockaddr_in("127.0.0.1:258".parse().unwrap())).unwrap();
            assert_eq!(client.getsockname(4), Ok(vec![16; 16]));
            assert_eq!(client.clock_gettime(CLOCK_MONOTONIC), Ok(Duration::new(7, 9)));
            assert_eq!(client.clock_gettime(CLOCK_REALTIME), Ok(Duration::ZERO));
            client.nanosleep(Duration::from_millis(1500)).unwrap();
        },
    );
}
