//! Peer queries: the ring finds out the peer of a connection before it reports the connection.
//!
//! A direct descriptor has no number that getsockopt(2) would take, so the ring asks by
//! `SOCKET_URING_OP_GETSOCKOPT` (`io_uring_prep_cmd_sock(3)`, Linux 6.7). Until the answer is there the
//! socket is *silent*: the user knows nothing of it. If there is no answer, or the listener was stopped
//! meanwhile, the ring closes the socket without an event.
//!
//! The kernel writes an answer into the state of its question, which is used again only when the ring
//! has seen the completion. There are few states: connections beyond them wait their turn.

use std::collections::VecDeque;

use io_uring::{IoUring, squeue, types};

use crate::peer::{Peer, Question};
use crate::slots::{flag, property};
use crate::token::{Op, Token};
use crate::{Event, Listener, Ring, Socket};

/// The most questions in flight.
const MOST_IN_FLIGHT: usize = 64;

/// The questions to ask about the connections of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    pub first: Question,
    /// True if a user's groups are asked for next.
    pub groups: bool,
}

/// A connection whose peer is queried.
#[derive(Clone, Copy)]
struct Asked {
    socket: Socket,
    listener: Listener,
    asks: Asks,
}

/// A question in flight.
struct State {
    generation: u32,
    asked: Asked,
    question: Question,
    /// The peer as earlier answers said.
    peer: Option<Peer>,
    /// The memory the kernel writes the answer to, as large as the question allows. It is not touched,
    /// moved or freed while the question is in flight.
    answer: Vec<u32>,
    free: bool,
}

/// The outcome of a completed question.
enum Heard {
    Known(Peer),
    Unknown,
    /// Another question is to be asked.
    Next(Question),
}

/// All questions in flight, and the connections that wait to be asked.
#[derive(Default)]
pub(crate) struct Questions {
    states: Vec<State>,
    free: Vec<u32>,
    /// Connections that wait for a state. Bounded by the table of sockets.
    waiting: VecDeque<Asked>,
}

impl Questions {
    /// Takes a state for a connection; `None` if the connection must wait.
    fn open(&mut self, asked: Asked) -> Option<u32> {
        let question = asked.asks.first;
        let index = self.free.pop().or_else(|| {
            if self.states.len() == MOST_IN_FLIGHT {
                return None;
            }
            let (answer, peer) = (Vec::new(), None);
            self.states.push(State { generation: 0, asked, question, peer, answer, free: true });
            Some(self.states.len() as u32 - 1)
        })?;
        let state = &mut self.states[index as usize];
        debug_assert!(state.free);
        (state.asked, state.question) = (asked, question);
        (state.peer, state.free) = (None, false);
        Some(index)
    }

    fn get(&mut self, token: Token) -> Option<&mut State> {
        let state = self.states.get_mut(token.index as usize)?;
        (state.generation == token.generation && !state.free).then_some(state)
    }

    /// Frees the state of a question that has completed for good.
    fn release(&mut self, index: u32) {
        let state = &mut self.states[index as usize];
        state.generation = state.generation.wrapping_add(1);
        state.free = true;
        self.free.push(index);
    }
}

impl State {
    fn entry(&mut self, index: u32) -> squeue::Entry {
        self.answer.clear();
        self.answer.resize(self.question.words(), 0);
        let fd = types::Fd(self.asked.socket.index as i32);
        let token = Token { op: Op::PeerQuery, index, generation: self.generation };
        let entry = self.question.entry(fd, &mut self.answer);
        entry.flags(squeue::Flags::FIXED_FILE).user_data(token.pack())
    }

    /// Handles the completion of the question: `result` is a number of bytes, or a negative errno.
    fn hear(&mut self, result: i32) -> Heard {
        if self.question == Question::Groups {
            return self.hear_groups(result);
        }
        let written = usize::try_from(result).unwrap_or(0);
        match self.question.understand(&self.answer, written) {
            None => Heard::Unknown,
            Some(peer) if self.asked.asks.groups && matches!(peer, Peer::User { .. }) => {
                self.peer = Some(peer);
                Heard::Next(Question::Groups)
            }
            Some(peer) => Heard::Known(peer),
        }
    }

    fn hear_groups(&mut self, result: i32) -> Heard {
        let Some(Peer::User { pid, uid, gid, .. }) = self.peer.take() else {
            return Heard::Unknown;
        };
        let groups = match usize::try_from(result) {
            Ok(written) => self.answer.get(..written / 4).map(<[u32]>::to_vec),
            // The user is in more groups than fit.
            Err(_) if result == -libc::ERANGE => Some(Vec::new()),
            Err(_) => None,
        };
        match groups {
            Some(groups) => Heard::Known(Peer::User { pid, uid, gid, groups }),
            None => Heard::Unknown,
        }
    }
}

