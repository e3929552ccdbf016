use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::super::process::Proc;
use super::super::testing::{Guest, NOWHERE, Signals, kernel, kernel_with, o};
use super::super::wait::Side;
use super::super::{Embedded, Limits};
use super::sockets::{SOL_SOCKET, bind, get, inet, name, set, socket};
use kernel::Errno;

const SIGPIPE: i32 = 13;
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
/// The bytes that a local stream and a TCP connection hold.
const LOCAL_ROOM: usize = 4096;
const TCP_ROOM: usize = 65536;

pub(super) fn pair(guest: &Guest, kind: u64) -> (u64, u64) {
    guest.call(135, &[1, kind, 0, guest.buffer()]).expect("a socket pair");
    let fds = guest.get(guest.buffer(), 8);
    (fds[0].into(), fds[4].into())
}

pub(super) fn local(path: &str) -> Vec<u8> {
    [&[0, 1], path.as_bytes()].concat()
}

fn inet6(addr: u128, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&[0, 24, port[0], port[1], 0, 0, 0, 0][..], &addr.to_be_bytes(), &[0; 4]].concat()
}

pub(super) fn connect(guest: &Guest, fd: u64, to: &[u8]) -> Result<i64, Errno> {
    guest.call(98, &[fd, guest.place(to), to.len() as u64])
}

pub(super) fn listen(guest: &Guest, domain: u64, at: &[u8], backlog: i64) -> u64 {
    let fd = socket(guest, domain, 1, 0).unwrap();
    bind(guest, fd, at).unwrap();
    guest.call(106, &[fd, backlog as u64]).unwrap();
    fd
}

fn accept(guest: &Guest, fd: u64) -> Result<u64, Errno> {
    guest.call(30, &[fd, 0, 0]).map(|fd| fd as u64)
}

pub(super) fn blocking(guest: &Guest, fd: u64, on: bool) {
    let flags = if on { 0 } else { o::NONBLOCK };
    guest.call(92, &[fd, 4, flags]).unwrap();
}

fn peer(guest: &Guest, fd: u64) -> Result<Vec<u8>, Errno> {
    guest.put(guest.buffer(), &200u32.to_le_bytes());
    guest.call(31, &[fd, guest.buffer() + 8, guest.buffer()])?;
    let len = guest.get(guest.buffer(), 1)[0];
    Ok(guest.get(guest.buffer() + 8, len.into()))
}

fn error(guest: &Guest, fd: u64) -> u8 {
    get(guest, fd, SOL_SOCKET, 0x1007).unwrap()[0]
}

/// Returns the connected ends of a client and a server, internet or local.
fn connected(guest: &Guest, domain: u64) -> (u64, u64) {
    let at = match domain {
        1 => local("/tmp/connected"),
        2 => inet(LOOPBACK, 4000),
        _ => inet6(1, 4000),
    };
    let head = listen(guest, domain, &at, 5);
    let client = socket(guest, domain, 1, 0).unwrap();
    assert_eq!(connect(guest, client, &at), Ok(0));
    let server = accept(guest, head).unwrap();
    guest.close(head).unwrap();
    if domain == 1 {
        guest.call(10, &[guest.string("/tmp/connected")]).unwrap();
    }
    (client, server)
}

/// Returns a guest and its process.
pub(super) fn seen(kernel: &Embedded) -> (Guest, Arc<Proc>) {
    let signals = Arc::new(Signals::default());
    let proc = Proc::spawn(&kernel.system, signals.clone(), b"test").unwrap();
    (Guest::with(proc.clone(), signals), proc)
}

pub(super) fn poll(proc: &Proc, fd: u64) -> u32 {
    let file = proc.files.get(fd as i32).unwrap();
    file.ops.poll(&file)
}

#[test]
fn bytes_go_both_ways_in_every_family() {
    for domain in [1, 2, 24] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let (client, server) = connected(&guest, domain);
        assert_eq!(guest.write(client, b"hello"), Ok(5));
        assert_eq!(guest.read(server, 2).unwrap(), b"he");
        assert_eq!(guest.read(server, 0).unwrap(), b"");
        assert_eq!(guest.read(server, 100).unwrap(), b"llo");
        assert_eq!(guest.write(server, b"answer"), Ok(6));
        assert_eq!(guest.read(client, 100).unwrap(), b"answer");
        assert_eq!(guest.write(client, b"last"), Ok(4));
        guest.close(client).unwrap();
        assert_eq!(guest.read(server, 100).unwrap(), b"last");
        assert_eq!(guest.read(server, 100).unwrap(), b"");
        guest.process.release();
        let usage = kernel.usage();
        assert_eq!((usage.files, usage.ports, usage.bytes), (0, 0, 0), "{domain}");
    }
}

#[test]
fn a_pair_has_no_names_and_knows_its_maker() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 0x1000_0001);
    assert_eq!(guest.call(92, &[one, 1]), Ok(1));
    assert_eq!(name(&guest, one), [2, 1]);
    assert_eq!(peer(&guest, two).unwrap(), [2, 1]);
    let id = get(&guest, one, 0, 3).unwrap();
    assert_eq!(id[..4], guest.process.pid().to_le_bytes());
    assert_eq!(guest.fails(135, &[2, 1, 0, guest.buffer()]), Errno::EOPNOTSUPP);
    assert_eq!(guest.fails(135, &[1, 3, 0, guest.buffer()]), Errno::EPROTOTYPE);
    assert_eq!(connect(&guest, one, &local("/x")), Err(Errno::EISCONN));
    assert_eq!(guest.fails(106, &[one, 1]), Errno::EINVAL);
}

#[test]
fn a_reader_waits_for_bytes_the_end_or_time() {
    let kernel = kernel();
    for domain in [1, 2] {
        let guest = Guest::new(&kernel);
        let (one, two) = connected(&guest, domain);
        let other = guest.fork();
        let mut pending = guest.start(3, &[one, guest.buffer(), 100]);
        assert_eq!(pending.run(), None);
        assert!(!pending.woken());
        other.write(two, b"wake").unwrap();
        assert!(pending.woken());
        assert_eq!(pending.run(), Some(Ok([4, 0])));
        let mut pending = guest.start(29, &[one, guest.buffer(), 100, 0, 0, 0]);
        assert_eq!(pending.run(), None);
        assert_eq!(pending.interrupt(), Err(Errno::EINTR));
        let mut pending = guest.start(3, &[one, guest.buffer(), 100]);
        assert_eq!(pending.run(), None);
        other.call(134, &[two, 1]).unwrap();
        assert!(pending.woken());
        assert_eq!(pending.run(), Some(Ok([0, 0])));
        // SO_RCVTIMEO: 30 ms.
        let time = [0i64.to_le_bytes(), 30_000i64.to_le_bytes()].concat();
        set(&guest, two, SOL_SOCKET, 0x100c, &time).unwrap();
        assert_eq!(guest.read(two, 10), Err(Errno::EAGAIN));
        blocking(&guest, two, false);
        assert_eq!(guest.read(two, 10), Err(Errno::EAGAIN));
        blocking(&guest, two, true);
        // MSG_DONTWAIT.
        assert_eq!(guest.fails(29, &[two, guest.buffer(), 1, 0x80, 0, 0]), Errno::EAGAIN);
    }
}

#[test]
fn a_sender_waits_for_room_and_loses_nothing() {
    for (domain, room) in [(1, LOCAL_ROOM), (2, TCP_ROOM), (24, TCP_ROOM)] {
        let guest = Guest::new(&kernel());
        let (one, two) = connected(&guest, domain);
        let data: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        guest.put(guest.buffer(), &data);
        let mut pending = guest.start(4, &[one, guest.buffer(), data.len() as u64]);
        assert_eq!(pending.run(), None);
        let other = guest.fork();
        other.call(54, &[two, 0x4004_667f, other.buffer()]).unwrap();
        assert_eq!(other.get(other.buffer(), 4), (room as u32).to_le_bytes());
        let mut got = Vec::new();
        let mut ended = None;
        while got.len() < data.len() {
            let part = other.read(two, 7000).unwrap();
            got.extend(part);
            if ended.is_none() {
                assert!(pending.woken());
                ended = pending.run();
            }
        }
        assert_eq!(ended, Some(Ok([200_000, 0])));
        assert!(got == data, "{domain}: other bytes");
    }
}

