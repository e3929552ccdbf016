//! Open files: how many a process may have, and how many processes a load needs therefore.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{Plan, room};

/// Files that are no connections: standard ones, the ring, sockets on their way into it.
const OTHERS: u64 = 32;

/// The most sockets of one ring.
const MOST: u64 = 1 << 20;

/// The most processes of one load.
const MAX_PROCESSES: u32 = 64;

/// Lets this process, and those it starts, have as many open files as it may, or so many, and returns how
/// many that are.
pub fn raise(wanted: Option<u64>) -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let current = wanted.unwrap_or(most).min(most);
    if limit.current != Some(current) {
        limit.current = (current < u64::MAX).then_some(current);
        setrlimit(Resource::Nofile, limit).map_err(|errno| {
            io::Error::other(format!("{current} open files (RLIMIT_NOFILE): {errno}"))
        })?;
    }
    Ok(current)
}

/// How many processes a load needs if each may have so many open files.
pub fn processes(plan: Plan, files: u64) -> Result<u32, String> {
    let Plan { call, connections, in_flight } = plan;
    let room = files.saturating_sub(OTHERS).min(MOST);
    let each = u64::from(room::sockets(call, 1, in_flight)).max(1);
    // Pairs stay together.
    let unit = u64::from(super::unit(call));
    let most = room / each / unit * unit;
    let processes = u64::from(connections).checked_div(most).unwrap_or(u64::MAX);
    let processes =
        processes.saturating_add(u64::from(most > 0 && u64::from(connections) % most > 0));
    if processes > u64::from(MAX_PROCESSES) {
        return Err(format!(
            "{connections} connections need {} files, and a process may have {files} (RLIMIT_NOFILE): \
             not even {MAX_PROCESSES} processes can have them; raise it with `ulimit -n`",
            u64::from(connections) * each
        ));
    }
    Ok(processes.max(1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(call: &str, connections: u32, in_flight: u32, files: u64) -> Result<u32, String> {
        processes(Plan { call: call.parse().unwrap(), connections, in_flight }, files)
    }

    #[test]
    fn a_process_is_as_full_as_it_may_be() {
        assert_eq!(needed("getpid", 1, 1, 1024), Ok(1));
        assert_eq!(needed("getpid", 992, 1024, 1024), Ok(1));
        assert_eq!(needed("getpid", 993, 1, 1024), Ok(2));
        assert_eq!(needed("pipe", 992, 1, 1025), Ok(1));
        assert_eq!(needed("pipe", 994, 1, 1025), Ok(2));
        assert_eq!(needed("fork", 99, 9, 1024), Ok(1));
        assert_eq!(needed("fork", 100, 9, 1024), Ok(2));
        assert_eq!(needed("getpid", 1_000_000, 1, u64::MAX), Ok(1));
        assert_eq!(needed("getpid", 1_000_000, 1, 20_000), Ok(51));
    }

    #[test]
    fn too_few_files_are_an_error_that_says_so() {
        for (connections, files) in [(1_000_000, 1024), (1, 32), (1, 0)] {
            let error = needed("getpid", connections, 1, files).unwrap_err();
            assert!(error.contains("RLIMIT_NOFILE") && error.contains("ulimit -n"), "{error}");
        }
    }
}
