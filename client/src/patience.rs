//! The time a thread is ready to wait.

use std::time::{Duration, Instant};

/// The time a thread is ready to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The thread does not wait.
    None,
    /// The thread waits until this time.
    Until(Instant),
    /// The thread waits as long as the connection lives.
    Forever,
}

impl Patience {
    /// Counts from now on. Without a limit, or with one too long to count, patience lasts for ever.
    pub fn from_timeout(timeout: Option<Duration>) -> Patience {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        deadline.map_or(Patience::Forever, Patience::Until)
    }

    /// Returns the time left; `None` means for ever.
    pub fn left(self) -> Option<Duration> {
        match self {
            Patience::None => Some(Duration::ZERO),
            Patience::Until(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            Patience::Forever => None,
        }
    }

    pub fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}
