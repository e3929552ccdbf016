//! How much has been copied out to a client that it has not taken.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes copied out to one client that it has not taken yet, whether its outbox has them or a call.
///
/// Calls of one client run side by side, and what each has copied out is owed to it at once. So each
/// looks here before it copies out more.
#[derive(Debug)]
pub struct Owing {
    bytes: AtomicUsize,
    most: usize,
}

impl Owing {
    /// Nothing yet; full at `most` bytes.
    pub fn new(most: usize) -> Owing {
        Owing { bytes: AtomicUsize::new(0), most: most.max(1) }
    }

    /// So many bytes more have been copied out.
    pub fn more(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes have been taken, or dropped.
    pub fn less(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Whether nobody should copy out more.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.most
    }
}
