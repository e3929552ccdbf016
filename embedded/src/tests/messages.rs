use std::thread;

use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use super::super::{Embedded, Limits};
use super::sockets::{SOL_SOCKET, bind, inet, set, socket};
use super::streams::{blocking, connect, listen, local, pair};
use kernel::Errno;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const EOR: u32 = 0x8;
const TRUNC: u32 = 0x10;
const CTRUNC: u32 = 0x20;

/// The results of a recvmsg.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got {
    data: Vec<u8>,
    control: Vec<u8>,
    flags: u32,
    name_len: u32,
}

/// Encodes a `struct msghdr`, and the `struct iovec` it points to.
fn header(guest: &Guest, data: (u64, usize), control: (u64, usize)) -> Vec<u8> {
    let iovec = guest.place(&[data.0.to_le_bytes(), (data.1 as u64).to_le_bytes()].concat());
    let mut header = vec![0; 48];
    header[16..24].copy_from_slice(&iovec.to_le_bytes());
    header[24] = 1;
    header[32..40].copy_from_slice(&control.0.to_le_bytes());
    header[40..44].copy_from_slice(&(control.1 as u32).to_le_bytes());
    header
}

pub(super) fn send(
    guest: &Guest,
    fd: u64,
    data: &[u8],
    control: &[u8],
    flags: u64,
) -> Result<i64, Errno> {
    let data = (guest.place(data), data.len());
    let control = (if control.is_empty() { 0 } else { guest.place(control) }, control.len());
    let header = header(guest, data, control);
    guest.call(28, &[fd, guest.place(&header), flags])
}

pub(super) fn receive(
    guest: &Guest,
    fd: u64,
    len: usize,
    room: usize,
    flags: u64,
) -> Result<Got, Errno> {
    let (data, control) = (guest.buffer(), guest.buffer() + 100_000);
    let mut header = header(guest, (data, len), (if room == 0 { 0 } else { control }, room));
    header[..8].copy_from_slice(&(guest.buffer() + 200_000).to_le_bytes());
    header[8] = 100;
    let at = guest.place(&header);
    let count = guest.call(27, &[fd, at, flags])? as usize;
    let word = |from| u32::from_le_bytes(guest.get(at + from, 4).try_into().unwrap());
    let got = if room == 0 { 0 } else { word(40) as usize };
    Ok(Got {
        data: guest.get(data, count),
        control: guest.get(control, got),
        flags: word(44),
        name_len: word(8),
    })
}

pub(super) fn rights(fds: &[u64]) -> Vec<u8> {
    let len = 16 + 4 * fds.len() as u32;
    let mut control = [len, 0xffff, 1, 0].map(u32::to_le_bytes).concat();
    control.extend(fds.iter().flat_map(|&fd| (fd as u32).to_le_bytes()));
    control
}

/// Returns the descriptor in a control message.
pub(super) fn passed(got: &Got) -> u64 {
    assert_eq!(got.control.len(), 24);
    assert_eq!(got.control[..12], [20, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0]);
    got.control[16].into()
}

fn files(kernel: &Embedded) -> u64 {
    kernel.usage().files
}

#[test]
fn files_go_from_one_process_to_another() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let head = listen(&guest, 1, &local("/tmp/s"), 5);
    let client = socket(&other, 1, 1, 0).unwrap();
    connect(&other, client, &local("/tmp/s")).unwrap();
    let server = guest.call(30, &[head, 0, 0]).unwrap() as u64;
    let file = guest.open("/tmp/file", o::RDWR | o::CREAT).unwrap();
    guest.write(file, b"contents").unwrap();
    guest.call(199, &[file, 0, 2, 0]).unwrap();
    assert_eq!(send(&guest, server, b"here", &rights(&[file]), 0), Ok(4));
    // Only the message keeps the file open.
    let before = files(&kernel);
    guest.close(file).unwrap();
    assert_eq!((files(&kernel), kernel.usage().flights), (before, 1));
    let got = receive(&other, client, 100, 100, 0).unwrap();
    assert_eq!((&got.data[..], got.flags, got.name_len), (&b"here"[..], 0, 0));
    let fd = passed(&got);
    // The offset is shared.
    assert_eq!(other.read(fd, 100).unwrap(), b"ntents");
    assert_eq!(other.call(92, &[fd, 1]), Ok(0));
    assert_eq!(kernel.usage().flights, 0);
    // MSG_CMSG_CLOEXEC.
    send(&other, client, b"x", &rights(&[fd, fd]), 0).unwrap();
    let got = receive(&guest, server, 100, 100, 0x800).unwrap();
    assert_eq!((got.control.len(), got.control[0], got.flags), (24, 24, 0x800));
    assert_eq!(guest.call(92, &[got.control[16].into(), 1]), Ok(1));
    assert_eq!(guest.call(92, &[got.control[20].into(), 1]), Ok(1));
    guest.process.release();
    other.process.release();
    assert_eq!(files(&kernel), 0);
}

