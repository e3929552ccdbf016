//! A client of the load: it sets up what its calls need, makes calls, and serves the copies of its
//! memory that they cause. It has no socket and no clock.

use std::convert::Infallible;
use std::io;
use std::time::Instant;

use rumpsp::wire;

use super::setup::{Step, steps};
use super::{Heard, Hello, SendQueue, unexpected};
use crate::workload::pipe::{self, Ends};
use crate::workload::{Answer, Call, Names, Op, Random, copyinstr, fair};

/// The address of the file's path, as the server is told.
pub const PATH: u64 = 1 << 48;

/// The address of the first call's buffer; each further buffer is this far behind the one before.
pub const BUFFER: u64 = 1 << 32;

/// The request number of requests that are no calls of the load. Those are numbered from 0.
const ASIDE: u64 = 1 << 40;

/// The role of a client, in loads where clients differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client like all others.
    Alone,
    /// The first client of a pair.
    First,
    /// The second client of a pair: the child of the first.
    Second,
    /// The client that calls now and then, while others are busy. It has one call in flight.
    Slow,
}

impl Role {
    /// Returns the role of connection `number` of `connections`, counted from 0.
    pub fn of(call: Call, number: u32, connections: u32) -> Role {
        match call {
            call if call.is_in_pairs() && number.is_multiple_of(2) => Role::First,
            call if call.is_in_pairs() => Role::Second,
            Call::Fair if number + 1 == connections => Role::Slow,
            _ => Role::Alone,
        }
    }
}

/// A client that keeps calls in flight.
pub struct Client {
    call: Call,
    role: Role,
    /// The name of the client's file, with a NUL.
    path: String,
    names: Names,
    /// The ends of the pipes that the second client of a pair gets from the first.
    partner: Ends,
    steps: Vec<Step>,
    /// The number of steps that are done.
    step: usize,
    is_leaving: bool,
    slots: Vec<Slot>,
    random: Random,
}

/// A call that is or may be in flight.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The call in flight, or the one before.
    op: Option<Op>,
    /// The part of a mix that the call belongs to.
    part: u32,
    /// The time from which the call's latency counts.
    since: Instant,
    /// The bytes that the server has copied to the call's buffer.
    copied: u64,
    /// The file that the call has opened.
    opened: Option<u64>,
    is_busy: bool,
}

/// The consequence of something that the client heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Note {
    /// The client is set up.
    Ready,
    /// The first client of a pair is set up: the second can connect, and uses these ends.
    Partner { token: wire::Token, ends: Ends },
    /// The call of this slot goes on with a connection of its own.
    Dial { slot: u32, hello: Hello },
    /// The call of this slot is over: its latency counts from `since`, for this part.
    Answered { slot: u32, part: u32, since: Instant },
    /// The client has left nothing behind in the server's kernel.
    Left,
}

impl Client {
    /// Makes a client whose file is named by `name`, with a seed for its random choices.
    pub fn new(call: Call, role: Role, in_flight: u32, name: &str, seed: u64) -> Client {
        let now = Instant::now();
        let slot = Slot { op: None, part: 0, since: now, copied: 0, opened: None, is_busy: false };
        let ends = Ends::default();
        let slots = if role == Role::Slow { 1 } else { in_flight };
        Client {
            call,
            role,
            path: format!("/rumpring-bench.{name}\0"),
            names: Names { file: 0, path: PATH, buffer: BUFFER, ends },
            partner: ends,
            steps: steps(call, role == Role::First),
            step: 0,
            is_leaving: false,
            slots: vec![slot; slots as usize],
            random: Random::new(seed),
        }
    }

    /// Sets the ends of the pipes of the second client of a pair.
    pub fn set_ends(&mut self, ends: Ends) {
        self.names.ends = ends;
    }

