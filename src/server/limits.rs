//! Bounds of the server, each with what a client sees at it.

use std::time::Duration;

use kernel::Kernel;
use rumpsp::session;

/// How long a call waits for its client: to answer what it is asked for and, where calls wait inside the kernel,
/// to take what is owed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerTime {
    /// As long as [`AnswerTime::INSIDE`] where calls wait inside the kernel, with its locks taken, and without a
    /// bound elsewhere: a client that is stopped in a debugger answers late.
    #[default]
    ByKernel,
    Unbounded,
    Bounded(Duration),
}

impl AnswerTime {
    /// The bound where calls wait inside the kernel.
    pub const INSIDE: Duration = Duration::from_secs(30);

    /// The time on this kernel.
    pub fn for_kernel(self, kernel: &dyn Kernel) -> Option<Duration> {
        match self {
            AnswerTime::ByKernel => (!kernel.restarts()).then_some(AnswerTime::INSIDE),
            AnswerTime::Unbounded => None,
            AnswerTime::Bounded(time) => Some(time),
        }
    }
}

/// How much the server takes on. What does not fit waits, gets the protocol's error, or is hung up on;
/// see docs/limits.md for the command line's name of each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of each session.
    pub session: session::Limits,
    /// How long a client has from its connection to the end of its handshake; then it is hung up on.
    pub handshake: Duration,
    /// How long a call waits for its client; then it is hung up on.
    pub answer: AnswerTime,
    /// Calls in flight of all clients. One more is answered "try again"; of the last quarter a client gets
    /// only a few.
    pub calls_in_all: usize,
    /// Calls of a client that wait for a thread; beyond, no more of its requests are looked at until
    /// half of them have started.
    pub queued: usize,
    /// Bytes owed to a client at which it is not read from any more, until it has taken half.
    pub send_queue_pause: usize,
    /// Bytes owed to a client at which it is hung up on: it asks and does not read.
    pub send_queue_max: usize,
    /// Bytes owed to all clients: from half of it on each waits earlier, and at it the client that is
    /// owed most is hung up on.
    pub send_queue_total: usize,
    /// Bytes of its answers that the calls of a client may hold, half of it those that sleep and half the
    /// others. Beyond, a call that falls asleep forgets them and asks again when it wakes, and a further
    /// ask waits until others have let go of theirs.
    pub copyin_cache: usize,
    /// Bytes that all clients have sent and that are held, of frames that are not whole too: from half of
    /// it on each client's calls may hold twice 64 KiB, and at it the client of whose bytes most are held
    /// is hung up on.
    pub copyin_cache_total: usize,
    /// Bytes of a client kept unread while a handshake or a prefork is under way; beyond, it is not
    /// read from until that has ended.
    pub backlog: usize,
    /// Preforks of a client that wait for their child. One more is refused with "no memory".
    pub preforks: usize,
    /// The same for all clients; of parents that have gone the oldest makes room first.
    pub preforks_in_all: usize,
    /// How long an unused prefork stays good after its parent has gone. A parent may exit before its
    /// child has connected, as daemon(3) does.
    pub orphan: Duration,
    /// How long a client that is hung up on has to take what is owed to it.
    pub linger: Duration,
    /// How long calls in flight have when the server is to stop.
    pub drain: Duration,
    /// Tasks kept for calls to come.
    pub spare_tasks: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session: session::Limits::default(),
            handshake: Duration::from_secs(10),
            answer: AnswerTime::ByKernel,
            calls_in_all: 1 << 18,
            queued: 256,
            send_queue_pause: 1 << 20,
            send_queue_max: 32 << 20,
            send_queue_total: 1 << 30,
            copyin_cache: 4 << 20,
            copyin_cache_total: 1 << 30,
            backlog: 16 << 10,
            preforks: 64,
            preforks_in_all: 4096,
            orphan: Duration::from_secs(10),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            spare_tasks: 1024,
        }
    }
}
