//! The settings of a ring: its sizes, and the features it may use.

use std::time::Duration;

use crate::{Error, Features};

/// The settings to build a [`Ring`](crate::Ring) with.
///
/// The defaults suit some hundreds of busy sockets and fit the usual limits of an unprivileged user.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries of the submission queue (SQ). More may be queued between two waits: when the SQ is full,
    /// it is submitted in between. The kernel rounds up to a power of two.
    pub entries: u32,
    /// Entries of the completion queue (CQ); 0 for four times [`entries`](Config::entries). When the CQ
    /// overflows nothing is lost, the ring only gets slower.
    pub completions: u32,
    /// Most sockets at once: the size of the direct descriptor table. May not exceed `RLIMIT_NOFILE`.
    pub sockets: u32,
    /// The number of receive buffers that all sockets share, a power of two, at most 32768. A buffer is
    /// in use from when bytes arrive until its [`RecvBuffer`](crate::RecvBuffer) is dropped.
    pub recv_buffers: u16,
    /// Bytes of each receive buffer: the most that one [`Event::Received`](crate::Event::Received)
    /// carries.
    pub recv_buffer_len: u32,
    /// The arena that chunks come from.
    pub arena: ArenaConfig,
    /// Sends to TCP sockets of at least this many bytes are not copied by the kernel. With `None` all
    /// sends are. `Some` registers the arena (`IORING_REGISTER_BUFFERS`), which pins its memory and
    /// counts against `RLIMIT_MEMLOCK`. See [what it costs](crate#sending).
    pub zero_copy_from: Option<usize>,
    /// True if listeners may make peer queries ([`Ring::listen_for`](crate::Ring::listen_for)).
    pub peers: bool,
    /// The time a wait looks for events before it sleeps, as long as that pays (see
    /// [`Spin`](crate::Spin)). With zero it sleeps at once.
    pub spin: Duration,
    /// Features that the ring treats as missing though the kernel has them.
    pub without: Features,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            entries: 1024,
            completions: 0,
            sockets: 1000,
            recv_buffers: 128,
            recv_buffer_len: 16 << 10,
            arena: ArenaConfig::default(),
            zero_copy_from: None,
            peers: false,
            spin: Duration::ZERO,
            without: Features::NONE,
        }
    }
}

/// The size classes of the [`Arena`](crate::Arena), smallest first.
#[derive(Clone, Debug)]
pub struct ArenaConfig {
    /// The classes.
    pub classes: [ArenaClass; CLASSES],
}

/// The number of size classes of an arena.
pub const CLASSES: usize = 3;

/// Chunks of one capacity.
#[derive(Clone, Copy, Debug)]
pub struct ArenaClass {
    /// Bytes that a chunk holds.
    pub capacity: u32,
    /// The number of such chunks.
    pub count: u32,
}

impl Default for ArenaConfig {
    fn default() -> ArenaConfig {
        ArenaConfig {
            classes: [
                ArenaClass { capacity: 512, count: 4096 },
                ArenaClass { capacity: 8 << 10, count: 1024 },
                ArenaClass { capacity: 72 << 10, count: 128 },
            ],
        }
    }
}

impl ArenaConfig {
    /// Returns the bytes of the whole arena.
    pub fn bytes(&self) -> u64 {
        self.classes.iter().map(|c| u64::from(c.capacity) * u64::from(c.count)).sum()
    }
}

/// The kernel's `IORING_MAX_ENTRIES`.
const MAX_ENTRIES: u32 = 32768;
/// The kernel's `IORING_MAX_FIXED_FILES`.
const MAX_SOCKETS: u32 = 1 << 20;
/// The kernel's bound of one registered buffer.
const MAX_ARENA: u64 = 1 << 30;

impl Config {
    /// Refuses settings that no ring can be built with, before the kernel refuses them less clearly.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |what| Err(Error::Config(what));
        if self.entries == 0 || self.entries > MAX_ENTRIES {
            return bad("entries must be 1 to 32768");
        }
        if self.completions != 0 && self.completions < self.entries {
            return bad("completions must be 0 or at least entries");
        }
        if self.sockets == 0 || self.sockets > MAX_SOCKETS {
            return bad("sockets must be 1 to 1048576");
        }
        if !self.recv_buffers.is_power_of_two() {
            return bad("recv_buffers must be a power of two, at most 32768");
        }
        if self.recv_buffer_len == 0 || self.recv_buffer_len > 1 << 30 {
            return bad("recv_buffer_len must be 1 byte to 1 GiB");
        }
        if self.arena.bytes() > MAX_ARENA {
            return bad("the arena may not exceed 1 GiB, the bound of a registered buffer");
        }
        if self.arena.classes.windows(2).any(|pair| pair[0].capacity >= pair[1].capacity) {
            return bad("the arena's classes must grow");
        }
        if self.arena.classes[0].capacity == 0 {
            return bad("the arena's smallest class must hold a byte");
        }
        Ok(())
    }
}
