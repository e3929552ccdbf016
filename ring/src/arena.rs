//! Memory for bytes to send: chunks of a few fixed sizes out of one mapping.
//!
//! Any thread that builds a message takes a [`Chunk`] and hands it to the ring; the chunk gives itself
//! back when it was sent. Taking and giving back is a compare-and-swap on the free list of the chunk's
//! size class; nothing is allocated. The mapping is anonymous memory the kernel fills in page by page
//! at first use (unless it is registered for zero copy sends: then all of it is pinned at once).
//!
//! An empty class borrows from the next larger one. When all are empty, or the chunk asked for is
//! larger than the largest class, the chunk comes from the heap. So taking a chunk never fails, and the
//! code that takes chunks must bound how many it holds.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::MmapMut;

use crate::config::{ArenaConfig, CLASSES};
use crate::freelist::FreeList;

/// The memory that chunks are taken from. This is a handle: clones take from the same memory.
#[derive(Clone)]
pub struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    /// The mapping, kept alive here; all access goes through `base`.
    _memory: MmapMut,
    base: NonNull<u8>,
    bytes: usize,
    classes: [Class; CLASSES],
    heap: AtomicU32,
    heap_made: AtomicU64,
}

// SAFETY: `base` points into `_memory`, which lives as long; each byte of it belongs to the one
// `Chunk` that holds its index, which the free lists hand out once.
unsafe impl Send for Shared {}
// SAFETY: as above; every other field is atomic or never changes.
unsafe impl Sync for Shared {}

struct Class {
    capacity: u32,
    /// The offset of the class's first chunk in the mapping.
    start: usize,
    free: FreeList,
    lent: AtomicU32,
}

impl Arena {
    /// Makes an arena outside any ring, for bytes to be sent by other means.
    pub fn new(config: &ArenaConfig) -> std::io::Result<Arena> {
        let bytes = (config.bytes() as usize).max(1);
        let mut memory = MmapMut::map_anon(bytes)?;
        let base = NonNull::new(memory.as_mut_ptr()).expect("a mapping is not at address 0");
        let mut start = 0;
        let classes = config.classes.map(|class| {
            let here = start;
            start += class.capacity as usize * class.count as usize;
            Class {
                capacity: class.capacity,
                start: here,
                free: FreeList::new(class.count),
                lent: AtomicU32::new(0),
            }
        });
        let heap = AtomicU32::new(0);
        let heap_made = AtomicU64::new(0);
        let shared = Shared { _memory: memory, base, bytes, classes, heap, heap_made };
        Ok(Arena { shared: Arc::new(shared) })
    }

    /// Takes an empty chunk with room for at least `len` bytes.
    pub fn chunk(&self, len: usize) -> Chunk {
        for (number, class) in self.shared.classes.iter().enumerate() {
            if class.capacity as usize >= len
                && let Some(index) = class.free.take()
            {
                class.lent.fetch_add(1, Ordering::Relaxed);
                return self.lend(number as u8, index);
            }
        }
        self.heap_chunk(len)
    }

    fn lend(&self, number: u8, index: u32) -> Chunk {
        let class = &self.shared.classes[number as usize];
        let offset = class.start + index as usize * class.capacity as usize;
        // SAFETY: the free list holds indices below the class's count, so the chunk ends within the
        // mapping that `Arena::new` made for all classes.
        let data = unsafe { self.shared.base.add(offset) };
        let home = Home::Class { number, index };
        Chunk { data, len: 0, capacity: class.capacity, home, arena: self.clone() }
    }

    #[cold]
    fn heap_chunk(&self, len: usize) -> Chunk {
        let capacity = u32::try_from(len).expect("a chunk is smaller than 4 GiB").max(1);
        let mut bytes = ManuallyDrop::new(Vec::<u8>::with_capacity(capacity as usize));
        let data = NonNull::new(bytes.as_mut_ptr()).expect("a vector's pointer is not null");
        self.shared.heap.fetch_add(1, Ordering::Relaxed);
        self.shared.heap_made.fetch_add(1, Ordering::Relaxed);
        // A vector may get more capacity than it asked for; it must be freed with its true capacity.
        let capacity = u32::try_from(bytes.capacity()).unwrap_or(capacity);
        Chunk { data, len: 0, capacity, home: Home::Heap, arena: self.clone() }
    }

    /// Returns the number of chunks lent out of the mapping.
    pub fn lent(&self) -> u32 {
        self.shared.classes.iter().map(|class| class.lent.load(Ordering::Relaxed)).sum()
    }

    /// Returns the number of chunks lent out that came from the heap.
    pub fn lent_from_heap(&self) -> u32 {
        self.shared.heap.load(Ordering::Relaxed)
    }

    /// Returns the number of chunks that ever came from the heap.
    pub fn made_on_heap(&self) -> u64 {
        self.shared.heap_made.load(Ordering::Relaxed)
    }

