use super::super::testing::{Guest, NOWHERE, kernel, kernel_with, o};
use super::super::{Embedded, Limits};
use kernel::Errno;

pub(super) fn socket(guest: &Guest, domain: u64, kind: u64, protocol: u64) -> Result<u64, Errno> {
    guest.call(394, &[domain, kind, protocol]).map(|fd| fd as u64)
}

pub(super) fn inet(addr: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&[0, 2, port[0], port[1]][..], &addr, &[9; 8]].concat()
}

pub(super) fn bind(guest: &Guest, fd: u64, name: &[u8]) -> Result<i64, Errno> {
    guest.call(104, &[fd, guest.place(name), name.len() as u64])
}

pub(super) fn name(guest: &Guest, fd: u64) -> Vec<u8> {
    guest.put(guest.buffer(), &200u32.to_le_bytes());
    guest.call(32, &[fd, guest.buffer() + 8, guest.buffer()]).unwrap();
    let len = guest.get(guest.buffer(), 1)[0];
    guest.get(guest.buffer() + 8, len.into())
}

pub(super) fn set(
    guest: &Guest,
    fd: u64,
    level: u64,
    option: u64,
    value: &[u8],
) -> Result<i64, Errno> {
    guest.call(105, &[fd, level, option, guest.place(value), value.len() as u64])
}

pub(super) fn get(guest: &Guest, fd: u64, level: u64, option: u64) -> Result<Vec<u8>, Errno> {
    guest.put(guest.buffer(), &100u32.to_le_bytes());
    guest.call(118, &[fd, level, option, guest.buffer() + 8, guest.buffer()])?;
    let len = guest.get(guest.buffer(), 1)[0];
    Ok(guest.get(guest.buffer() + 8, len.into()))
}

pub(super) const SOL_SOCKET: u64 = 0xffff;

#[test]
fn sockets_are_made_of_what_there_is() {
    let guest = Guest::new(&kernel());
    for (domain, kind, protocol, errno) in [
        (0, 1, 0, Errno::EAFNOSUPPORT),
        (99, 1, 0, Errno::EAFNOSUPPORT),
        (2, 9, 0, Errno::EPROTOTYPE),
        (2, 0, 0, Errno::EPROTONOSUPPORT),
        (2, 1, 17, Errno::EPROTONOSUPPORT),
        (1, 1, 6, Errno::EPROTONOSUPPORT),
        (1, 3, 0, Errno::EPROTOTYPE),
    ] {
        assert_eq!(socket(&guest, domain, kind, protocol), Err(errno));
    }
    for (domain, kind, protocol) in
        [(1, 1, 0), (1, 2, 0), (1, 5, 0), (2, 1, 6), (2, 2, 0), (2, 3, 1), (24, 1, 0), (24, 2, 17)]
    {
        let fd = socket(&guest, domain, kind | 0x3000_0000, protocol).unwrap();
        assert_eq!(guest.call(92, &[fd, 1]), Ok(1));
        assert_eq!(guest.call(92, &[fd, 3]), Ok((o::RDWR | o::NONBLOCK) as i64));
        assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1008).unwrap(), (kind as u32).to_le_bytes());
        guest.call(440, &[fd, guest.buffer()]).unwrap();
        assert_eq!(guest.get(guest.buffer() + 8, 4), 0o140_000u32.to_le_bytes());
        guest.close(fd).unwrap();
    }
}

