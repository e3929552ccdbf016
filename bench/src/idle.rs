//! Measures the server's memory for each idle connection.

use std::io;
use std::time::Duration;

use rumpsp::url::Url;

use crate::connection::greet;
use crate::memory::resident_kib;

/// The time the server has to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(200);

/// Memory of a server without connections and with idle ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// KiB of resident user memory before the first connection.
    pub before: u64,
    /// KiB of resident user memory with all connections, whose handshakes are done and which make no
    /// call.
    pub with: u64,
    pub connections: u32,
}

impl Idle {
    /// Returns the KiB for each connection.
    pub fn kib_each(&self) -> f64 {
        (self.with as f64 - self.before as f64) / f64::from(self.connections)
    }
}

/// Connects `connections` clients, which do nothing, and reads the memory of the server's process.
pub fn idle(url: &Url, connections: u32, pid: u32) -> io::Result<Idle> {
    // The first connection comes and goes, so that its one-time costs do not count.
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
