//! `rumpring-bench`: how fast does a server answer?
//!
//! One thread keeps a number of calls in flight on each of a number of connections, for a time, and
//! says how many were answered, how long they took and what they cost the server. A closed loop: the
//! next call of a connection is sent when one is answered, so latencies are those of this load, not of
//! a given rate.
//!
//! - [`workload`]: what can be called; [`load`]: many [`connection`]s at once, each a [`socket`] with an
//!   [`inbox`] behind it; [`idle`]: connections that do nothing; [`files`]: how many there may be.
//! - What the server pays is its [`bill`], its [`memory`], and what it counts itself ([`counters`]);
//!   [`measure`] is a load and all of that once.
//! - [`once`]: the command that measures one server; [`compare`]: the one that has several take turns,
//!   and the [`report`] of what it found.
//! - [`histogram`]: latencies on disk; [`merge`]: the command that adds them up.
//! - [`floor`]: servers without a kernel, for what the machine itself can do.

#![forbid(unsafe_code)]

mod bill;
mod compare;
mod connection;
mod counters;
mod files;
mod floor;
mod histogram;
mod idle;
mod inbox;
mod load;
mod measure;
mod memory;
mod merge;
mod once;
mod report;
mod socket;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Floor(floor::Floor),
    Merge(merge::Merge),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    files::raise_limit();
    let result = match &cli.command {
        None => cli.once.run(),
        Some(Command::Compare(compare)) => compare.run(),
        Some(Command::Floor(floor)) => floor.run(),
        Some(Command::Merge(merge)) => merge.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rumpring-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