#[test]
fn ports_are_taken_and_given_back() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let any = [0; 4];
    let first = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(name(&guest, first), [16, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bind(&guest, first, &inet(any, 80)), Ok(0));
    assert_eq!(name(&guest, first), [16, 2, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bind(&guest, first, &inet(any, 81)), Err(Errno::EINVAL));
    let second = socket(&guest, 2, 1, 0).unwrap();
    let local = inet([127, 0, 0, 1], 80);
    assert_eq!(bind(&guest, second, &local), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&guest, second, &inet([10, 0, 0, 1], 80)), Err(Errno::EADDRNOTAVAIL));
    // With SO_REUSEADDR a wildcard and an own address go together, but the same address twice does not.
    set(&guest, second, SOL_SOCKET, 4, &1u32.to_le_bytes()).unwrap();
    assert_eq!(bind(&guest, second, &inet(any, 80)), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&guest, second, &local), Ok(0));
    // UDP and IPv6 have ports of their own.
    let udp = socket(&guest, 2, 2, 0).unwrap();
    assert_eq!(bind(&guest, udp, &inet(any, 80)), Ok(0));
    let six = socket(&guest, 24, 1, 0).unwrap();
    let mut loopback = [0; 28];
    (loopback[1], loopback[3], loopback[23]) = (24, 80, 1);
    assert_eq!(bind(&guest, six, &loopback), Ok(0));
    assert_eq!(name(&guest, six)[..4], [28, 24, 0, 80]);
    // Any port: the highest, then the next lower one.
    for expected in [65535, 65534] {
        let fd = socket(&guest, 2, 1, 0).unwrap();
        assert_eq!(bind(&guest, fd, &inet(any, 0)), Ok(0));
        assert_eq!(name(&guest, fd)[2..4], u16::to_be_bytes(expected));
    }
    assert_eq!(kernel.usage().ports, 6);
    guest.close(first).unwrap();
    guest.close(second).unwrap();
    let third = socket(&guest, 2, 1, 0).unwrap();
    assert_eq!(bind(&guest, third, &inet(any, 80)), Ok(0));
    assert_eq!(kernel.usage().ports, 5);
    guest.process.release();
    assert_eq!(kernel.usage().ports, 0);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let guest = Guest::new(&kernel());
    let fd = socket(&guest, 2, 1, 0).unwrap();
    let good = inet([0; 4], 80);
    let at = guest.place(&good);
    assert_eq!(guest.fails(104, &[fd, at, 2]), Errno::EINVAL);
    assert_eq!(guest.fails(104, &[fd, at, 256]), Errno::EINVAL);
    assert_eq!(guest.fails(104, &[fd, at, 15]), Errno::EINVAL);
    assert_eq!(guest.fails(104, &[fd, NOWHERE, 16]), Errno::EFAULT);
    assert_eq!(guest.fails(104, &[77, at, 16]), Errno::EBADF);
    assert_eq!(guest.fails(104, &[1, at, 16]), Errno::ENOTSOCK);
    let mut other = good.clone();
    other[1] = 1;
    assert_eq!(bind(&guest, fd, &other), Err(Errno::EAFNOSUPPORT));
    // The format of 4.3BSD: no length, and the family in its place.
    let mut old = good.clone();
    (old[0], old[1]) = (2, 0);
    assert_eq!(bind(&guest, fd, &old), Ok(0));
    assert_eq!(guest.fails(32, &[fd, at, NOWHERE]), Errno::EFAULT);
    assert_eq!(guest.call(32, &[fd, 0, NOWHERE]), Ok(0));
    let short = guest.place(&3u32.to_le_bytes());
    assert_eq!(guest.call(32, &[fd, guest.buffer(), short]), Ok(0));
    assert_eq!(guest.get(short, 1), [3]);
    let negative = guest.place(&(-1i32).to_le_bytes());
    assert_eq!(guest.fails(32, &[fd, guest.buffer(), negative]), Errno::EINVAL);
}

