//! Memory for received bytes: buffers of one size in a ring shared with the kernel.
//!
//! Sockets wait without a buffer. When bytes arrive, the kernel takes a buffer from this ring (the head
//! is the kernel's, the tail is ours) and names it in the completion. Dropping the [`RecvBuffer`] puts
//! the buffer at the tail again: two stores, no system call. See `io_uring_register_buf_ring(3)`, Linux
//! 5.19.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use memmap2::{MmapMut, MmapRaw};

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// The provided buffer ring and its buffers.
///
/// The kernel reads and writes both mappings at any time, so no reference to a whole mapping exists:
/// only references to the bytes of a buffer that is lent out, which the kernel does not use until it is
/// given back.
pub(crate) struct Buffers {
    /// The ring itself: [`Entry`]s, with the tail in the padding of the first.
    entries: MmapRaw,
    data: MmapRaw,
    count: u16,
    len: u32,
    tail: Cell<u16>,
    free: Cell<u16>,
    /// For each buffer, true if it is lent out.
    lent: Box<[Cell<bool>]>,
}

/// `struct io_uring_buf`.
#[repr(C)]
struct Entry {
    addr: u64,
    len: u32,
    bid: u16,
    /// In the first entry, the ring's tail: `struct io_uring_buf_ring`.
    tail: u16,
}

impl Buffers {
    /// Maps `count` buffers of `len` bytes, all in the ring. `count` is a power of two.
    pub fn new(count: u16, len: u32) -> io::Result<Rc<Buffers>> {
        let buffers = Buffers {
            entries: MmapMut::map_anon(count as usize * size_of::<Entry>())?.into(),
            data: MmapMut::map_anon(count as usize * len as usize)?.into(),
            count,
            len,
            tail: Cell::new(0),
            free: Cell::new(0),
            lent: vec![Cell::new(true); count as usize].into(),
        };
        for id in 0..count {
            buffers.give(id);
        }
        Ok(Rc::new(buffers))
    }

    /// Returns the address to register. It is page aligned, as a mapping is.
    pub fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Returns the number of buffers of the ring.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Returns the number of buffers that the kernel may fill. Buffers whose completions are not seen
    /// yet are counted, too.
    pub fn free(&self) -> u16 {
        self.free.get()
    }

    /// Lends out buffer `id`, into which the kernel has put `len` bytes. Returns `None` for an id or a
    /// length that cannot be, and for a buffer that is lent out already.
    pub fn lend(self: &Rc<Self>, id: u16, len: usize) -> Option<RecvBuffer> {
        let lent = self.lent.get(usize::from(id))?;
        if len > self.len as usize || lent.replace(true) {
            return None;
        }
        self.free.set(self.free.get() - 1);
        Some(RecvBuffer { buffers: Rc::clone(self), id, len: len as u32 })
    }

    /// Puts a buffer that is lent out into the ring.
    fn give(&self, id: u16) {
        let was_lent = self.lent[usize::from(id)].replace(false);
        debug_assert!(was_lent);
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        let entries = self.entries.as_mut_ptr().cast::<Entry>();
        // SAFETY: `slot` is below `count`, the number of entries mapped at `entries`. The kernel does
        // not read this entry before it sees the tail beyond it, stored below. There are as many
        // entries as buffers and each buffer is in the ring at most once (`lent`), so the kernel has
        // already read this entry. The last field is left alone: the tail lies there.
        unsafe {
            let entry = entries.add(slot);
            (&raw mut (*entry).addr).write(self.place(id) as u64);
            (&raw mut (*entry).len).write(self.len);
            (&raw mut (*entry).bid).write(id);
        }
        let tail = tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned for its type, and lives as long as `self`;
        // this thread and the kernel access it atomically only.
        let shared = unsafe { AtomicU16::from_ptr(&raw mut (*entries).tail) };
        shared.store(tail, Ordering::Release);
        self.tail.set(tail);
        self.free.set(self.free.get() + 1);
    }

    /// Returns the address of a buffer.
    fn place(&self, id: u16) -> *mut u8 {
        self.data.as_mut_ptr().wrapping_add(usize::from(id) * self.len as usize)
    }
}

/// Bytes that arrived, in one of the ring's receive buffers. Dropping it gives the buffer back.
///
/// While buffers are held, fewer are left for the sockets; when none is left, receiving stops until one
/// is given back.
pub struct RecvBuffer {
    buffers: Rc<Buffers>,
    id: u16,
    len: u32,
}

impl Deref for RecvBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let place = self.buffers.place(self.id);
        // SAFETY: `lend` has checked that the id is one of the mapped buffers and that the length is
        // within it. The kernel has handed it back with its completion, and does not write there before
        // `give`, which our drop calls.
        unsafe { std::slice::from_raw_parts(place, self.len as usize) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(buffers: &Buffers, slot: usize) -> (u64, u32, u16) {
        // SAFETY: there is no kernel here, and `slot` is one of the entries.
        let entry = unsafe { buffers.entries.as_ptr().cast::<Entry>().add(slot).read() };
        (entry.addr, entry.len, entry.bid)
    }

    #[test]
    fn a_buffer_is_lent_once_and_within_its_bounds() {
        let buffers = Buffers::new(4, 64).unwrap();
        assert!(buffers.lend(4, 1).is_none() && buffers.lend(u16::MAX, 0).is_none());
        assert!(buffers.lend(3, 65).is_none(), "longer than a buffer");
        let whole = buffers.lend(3, 64).unwrap();
        assert_eq!((whole.len(), buffers.free()), (64, 3));
        assert!(buffers.lend(3, 1).is_none(), "somebody has it");
        assert_eq!(buffers.free(), 3);
        drop(whole);
        assert_eq!(buffers.free(), 4);
        assert!(buffers.lend(3, 0).unwrap().is_empty());
    }

    #[test]
    fn buffers_go_back_behind_those_that_are_there() {
        let buffers = Buffers::new(4, 64).unwrap();
        let base = buffers.data.as_ptr() as u64;
        for slot in 0..4 {
            assert_eq!(entry(&buffers, slot), (base + 64 * slot as u64, 64, slot as u16));
        }
        let (one, two) = (buffers.lend(0, 5).unwrap(), buffers.lend(1, 5).unwrap());
        drop(two);
        drop(one);
        assert_eq!([entry(&buffers, 0).2, entry(&buffers, 1).2, entry(&buffers, 2).2], [1, 0, 2]);
        // SAFETY: as above, and aligned as a page is.
        let first = unsafe { buffers.entries.as_ptr().cast::<Entry>().read() };
        assert_eq!(first.tail, 6, "where the kernel looks for it");
        const _: () = assert!(size_of::<Entry>() == 16 && std::mem::offset_of!(Entry, tail) == 14);
    }
}