#[test]
fn what_was_sent_counts_when_a_sender_is_interrupted_or_late() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 1);
    let mut pending = guest.start(4, &[one, guest.buffer(), 10_000]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Ok([LOCAL_ROOM as i64, 0]));
    let mut pending = guest.start(133, &[one, guest.buffer(), 1, 0, 0, 0]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Err(Errno::EINTR));
    let time = [0i64.to_le_bytes(), 20_000i64.to_le_bytes()].concat();
    set(&guest, one, SOL_SOCKET, 0x100b, &time).unwrap();
    assert_eq!(guest.write(one, b"x"), Err(Errno::EAGAIN));
    guest.read(two, 3000).unwrap();
    assert_eq!(guest.write(one, &[1; 5000]), Ok(3000));
    // A bad address is found once there is room, and nothing is sent.
    guest.read(two, 3000).unwrap();
    assert_eq!(guest.call(4, &[one, NOWHERE, 10]), Err(Errno::EFAULT));
}

#[test]
fn room_is_what_the_low_water_mark_says() {
    let (guest, proc) = seen(&kernel());
    let (one, two) = pair(&guest, 1);
    blocking(&guest, one, false);
    let ask = |option| get(&guest, one, SOL_SOCKET, option).unwrap();
    assert_eq!(poll(&proc, one), 0x4);
    assert_eq!(guest.write(one, &[0; 3000]), Ok(3000));
    // Bytes under way make the send buffer smaller, as in NetBSD.
    assert_eq!(ask(0x1001), 1096u32.to_le_bytes());
    assert_eq!((poll(&proc, one), poll(&proc, two)), (0, 0x45));
    assert_eq!(guest.write(one, &[0; 2000]), Err(Errno::EAGAIN));
    assert_eq!(guest.write(one, &[0; 1000]), Ok(1000));
    guest.call(54, &[one, 0x4004_6678, guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer(), 4), 96u32.to_le_bytes());
    guest.read(two, 1952).unwrap();
    assert_eq!(poll(&proc, one), 0x4);
    assert_eq!(guest.write(one, &[0; 3000]), Ok(2048));
    // A larger buffer holds more; the receiver's low-water mark delays its read.
    set(&guest, one, SOL_SOCKET, 0x1001, &10_000u32.to_le_bytes()).unwrap();
    assert_eq!(guest.write(one, &[0; 20_000]), Ok(10_000));
    set(&guest, one, SOL_SOCKET, 0x1004, &5u32.to_le_bytes()).unwrap();
    guest.write(two, b"four").unwrap();
    assert_eq!(poll(&proc, one), 0);
    assert_eq!(guest.read(one, 100), Err(Errno::EAGAIN));
    assert_eq!(guest.read(one, 3).unwrap(), b"fou");
    guest.write(two, b"five").unwrap();
    assert_eq!(guest.read(one, 100).unwrap(), b"rfive");
}

#[test]
fn a_broken_connection_comes_with_its_signal() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 1);
    let mut pending = guest.start(4, &[one, guest.buffer(), 10_000]);
    assert_eq!(pending.run(), None);
    guest.close(two).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::EPIPE)));
    assert_eq!(guest.signals.taken(), [SIGPIPE]);
    assert_eq!(guest.fails(133, &[one, guest.buffer(), 1, 0, 0, 0]), Errno::EPIPE);
    assert_eq!(guest.signals.taken(), [SIGPIPE]);
    // MSG_NOSIGNAL, then SO_NOSIGPIPE.
    assert_eq!(guest.fails(133, &[one, guest.buffer(), 1, 0x400, 0, 0]), Errno::EPIPE);
    set(&guest, one, SOL_SOCKET, 0x800, &1u32.to_le_bytes()).unwrap();
    assert_eq!(guest.write(one, b"x"), Err(Errno::EPIPE));
    assert_eq!(guest.signals.taken(), []);
    assert_eq!(guest.read(one, 1).unwrap(), b"");
    assert_eq!(peer(&guest, one), Err(Errno::ENOTCONN));
}

