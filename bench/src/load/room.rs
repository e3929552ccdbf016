//! How much of everything a load needs: sockets of a ring, its buffers.

use ring::{ArenaClass, ArenaConfig, Config};

use crate::workload::Call;

/// Sockets that so many connections have at most. The result may be more than can be had.
pub fn sockets(call: Call, connections: u32, in_flight: u32) -> u32 {
    let own = u64::from(connections) * u64::from(call.stays());
    let children = u64::from(connections) * u64::from(in_flight) * u64::from(call.has_children());
    u32::try_from(own + children).unwrap_or(u32::MAX)
}

/// A ring for so many sockets that make such calls.
///
/// Memory is used as far as it is needed only, but buffers are used in turn: few of them stay in the
/// CPU's cache.
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
}