#[test]
fn control_messages_are_checked_and_bound_bytes() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 1);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    let kqueue = guest.call(344, &[]).unwrap() as u64;
    let good = rights(&[file]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (control, errno) in [
        (rights(&[77]), Errno::EBADF),
        (changed(8, 8), Errno::EINVAL),
        (changed(4, 0), Errno::EINVAL),
        (changed(0, 99), Errno::EINVAL),
        (changed(0, 15), Errno::EINVAL),
        (vec![0; 8], Errno::EINVAL),
        (vec![0; 4097], Errno::EINVAL),
        // A kqueue stays with its process.
        (rights(&[kqueue]), Errno::EBADF),
        (rights(&[file, kqueue]), Errno::EBADF),
    ] {
        assert_eq!(send(&guest, one, b"x", &control, 0), Err(errno), "{control:?}");
    }
    let tcp = socket(&guest, 2, 2, 0).unwrap();
    bind(&guest, tcp, &inet(LOOPBACK, 99)).unwrap();
    connect(&guest, tcp, &inet(LOOPBACK, 99)).unwrap();
    assert_eq!(send(&guest, tcp, b"x", &good, 0), Err(Errno::EINVAL));
    // Bytes before and after a control message are not mixed with its own.
    guest.write(one, b"before").unwrap();
    send(&guest, one, b"with", &good, 0).unwrap();
    guest.write(one, b"after").unwrap();
    assert_eq!(receive(&guest, two, 100, 100, 0).unwrap().data, b"before");
    // A peek leaves the message there, and shows no file.
    let got = receive(&guest, two, 2, 100, 2).unwrap();
    assert_eq!((&got.data[..], got.control.len()), (&b"wi"[..], 24));
    assert_eq!(got.control[16..], [0; 8]);
    let got = receive(&guest, two, 2, 100, 0).unwrap();
    assert_eq!(got.data, b"wi");
    passed(&got);
    let got = receive(&guest, two, 100, 100, 0).unwrap();
    assert_eq!((&got.data[..], got.control.len()), (&b"thafter"[..], 0));
    // A control message alone, without bytes.
    send(&guest, one, b"", &good, 0).unwrap();
    passed(&receive(&guest, two, 10, 100, 0).unwrap());
    blocking(&guest, two, false);
    assert_eq!(receive(&guest, two, 10, 100, 0), Err(Errno::EAGAIN));
    // With MSG_EOR a stream read stops there.
    send(&guest, one, b"abc", &[], EOR.into()).unwrap();
    guest.write(one, b"def").unwrap();
    let got = receive(&guest, two, 10, 0, 0).unwrap();
    assert_eq!((&got.data[..], got.flags), (&b"abc"[..], EOR));
    assert_eq!(receive(&guest, two, 10, 0, 0).unwrap().flags, 0);
}

#[test]
fn files_that_do_not_reach_the_client_are_closed() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    let sends = |count: usize| {
        let file = guest.open("/dev/zero", o::RDONLY).unwrap();
        send(&guest, one, b"abc", &rights(&vec![file; count]), 0).unwrap();
        guest.close(file).unwrap();
    };
    let before = files(&kernel);
    for room in [12, 16, 20, 23] {
        sends(1);
        assert_eq!(files(&kernel), before + 1);
        let got = receive(&guest, two, 100, room, 0).unwrap();
        assert_eq!((&got.data[..], got.control.len(), got.flags), (&b"abc"[..], 0, CTRUNC));
        assert_eq!(files(&kernel), before, "{room}");
    }
    // Without room for it, or with read, the file is dropped silently.
    sends(1);
    assert_eq!(receive(&guest, two, 100, 0, 0).unwrap().flags, 0);
    sends(1);
    assert_eq!(guest.read(two, 100).unwrap(), b"abc");
    assert_eq!(files(&kernel), before);
    // Shutting down or closing the socket, with files inside.
    sends(1);
    guest.call(134, &[two, 0]).unwrap();
    assert_eq!(files(&kernel), before);
    let (three, four) = pair(&guest, 2);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    send(&guest, three, b"abc", &rights(&[file]), 0).unwrap();
    guest.close(file).unwrap();
    let got = receive(&guest, four, 2, 100, 0).unwrap();
    assert_eq!((&got.data[..], got.flags, got.name_len), (&b"ab"[..], TRUNC, 2));
    guest.close(passed(&got)).unwrap();
    send(&guest, three, b"abc", &rights(&[three]), 0).unwrap();
    guest.close(three).unwrap();
    guest.close(four).unwrap();
    assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
}