#[test]
fn tcp_learns_of_a_closed_peer_when_it_sends() {
    let (guest, proc) = seen(&kernel());
    let (one, two) = connected(&guest, 2);
    guest.write(two, b"bye").unwrap();
    guest.close(two).unwrap();
    assert_eq!(poll(&proc, one), 0x45);
    assert_eq!(peer(&guest, one).unwrap()[..4], [16, 2, 0x0f, 0xa0]);
    assert_eq!(guest.read(one, 100).unwrap(), b"bye");
    assert_eq!(guest.read(one, 100).unwrap(), b"");
    assert_eq!(guest.write(one, b"x"), Ok(1));
    assert_eq!(guest.write(one, b"x"), Err(Errno::EPIPE));
    assert_eq!(guest.read(one, 100), Err(Errno::ECONNRESET));
    assert_eq!(guest.read(one, 100).unwrap(), b"");
    assert_eq!(peer(&guest, one), Err(Errno::ENOTCONN));
    assert_eq!(guest.fails(32, &[one, guest.buffer(), guest.buffer() + 200]), Errno::EINVAL);
    // SO_LINGER with no time: a reset, after what was sent.
    let (one, two) = connected(&guest, 2);
    guest.write(two, b"x").unwrap();
    set(&guest, two, SOL_SOCKET, 0x80, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    guest.close(two).unwrap();
    assert_eq!(guest.read(one, 100).unwrap(), b"x");
    assert_eq!(guest.read(one, 100), Err(Errno::ECONNRESET));
    assert_eq!(guest.write(one, b"x"), Err(Errno::EPIPE));
}

#[test]
fn each_direction_is_shut_by_itself() {
    let (guest, proc) = seen(&kernel());
    let (one, two) = pair(&guest, 1);
    assert_eq!(guest.fails(134, &[one, 3]), Errno::EINVAL);
    assert_eq!(guest.fails(134, &[77, 3]), Errno::EBADF);
    assert_eq!(guest.fails(134, &[1, 3]), Errno::ENOTSOCK);
    guest.write(one, b"abc").unwrap();
    assert_eq!(guest.call(134, &[one, 1]), Ok(0));
    assert_eq!(guest.write(one, b"x"), Err(Errno::EPIPE));
    assert_eq!(guest.read(two, 10).unwrap(), b"abc");
    assert_eq!(guest.read(two, 10).unwrap(), b"");
    assert_eq!(guest.write(two, b"still"), Ok(5));
    assert_eq!(guest.read(one, 10).unwrap(), b"still");
    guest.write(two, b"dropped").unwrap();
    assert_eq!(guest.call(134, &[one, 0]), Ok(0));
    assert_eq!(poll(&proc, one), 0x45);
    assert_eq!(guest.read(one, 10).unwrap(), b"");
    assert_eq!(get(&guest, one, SOL_SOCKET, 0x1002).unwrap(), [0; 4]);
    // TCP: once both ends are shut down the connection is over; the first one keeps its name.
    let (one, two) = connected(&guest, 2);
    assert_eq!(guest.call(134, &[one, 1]), Ok(0));
    assert!(peer(&guest, one).is_ok());
    assert_eq!(guest.read(two, 10).unwrap(), b"");
    assert_eq!(guest.call(134, &[two, 2]), Ok(0));
    assert_eq!(peer(&guest, one), Err(Errno::ENOTCONN));
    assert_eq!(name(&guest, one)[..2], [16, 2]);
    assert_eq!(guest.fails(32, &[two, guest.buffer(), guest.buffer() + 200]), Errno::EINVAL);
    // One end shuts down both ways at once: it does not wait for the other.
    let (one, two) = connected(&guest, 2);
    assert_eq!(guest.call(134, &[one, 2]), Ok(0));
    assert_eq!(peer(&guest, one), Err(Errno::ENOTCONN));
    assert_eq!(guest.write(two, b"abc"), Ok(3));
    assert_eq!(guest.read(one, 1).unwrap(), b"");
    // Not connected: TCP is done, UDP and local sockets only half.
    let three = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(guest.call(134, &[three, 1]), Ok(0));
    assert_eq!(poll(&proc, three), 0x45);
}

#[test]
fn accept_waits_for_connections() {
    for (domain, at) in [(1, local("/tmp/head")), (2, inet([0; 4], 80)), (24, inet6(0, 80))] {
        let kernel = kernel();
        let (guest, proc) = seen(&kernel);
        let head = listen(&guest, domain, &at, 5);
        assert_eq!(get(&guest, head, SOL_SOCKET, 0x2).unwrap(), [1, 0, 0, 0]);
        blocking(&guest, head, false);
        assert_eq!(accept(&guest, head), Err(Errno::EAGAIN));
        blocking(&guest, head, true);
        let file = proc.files.get(head as i32).unwrap();
        assert!(!file.ops.filter(&file, Side::Read, None).unwrap().ready);
        guest.put(guest.buffer() + 1000, &100u32.to_le_bytes());
        let mut pending = guest.start(30, &[head, guest.buffer(), guest.buffer() + 1000]);
        assert_eq!(pending.run(), None);
        let other = Guest::new(&kernel);
        let client = socket(&other, domain, 1, 0).unwrap();
        let to = match domain {
            1 => at.clone(),
            2 => inet([0; 4], 80),
            _ => inet6(1, 80),
        };
        assert_eq!(connect(&other, client, &to), Ok(0));
        let seen = file.ops.filter(&file, Side::Read, None).unwrap();
        assert_eq!((seen.ready, seen.data), (true, 1));
        assert!(pending.woken());
        let server = pending.run().unwrap().unwrap()[0] as u64;
        let from = guest.get(guest.buffer(), guest.get(guest.buffer() + 1000, 1)[0].into());
        assert_eq!(from, name(&other, client));
        assert_eq!(peer(&guest, server).unwrap(), from);
        assert_eq!(peer(&other, client).unwrap(), name(&guest, server));
        assert_eq!(connect(&other, client, &to), Err(Errno::EISCONN));
        assert_eq!(connect(&guest, head, &to), Err(Errno::EOPNOTSUPP));
        assert_eq!(guest.fails(106, &[server, 1]), Errno::EINVAL);
        assert_eq!(guest.write(head, b"x"), Err(Errno::ENOTCONN));
        assert_eq!(guest.read(head, 1), Err(Errno::ENOTCONN));
        let mut pending = guest.start(30, &[head, 0, 0]);
        assert_eq!(pending.run(), None);
        assert_eq!(pending.interrupt(), Err(Errno::EINTR));
        // A listener that was shut down accepts no more.
        let mut pending = guest.start(30, &[head, 0, 0]);
        assert_eq!(pending.run(), None);
        guest.call(134, &[head, 0]).unwrap();
        assert!(pending.woken());
        assert_eq!(pending.run(), Some(Err(Errno::ECONNABORTED)));
    }
}

#[test]
fn accept_is_for_listeners() {
    let guest = Guest::new(&kernel());
    for (domain, kind, errno) in [
        (1, 2, Errno::EOPNOTSUPP),
        (2, 2, Errno::EOPNOTSUPP),
        (1, 1, Errno::EINVAL),
        (24, 1, Errno::EINVAL),
    ] {
        let fd = socket(&guest, domain, kind, 0).unwrap();
        assert_eq!(accept(&guest, fd), Err(errno));
    }
    assert_eq!(accept(&guest, 77), Err(Errno::EBADF));
    assert_eq!(accept(&guest, 1), Err(Errno::ENOTSOCK));
    let (udp, unbound) = (socket(&guest, 2, 2, 0).unwrap(), socket(&guest, 1, 1, 0).unwrap());
    assert_eq!(guest.fails(106, &[udp, 1]), Errno::EOPNOTSUPP);
    assert_eq!(guest.fails(106, &[unbound, 1]), Errno::EINVAL);
    // Listening without a port takes one.
    let tcp = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(guest.call(106, &[tcp, 1]), Ok(0));
    assert_ne!(name(&guest, tcp)[2..4], [0, 0]);
    // An accepted connection inherits from the listener; paccept takes flags of its own.
    let to = name(&guest, tcp);
    set(&guest, tcp, SOL_SOCKET, 0x1001, &5000u32.to_le_bytes()).unwrap();
    blocking(&guest, tcp, false);
    let client = socket(&guest, 2, 1, 0).unwrap();
    connect(&guest, client, &to).unwrap();
    let server = accept(&guest, tcp).unwrap();
    assert_eq!(get(&guest, server, SOL_SOCKET, 0x1001).unwrap(), 5000u32.to_le_bytes());
    assert_eq!(guest.call(92, &[server, 3]), Ok((o::RDWR | o::NONBLOCK) as i64));
    let client = socket(&guest, 2, 1, 0).unwrap();
    connect(&guest, client, &to).unwrap();
    let mask = guest.place(&[0; 16]);
    let server = guest.call(456, &[tcp, 0, 0, mask, 0x1000_0000]).unwrap() as u64;
    assert_eq!(guest.call(92, &[server, 3]), Ok(o::RDWR as i64));
    assert_eq!(guest.call(92, &[server, 1]), Ok(1));
    assert_eq!(guest.fails(456, &[tcp, 0, 0, NOWHERE, 0]), Errno::EFAULT);
    // A bad address for the length is found after the connection was taken, which is lost.
    let client = socket(&guest, 2, 1, 0).unwrap();
    connect(&guest, client, &to).unwrap();
    assert_eq!(guest.fails(30, &[tcp, guest.buffer(), NOWHERE]), Errno::EFAULT);
    assert_eq!(accept(&guest, tcp), Err(Errno::EAGAIN));
    assert_eq!(guest.read(client, 1).unwrap(), b"");
    // A listener that was shut down has no connection now; a call that would wait for one fails.
    guest.call(134, &[tcp, 0]).unwrap();
    assert_eq!(accept(&guest, tcp), Err(Errno::EAGAIN));
    blocking(&guest, tcp, true);
    assert_eq!(accept(&guest, tcp), Err(Errno::ECONNABORTED));
}

#[test]
fn connections_lead_to_listeners_only() {
    let (guest, proc) = seen(&kernel());
    let tcp = || socket(&guest, 2, 1, 0).unwrap();
    // Refused: the socket cannot be used again.
    let fd = tcp();
    assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 99)), Err(Errno::ECONNREFUSED));
    assert_eq!(poll(&proc, fd), 0x45);
    assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 99)), Err(Errno::EINVAL));
    assert_eq!(guest.read(fd, 1).unwrap(), b"");
    assert_eq!(guest.write(fd, b"x"), Err(Errno::EPIPE));
    // A non-blocking connect gets the answer later.
    let fd = tcp();
    blocking(&guest, fd, false);
    assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 99)), Err(Errno::EINPROGRESS));
    assert_eq!(poll(&proc, fd), 0x45);
    assert_eq!((error(&guest, fd), error(&guest, fd)), (61, 0));
    for (to, errno) in [
        (inet([10, 0, 0, 1], 99), Errno::EADDRNOTAVAIL),
        (inet([224, 0, 0, 1], 99), Errno::EADDRNOTAVAIL),
        (inet(LOOPBACK, 0), Errno::EADDRNOTAVAIL),
        (inet([127, 0, 0, 2], 99), Errno::EHOSTUNREACH),
        (inet(LOOPBACK, 99)[..15].to_vec(), Errno::EINVAL),
        (inet6(1, 99), Errno::EAFNOSUPPORT),
        (vec![0, 2], Errno::EINVAL),
    ] {
        assert_eq!(connect(&guest, tcp(), &to), Err(errno), "{to:?}");
    }
    for (addr, errno) in [
        (0, Errno::EHOSTUNREACH),
        (2, Errno::EHOSTUNREACH),
        (0xffff_7f00_0001, Errno::EINVAL),
        (0xff02 << 112 | 1, Errno::EADDRNOTAVAIL),
        (0x2001_0db8 << 96 | 1, Errno::EHOSTUNREACH),
    ] {
        let fd = socket(&guest, 24, 1, 0).unwrap();
        assert_eq!(connect(&guest, fd, &inet6(addr, 99)), Err(errno), "{addr:x}");
    }
    assert_eq!(guest.fails(98, &[fd, NOWHERE, 16]), Errno::EFAULT);
    assert_eq!(connect(&guest, 77, &inet(LOOPBACK, 99)), Err(Errno::EBADF));
    assert_eq!(connect(&guest, 1, &inet(LOOPBACK, 99)), Err(Errno::ENOTSOCK));
}