#[test]
fn a_local_socket_has_a_name_in_the_file_system() {
    let guest = Guest::new(&kernel());
    let fd = socket(&guest, 1, 1, 0).unwrap();
    assert_eq!(name(&guest, fd), [2, 1]);
    let path = b"\0\x01/tmp/socket\0junk";
    assert_eq!(bind(&guest, fd, path), Ok(0));
    let bound = name(&guest, fd);
    assert_eq!((usize::from(bound[0]), &bound[1..]), (path.len(), &path[1..]));
    assert_eq!(bind(&guest, fd, b"\0\x01/tmp/other"), Err(Errno::EINVAL));
    let other = socket(&guest, 1, 2, 0).unwrap();
    assert_eq!(bind(&guest, other, path), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&guest, other, b"\0\x01/none/socket"), Err(Errno::ENOENT));
    assert_eq!(guest.open("/tmp/socket", o::RDWR), Err(Errno::EOPNOTSUPP));
    guest.call(439, &[guest.string("/tmp/socket"), guest.buffer()]).unwrap();
    assert_eq!(guest.get(guest.buffer() + 8, 4), 0o140_755u32.to_le_bytes());
    guest.close(fd).unwrap();
    assert_eq!(bind(&guest, other, path), Err(Errno::EADDRINUSE));
    assert_eq!(guest.call(10, &[guest.string("/tmp/socket")]), Ok(0));
    assert_eq!(bind(&guest, other, path), Ok(0));
}

#[test]
fn a_tcp_socket_that_is_over_has_no_options_of_its_protocol() {
    let guest = Guest::new(&kernel());
    for domain in [2, 24] {
        let fd = socket(&guest, domain, 1, 0).unwrap();
        set(&guest, fd, 6, 1, &[1, 0, 0, 0]).unwrap();
        guest.call(134, &[fd, 2]).unwrap();
        for (level, option) in [(6, 1), (6, 77), (77, 1)] {
            assert_eq!(set(&guest, fd, level, option, &[1, 0, 0, 0]), Err(Errno::ECONNRESET));
            assert_eq!(get(&guest, fd, level, option), Err(Errno::ECONNRESET));
        }
        // An option of `SOL_SOCKET` is set, though the call fails.
        assert_eq!(set(&guest, fd, SOL_SOCKET, 0x8, &[1, 0, 0, 0]), Err(Errno::ECONNRESET));
        assert_eq!(get(&guest, fd, SOL_SOCKET, 0x8).unwrap(), [1, 0, 0, 0]);
        assert_eq!(set(&guest, fd, SOL_SOCKET, 0x7777, &[0; 4]), Err(Errno::ECONNRESET));
        assert_eq!(set(&guest, fd, SOL_SOCKET, 0x8, &[1]), Err(Errno::EINVAL));
    }
}

