//! Memory for what is received: buffers of one size in a ring shared with the kernel.
//!
//! Sockets wait without a buffer; when bytes arrive the kernel takes one from this ring (its head is
//! the kernel's, its tail ours) and says which in the completion. Dropping the [`RecvBuffer`] puts it
//! at the tail again: two stores, no system call. See `io_uring_register_buf_ring(3)`, Linux 5.19.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// The provided buffer ring and its buffers.
pub(crate) struct Buffers {
    /// The ring itself: entries, with the tail in the padding of the first.
    entries: MmapMut,
    data: MmapMut,
    count: u16,
    len: u32,
    tail: Cell<u16>,
    free: Cell<u16>,
}

impl Buffers {
    /// Maps `count` buffers of `len` bytes, all in the ring. `count` is a power of two.
    pub fn new(count: u16, len: u32) -> io::Result<Rc<Buffers>> {
        let entries = MmapMut::map_anon(count as usize * size_of::<BufRingEntry>())?;
        let data = MmapMut::map_anon(count as usize * len as usize)?;
        let (tail, free) = (Cell::new(0), Cell::new(0));
        let buffers = Rc::new(Buffers { entries, data, count, len, tail, free });
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// The address to register. Page aligned, as a mapping is.
    pub fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// How many buffers the ring has.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// How many buffers are the kernel's to fill, but for those whose completions are not seen yet.
    pub fn free(&self) -> u16 {
        self.free.get()
    }

    /// The kernel has put `len` bytes into buffer `id`: lends it out. `None` for an id or a length
    /// that cannot be.
    pub fn lend(self: &Rc<Self>, id: u16, len: usize) -> Option<RecvBuffer> {
        if id >= self.count || len > self.len as usize {
            return None;
        }
        self.free.set(self.free.get() - 1);
        Some(RecvBuffer { buffers: Rc::clone(self), id, len: len as u32 })
    }

    fn give(&self, id: u16) {
        let tail = self.tail.get();
        let slot = (tail & (self.count - 1)) as usize;
        let address = self.data.as_ptr() as u64 + u64::from(id) * u64::from(self.len);
        let base = self.entries.as_ptr().cast::<BufRingEntry>().cast_mut();
        // SAFETY: `slot` is below `count`, the number of entries mapped at `base`. The kernel does
        // not read this entry before it sees the tail beyond it, stored below; there are as many
        // entries as buffers and each buffer is in the ring at most once, so it is not one the kernel
        // has yet to read. Setting address, length and id leaves the padding, where the tail lives.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(address);
            entry.set_len(self.len);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned for its type; only this thread writes it.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        shared.store(tail, Ordering::Release);
        self.tail.set(tail);
        self.free.set(self.free.get() + 1);
    }
}

/// Bytes that arrived, in one of the ring's receive buffers. Dropping it gives the buffer back.
///
/// While buffers are held, fewer are left for the sockets; with none left receiving stops until one
/// is given back.
pub struct RecvBuffer {
    buffers: Rc<Buffers>,
    id: u16,
    len: u32,
}

impl Deref for RecvBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let start = self.id as usize * self.buffers.len as usize;
        &self.buffers.data[start..][..self.len as usize]
    }
}

impl Drop for RecvBuffer {
    fn drop(&mut self) {
        self.buffers.give(self.id);
    }
}

impl fmt::Debug for RecvBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBuffer").field("id", &self.id).field("len", &self.len).finish()
    }
}