#[test]
fn a_tcp_socket_may_meet_itself() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let fd = socket(&guest, 2, 1, 0).unwrap();
    let at = inet([127, 0, 0, 1], 80);
    bind(&guest, fd, &at).unwrap();
    connect(&guest, fd, &at).unwrap();
    assert_eq!(peer(&guest, fd).unwrap(), name(&guest, fd));
    assert_eq!(guest.write(fd, b"to myself"), Ok(9));
    assert_eq!(guest.read(fd, 100).unwrap(), b"to myself");
    assert_eq!(connect(&guest, fd, &at), Err(Errno::EISCONN));
    guest.call(134, &[fd, 1]).unwrap();
    assert_eq!(guest.read(fd, 100).unwrap(), b"");
    guest.close(fd).unwrap();
    let usage = kernel.usage();
    assert_eq!((usage.ports, usage.bytes), (0, 0));
}

#[test]
fn connections_that_were_made_keep_nobody_from_their_port() {
    let guest = Guest::new(&kernel());
    let (client, server) = connected(&guest, 2);
    let again = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, again, &inet([0; 4], 4000)), Ok(0));
    // The port of the client, which it was given, is taken.
    let port = u16::from_be_bytes(name(&guest, client)[2..4].try_into().unwrap());
    let other = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, other, &inet([0; 4], port)), Err(Errno::EADDRINUSE));
    guest.write(server, b"on").unwrap();
    assert_eq!(guest.read(client, 10).unwrap(), b"on");
}

#[test]
fn paths_lead_to_sockets_of_the_same_kind() {
    let guest = Guest::new(&kernel());
    let stream = || socket(&guest, 1, 1, 0).unwrap();
    let head = stream();
    bind(&guest, head, &local("/tmp/s")).unwrap();
    assert_eq!(connect(&guest, stream(), &local("/tmp/s")), Err(Errno::ECONNREFUSED));
    guest.call(106, &[head, 5]).unwrap();
    for (kind, path, errno) in [
        (2, "/tmp/s", Errno::EPROTOTYPE),
        (5, "/tmp/s", Errno::EPROTOTYPE),
        (1, "/none", Errno::ENOENT),
        (1, "/tmp/none/s", Errno::ENOENT),
        (1, "/tmp", Errno::ENOTSOCK),
        (1, "\0", Errno::ENOENT),
        (1, "", Errno::EINVAL),
    ] {
        let fd = socket(&guest, 1, kind, 0).unwrap();
        assert_eq!(connect(&guest, fd, &local(path)), Err(errno), "{path}");
    }
    assert_eq!(connect(&guest, stream(), &local("/tmp/s")), Ok(0));
    guest.close(head).unwrap();
    assert_eq!(connect(&guest, stream(), &local("/tmp/s")), Err(Errno::ECONNREFUSED));
    guest.call(10, &[guest.string("/tmp/s")]).unwrap();
    assert_eq!(connect(&guest, stream(), &local("/tmp/s")), Err(Errno::ENOENT));
}

#[test]
fn who_is_at_the_other_end_is_known() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let head = listen(&guest, 1, &local("/tmp/s"), 5);
    assert_eq!(
        guest.fails(118, &[head, 0, 3, guest.buffer(), guest.place(&[12, 0, 0, 0])]),
        Errno::EINVAL
    );
    let client = socket(&other, 1, 1, 0).unwrap();
    connect(&other, client, &local("/tmp/s")).unwrap();
    let server = accept(&guest, head).unwrap();
    let pid = |guest: &Guest| guest.process.pid().to_le_bytes();
    assert_eq!(get(&other, client, 0, 3).unwrap()[..4], pid(&guest));
    assert_eq!(get(&guest, server, 0, 3).unwrap()[..4], pid(&other));
}

#[test]
fn a_full_backlog_refuses_or_keeps_waiting() {
    // Local: half as many again, and one.
    for (backlog, most) in [(-1, 1), (0, 1), (1, 2), (2, 4), (3, 5), (1000, 193)] {
        let guest = Guest::new(&kernel());
        let _head = listen(&guest, 1, &local("/tmp/s"), backlog);
        let mut made = 0;
        let refused = loop {
            let fd = socket(&guest, 1, 1, 0).unwrap();
            match connect(&guest, fd, &local("/tmp/s")) {
                Ok(_) => made += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!((made, refused), (most, Errno::ECONNREFUSED), "{backlog}");
    }
    // TCP: one more than asked for, then clients wait for room.
    let kernel = kernel();
    let (guest, proc) = seen(&kernel);
    let head = listen(&guest, 2, &inet(LOOPBACK, 80), 1);
    for _ in 0..2 {
        let fd = socket(&guest, 2, 1, 0).unwrap();
        assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 80)), Ok(0));
    }
    let waits = socket(&guest, 2, 1, 0).unwrap();
    let to = guest.place(&inet(LOOPBACK, 80));
    let mut pending = guest.start(98, &[waits, to, 16]);
    assert_eq!(pending.run(), None);
    assert_eq!(guest.fails(98, &[waits, to, 16]), Errno::EALREADY);
    let later = socket(&guest, 2, 1, 0).unwrap();
    blocking(&guest, later, false);
    assert_eq!(guest.fails(98, &[later, to, 16]), Errno::EINPROGRESS);
    assert_eq!(guest.fails(98, &[later, to, 16]), Errno::EALREADY);
    assert_eq!((poll(&proc, later), guest.write(later, b"x")), (0, Err(Errno::ENOTCONN)));
    let gone = socket(&guest, 2, 1, 0x0).unwrap();
    blocking(&guest, gone, false);
    assert_eq!(guest.fails(98, &[gone, to, 16]), Errno::EINPROGRESS);
    guest.close(gone).unwrap();
    accept(&guest, head).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([0, 0])));
    assert_eq!(poll(&proc, later), 0);
    accept(&guest, head).unwrap();
    assert_eq!(poll(&proc, later), 4);
    assert_eq!(guest.write(later, b"x"), Ok(1));
    // When the listener is closed, connections in its queue are reset, and waiting ones are refused.
    let waits = socket(&guest, 2, 1, 0).unwrap();
    let mut pending = guest.start(98, &[waits, to, 16]);
    assert_eq!(pending.run(), None);
    guest.close(head).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::ECONNREFUSED)));
    assert_eq!(guest.read(later, 1), Err(Errno::ECONNRESET));
    guest.process.release();
    let usage = kernel.usage();
    assert_eq!((usage.files, usage.ports, usage.bytes), (0, 0, 0));
}

const OOB: u64 = 1;
const SIGURG: i32 = 16;

/// Receives with these flags.
fn take(guest: &Guest, fd: u64, len: u64, flags: u64) -> Result<Vec<u8>, Errno> {
    let into = guest.buffer() + 4096;
    let count = guest.call(29, &[fd, into, len, flags, 0, 0])?;
    Ok(guest.get(into, count as usize))
}

fn oob(guest: &Guest, fd: u64, bytes: &[u8]) -> Result<i64, Errno> {
    guest.call(133, &[fd, guest.place(bytes), bytes.len() as u64, OOB, 0, 0])
}

fn at_mark(guest: &Guest, fd: u64) -> bool {
    guest.call(54, &[fd, 0x4004_7307, guest.buffer()]).unwrap();
    guest.get(guest.buffer(), 4) == [1, 0, 0, 0]
}

