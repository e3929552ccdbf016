//! The load: connections that are kept busy by one thread.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumpring::url::Url;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::connection::{Connection, PATIENCE};
use crate::workload::Call;

/// Bytes that one read of a socket may bring: many small frames, or a good piece of a large one.
const BUFFER: usize = 64 << 10;

/// A load, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub call: Call,
    pub connections: u32,
    pub in_flight: u32,
}

/// Connections and what tells which of them has been answered.
pub struct Load {
    connections: Vec<Connection>,
    epoll: rustix::fd::OwnedFd,
    /// Which connections are waited for until they can be written to.
    waits_to_write: Vec<bool>,
    buffer: Vec<u8>,
}

/// What a run has shown.
pub struct Measured {
    /// Calls answered.
    pub calls: u64,
    pub elapsed: Duration,
    /// How long each took, in nanoseconds. Longer than [`PATIENCE`] counts as that.
    pub latencies: Histogram<u64>,
    /// Which part of the time this thread was on a CPU. Near 1, the load and not the server is what
    /// was measured.
    pub client_busy: f64,
}

impl Measured {
    /// Calls answered a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds that this part of the calls stayed below.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

impl Load {
    /// Connects, and sends the first calls.
    pub fn connect(url: &Url, plan: Plan) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut load = Load {
            connections: Vec::new(),
            epoll,
            waits_to_write: vec![false; plan.connections as usize],
            buffer: vec![0; BUFFER],
        };
        for number in 0..plan.connections {
            let connection = Connection::connect(url, plan.call, number).map_err(|error| {
                io::Error::new(error.kind(), format!("connection {number} to {url}: {error}"))
            })?;
            let data = EventData::new_u64(u64::from(number));
            epoll::add(&load.epoll, &connection, data, EventFlags::IN)?;
            load.connections.push(connection);
        }
        for index in 0..load.connections.len() {
            load.connections[index].start(plan.in_flight, Instant::now());
            load.flush(index)?;
        }
        Ok(load)
    }

    /// Keeps all connections busy for this long.
    pub fn run(&mut self, length: Duration) -> io::Result<Measured> {
        let mut latencies =
            Histogram::new_with_max(PATIENCE.as_nanos() as u64, 3).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(1024);
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let (start, busy) = (Instant::now(), thread_time());
        let mut calls = 0;
        while start.elapsed() < length {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, Some(&patience)) {
                Ok(0) => return Err(io::Error::other("the server answered nothing for a minute")),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let index = event.data.u64() as usize;
                calls += self.connections[index].receive(&mut self.buffer, &mut latencies)?;
                self.flush(index)?;
            }
        }
        let elapsed = start.elapsed();
        let client_busy = (thread_time() - busy).as_secs_f64() / elapsed.as_secs_f64();
        Ok(Measured { calls, elapsed, latencies, client_busy })
    }

    /// Writes what can be written; the rest when there is room.
    fn flush(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.flush()?;
        let waits = connection.wants_write();
        if waits != self.waits_to_write[index] {
            self.waits_to_write[index] = waits;
            let out = if waits { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, connection, data, EventFlags::IN | out)?;
        }
        Ok(())
    }
}

/// CPU time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
