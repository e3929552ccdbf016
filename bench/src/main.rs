//! `rumpring-bench`: how fast does a server answer?
//!
//! One thread keeps a number of `getpid` calls in flight on each of a number of connections, for a
//! time, and says how many were answered and how long they took. A closed loop: the next call of a
//! connection is sent when one is answered, so latencies are those of this load, not of a given rate.

#![forbid(unsafe_code)]

mod connection;
mod load;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rumpring::url::Url;

/// Measure how fast a system call server answers getpid.
///
/// Speaks RUMPSP over unix and tcp to any server, rumpring or NetBSD's own.
#[derive(Parser)]
#[command(name = "rumpring-bench", version)]
pub struct Cli {
    /// The server's URL.
    #[arg(env = "RUMP_SERVER", value_name = "URL")]
    url: Url,

    /// How many connections.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,

    /// How many calls each keeps in flight.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,

    /// For how many seconds, after one second of warm-up that does not count.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rumpring-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let mut load = load::Load::connect(&cli.url, cli.connections, cli.in_flight)?;
    load.run(Duration::from_secs(1))?;
    let result = load.run(Duration::from_secs(cli.seconds))?;
    println!(
        "getpid {} connections {} in flight: {:.0} calls/s",
        cli.connections, cli.in_flight, result.rate
    );
    let us = |quantile| result.latencies.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "latency us: p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} p99.99 {:.1} max {:.1}",
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        us(0.9999),
        us(1.0)
    );
    Ok(())
}
