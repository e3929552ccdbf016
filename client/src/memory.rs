//! The memory a client serves to the server's copies: the trait that every such memory implements.

use std::sync::Arc;

use super::AddressSpace;

/// The reason why a copy is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such address: answered with an error frame, of which the server makes EFAULT.
    Fault,
    /// The copy is not answered at all, as by a hostile client.
    Silence,
}

/// The memory that the server's copies of one client reach.
///
/// All methods have defaults on top of an [`AddressSpace`], where typed calls keep their buffers. A
/// test overrides those that are to go wrong: a copy that is answered late, too long, or never.
///
/// The receiving thread calls these methods, holding no lock of the client. They may sleep, which
/// delays all of that client's answers, but must not make calls on the client: such calls would wait
/// for their own thread.
pub trait Memory: Send + Sync {
    /// Returns the space in which typed calls keep their buffers.
    fn space(&self) -> &AddressSpace;

    /// Appends the `len` bytes at `addr` to `out`.
    fn copyin(&self, addr: u64, len: u64, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.space().append(addr, len, out).map_err(|_| Refusal::Fault)
    }

    /// Appends the string at `addr`, its NUL included, or its first `most` bytes if it is longer.
    fn copyinstr(&self, addr: u64, most: u64, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.space().append_str(addr, most, out).map_err(|_| Refusal::Fault)
    }

    /// Returns `true` if `len` bytes may be put at `addr`. Called before the bytes of a large copy are
    /// kept.
    fn accepts(&self, addr: u64, len: u64) -> bool {
        self.space().contains(addr, len)
    }

    /// Puts `bytes` at `addr`. The protocol has no answer to a copyout: a refusal is only counted.
    fn copyout(&self, addr: u64, bytes: &[u8]) -> Result<(), Refusal> {
        self.space().write(addr, bytes).map_err(|_| Refusal::Fault)
    }

    /// Maps `len` zero bytes and returns their address, or `None` if there is no room.
    fn anonmmap(&self, len: u64) -> Option<u64> {
        self.space().map(len).ok()
    }

    /// Returns the memory of a forked child: a copy.
    fn fork(&self) -> Arc<dyn Memory> {
        Arc::new(self.space().clone())
    }
}

impl Memory for AddressSpace {
    fn space(&self) -> &AddressSpace {
        self
    }
}