#[test]
fn options_below_the_socket_have_the_values_they_have() {
    let guest = Guest::new(&kernel());
    const IP: u64 = 0;
    const TCP: u64 = 6;
    const UDP: u64 = 17;
    const IPV6: u64 = 41;
    let no = Errno::ENOPROTOOPT;
    // Domain, type, level, name: the initial value, and the results of setting 1, 0, -1, 500.
    type Told = Result<i32, Errno>;
    type Case = (u64, u64, u64, u64, Told, [Told; 4]);
    let all: &[Case] = &[
        (2, 1, TCP, 1, Ok(0), [Ok(4), Ok(0), Ok(4), Ok(4)]),
        (
            2,
            1,
            TCP,
            2,
            Ok(536),
            [Ok(1), Err(Errno::EINVAL), Err(Errno::EINVAL), Err(Errno::EINVAL)],
        ),
        (2, 2, TCP, 1, Err(no), [Err(no); 4]),
        (24, 1, IPV6, 4, Ok(-1), [Ok(1), Ok(0), Ok(-1), Err(Errno::EINVAL)]),
        (24, 2, IPV6, 9, Ok(0), [Ok(1), Ok(0), Err(Errno::ENXIO), Err(Errno::ENXIO)]),
        (24, 2, IPV6, 10, Ok(1), [Ok(1), Ok(0), Ok(1), Err(Errno::EINVAL)]),
        (24, 2, IPV6, 27, Ok(1), [Ok(1), Ok(0), Ok(1), Ok(1)]),
        (24, 2, IPV6, 61, Ok(0), [Ok(1), Ok(0), Ok(0), Err(Errno::EINVAL)]),
        (24, 2, IPV6, 62, Ok(0), [Ok(1), Ok(0), Ok(1), Ok(1)]),
        (24, 1, IPV6, 62, Ok(0), [Ok(0); 4]),
        (2, 1, IPV6, 27, Err(no), [Err(no); 4]),
        (24, 1, IP, 3, Err(no), [Err(no); 4]),
        (2, 1, IP, 3, Ok(0), [Ok(1), Ok(0), Ok(255), Ok(244)]),
        (2, 1, IP, 4, Ok(64), [Ok(1), Ok(0), Ok(255), Ok(244)]),
        (
            2,
            2,
            IP,
            9,
            Ok(0),
            [
                Err(Errno::EADDRNOTAVAIL),
                Ok(0),
                Err(Errno::EADDRNOTAVAIL),
                Err(Errno::EADDRNOTAVAIL),
            ],
        ),
        (2, 2, IP, 12, Err(Errno::EOPNOTSUPP), [Err(Errno::EINVAL); 4]),
        (2, 2, IP, 19, Ok(0), [Ok(0), Ok(0), Err(Errno::EINVAL), Err(Errno::EINVAL)]),
        (2, 2, IP, 21, Ok(-1), [Err(no); 4]),
        (2, 2, IP, 24, Ok(0), [Ok(1), Err(Errno::EINVAL), Err(Errno::EINVAL), Err(Errno::EINVAL)]),
        (2, 2, IP, 25, Ok(0), [Ok(1), Ok(0), Ok(1), Ok(1)]),
        (2, 2, UDP, 1, Err(Errno::EINVAL), [Err(no); 4]),
        (24, 2, UDP, 1, Err(Errno::EINVAL), [Err(Errno::EINVAL); 4]),
    ];
    for &(domain, kind, level, option, first, ref then) in all {
        let fd = socket(&guest, domain, kind, 0).unwrap();
        let asked = || {
            get(&guest, fd, level, option)
                .map(|value| i32::from_le_bytes(value.try_into().expect("an int")))
        };
        let what = format!("{domain} {kind} {level} {option}");
        assert_eq!(asked(), first, "{what}");
        for (value, &then) in [1i32, 0, -1, 500].iter().zip(then) {
            let done = set(&guest, fd, level, option, &value.to_le_bytes());
            assert_eq!(done.and_then(|_| asked()), then, "{what}: {value}");
        }
        let short = set(&guest, fd, level, option, b"x");
        assert!(short == Err(Errno::EINVAL) || short == Err(no), "{what}");
        guest.close(fd).unwrap();
    }
}

#[test]
fn some_options_are_not_ints() {
    let guest = Guest::new(&kernel());
    let int = |value: i32| value.to_le_bytes().to_vec();
    let fd = socket(&guest, 2, 1, 0).unwrap();
    // There are no IP options, for which sshd looks.
    assert_eq!(get(&guest, fd, 0, 1).unwrap(), []);
    assert_eq!(set(&guest, fd, 0, 1, &[]), Ok(0));
    // IP_MULTICAST_TTL and LOOP are single bytes, and may be set as ints.
    assert_eq!(get(&guest, fd, 0, 10).unwrap(), [1]);
    for value in [&int(3)[..], &[200]] {
        set(&guest, fd, 0, 10, value).unwrap();
        assert_eq!(get(&guest, fd, 0, 10).unwrap(), value[..1]);
    }
    assert_eq!(set(&guest, fd, 0, 11, &[2]), Err(Errno::EINVAL));
    set(&guest, fd, 0, 9, &[127, 0, 0, 1]).unwrap();
    assert_eq!(get(&guest, fd, 0, 9).unwrap(), [127, 0, 0, 1]);
    // TCP_KEEPIDLE and similar options are never returned.
    for option in [3, 5, 6, 7] {
        assert_eq!(set(&guest, fd, 6, option, &int(60)), Ok(0));
        assert_eq!(set(&guest, fd, 6, option, &int(0)), Err(Errno::EINVAL));
        assert_eq!(get(&guest, fd, 6, option), Err(Errno::ENOPROTOOPT));
    }
    // SO_NOHEADER has no effect for IPv4, and is unknown for others.
    assert_eq!(set(&guest, fd, SOL_SOCKET, 0x100a, &int(1)), Ok(0));
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x100a), Err(Errno::ENOPROTOOPT));
    let local = socket(&guest, 1, 1, 0).unwrap();
    assert_eq!(set(&guest, local, SOL_SOCKET, 0x100a, &int(1)), Err(Errno::ENOPROTOOPT));
    // The timeouts by their earlier numbers.
    let time = [3i64.to_le_bytes(), 0i64.to_le_bytes()].concat();
    // The bytes behind the microseconds, which are an int, may be anything.
    let dirty = [3i64.to_le_bytes(), [0, 0, 0, 0, 9, 9, 9, 9]].concat();
    set(&guest, fd, SOL_SOCKET, 0x1006, &dirty).unwrap();
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x100c).unwrap(), time);
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1005).unwrap(), [0; 16]);
    // There are no accept filters.
    assert_eq!(set(&guest, fd, SOL_SOCKET, 0x1000, &[]), Err(Errno::EINVAL));
    assert_eq!(set(&guest, fd, SOL_SOCKET, 0x1000, &[0; 256]), Err(Errno::ENOENT));
    assert_eq!(set(&guest, fd, SOL_SOCKET, 0x1000, &int(1)), Err(Errno::EINVAL));
    guest.call(106, &[fd, 5]).unwrap();
    assert_eq!(set(&guest, fd, SOL_SOCKET, 0x1000, &[]), Ok(0));
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1000), Err(Errno::EINVAL));
}

