//! The counters of a ring.

/// Counters of a [`Ring`](crate::Ring) since it was made, and gauges of what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Enters that might have slept.
    pub waits: u64,
    /// Enters that the kernel refused, for want of memory or of room in the CQ.
    pub refused_enters: u64,
    /// Entries submitted.
    pub sqes: u64,
    /// Completions handled.
    pub cqes: u64,
    /// Completions for sockets, sends or listeners that were gone by then.
    pub stale_cqes: u64,
    /// Times the SQ was full and was submitted early.
    pub sq_full: u64,
    /// Ends of streams that a look found, and the kernel had not reported.
    pub ends_found: u64,
    /// Chains that the kernel took only a part of, for want of memory: the rest was made again.
    pub cut_chains: u64,
    /// Times the CQ was found overflown.
    pub cq_overflows: u64,
    /// Requests that failed for want of memory (ENOMEM, ENOBUFS) or would have had to wait (EAGAIN),
    /// and were made again after a pause.
    pub put_off: u64,
    /// Wake-ups by a [`Waker`](crate::Waker) that went through the kernel.
    pub wakes: u64,
    /// Connections accepted.
    pub accepts: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Connections closed without a report, because their peer query failed.
    pub unknown_peers: u64,
    /// Bytes received.
    pub received: u64,
    /// Times a recv ended for want of a receive buffer (ENOBUFS).
    pub recv_buffers_exhausted: u64,
    /// Times a recv was armed.
    pub recvs_armed: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Sends that came short and were continued.
    pub short_sends: u64,
    /// Steps sent without a copy.
    pub zero_copy_sends: u64,
    /// Zero copy steps the kernel copied after all (loopback does).
    pub zero_copy_copied: u64,

    /// Sockets that are open or closing.
    pub sockets: u32,
    /// Sends in flight, and those whose zero copy memory the network still holds.
    pub sends: u32,
    /// Receive buffers not lent out.
    pub free_recv_buffers: u32,
    /// Chunks of the arena lent out, all classes.
    pub chunks: u32,
    /// Chunks lent out that came from the heap.
    pub heap_chunks: u32,
    /// Chunks that ever came from the heap: the arena was empty, or they were larger than its
    /// largest class.
    pub heap_chunks_made: u64,
}
