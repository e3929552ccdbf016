//! Hostile clients: each of a given number does the [`attacks`](super::attacks) one after the other, in
//! random order.

use std::net::Shutdown;
use std::time::Duration;

use client::ConnectError;
use client::raw::{RawConnection, RawError, RawFrame};

use super::attacks::ATTACKS;
use super::run::{Counts, Run, sum};
use crate::workload::Random;

/// The time a server has for an answer. Attackers do not insist on the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time a server may leave bytes in the socket.
const WRITE: Duration = Duration::from_millis(500);

/// The longest that an attacker keeps its connection open, in milliseconds, usually and now and then.
const HOLD: [u32; 2] = [1000, 15_000];

/// The reason why an attack came to no end.
pub enum Met {
    /// The server hung up, refused or did not answer, which is its right.
    Refused,
    /// The server did what it never should.
    Wrong(String),
}

impl From<RawError> for Met {
    fn from(_: RawError) -> Met {
        Met::Refused
    }
}

impl From<std::io::Error> for Met {
    fn from(_: std::io::Error) -> Met {
        Met::Refused
    }
}

impl From<ConnectError> for Met {
    fn from(_: ConnectError) -> Met {
        Met::Refused
    }
}

/// A hostile client, which has one connection at a time.
pub struct Attacker<'a> {
    pub run: &'a Run,
    pub random: Random,
}

/// Attacks until the end with `number` clients, each with the attacks that have `only` in their names.
pub fn attack(run: &Run, number: usize, only: &str) -> Counts {
    std::thread::scope(|scope| {
        let one = |number| scope.spawn(move || attack_alone(run, number, only));
        let threads: Vec<_> = (0..number).map(one).collect();
        sum(threads.into_iter().map(|thread| thread.join().expect("attackers do not panic")))
    })
}

fn attack_alone(run: &Run, number: usize, only: &str) -> Counts {
    let attacks: Vec<_> = ATTACKS.iter().filter(|(name, _)| name.contains(only)).collect();
    let mut counts = Counts::new();
    let mut attacker = Attacker { run, random: run.random("hostile", number) };
    while run.sleep(Duration::from_millis(attacker.random.below(50).into())) {
        let (name, attack) = attacks[run.choose(&mut attacker.random, attacks.len())];
        if let Err(Met::Wrong(what)) = attack(&mut attacker) {
            run.wrong("hostile", format!("{name}: {what}"));
        }
        *counts.entry(name).or_default() += 1;
    }
    counts
}

impl Attacker<'_> {
    /// Connects and says nothing.
    pub fn silent(&self) -> Result<RawConnection, Met> {
        Ok(RawConnection::connect(&self.run.url)?)
    }

    /// Connects and reads the banner.
    pub fn connected(&self) -> Result<RawConnection, Met> {
        let mut raw = self.silent()?;
        raw.read_banner(PATIENCE).map_err(RawError::from)?;
        Ok(raw)
    }

    /// Connects and does the handshake as a guest.
    pub fn guest(&self) -> Result<RawConnection, Met> {
        let mut raw = self.silent()?;
        raw.hello("hostile", PATIENCE)?;
        Ok(raw)
    }

    /// Sends bytes, and fails unless the socket takes all of them in time.
    pub fn send(&self, raw: &mut RawConnection, bytes: &[u8]) -> Result<(), Met> {
        match raw.write_within(bytes, WRITE)? {
            all if all == bytes.len() => Ok(()),
            _ => Err(Met::Refused),
        }
    }

    pub fn hear(&self, raw: &mut RawConnection) -> Result<RawFrame, Met> {
        Ok(raw.read_frame(PATIENCE)?)
    }

    /// Keeps the connection open for a while, then hangs up in one of several ways.
    pub fn hold_and_go(&mut self, mut raw: RawConnection) -> Result<(), Met> {
        let most = HOLD[usize::from(self.random.below(10) == 0)];
        self.run.sleep(Duration::from_millis(self.random.below(most).into()));
        match self.random.below(4) {
            0 => raw.shutdown(Shutdown::Write)?,
            1 => raw.shutdown(Shutdown::Read)?,
            2 => rustix::net::sockopt::set_socket_linger(&raw, Some(Duration::ZERO))
                .map_err(std::io::Error::from)?,
            _ => {}
        }
        Ok(())
    }

    /// Returns a number near a value where something is likely to end or overflow.
    pub fn number(&mut self) -> u64 {
        let near = [0, 24, 1 << 12, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
        let near = near[self.random.below(near.len() as u32) as usize];
        near.wrapping_add(u64::from(self.random.below(5))).wrapping_sub(2)
    }
}
