//! The command line: what there is to say, and what each word does.
//!
//! Errors are for people: what was wrong, where, and what to do. Exit status 0 is success, 1 a failure,
//! 2 a command line that could not be understood.

mod call;
mod calls;
mod embedded;
mod lifetime;
mod rump;
mod rump_server;
mod sandbox;
mod serve;
mod user;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Say more on stderr: -v what happens, -vv also what goes wrong with single clients, -vvv all.
    /// RUST_LOG, if set, decides instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

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
    match if is_rump_server() { rump_server() } else { rumpring() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rumpring: {error}");
            ExitCode::FAILURE
        }
    }
}

fn rumpring() -> Result<(), Failure> {
    let cli = Cli::parse();
    start_log(cli.verbose);
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Call(call) => call.run(),
        Command::Halt(halt) => halt.run(),
        Command::Calls(calls) => calls.run(),
    }
}

fn rump_server() -> Result<(), Failure> {
    start_log(0);
    rump_server::main()
}

/// Whether the program was called by the name of NetBSD's.
fn is_rump_server() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name == "rump_server" || name == "rump_allserver")
}

/// An error on its way to a person.
type Failure = Box<dyn std::error::Error>;

fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