    /// Returns the number of calls that the client may have in flight.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub fn is_slow(&self) -> bool {
        self.role == Role::Slow
    }

    /// Returns, for each call in flight, its part and the time from which it counts.
    pub fn in_flight(&self) -> impl Iterator<Item = (u32, Instant)> {
        self.slots.iter().filter(|slot| slot.is_busy).map(|slot| (slot.part, slot.since))
    }

    /// Begins the next call of a slot that has none in flight. The note it returns is handled like
    /// those of [`Client::heard`].
    pub fn begin(&mut self, slot: u32, since: Instant, out: &mut SendQueue) -> Option<Note> {
        let Slot { op: last, opened, .. } = self.slots[slot as usize];
        let (part, op) = self.next(last, opened);
        let state = &mut self.slots[slot as usize];
        (state.op, state.part, state.since) = (Some(op), part, since);
        (state.copied, state.is_busy) = (0, true);
        if op == Op::Connect {
            return Some(Note::Dial { slot, hello: Hello::Guest });
        }
        let names = Names { buffer: BUFFER * (u64::from(slot) + 1), ..self.names };
        out.put(|out| op.request(out, slot.into(), names));
        None
    }

    /// Returns the next call of a slot, and the part of a mix that it belongs to.
    fn next(&mut self, last: Option<Op>, opened: Option<u64>) -> (u32, Op) {
        let (part, call) = match &self.call {
            Call::Mixed(mix) => mix.choose(&mut self.random),
            Call::Fair if self.is_slow() => (fair::SLOW, Call::Getpid),
            Call::Fair => (fair::BUSY, Call::Getpid),
            call => (0, *call),
        };
        let op = match call {
            Call::Getpid => Op::Getpid,
            Call::Read(size) => Op::Read(size.0),
            Call::Pwrite(size) => Op::Pwrite(size.0),
            Call::Copyinstr => copyinstr::next(opened),
            Call::Pipe => pipe::next(last, self.role != Role::Second),
            Call::Fork => Op::Fork,
            Call::Connect => Op::Connect,
            Call::Mixed(_) | Call::Fair => unreachable!("it is made of others"),
        };
        (part as u32, op)
    }

    /// Handles a message that the client's link has heard.
    pub fn heard(&mut self, heard: Heard, out: &mut SendQueue) -> io::Result<Option<Note>> {
        match heard {
            Heard::Up => Ok(self.step_on(0, out)),
            Heard::Answer { reqno: ASIDE, answer } => self.step_done(&answer, out),
            Heard::Answer { reqno, answer } => self.answered(reqno, &answer).map(Some),
            Heard::Token { reqno: ASIDE, token } => self.token_of_pair(token).map(Some),
            Heard::Token { reqno, token } => self.token(reqno, token).map(Some),
            Heard::CopyIn { reqno, len, addr } => {
                self.copy_in(reqno, len, addr, out).map(|()| None)
            }
            Heard::CopyInStr { reqno, len, addr } => {
                self.copy_path(reqno, len, addr, out).map(|()| None)
            }
            Heard::CopyOut { len, addr } => self.copied_out(len, addr).map(|()| None),
        }
    }

    /// Ends the call of this slot, whose child is up.
    pub fn child_is_up(&mut self, slot: u32) -> Note {
        let state = &mut self.slots[slot as usize];
        state.is_busy = false;
        Note::Answered { slot, part: state.part, since: state.since }
    }

    /// Removes the things that would stay in the server's kernel. Returns `true` if there is something,
    /// and [`Note::Left`] will follow.
    pub fn leave(&mut self, out: &mut SendQueue) -> bool {
        self.is_leaving = self.call.needs_path() && self.step == self.steps.len();
        if self.is_leaving {
            out.put(|out| Step::Unlink.request(out, ASIDE, 0, 0));
        }
        self.is_leaving
    }

    /// Sends the next step of the setup, if there is one. `last` is the value the step before returned.
    fn step_on(&mut self, last: u64, out: &mut SendQueue) -> Option<Note> {
        let Some(step) = self.steps.get(self.step) else { return Some(Note::Ready) };
        let size = self.call.size();
        let file = if *step == Step::CloseCreated { last } else { self.names.file };
        out.put(|out| step.request(out, ASIDE, file, size));
        None
    }

    fn step_done(&mut self, answer: &Answer, out: &mut SendQueue) -> io::Result<Option<Note>> {
        if self.is_leaving {
            return Ok(Some(Note::Left));
        }
        let step = self.steps.get(self.step).ok_or_else(|| unexpected("a response to", ASIDE))?;
        step.check(answer, self.call.size()).map_err(io::Error::other)?;
        let [one, other] = answer.values;
        match step {
            Step::Open => self.names.file = one,
            Step::PipeThere => (self.partner.read, self.names.ends.write) = (one, other),
            Step::PipeBack => (self.names.ends.read, self.partner.write) = (one, other),
            _ => {}
        }
        self.step += 1;
        Ok(self.step_on(one, out))
    }

    /// Ends the last setup step of the first client of a pair.
    fn token_of_pair(&mut self, token: wire::Token) -> io::Result<Note> {
        if self.steps.get(self.step) != Some(&Step::Prefork) {
            return Err(unexpected("a token for", ASIDE));
        }
        self.step += 1;
        Ok(Note::Partner { token, ends: self.partner })
    }

    fn answered(&mut self, reqno: u64, answer: &Answer) -> io::Result<Note> {
        let (slot, state, op) = self.busy(reqno)?;
        op.check(answer, state.copied).map_err(io::Error::other)?;
        match op {
            Op::Open => state.opened = copyinstr::opened(answer),
            Op::Close(_) => state.opened = None,
            _ => {}
        }
        state.is_busy = false;
        Ok(Note::Answered { slot, part: state.part, since: state.since })
    }

    fn token(&mut self, reqno: u64, token: wire::Token) -> io::Result<Note> {
        match self.busy(reqno)? {
            (slot, _, Op::Fork) => Ok(Note::Dial { slot, hello: Hello::Fork(token) }),
            _ => Err(unexpected("a token for", reqno)),
        }
    }

    /// Returns the slot with this call in flight.
    fn busy(&mut self, reqno: u64) -> io::Result<(u32, &mut Slot, Op)> {
        let slot = usize::try_from(reqno).ok().and_then(|slot| self.slots.get_mut(slot));
        match slot.map(|slot| (slot.op, slot)) {
            Some((Some(op), slot)) if slot.is_busy => Ok((reqno as u32, slot, op)),
            _ => Err(unexpected("a response to request", reqno)),
        }
    }

    fn copy_path(&self, reqno: u64, len: u64, addr: u64, out: &mut SendQueue) -> io::Result<()> {
        if addr != PATH {
            return Err(unexpected("a wish for the string at", addr));
        }
        let path = &self.path.as_bytes()[..self.path.len().min(len as usize)];
        out.put(|out| {
            let filled: Result<(), Infallible> = wire::copyin_response(out, reqno, |out| {
                out.extend_from_slice(path);
                Ok(())
            });
            let Ok(()) = filled;
        });
        Ok(())
    }

    fn copy_in(&mut self, reqno: u64, len: u64, addr: u64, out: &mut SendQueue) -> io::Result<()> {
        if self.step == self.steps.len() {
            self.owner(addr, len)?;
        } else if !self.is_filling(addr, len) {
            return Err(unexpected("a copy of memory that no call has named, at", addr));
        }
        out.put(|out| {
            let header = wire::Header {
                len: wire::HEADER_LEN as u64 + len,
                reqno,
                class: wire::Class::Response.number(),
                kind: wire::Kind::Copyin.number(),
                word: 0,
            };
            out.extend(header.encode());
        });
        out.put_zeroes(len as usize);
        Ok(())
    }

    /// Returns `true` if the setup step in progress has named these bytes.
    fn is_filling(&self, addr: u64, len: u64) -> bool {
        let end = addr.checked_sub(BUFFER).and_then(|offset| offset.checked_add(len));
        self.steps[self.step] == Step::Fill && end.is_some_and(|end| end <= self.call.size().into())
    }

    fn copied_out(&mut self, len: u64, addr: u64) -> io::Result<()> {
        self.owner(addr, len)?.copied += len;
        Ok(())
    }

    /// Returns the slot of the call whose buffer has these bytes.
    fn owner(&mut self, addr: u64, len: u64) -> io::Result<&mut Slot> {
        let (slot, offset) = ((addr / BUFFER).wrapping_sub(1), addr % BUFFER);
        let what = "a copy of memory that no call has named, at";
        let (_, slot, op) = self.busy(slot).map_err(|_| unexpected(what, addr))?;
        match offset.checked_add(len) {
            Some(end) if end <= op.size().into() => Ok(slot),
            _ => Err(unexpected(what, addr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a client that is set up, by a server that answers each step with these values.
    fn ready(call: &str, role: Role, values: [u64; 2]) -> (Client, SendQueue, Note) {
        let mut out = SendQueue::default();
        let mut client = Client::new(call.parse().unwrap(), role, 2, "1.2", 0);
        let mut note = client.heard(Heard::Up, &mut out).unwrap();
        while note.is_none() {
            let is_fill = client.steps[client.step] == Step::Fill;
            let is_prefork = client.steps[client.step] == Step::Prefork;
            let value = if is_fill { client.call.size().into() } else { values[0] };
            let answer = Answer { error: 0, values: [value, values[1]] };
            let heard = match is_prefork {
                true => Heard::Token { reqno: ASIDE, token: [7; 16] },
                false => Heard::Answer { reqno: ASIDE, answer },
            };
            note = client.heard(heard, &mut out).unwrap();
        }
        sent(&mut out);
        (client, out, note.unwrap())
    }

    /// Returns the requests that wait to be sent: reqno, word and arguments.
    fn sent(out: &mut SendQueue) -> Vec<(u64, u32, Vec<u64>)> {
        let mut bytes = Vec::new();
        out.take(usize::MAX, |piece| bytes.extend(piece));
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some(header) = rest.first_chunk() {
            let header = wire::Header::decode(header);
            let body = &rest[wire::HEADER_LEN..header.len as usize];
            let args = body.chunks(8).map(|arg| wire::read_u64(arg, 0)).collect();
            frames.push((header.reqno, header.word, args));
            rest = &rest[header.len as usize..];
        }
        frames
    }

    fn answer(reqno: u64, value: u64) -> Heard {
        Heard::Answer { reqno, answer: Answer { error: 0, values: [value, 0] } }
    }

    #[test]
    fn a_read_counts_when_all_of_it_has_come() {
        let (mut client, mut out, note) = ready("read:100", Role::Alone, [5, 0]);
        assert_eq!(note, Note::Ready);
        let since = Instant::now();
        assert_eq!(client.begin(1, since, &mut out), None);
        assert_eq!(sent(&mut out), [(1, 173, vec![5, BUFFER * 2, 100, 0, 0])]);
        let half = |offset| Heard::CopyOut { len: 50, addr: BUFFER * 2 + offset };
        client.heard(half(0), &mut out).unwrap();
        assert!(client.heard(half(51), &mut out).is_err(), "beyond its end");
        client.heard(half(50), &mut out).unwrap();
        let note = client.heard(answer(1, 100), &mut out).unwrap();
        assert_eq!(note, Some(Note::Answered { slot: 1, part: 0, since }));
        assert!(client.heard(answer(1, 100), &mut out).is_err(), "it was answered before");
        client.begin(1, since, &mut out);
        assert!(client.heard(answer(1, 100), &mut out).is_err(), "nothing was copied");
        assert!(client.heard(answer(2, 100), &mut out).is_err(), "no such slot");
        let stray = Heard::CopyOut { len: 50, addr: BUFFER };
        assert!(client.heard(stray, &mut out).is_err(), "slot 0 has made no call");
    }

    #[test]
    fn a_write_s_bytes_are_those_it_named() {
        let (mut client, mut out, _) = ready("pwrite:100", Role::Alone, [5, 0]);
        client.begin(0, Instant::now(), &mut out);
        sent(&mut out);
        let copy = |len, addr| Heard::CopyIn { reqno: 9, len, addr };
        client.heard(copy(60, BUFFER + 40), &mut out).unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        out.take(usize::MAX, |piece| bytes.extend(piece));
        let mut expected = Vec::new();
        let filled: Result<(), Infallible> = wire::copyin_response(&mut expected, 9, |out| {
            out.extend([0; 60]);
            Ok(())
        });
        let Ok(()) = filled;
        assert_eq!(bytes, expected);
        for (len, addr) in [(101, BUFFER), (1, BUFFER * 2), (1, 0), (1, PATH), (u64::MAX, BUFFER)] {
            assert!(client.heard(copy(len, addr), &mut out).is_err(), "{len} at {addr:#x}");
        }
    }

    #[test]
    fn a_path_is_opened_and_closed_and_goes_at_the_end() {
        let (mut client, mut out, _) = ready("copyinstr", Role::Alone, [4, 0]);
        let now = Instant::now();
        client.begin(0, now, &mut out);
        assert_eq!(sent(&mut out), [(0, 5, vec![PATH, 0, 0])]);
        let wish = Heard::CopyInStr { reqno: 3, len: 10, addr: PATH };
        client.heard(wish, &mut out).unwrap();
        assert_eq!(out.len(), wire::HEADER_LEN + 10);
        out.take(usize::MAX, |_| {});
        client.heard(answer(0, 6), &mut out).unwrap();
        client.begin(0, now, &mut out);
        assert_eq!(sent(&mut out), [(0, 6, vec![6])]);
        client.heard(answer(0, 0), &mut out).unwrap();
        client.begin(0, now, &mut out);
        assert_eq!(sent(&mut out), [(0, 5, vec![PATH, 0, 0])]);
        assert!(client.leave(&mut out));
        assert_eq!(sent(&mut out), [(ASIDE, 10, vec![PATH])]);
        assert_eq!(client.heard(answer(ASIDE, 0), &mut out).unwrap(), Some(Note::Left));
    }

    #[test]
    fn a_pair_has_opposite_ends() {
        let (first, _, note) = ready("pipe", Role::First, [3, 4]);
        let Note::Partner { token, ends } = note else { panic!("{note:?}") };
        assert_eq!((token, ends), ([7; 16], Ends { read: 3, write: 4 }));
        assert_eq!(first.names.ends, Ends { read: 3, write: 4 });
        let (mut second, mut out, note) = ready("pipe", Role::Second, [0, 0]);
        assert_eq!(note, Note::Ready);
        second.set_ends(ends);
        second.begin(0, Instant::now(), &mut out);
        assert_eq!(sent(&mut out), [(0, 3, vec![3, BUFFER, 1])]);
    }

    #[test]
    fn the_last_of_a_fair_load_is_slow() {
        let roles = [0, 1, 2].map(|number| Role::of(Call::Fair, number, 3));
        assert_eq!(roles, [Role::Alone, Role::Alone, Role::Slow]);
        for (role, slots, part) in [(Role::Alone, 2, fair::BUSY), (Role::Slow, 1, fair::SLOW)] {
            let (mut client, mut out, _) = ready("fair", role, [0, 0]);
            assert_eq!(client.slots(), slots);
            client.begin(0, Instant::now(), &mut out);
            assert_eq!(sent(&mut out), [(0, 20, vec![])]);
            assert_eq!(client.in_flight().next().unwrap().0, part as u32);
        }
    }

    #[test]
    fn forks_and_connects_want_a_connection() {
        let now = Instant::now();
        let (mut client, mut out, _) = ready("fork", Role::Alone, [0, 0]);
        assert_eq!(client.begin(1, now, &mut out), None);
        let token = Heard::Token { reqno: 1, token: [3; 16] };
        let note = client.heard(token, &mut out).unwrap();
        assert_eq!(note, Some(Note::Dial { slot: 1, hello: Hello::Fork([3; 16]) }));
        assert_eq!(client.in_flight().count(), 1);
        assert_eq!(client.child_is_up(1), Note::Answered { slot: 1, part: 0, since: now });
        assert_eq!(client.in_flight().count(), 0);
        let mut client = Client::new(Call::Connect, Role::Alone, 1, "1.2", 0);
        let dial = Note::Dial { slot: 0, hello: Hello::Guest };
        assert_eq!(client.begin(0, now, &mut out), Some(dial));
    }

    #[test]
    fn a_file_is_filled_piece_by_piece() {
        let mut out = SendQueue::default();
        let mut client = Client::new("read:100".parse().unwrap(), Role::Alone, 1, "1.2", 0);
        let copy = |len, addr| Heard::CopyIn { reqno: 9, len, addr };
        client.heard(Heard::Up, &mut out).unwrap();
        assert!(client.heard(copy(1, BUFFER), &mut out).is_err(), "it only opens");
        client.heard(answer(ASIDE, 3), &mut out).unwrap();
        client.heard(answer(ASIDE, 0), &mut out).unwrap();
        client.heard(copy(60, BUFFER), &mut out).unwrap();
        client.heard(copy(40, BUFFER + 60), &mut out).unwrap();
        assert!(client.heard(copy(41, BUFFER + 60), &mut out).is_err());
        assert!(client.heard(copy(1, BUFFER - 1), &mut out).is_err());
        assert!(client.heard(answer(ASIDE, 99), &mut out).is_err(), "99 of 100 bytes");
        assert_eq!(client.heard(answer(ASIDE, 100), &mut out).unwrap(), Some(Note::Ready));
    }

    #[test]
    fn a_setup_that_fails_says_where() {
        let mut out = SendQueue::default();
        let mut client = Client::new("read:4k".parse().unwrap(), Role::Alone, 1, "1.2", 0);
        client.heard(Heard::Up, &mut out).unwrap();
        let refusal = Answer { error: 13, values: [0; 2] };
        let error = client.heard(Heard::Answer { reqno: ASIDE, answer: refusal }, &mut out);
        assert!(error.unwrap_err().to_string().contains("Open ended with NetBSD's error 13"));
    }
}