#[test]
fn files_that_come_with_bytes_for_nowhere_are_closed() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    for kind in [1, 2] {
        let (one, two) = pair(&guest, kind);
        let before = files(&kernel);
        send(&guest, one, b"abc", &rights(&[file]), 0).unwrap();
        let header = header(&guest, (0, 10), (guest.buffer(), 100));
        assert_eq!(guest.fails(27, &[two, guest.place(&header), 0]), Errno::EFAULT);
        assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
        let next = guest.open("/dev/zero", o::RDONLY).unwrap();
        assert_eq!(next, two + 1, "no descriptor is left");
        guest.close(next).unwrap();
    }
}

#[test]
fn a_receiver_without_descriptors_gets_none() {
    let limits = Limits { files_per_process: 8, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    send(&guest, one, b"abc", &rights(&[file, file, file]), 0).unwrap();
    let before = files(&kernel);
    // Two descriptors are free.
    assert_eq!(receive(&guest, two, 10, 100, 0), Err(Errno::EMSGSIZE));
    assert_eq!(guest.call(41, &[file]), Ok(6));
    // The files are closed, the bytes are there.
    assert_eq!(kernel.usage().flights, 0);
    assert_eq!(files(&kernel), before);
    let got = receive(&guest, two, 10, 100, 0).unwrap();
    assert_eq!((&got.data[..], got.control.len()), (&b"abc"[..], 0));
}

#[test]
fn sockets_inside_themselves_are_found() {
    let kernel = kernel();
    let keep = Guest::new(&kernel);
    for close_first in [0, 1] {
        let guest = Guest::new(&kernel);
        let (one, two) = pair(&guest, 1);
        let before = files(&kernel) - 2;
        // Each socket is sent into the other, and one into itself.
        send(&guest, one, b"x", &rights(&[one]), 0).unwrap();
        send(&guest, one, b"x", &rights(&[two]), 0).unwrap();
        send(&guest, two, b"x", &rights(&[two, one]), 0).unwrap();
        assert_eq!(kernel.usage().flights, 4);
        guest.close([one, two][close_first]).unwrap();
        assert_eq!(files(&kernel), before + 2);
        guest.close([two, one][close_first]).unwrap();
        assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
    }
    // The same when the process ends, for a listener with a connection in its queue, and for a long chain.
    let guest = Guest::new(&kernel);
    let before = files(&kernel);
    let head = listen(&guest, 1, &local("/tmp/s"), 5);
    let client = socket(&guest, 1, 1, 0).unwrap();
    connect(&guest, client, &local("/tmp/s")).unwrap();
    send(&guest, client, b"x", &rights(&[head, client]), 0).unwrap();
    guest.process.release();
    assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
    let guest = Guest::new(&kernel);
    let (mut one, mut two) = pair(&guest, 1);
    for _ in 0..3000 {
        let (next, end) = pair(&guest, 1);
        send(&guest, next, b"x", &rights(&[one, two]), 0).unwrap();
        guest.close(one).unwrap();
        guest.close(two).unwrap();
        (one, two) = (next, end);
    }
    assert_eq!(kernel.usage().flights, 6000);
    // Sockets that can still be received stay: here is the last of them.
    let got = receive(&guest, two, 1, 100, 0).unwrap();
    assert_eq!(guest.read(got.control[20].into(), 1).unwrap(), b"x");
    guest.process.release();
    assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
    drop(keep);
}

#[test]
fn files_in_flight_are_bounded() {
    let limits = Limits { files: 40, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    let mut sent = 0;
    let refused = loop {
        match send(&guest, one, b"x", &rights(&[file]), 0) {
            Ok(_) => sent += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!((sent, refused), (20, Errno::EAGAIN));
    assert!(!kernel.system.net.collect(), "there is nothing to look through all for");
    receive(&guest, two, 1, 0, 0).unwrap();
    assert_eq!(send(&guest, one, b"x", &rights(&[file]), 0), Ok(1));
    // A client that hides sockets in themselves fills its own share and no more, and unreachable sockets
    // are found before a client is refused.
    let thief = Guest::new(&kernel);
    guest.process.release();
    for _ in 0..200 {
        let (one, two) = pair(&thief, 2);
        send(&thief, one, b"x", &rights(&[one, two]), 0).unwrap();
        thief.close(one).unwrap();
        thief.close(two).unwrap();
    }
    assert!(files(&kernel) <= 5);
}

#[test]
fn credentials_come_with_the_first_bytes() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    set(&guest, two, 0, 4, &1u32.to_le_bytes()).unwrap();
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    send(&guest, one, b"abc", &rights(&[file]), 0).unwrap();
    guest.write(one, b"def").unwrap();
    let got = receive(&guest, two, 100, 200, 0).unwrap();
    assert_eq!((&got.data[..], got.control.len()), (&b"abcdef"[..], 72));
    assert_eq!(got.control[24..36], [44, 0, 0, 0, 0xff, 0xff, 0, 0, 0x10, 0, 0, 0]);
    assert_eq!(got.control[40..44], guest.process.pid().to_le_bytes());
    // Datagrams bring credentials each time; what does not fit is cut off.
    let (one, two) = pair(&guest, 2);
    set(&guest, two, 0, 4, &1u32.to_le_bytes()).unwrap();
    for room in [200, 30] {
        send(&guest, one, b"abc", &rights(&[file]), 0).unwrap();
        let got = receive(&guest, two, 100, room, 0).unwrap();
        let flags = if room < 72 { CTRUNC } else { 0 };
        assert_eq!((got.control.len(), got.flags), (room.min(72), flags));
    }
}

#[test]
fn a_control_message_goes_once_however_little_room_there_is() {
    let guest = Guest::new(&kernel());
    for kind in [1, 5] {
        let file = guest.open("/dev/zero", o::RDONLY).unwrap();
        // The message counts for 24 bytes inside and for 20 outside: try every room around that.
        for room in 15..40usize {
            let (one, two) = pair(&guest, kind);
            blocking(&guest, one, false);
            guest.write(one, &vec![0; 4096 - room]).unwrap();
            set(&guest, two, 0, 4, &(room as u32 % 2).to_le_bytes()).unwrap();
            let sent = send(&guest, one, b"abc", &rights(&[file]), 0);
            let count = guest.read(two, 5000).unwrap().len();
            let mut came = Vec::new();
            if let Ok(sent) = sent {
                let got = receive(&guest, two, 10, 200, 0).unwrap();
                assert_eq!((sent, got.data.len()), (3, 3), "{kind} {room}");
                assert_eq!(got.control[..4], [20, 0, 0, 0]);
                came = got.control;
                assert!(room >= 23, "{room}");
            } else {
                assert_eq!(
                    sent,
                    Err(if room < 20 { Errno::EMSGSIZE } else { Errno::EAGAIN }),
                    "{kind} {room}"
                );
                assert!(room < 23, "{room}");
            }
            assert_eq!(count, 4096 - room);
            if !came.is_empty() {
                guest.close(came[16].into()).unwrap();
            }
            blocking(&guest, two, false);
            assert_eq!(receive(&guest, two, 10, 200, 0), Err(Errno::EAGAIN));
            guest.close(one).unwrap();
            guest.close(two).unwrap();
        }
    }
}

#[test]
fn datagrams_say_when_and_for_whom() {
    let guest = Guest::new(&kernel());
    let server = socket(&guest, 2, 2, 0).unwrap();
    bind(&guest, server, &inet([0; 4], 500)).unwrap();
    set(&guest, server, SOL_SOCKET, 0x2000, &1u32.to_le_bytes()).unwrap();
    set(&guest, server, 0, 7, &1u32.to_le_bytes()).unwrap();
    let client = socket(&guest, 2, 2, 0).unwrap();
    connect(&guest, client, &inet(LOOPBACK, 500)).unwrap();
    for (room, control, flags) in [(200, 56, 0), (20, 24, CTRUNC)] {
        guest.write(client, b"x").unwrap();
        let got = receive(&guest, server, 10, room, 0).unwrap();
        assert_eq!((got.control.len(), got.flags, got.name_len), (control, flags, 16));
        assert_eq!(got.control[..12], [32, 0, 0, 0, 0xff, 0xff, 0, 0, 8, 0, 0, 0]);
        if room == 200 {
            let to = [20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0];
            assert_eq!(got.control[32..], to);
        }
    }
}

/// Decodes the control messages in `bytes`: level, type, data.
fn messages(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = word(0) as usize;
        all.push((word(4), word(8), bytes[16..len].to_vec()));
        bytes = &bytes[len.next_multiple_of(8).min(bytes.len())..];
    }
    all
}

#[test]
fn datagrams_say_how_they_came() {
    let guest = Guest::new(&kernel());
    let on = 1u32.to_le_bytes();
    let server = socket(&guest, 2, 2, 0).unwrap();
    bind(&guest, server, &inet([0; 4], 500)).unwrap();
    for option in [20, 23, 25, 26] {
        set(&guest, server, 0, option, &on).unwrap();
    }
    let client = socket(&guest, 2, 2, 0).unwrap();
    set(&guest, client, 0, 4, &9u32.to_le_bytes()).unwrap();
    connect(&guest, client, &inet(LOOPBACK, 500)).unwrap();
    guest.write(client, b"x").unwrap();
    let got = receive(&guest, server, 10, 300, 0).unwrap();
    let packet = vec![127, 0, 0, 1, 1, 0, 0, 0];
    let expected = [
        (0, 26, packet.clone()),
        (0, 25, packet),
        (0, 20, vec![8, 18, 1, 0, 0, 0, 0, 0]),
        (0, 23, vec![9]),
    ];
    assert_eq!(messages(&got.control), expected);
    // The timestamp by its number of earlier releases.
    let timed = socket(&guest, 2, 2, 0).unwrap();
    bind(&guest, timed, &inet([0; 4], 502)).unwrap();
    set(&guest, timed, SOL_SOCKET, 0x400, &on).unwrap();
    let client = socket(&guest, 2, 2, 0).unwrap();
    connect(&guest, client, &inet(LOOPBACK, 502)).unwrap();
    guest.write(client, b"x").unwrap();
    let got = receive(&guest, timed, 10, 300, 0).unwrap();
    let told = messages(&got.control);
    assert_eq!((told.len(), told[0].0, told[0].1, told[0].2.len()), (1, 0xffff, 2, 16));
    // An IPv6 socket, for which datagrams of an IPv4 sender bring no control messages.
    let server = socket(&guest, 24, 2, 0).unwrap();
    set(&guest, server, 41, 27, &[0; 4]).unwrap();
    let mut at = vec![0; 28];
    (at[1], at[2], at[3]) = (24, 1, 245);
    bind(&guest, server, &at).unwrap();
    for option in [36, 37, 57] {
        set(&guest, server, 41, option, &on).unwrap();
    }
    let client = socket(&guest, 24, 2, 0).unwrap();
    set(&guest, client, 41, 61, &5u32.to_le_bytes()).unwrap();
    at[23] = 1;
    connect(&guest, client, &at).unwrap();
    guest.write(client, b"x").unwrap();
    let got = receive(&guest, server, 10, 300, 0).unwrap();
    let int = |value: u32| value.to_le_bytes().to_vec();
    let expected = [(41, 46, [&at[8..24], &on].concat()), (41, 47, int(64)), (41, 61, int(5))];
    assert_eq!(messages(&got.control), expected);
    let four = socket(&guest, 2, 2, 0).unwrap();
    connect(&guest, four, &inet(LOOPBACK, 501)).unwrap();
    guest.write(four, b"x").unwrap();
    assert_eq!(receive(&guest, server, 10, 300, 0).unwrap().control, []);
}

#[test]
fn an_ipv6_sender_asks_how_a_datagram_is_to_go() {
    let guest = Guest::new(&kernel());
    let on = 1u32.to_le_bytes();
    let mut at = vec![0; 28];
    (at[1], at[2], at[3], at[23]) = (24, 1, 244, 1);
    let server = socket(&guest, 24, 2, 0).unwrap();
    bind(&guest, server, &at).unwrap();
    set(&guest, server, 41, 37, &on).unwrap();
    set(&guest, server, 41, 57, &on).unwrap();
    let client = socket(&guest, 24, 2, 0).unwrap();
    connect(&guest, client, &at).unwrap();
    let message = |level: u32, kind: u32, data: &[u8]| {
        let mut bytes = [16 + data.len() as u32, level, kind, 0].map(u32::to_le_bytes).concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let int = |value: i32| value.to_le_bytes().to_vec();
    let packet =
        |last: u8, interface: u32| [&[0; 15][..], &[last], &interface.to_le_bytes()].concat();
    let all = [message(41, 46, &packet(1, 1)), message(41, 47, &int(9)), message(41, 61, &int(3))];
    assert_eq!(send(&guest, client, b"x", &all.concat(), 0), Ok(1));
    let got = receive(&guest, server, 10, 300, 0).unwrap();
    assert_eq!(messages(&got.control), [(41, 47, int(9)), (41, 61, int(3))]);
    for (control, errno) in [
        (message(41, 47, &int(256)), Errno::EINVAL),
        (message(41, 61, &int(-2)), Errno::EINVAL),
        (message(41, 47, &[1]), Errno::EINVAL),
        (message(41, 46, &int(1)), Errno::EINVAL),
        (message(41, 46, &packet(1, 7)), Errno::ENXIO),
        (message(41, 46, &packet(2, 0)), Errno::EADDRNOTAVAIL),
        (message(41, 99, &int(1)), Errno::ENOPROTOOPT),
        (vec![0; 16], Errno::EINVAL),
        (vec![0xff; 16], Errno::EINVAL),
        ([message(41, 47, &int(9)), vec![16, 0, 0, 0]].concat(), Errno::EINVAL),
    ] {
        assert_eq!(send(&guest, client, b"x", &control, 0), Err(errno), "{control:?}");
    }
    // Control messages for other protocols are ignored; IPv4 takes none at all.
    assert_eq!(send(&guest, client, b"x", &message(0, 47, &int(256)), 0), Ok(1));
    let four = socket(&guest, 2, 2, 0).unwrap();
    connect(&guest, four, &inet(LOOPBACK, 500)).unwrap();
    assert_eq!(send(&guest, four, b"x", &message(0, 25, &int(1)), 0), Err(Errno::EINVAL));
}

#[test]
fn headers_are_checked() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 1);
    assert_eq!(guest.fails(28, &[one, NOWHERE, 0]), Errno::EFAULT);
    assert_eq!(guest.fails(27, &[one, NOWHERE, 0]), Errno::EFAULT);
    let good = header(&guest, (guest.place(b"abc"), 3), (0, 0));
    let with = |at: usize, bytes: &[u8]| {
        let mut header = good.clone();
        header[at..at + bytes.len()].copy_from_slice(bytes);
        guest.place(&header)
    };
    for (fd, header, errno) in [
        (77, with(0, &[]), Errno::EBADF),
        (1, with(0, &[]), Errno::ENOTSOCK),
        (one, with(24, &1025u32.to_le_bytes()), Errno::EMSGSIZE),
        (one, with(16, &NOWHERE.to_le_bytes()), Errno::EFAULT),
        (one, with(0, &NOWHERE.to_le_bytes()), Errno::EINVAL),
        (one, with(32, &[&NOWHERE.to_le_bytes()[..], &[16]].concat()), Errno::EFAULT),
    ] {
        assert_eq!(guest.fails(28, &[fd, header, 0]), errno);
    }
    let iovec = guest.place(&[guest.buffer().to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    assert_eq!(guest.fails(28, &[one, with(16, &iovec.to_le_bytes()), 0]), Errno::EINVAL);
    assert_eq!(guest.call(28, &[one, with(0, &[]), 0]), Ok(3));
    assert_eq!(guest.call(28, &[one, with(24, &[0]), 0]), Ok(0));
    // Several pieces on both sides.
    let parts = [(guest.place(b"one"), 3u64), (0, 0), (guest.place(b"two"), 3)];
    let bytes: Vec<u8> = parts
        .iter()
        .flat_map(|part| [part.0.to_le_bytes(), part.1.to_le_bytes()].concat())
        .collect();
    let three = guest.place(&bytes);
    let header = with(16, &[&three.to_le_bytes()[..], &[3]].concat());
    assert_eq!(guest.call(28, &[one, header, 0]), Ok(6));
    let to = [(guest.buffer(), 5u64), (guest.buffer() + 50, 10)];
    let bytes: Vec<u8> =
        to.iter().flat_map(|part| [part.0.to_le_bytes(), part.1.to_le_bytes()].concat()).collect();
    let two_parts = guest.place(&bytes);
    let header = with(16, &[&two_parts.to_le_bytes()[..], &[2]].concat());
    assert_eq!(guest.call(27, &[two, header, 0]), Ok(9));
    assert_eq!(guest.get(guest.buffer(), 5), b"abcon");
    assert_eq!(guest.get(guest.buffer() + 50, 4), b"etwo");
    // Out-of-band data: there is none, and none can be sent.
    assert_eq!(guest.fails(133, &[one, guest.buffer(), 1, 1, 0, 0]), Errno::EOPNOTSUPP);
    assert_eq!(guest.fails(29, &[one, guest.buffer(), 1, 1, 0, 0]), Errno::EOPNOTSUPP);
}

#[test]
fn waitall_waits_for_all_of_it() {
    let guest = Guest::new(&kernel());
    for (len, parts) in [(3000usize, 3), (12_000, 12)] {
        let (one, two) = pair(&guest, 1);
        let mut pending = guest.start(29, &[two, guest.buffer(), len as u64, 0x40, 0, 0]);
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let from = guest.place(&data);
        for part in 0..parts {
            assert_eq!(pending.run(), None);
            let len = len / parts;
            assert_eq!(
                guest.call(4, &[one, from + (part * len) as u64, len as u64]),
                Ok(len as i64)
            );
            assert!(pending.woken());
        }
        assert_eq!(pending.run(), Some(Ok([len as i64, 0])));
        assert_eq!(guest.get(guest.buffer(), len), data);
        // The end comes first: return what there is.
        let mut pending = guest.start(29, &[two, guest.buffer(), len as u64, 0x40, 0, 0]);
        assert_eq!(pending.run(), None);
        guest.write(one, b"short").unwrap();
        assert_eq!(pending.run(), None);
        guest.close(one).unwrap();
        assert_eq!(pending.run(), Some(Ok([5, 0])));
    }
}

#[test]
fn waitall_goes_on_after_files_nobody_takes() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 1);
    blocking(&guest, two, false);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    send(&guest, one, b"ab", &rights(&[file]), 0).unwrap();
    // Once there are bytes the call waits for the rest, even if it would not wait for the first.
    let into = guest.buffer() + 1000;
    let mut pending = guest.start(29, &[two, into, 5, 0x40, 0, 0]);
    assert_eq!(pending.run(), None);
    guest.write(one, b"cde").unwrap();
    assert_eq!(pending.run(), Some(Ok([5, 0])));
    assert_eq!(guest.get(into, 5), b"abcde");
}

#[test]
fn waitall_waits_for_more_after_files_that_came() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    let file = guest.open("/dev/zero", o::RDONLY).unwrap();
    // The rest comes, or the end, or a record of its own, or the time is over.
    for end in 0..4 {
        let (data, control) = (guest.buffer() + 1000, guest.buffer() + 2000);
        let header = header(&guest, (data, 5), (control, 100));
        let at = guest.place(&header);
        let before = files(&kernel);
        send(&guest, one, b"ab", &rights(&[file]), 0).unwrap();
        if end == 3 {
            let time = [0i64.to_le_bytes(), 20_000i64.to_le_bytes()].concat();
            set(&guest, two, SOL_SOCKET, 0x100c, &time).unwrap();
        }
        let mut pending = guest.start(27, &[two, at, 0x40]);
        assert_eq!(pending.run(), None, "two bytes are not all");
        // The file has come, and was not reported yet.
        assert_eq!((files(&kernel), kernel.usage().flights), (before, 0));
        let got: &[u8] = match end {
            0 => {
                guest.write(one, b"c").unwrap();
                assert!(pending.woken());
                assert_eq!(pending.run(), None);
                guest.write(one, b"defg").unwrap();
                b"abcde"
            }
            1 => {
                send(&guest, one, b"next", &rights(&[file]), 0).unwrap();
                b"ab"
            }
            2 => b"ab",
            _ => b"ab",
        };
        let count = if end == 2 { pending.interrupt() } else { pending.wait() };
        assert_eq!(count, Ok([got.len() as i64, 0]), "{end}");
        assert_eq!(guest.get(data, got.len()), got);
        let word = |from| u32::from_le_bytes(guest.get(at + from, 4).try_into().unwrap());
        assert_eq!((word(40), word(44)), (24, 0x40), "{end}");
        let fd = u64::from(guest.get(control + 16, 1)[0]);
        assert_eq!(guest.read(fd, 1).unwrap(), [0]);
        guest.close(fd).unwrap();
        while end < 2 && guest.call(29, &[two, data, 9, 0x80, 0, 0]).is_ok() {}
        assert_eq!(files(&kernel), before);
    }
}

