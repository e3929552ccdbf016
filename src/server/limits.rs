//! The limits of the server, each with its effect on a client.

use std::time::Duration;

use kernel::Kernel;
use rumpsp::session;

/// The time that a call waits for its client: for answers and, where calls wait inside the kernel, until
/// the client takes what is owed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerTime {
    /// [`AnswerTime::INSIDE`] where calls wait inside the kernel and hold its locks; unbounded elsewhere,
    /// because a client that is stopped in a debugger answers late.
    #[default]
    ByKernel,
    Unbounded,
    Bounded(Duration),
}

impl AnswerTime {
    /// The bound in kernels whose calls wait inside the kernel.
    pub const INSIDE: Duration = Duration::from_secs(30);

    /// Returns the time for this kernel, or `None` if it is unbounded.
    pub fn for_kernel(self, kernel: &dyn Kernel) -> Option<Duration> {
        match self {
            AnswerTime::ByKernel => (!kernel.restarts()).then_some(AnswerTime::INSIDE),
            AnswerTime::Unbounded => None,
            AnswerTime::Bounded(time) => Some(time),
        }
    }
}

/// The limits on what the server takes on. Beyond a limit, requests wait, get the protocol's error, or
/// make the server hang up; docs/limits.md has the command line's name of each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The limits of each session.
    pub session: session::Limits,
    /// The time from a client's connection to the end of its handshake. After it, the server hangs up.
    pub handshake: Duration,
    /// The time that a call waits for its client. After it, the server hangs up.
    pub answer: AnswerTime,
    /// Calls in flight of all clients. One more is answered "try again". Of the last quarter, each client
    /// gets only a few.
    pub calls_in_all: usize,
    /// Calls of a client that wait for a thread. At the limit, the server looks at no more of the
    /// client's requests until half of the calls have started.
    pub queued: usize,
    /// Bytes owed to a client at which the server stops reading from it, until the client has taken half.
    pub send_queue_pause: usize,
    /// Bytes owed to a client at which the server hangs up: the client asks and does not read.
    pub send_queue_max: usize,
    /// Bytes owed to all clients. From half of it on, each client has to wait earlier. At the limit, the
    /// server hangs up on the client that is owed most.
    pub send_queue_total: usize,
    /// Bytes of a client's answers that its calls may hold: half is for calls that sleep, half for the
    /// others. Beyond, a call that falls asleep forgets its answers and asks again when it wakes, and a
    /// further question to the client waits until other calls have released their answers.
    pub copyin_cache: usize,
    /// Bytes from all clients that the server holds, including incomplete frames. From half of it on, the
    /// calls of each client may hold twice 64 KiB. At the limit, the server hangs up on the client whose
    /// bytes take most.
    pub copyin_cache_total: usize,
    /// Bytes of a client that are kept unread while a handshake or a prefork is under way. Beyond, the
    /// server stops reading from the client until that has ended.
    pub backlog: usize,
    /// Preforks of a client that wait for their child. One more is refused with "no memory".
    pub preforks: usize,
    /// Preforks of all clients that wait for their child. At the limit, the oldest one whose parent has
    /// gone is removed.
    pub preforks_in_all: usize,
    /// The time that an unused prefork stays valid after its parent has gone. A parent may exit before
    /// its child has connected, as daemon(3) does.
    pub orphan: Duration,
    /// The time that a client has to take what is owed to it, once the server hangs up.
    pub linger: Duration,
    /// The time that calls in flight have when the server is to stop.
    pub drain: Duration,
    /// The number of tasks kept for later calls.
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
