//! Adopting: sockets that were connected elsewhere, of both families, again and again, and too many.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rumpring_ring::{Config, Error, Event, Ring, Socket, Then};
use support::{PATIENCE, chunk, small};

/// Has the ring adopt a socket, and returns the far end and the handle.
fn adopted(ring: &mut Ring) -> (UnixStream, Socket) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    (far, ring.adopt(near.into()).unwrap())
}

/// Returns the first event that is wanted.
fn until(ring: &mut Ring, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        ring.wait(Some(Instant::now() + Duration::from_millis(50)), || true).unwrap();
        while let Some(event) = ring.next_event() {
            if wanted(&event) {
                return event;
            }
        }
    }
    panic!("an event did not come; {:?}", ring.stats());
}

fn receive(ring: &mut Ring, from: Socket, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    until(ring, |event| {
        if let Event::Received { socket, data } = event
            && *socket == from
        {
            bytes.extend_from_slice(data);
        }
        bytes.len() >= len
    });
    bytes
}

fn close(ring: &mut Ring, which: Socket) {
    ring.close(which);
    until(ring, |event| matches!(event, Event::Closed { socket } if *socket == which));
}

fn echo(ring: &mut Ring, far: &mut (impl Read + Write), socket: Socket) {
    ring.resume(socket);
    far.write_all(b"hello").unwrap();
    assert_eq!(receive(ring, socket, 5), b"hello");
    let answer = chunk(ring, b"world");
    ring.send(socket, [answer], Then::Nothing).unwrap();
    until(ring, |event| matches!(event, Event::Sent { result: Ok(5), .. }));
    let mut answer = [0; 5];
    far.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
}

#[test]
fn echoes_both_ways() {
    let mut ring = Ring::new(&small()).unwrap();
    let (mut far, socket) = adopted(&mut ring);
    echo(&mut ring, &mut far, socket);
    close(&mut ring, socket);
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "the ordinary descriptor is closed, too");
    assert_eq!(ring.stats().sockets, 0);
}

#[test]
fn tcp_without_a_copy() {
    let mut ring = Ring::new(&Config { zero_copy_from: Some(1), ..small() }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // The socket's own blocking mode does not matter.
    near.set_nonblocking(true).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = ring.adopt(near.into()).unwrap();
    echo(&mut ring, &mut far, socket);
    let stats = ring.stats();
    let has = ring.features().contains(rumpring_ring::Features::SEND_ZC);
    assert_eq!(stats.zero_copy_sends, u64::from(has), "{stats:?}");
}

#[test]
fn a_slot_is_used_again_and_again() {
    let config = Config { sockets: 2, ..small() };
    let mut ring = Ring::new(&config).unwrap();
    let (mut steady, first) = adopted(&mut ring);
    let mut before = first;
    for _ in 0..500 {
        let (mut far, socket) = adopted(&mut ring);
        assert!(socket != before && socket.index() == 1);
        ring.resume(socket);
        far.write_all(b"x").unwrap();
        assert_eq!(receive(&mut ring, socket, 1), b"x");
        close(&mut ring, socket);
        before = socket;
    }
    echo(&mut ring, &mut steady, first);
}

#[test]
fn a_full_table_is_an_error_until_a_slot_is_free() {
    let mut ring = Ring::new(&Config { sockets: 3, ..small() }).unwrap();
    let held: Vec<_> = (0..3).map(|_| adopted(&mut ring)).collect();
    let (near, mut far) = UnixStream::pair().unwrap();
    let error = ring.adopt(near.into()).unwrap_err();
    assert!(matches!(error, Error::TableFull { sockets: 3 }), "{error}");
    assert!(error.to_string().contains("table of 3 sockets is full"), "{error}");
    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "what was not adopted is closed");
    close(&mut ring, held[1].1);
    let (mut far, socket) = adopted(&mut ring);
    assert_eq!(socket.index(), held[1].1.index());
    echo(&mut ring, &mut far, socket);
}

#[test]
fn a_peer_that_hangs_up_is_noticed() {
    let mut ring = Ring::new(&small()).unwrap();
    let (far, socket) = adopted(&mut ring);
    ring.resume(socket);
    drop(far);
    let event = until(&mut ring, |event| matches!(event, Event::RecvEnded { .. }));
    assert!(matches!(event, Event::RecvEnded { socket: of, error: None } if of == socket));
    close(&mut ring, socket);
    // The end is reported also before anything was received.
    let (far, socket) = adopted(&mut ring);
    drop(far);
    ring.resume(socket);
    until(&mut ring, |event| matches!(event, Event::RecvEnded { socket: of, .. } if *of == socket));
}

#[test]
fn a_ring_listens_or_adopts() {
    let dir = tempfile::tempdir().unwrap();
    let listener = |name| -> OwnedFd { UnixListener::bind(dir.path().join(name)).unwrap().into() };
    let mut ring = Ring::new(&small()).unwrap();
    let (mut far, socket) = adopted(&mut ring);
    let error = ring.listen(listener("one")).unwrap_err();
    assert!(matches!(error, Error::Allocator(_)), "{error}");
    echo(&mut ring, &mut far, socket);
    let mut ring = Ring::new(&small()).unwrap();
    let listening = ring.listen(listener("two")).unwrap();
    let pair = || UnixStream::pair().unwrap().0.into();
    assert!(matches!(ring.adopt(pair()).unwrap_err(), Error::Allocator(_)));
    ring.stop_listening(listening);
    assert!(matches!(ring.adopt(pair()).unwrap_err(), Error::Allocator(_)), "that is for good");
}

#[test]
fn what_is_no_socket_is_refused() {
    let mut ring = Ring::new(&small()).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = ring.adopt(file.into()).unwrap_err();
    assert!(matches!(error, Error::System { what: "SO_DOMAIN", .. }), "{error}");
    adopted(&mut ring);
}
