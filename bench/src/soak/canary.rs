//! The canary: a well-behaved client that comes every second. It must be served, correctly and in time,
//! whatever else goes on.

use std::error::Error;
use std::time::{Duration, Instant};

use client::Client;
use client::numbers::{O_CREAT, O_EXCL, O_RDWR};
use hdrhistogram::Histogram;
use rumpsp::url::Url;

use super::run::Run;
use crate::load::histogram;
use crate::workload::Random;

/// The time between two visits.
const EVERY: Duration = Duration::from_secs(1);

/// The time within which a visit must be served.
pub const BOUND: Duration = Duration::from_secs(5);

/// Bytes that the canary writes to its file.
const FILE: usize = 5000;

/// The results of the canary.
pub struct Seen {
    /// The length of each visit, in nanoseconds.
    pub latencies: Histogram<u64>,
    pub refused: u64,
    pub late: u64,
}

/// Visits the server every second until the end.
pub fn sing(run: &Run) -> std::io::Result<Seen> {
    let mut seen = Seen { latencies: histogram()?, refused: 0, late: 0 };
    let mut random = run.random("canary", 0);
    loop {
        let start = Instant::now();
        let outcome = round(&run.url, &mut random);
        let took = start.elapsed();
        seen.latencies.saturating_record(took.as_nanos() as u64);
        if let Err(error) = outcome {
            seen.refused += 1;
            run.wrong("canary", format!("after {:.3} s: {error}", took.as_secs_f64()));
        } else if took > BOUND {
            seen.late += 1;
            run.wrong("canary", format!("served after {:.3} s", took.as_secs_f64()));
        }
        if !run.sleep(EVERY.saturating_sub(took)) {
            return Ok(seen);
        }
    }
}

/// Makes one visit: uses a process, a file and a pipe.
fn round(url: &Url, random: &mut Random) -> Result<(), Box<dyn Error>> {
    let client = Client::builder().name("canary").timeout(BOUND * 2).connect(url)?;
    if client.getpid()? <= 0 || client.getpid()? != client.getpid()? {
        return Err("getpid answered with another number".into());
    }
    check_file(&client, "canary", FILE, random)?;
    check_pipe(&client, random)
}

/// Writes to a file and reads it back. The file has a name only for a moment, so that none is left
/// behind.
pub fn check_file(
    client: &Client,
    who: &str,
    len: usize,
    random: &mut Random,
) -> Result<(), Box<dyn Error>> {
    let path = format!("/soak.{who}.{:x}", random.next());
    let file = client.open(&path, O_RDWR | O_CREAT | O_EXCL, 0o600)?;
    client.unlink(&path)?;
    let bytes = bytes(random, len);
    let written = client.pwrite(file, &bytes, 0)?;
    if written != len {
        return Err(format!("{written} bytes written of {len}").into());
    }
    if client.pread(file, len + 1, 0)? != bytes {
        return Err(format!("a file of {len} bytes was read back otherwise").into());
    }
    Ok(client.close(file)?)
}

/// Sends some bytes through a pipe.
pub fn check_pipe(client: &Client, random: &mut Random) -> Result<(), Box<dyn Error>> {
    let [from, to] = client.pipe()?;
    let bytes = bytes(random, 100);
    client.write(to, &bytes)?;
    if client.read(from, 200)? != bytes {
        return Err("a pipe had other bytes than were written".into());
    }
    client.close(from)?;
    Ok(client.close(to)?)
}

/// Returns `len` random bytes.
pub fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 7);
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
