//! `rumpring serve`: a server in the foreground, until a signal or a client's halt ends it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::rump::Rump;
use super::{Failure, lifetime};
use crate::kernel::embedded::Embedded;
use crate::kernel::librump::load;
use crate::options::Options;
use crate::server::{Config, Server};
use crate::url::Url;

/// Serve a kernel's system calls at URL.
///
/// "listening on URL" appears on stderr once connections are accepted. SIGTERM and SIGINT end the
/// server: it takes no more clients and gives calls in flight some time; a second one ends it at once.
/// SIGUSR1 prints one line of counters to stderr.
#[derive(Args)]
pub struct Serve {
    /// Where: unix://PATH, tcp://A.B.C.D:PORT or tcp6://[ADDR]:PORT ('*' is every address).
    url: Url,

    /// The kernel to serve.
    #[arg(long, value_enum, default_value_t = Choice::Embedded)]
    kernel: Choice,

    /// For librump: a component to load, named as with the linker (-l rumpvfs).
    #[arg(short = 'l', long = "lib", value_name = "LIB")]
    libraries: Vec<String>,

    /// For librump: where it was installed. RUMP_PREFIX if not given, then the loader's own path.
    #[arg(long, value_name = "DIR")]
    rump_prefix: Option<PathBuf>,

    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// The kernel that comes with rumpring: small, in memory, NetBSD's calls and numbers.
    Embedded,
    /// NetBSD's own, loaded at run time.
    Librump,
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.options.config(self.url.clone())?;
        match self.kernel {
            Choice::Embedded => serve_embedded(&config),
            Choice::Librump => self.rump().serve(config),
        }
    }

    fn rump(&self) -> Rump {
        Rump {
            prefix: self.rump_prefix.clone().or_else(load::prefix_from_env),
            libraries: self.libraries.clone(),
            announce: true,
            ..Rump::default()
        }
    }
}

fn serve_embedded(config: &Config) -> Result<(), Failure> {
    let signals = lifetime::take_signals()?;
    let server = Server::new(config, Arc::new(Embedded::default()))?;
    lifetime::heed(signals, server.control())?;
    lifetime::ready(server.url());
    server.run()?;
    Ok(())
}
