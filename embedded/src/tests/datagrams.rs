use super::super::testing::{Guest, kernel};
use super::sockets::{SOL_SOCKET, bind, get, inet, name, set, socket};
use super::streams::{blocking, connect, local, pair, poll, seen};
use kernel::Errno;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn send(guest: &Guest, fd: u64, data: &[u8], to: &[u8]) -> Result<i64, Errno> {
    guest.put(guest.buffer(), data);
    let to_at = if to.is_empty() { 0 } else { guest.place(to) };
    guest.call(133, &[fd, guest.buffer(), data.len() as u64, 0, to_at, to.len() as u64])
}

/// Receives a message and its sender.
fn receive(guest: &Guest, fd: u64, flags: u64) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let (from, len) = (guest.buffer() + 100_000, guest.place(&100u32.to_le_bytes()));
    let count = guest.call(29, &[fd, guest.buffer(), 50_000, flags, from, len])?;
    let from = guest.get(from, guest.get(len, 1)[0].into());
    Ok((guest.get(guest.buffer(), count as usize), from))
}

fn udp(guest: &Guest, port: u16) -> u64 {
    let fd = socket(guest, 2, 2, 0).unwrap();
    if port > 0 {
        bind(guest, fd, &inet(LOOPBACK, port)).unwrap();
    }
    fd
}

#[test]
fn udp_messages_keep_their_bounds_and_say_who_sent_them() {
    for (domain, any) in [
        (2, inet([0; 4], 500)),
        (24, {
            let mut any = vec![0; 28];
            (any[1], any[2], any[3]) = (24, 1, 0xf4);
            any
        }),
    ] {
        let kernel = kernel();
        let guest = Guest::new(&kernel);
        let server = socket(&guest, domain, 2, 0).unwrap();
        bind(&guest, server, &any).unwrap();
        let client = socket(&guest, domain, 2, 0).unwrap();
        let mut to = any.clone();
        if domain == 24 {
            to[23] = 1;
        }
        assert_eq!(send(&guest, client, b"one", &to), Ok(3));
        assert_eq!(send(&guest, client, b"", &to), Ok(0));
        assert_eq!(send(&guest, client, b"three", &to), Ok(5));
        let mine = name(&guest, client);
        let (data, from) = receive(&guest, server, 2).unwrap();
        assert_eq!((data, &from[..4]), (b"one".to_vec(), &mine[..4]));
        let (data, from) = receive(&guest, server, 0).unwrap();
        assert_eq!(data, b"one");
        assert_eq!(receive(&guest, server, 0).unwrap().0, b"");
        assert_eq!(send(&guest, server, b"back", &from), Ok(4));
        // The bytes that do not fit into the buffer of a read are lost.
        assert_eq!(guest.read(server, 2).unwrap(), b"th");
        assert_eq!(receive(&guest, server, 0x80), Err(Errno::EAGAIN));
        assert_eq!(receive(&guest, client, 0).unwrap().0, b"back");
        guest.process.release();
        assert_eq!((kernel.usage().ports, kernel.usage().bytes), (0, 0));
    }
}

#[test]
fn a_receiver_waits() {
    let guest = Guest::new(&kernel());
    let (server, client) = (udp(&guest, 500), udp(&guest, 0));
    let mut pending = guest.start(3, &[server, guest.buffer() + 1000, 100]);
    assert_eq!(pending.run(), None);
    send(&guest, client, b"hi", &inet(LOOPBACK, 500)).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([2, 0])));
    let mut pending = guest.start(3, &[server, guest.buffer(), 100]);
    assert_eq!(pending.run(), None);
    assert_eq!(pending.interrupt(), Err(Errno::EINTR));
}