impl Ring {
    /// Starts the peer query of a connection that was not reported yet.
    pub(crate) fn peer_query(&mut self, socket: Socket, listener: Listener, asks: Asks) {
        let asked = Asked { socket, listener, asks };
        match self.questions.open(asked) {
            Some(index) => self.put_question(index),
            None => self.questions.waiting.push_back(asked),
        }
    }

    fn put_question(&mut self, index: u32) {
        let state = &mut self.questions.states[index as usize];
        let entry = state.entry(index);
        if let Some(slot) = self.slots.get(state.asked.socket) {
            slot.pending += 1;
        }
        self.queue.push(&[entry], &mut self.stats);
    }

    pub(crate) fn on_answer(&mut self, token: Token, result: i32) -> Option<Event> {
        let Some(state) = self.questions.get(token) else {
            self.stats.stale_cqes += 1;
            return None;
        };
        let Asked { socket, listener, .. } = state.asked;
        if let Some(slot) = self.slots.get(socket) {
            slot.pending -= 1;
        }
        let peer = match state.hear(result) {
            Heard::Next(question) => {
                state.question = question;
                self.put_question(token.index);
                return None;
            }
            Heard::Known(peer) => Some(peer),
            Heard::Unknown => None,
        };
        self.questions.release(token.index);
        self.ask_next();
        self.answered(socket, listener, peer)
    }

    /// Starts the query of the connection that has waited longest.
    fn ask_next(&mut self) {
        if let Some(Asked { socket, listener, asks }) = self.questions.waiting.pop_front() {
            self.peer_query(socket, listener, asks);
        }
    }

    /// Ends a peer query: reports the connection, or closes it if `peer` is `None`.
    fn answered(
        &mut self,
        socket: Socket,
        listener: Listener,
        peer: Option<Peer>,
    ) -> Option<Event> {
        let slot = self.slots.get(socket)?;
        if slot.is(flag::CLOSING) {
            self.settle(socket);
            return None;
        }
        self.stats.unknown_peers += u64::from(peer.is_none());
        if peer.is_none() || !self.listeners.listens(listener) {
            self.close(socket);
            return None;
        }
        slot.properties &= !property::SILENT;
        Some(Event::Accepted { listener, socket, peer })
    }
}