#[test]
fn urgent_bytes_go_past_the_others_and_leave_a_mark() {
    let (guest, proc) = seen(&kernel());
    let (one, two) = connected(&guest, 2);
    assert_eq!(take(&guest, two, 3, OOB), Err(Errno::EINVAL));
    // The owner gets SIGURG, and a poll for POLLPRI wakes.
    guest.call(92, &[two, 6, proc.pid as u64]).unwrap();
    let set = guest.place(&[[two as u32, 2].map(u32::to_le_bytes).concat(), vec![0; 8]].concat());
    let mut pending = guest.start(209, &[set, 1, u64::MAX]);
    assert_eq!(pending.run(), None);
    assert_eq!(oob(&guest, one, b"abcX"), Ok(4));
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    assert_eq!(guest.signals.taken(), [SIGURG]);
    guest.write(one, b"def").unwrap();
    assert_eq!(poll(&proc, two), 0x45 | 0x2 | 0x80);
    // The byte is not among the others, and a read ends at the mark.
    assert_eq!(take(&guest, two, 10, 2).unwrap(), b"abc");
    assert_eq!(take(&guest, two, 2, 0).unwrap(), b"ab");
    assert!(!at_mark(&guest, two));
    assert_eq!(take(&guest, two, 4, 0x40).unwrap(), b"c");
    assert!(at_mark(&guest, two));
    assert_eq!(take(&guest, two, 10, OOB | 2).unwrap(), b"X");
    assert_eq!(take(&guest, two, 10, OOB).unwrap(), b"X");
    assert_eq!(take(&guest, two, 10, OOB), Err(Errno::EINVAL), "once");
    assert_eq!(take(&guest, two, 10, 0).unwrap(), b"def");
    assert!(!at_mark(&guest, two));
    assert_eq!(poll(&proc, two), 0x4);
    assert_eq!(take(&guest, two, 10, OOB), Err(Errno::EINVAL));
    // Alone, it does not count as a byte to read; the next one takes its place.
    oob(&guest, one, b"Y").unwrap();
    assert!(at_mark(&guest, two));
    assert_eq!(take(&guest, two, 10, 0x80), Err(Errno::EAGAIN));
    oob(&guest, one, b"12").unwrap();
    assert_eq!(take(&guest, two, 10, OOB).unwrap(), b"2");
    assert_eq!(take(&guest, two, 10, 0).unwrap(), b"1");
    assert_eq!(guest.signals.taken(), [SIGURG; 2]);
    // A group as owner, and no owner.
    guest.call(54, &[two, 0x8004_7308, guest.place(&(-1i32).to_le_bytes())]).unwrap_err();
    guest.call(54, &[two, 0x8004_7308, guest.place(&[0; 4])]).unwrap();
    oob(&guest, one, b"Z").unwrap();
    assert_eq!(guest.signals.taken(), []);
    // Out-of-band data fails on a socket without a connection, and on a local one.
    let three = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(oob(&guest, three, b"x"), Err(Errno::ENOTCONN));
    let (one, _two) = pair(&guest, 1);
    assert_eq!(oob(&guest, one, b"x"), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_signal_for_an_owner_that_has_ended_reaches_nobody_by_its_number() {
    let kernel = kernel_with(Limits { processes: 10, ..Limits::default() });
    let (guest, _) = seen(&kernel);
    let (one, two) = connected(&guest, 2);
    let (owner, proc) = seen(&kernel);
    let pid = proc.pid;
    guest.call(92, &[two, 6, pid as u64]).unwrap();
    oob(&guest, one, b"a").unwrap();
    assert_eq!(owner.signals.taken(), [SIGURG]);
    owner.process.release();
    drop((owner, proc));
    // All pids are given out once before this one is used again.
    let newcomer = (0..100_000).find_map(|_| {
        let (newcomer, proc) = seen(&kernel);
        if proc.pid == pid {
            return Some(newcomer);
        }
        newcomer.process.release();
        None
    });
    let newcomer = newcomer.expect("numbers are used again");
    oob(&guest, one, b"b").unwrap();
    assert_eq!(newcomer.signals.taken(), []);
    // The file still returns its former owner.
    assert_eq!(guest.call(92, &[two, 5, 0]), Ok(pid.into()));
}

#[test]
fn urgent_bytes_may_stay_in_line() {
    let (guest, proc) = seen(&kernel());
    let (one, two) = connected(&guest, 24);
    set(&guest, two, SOL_SOCKET, 0x100, &1u32.to_le_bytes()).unwrap();
    oob(&guest, one, b"abcX").unwrap();
    guest.write(one, b"def").unwrap();
    assert_eq!(poll(&proc, two), 0x45 | 0x2 | 0x80);
    assert_eq!(take(&guest, two, 10, OOB), Err(Errno::EINVAL));
    assert_eq!(guest.read(two, 10).unwrap(), b"abc");
    assert!(at_mark(&guest, two));
    assert_eq!(guest.read(two, 10).unwrap(), b"Xdef");
    assert!(!at_mark(&guest, two));
}

#[test]
fn urgent_bytes_go_where_no_others_do() {
    let guest = Guest::new(&kernel());
    let (one, two) = connected(&guest, 2);
    blocking(&guest, one, false);
    assert_eq!(guest.write(one, &vec![7; TCP_ROOM]), Ok(TCP_ROOM as i64));
    assert_eq!(guest.write(one, b"x"), Err(Errno::EAGAIN));
    assert_eq!(oob(&guest, one, b"!"), Ok(1));
    assert_eq!(take(&guest, two, 1, OOB).unwrap(), b"!");
    // Only so many bytes may exceed the limit.
    assert_eq!(oob(&guest, one, &[8; 1025]), Err(Errno::EAGAIN));
    assert_eq!(take(&guest, two, 1, OOB), Err(Errno::EINVAL), "it was not sent");
    assert_eq!(oob(&guest, one, &[8; 1024]), Ok(1024));
    assert_eq!(take(&guest, two, 1, OOB).unwrap(), [8]);
    assert_eq!(oob(&guest, one, b"no"), Err(Errno::EAGAIN));
}

#[test]
fn a_connection_is_not_lost_where_no_file_can_be_opened() {
    let kernel = kernel_with(Limits { files: 7, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let head = listen(&guest, 2, &inet(LOOPBACK, 80), 5);
    let client = socket(&guest, 2, 1, 0).unwrap();
    connect(&guest, client, &inet(LOOPBACK, 80)).unwrap();
    let mut others = Vec::new();
    while let Ok(fd) = guest.open("/dev/null", o::RDONLY) {
        others.push(fd);
    }
    assert_eq!(accept(&guest, head), Err(Errno::ENFILE));
    // That error comes before all others.
    assert_eq!(accept(&guest, client), Err(Errno::ENFILE));
    guest.close(others.pop().expect("a file more")).unwrap();
    assert_eq!(accept(&guest, client), Err(Errno::EINVAL));
    let server = accept(&guest, head).unwrap();
    guest.write(client, b"here").unwrap();
    assert_eq!(guest.read(server, 10).unwrap(), b"here");
    guest.process.release();
    assert_eq!(kernel.usage().files, 0);
}

/// Makes a listener without room.
fn full(guest: &Guest, port: u16) -> u64 {
    let head = listen(guest, 2, &inet(LOOPBACK, port), 0);
    let first = socket(guest, 2, 1, 0).unwrap();
    assert_eq!(connect(guest, first, &inet(LOOPBACK, port)), Ok(0));
    head
}

/// Makes a socket whose TCP_KEEPINIT is a second and a half.
fn hasty(guest: &Guest) -> u64 {
    let fd = socket(guest, 2, 1, 0).unwrap();
    set(guest, fd, 6, 7, &3u32.to_le_bytes()).unwrap();
    fd
}

#[test]
fn connecting_takes_only_so_long() {
    let kernel = kernel();
    let (guest, proc) = seen(&kernel);
    let head = full(&guest, 80);
    let to = guest.place(&inet(LOOPBACK, 80));
    let begun = Instant::now();
    let fd = hasty(&guest);
    let mut pending = guest.start(98, &[fd, to, 16]);
    assert_eq!(pending.run(), None);
    let other = hasty(&guest);
    blocking(&guest, other, false);
    assert_eq!(guest.fails(98, &[other, to, 16]), Errno::EINPROGRESS);
    assert_eq!((poll(&proc, other), error(&guest, other)), (0, 0));
    let patient = socket(&guest, 2, 1, 0).unwrap();
    let mut waits = guest.start(98, &[patient, to, 16]);
    assert_eq!(waits.run(), None);
    assert_eq!(kernel.system.timer_thread.len(), 3);
    assert_eq!(pending.wait(), Err(Errno::ETIMEDOUT));
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    while poll(&proc, other) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((poll(&proc, other), error(&guest, other), error(&guest, other)), (0x45, 60, 0));
    // The socket cannot be used again.
    for fd in [fd, other] {
        assert_eq!(guest.fails(98, &[fd, to, 16]), Errno::EINVAL);
        assert_eq!(guest.write(fd, b"x"), Err(Errno::EPIPE));
    }
    // The socket with more time is still there, and gets the place.
    assert_eq!(kernel.system.timer_thread.len(), 1);
    accept(&guest, head).unwrap();
    assert_eq!(waits.run(), Some(Ok([0, 0])));
    assert_eq!(kernel.system.timer_thread.len(), 0);
    accept(&guest, head).unwrap();
    assert_eq!(guest.call(92, &[head, 4, o::NONBLOCK]), Ok(0));
    assert_eq!(accept(&guest, head), Err(Errno::EAGAIN), "who is late is not accepted");
}

#[test]
fn who_waits_to_connect_may_be_interrupted_and_closed() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let head = full(&guest, 80);
    let to = guest.place(&inet(LOOPBACK, 80));
    let fd = hasty(&guest);
    let mut pending = guest.start(98, &[fd, to, 16]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Err(Errno::EINTR));
    // The socket goes on connecting.
    assert_eq!(guest.fails(98, &[fd, to, 16]), Errno::EALREADY);
    assert_eq!(kernel.system.timer_thread.len(), 1);
    guest.close(fd).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 0);
    // A new value of the option applies from now on.
    let fd = socket(&guest, 2, 1, 0).unwrap();
    let mut pending = guest.start(98, &[fd, to, 16]);
    assert_eq!(pending.run(), None);
    set(&guest, fd, 6, 7, &1u32.to_le_bytes()).unwrap();
    assert_eq!(kernel.system.timer_thread.len(), 1);
    assert_eq!(pending.wait(), Err(Errno::ETIMEDOUT));
    accept(&guest, head).unwrap();
    guest.process.release();
    assert_eq!((kernel.usage().ports, kernel.system.timer_thread.len()), (0, 0));
}

/// Connects from port 90 to port 80, and returns the client's end and the server's.
fn from_port(guest: &Guest) -> (u64, u64) {
    let head = listen(guest, 2, &inet(LOOPBACK, 80), 5);
    let client = socket(guest, 2, 1, 0).unwrap();
    bind(guest, client, &inet(LOOPBACK, 90)).unwrap();
    assert_eq!(connect(guest, client, &inet(LOOPBACK, 80)), Ok(0));
    let server = accept(guest, head).unwrap();
    guest.close(head).unwrap();
    (client, server)
}

/// Returns the result of binding a new socket to port 90.
fn port_90(guest: &Guest) -> Result<i64, Errno> {
    let fd = socket(guest, 2, 1, 0).unwrap();
    let bound = bind(guest, fd, &inet(LOOPBACK, 90));
    guest.close(fd).unwrap();
    bound
}

#[test]
fn who_ends_a_connection_first_keeps_its_port_for_a_while() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (client, server) = from_port(&guest);
    guest.close(client).unwrap();
    assert_eq!((port_90(&guest), kernel.usage().ports), (Err(Errno::EADDRINUSE), 1));
    guest.close(server).unwrap();
    let ended = Instant::now();
    assert_eq!(kernel.usage().ports, 0, "nobody has it");
    assert_eq!(port_90(&guest), Err(Errno::EADDRINUSE));
    // With SO_REUSEADDR another socket may be bound there, but not connected to the same end.
    let head = listen(&guest, 2, &inet(LOOPBACK, 80), 5);
    let again = socket(&guest, 2, 1, 0).unwrap();
    set(&guest, again, SOL_SOCKET, 4, &1u32.to_le_bytes()).unwrap();
    assert_eq!(bind(&guest, again, &inet(LOOPBACK, 90)), Ok(0));
    assert_eq!(connect(&guest, again, &inet(LOOPBACK, 80)), Err(Errno::EADDRINUSE));
    guest.close(again).unwrap();
    // Connections do not keep the server's port, nor that of a client whose server ended first.
    let (client, server) = (socket(&guest, 2, 1, 0).unwrap(), head);
    connect(&guest, client, &inet(LOOPBACK, 80)).unwrap();
    let chosen = u16::from_be_bytes(name(&guest, client)[2..4].try_into().unwrap());
    let accepted = accept(&guest, server).unwrap();
    guest.close(accepted).unwrap();
    guest.close(server).unwrap();
    guest.close(client).unwrap();
    for port in [80, chosen] {
        let fd = socket(&guest, 2, 1, 0).unwrap();
        assert_eq!(bind(&guest, fd, &inet([0; 4], port)), Ok(0), "{port}");
        guest.close(fd).unwrap();
    }
    thread::sleep((ended + Duration::from_secs(2)).saturating_duration_since(Instant::now()));
    assert_eq!(port_90(&guest), Ok(0));
    assert_eq!(kernel.system.net.ended(), 0);
}

#[test]
fn an_ended_connection_that_is_open_keeps_its_name_as_long() {
    let guest = Guest::new(&kernel());
    let (client, server) = from_port(&guest);
    guest.call(134, &[client, 1]).unwrap();
    guest.close(server).unwrap();
    assert_eq!(name(&guest, client)[..4], [16, 2, 0, 90]);
    assert_eq!(connect(&guest, client, &inet(LOOPBACK, 81)), Err(Errno::ECONNREFUSED));
    // The port moved to the other connection, and is free after that has failed.
    assert_eq!(port_90(&guest), Ok(0));
    let (client, server) = from_port(&guest);
    guest.call(134, &[client, 1]).unwrap();
    guest.close(server).unwrap();
    let head = listen(&guest, 2, &inet(LOOPBACK, 80), 5);
    assert_eq!(connect(&guest, client, &inet(LOOPBACK, 80)), Err(Errno::EADDRINUSE));
    guest.close(head).unwrap();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(guest.fails(32, &[client, guest.buffer(), guest.buffer() + 200]), Errno::EINVAL);
    assert_eq!(set(&guest, client, 6, 1, &[1, 0, 0, 0]), Err(Errno::ECONNRESET));
    assert_eq!(guest.fails(134, &[client, 2]), Errno::EINVAL);
    assert_eq!(port_90(&guest), Ok(0));
    // A reset frees the port at once.
    let (client, server) = from_port(&guest);
    guest.close(client).unwrap();
    assert_eq!(guest.write(server, b"x"), Ok(1));
    assert_eq!(port_90(&guest), Ok(0));
    guest.close(server).unwrap();
    let (client, server) = from_port(&guest);
    set(&guest, client, SOL_SOCKET, 0x80, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    guest.close(client).unwrap();
    assert_eq!(port_90(&guest), Ok(0));
    guest.close(server).unwrap();
    assert_eq!(port_90(&guest), Ok(0));
}

#[test]
fn ended_connections_are_so_many() {
    let mut guest = Guest::new(&kernel());
    guest.slow = false;
    let kernel = kernel();
    let guest = guest.beside(&kernel);
    let at = inet(LOOPBACK, 80);
    let head = listen(&guest, 2, &at, 5);
    let mut first = 0;
    for round in 0..5000 {
        let client = socket(&guest, 2, 1, 0).unwrap();
        assert_eq!(connect(&guest, client, &at), Ok(0), "{round}");
        if round == 0 {
            first = u16::from_be_bytes(name(&guest, client)[2..4].try_into().unwrap());
        }
        let server = accept(&guest, head).unwrap();
        guest.close(client).unwrap();
        guest.close(server).unwrap();
        assert!(kernel.system.net.ended() <= 4096);
    }
    // The port of the first client was given back early, or its time is over.
    let fd = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, fd, &inet(LOOPBACK, first)), Ok(0));
    assert_eq!(kernel.usage().ports, 2);
}

