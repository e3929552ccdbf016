//! `rumpring-bench baseline`: servers that answer every call at once, with no kernel. They are measured
//! beside servers that have a kernel, and show what the machine can do.
//!
//! A baseline is the ring crate, the parsing of frames and nothing else: no session, no pool. `ring`
//! answers on the thread that has the ring; `hop` answers on one other thread, so the difference
//! between the two is the price of handing work to another thread and back.
//!
//! - [`server`]: the loop; [`peer`]: one client; [`answers`]: from calls to responses; [`worker`]: the
//!   other thread. The listening socket is the same as of any server.

mod answers;
mod peer;
mod server;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ring::{Ring, Waker};
use rumpring::output;
use rumpring::server::{Bound, SocketMode, listen};
use rumpsp::url::Url;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use server::Server;
use worker::Worker;

/// Most clients at once.
const CONNECTIONS: u64 = 65_536;

/// Most microseconds to look for work: a second.
const MAX_SPIN: u64 = 1_000_000;

/// Serve a baseline at URL: what this machine can do with no kernel behind.
///
/// Every call succeeds at once with the value 1. Nothing is copied in or out, so getpid is the one
/// load that means something. "listening on URL" appears on stderr once connections are accepted;
/// SIGTERM and SIGINT end it, SIGUSR1 prints its counters to stderr.
#[derive(Args)]
pub struct Baseline {
    /// The thread on which calls are answered.
    #[arg(value_enum)]
    way: Way,

    /// The URL to listen on, as `rumpring serve` has it, for example unix://PATH.
    url: Url,

    /// Microseconds that the ring's thread, and the worker of `hop`, look for work before they sleep, as
    /// long as that pays.
    #[arg(long, value_name = "US", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=MAX_SPIN))]
    spin: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// On the thread that has the ring.
    Ring,
    /// On another thread, to which each batch of calls goes.
    Hop,
}

impl Baseline {
    pub fn run(&self) -> Result<(), Box<dyn std::error::Error>> {
        output::queue_lines();
        // Signals are handled before "listening on" is printed: from then on the server may be told to
        // end.
        let signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        let spin = Duration::from_micros(self.spin);
        let config = ring::Config { sockets: most_sockets()?, spin, ..ring::Config::default() };
        let mut ring = Ring::new(&config)?;
        let Bound { fd, url, file } = listen(&self.url, SocketMode::default())?;
        ring.listen(fd)?;
        let wishes = Arc::new(Wishes::new(ring.waker()));
        Wishes::run_for_good(&wishes, "log", output::write_lines)?;
        heed(signals, &wishes)?;
        let worker = match self.way {
            Way::Ring => None,
            Way::Hop => Some(Worker::start(ring.arena(), ring.waker(), spin, &wishes)?),
        };
        output::say(format_args!("listening on {url}"));
        Server::new(ring, worker, file).run(&wishes)?;
        wishes.gone.get().map_or(Ok(()), |name| Err(format!("the thread `{name}` is gone").into()))
    }
}

/// The requests that signals make of the server.
struct Wishes {
    end: AtomicBool,
    counters: AtomicBool,
    /// The name of a thread that has ended and without which the server has to end, too.
    gone: OnceLock<&'static str>,
    waker: Waker,
}

impl Wishes {
    fn new(waker: Waker) -> Wishes {
        let (end, counters) = (AtomicBool::new(false), AtomicBool::new(false));
        Wishes { end, counters, gone: OnceLock::new(), waker }
    }

    /// Runs `body` on a thread that the server cannot do without: if it panics, the server ends.
    fn run_for_good(
        wishes: &Arc<Wishes>,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let wishes = wishes.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(body)).is_err() {
                let _ = wishes.gone.set(name);
                wishes.end.store(true, Ordering::SeqCst);
                wishes.waker.wake();
            }
        })
    }

    fn has_any(&self) -> bool {
        self.end.load(Ordering::SeqCst) || self.counters.load(Ordering::SeqCst)
    }
}

/// Handles signals from now on; a second signal to end ends the server at once.
fn heed(mut signals: Signals, wishes: &Arc<Wishes>) -> std::io::Result<()> {
    let its_wishes = wishes.clone();
    let handle = move || {
        let wishes = its_wishes;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                wishes.counters.store(true, Ordering::SeqCst);
            } else if wishes.end.swap(true, Ordering::SeqCst) {
                output::exit(1);
            }
            wishes.waker.wake();
        }
    };
    Wishes::run_for_good(wishes, "signals", handle).map(drop)
}

/// Returns as many sockets as the limit of open files allows.
fn most_sockets() -> std::io::Result<u32> {
    Ok(crate::files::raise(None)?.clamp(1, CONNECTIONS) as u32)
}
