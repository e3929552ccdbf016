//! What the server counts, and how it tells.

use std::fmt;

use crate::pool;

/// Counters of a server since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub board: BoardStats,
    pub ring: ring::Stats,
    pub pool: pool::Stats,
}

/// Counters of the submission thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoardStats {
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
    pub owed: usize,
    /// Memory that takes now what clients have sent: answers that calls hold, frames that are not whole.
    pub kept: usize,
    /// Clients hung up on for what they sent or did not take.
    pub hang_ups: u64,
    /// Preforks that wait for their child now.
    pub preforks: usize,
    /// Timers now.
    pub timers: usize,
}

impl Stats {
    /// `io_uring_enter` calls for each system call served.
    pub fn enters_per_call(&self) -> f64 {
        self.ring.enters as f64 / (self.board.calls as f64).max(1.0)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { board, ring, pool } = self;
        write!(
            f,
            "connections {} accepted {} turned_away {} calls {} in_flight {} asks {} owed {} kept {} \
             hang_ups {} preforks {} timers {} enters {} enters_per_call {:.3} sqes {} cqes {} short_sends {} \
             recv_buffers_exhausted {} cq_overflows {} threads {} wakes {} hand_offs {} \
             asleep {} panics {}",
            board.connections,
            board.accepted,
            board.turned_away,
            board.calls,
            board.calls_in_flight,
            board.asks,
            board.owed,
            board.kept,
            board.hang_ups,
            board.preforks,
            board.timers,
            ring.enters,
            self.enters_per_call(),
            ring.sqes,
            ring.cqes,
            ring.short_sends,
            ring.recv_buffers_exhausted,
            ring.cq_overflows,
            pool.threads,
            pool.wakes,
            pool.hand_offs,
            pool.asleep,
            pool.panics,
        )
    }
}
