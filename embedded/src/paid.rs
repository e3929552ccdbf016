//! Payments of bytes by a family, each for something that lives a while.

use std::sync::Arc;

use super::limits::ResourceGroup;
use kernel::Errno;

/// The bytes paid for something, given back on drop.
pub(super) struct Paid {
    resource_group: Arc<ResourceGroup>,
    bytes: u64,
}

impl Paid {
    /// Pays for so many bytes. Returns `errno` if `resource_group` cannot pay.
    pub fn new(
        resource_group: &Arc<ResourceGroup>,
        bytes: u64,
        errno: Errno,
    ) -> Result<Paid, Errno> {
        if !resource_group.take_bytes(bytes) {
            return Err(errno);
        }
        Ok(Paid { resource_group: resource_group.clone(), bytes })
    }

    /// Takes over bytes that another group paid for until now.
    pub fn moved(resource_group: &Arc<ResourceGroup>, bytes: u64) -> Paid {
        resource_group.add_bytes(bytes);
        Paid { resource_group: resource_group.clone(), bytes }
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.resource_group.give_bytes(self.bytes);
    }
}