#[test]
fn udp_connects_and_parts() {
    let guest = Guest::new(&kernel());
    let (one, two, three) = (udp(&guest, 501), udp(&guest, 502), udp(&guest, 503));
    let fd = udp(&guest, 0);
    assert_eq!(guest.write(fd, b"x"), Err(Errno::EDESTADDRREQ));
    connect(&guest, fd, &inet(LOOPBACK, 501)).unwrap();
    let mine = name(&guest, fd);
    assert_eq!(mine[4..8], LOOPBACK);
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(receive(&guest, one, 0).unwrap(), (b"x".to_vec(), mine.clone()));
    assert_eq!(send(&guest, fd, b"x", &inet(LOOPBACK, 502)), Err(Errno::EISCONN));
    // The socket gets datagrams from its peer only.
    send(&guest, three, b"no", &mine).unwrap();
    send(&guest, one, b"yes", &mine).unwrap();
    assert_eq!(receive(&guest, fd, 0).unwrap().0, b"yes");
    connect(&guest, fd, &inet(LOOPBACK, 502)).unwrap();
    assert_eq!(guest.write(fd, b"y"), Ok(1));
    assert_eq!(receive(&guest, two, 0).unwrap().0, b"y");
    // A bad address disconnects it from its peer; the port stays.
    assert_eq!(connect(&guest, fd, &[0, 0, 0, 0]), Err(Errno::EAFNOSUPPORT));
    assert_eq!(guest.fails(31, &[fd, guest.buffer(), guest.buffer()]), Errno::ENOTCONN);
    let left = name(&guest, fd);
    assert_eq!((&left[2..4], &left[4..8]), (&mine[2..4], &[0; 4][..]));
    send(&guest, three, b"now", &mine).unwrap();
    assert_eq!(receive(&guest, fd, 0).unwrap().0, b"now");
}

/// Returns the name `::ffff:127.0.0.1`.
fn in_six(port: u16) -> Vec<u8> {
    let mut name = vec![0; 28];
    name[1] = 24;
    name[2..4].copy_from_slice(&port.to_be_bytes());
    (name[18], name[19], name[20], name[23]) = (0xff, 0xff, 127, 1);
    name
}

#[test]
fn an_ipv6_socket_may_speak_to_ipv4() {
    let guest = Guest::new(&kernel());
    let six = socket(&guest, 24, 2, 0).unwrap();
    assert_eq!(send(&guest, six, b"x", &in_six(90)), Err(Errno::EINVAL));
    set(&guest, six, 41, 27, &0u32.to_le_bytes()).unwrap();
    let mut all = in_six(80);
    all[18..].fill(0);
    bind(&guest, six, &all).unwrap();
    let four = udp(&guest, 90);
    assert_eq!(send(&guest, four, b"hello", &inet([127, 0, 0, 1], 80)), Ok(5));
    let (data, from) = receive(&guest, six, 0).unwrap();
    let mut told = in_six(90);
    told[0] = 28;
    assert_eq!((&data[..], from), (&b"hello"[..], told));
    assert_eq!(send(&guest, six, b"back", &in_six(90)), Ok(4));
    let (data, from) = receive(&guest, four, 0).unwrap();
    assert_eq!((&data[..], &from[..8]), (&b"back"[..], &[16, 2, 0, 80, 127, 0, 0, 1][..]));
    // While connected, the socket has an IPv4 address.
    guest.call(98, &[six, guest.place(&in_six(90)), 28]).unwrap();
    assert_eq!(name(&guest, six)[18..24], [0xff, 0xff, 127, 0, 0, 1]);
    assert_eq!(guest.write(six, b"again"), Ok(5));
    assert_eq!(receive(&guest, four, 0).unwrap().0, b"again");
    send(&guest, four, b"answer", &inet([127, 0, 0, 1], 80)).unwrap();
    assert_eq!(receive(&guest, six, 0).unwrap().0, b"answer");
    assert_eq!(guest.fails(98, &[six, guest.place(&in_six(0)), 28]), Errno::EADDRNOTAVAIL);
    assert_eq!(name(&guest, six)[8..24], [0; 16]);
    // If there are two sockets, the IPv4 one gets it.
    let own = socket(&guest, 2, 2, 0).unwrap();
    assert_eq!(bind(&guest, own, &inet([127, 0, 0, 1], 80)), Err(Errno::EADDRINUSE));
    set(&guest, own, SOL_SOCKET, 4, &1u32.to_le_bytes()).unwrap();
    assert_eq!(bind(&guest, own, &inet([127, 0, 0, 1], 80)), Ok(0));
    send(&guest, four, b"mine", &inet([127, 0, 0, 1], 80)).unwrap();
    assert_eq!(receive(&guest, own, 0).unwrap().0, b"mine");
    assert_eq!(receive(&guest, six, 0x80), Err(Errno::EAGAIN));
}

