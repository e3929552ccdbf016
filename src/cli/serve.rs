//! `rumpring serve`: a server in the foreground, until a signal or a client's halt ends it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::rump::Rump;
use super::{Failure, embedded, etfs, lifetime, sandbox, user};
use crate::kernel::librump::{faults, load};
use crate::options::Options;
use crate::output;
use crate::server::{Config, Server, bind};
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
    mounts: etfs::Mounts,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    run_as: user::RunAs,

    #[command(flatten)]
    sandbox: sandbox::Wish,

    #[command(flatten)]
    kernel_limits: embedded::KernelLimits,
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
        output::queue_lines();
        let config = self.options.config(self.url.clone())?;
        match self.kernel {
            Choice::Embedded => self.serve_embedded(&config),
            Choice::Librump => self.serve_librump(config),
        }
    }

    fn serve_embedded(&self, config: &Config) -> Result<(), Failure> {
        self.options.check_without_librump()?;
        // The kernel asks the system how many CPUs there are, which a sandbox does not have.
        let kernel = Arc::new(self.kernel_limits.kernel());
        let bound = bind(config)?;
        self.run_as.settle(&bound)?;
        self.mounts.load(&kernel)?;
        let sandbox = self.sandbox.enter(&bound)?;
        let signals = lifetime::take_signals()?;
        let server = Server::on(bound, config, kernel)?;
        lifetime::heed(signals, &server.control())?;
        lifetime::ready(server.url());
        sandbox.map_or(Ok(()), |sandbox| sandbox.seal())?;
        server.run()?;
        Ok(())
    }

    fn serve_librump(&self, config: Config) -> Result<(), Failure> {
        self.sandbox.refuse_for_librump()?;
        self.kernel_limits.refuse_for_librump()?;
        self.mounts.refuse_for_librump()?;
        faults::allow(self.options.allows_netbsd_faults());
        let bound = self.run_as.bind_and_settle(&config)?;
        self.rump().serve(config, bound)
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
