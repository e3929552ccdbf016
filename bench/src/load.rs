//! The load: connections that are kept busy by one thread.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rumpring::url::Url;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::connection::Connection;

/// Latencies are kept up to here; longer ones count as this.
const MAX_LATENCY: Duration = Duration::from_secs(60);

/// Connections and what tells which of them has been answered.
pub struct Load {
    connections: Vec<Connection>,
    epoll: rustix::fd::OwnedFd,
}

/// What a run has shown.
pub struct Measured {
    /// Calls answered a second.
    pub rate: f64,
    /// How long each took, in nanoseconds.
    pub latencies: Histogram<u64>,
}

impl Load {
    /// Connects, and sends the first calls.
    pub fn connect(url: &Url, connections: u32, in_flight: u32) -> io::Result<Load> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut load = Load { connections: Vec::new(), epoll };
        for number in 0..connections {
            let connection = Connection::connect(url).map_err(|error| {
                io::Error::new(error.kind(), format!("connection {number} to {url}: {error}"))
            })?;
            let data = EventData::new_u64(u64::from(number));
            epoll::add(&load.epoll, &connection, data, EventFlags::IN)?;
            load.connections.push(connection);
        }
        for connection in &mut load.connections {
            let now = Instant::now();
            (0..in_flight).for_each(|_| connection.call(now));
            connection.flush()?;
        }
        Ok(load)
    }

    /// Keeps all connections busy for this long.
    pub fn run(&mut self, length: Duration) -> io::Result<Measured> {
        let mut latencies =
            Histogram::new_with_max(MAX_LATENCY.as_nanos() as u64, 3).map_err(io::Error::other)?;
        let start = Instant::now();
        let mut answered = 0;
        let mut events = Vec::with_capacity(1024);
        let patience = rustix::fs::Timespec { tv_sec: MAX_LATENCY.as_secs() as i64, tv_nsec: 0 };
        while start.elapsed() < length {
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&patience),
            ) {
                Ok(0) => return Err(io::Error::other("the server answered nothing for a minute")),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let connection = &mut self.connections[event.data.u64() as usize];
                let calls = connection.receive(&mut latencies)?;
                let now = Instant::now();
                (0..calls).for_each(|_| connection.call(now));
                connection.flush()?;
                answered += calls;
            }
        }
        Ok(Measured { rate: answered as f64 / start.elapsed().as_secs_f64(), latencies })
    }
}