#[test]
fn an_address_that_led_nowhere_leaves_no_port_behind() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let _head = listen(&guest, 2, &inet(LOOPBACK, 80), 5);
    let fd = socket(&guest, 2, 1, 0).unwrap();
    for last in 2..5 {
        let to = inet([127, 0, 0, last], 80);
        assert_eq!(connect(&guest, fd, &to), Err(Errno::EHOSTUNREACH));
    }
    assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 80)), Ok(0));
    guest.close(fd).unwrap();
    guest.process.release();
    assert_eq!(kernel.usage().ports, 0);
}

/// Makes an IPv6 socket that takes IPv4 too.
fn dual(guest: &Guest, kind: u64) -> u64 {
    let fd = socket(guest, 24, kind, 0).unwrap();
    set(guest, fd, 41, 27, &0u32.to_le_bytes()).unwrap();
    fd
}

/// Returns the name `::ffff:a.b.c.d`.
fn in_six(addr: [u8; 4], port: u16) -> Vec<u8> {
    inet6(0xffff_0000_0000 | u128::from(u32::from_be_bytes(addr)), port)
}

/// Returns a name as the kernel does: with its length.
fn told(mut name: Vec<u8>) -> Vec<u8> {
    name[0] = name.len() as u8;
    name
}

#[test]
fn an_ipv6_listener_may_take_ipv4_connections() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let head = dual(&guest, 1);
    bind(&guest, head, &inet6(0, 80)).unwrap();
    assert_eq!(set(&guest, head, 41, 27, &1u32.to_le_bytes()), Err(Errno::EINVAL), "too late");
    guest.call(106, &[head, 5]).unwrap();
    let client = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(connect(&guest, client, &inet(LOOPBACK, 80)), Ok(0));
    let port = u16::from_be_bytes(name(&guest, client)[2..4].try_into().unwrap());
    let server = accept(&guest, head).unwrap();
    assert_eq!(name(&guest, server), told(in_six(LOOPBACK, 80)));
    assert_eq!(peer(&guest, server).unwrap(), told(in_six(LOOPBACK, port)));
    assert_eq!(peer(&guest, client).unwrap()[..8], told(inet(LOOPBACK, 80))[..8]);
    guest.write(client, b"four").unwrap();
    assert_eq!(guest.read(server, 10).unwrap(), b"four");
    // IPv6 connections come as before; an IPv4 listener gets its own before others.
    let six = socket(&guest, 24, 1, 0).unwrap();
    assert_eq!(connect(&guest, six, &inet6(1, 80)), Ok(0));
    let server = accept(&guest, head).unwrap();
    assert_eq!(name(&guest, server), told(inet6(1, 80)));
    let four = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, four, &inet(LOOPBACK, 80)), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&guest, four, &inet([0; 4], 80)), Err(Errno::EADDRINUSE));
    set(&guest, four, SOL_SOCKET, 4, &1u32.to_le_bytes()).unwrap();
    assert_eq!(bind(&guest, four, &inet(LOOPBACK, 80)), Ok(0));
    guest.call(106, &[four, 5]).unwrap();
    let client = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(connect(&guest, client, &inet(LOOPBACK, 80)), Ok(0));
    blocking(&guest, head, false);
    assert_eq!(accept(&guest, head), Err(Errno::EAGAIN));
    assert!(accept(&guest, four).is_ok());
    // Without that option, the listener takes no IPv4.
    let only = listen(&guest, 24, &inet6(0, 81), 5);
    let client = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(connect(&guest, client, &inet(LOOPBACK, 81)), Err(Errno::ECONNREFUSED));
    let four = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, four, &inet([0; 4], 81)), Ok(0));
    guest.close(only).unwrap();
    guest.process.release();
    assert_eq!(kernel.usage().ports, 0);
}

