//! `rumpring-bench`: how fast does a server answer?
//!
//! Threads keep a number of calls in flight on each of a number of connections, for a time, and say how
//! many were answered, how long they took and what they cost the server. In a closed loop the next call of
//! a connection is sent when one is answered, so latencies are those of this load; in an open loop calls
//! are made at a given rate, and latencies count from when they were due.
//!
//! - [`workload`]: what can be called; [`connection`]: one client, with an [`inbox`] behind its [`socket`];
//!   [`load`]: many of them at once; [`idle`]: connections that do nothing; [`files`]: how many files a
//!   process may have open.
//! - What the server pays is its [`cpu_usage`], its [`memory`], and what it counts itself ([`counters`]);
//!   [`measure`] is a load and all of that once.
//! - [`once`]: the command that measures one server, and its [`progress`]; [`compare`]: the one that has
//!   several take turns, and the [`report`] of what it found; [`interrupt`]: ending either.
//! - [`soak`]: the command that keeps one server busy and abused for a long time.
//! - [`wake`]: the command that has crowds of clients wait, and wakes one after the other.
//! - [`histogram`]: latencies in words and on disk; [`merge`]: the command that adds them up.
//! - [`baseline`]: servers without a kernel, for what the machine itself can do.

#![forbid(unsafe_code)]
// They panic when nobody takes what they print: see `rumpring::output`.
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

/// The name that errors begin with.
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