#[test]
fn who_does_not_read_gets_no_files() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    for kind in [1, 5] {
        let (one, two) = pair(&guest, kind);
        let file = guest.open("/dev/zero", o::RDONLY).unwrap();
        let before = files(&kernel);
        guest.call(134, &[two, 0]).unwrap();
        assert_eq!(send(&guest, one, b"with", &rights(&[file]), 0), Ok(4));
        assert_eq!(kernel.usage().flights, 0);
        guest.close(file).unwrap();
        assert_eq!(files(&kernel), before - 1);
        // Bytes alone come as usual.
        guest.write(one, b"plain").unwrap();
        assert_eq!(guest.read(two, 100).unwrap(), b"plain");
    }
}

#[test]
fn large_messages_pass_a_small_door() {
    let mut guest = Guest::new(&kernel());
    guest.room = 1000;
    let (one, two) = pair(&guest, 2);
    for (fd, option) in [(one, 0x1001), (two, 0x1002)] {
        set(&guest, fd, SOL_SOCKET, option, &200_000u32.to_le_bytes()).unwrap();
    }
    let data: Vec<u8> = (0..150_000u32).map(|i| (i % 249) as u8).collect();
    assert_eq!(guest.write(one, &data), Ok(150_000));
    guest.write(one, b"next").unwrap();
    guest.put(guest.buffer(), &[0; 150_000]);
    assert_eq!(guest.read(two, 200_000).unwrap(), data);
    assert_eq!(guest.read(two, 200_000).unwrap(), b"next");
}

