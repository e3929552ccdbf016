//! How long a thread is ready to wait.

use std::time::{Duration, Instant};

/// How long a thread is ready to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// As long as the connection lives.
    Forever,
}

impl Patience {
    /// From now on; for ever without a limit, or with one too long to count.
    pub fn from_timeout(timeout: Option<Duration>) -> Patience {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        deadline.map_or(Patience::Forever, Patience::Until)
    }

    /// What is left of it; `None` is for ever.
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
