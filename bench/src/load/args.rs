//! The settings of a load on the command line.

use std::time::Duration;

use clap::Args;

use super::Settings;

#[derive(Args, Clone, Copy, Debug)]
pub struct LoadArgs {
    /// Calls a second, of all connections; without it, as many as are answered.
    ///
    /// They are made on a fixed schedule, whether those before are answered or not, and their latency counts
    /// from when they were due.
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,

    /// Number of threads that make the load; fewer if there are fewer connections.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,

    /// Microseconds a load thread looks for answers before it sleeps, as long as that pays: an answer
    /// is seen sooner, and more of a CPU is used.
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub spin: u64,
}

impl LoadArgs {
    pub fn settings(&self) -> Settings {
        let LoadArgs { rate, threads, spin } = *self;
        Settings { threads, rate, spin: Duration::from_micros(spin), ..Settings::default() }
    }
}