#[test]
fn another_user_does_not_share_a_port() {
    let kernel = kernel();
    let uidinfo = [77, 78, 77].map(|user| {
        let guest = Guest::new(&kernel);
        guest.call(23, &[user]).unwrap();
        guest
    });
    let shares = |guest: &Guest, domain: u64| {
        let fd = socket(guest, domain, 2, 0).unwrap();
        set(guest, fd, SOL_SOCKET, 0x200, &1u32.to_le_bytes()).unwrap();
        fd
    };
    let at = inet([127, 0, 0, 1], 5000);
    assert_eq!(bind(&uidinfo[0], shares(&uidinfo[0], 2), &at), Ok(0));
    for at in [&at, &inet([0; 4], 5000)] {
        assert_eq!(bind(&uidinfo[1], shares(&uidinfo[1], 2), at), Err(Errno::EADDRINUSE));
    }
    assert_eq!(bind(&uidinfo[2], shares(&uidinfo[2], 2), &at), Ok(0));
    // The superuser may, and two wildcards go together, as in NetBSD; IPv6 does not check users.
    let root = Guest::new(&kernel);
    assert_eq!(bind(&root, shares(&root, 2), &at), Ok(0));
    for guest in &uidinfo[..2] {
        assert_eq!(bind(guest, shares(guest, 2), &inet([0; 4], 5001)), Ok(0));
        let mut six = vec![0; 28];
        (six[1], six[2], six[3], six[23]) = (24, 19, 136, 1);
        assert_eq!(bind(guest, shares(guest, 24), &six), Ok(0));
    }
}

#[test]
fn udp_says_no_where_it_must() {
    let (guest, proc) = seen(&kernel());
    let (server, fd) = (udp(&guest, 500), udp(&guest, 0));
    for (to, errno) in [
        (inet([10, 0, 0, 1], 9), Errno::EADDRNOTAVAIL),
        (inet([127, 0, 0, 2], 9), Errno::EHOSTUNREACH),
        (inet(LOOPBACK, 0), Errno::EADDRNOTAVAIL),
        (inet(LOOPBACK, 9)[..15].to_vec(), Errno::EINVAL),
        (vec![0, 2], Errno::EINVAL),
    ] {
        assert_eq!(send(&guest, fd, b"x", &to), Err(errno), "{to:?}");
    }
    assert_eq!(send(&guest, fd, &[0; 9216], &inet(LOOPBACK, 500)), Ok(9216));
    assert_eq!(send(&guest, fd, &[0; 9217], &inet(LOOPBACK, 500)), Err(Errno::EMSGSIZE));
    guest.read(server, 1).unwrap();
    // Without a receiver, a sender to an address gets no error; a connected one does.
    assert_eq!(send(&guest, fd, b"x", &inet(LOOPBACK, 9)), Ok(1));
    assert_eq!(get(&guest, fd, SOL_SOCKET, 0x1007).unwrap(), [0; 4]);
    connect(&guest, fd, &inet(LOOPBACK, 9)).unwrap();
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(poll(&proc, fd), 0x45);
    assert_eq!(guest.write(fd, b"x"), Err(Errno::ECONNREFUSED));
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(guest.read(fd, 1), Err(Errno::ECONNREFUSED));
    // A connect to another address reports it too, and takes effect.
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(connect(&guest, fd, &inet(LOOPBACK, 500)), Err(Errno::ECONNREFUSED));
    assert_eq!(guest.write(fd, b"y"), Ok(1));
    assert_eq!(guest.read(server, 1).unwrap(), b"y");
    // Over IPv6, the family of a name is checked before the rest of it.
    let six = socket(&guest, 24, 2, 0).unwrap();
    assert_eq!(send(&guest, six, b"x", &inet(LOOPBACK, 0)), Err(Errno::EAFNOSUPPORT));
    // There is no out-of-band data.
    assert_eq!(guest.fails(29, &[fd, guest.buffer(), 1, 1, 0, 0]), Errno::EOPNOTSUPP);
    assert_eq!(guest.fails(133, &[fd, guest.buffer(), 1, 1, 0, 0]), Errno::EOPNOTSUPP);
    // After a shutdown.
    guest.call(134, &[fd, 1]).unwrap();
    assert_eq!(guest.write(fd, b"x"), Err(Errno::EPIPE));
    guest.call(134, &[server, 0]).unwrap();
    assert_eq!(send(&guest, udp(&guest, 0), b"x", &inet(LOOPBACK, 500)), Ok(1));
    assert_eq!(guest.read(server, 1).unwrap(), b"");
}

