//! The counters of the server, and their text.

use std::fmt;

use crate::scheduler;

/// Counters of a server since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub core: CoreStats,
    pub ring: ring::Stats,
    pub scheduler: scheduler::Stats,
}

/// Counters of the submission thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Clients connected now.
    pub connections: usize,
    /// Clients that ever connected.
    pub accepted: u64,
    /// Calls answered or given up.
    pub calls: u64,
    /// Calls in flight now.
    pub calls_in_flight: usize,
    /// Copies in, maps and strings that clients were asked for.
    pub asks: u64,
    /// Clients that were not let in.
    pub turned_away: u64,
    /// Bytes owed to clients now.
    pub unsent: usize,
    /// Memory taken now by what clients have sent: answers that calls hold, and incomplete frames.
    pub kept: usize,
    /// Clients hung up on for what they sent or did not take.
    pub hang_ups: u64,
    /// Preforks that wait for their child now.
    pub preforks: usize,
    /// Timers now.
    pub timers: usize,
}

impl Stats {
    /// Returns the number of `io_uring_enter` calls for each system call served.
    pub fn enters_per_call(&self) -> f64 {
        self.ring.enters as f64 / (self.core.calls as f64).max(1.0)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { core, ring, scheduler } = self;
        write!(
            f,
            "connections {} accepted {} turned_away {} calls {} in_flight {} asks {} unsent {} kept {} \
             hang_ups {} preforks {} timers {} enters {} enters_per_call {:.3} sqes {} cqes {} short_sends {} \
             recv_buffers_exhausted {} cq_overflows {} threads {} wakes {} hand_offs {} \
             asleep {} panics {}",
            core.connections,
            core.accepted,
            core.turned_away,
            core.calls,
            core.calls_in_flight,
            core.asks,
            core.unsent,
            core.kept,
            core.hang_ups,
            core.preforks,
            core.timers,
            ring.enters,
            self.enters_per_call(),
            ring.sqes,
            ring.cqes,
            ring.short_sends,
            ring.recv_buffers_exhausted,
            ring.cq_overflows,
            scheduler.threads,
            scheduler.wakes,
            scheduler.hand_offs,
            scheduler.asleep,
            scheduler.panics,
        )
    }
}
