//! `rumpring serve`: a server in the foreground, until a signal or a client's halt ends it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory};

use super::notify::Notifier;
use super::rump::Rump;
use super::{Failure, embedded, etfs, lifetime, sandbox, user};
use crate::librump::{faults, load};
use crate::options::{self, KernelKind, Options};
use crate::output;
use crate::server::{Config, Server, bind};
use rumpsp::url::Url;

/// Serve a kernel's system calls at URL.
///
/// "listening on URL" appears on stderr once connections are accepted. SIGTERM and SIGINT end the
/// server: it takes no more clients and gives calls in flight some time; a second one ends it at once.
/// SIGUSR1 prints one line of counters to stderr.
#[derive(Args)]
pub struct Serve {
    /// URL to listen at: unix://PATH, tcp://A.B.C.D:PORT or tcp6://[ADDR]:PORT ('*' is every address).
    url: Url,

    /// The kernel to serve.
    #[arg(long, value_enum, default_value_t = KernelKind::Embedded)]
    kernel: KernelKind,

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

impl Serve {
    /// Serves. `given` is the command line that this was parsed from.
    pub fn run(self, given: &ArgMatches) -> Result<(), Failure> {
        output::queue_lines();
        let program = super::Cli::command();
        let serve = program.find_subcommand("serve").expect("it is this one");
        options::warn_of_unknown_variables(&[&program, serve]);
        options::check(given, &self.url, self.kernel).unwrap_or_else(|error| {
            super::Cli::command().error(ErrorKind::ArgumentConflict, error).exit()
        });
        let config = self.options.config(given, self.url.clone())?;
        match self.kernel {
            KernelKind::Embedded => self.serve_embedded(&config),
            KernelKind::Librump => self.serve_librump(config),
        }
    }

    fn serve_embedded(&self, config: &Config) -> Result<(), Failure> {
        let notifier = Arc::new(Notifier::from_env());
        // The kernel asks the system for the number of CPUs, which a sandbox does not allow.
        let kernel = Arc::new(self.kernel_limits.kernel());
        let bound = bind(config)?;
        self.run_as.settle(&bound)?;
        self.mounts.load(&kernel)?;
        let sandbox = self.sandbox.enter(&bound)?;
        let signals = lifetime::take_signals()?;
        let server = Server::on(bound, config, kernel)?;
        lifetime::heed(signals, &server.control(), notifier.clone())?;
        lifetime::ready(server.url());
        notifier.ready();
        sandbox.map_or(Ok(()), |sandbox| sandbox.seal())?;
        let served = server.run();
        notifier.stopping();
        served?;
        Ok(())
    }

    fn serve_librump(&self, config: Config) -> Result<(), Failure> {
        faults::allow(self.options.allows_netbsd_faults());
        let notifier = Notifier::from_env();
        let bound = self.run_as.bind_and_settle(&config)?;
        self.rump().serve(config, bound, notifier)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Command, FromArgMatches};

    use super::*;

    /// The kinds of server: at a unix URL or a TCP one, on the embedded kernel or on librump.
    const UNIX: u8 = 1;
    const TCP: u8 = 2;
    const EMBEDDED: u8 = 4;
    const LIBRUMP: u8 = 8;
    const ALL: u8 = UNIX | TCP | EMBEDDED | LIBRUMP;

    /// Every option with a value, and the kinds of server for which it has an effect.
    const OPTIONS: [(&str, u8); 51] = [
        ("--kernel=", ALL),
        ("--lib=rumpvfs", UNIX | TCP | LIBRUMP),
        ("--rump-prefix=/usr/rump", UNIX | TCP | LIBRUMP),
        ("--etfs=/a=b", UNIX | TCP | EMBEDDED),
        ("--cpus=0", ALL),
        ("--workers=1", ALL),
        ("--spin=5", ALL),
        ("--zero-copy-from=1000", TCP | EMBEDDED | LIBRUMP),
        ("--keepalive=5", TCP | EMBEDDED | LIBRUMP),
        ("--connections=5", ALL),
        ("--connections-per-peer=5", ALL),
        ("--max-asleep=5", UNIX | TCP | LIBRUMP),
        ("--handshake-time=5", ALL),
        ("--answer-time=5", ALL),
        ("--handshake-bytes=500", ALL),
        ("--argument-bytes=100", ALL),
        ("--request-bytes=500", ALL),
        ("--calls=5", ALL),
        ("--calls-in-all=5", ALL),
        ("--queued=5", ALL),
        ("--send-queue-pause=5k", ALL),
        ("--send-queue-max=5m", ALL),
        ("--send-queue-total=5m", ALL),
        ("--copyin-cache=5k", ALL),
        ("--copyin-cache-total=5k", ALL),
        ("--backlog=5k", ALL),
        ("--preforks=5", ALL),
        ("--preforks-in-all=5", ALL),
        ("--orphan-time=5", ALL),
        ("--linger=5", ALL),
        ("--drain=6", ALL),
        ("--allow-user=root", UNIX | EMBEDDED | LIBRUMP),
        ("--allow-group=0", UNIX | EMBEDDED | LIBRUMP),
        ("--allow-from=127.0.0.1", TCP | EMBEDDED | LIBRUMP),
        ("--socket-mode=600", UNIX | EMBEDDED | LIBRUMP),
        ("--socket-owner=0", UNIX | EMBEDDED | LIBRUMP),
        ("--user=nobody", ALL),
        ("--sandbox", UNIX | TCP | EMBEDDED),
        ("--files=5", UNIX | TCP | EMBEDDED),
        ("--files-of-family=5", UNIX | TCP | EMBEDDED),
        ("--files-in-all=5", UNIX | TCP | EMBEDDED),
        ("--processes=5", UNIX | TCP | EMBEDDED),
        ("--processes-in-all=5", UNIX | TCP | EMBEDDED),
        ("--bytes=5m", UNIX | TCP | EMBEDDED),
        ("--bytes-in-all=5m", UNIX | TCP | EMBEDDED),
        ("--inodes-of-family=5", UNIX | TCP | EMBEDDED),
        ("--inodes=5", UNIX | TCP | EMBEDDED),
        ("-lrumpvfs", UNIX | TCP | LIBRUMP),
        ("--netbsd-faults=allow", UNIX | TCP | LIBRUMP),
        // An option that is given with its default value counts as given.
        ("--max-asleep=10000", UNIX | TCP | LIBRUMP),
        ("--files=1024", UNIX | TCP | EMBEDDED),
    ];

