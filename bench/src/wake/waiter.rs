//! One client that waits for several pipes or sockets of its own.

use std::io;
use std::time::Duration;

use client::{Client, Pending};
use kernel::sys::{KEVENT, KQUEUE, PIPE, POLL, READ, SOCKETPAIR, WRITE};
use rumpsp::url::Url;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{PATIENCE, Things, Way};

/// The events asked for in a `struct pollfd`.
const POLLIN: u16 = 1;
/// The size of `struct kevent`, and the fields of a registration.
const KEVENT_SIZE: u64 = 40;
const EVFILT_READ: u32 = 0;
const EV_ADD: u32 = 1;

/// Forever, for poll.
const INFTIM: u64 = u64::MAX;

/// The time within which a waiting call is asleep, once everything it asks its client for is there.
const SETTLED: Duration = Duration::from_millis(20);

pub struct Waiter {
    client: Client,
    way: Way,
    /// For each pipe or socket pair, the descriptor to read, and the one to write so that it becomes
    /// readable.
    ends: Vec<[u64; 2]>,
    /// The address of the array for poll or of the events, and the kqueue's descriptor.
    list: u64,
    kqueue: u64,
    /// The address of the byte that is written and read.
    byte: u64,
    waits: Option<Pending>,
}

impl Waiter {
    /// Connects and makes everything to wait for. The client does not wait yet.
    pub fn new(url: &Url, things: u32, on: Things, way: Way) -> io::Result<Waiter> {
        let client = Client::builder()
            .name("waiter")
            .timeout(PATIENCE)
            .connect(url)
            .map_err(io::Error::other)?;
        let space = client.space();
        let room = u64::from(things) * KEVENT_SIZE;
        let list = space.alloc(room as usize).map_err(io::Error::other)?;
        let byte = space.alloc(8).map_err(io::Error::other)?;
        let mut waiter =
            Waiter { client, way, ends: Vec::new(), list, kqueue: 0, byte, waits: None };
        for _ in 0..things {
            let ends = match on {
                Things::Pipes => waiter.call(PIPE, &[])?,
                Things::Sockets => waiter.socket_pair()?,
            };
            waiter.ends.push(ends);
        }
        match way {
            Way::Poll => waiter.list_for_poll()?,
            Way::Kevent => waiter.list_for_kevent()?,
        }
        Ok(waiter)
    }

    fn call(&self, number: i32, args: &[u64]) -> io::Result<[u64; 2]> {
        let values = self.client.call(number, args);
        values.map(|values| values.map(|value| value as u64)).map_err(|error| {
            io::Error::other(format!("call {number} of a client that is to wait: {error}"))
        })
    }

    /// Makes a pair of local stream sockets and returns both ends.
    fn socket_pair(&self) -> io::Result<[u64; 2]> {
        self.call(SOCKETPAIR, &[1, 1, 0, self.byte])?;
        let mut ends = [0; 8];
        self.client.space().read_into(self.byte, &mut ends).map_err(io::Error::other)?;
        let end = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| ends[at + i])));
        Ok([end(0), end(4)])
    }

    fn list_for_poll(&self) -> io::Result<()> {
        let entry = |&[read, _]: &[u64; 2]| {
            let fd = (read as u32).to_le_bytes();
            let events = POLLIN.to_le_bytes();
            [fd[0], fd[1], fd[2], fd[3], events[0], events[1], 0, 0]
        };
        let bytes: Vec<u8> = self.ends.iter().flat_map(entry).collect();
        self.client.space().write(self.list, &bytes).map_err(io::Error::other)
    }

    /// Registers all descriptors with a kqueue.
    fn list_for_kevent(&mut self) -> io::Result<()> {
        [self.kqueue, _] = self.call(KQUEUE, &[])?;
        let mut bytes = vec![0; self.ends.len() * KEVENT_SIZE as usize];
        for (event, [read, _]) in bytes.chunks_exact_mut(KEVENT_SIZE as usize).zip(&self.ends) {
            event[..8].copy_from_slice(&read.to_le_bytes());
            event[8..12].copy_from_slice(&EVFILT_READ.to_le_bytes());
            event[12..16].copy_from_slice(&EV_ADD.to_le_bytes());
        }
        self.client.space().write(self.list, &bytes).map_err(io::Error::other)?;
        let count = self.ends.len() as u64;
        self.call(KEVENT, &[self.kqueue, self.list, count, 0, 0, 0])?;
        Ok(())
    }

    /// Starts waiting.
    pub fn wait(&mut self) {
        let count = self.ends.len() as u64;
        self.waits = Some(match self.way {
            Way::Poll => self.client.begin(POLL, &[self.list, count, INFTIM]),
            Way::Kevent => self.client.begin(KEVENT, &[self.kqueue, 0, 0, self.list, count, 0]),
        });
    }

    /// Serves the request of the waiting call: poll's list.
    pub fn settle(&self) -> io::Result<()> {
        if self.way == Way::Kevent {
            return Ok(());
        }
        let mut socket = [PollFd::new(&self.client, PollFlags::IN)];
        let time = Timespec { tv_sec: 0, tv_nsec: SETTLED.as_nanos() as i64 };
        if poll(&mut socket, Some(&time))? > 0 {
            self.client.pump().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes one descriptor readable, waits for the waiting call to end, and reads the byte. The client
    /// does not wait after that.
    pub fn wake(&mut self, which: usize) -> io::Result<()> {
        let [read, write] = self.ends[which % self.ends.len()];
        let written = self.client.begin(WRITE, &[write, self.byte, 1]);
        let mut waits = self.waits.take().ok_or_else(|| io::Error::other("it does not wait"))?;
        let woken = waits.finish_timeout(PATIENCE);
        match woken {
            Some(Ok([1, _])) => {}
            other => return Err(io::Error::other(format!("one event was due, and not {other:?}"))),
        }
        written.finish().map_err(|error| io::Error::other(format!("a write: {error}")))?;
        match self.call(READ, &[read, self.byte, 1])? {
            [1, _] => Ok(()),
            [other, _] => Err(io::Error::other(format!("{other} bytes where there is one"))),
        }
    }
}