    /// Returns the mapping, to register it.
    pub(crate) fn mapping(&self) -> libc::iovec {
        libc::iovec { iov_base: self.shared.base.as_ptr().cast(), iov_len: self.shared.bytes }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("bytes", &self.shared.bytes)
            .field("lent", &self.lent())
            .field("lent_from_heap", &self.lent_from_heap())
            .finish()
    }
}

/// The place a chunk goes back to.
#[derive(Clone, Copy)]
enum Home {
    Class { number: u8, index: u32 },
    Heap,
}

/// A piece of the arena with one owner: the bytes put into it so far, and room for more.
///
/// A chunk derefs to the bytes put, also mutably, so that bytes known only later can be patched in.
pub struct Chunk {
    data: NonNull<u8>,
    len: u32,
    capacity: u32,
    home: Home,
    arena: Arena,
}

// SAFETY: a chunk is the one owner of its bytes, and gives them back through atomics.
unsafe impl Send for Chunk {}
// SAFETY: a shared chunk can only be read.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Appends as much of `bytes` as there is room for, and returns how much that was.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        // SAFETY: `data` is ours up to `capacity`, and `len + taken <= capacity`; `bytes` cannot
        // overlap what we own alone.
        unsafe {
            let end = self.data.as_ptr().add(self.len as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, taken);
        }
        self.len += taken as u32;
        taken
    }

    /// Returns the number of bytes that [`put`](Chunk::put) would still take.
    pub fn room(&self) -> usize {
        (self.capacity - self.len) as usize
    }

    /// Returns the number of bytes that were put.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns `true` if nothing was put yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops all bytes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// Returns the address of the chunk's memory. The kernel may be reading there for as long as a send
    /// keeps the chunk, so this pointer is not derived from a reference.
    pub(crate) fn place(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// Returns `true` if the chunk lies in the arena's mapping, which may be registered.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.home, Home::Class { .. })
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `put` has written the first `len` bytes, and they are ours.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Chunk {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        match self.home {
            Home::Class { number, index } => {
                let class = &self.arena.shared.classes[number as usize];
                class.lent.fetch_sub(1, Ordering::Relaxed);
                class.free.give(index);
            }
            Home::Heap => {
                self.arena.shared.heap.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: `heap_chunk` took these parts out of a vector of this capacity.
                drop(unsafe { Vec::from_raw_parts(self.data.as_ptr(), 0, self.capacity as usize) });
            }
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).field("capacity", &self.capacity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ArenaClass;

    fn small() -> Arena {
        let class = |capacity, count| ArenaClass { capacity, count };
        Arena::new(&ArenaConfig { classes: [class(8, 2), class(64, 1), class(256, 1)] }).unwrap()
    }

    #[test]
    fn takes_the_smallest_class_that_fits_and_has_one() {
        let arena = small();
        let chunks: Vec<_> = (0..5).map(|_| arena.chunk(5)).collect();
        let rooms: Vec<_> = chunks.iter().map(Chunk::room).collect();
        assert_eq!(rooms[..4], [8, 8, 64, 256]);
        assert!(rooms[4] >= 5);
        assert_eq!((arena.lent(), arena.lent_from_heap()), (4, 1));
        drop(chunks);
        assert_eq!((arena.lent(), arena.lent_from_heap(), arena.made_on_heap()), (0, 0, 1));
        assert_eq!(arena.chunk(9).room(), 64);
        assert!(arena.chunk(257).room() >= 257);
        assert_eq!(arena.made_on_heap(), 2);
        assert_eq!(arena.chunk(0).room(), 8);
    }

    #[test]
    fn puts_what_fits_and_starts_empty_again() {
        let arena = small();
        let mut chunk = arena.chunk(8);
        assert!(chunk.is_empty());
        assert_eq!(chunk.put(b"hello"), 5);
        assert_eq!(chunk.put(b"world"), 3);
        assert_eq!(chunk.put(b"!"), 0);
        assert_eq!((&*chunk, chunk.len(), chunk.room()), (&b"hellowor"[..], 8, 0));
        chunk.as_mut()[0] = b'j';
        chunk.truncate(5);
        assert_eq!(chunk.as_ref(), b"jello");
        drop(chunk);
        assert!(arena.chunk(8).is_empty());
        let mut heap = arena.chunk(1000);
        assert_eq!(heap.put(&[7; 1000]), 1000);
        assert_eq!(*heap, [7; 1000]);
    }

    #[test]
    fn chunks_outlive_handles_and_threads() {
        let arena = small();
        let chunks: Vec<_> = std::thread::scope(|scope| {
            let take = |byte: u8| {
                let arena = &arena;
                move || {
                    let mut chunk = arena.chunk(1);
                    chunk.put(&[byte; 8]);
                    chunk
                }
            };
            let threads: Vec<_> = (0..6).map(|i| scope.spawn(take(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        drop(arena);
        for (i, chunk) in chunks.iter().enumerate() {
            assert!(chunk.iter().all(|&byte| byte == i as u8));
        }
    }
}
