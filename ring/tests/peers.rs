//! Peers of connections: each is reported correctly, with the right socket, or not at all.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rumpring_ring::{Config, Error, Event, Features, Peer, PeerQuery, Ring};
use support::{Note, PATIENCE, Server, small};

fn asking() -> Config {
    Config { peers: true, ..small() }
}

fn told(server: &Server) -> usize {
    server.log.iter().filter(|note| matches!(note, Note::Accepted(_))).count()
}

/// Returns the groups of the calling thread, by getgroups(2).
fn groups() -> Vec<u32> {
    let mut groups = vec![0; 1 << 16];
    // SAFETY: the buffer is ours and has so many words.
    let count = unsafe { libc::getgroups(groups.len() as i32, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).unwrap());
    groups
}

fn me(groups: Vec<u32>) -> Peer {
    // SAFETY: these take no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Peer::User { pid: std::process::id() as i32, uid, gid, groups }
}

#[test]
fn a_user_is_told_with_process_and_groups() {
    for (ask, groups) in [(PeerQuery::Peer, vec![]), (PeerQuery::PeerAndGroups, groups())] {
        let config = asking();
        let mut server = Server::asking(&config, ask);
        let (mut client, socket) = server.connect();
        assert_eq!(server.peers[&socket], me(groups));
        // From here on the socket is like any other.
        server.ring.resume(socket);
        client.write_all(b"hello").unwrap();
        server.until("hello", |server| server.bytes(socket) == b"hello");
        server.close(socket);
        server.assert_empty(&config);
    }
}

/// Users with no groups, many and too many. Only root can set them.
#[test]
fn groups_are_told_up_to_a_thousand() {
    let config = asking();
    let mut server = Server::asking(&config, PeerQuery::PeerAndGroups);
    for count in [0, 1, 3, 1024, 1025, 5000] {
        let groups: Vec<u32> = (100..100 + count).collect();
        let (path, member) = (server.path(), groups.clone());
        let connect = move || {
            let client = become_member(&member).then(|| UnixStream::connect(path).unwrap());
            client.inspect(|_| set_gid(77))
        };
        let client = thread::spawn(connect).join().unwrap();
        let Some(_client) = client else { return };
        let socket = server.accept();
        let expected = if count > 1024 { Vec::new() } else { groups };
        assert_eq!(server.peers[&socket], me(expected), "of {count} groups");
        server.close(socket);
    }
    server.assert_empty(&config);
}

/// Puts this thread (not the others, as libc's function would) into groups. Returns `true` if it may.
fn become_member(groups: &[u32]) -> bool {
    // SAFETY: the groups are ours, and as many as said.
    unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0 }
}

/// Changes the thread's group ids, which a query does not see after connect(2).
fn set_gid(gid: u32) {
    // SAFETY: takes no pointers; the bare system call is for this thread only.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }, 0);
}

#[test]
fn an_address_is_told_of_either_family() {
    for (listen, dial) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::1"),
    ] {
        let Ok(listener) = TcpListener::bind(listen) else {
            assert!(listen.starts_with('['), "no {listen}");
            continue;
        };
        let config = asking();
        let mut server = Server::new(&config);
        let port = listener.local_addr().unwrap().port();
        server.ring.listen_for(listener.into(), PeerQuery::PeerAndGroups).unwrap();
        for _ in 0..20 {
            let client = TcpStream::connect((dial, port)).unwrap();
            let socket = server.accept();
            let address = Peer::Address(client.local_addr().unwrap());
            assert_eq!(server.peers[&socket], address, "{dial} at {listen}");
            server.close(socket);
        }
        server.assert_empty(&config);
    }
}

#[test]
fn nobody_is_asked_by_a_plain_listener() {
    let mut server = Server::new(&asking());
    let sqes = |server: &Server| server.ring.stats().sqes;
    server.connect();
    let before = sqes(&server);
    let (_client, socket) = server.connect();
    assert!(!server.peers.contains_key(&socket));
    assert_eq!(sqes(&server), before, "a multishot accept needs nothing more");
}