/// Returns `true` if the kernel answers questions, by asking about a socket of our own. The ring must
/// be enabled, and hold nothing yet.
pub(crate) fn answers(io: &mut IoUring) -> std::io::Result<bool> {
    use std::os::fd::AsRawFd;
    let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
    let mut answer = vec![0; Question::User.words()];
    let entry = Question::User.entry(types::Fd(socket.as_raw_fd()), &mut answer);
    // SAFETY: the answer lives until the completion came, which is waited for below.
    let pushed = unsafe { io.submission().push(&entry) };
    pushed.map_err(|_| std::io::Error::other("an empty SQ is full"))?;
    let result = loop {
        match io.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => {
                // The request may still be in flight.
                std::mem::forget(answer);
                return Err(error);
            }
            Ok(_) => {}
        }
        if let Some(completion) = io.completion().next() {
            break completion.result();
        }
    };
    let written = usize::try_from(result).unwrap_or(0);
    Ok(Question::User.understand(&answer, written).is_some())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{Config, Features, PeerQuery};

    /// Returns a ring whose listener makes peer queries, and `clients` that have connected to it.
    fn asking(clients: usize) -> (Ring, Listener, Vec<UnixStream>) {
        let without = Features::RESTRICTIONS;
        let config =
            Config { entries: 64, recv_buffers: 2, peers: true, without, ..Config::default() };
        let mut ring = Ring::new(&config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let listener = ring.listen_for(listener.into(), PeerQuery::PeerAndGroups).unwrap();
        let clients = (0..clients).map(|_| UnixStream::connect(&path).unwrap()).collect();
        (ring, listener, clients)
    }

    /// Returns the sockets the ring has reported once `accepted` connections were accepted, queried,
    /// and closed if need be.
    fn told(ring: &mut Ring, accepted: usize) -> Vec<Socket> {
        let mut told = Vec::new();
        let end = Instant::now() + Duration::from_secs(20);
        while ring.stats().accepts < accepted as u64 || ring.slots.live() as usize > told.len() {
            assert!(Instant::now() < end, "told of {}; {:?}", told.len(), ring.stats());
            ring.wait(Some(end), || true).unwrap();
            while let Some(event) = ring.next_event() {
                match event {
                    Event::Accepted { socket, peer: Some(_), .. } => told.push(socket),
                    other => panic!("{other:?}"),
                }
            }
        }
        told
    }

    fn assert_hung_up(clients: Vec<UnixStream>) {
        for mut client in clients {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let read = client.read(&mut [0; 1]);
            assert!(matches!(&read, Ok(0)) || read.is_err_and(|e| e.kind() != WOULD_BLOCK));
        }
    }

    const WOULD_BLOCK: std::io::ErrorKind = std::io::ErrorKind::WouldBlock;

    #[test]
    fn without_an_answer_it_is_closed_untold() {
        for faults in [
            vec![-libc::ENOTCONN],
            vec![-libc::ENOMEM],
            // Answers that are too short, too long, empty.
            vec![4],
            vec![16],
            vec![0],
            // Failures of the groups' question, after that of the user.
            vec![12, -libc::ENODATA],
            vec![12, i32::MAX],
        ] {
            let (mut ring, _, clients) = asking(1);
            ring.queue.faults.requests.extend(faults.iter().map(|&result| (Op::PeerQuery, result)));
            assert!(told(&mut ring, 1).is_empty(), "{faults:?}");
            let stats = ring.stats();
            assert_eq!(
                (stats.unknown_peers, stats.sockets, stats.accepts),
                (1, 0, 1),
                "{faults:?}"
            );
            assert_eq!(ring.questions.free.len(), ring.questions.states.len());
            assert_hung_up(clients);
        }
    }

    #[test]
    fn more_than_there_are_questions_wait() {
        let many = 3 * MOST_IN_FLIGHT;
        let (mut ring, _, clients) = asking(many);
        // Every other connection's query fails.
        ring.queue.faults.requests.extend((0..many / 2).map(|_| (Op::PeerQuery, -libc::ENOTCONN)));
        let known = told(&mut ring, many);
        assert_eq!(known.len(), many / 2);
        assert_eq!(ring.stats().unknown_peers as usize, many / 2);
        assert_eq!(
            ring.questions.states.len(),
            MOST_IN_FLIGHT,
            "all were needed, and no more made"
        );
        assert_eq!(ring.questions.free.len(), MOST_IN_FLIGHT);
        known.into_iter().for_each(|socket| ring.close(socket));
        while ring.stats().sockets > 0 {
            ring.wait(None, || true).unwrap();
            while ring.next_event().is_some() {}
        }
        assert_hung_up(clients);
    }

    /// Returns the ring with its one question in flight, and the question's token.
    fn in_flight() -> (Ring, Listener, Vec<UnixStream>, Token) {
        let (mut ring, listener, clients) = asking(1);
        while ring.questions.states.is_empty() {
            ring.wait(None, || true).unwrap();
            assert!(ring.next_event().is_none());
        }
        let generation = ring.questions.states[0].generation;
        (ring, listener, clients, Token { op: Op::PeerQuery, index: 0, generation })
    }

    #[test]
    fn a_listener_stopped_meanwhile_hears_of_nobody() {
        let (mut ring, listener, clients, _) = in_flight();
        ring.stop_listening(listener);
        assert!(told(&mut ring, 1).is_empty());
        assert_eq!((ring.stats().sockets, ring.stats().unknown_peers), (0, 0));
        assert_hung_up(clients);
    }

    #[test]
    fn a_socket_closed_meanwhile_is_closed_once() {
        let (mut ring, _, clients, _) = in_flight();
        let socket = ring.slots.at(0).unwrap();
        ring.close(socket);
        assert!(told(&mut ring, 1).is_empty());
        assert_eq!((ring.stats().sockets, ring.slots.at(0)), (0, None));
        assert_hung_up(clients);
    }

    #[test]
    fn a_late_answer_is_nobodys() {
        let (mut ring, listener, _clients, token) = in_flight();
        let known = told(&mut ring, 1);
        assert_eq!(known.len(), 1);
        // The same state serves another question now.
        let asks = Asks { first: Question::User, groups: false };
        let index = ring.questions.open(Asked { socket: known[0], listener, asks });
        assert_eq!(index, Some(token.index));
        assert!(ring.on_answer(token, 12).is_none(), "the question was answered before");
        assert!(ring.on_answer(Token { index: 9, ..token }, 12).is_none());
        assert_eq!(ring.stats().stale_cqes, 2);
    }

    #[test]
    fn a_ring_dropped_meanwhile_waits_for_the_answer() {
        let (mut ring, _, clients, _) = in_flight();
        assert!(ring.cancel_everything());
        drop(ring);
        assert_hung_up(clients);
        let (ring, _, clients, _) = in_flight();
        drop(ring);
        assert_hung_up(clients);
    }
}
