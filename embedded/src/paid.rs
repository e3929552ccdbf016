//! Bytes that a family pays for while something lives.

use std::sync::Arc;

use super::limits::ResourceGroup;
use kernel::Errno;

/// What something takes, given back when it goes.
pub(super) struct Paid {
    resource_group: Arc<ResourceGroup>,
    bytes: u64,
}

impl Paid {
    /// This error if `resource_group` cannot pay for so many bytes more.
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

    /// For what was paid for elsewhere until now.
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