#[test]
fn options_are_kept() {
    let guest = Guest::new(&kernel());
    let fd = socket(&guest, 2, 1, 0).unwrap();
    let int = |value: i32| value.to_le_bytes().to_vec();
    for option in [0x4, 0x8, 0x200, 0x800, 0x2000] {
        assert_eq!(get(&guest, fd, SOL_SOCKET, option).unwrap(), int(0));
        set(&guest, fd, SOL_SOCKET, option, &int(5)).unwrap();
        assert_eq!(get(&guest, fd, SOL_SOCKET, option).unwrap(), int(1));
    }
    assert_eq!(guest.call(92, &[fd, 13]), Ok(1));
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1001).unwrap(), int(32768));
    set(&guest, fd, SOL_SOCKET, 0x1002, &int(1000)).unwrap();
    set(&guest, fd, SOL_SOCKET, 0x1004, &int(5000)).unwrap();
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1004).unwrap(), int(1000));
    set(&guest, fd, SOL_SOCKET, 0x80, &[1, 0, 0, 0, 7, 0, 0, 0]).unwrap();
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x80).unwrap()[4], 7);
    let time = [2i64.to_le_bytes(), 500_000i64.to_le_bytes()].concat();
    set(&guest, fd, SOL_SOCKET, 0x100c, &time).unwrap();
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x100c).unwrap(), time);
    assert_eq!(get(&guest, fd, 6, 1).unwrap(), int(0));
    set(&guest, fd, 6, 1, &int(1)).unwrap();
    assert_eq!(get(&guest, fd, 6, 1).unwrap(), int(4), "the flag it is in NetBSD");
    set(&guest, fd, 6, 3, &int(60)).unwrap();
    assert_eq!(get(&guest, fd, 6, 3), Err(Errno::ENOPROTOOPT));
    assert_eq!(get(&guest, fd, 6, 2).unwrap(), int(536));
    let local = socket(&guest, 1, 1, 0).unwrap();
    assert_eq!(get(&guest, local, 0, 4).unwrap(), int(0));
    set(&guest, local, 0, 4, &int(1)).unwrap();
    assert_eq!(get(&guest, local, 0, 4).unwrap(), int(1));
    assert_eq!(get(&guest, local, 0, 3), Err(Errno::EINVAL));
    assert_eq!(set(&guest, local, 0, 3, &int(1)), Err(Errno::ENOPROTOOPT));
    assert_eq!(set(&guest, local, 0, 4, &[1]), Err(Errno::EINVAL));
    for (level, option, value, errno) in [
        (SOL_SOCKET, 0x4, vec![1], Errno::EINVAL),
        (SOL_SOCKET, 0x4, vec![], Errno::EINVAL),
        (SOL_SOCKET, 0x1001, int(0), Errno::EINVAL),
        (SOL_SOCKET, 0x1001, int(1 << 30), Errno::ENOBUFS),
        (SOL_SOCKET, 0x80, vec![0; 4], Errno::EINVAL),
        (SOL_SOCKET, 0x80, vec![0xff; 8], Errno::EDOM),
        (SOL_SOCKET, 0x7777, int(1), Errno::ENOPROTOOPT),
        (41, 27, int(1), Errno::ENOPROTOOPT),
        (SOL_SOCKET, 0x4, vec![0; 2049], Errno::EINVAL),
    ] {
        assert_eq!(set(&guest, fd, level, option, &value), Err(errno), "{option:#x}");
    }
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x7777), Err(Errno::ENOPROTOOPT));
    assert_eq!(guest.fails(105, &[fd, SOL_SOCKET, 4, 0, 4]), Errno::EINVAL);
    assert_eq!(guest.fails(105, &[fd, SOL_SOCKET, 4, NOWHERE, 4]), Errno::EFAULT);
    assert_eq!(get(&guest, 1, SOL_SOCKET, 4), Err(Errno::ENOTSOCK));
}

