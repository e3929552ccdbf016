//! The ring finds that peers are gone that send something and close at once, whatever the kernel
//! reports.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rumpring_ring::{Config, Event, Ring};

/// The longest that finding an end may take, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of peers at a time, of their threads, of rounds, and of messages each peer sends.
const PEERS: usize = 64;
const THREADS: usize = 8;
const ROUNDS: usize = 8;
const MESSAGES: usize = 200;

fn send_and_close(peers: Vec<UnixStream>) {
    for mut peer in peers {
        (0..MESSAGES).for_each(|_| peer.write_all(&[7; 40]).unwrap());
    }
}

/// Receives from new peers until all are gone. Returns the number of ends.
fn round(ring: &mut Ring) -> usize {
    let mut parts: Vec<Vec<UnixStream>> = (0..THREADS).map(|_| Vec::new()).collect();
    for number in 0..PEERS {
        let (near, far) = UnixStream::pair().unwrap();
        let socket = ring.adopt(near.into()).unwrap();
        ring.resume(socket);
        parts[number % THREADS].push(far);
    }
    let senders: Vec<_> =
        parts.into_iter().map(|peers| thread::spawn(move || send_and_close(peers))).collect();
    let (mut ended, mut closed) = (0, 0);
    let end = Instant::now() + PATIENCE;
    while closed < PEERS {
        assert!(Instant::now() < end, "{ended} of {PEERS} have ended");
        ring.wait(Some(end), || true).unwrap();
        while let Some(event) = ring.next_event() {
            match event {
                Event::RecvEnded { socket, error } => {
                    assert!(error.is_none(), "{error:?}");
                    ended += 1;
                    ring.close(socket);
                }
                Event::Closed { .. } => closed += 1,
                _ => {}
            }
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    ended
}

#[test]
fn no_end_behind_bytes_is_missed() {
    let mut ring = Ring::new(&Config { sockets: 256, ..Config::default() }).unwrap();
    for _ in 0..ROUNDS {
        assert_eq!(round(&mut ring), PEERS, "each ends once");
    }
    println!("{} ends were not reported", ring.stats().ends_found);
}
