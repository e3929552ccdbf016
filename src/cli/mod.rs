//! The command line: its words, and what each does.
//!
//! Error messages are for people: what was wrong, where, and what to do. Exit status 0 is success, 1 a
//! failure, and 2 a command line that could not be understood.

mod call;
mod calls;
mod embedded;
mod etfs;
mod lifetime;
mod notify;
mod rump;
mod rump_server;
mod sandbox;
mod serve;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Parser, Subcommand};

use crate::output;
use crate::output::log::{self, LogOptions};

/// The name that errors begin with.
const NAME: &str = "rumpring";

/// A system call server for NetBSD rump kernel clients, on io_uring.
#[derive(Parser)]
#[command(
    name = "rumpring",
    version,
    after_help = "\
Start a server, then point any client at it with RUMP_SERVER:

    rumpring serve unix:///tmp/rump.sock
    RUMP_SERVER=unix:///tmp/rump.sock rumpring call getpid"
)]
struct Cli {
    /// Say more on stderr: -v what happens, clients that are hung up on included; -vv also errors of single
    /// connections; -vvv all.
    /// RUST_LOG, if set, decides instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(flatten)]
    log: LogOptions,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Call(call::Call),
    Halt(call::Halt),
    Calls(calls::Calls),
}

pub use calls::table as calls_table;

/// Runs the program, under whichever of its names.
pub fn main() -> ExitCode {
    let result = match is_rump_server() {
        true => output::parse(NAME).map(rump_server),
        false => output::parse_with_matches(NAME).map(rumpring),
    };
    result.map_or_else(|status| status, |result| output::end(NAME, result))
}

fn rumpring((cli, given): (Cli, ArgMatches)) -> Result<(), Failure> {
    log::start(cli.verbose, &cli.log);
    match cli.command {
        Command::Serve(serve) => serve.run(given.subcommand_matches("serve").expect("is given")),
        Command::Call(call) => call.run(),
        Command::Halt(halt) => halt.run(),
        Command::Calls(calls) => calls.run(),
    }
}

fn rump_server(cli: rump_server::Cli) -> Result<(), Failure> {
    log::start(0, &LogOptions::from_env()?);
    cli.run()
}

/// Returns `true` if the program was called by the name of NetBSD's server.
fn is_rump_server() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name == "rump_server" || name == "rump_allserver")
}

/// An error on its way to a person.
type Failure = Box<dyn std::error::Error>;