#[test]
fn a_full_buffer_loses_datagrams_and_counts_them() {
    let guest = Guest::new(&kernel());
    let (server, fd) = (udp(&guest, 500), udp(&guest, 0));
    connect(&guest, fd, &inet(LOOPBACK, 500)).unwrap();
    blocking(&guest, server, false);
    // The socket takes as many as in a rump kernel: small ones are bounded by the buffers they use.
    let mut lost = 0;
    for (len, most) in [(1, 82), (100, 82), (1000, 27)] {
        for _ in 0..122 {
            assert_eq!(guest.write(fd, &vec![7; len]), Ok(len as i64));
        }
        let mut came = 0;
        while guest.read(server, 2000).is_ok() {
            came += 1;
        }
        lost += 122 - most;
        assert_eq!(came, most, "{len}");
        let count = get(&guest, server, SOL_SOCKET, 0x1009).unwrap();
        assert_eq!(count, (lost as u32).to_le_bytes());
    }
}

#[test]
fn local_datagrams_are_refused_when_there_is_no_room() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 2);
    blocking(&guest, two, false);
    for (len, most) in [(1, 8), (256, 8), (1024, 3)] {
        for _ in 0..most {
            assert_eq!(guest.write(one, &vec![7; len]), Ok(len as i64));
        }
        assert_eq!(guest.write(one, &vec![7; len]), Err(Errno::ENOBUFS), "{len}");
        let mut came = 0;
        while guest.read(two, 3000).is_ok() {
            came += 1;
        }
        assert_eq!(came, most);
    }
    assert_eq!(guest.write(one, &[0; 2560]), Ok(2560));
    assert_eq!(guest.write(one, &[0; 2561]), Err(Errno::EMSGSIZE));
}

#[test]
fn local_datagrams_go_to_names() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let server = socket(&guest, 1, 2, 0).unwrap();
    bind(&guest, server, &local("/tmp/d")).unwrap();
    let fd = socket(&guest, 1, 2, 0).unwrap();
    assert_eq!(send(&guest, fd, b"abc", &local("/tmp/d")), Ok(3));
    assert_eq!(receive(&guest, server, 0).unwrap(), (b"abc".to_vec(), vec![2, 1]));
    bind(&guest, fd, &local("/tmp/e")).unwrap();
    connect(&guest, fd, &local("/tmp/d")).unwrap();
    assert_eq!(send(&guest, fd, b"x", &local("/tmp/d")), Err(Errno::EISCONN));
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    assert_eq!(receive(&guest, server, 0).unwrap().1, b"\x08\x01/tmp/e");
    // A socket connected to itself.
    connect(&guest, fd, &local("/tmp/e")).unwrap();
    assert_eq!(guest.write(fd, b"self"), Ok(4));
    assert_eq!(receive(&guest, fd, 0).unwrap().0, b"self");
    connect(&guest, fd, &local("/tmp/d")).unwrap();
    guest.close(server).unwrap();
    assert_eq!(guest.write(fd, b"x"), Err(Errno::ECONNRESET));
    assert_eq!(guest.write(fd, b"x"), Err(Errno::EDESTADDRREQ));
    assert_eq!(send(&guest, fd, b"x", &local("/tmp/d")), Err(Errno::ECONNREFUSED));
    assert_eq!(send(&guest, fd, b"x", &local("/none")), Err(Errno::ENOENT));
    guest.process.release();
    assert_eq!(kernel.usage().files, 0);
}

