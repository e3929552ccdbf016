//! Checks for options without effect. An option on the command line that has no effect for this server is
//! an error, which names the option to use instead: above all, a server must not be open while its owner
//! believes it closed.
//!
//! A variable may be set for all servers of a host, so a variable without effect for this server is
//! ignored; except those for who may connect, if nothing else here says so.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::limits;
use rumpsp::url::Url;

/// The kernels that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelKind {
    /// The kernel that comes with rumpring: small, in memory, NetBSD's calls and numbers.
    Embedded,
    /// NetBSD's own, loaded at run time.
    Librump,
}

/// The kind of server for which an option has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Unix,
    Tcp,
    Embedded,
    Librump,
}

/// The options with an effect in one place only, each with the advice for elsewhere. All others have an
/// effect everywhere.
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

/// The options for who may connect.
const ACCESS: [&str; 5] =
    ["allow_user", "allow_group", "socket_mode", "socket_owner", "allow_from"];

impl Place {
    /// Returns `true` if a server at this URL, on this kernel, is of this kind.
    pub fn is(self, url: &Url, kernel: KernelKind) -> bool {
        match self {
            Place::Unix => url.path().is_some(),
            Place::Tcp => url.path().is_none(),
            Place::Embedded => kernel == KernelKind::Embedded,
            Place::Librump => kernel == KernelKind::Librump,
        }
    }

    /// Returns the words for a server that is not of this kind.
    fn opposite(self) -> &'static str {
        match self {
            Place::Unix => "at a tcp URL",
            Place::Tcp => "at a unix URL",
            Place::Embedded => "to NetBSD's own kernel (--kernel librump)",
            Place::Librump => "to the embedded kernel",
        }
    }
}

/// Returns an error if a given option has no effect on such a server, or none beside the other options.
pub fn check(given: &ArgMatches, url: &Url, kernel: KernelKind) -> Result<(), String> {
    for &(id, place, instead) in ONLY_AT {
        if !place.is(url, kernel) && matters(given, id, url, kernel) {
            return Err(format!("{} says nothing {}; {instead}", name(id), place.opposite()));
        }
    }
    for (one, all) in limits::PAIRS {
        // A limit that nobody has set for this server is simply bounded by the total: a variable may be
        // for other servers.
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

/// Warns of variables that look like options but belong to none of these commands: misspelt ones, and
/// options that exist on the command line only, such as `--user`.
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

/// Returns `true` if an option without effect here was given in a way that makes it an error.
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

/// Returns the source of an option's value, or `None` if it was not given.
pub(super) fn source(given: &ArgMatches, id: &str) -> Option<ValueSource> {
    // Not every command has every option.
    if !given.try_contains_id(id).unwrap_or(false) {
        return None;
    }
    given.value_source(id).filter(|source| *source != ValueSource::DefaultValue)
}

/// Returns the option's name on the command line. A variable has the same letters.
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
