//! Bytes that somebody pays for while something lives.

use std::sync::Arc;

use super::super::limits::Family;
use crate::kernel::Errno;

/// What a symbolic link or one more name of a file takes, given back when it goes.
pub(super) struct Paid {
    payer: Arc<Family>,
    bytes: u64,
}

impl Paid {
    /// ENOSPC if `payer` cannot pay for so many bytes more.
    pub fn new(payer: &Arc<Family>, bytes: u64) -> Result<Paid, Errno> {
        if !payer.take_bytes(bytes) {
            return Err(Errno::ENOSPC);
        }
        Ok(Paid { payer: payer.clone(), bytes })
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.payer.give_bytes(self.bytes);
    }
}