#[test]
fn ipv6_sockets_have_ipv4_addresses_if_they_take_them() {
    let guest = Guest::new(&kernel());
    let only = socket(&guest, 24, 1, 0).unwrap();
    assert_eq!(bind(&guest, only, &in_six(LOOPBACK, 80)), Err(Errno::EINVAL));
    let head = dual(&guest, 1);
    assert_eq!(bind(&guest, head, &in_six([8, 8, 8, 8], 80)), Err(Errno::EADDRNOTAVAIL));
    assert_eq!(bind(&guest, head, &in_six(LOOPBACK, 80)), Ok(0));
    let four = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, four, &inet(LOOPBACK, 80)), Err(Errno::EADDRINUSE));
    guest.call(106, &[head, 5]).unwrap();
    assert_eq!(connect(&guest, only, &in_six(LOOPBACK, 80)), Err(Errno::EINVAL));
    assert_eq!(connect(&guest, only, &inet6(1, 80)), Err(Errno::ECONNREFUSED));
    // An IPv6 client connects to an IPv4 address.
    let client = dual(&guest, 1);
    for (addr, errno) in [
        ([0; 4], Errno::EADDRNOTAVAIL),
        ([8, 8, 8, 8], Errno::EADDRNOTAVAIL),
        ([224, 0, 0, 1], Errno::EADDRNOTAVAIL),
        ([127, 0, 0, 2], Errno::EHOSTUNREACH),
    ] {
        assert_eq!(connect(&guest, client, &in_six(addr, 80)), Err(errno), "{addr:?}");
    }
    assert_eq!(connect(&guest, client, &inet6(1, 80)), Err(Errno::EINVAL), "it is in there now");
    assert_eq!(connect(&guest, client, &in_six(LOOPBACK, 80)), Ok(0));
    assert_eq!(peer(&guest, client).unwrap(), told(in_six(LOOPBACK, 80)));
    let server = accept(&guest, head).unwrap();
    assert_eq!(peer(&guest, server).unwrap(), name(&guest, client));
    // A socket with an IPv6 address cannot.
    let client = dual(&guest, 1);
    bind(&guest, client, &inet6(1, 90)).unwrap();
    assert_eq!(connect(&guest, client, &in_six(LOOPBACK, 80)), Err(Errno::EINVAL));
    // An IPv4 listener sees an IPv4 client.
    let four = listen(&guest, 2, &inet(LOOPBACK, 81), 5);
    let client = dual(&guest, 1);
    assert_eq!(connect(&guest, client, &in_six(LOOPBACK, 81)), Ok(0));
    let server = accept(&guest, four).unwrap();
    assert_eq!(peer(&guest, server).unwrap()[..2], [16, 2]);
    assert_eq!(peer(&guest, server).unwrap()[4..8], LOOPBACK);
    assert_eq!(name(&guest, server)[..8], told(inet(LOOPBACK, 81))[..8]);
}

#[test]
fn a_listener_without_room_for_buffers_takes_no_connections() {
    let kernel = kernel();
    // A peer that has shut down receiving: TCP has acknowledged already, and resets.
    for (domain, at, errno) in
        [(1, local("/tmp/head"), Errno::ECONNREFUSED), (2, inet(LOOPBACK, 80), Errno::ECONNRESET)]
    {
        let guest = Guest::new(&kernel);
        let head = listen(&guest, domain, &at, 5);
        guest.call(134, &[head, 0]).unwrap();
        let client = socket(&guest, domain, 1, 0).unwrap();
        assert_eq!(connect(&guest, client, &at), Err(errno));
        assert_eq!(accept(&guest, head), Err(Errno::ECONNABORTED));
        let client = socket(&guest, domain, 1, 0).unwrap();
        blocking(&guest, client, false);
        let later = if domain == 2 { Errno::EINPROGRESS } else { errno };
        assert_eq!(connect(&guest, client, &at), Err(later));
        assert_eq!(error(&guest, client), if domain == 2 { 54 } else { 0 });
    }
    // For a local socket the limit is the connecting client's, the count the listening user's.
    let guest = Guest::new(&kernel);
    let head = listen(&guest, 1, &local("/tmp/other"), 5);
    set(&guest, head, SOL_SOCKET, 0x1001, &100u32.to_le_bytes()).unwrap();
    let client = socket(&guest, 1, 1, 0).unwrap();
    let now = kernel.system.net.reserved(0);
    let limit = |bytes: u64| {
        guest.call(195, &[9, guest.place(&[bytes.to_le_bytes(); 2].concat())]).unwrap();
    };
    limit(now + 2560 + 4095);
    assert_eq!(connect(&guest, client, &local("/tmp/other")), Err(Errno::ECONNREFUSED));
    limit(now + 2560 + 4096);
    assert_eq!(connect(&guest, client, &local("/tmp/other")), Ok(0));
    let server = accept(&guest, head).unwrap();
    // No send buffer is made smaller than this.
    assert_eq!(get(&guest, server, SOL_SOCKET, 0x1001).unwrap(), 2560u32.to_le_bytes());
    guest.write(client, b"unread").unwrap();
    for fd in [server, client, head] {
        guest.close(fd).unwrap();
    }
    assert_eq!(kernel.system.net.reserved(0), 0);
}

