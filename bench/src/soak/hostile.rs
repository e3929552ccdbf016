//! Clients without manners: so many at a time, each of which does one of the [`attacks`](super::attacks)
//! after the other, by chance.

use std::net::Shutdown;
use std::time::Duration;

use client::ConnectError;
use client::raw::{RawConnection, RawError, RawFrame};

use super::attacks::ATTACKS;
use super::run::{Counts, Run, sum};
use crate::workload::Random;

/// How long a server may take for an answer. Attackers do not insist on it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may leave bytes in the socket.
const WRITE: Duration = Duration::from_millis(500);

/// How long one holds what it has, in milliseconds; and how long now and then.
const HOLD: [u32; 2] = [1000, 15_000];

/// Why an attack came to no end.
pub enum Met {
    /// The server hung up, refused or did not answer, which is its right.
    Refused,
    /// It did what it never should.
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

/// One that is hostile, at the moment on one connection.
pub struct Attacker<'a> {
    pub run: &'a Run,
    pub random: Random,
}

/// Attacks until the end, so many at a time, each with those attacks that have `only` in their names.
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
    /// A connection on which nothing was said.
    pub fn silent(&self) -> Result<RawConnection, Met> {
        Ok(RawConnection::connect(&self.run.url)?)
    }

    /// One that has read the banner.
    pub fn connected(&self) -> Result<RawConnection, Met> {
        let mut raw = self.silent()?;
        raw.read_banner(PATIENCE).map_err(RawError::from)?;
        Ok(raw)
    }

    /// One that has shaken hands.
    pub fn guest(&self) -> Result<RawConnection, Met> {
        let mut raw = self.silent()?;
        raw.hello("hostile", PATIENCE)?;
        Ok(raw)
    }

    /// Sends what the socket takes.
    pub fn send(&self, raw: &mut RawConnection, bytes: &[u8]) -> Result<(), Met> {
        match raw.write_within(bytes, WRITE)? {
            all if all == bytes.len() => Ok(()),
            _ => Err(Met::Refused),
        }
    }

    pub fn hear(&self, raw: &mut RawConnection) -> Result<RawFrame, Met> {
        Ok(raw.read_frame(PATIENCE)?)
    }

    /// Holds what it has for a while, then hangs up in one way or another.
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

    /// A number that is likely to be where something ends.
    pub fn number(&mut self) -> u64 {
        let near = [0, 24, 1 << 12, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
        let near = near[self.random.below(near.len() as u32) as usize];
        near.wrapping_add(u64::from(self.random.below(5))).wrapping_sub(2)
    }
}
