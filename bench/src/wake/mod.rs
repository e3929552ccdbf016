//! `rumpring-bench wake`: crowds of clients that wait for several things each, and the cost of waking
//! one of them.
//!
//! Every crowd has a server of its own. The crowds take turns, so that the machine affects all of them
//! alike, and the ratio between them is the result.
//!
//! - [`waiter`]: one client that waits; [`crowd`]: a server full of them; [`table`]: the results.

mod crowd;
mod table;
mod waiter;

use std::error::Error;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rumpring::output;

use crate::compare::{Target, What, end_all};
use crate::{files, interrupt};
use crowd::Crowd;

/// The number of descriptors that are left to this program itself.
const OWN_FILES: u64 = 100;

/// The most things one client waits for: a bound of ours.
const MOST_THINGS: u32 = 64;

/// Have crowds of clients wait, and measure what waking one of them takes.
///
/// Each client waits for several pipes or sockets of its own, in one call. Then one client after the other,
/// picked by chance, is written to, woken, reads what there is, and waits again.
#[derive(Args)]
pub struct Wake {
    /// The server: NAME=COMMAND, where the command starts it in the foreground on the URL that is put in
    /// place of {url}.
    #[arg(value_name = "NAME=COMMAND", value_parser = target)]
    target: Target,

    /// Number of clients of each crowd.
    #[arg(short, long, value_name = "N,...", value_delimiter = ',', default_values_t = [100, 15_000],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: Vec<u32>,

    /// Number of things a client waits for.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THINGS)))]
    things: u32,

    /// The things that clients wait for.
    #[arg(long, value_enum, default_value = "pipes")]
    on: Things,

    /// With which calls the clients wait: the whole is done for each of them.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["poll", "kevent"])]
    by: Vec<Way>,

    /// Number of rounds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,

    /// Number of clients of each crowd that are woken in a round.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    wakes: u32,
}

/// The things that clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Things {
    /// Each is a pipe.
    Pipes,
    /// Each is a pair of local stream sockets.
    Sockets,
}

/// The call by which clients wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Poll,
    Kevent,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Poll => "poll",
            Way::Kevent => "kevent",
        }
    }
}

impl Wake {
    pub fn run(&self) -> Result<(), Box<dyn Error>> {
        let wanted: u64 = self.clients.iter().map(|&clients| u64::from(clients)).sum();
        let room = files::raise(None)?.saturating_sub(OWN_FILES);
        if wanted > room {
            return Err(format!(
                "{wanted} clients, and this process may have {room} connections: ask for fewer \
                 (--clients) or raise the limit of open files (ulimit -n)"
            )
            .into());
        }
        let interrupted = interrupt::flag(end_all)?;
        output::print(table::head(&self.target, self.things, self.on == Things::Sockets))?;
        for &way in &self.by {
            let mut crowds = Vec::new();
            for &clients in &self.clients {
                crowds.push(Crowd::gather(&self.target, clients, self.things, self.on, way)?);
            }
            for round in 0..self.rounds {
                for crowd in &mut crowds {
                    crowd.wake(self.wakes, u64::from(round))?;
                }
                if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
            output::print(table::lines(way.name(), &crowds))?;
        }
        Ok(())
    }
}

/// The time a client waits for anything but its wake-up.
const PATIENCE: Duration = Duration::from_secs(30);

fn target(text: &str) -> Result<Target, String> {
    let target: Target = text.parse()?;
    match target.what {
        What::Command(_) => Ok(target),
        _ => Err(format!("{}: the server is started here, by a command with {{url}}", target.name)),
    }
}
