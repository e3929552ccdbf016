//! Fault injection for tests: requests and system calls that fail as the host might have them fail.

use std::collections::VecDeque;
use std::io;

use io_uring::{EnterFlags, opcode, squeue};

use crate::token::{Op, Token};

/// The faults that are still to happen.
#[derive(Default)]
pub(crate) struct Faults {
    /// Kinds of requests with results: the next request of a kind is not made, and completes with the
    /// result.
    pub requests: Vec<(Op, i32)>,
    /// The number of requests with a fault that are made all the same, before the first that fails.
    pub pass: usize,
    /// Errnos, one for each of the next calls of `io_uring_enter`.
    pub enters: VecDeque<i32>,
    /// Numbers of entries: the next `io_uring_enter` with more entries than the first number takes only
    /// that many, as the kernel does when it can allocate no more requests.
    pub takes: VecDeque<u32>,
}

impl Faults {
    /// Returns the entries, with those replaced that are to fail. Their links stay.
    pub fn spoil(&mut self, chain: &[squeue::Entry]) -> Vec<squeue::Entry> {
        chain.iter().map(|entry| self.fault(entry).unwrap_or_else(|| entry.clone())).collect()
    }

    fn fault(&mut self, entry: &squeue::Entry) -> Option<squeue::Entry> {
        let op = Token::unpack(entry.get_user_data())?.op;
        let at = self.requests.iter().position(|&(of, _)| of == op)?;
        if self.pass > 0 {
            self.pass -= 1;
            return None;
        }
        let (_, result) = self.requests.remove(at);
        let linked = if crate::queue::is_linked(entry) {
            squeue::Flags::IO_LINK
        } else {
            squeue::Flags::empty()
        };
        Some(nop(result).flags(linked).user_data(entry.get_user_data()))
    }

    /// Returns the failure of this enter if it is to fail, else the arguments to enter with.
    pub fn enter(
        &mut self,
        queued: u32,
        want: u32,
        flags: EnterFlags,
    ) -> io::Result<(u32, u32, EnterFlags)> {
        if let Some(errno) = self.enters.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match self.takes.front().copied() {
            Some(takes) if takes < queued => {
                self.takes.pop_front();
                // The kernel returns at once.
                Ok((takes, 0, EnterFlags::empty()))
            }
            _ => Ok((queued, want, flags)),
        }
    }
}

