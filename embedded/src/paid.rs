//! Bytes that a family pays for while something lives.

use std::sync::Arc;

use super::limits::Family;
use kernel::Errno;

/// What something takes, given back when it goes.
pub(super) struct Paid {
    payer: Arc<Family>,
    bytes: u64,
}

impl Paid {
    /// This error if `payer` cannot pay for so many bytes more.
    pub fn new(payer: &Arc<Family>, bytes: u64, errno: Errno) -> Result<Paid, Errno> {
        if !payer.take_bytes(bytes) {
            return Err(errno);
        }
        Ok(Paid { payer: payer.clone(), bytes })
    }

    /// For what was paid for elsewhere until now.
    pub fn moved(payer: &Arc<Family>, bytes: u64) -> Paid {
        payer.add_bytes(bytes);
        Paid { payer: payer.clone(), bytes }
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.payer.give_bytes(self.bytes);
    }
}