#[test]
fn a_client_may_be_gone_before_it_is_accepted() {
    let guest = Guest::new(&kernel());
    for (domain, at) in [(1, local("/tmp/head")), (2, inet(LOOPBACK, 80))] {
        let head = listen(&guest, domain, &at, 5);
        let client = socket(&guest, domain, 1, 0).unwrap();
        connect(&guest, client, &at).unwrap();
        guest.write(client, b"abc").unwrap();
        guest.close(client).unwrap();
        let server = accept(&guest, head).unwrap();
        assert_eq!(guest.read(server, 9).unwrap(), b"abc");
        assert_eq!(guest.read(server, 9).unwrap(), b"");
        // After a reset, there is nothing to accept.
        let client = socket(&guest, domain, 1, 0).unwrap();
        connect(&guest, client, &at).unwrap();
        set(&guest, client, SOL_SOCKET, 0x80, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        guest.close(client).unwrap();
        let accepted = accept(&guest, head);
        assert_eq!(accepted.is_ok(), domain == 1);
        assert_eq!(accepted.err().unwrap_or(Errno::ECONNABORTED), Errno::ECONNABORTED);
    }
    // Once the listener is closed, so is the connection.
    let head = listen(&guest, 1, &local("/tmp/gone"), 5);
    let client = socket(&guest, 1, 1, 0).unwrap();
    connect(&guest, client, &local("/tmp/gone")).unwrap();
    guest.write(client, b"abc").unwrap();
    guest.close(head).unwrap();
    assert_eq!(guest.read(client, 1).unwrap(), b"");
    assert_eq!(guest.write(client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn connwait_waits_to_be_accepted() {
    let (guest, proc) = seen(&kernel());
    let head = listen(&guest, 1, &local("/tmp/s"), 5);
    let client = socket(&guest, 1, 1, 0).unwrap();
    set(&guest, client, 0, 2, &1u32.to_le_bytes()).unwrap();
    let to = local("/tmp/s");
    let mut pending = guest.start(98, &[client, guest.place(&to), to.len() as u64]);
    assert_eq!(pending.run(), None);
    assert_eq!((poll(&proc, client), guest.write(client, b"x")), (0, Err(Errno::ENOTCONN)));
    accept(&guest, head).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([0, 0])));
    assert_eq!(guest.write(client, b"x"), Ok(1));
    let other = socket(&guest, 1, 1, 0).unwrap();
    set(&guest, other, 0, 2, &1u32.to_le_bytes()).unwrap();
    blocking(&guest, other, false);
    assert_eq!(connect(&guest, other, &to), Err(Errno::EINPROGRESS));
    assert_eq!(connect(&guest, other, &to), Err(Errno::EALREADY));
}

#[test]
fn unconnected_streams_carry_nothing() {
    let guest = Guest::new(&kernel());
    for domain in [1, 2, 24] {
        let fd = socket(&guest, domain, 1, 0).unwrap();
        assert_eq!(guest.read(fd, 1), Err(Errno::ENOTCONN));
        assert_eq!(guest.read(fd, 0), Err(Errno::ENOTCONN));
        assert_eq!(guest.write(fd, b"x"), Err(Errno::ENOTCONN));
        assert_eq!(guest.write(fd, b""), Err(Errno::ENOTCONN));
        assert_eq!(peer(&guest, fd), Err(Errno::ENOTCONN));
    }
}

#[test]
fn a_descriptor_closed_under_a_call_ends_it() {
    let guest = Guest::new(&kernel());
    let (one, _two) = pair(&guest, 1);
    let mut pending = guest.start(3, &[one, guest.buffer(), 100]);
    assert_eq!(pending.run(), None);
    guest.close(one).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Err(Errno::EBADF)));
}

#[test]
fn many_threads_send_in_order() {
    for domain in [1, 2] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let (one, two) = connected(&guest, domain);
        let (reader, writer) = (guest.fork(), guest.fork());
        let total = 400_000usize;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut at = 0;
                while at < total {
                    let len = (at % 7919 + 1).min(total - at);
                    let data: Vec<u8> = (at..at + len).map(|i| (i % 251) as u8).collect();
                    assert_eq!(writer.write(one, &data), Ok(len as i64));
                    at += len;
                }
                writer.process.release();
            });
            scope.spawn(|| {
                let mut at = 0;
                guest.close(one).unwrap();
                loop {
                    let part = reader.read(two, at % 5003 + 1).unwrap();
                    if part.is_empty() || at + part.len() == total {
                        at += part.len();
                        break;
                    }
                    for byte in part {
                        assert_eq!(byte, (at % 251) as u8);
                        at += 1;
                    }
                }
                assert_eq!(at, total);
            });
        });
    }
}

#[test]
fn many_clients_connect_at_once() {
    let internet = |backlog| (2, inet(LOOPBACK, 80), backlog);
    // A local listener without room refuses clients, so it has some; a TCP listener makes them wait.
    for (domain, at, backlog) in [(1, local("/tmp/head"), 5), internet(3), internet(0)] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let head = listen(&guest, domain, &at, backlog);
        thread::scope(|scope| {
            for _ in 0..4 {
                let client = Guest::new(&kernel);
                let at = &at;
                scope.spawn(move || {
                    for i in 0..50u8 {
                        let fd = socket(&client, domain, 1, 0).unwrap();
                        assert_eq!(connect(&client, fd, at), Ok(0));
                        assert_eq!(client.write(fd, &[i]), Ok(1));
                        assert_eq!(client.read(fd, 10).unwrap(), [i]);
                        client.close(fd).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let fd = accept(&guest, head).unwrap();
                let byte = guest.read(fd, 10).unwrap();
                assert_eq!(guest.write(fd, &byte), Ok(1));
                guest.close(fd).unwrap();
            }
        });
        guest.process.release();
        assert_eq!(kernel.usage().ports, 0);
    }
}

#[test]
fn clients_that_hang_up_while_they_connect_leave_nothing() {
    for (domain, at) in [(1, local("/tmp/head")), (2, inet(LOOPBACK, 80)), (24, inet6(1, 80))] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let head = listen(&guest, domain, &at, 0);
        blocking(&guest, head, false);
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for step in 1..4 {
                let client = Guest::new(&kernel);
                let (at, done) = (&at, &done);
                scope.spawn(move || {
                    for round in 0..150 {
                        let fd = socket(&client, domain, 1, 0).unwrap();
                        blocking(&client, fd, false);
                        let waits = client.fork();
                        let _ = connect(&client, fd, at);
                        // Two processes have the descriptor, and close it at about the same time.
                        let close = |guest: &Guest| guest.close(fd).is_ok();
                        thread::scope(|two| {
                            two.spawn(|| close(&waits));
                            if round % step == 0 {
                                let _ = client.write(fd, b"x");
                            }
                            close(&client);
                        });
                        waits.process.release();
                    }
                    client.process.release();
                    done.fetch_add(1, Relaxed);
                });
            }
            let mut more = true;
            while more {
                more = done.load(Relaxed) < 3;
                while let Ok(fd) = accept(&guest, head) {
                    // Read what the client has sent, or its end: no call waits for ever.
                    blocking(&guest, fd, true);
                    let _ = guest.read(fd, 10);
                    guest.close(fd).unwrap();
                }
            }
        });
        guest.process.release();
        let usage = kernel.usage();
        assert_eq!((usage.files, usage.ports, usage.bytes), (0, 0, 0), "{domain}");
        assert_eq!(
            (kernel.system.timer_thread.len(), kernel.system.net.reserved(0)),
            (0, 0),
            "{domain}"
        );
    }
}

#[test]
fn a_socket_costs_what_it_says_and_gives_it_back() {
    let limits = Limits { bytes_per_family: 20_000, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    blocking(&guest, one, false);
    set(&guest, one, SOL_SOCKET, 0x1001, &100_000u32.to_le_bytes()).unwrap();
    // Four steps of 4096 in addition to the spare bytes of both.
    assert_eq!(guest.write(one, &[1; 60_000]), Ok(1024 + 4 * 4096));
    assert_eq!(kernel.usage().bytes, 2 * 1024 + 4 * 4096);
    assert_eq!(guest.write(one, b"x"), Err(Errno::EAGAIN));
    while socket(&guest, 1, 1, 0).is_ok() {}
    assert_eq!(socket(&guest, 1, 1, 0), Err(Errno::ENOBUFS));
    let mut got = 0;
    while got < 17_408 {
        got += guest.read(two, 1000).unwrap().len();
    }
    guest.process.release();
    let usage = kernel.usage();
    assert_eq!((usage.bytes, usage.files), (0, 0));
}

#[test]
fn a_socket_is_small() {
    // The sockets of 15,000 clients with four each fit into 24 MiB; their contents are paid for.
    let size = size_of::<super::super::sockets::Socket>();
    assert!(size <= 416, "{size} bytes");
}
