//! Options without effect. A word on the command line that says nothing where it stands is an error that
//! names the one that would: above all, a server must not be open that its owner believes closed.
//!
//! A variable may be set for all servers of a host, so one that says nothing to this one is passed over;
//! except those that say who may connect, if nothing else does here.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::limits;
use rumpsp::url::Url;

/// The kernels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelKind {
    /// The kernel that comes with rumpring: small, in memory, NetBSD's calls and numbers.
    Embedded,
    /// NetBSD's own, loaded at run time.
    Librump,
}

/// Where an option has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Unix,
    Tcp,
    Embedded,
    Librump,
}

/// Options with an effect in one place only, each with what to do elsewhere. All others have one everywhere.
pub const ONLY_AT: &[(&str, Place, &str)] = &[
    ("allow_user", Place::Unix, FROM),
    ("allow_group", Place::Unix, FROM),
    ("socket_mode", Place::Unix, FROM),
    ("socket_owner", Place::Unix, FROM),
    ("allow_from", Place::Tcp, USER),
    ("zero_copy_from", Place::Tcp, "messages of a unix socket are always copied; leave it out"),
    ("keepalive", Place::Tcp, "a client on this host is noticed when it ends; leave it out"),
    ("max_asleep", Place::Librump, "its calls sleep without threads; --calls bounds them"),
    ("netbsd_faults", Place::Librump, "it has none of these faults; leave it out"),
    ("libraries", Place::Librump, "it is all in one piece; --kernel librump loads components"),
    ("rump_prefix", Place::Librump, "--kernel librump loads NetBSD's own from there"),
    ("etfs", Place::Embedded, DRIVES),
    ("sandbox", Place::Embedded, CONFINE),
    ("files", Place::Embedded, RESOURCES),
    ("files_of_family", Place::Embedded, RESOURCES),
    ("files_in_all", Place::Embedded, RESOURCES),
    ("processes", Place::Embedded, RESOURCES),
    ("processes_in_all", Place::Embedded, RESOURCES),
    ("bytes", Place::Embedded, RESOURCES),
    ("bytes_in_all", Place::Embedded, RESOURCES),
    ("inodes_of_family", Place::Embedded, RESOURCES),
    ("inodes", Place::Embedded, RESOURCES),
];

const FROM: &str = "--allow-from NETWORK says who may connect there";
const USER: &str = "--allow-user, --allow-group and --socket-mode say who may connect there";
const DRIVES: &str = "it has files of the host by \
                      `rump_server -d key=KEY,hostpath=HOSTPATH,size=host,type=reg`";
const CONFINE: &str = "it opens drives, loads modules and talks to the network of this host while it \
                       runs; have systemd or a container confine it";
const RESOURCES: &str =
    "it has resource limits and sysctls, set by a client, and RUMP_MEMLIMIT for memory";

/// Options that say who may connect.
const ACCESS: [&str; 5] =
    ["allow_user", "allow_group", "socket_mode", "socket_owner", "allow_from"];

impl Place {
    /// Whether a server at this URL, on this kernel, is there.
    pub fn is(self, url: &Url, kernel: KernelKind) -> bool {
        match self {
            Place::Unix => url.path().is_some(),
            Place::Tcp => url.path().is_none(),
            Place::Embedded => kernel == KernelKind::Embedded,
            Place::Librump => kernel == KernelKind::Librump,
        }
    }

    /// What a server is that is elsewhere.
    fn opposite(self) -> &'static str {
        match self {
            Place::Unix => "at a tcp URL",
            Place::Tcp => "at a unix URL",
            Place::Embedded => "to NetBSD's own kernel (--kernel librump)",
            Place::Librump => "to the embedded kernel",
        }
    }
}

/// Says which of the options given have no effect on such a server, or none beside the others.
pub fn check(given: &ArgMatches, url: &Url, kernel: KernelKind) -> Result<(), String> {
    for &(id, place, instead) in ONLY_AT {
        if !place.is(url, kernel) && matters(given, id, url, kernel) {
            return Err(format!("{} says nothing {}; {instead}", name(id), place.opposite()));
        }
    }
    for (one, all) in limits::PAIRS {
        // What nobody has asked for here is simply bounded by the total: a variable may be for other servers.
        let is_asked_for = match (source(given, one), source(given, all)) {
            (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) | (None, _) => false,
            (Some(_), _) => true,
        };
        if is_asked_for && limits::is_over(given, one, all) {
            return Err(format!("{} is over {}; raise that, too", name(one), name(all)));
        }
    }
    match ["cpus", "workers"].map(|id| source(given, id)) {
        [Some(cpus), Some(workers)] if cpus == workers => {
            Err("--cpus and --workers say the same in two ways; leave one out".into())
        }
        _ => Ok(()),
    }
}

/// Warns of variables that look like options and are none of these commands': misspelt ones, and options that are
/// words on the command line only, as `--user`.
pub fn warn_of_unknown_variables(commands: &[&Command]) {
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_variables(commands, set) {
        tracing::warn!(
            "the variable {name} says nothing to this server: no option has it, see --help"
        );
    }
}

fn unknown_variables(commands: &[&Command], set: impl Iterator<Item = String>) -> Vec<String> {
    let is_known = |name: &String| {
        let mut known = commands.iter().flat_map(|command| command.get_arguments());
        known.any(|arg| arg.get_env().is_some_and(|env| env == name.as_str()))
    };
    set.filter(|name| name.starts_with("RUMPRING_") && !is_known(name)).collect()
}

/// Whether an option that says nothing here was given such that it should.
fn matters(given: &ArgMatches, id: &str, url: &Url, kernel: KernelKind) -> bool {
    match source(given, id) {
        Some(ValueSource::CommandLine) => true,
        Some(ValueSource::EnvVariable) if ACCESS.contains(&id) => {
            let is_here = |other: &str| {
                let (_, place, _) = ONLY_AT.iter().find(|row| row.0 == other).expect("a row");
                place.is(url, kernel) && source(given, other).is_some()
            };
            !ACCESS.into_iter().any(is_here)
        }
        _ => false,
    }
}

/// How an option was given, if it was.
pub(super) fn source(given: &ArgMatches, id: &str) -> Option<ValueSource> {
    // Not every command has every option.
    if !given.try_contains_id(id).unwrap_or(false) {
        return None;
    }
    given.value_source(id).filter(|source| *source != ValueSource::DefaultValue)
}

/// What an option is called on the command line; a variable has the same letters.
fn name(id: &str) -> String {
    match id {
        "libraries" => "--lib (-l)".into(),
        id => format!("--{}", id.replace('_', "-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_are_no_options_are_found() {
        let command = Command::new("serve").arg(clap::Arg::new("calls").env("RUMPRING_CALLS"));
        let set = ["RUMPRING_CALLS", "RUMPRING_CALL", "RUMPRING_USER", "RUMP_NCPU", "RUMPRING"];
        let unknown = unknown_variables(&[&command], set.into_iter().map(String::from));
        assert_eq!(unknown, ["RUMPRING_CALL", "RUMPRING_USER"]);
    }
}
