//! The ring distinguishes a peer that sends no more from one that is gone.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rumpring_ring::{Config, Event, Ring, Socket, Then};
use support::{PATIENCE, chunk, small};

/// Handles events until one is wanted; none before it may be a hang-up.
fn until(ring: &mut Ring, mut wanted: impl FnMut(&Event) -> bool) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        ring.wait(Some(Instant::now() + Duration::from_millis(50)), || true).unwrap();
        while let Some(event) = ring.next_event() {
            if wanted(&event) {
                return;
            }
            assert!(!matches!(event, Event::HungUp { .. }), "nobody has gone yet");
        }
    }
    panic!("an event did not come; {:?}", ring.stats());
}

fn ends(ring: &mut Ring, socket: Socket) {
    until(
        ring,
        |event| matches!(event, Event::RecvEnded { socket: of, error: None } if *of == socket),
    );
    ring.watch_hang_up(socket);
    ring.watch_hang_up(socket);
}

fn hangs_up(ring: &mut Ring, socket: Socket) {
    until(ring, |event| matches!(event, Event::HungUp { socket: of } if *of == socket));
}

/// Sends a byte and has the peer read it: a hang-up that the poll had to report is reported by then.
fn answer(ring: &mut Ring, socket: Socket, far: &mut impl Read) {
    let chunk = chunk(ring, b"!");
    ring.send(socket, [chunk], Then::Nothing).unwrap();
    until(ring, |event| matches!(event, Event::Sent { result: Ok(1), .. }));
    far.read_exact(&mut [0]).unwrap();
}

fn closes(ring: &mut Ring, socket: Socket) {
    ring.close(socket);
    until(ring, |event| matches!(event, Event::Closed { socket: of } if *of == socket));
    assert_eq!(ring.stats().sockets, 0);
}

fn unix(config: Config) -> (Ring, UnixStream, Socket) {
    let mut ring = Ring::new(&config).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = ring.adopt(near.into()).unwrap();
    ring.resume(socket);
    (ring, far, socket)
}

#[test]
fn a_unix_peer_that_sends_no_more_is_not_one_that_has_gone() {
    let (mut ring, mut far, socket) = unix(small());
    far.shutdown(Shutdown::Write).unwrap();
    ends(&mut ring, socket);
    for _ in 0..3 {
        answer(&mut ring, socket, &mut far);
        far.shutdown(Shutdown::Write).unwrap();
    }
    drop(far);
    hangs_up(&mut ring, socket);
    closes(&mut ring, socket);
}

#[test]
fn a_unix_peer_that_has_gone_before_is_found_out() {
    let (mut ring, far, socket) = unix(small());
    drop(far);
    ends(&mut ring, socket);
    hangs_up(&mut ring, socket);
    closes(&mut ring, socket);
}

#[test]
fn a_watched_socket_is_closed_and_its_slot_used_again() {
    let (mut ring, far, socket) = unix(Config { sockets: 1, ..small() });
    far.shutdown(Shutdown::Write).unwrap();
    ends(&mut ring, socket);
    closes(&mut ring, socket);
    let (near, mut far) = UnixStream::pair().unwrap();
    let next = ring.adopt(near.into()).unwrap();
    ring.resume(next);
    far.write_all(b"x").unwrap();
    until(&mut ring, |event| matches!(event, Event::Received { socket, .. } if *socket == next));
    closes(&mut ring, next);
}

#[test]
fn a_tcp_peer_that_resets_the_connection_has_gone() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = ring.adopt(listener.accept().unwrap().0.into()).unwrap();
    ring.resume(socket);
    far.shutdown(Shutdown::Write).unwrap();
    ends(&mut ring, socket);
    answer(&mut ring, socket, &mut far);
    // While nothing is sent, a closed peer looks as before.
    drop(far);
    let chunk = chunk(&ring, b"!");
    ring.send(socket, [chunk], Then::Nothing).unwrap();
    hangs_up(&mut ring, socket);
    closes(&mut ring, socket);
}