#[test]
fn several_messages_in_one_call() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 2);
    let many = |count: usize, len: usize| {
        let headers: Vec<u8> = (0..count)
            .flat_map(|i| {
                let at = guest.buffer() + 100 * i as u64;
                guest.put(at, &[b'a' + i as u8; 10]);
                let mut header = header(&guest, (at, len), (0, 0));
                header.extend([0; 8]);
                header
            })
            .collect();
        guest.place(&headers)
    };
    let count = |at: u64, i: u64| guest.get(at + 56 * i + 48, 1)[0];
    let out = many(3, 10);
    assert_eq!(guest.call(476, &[one, out, 3, 0]), Ok(3));
    assert_eq!([count(out, 0), count(out, 2)], [10, 10]);
    let into = many(5, 4);
    guest.put(guest.buffer(), &[0; 500]);
    // MSG_WAITFORONE: take the rest only if it is there.
    assert_eq!(guest.call(475, &[two, into, 5, 0x2000, 0]), Ok(3));
    assert_eq!(guest.get(guest.buffer() + 200, 5), b"cccc\0");
    assert_eq!(guest.get(into + 56 + 44, 1), [TRUNC as u8 | 0x80]);
    // Without the flag the call waits; when it is interrupted, the messages so far count.
    guest.call(476, &[one, out, 2, 0]).unwrap();
    let mut pending = guest.start(475, &[two, into, 3, 0, 0]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Ok([2, 0]));
    // An error after the first message comes with the next call.
    for _ in 0..6 {
        guest.write(one, b"x").unwrap();
    }
    assert_eq!(guest.call(476, &[one, out, 3, 0]), Ok(2));
    assert_eq!(guest.call(476, &[one, out, 3, 0]), Err(Errno::ENOBUFS));
    assert_eq!(guest.fails(476, &[77, out, 3, 0]), Errno::EBADF);
    assert_eq!(guest.call(476, &[one, out, 0, 0]), Ok(0));
    let past = guest.place(&[0; 16]);
    assert_eq!(guest.call(475, &[two, into, 1, 0, past]), Ok(1));
}

#[test]
fn files_are_passed_from_many_threads() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 5);
    let total = 300;
    thread::scope(|scope| {
        for _ in 0..2 {
            let child = guest.fork();
            scope.spawn(move || {
                for _ in 0..total {
                    let (a, b) = pair(&child, 1);
                    child.write(a, b"token").unwrap();
                    send(&child, one, b"x", &rights(&[b]), 0).unwrap();
                    child.close(a).unwrap();
                    child.close(b).unwrap();
                }
                child.process.release();
            });
        }
        for _ in 0..2 * total {
            let fd = passed(&receive(&guest, two, 1, 100, 0).unwrap());
            assert_eq!(guest.read(fd, 100).unwrap(), b"token");
            guest.close(fd).unwrap();
        }
    });
    guest.process.release();
    assert_eq!((files(&kernel), kernel.usage().flights), (0, 0));
    assert_eq!(kernel.usage().bytes, 0);
}