#[test]
fn raw_sockets_are_the_superusers() {
    let guest = Guest::new(&kernel());
    assert!(socket(&guest, 2, 3, 1).is_ok());
    guest.call(23, &[10]).unwrap();
    // Whatever the family.
    for domain in [2, 24, 99] {
        assert_eq!(socket(&guest, domain, 3, 1), Err(Errno::EPERM));
    }
}

#[test]
fn low_ports_and_paths_need_rights() {
    let kernel = kernel();
    let (root, guest) = (Guest::new(&kernel), Guest::new(&kernel));
    root.call(136, &[root.string("/tmp/open"), 0o777]).unwrap();
    root.call(15, &[root.string("/tmp/open"), 0o777]).unwrap();
    root.call(136, &[root.string("/tmp/shut"), 0o700]).unwrap();
    root.call(136, &[root.string("/tmp/fixed"), 0o755]).unwrap();
    let path = |path: &str| [b"\0\x01", path.as_bytes()].concat();
    let listens = |at: &str, mode: u64| {
        let fd = socket(&root, 1, 1, 0).unwrap();
        bind(&root, fd, &path(at)).unwrap();
        root.call(106, &[fd, 5]).unwrap();
        root.call(15, &[root.string(at), mode]).unwrap();
    };
    listens("/tmp/open/all", 0o666);
    listens("/tmp/open/mine", 0o755);
    listens("/tmp/shut/s", 0o777);
    guest.call(23, &[10]).unwrap();
    for domain in [2, 24] {
        for kind in [1, 2] {
            let fd = socket(&guest, domain, kind, 0).unwrap();
            let name = |port: u16| match domain {
                2 => inet([127, 0, 0, 1], port),
                _ => [&[0, 24], &port.to_be_bytes()[..], &[0; 19], &[1], &[0; 4]].concat(),
            };
            assert_eq!(bind(&guest, fd, &name(1)), Err(Errno::EACCES));
            assert_eq!(bind(&guest, fd, &name(1023)), Err(Errno::EACCES));
            assert_eq!(bind(&guest, fd, &name(1024)), Ok(0));
        }
    }
    // Making a name needs write access to the directory.
    let fd = socket(&guest, 1, 1, 0).unwrap();
    for (at, errno) in [
        ("/tmp/fixed/s", Errno::EACCES),
        ("/tmp/shut/t", Errno::EACCES),
        ("/tmp/open/all", Errno::EADDRINUSE),
    ] {
        assert_eq!(bind(&guest, fd, &path(at)), Err(errno), "{at}");
    }
    assert_eq!(bind(&guest, fd, &path("/tmp/open/s")), Ok(0));
    // Connecting needs search access to the directory, and write access to the socket.
    let connect = |at: &str| {
        let fd = socket(&guest, 1, 1, 0).unwrap();
        let name = path(at);
        guest.call(98, &[fd, guest.place(&name), name.len() as u64])
    };
    assert_eq!(connect("/tmp/open/all"), Ok(0));
    assert_eq!(connect("/tmp/open/mine"), Err(Errno::EACCES));
    assert_eq!(connect("/tmp/shut/s"), Err(Errno::EACCES));
    assert_eq!(connect("/tmp/shut/none"), Err(Errno::EACCES));
    assert_eq!(connect("/tmp/fixed/none"), Err(Errno::ENOENT), "nothing is made");
}

