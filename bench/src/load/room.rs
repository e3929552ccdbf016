//! The resources that a load needs: processes, sockets of a ring, buffers.

use ring::{ArenaClass, ArenaConfig, Config};

use super::Plan;
use crate::workload::Call;

/// Open files of a process other than connections: standard ones, the ring, sockets on their way into
/// it.
const OTHERS: u64 = 32;

/// The most sockets of one ring.
const MOST: u64 = 1 << 20;

/// The most processes of one load.
const MAX_PROCESSES: u32 = 64;

/// Returns the number of processes a load needs if each may have `files` open files.
pub fn processes(plan: Plan, files: u64) -> Result<u32, String> {
    let Plan { call, connections, in_flight } = plan;
    let room = files.saturating_sub(OTHERS).min(MOST);
    let each = u64::from(sockets(call, 1, in_flight)).max(1);
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

/// Returns the most sockets that these connections have. The result may be more than a process can
/// have.
pub fn sockets(call: Call, connections: u32, in_flight: u32) -> u32 {
    let own = u64::from(connections) * u64::from(call.stays());
    let children = u64::from(connections) * u64::from(in_flight) * u64::from(call.has_children());
    u32::try_from(own + children).unwrap_or(u32::MAX)
}

/// Returns the configuration of a ring for `sockets` sockets that make such calls.
///
/// Only memory that is needed is used, but buffers are used in turn: few of them stay in the CPU's
/// cache.
pub fn ring(call: Call, sockets: u32) -> Config {
    let is_large = call.size() > 4096;
    let buffers = sockets.saturating_mul(2).clamp(16, if is_large { 256 } else { 1024 });
    let many = sockets.clamp(64, 4096);
    Config {
        entries: many.next_power_of_two(),
        sockets,
        recv_buffers: buffers.next_power_of_two() as u16,
        recv_buffer_len: if is_large { 64 << 10 } else { 4 << 10 },
        arena: ArenaConfig {
            classes: [
                ArenaClass { capacity: 512, count: many },
                ArenaClass { capacity: 8 << 10, count: many },
                ArenaClass { capacity: 72 << 10, count: many },
            ],
        },
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_sockets_of_their_own() {
        for (call, count) in [("getpid", 10), ("pipe", 10), ("fork", 50), ("connect", 40)] {
            assert_eq!(sockets(call.parse().unwrap(), 10, 4), count, "{call}");
        }
        assert_eq!(sockets(Call::Fork, 1_000_000, 100_000), u32::MAX);
    }

    #[test]
    fn every_load_has_a_ring_that_can_be_made() {
        for call in ["getpid", "read:16m"] {
            for sockets in [1, 1000, 10_000] {
                ring::Ring::new(&ring(call.parse().unwrap(), sockets)).unwrap();
            }
        }
    }

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