    fn command() -> Command {
        Serve::augment_args(Command::new("serve").no_binary_name(true))
    }

    fn check(words: &[&str]) -> Result<(), String> {
        let given = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let serve = Serve::from_arg_matches(&given).map_err(|error| error.to_string())?;
        options::check(&given, &serve.url, serve.kernel)?;
        serve.options.config(&given, serve.url.clone()).map(drop)
    }

    #[test]
    fn every_option_has_an_effect_or_is_refused() {
        let tested: BTreeSet<_> =
            OPTIONS.iter().map(|row| row.0.split('=').next().unwrap()).collect();
        for option in command().get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(tested.contains(&*format!("--{option}")), "--{option} is not tested");
        }
        let urls = [("unix:///s", UNIX), ("tcp://127.0.0.1:1", TCP), ("tcp6://[::1]:1", TCP)];
        for (url, scheme) in urls {
            for (kernel, choice) in [("embedded", EMBEDDED), ("librump", LIBRUMP)] {
                for (option, places) in OPTIONS {
                    let kernel = format!("--kernel={kernel}");
                    let words = match option {
                        "--kernel=" => vec![&*kernel, url],
                        option => vec![&*kernel, option, url],
                    };
                    let is_here = places & (scheme | choice) == scheme | choice;
                    let checked = check(&words);
                    assert_eq!(checked.is_ok(), is_here, "{words:?}: {checked:?}");
                    if let Err(error) = checked {
                        assert!(error.contains(" says nothing "), "{words:?}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_error_names_the_option_that_would_say_it() {
        for (words, says) in [
            ("--allow-user root tcp://127.0.0.1:1", "--allow-from NETWORK"),
            ("--allow-from ::1 unix://s", "--allow-user"),
            ("-l rumpvfs unix://s", "--kernel librump"),
            ("--max-asleep 7 unix://s", "--calls"),
            ("--kernel librump --etfs /a=b unix://s", "rump_server -d"),
            ("--kernel librump --bytes 1m unix://s", "RUMP_MEMLIMIT"),
        ] {
            let error = check(&words.split(' ').collect::<Vec<_>>()).expect_err(words);
            assert!(error.contains(says), "{words}: {error}");
        }
    }

    #[test]
    fn a_limit_of_one_is_not_over_that_of_all() {
        for (one, all) in [
            ("--connections-per-peer", "--connections"),
            ("--calls", "--calls-in-all"),
            ("--send-queue-max", "--send-queue-total"),
            ("--copyin-cache", "--copyin-cache-total"),
            ("--preforks", "--preforks-in-all"),
            ("--files-of-family", "--files-in-all"),
            ("--processes", "--processes-in-all"),
            ("--bytes", "--bytes-in-all"),
            ("--inodes-of-family", "--inodes"),
        ] {
            let [low, high] = match one {
                "--connections-per-peer" => ["5", "6"],
                _ => ["200000", "200001"],
            };
            check(&[one, low, all, low, "unix://s"])
                .unwrap_or_else(|error| panic!("{one}: {error}"));
            let error = check(&[one, high, all, low, "unix://s"]).expect_err(one);
            assert!(error.contains(one) && error.contains(all), "{error}");
            // If one limit of a pair is not given, its default is bounded by the total.
            check(&[all, low, "unix://s"]).unwrap_or_else(|error| panic!("{all}: {error}"));
        }
        let error = check(&["--send-queue-pause", "33m", "unix://s"]).unwrap_err();
        assert!(error.contains("--send-queue-pause is over --send-queue-max"), "{error}");
        check(&["--send-queue-pause", "32m", "unix://s"]).unwrap();
        let error = check(&["--bytes", "2g", "unix://s"]).unwrap_err();
        assert!(error.contains("--bytes-in-all"), "{error}");
    }

    #[test]
    fn cpus_are_said_in_one_way() {
        let error = check(&["--cpus", "0", "--workers", "1", "unix://s"]).unwrap_err();
        assert!(error.contains("--cpus") && error.contains("--workers"), "{error}");
    }
}