#[test]
fn asking_must_be_possible() {
    let listener = || -> OwnedFd { TcpListener::bind("127.0.0.1:0").unwrap().into() };
    let mut ring = Ring::new(&small()).unwrap();
    let error = ring.listen_for(listener(), PeerQuery::Peer).unwrap_err();
    assert!(matches!(error, Error::Config(_)) && error.to_string().contains("peers"), "{error}");
    let mut ring = Ring::new(&asking()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = ring.listen_for(file.into(), PeerQuery::Peer).unwrap_err();
    assert!(matches!(error, Error::System { what: "SO_DOMAIN", .. }), "{error}");
    let without = Features::GETSOCKOPT;
    let mut ring = Ring::new(&Config { without, ..asking() }).unwrap();
    let error = ring.listen_for(listener(), PeerQuery::Peer).unwrap_err();
    assert!(matches!(error, Error::Missing { since: "6.7", .. }), "{error}");
    ring.listen(listener()).unwrap();
}

/// Has clients vanish before the peer query. The kernel may still know who they were; if not, they are
/// never reported. Either way nothing is left.
#[test]
fn who_vanishes_leaves_nothing() {
    let config = asking();
    let mut server = Server::asking(&config, PeerQuery::PeerAndGroups);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    server.ring.listen_for(tcp.into(), PeerQuery::Peer).unwrap();
    for round in 1..=1000 {
        drop(server.dial());
        reset(TcpStream::connect(address).unwrap());
        if round % 20 != 0 {
            continue;
        }
        let done = |server: &Server| told(server) as u64 + server.ring.stats().unknown_peers;
        server.until("all of them", |server| done(server) == 2 * round);
        close_all(&mut server);
    }
    let stats = server.ring.stats();
    println!("told of {}, unknown {}", told(&server), stats.unknown_peers);
    assert_eq!(stats.accepts, 2000, "{stats:?}");
    server.assert_empty(&config);
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (fd, size) = (stream.as_raw_fd(), size_of_val(&linger) as libc::socklen_t);
    let value = (&raw const linger).cast();
    // SAFETY: `linger` is ours and as large as `size` says.
    let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
    assert_eq!(done, 0);
}

fn close_all(server: &mut Server) {
    for note in server.log.clone() {
        if let Note::Accepted(socket) = note {
            server.ring.close(socket);
        }
    }
    server.until("all closed", |server| server.ring.stats().sockets == 0);
}

/// Has a thousand clients connect at once to 64 slots; each is sent the address it was reported by.
#[test]
fn a_thousand_at_once_are_each_told_by_their_own_address() {
    let mut ring = Ring::new(&asking()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    ring.listen_for(listener.into(), PeerQuery::Peer).unwrap();
    let served = thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| scope.spawn(move || (0..50).for_each(|_| hear_own_address(address))))
            .collect();
        let served = tell_addresses(&mut ring, 1000);
        clients.into_iter().for_each(|client| client.join().unwrap());
        served
    });
    let stats = ring.stats();
    println!("served {served} with {} slots, {stats:?}", asking().sockets);
    assert_eq!((served, stats.accepts, stats.unknown_peers, stats.sockets), (1000, 1000, 0, 0));
}

fn hear_own_address(server: SocketAddr) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, stream.local_addr().unwrap().to_string());
}

fn tell_addresses(ring: &mut Ring, many: usize) -> usize {
    let (mut served, end) = (0, Instant::now() + PATIENCE);
    while served < many {
        assert!(Instant::now() < end, "served {served}, {:?}", ring.stats());
        ring.wait(Some(Instant::now() + Duration::from_millis(50)), || true).unwrap();
        while let Some(event) = ring.next_event() {
            match event {
                Event::Accepted { socket, peer: Some(Peer::Address(address)), .. } => {
                    let chunk = support::chunk(ring, address.to_string().as_bytes());
                    ring.send(socket, [chunk], Default::default()).unwrap();
                }
                Event::Sent { socket, .. } => ring.close(socket),
                Event::Closed { .. } => served += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    served
}

/// Has more clients connect at once than there are questions, and stops the listener at every stage of
/// asking them.
#[test]
fn stopping_in_the_middle_tells_no_more() {
    let mut stages = 0;
    for turns in 0..8 {
        let config = Config { sockets: 256, ..asking() };
        let mut server = Server::asking(&config, PeerQuery::PeerAndGroups);
        let clients: Vec<UnixStream> = (0..100).map(|_| server.dial()).collect();
        for _ in 0..turns {
            server.turn(Duration::from_millis(1));
        }
        let (before, asked) = (told(&server), server.ring.stats().sockets as usize);
        stages += usize::from(before < asked);
        server.ring.stop_listening(server.listener);
        server.settle(Duration::from_millis(20));
        assert_eq!(told(&server), before, "after {turns} turns");
        close_all(&mut server);
        server.assert_empty(&config);
        for mut client in clients {
            assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
    }
    println!("questions were in flight in {stages} of 8 rounds");
    assert!(stages > 0);
}

#[test]
fn dropping_the_ring_in_the_middle_closes_all() {
    for turns in 0..6 {
        let mut server = Server::asking(&asking(), PeerQuery::PeerAndGroups);
        let clients: Vec<UnixStream> = (0..50).map(|_| server.dial()).collect();
        for _ in 0..turns {
            server.turn(Duration::from_millis(1));
        }
        drop(server);
        for mut client in clients {
            assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
    }
}

#[test]
fn asks_with_tiny_queues() {
    for (entries, completions) in [(1, 1), (1, 2), (2, 2)] {
        let config = Config { entries, completions, sockets: 200, ..asking() };
        let mut server = Server::asking(&config, PeerQuery::PeerAndGroups);
        let _clients: Vec<UnixStream> = (0..100).map(|_| server.dial()).collect();
        server.until("all told", |server| told(server) == 100);
        assert!(server.peers.values().all(|peer| *peer == me(groups())));
        close_all(&mut server);
        server.assert_empty(&config);
    }
}
