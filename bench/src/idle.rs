//! Connections that do nothing, and what each of them keeps a server's memory busy with.

use std::io;
use std::time::Duration;

use rumpsp::url::Url;

use crate::connection::greet;
use crate::memory::resident_kib;

/// How long the server has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(200);

/// Memory of a server without connections and with idle ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// KiB of resident user memory before the first of them connected.
    pub before: u64,
    /// The same with all of them, each of which has shaken hands and made no call.
    pub with: u64,
    pub connections: u32,
}

impl Idle {
    /// KiB for each connection.
    pub fn kib_each(&self) -> f64 {
        (self.with as f64 - self.before as f64) / f64::from(self.connections)
    }
}

/// Connects so many clients, which do nothing, and reads the memory of the server's process.
pub fn idle(url: &Url, connections: u32, pid: u32) -> io::Result<Idle> {
    // One that comes and goes, so that what the first one costs is not on the bill of each.
    drop(greet(url)?);
    std::thread::sleep(REST);
    let before = resident_kib(pid)?;
    let mut held = Vec::new();
    for number in 0..connections {
        held.push(greet(url).map_err(|error| {
            io::Error::new(error.kind(), format!("connection {number} to {url}: {error}"))
        })?);
    }
    std::thread::sleep(REST);
    let with = resident_kib(pid)?;
    drop(held);
    Ok(Idle { before, with, connections })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_among_the_connections() {
        let idle = Idle { before: 1000, with: 3000, connections: 400 };
        assert_eq!(idle.kib_each(), 5.0);
        // A server may have given memory back meanwhile.
        let idle = Idle { before: 1000, with: 900, connections: 400 };
        assert_eq!(idle.kib_each(), -0.25);
    }
}