#[test]
fn sequenced_packets_are_streams_of_messages() {
    let guest = Guest::new(&kernel());
    let (one, two) = pair(&guest, 5);
    blocking(&guest, two, false);
    blocking(&guest, one, false);
    guest.write(one, b"abc").unwrap();
    guest.write(one, b"").unwrap();
    guest.write(one, b"defg").unwrap();
    assert_eq!(guest.read(two, 2).unwrap(), b"ab");
    // An empty datagram is skipped.
    assert_eq!(guest.read(two, 10).unwrap(), b"defg");
    assert_eq!(guest.read(two, 10), Err(Errno::EAGAIN));
    assert_eq!(guest.write(one, &[0; 4097]), Err(Errno::EMSGSIZE));
    for (len, most, errno) in
        [(1, 16, Errno::EAGAIN), (64, 16, Errno::EAGAIN), (512, 8, Errno::EMSGSIZE)]
    {
        for _ in 0..most {
            assert_eq!(guest.write(one, &vec![1; len]), Ok(len as i64));
        }
        assert_eq!(guest.write(one, &vec![1; len]), Err(errno), "{len}");
        while guest.read(two, 1000).is_ok() {}
    }
    for _ in 0..16 {
        guest.write(one, b"x").unwrap();
    }
    blocking(&guest, one, true);
    let mut pending = guest.start(4, &[one, guest.buffer(), 1]);
    assert_eq!(pending.run(), None);
    guest.read(two, 1).unwrap();
    assert!(pending.woken());
    assert_eq!(pending.run(), Some(Ok([1, 0])));
    let head = socket(&guest, 1, 5, 0).unwrap();
    bind(&guest, head, &local("/tmp/q")).unwrap();
    guest.call(106, &[head, 1]).unwrap();
    let client = socket(&guest, 1, 5, 0).unwrap();
    connect(&guest, client, &local("/tmp/q")).unwrap();
    let server = guest.call(30, &[head, 0, 0]).unwrap() as u64;
    guest.write(client, b"one").unwrap();
    guest.close(client).unwrap();
    assert_eq!(guest.read(server, 10).unwrap(), b"one");
    assert_eq!(guest.read(server, 10).unwrap(), b"");
}

#[test]
fn several_share_a_port_if_all_say_so() {
    let guest = Guest::new(&kernel());
    // With SO_REUSEPORT several sockets share a port, and the last one gets the datagrams.
    let fds = [udp(&guest, 0), udp(&guest, 0)];
    for fd in fds {
        set(&guest, fd, SOL_SOCKET, 0x200, &1u32.to_le_bytes()).unwrap();
        assert_eq!(bind(&guest, fd, &inet(LOOPBACK, 700)), Ok(0));
    }
    assert_eq!(bind(&guest, udp(&guest, 0), &inet(LOOPBACK, 700)), Err(Errno::EADDRINUSE));
    send(&guest, udp(&guest, 0), b"x", &inet(LOOPBACK, 700)).unwrap();
    assert_eq!(receive(&guest, fds[0], 0x80), Err(Errno::EAGAIN));
    assert_eq!(receive(&guest, fds[1], 0x80).unwrap().0, b"x");
}