/// Sets RLIMIT_SBSIZE.
fn most_buffers(guest: &Guest, bytes: u64) {
    guest.call(195, &[9, guest.place(&[bytes.to_le_bytes(); 2].concat())]).unwrap();
}

/// Returns a client of the user `user`, whose buffers may take so many bytes.
fn user(kernel: &Embedded, user: u64, bytes: u64) -> Guest {
    let guest = Guest::new(kernel);
    guest.call(23, &[user]).unwrap();
    most_buffers(&guest, bytes);
    guest
}

#[test]
fn the_buffers_of_a_user_are_bounded() {
    let kernel = kernel();
    let guest = user(&kernel, 77, 20_000);
    let size = |bytes: u32| bytes.to_le_bytes();
    assert_eq!(socket(&guest, 2, 1, 0), Err(Errno::ENOBUFS));
    let one = socket(&guest, 1, 1, 0).unwrap();
    assert_eq!(guest.fails(135, &[1, 1, 0, guest.buffer()]), Errno::ENOBUFS);
    let two = socket(&guest, 1, 1, 0).unwrap();
    assert_eq!(kernel.system.net.reserved(77), 4 * 4096);
    assert_eq!(socket(&guest, 1, 1, 0), Err(Errno::ENOBUFS));
    // The limit can be used to the last byte.
    set(&guest, one, SOL_SOCKET, 0x1001, &size(7712)).unwrap();
    assert_eq!(set(&guest, one, SOL_SOCKET, 0x1001, &size(7713)), Err(Errno::ENOBUFS));
    assert_eq!(get(&guest, one, SOL_SOCKET, 0x1001).unwrap(), size(7712));
    // The count is the user's, the limit the caller's.
    let other = user(&kernel, 77, 40_000);
    let third = socket(&other, 1, 1, 0).unwrap();
    assert_eq!(kernel.system.net.reserved(77), 20_000 + 2 * 4096);
    assert!(socket(&user(&kernel, 78, 20_000), 1, 1, 0).is_ok());
    // Smaller is always possible; a socket that was shut down has no receive buffer.
    set(&guest, one, SOL_SOCKET, 0x1001, &size(1)).unwrap();
    guest.call(134, &[two, 0]).unwrap();
    guest.close(one).unwrap();
    guest.close(two).unwrap();
    assert_eq!(kernel.system.net.reserved(77), 2 * 4096);
    other.close(third).unwrap();
    assert_eq!(kernel.system.net.reserved(77), 0);
}

#[test]
fn what_fails_leaves_nothing_in_the_account_of_its_user() {
    let limits = Limits { bytes_per_family: 1500, ..Limits::default() };
    let kernel = kernel_with(limits);
    let guest = user(&kernel, 5, 1 << 30);
    let one = socket(&guest, 1, 1, 0).unwrap();
    // A second socket cannot be paid for, nor the other end of a connection.
    assert_eq!(socket(&guest, 1, 1, 0), Err(Errno::ENOBUFS));
    assert_eq!(kernel.system.net.reserved(5), 2 * 4096);
    guest.close(one).unwrap();
    assert_eq!(socket(&guest, 2, 3, 1), Err(Errno::EPERM));
    assert_eq!(guest.fails(135, &[1, 1, 0, guest.buffer()]), Errno::ENOBUFS);
    assert_eq!(kernel.system.net.reserved(5), 0);
}
