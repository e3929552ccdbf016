//! A server full of waiting clients.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::waiter::Waiter;
use super::{Things, Way};
use crate::compare::{Server, Target};
use crate::cpu_usage::Usage;
use crate::memory::resident_kib;
use crate::workload::Random;

/// The time the server has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(300);

/// The number of clients that are made before those that wait are served.
const BATCH: usize = 200;

pub struct Crowd {
    waiters: Vec<Waiter>,
    server: Server,
    pid: u32,
    /// KiB of the server's memory for each client.
    pub kib_each: f64,
    pub threads: usize,
    /// For each round: the median time from a write to the end of the wait, and the server's CPU time
    /// for waking a client and having it wait again, both in microseconds.
    pub rounds: Vec<Round>,
    _dir: TempDir,
}

#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub median_us: f64,
    pub cpu_us: f64,
}

impl Crowd {
    /// Starts a server and has `clients` clients wait there.
    pub fn gather(
        target: &Target,
        clients: u32,
        things: u32,
        on: Things,
        way: Way,
    ) -> Result<Crowd, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let server = target.server(dir.path())?;
        let pid = server.books().pid.ok_or("the server has no process of its own")?;
        // The first client comes and goes, so that its one-time costs do not count.
        drop(Waiter::new(&server.url, things, on, way)?);
        std::thread::sleep(REST);
        let before = resident_kib(pid)?;
        let mut waiters: Vec<Waiter> = Vec::with_capacity(clients as usize);
        while waiters.len() < clients as usize {
            let first = waiters.len();
            let until = (first + BATCH).min(clients as usize);
            for number in first..until {
                let mut waiter = Waiter::new(&server.url, things, on, way).map_err(|error| {
                    server.explain(&io::Error::other(format!("client {number}: {error}")))
                })?;
                waiter.wait();
                waiters.push(waiter);
            }
            for waiter in &waiters[first..] {
                waiter.settle()?;
            }
        }
        std::thread::sleep(REST);
        let with = resident_kib(pid)?;
        let kib_each = (with as f64 - before as f64) / f64::from(clients);
        let threads = Usage::of(pid)?.threads();
        Ok(Crowd { waiters, server, pid, kib_each, threads, rounds: Vec::new(), _dir: dir })
    }

    /// Returns the number of waiting clients.
    pub fn clients(&self) -> usize {
        self.waiters.len()
    }

    /// Wakes `wakes` clients, picked at random.
    pub fn wake(&mut self, wakes: u32, seed: u64) -> Result<(), Box<dyn Error>> {
        let before = Usage::of(self.pid)?;
        let mut times = Vec::with_capacity(wakes as usize);
        let mut chance = Random::new(seed);
        for _ in 0..wakes {
            let who = chance.below(self.waiters.len() as u32) as usize;
            let waiter = &mut self.waiters[who];
            let which = chance.below(u32::MAX) as usize;
            let start = Instant::now();
            waiter.wake(which).map_err(|error| self.server.explain(&error))?;
            times.push(start.elapsed());
            waiter.wait();
            waiter.settle()?;
        }
        let cpu = Usage::of(self.pid)?.since(&before).cpu;
        times.sort_unstable();
        self.rounds.push(Round {
            median_us: times[times.len() / 2].as_secs_f64() * 1e6,
            cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(wakes),
        });
        Ok(())
    }
}
