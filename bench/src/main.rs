//! `rumpring-bench`: measures how fast a server answers.
//!
//! Threads keep a number of calls in flight on each of a number of connections, for a time, and report
//! the number of answers, the latencies and the server's cost. In a closed loop the next call of a
//! connection is sent when one is answered, so latencies are those of this load. In an open loop calls
//! are made at a given rate, and latencies count from when they were due, so that there is no
//! coordinated omission.
//!
//! - [`workload`]: the calls; [`connection`]: one client, with an [`inbox`] behind its [`socket`];
//!   [`load`]: many clients at once; [`idle`]: connections that do nothing; [`files`]: the limit of
//!   open files.
//! - The server's cost is its [`cpu_usage`], its [`memory`], and its own [`counters`]; [`measure`] runs
//!   one load and reads all of that.
//! - [`once`]: the command that measures one server, and its [`progress`]; [`compare`]: the command
//!   that has several servers take turns, and the [`report`] of its results; [`interrupt`]: ends
//!   either.
//! - [`soak`]: the command that keeps one server busy and abused for a long time.
//! - [`wake`]: the command that has crowds of clients wait, and wakes one after the other.
//! - [`histogram`]: latencies in words and on disk; [`merge`]: the command that adds them up.
//! - [`baseline`]: servers without a kernel, which show what the machine itself can do.

#![forbid(unsafe_code)]
// These macros panic when nobody reads what they print: see `rumpring::output`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod baseline;
mod compare;
mod connection;
mod counters;
mod cpu_usage;
mod files;
mod histogram;
mod idle;
mod inbox;
mod interrupt;
mod load;
mod measure;
mod memory;
mod merge;
mod once;
mod progress;
mod report;
mod soak;
mod socket;
mod wake;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rumpring::output;

/// The name of the program, with which errors begin.
const NAME: &str = "rumpring-bench";

/// Measure how fast a system call server answers.
///
/// Speaks RUMPSP over unix and tcp to any server, rumpring or NetBSD's own.
#[derive(Parser)]
#[command(
    name = "rumpring-bench",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    once: once::Once,
}

#[derive(Subcommand)]
enum Command {
    Compare(Box<compare::Compare>),
    #[command(alias = "floor")]
    Baseline(baseline::Baseline),
    Merge(merge::Merge),
    Soak(Box<soak::Soak>),
    Wake(wake::Wake),
    #[command(hide = true)]
    Share(load::Worker),
    #[command(hide = true)]
    Victim(soak::Victim),
}

fn main() -> ExitCode {
    let cli: Cli = match output::parse(NAME) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let result = match &cli.command {
        None => cli.once.run(),
        Some(Command::Compare(compare)) => compare.run(),
        Some(Command::Baseline(baseline)) => baseline.run(),
        Some(Command::Merge(merge)) => merge.run(),
        Some(Command::Soak(soak)) => soak.run(),
        Some(Command::Wake(wake)) => wake.run(),
        Some(Command::Victim(victim)) => victim.run(),
        Some(Command::Share(share)) => share.run(),
    };
    output::end(NAME, result)
}