/// Returns a request that completes with this result: `IORING_NOP_INJECT_RESULT`, Linux 6.10.
fn nop(result: i32) -> squeue::Entry {
    const INJECT_RESULT: i32 = 1;
    let mut entry = opcode::Nop::new().build();
    // SAFETY: an entry is a `struct io_uring_sqe` of 64 bytes, aligned to 8; `len` is at offset 24 and
    // `nop_flags` at 28.
    unsafe {
        let words = (&raw mut entry).cast::<i32>();
        words.add(6).write(result);
        words.add(7).write(INJECT_RESULT);
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Chunk, Config, Error, Event, Features, Ring, Socket, Then};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn small() -> Config {
        let without = Features::RESTRICTIONS;
        Config { entries: 16, sockets: 8, recv_buffers: 4, without, ..Config::default() }
    }

    /// Returns a ring, its one socket, and the peer's end of that socket.
    fn connected(config: Config) -> (Ring, Socket, UnixStream) {
        let mut ring = Ring::new(&config).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let socket = ring.adopt(near.into()).unwrap();
        (ring, socket, far)
    }

    fn fail(ring: &mut Ring, op: Op, errno: i32, times: usize) {
        ring.queue.faults.requests.extend((0..times).map(|_| (op, -errno)));
    }

    /// Returns the next event; a fault must not hold it up for ever, nor have the ring spin.
    fn next(ring: &mut Ring) -> Event {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = ring.next_event() {
                return event;
            }
            assert!(Instant::now() < end, "no event; {:?}", ring.stats());
            ring.wait(Some(end), || true).unwrap();
        }
    }

    /// Handles completions until the ring has put off `times` requests.
    fn until_put_off(ring: &mut Ring, times: u64) {
        let end = Instant::now() + PATIENCE;
        while ring.stats().put_off < times {
            assert!(Instant::now() < end, "it was not put off; {:?}", ring.stats());
            ring.wait(Some(end), || true).unwrap();
            assert!(ring.next_event().is_none());
        }
    }

    fn message(ring: &Ring, chunks: usize) -> (Vec<u8>, Vec<Chunk>) {
        let bytes: Vec<u8> = (0..chunks).map(|i| (i * 7 + i / 256) as u8).collect();
        let chunk = |byte: &u8| {
            let mut chunk = ring.arena().chunk(1);
            chunk.put(&[*byte]);
            chunk
        };
        let chunks = bytes.iter().map(chunk).collect();
        (bytes, chunks)
    }

    #[test]
    fn a_send_that_fails_for_a_moment_loses_nothing() {
        for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EINTR] {
            for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
                // A request fails at the head of a chain, inside it, and between two chains; 64 chunks
                // are a step, 8 steps a chain.
                for (chunks, pass) in [(1, 0), (1, 1), (700, 0), (700, 3), (700, 7), (700, 9)] {
                    send_with_faults(errno, then, chunks, pass);
                }
            }
        }
    }

    fn send_with_faults(errno: i32, then: Then, many: usize, pass: usize) {
        let what = format!("errno {errno}, {then:?}, {many} chunks, after {pass}");
        let (mut ring, socket, mut far) = connected(small());
        far.write_all(b"hello").unwrap();
        let (bytes, chunks) = message(&ring, many);
        fail(&mut ring, Op::Send, errno, 3);
        ring.queue.faults.pass = pass;
        ring.send(socket, chunks, then).unwrap();
        let sent = next(&mut ring);
        assert!(matches!(sent, Event::Sent { result: Ok(n), .. } if n == many), "{what}: {sent:?}");
        let mut got = vec![0; many];
        far.read_exact(&mut got).unwrap();
        assert!(got == bytes, "{what}");
        match then {
            Then::Nothing => {}
            Then::Receive => assert!(matches!(next(&mut ring), Event::Received { .. }), "{what}"),
            Then::Shutdown => {
                // The request linked behind the send may be made only in the next wait.
                ring.wait(Some(Instant::now() + Duration::from_millis(10)), || true).unwrap();
                assert_eq!(far.read_to_end(&mut got).expect(&what), 0);
            }
        }
        // Requests behind a broken link are cancelled before they can meet their fault.
        let met = ring.stats().put_off > 0;
        assert_eq!(met, errno != libc::EINTR && pass < many, "{what}: {:?}", ring.stats());
        close(&mut ring, socket);
    }

    /// Returns the chunks of a message that does not fit into a socket's buffer: sends wait for their
    /// reader.
    fn long_message(ring: &Ring, bytes: usize) -> (Vec<u8>, Vec<Chunk>) {
        let bytes: Vec<u8> = (0..bytes).map(|i| (i / 251 * 7 + i) as u8).collect();
        let chunk = |bytes: &[u8]| {
            let mut chunk = ring.arena().chunk(bytes.len());
            assert_eq!(chunk.put(bytes), bytes.len());
            chunk
        };
        let chunks = bytes.chunks(4096).map(chunk).collect();
        (bytes, chunks)
    }

    /// Sends a long message while the kernel takes so many entries of each chain in turn, and reads the
    /// message in small pieces.
    fn send_cut(then: Then, takes: &[u32], config: Config) {
        let what = format!("{then:?}, cut after {takes:?}");
        let (mut ring, socket, mut far) = connected(config);
        ring.wait(Some(Instant::now()), || true).unwrap();
        far.write_all(b"hello").unwrap();
        let len = takes.len() * (2 << 20);
        let (bytes, chunks) = long_message(&ring, len);
        ring.queue.faults.takes.extend(takes);
        ring.send(socket, chunks, then).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut got, mut piece) = (Vec::<u8>::new(), [0; 3000]);
            while got.len() < len {
                let read = far.read(&mut piece).unwrap();
                assert!(read > 0, "it ended after {}", got.len());
                got.extend(&piece[..read]);
            }
            (got, far)
        });
        let sent = next(&mut ring);
        assert!(matches!(sent, Event::Sent { result: Ok(n), .. } if n == len), "{what}: {sent:?}");
        let (got, mut far) = reader.join().unwrap();
        let differs = got.iter().zip(&bytes).position(|(got, sent)| got != sent);
        assert_eq!(differs, None, "{what}: the first byte that is another");
        assert!(ring.queue.faults.takes.is_empty(), "{what}: {:?}", ring.queue.faults.takes);
        assert_eq!(ring.stats().cut_chains, takes.len() as u64, "{what}");
        match then {
            Then::Nothing => {}
            Then::Receive => assert!(matches!(next(&mut ring), Event::Received { .. }), "{what}"),
            Then::Shutdown => {
                let end = std::thread::spawn(move || far.read(&mut [0; 1]).unwrap());
                let limit = Instant::now() + PATIENCE;
                while !end.is_finished() {
                    assert!(Instant::now() < limit, "{what}: no end");
                    ring.wait(Some(Instant::now() + Duration::from_millis(10)), || true).unwrap();
                    assert!(ring.next_event().is_none(), "{what}");
                }
                assert_eq!(end.join().unwrap(), 0, "{what}");
            }
        }
        close(&mut ring, socket);
    }

    #[test]
    fn a_chain_that_is_taken_in_part_stays_in_order() {
        // 64 chunks are a step, so a round is a chain of 8 steps and the request that follows the last
        // of them.
        for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
            for first in 1..8 {
                send_cut(then, &[first], small());
            }
            send_cut(then, &[3, 7], small());
        }
        let restricted = Config { without: Features::NONE, ..small() };
        send_cut(Then::Receive, &[2], restricted);
    }

    #[test]
    fn what_follows_a_send_is_made_when_it_is_cut_off_alone() {
        for then in [Then::Receive, Then::Shutdown] {
            let (mut ring, socket, mut far) = connected(small());
            ring.wait(Some(Instant::now()), || true).unwrap();
            far.write_all(b"hello").unwrap();
            let (bytes, chunks) = message(&ring, 65);
            ring.queue.faults.takes.push_back(2);
            ring.send(socket, chunks, then).unwrap();
            let sent = next(&mut ring);
            assert!(matches!(sent, Event::Sent { result: Ok(65), .. }), "{then:?}: {sent:?}");
            let mut got = [0; 65];
            far.read_exact(&mut got).unwrap();
            assert_eq!((&got[..], ring.stats().cut_chains), (&bytes[..], 1), "{then:?}");
            if then == Then::Receive {
                assert!(matches!(next(&mut ring), Event::Received { .. }), "{then:?}");
            } else {
                ring.wait(Some(Instant::now() + Duration::from_millis(10)), || true).unwrap();
                while ring.next_event().is_some() {}
                ring.wait(Some(Instant::now()), || true).unwrap();
                assert_eq!(far.read(&mut got).unwrap(), 0, "{then:?}");
            }
            close(&mut ring, socket);
        }
    }

    #[test]
    fn a_socket_whose_chain_was_cut_can_be_closed() {
        for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
            for takes in 1..8 {
                let (mut ring, socket, mut far) = connected(small());
                ring.wait(Some(Instant::now()), || true).unwrap();
                let (_, chunks) = long_message(&ring, 2 << 20);
                ring.queue.faults.takes.push_back(takes);
                ring.send(socket, chunks, then).unwrap();
                ring.wait(Some(Instant::now()), || true).unwrap();
                assert_eq!(ring.stats().cut_chains, 1);
                close(&mut ring, socket);
                drop(ring);
                while far.read(&mut [0; 4096]).unwrap() > 0 {}
            }
        }
    }

    /// Closes the socket, and checks that nothing is left.
    fn close(ring: &mut Ring, which: Socket) {
        close_one(ring, which);
        let stats = ring.stats();
        assert_eq!((stats.sockets, stats.sends, stats.chunks), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.free_recv_buffers, u32::from(small().recv_buffers));
    }

    fn close_one(ring: &mut Ring, which: Socket) {
        ring.close(which);
        while !matches!(next(ring), Event::Closed { socket } if socket == which) {}
    }

    #[test]
    fn a_send_that_fails_for_good_is_given_up() {
        for (errno, least) in [(libc::ENOMEM, 1000), (libc::EINTR, 0), (libc::EPIPE, 0)] {
            let (mut ring, socket, _far) = connected(small());
            fail(&mut ring, Op::Send, errno, 1000);
            let (_, chunks) = message(&ring, 5);
            let begin = Instant::now();
            ring.send(socket, chunks, Then::Receive).unwrap();
            let Event::Sent { result: Err(error), .. } = next(&mut ring) else { panic!("sent") };
            assert_eq!(error.raw_os_error(), Some(errno));
            assert!(begin.elapsed() >= Duration::from_millis(least), "given up too early");
            assert!(ring.stats().enters < 300, "it spins: {:?}", ring.stats());
            close(&mut ring, socket);
        }
    }

    #[test]
    fn what_waits_to_be_sent_again_can_be_closed() {
        for then in [Then::Nothing, Then::Receive, Then::Shutdown] {
            let (mut ring, socket, _far) = connected(small());
            fail(&mut ring, Op::Send, libc::ENOMEM, 1000);
            let (_, chunks) = message(&ring, 200);
            ring.send(socket, chunks, then).unwrap();
            until_put_off(&mut ring, 2);
            close(&mut ring, socket);
            // A ring can also be dropped in the middle of a send.
            let (mut ring, socket, mut far) = connected(small());
            fail(&mut ring, Op::Send, libc::ENOMEM, 1000);
            let (_, chunks) = message(&ring, 200);
            ring.send(socket, chunks, then).unwrap();
            until_put_off(&mut ring, 1);
            drop(ring);
            assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
        }
    }

    #[test]
    fn a_recv_that_fails_for_a_moment_loses_nothing() {
        for errno in [libc::ENOMEM, libc::EAGAIN, libc::ENOBUFS, libc::EINTR] {
            let (mut ring, socket, mut far) = connected(small());
            fail(&mut ring, Op::Recv, errno, 5);
            ring.resume(socket);
            ring.resume(socket);
            far.write_all(b"hello").unwrap();
            let event = next(&mut ring);
            assert!(
                matches!(&event, Event::Received { data, .. } if &**data == b"hello"),
                "{event:?}"
            );
            drop(event);
            let stats = ring.stats();
            let counted = match errno {
                libc::ENOBUFS => (0, 5),
                libc::EINTR => (0, 0),
                _ => (5, 0),
            };
            assert_eq!((stats.put_off, stats.recv_buffers_exhausted), counted, "errno {errno}");
            close(&mut ring, socket);
        }
    }

    #[test]
    fn a_recv_that_fails_for_good_ends() {
        for (errno, put_off) in [(libc::ENOMEM, 100), (libc::ETIMEDOUT, 0), (libc::ECONNRESET, 0)] {
            let (mut ring, socket, _far) = connected(small());
            fail(&mut ring, Op::Recv, errno, 1000);
            ring.resume(socket);
            let Event::RecvEnded { error: Some(error), .. } = next(&mut ring) else {
                panic!("no end")
            };
            assert_eq!((error.raw_os_error(), ring.stats().put_off), (Some(errno), put_off));
            close(&mut ring, socket);
        }
    }

    #[test]
    fn what_waits_to_receive_again_can_be_paused_and_closed() {
        let (mut ring, socket, mut far) = connected(small());
        fail(&mut ring, Op::Recv, libc::EAGAIN, 3);
        ring.resume(socket);
        far.write_all(b"hello").unwrap();
        until_put_off(&mut ring, 1);
        ring.pause(socket);
        ring.wait(Some(Instant::now() + Duration::from_millis(30)), || true).unwrap();
        ring.wait(Some(Instant::now() + Duration::from_millis(30)), || true).unwrap();
        assert!(ring.next_event().is_none() && ring.stats().put_off == 1, "nobody wants it now");
        ring.resume(socket);
        assert!(matches!(next(&mut ring), Event::Received { .. }));
        fail(&mut ring, Op::Recv, libc::ENOMEM, 1000);
        ring.pause(socket);
        ring.wait(Some(Instant::now() + Duration::from_millis(5)), || true).unwrap();
        while ring.next_event().is_some() {}
        ring.resume(socket);
        until_put_off(&mut ring, 5);
        close(&mut ring, socket);
    }

    #[test]
    fn a_close_that_fails_for_a_moment_is_made_again() {
        let (mut ring, socket, mut far) = connected(small());
        fail(&mut ring, Op::Close, libc::ENOMEM, 3);
        close(&mut ring, socket);
        assert_eq!(ring.stats().put_off, 3);
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn an_accept_that_fails_for_a_moment_loses_nobody() {
        let memory = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN];
        for errno in memory.into_iter().chain([libc::ECONNABORTED, libc::EPERM]) {
            let mut ring = Ring::new(&small()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            fail(&mut ring, Op::Accept, errno, 3);
            ring.listen(UnixListener::bind(&path).unwrap().into()).unwrap();
            let begin = Instant::now();
            let _client = UnixStream::connect(&path).unwrap();
            for _ in 0..3 {
                let Event::AcceptFailed { error, .. } = next(&mut ring) else { panic!("{errno}") };
                assert_eq!(error.raw_os_error(), Some(errno));
            }
            assert!(matches!(next(&mut ring), Event::Accepted { .. }));
            // Pauses of 10, 20 and 40 ms.
            let paused = begin.elapsed() >= Duration::from_millis(70);
            assert!(paused || !memory.contains(&errno), "{errno}: tried again too early");
            assert!(ring.stats().accept_errors == 3 && ring.stats().enters < 30);
        }
    }

    #[test]
    fn a_waker_that_cannot_be_polled_for_a_moment_wakes() {
        let mut ring = Ring::new(&small()).unwrap();
        fail(&mut ring, Op::Wake, libc::ENOMEM, 3);
        // The poll that is armed ends with this, as when the CQ overflows.
        ring.arm_waker();
        until_put_off(&mut ring, 3);
        let waker = ring.waker();
        let woken = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                woken.store(true, std::sync::atomic::Ordering::Relaxed);
                waker.wake();
            });
            let is_woken = || woken.load(std::sync::atomic::Ordering::Relaxed);
            let end = Instant::now() + PATIENCE;
            while !is_woken() {
                ring.wait(Some(end), || !is_woken()).unwrap();
                assert!(Instant::now() < end && ring.next_event().is_none());
            }
        });
    }

    #[test]
    fn a_system_call_that_is_refused_is_made_again() {
        for entries in [1, 2, 16] {
            for errno in [libc::EINTR, libc::EBUSY, libc::EAGAIN, libc::ENOMEM, libc::ETIME] {
                let (mut ring, socket, mut far) = connected(Config { entries, ..small() });
                ring.resume(socket);
                for round in 0..20 {
                    far.write_all(&[round; 10]).unwrap();
                    ring.queue.faults.enters.extend([errno; 3]);
                    let event = next(&mut ring);
                    let Event::Received { data, .. } = event else { panic!("{event:?}") };
                    let (_, chunks) = message(&ring, 300);
                    ring.queue.faults.enters.extend([errno; 3]);
                    ring.send(socket, chunks, Then::Receive).unwrap();
                    assert_eq!(*data, [round; 10]);
                    drop(data);
                    let event = next(&mut ring);
                    assert!(matches!(event, Event::Sent { result: Ok(300), .. }), "{event:?}");
                    far.read_exact(&mut [0; 300]).unwrap();
                }
                let refused = !matches!(errno, libc::EINTR | libc::ETIME);
                let stats = ring.stats();
                assert_eq!(stats.refused_enters > 50, refused, "errno {errno}: {stats:?}");
                ring.queue.faults.enters.clear();
                close(&mut ring, socket);
            }
        }
    }

    #[test]
    fn entries_that_are_no_chain_wait_for_the_next_system_call() {
        let (mut ring, one, _far) = connected(small());
        let (near, mut far) = UnixStream::pair().unwrap();
        let two = ring.adopt(near.into()).unwrap();
        ring.wait(Some(Instant::now()), || true).unwrap();
        for socket in [one, two] {
            let (_, chunks) = message(&ring, 5);
            ring.send(socket, chunks, Then::Nothing).unwrap();
        }
        ring.queue.faults.takes.push_back(1);
        for _ in 0..2 {
            assert!(matches!(next(&mut ring), Event::Sent { result: Ok(5), .. }));
        }
        assert_eq!(ring.stats().cut_chains, 0);
        far.read_exact(&mut [0; 5]).unwrap();
        close_one(&mut ring, one);
        close(&mut ring, two);
    }

    #[test]
    fn a_system_call_that_cannot_go_on_says_so() {
        let (mut ring, ..) = connected(small());
        let mut wait = |errno| {
            ring.queue.faults.enters.push_back(errno);
            ring.wait(None, || true).unwrap_err()
        };
        assert!(matches!(wait(libc::EBADR), Error::CompletionLost));
        let error = wait(libc::EFAULT);
        assert!(matches!(error, Error::System { what: "io_uring_enter", .. }), "{error}");
    }
}
