//! The contents of a regular file: chunks of up to 64 KiB. A hole has no chunks, and the last chunk is only
//! as long as its used part. The family that made the file pays for its chunks, whoever wrote them, like
//! the owner of a file under a quota. The bytes are given back when the file is truncated or gone.
//!
//! There may be half a million chunks, and truncation takes time for each. So an inline run does not wait
//! for the lock, and chunks are freed without it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use super::super::call::{PIECE, Result};
use super::super::device::zeros;
use super::super::limits::ResourceGroup;
use super::super::sync::{read_or_go, write_or_go};
use super::super::work;
use kernel::Errno;

/// The smallest chunk.
const BLOCK: usize = 512;

/// The unit in which memory sizes are reported (`PAGE_SIZE`).
pub(in super::super) const PAGE: u64 = 4096;

/// The contents of a regular file.
pub(in super::super) struct Content {
    resource_group: Arc<ResourceGroup>,
    /// The size of the file, and the bytes of all chunks: read without the lock, changed under it.
    size: AtomicU64,
    held: AtomicU64,
    chunks: RwLock<Chunks>,
}

/// The chunks by `offset / PIECE`. A byte past a chunk's end is zero.
#[derive(Default)]
struct Chunks(BTreeMap<u64, Vec<u8>>);

/// Chunks that were truncated; their bytes are given back once they are freed.
struct Cut {
    resource_group: Arc<ResourceGroup>,
    bytes: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl Cut {
    /// Frees the chunks, one by one, so without a lock held.
    fn free(self) {
        // Returning memory to the host takes longer than a step.
        let steps = self.chunks.len() * 16;
        work::free(steps, self);
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Free from the back: the allocator returns memory to the host as the end of its heap comes free,
        // holding its own lock, so that should be little at a time.
        while self.chunks.pop_last().is_some() {}
        self.resource_group.give_bytes(self.bytes);
    }
}

impl Chunks {
    /// Returns the bytes missing from these chunks to hold `len` bytes at `at`.
    fn growth(&self, at: u64, len: u64) -> u64 {
        let lacks = |(index, skip, len)| {
            let now = self.0.get(&index).map_or(0, Vec::len);
            chunk_size(skip + len).saturating_sub(now) as u64
        };
        pieces(at, len as usize).map(lacks).sum()
    }
}

impl Content {
    pub fn new(resource_group: &Arc<ResourceGroup>) -> Self {
        let (size, held, chunks) = Default::default();
        Content { resource_group: resource_group.clone(), size, held, chunks }
    }

    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Returns the size, and the bytes that hold the contents: whole pages as in NetBSD, but none for a
    /// hole.
    pub fn extent(&self) -> (u64, u64) {
        let (size, held) = (self.size(), self.held.load(Relaxed));
        (size, size.next_multiple_of(PAGE).min(held.next_multiple_of(PAGE)))
    }

    /// Hands up to `len` bytes from offset `from` to `sink`, without a copy.
    pub fn read(
        &self,
        from: i64,
        len: u64,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let from = u64::try_from(from).map_err(|_| Errno::EINVAL)?;
        let chunks = read_or_go(&self.chunks)?;
        let end = from.saturating_add(len).min(self.size());
        let mut at = from;
        while at < end {
            let (index, skip) = (at / PIECE as u64, (at % PIECE as u64) as usize);
            let wanted = (end - at).min((PIECE - skip) as u64) as usize;
            let chunk = chunks.0.get(&index).map_or(&[][..], Vec::as_slice);
            let there = chunk.get(skip..).unwrap_or_default();
            let there = &there[..there.len().min(wanted)];
            work::count(1);
            if there.is_empty() {
                sink(zeros(wanted))?;
                at += wanted as u64;
            } else {
                sink(there)?;
                at += there.len() as u64;
            }
        }
        Ok(())
    }

    /// Returns ENOSPC if `len` bytes at `at` could not be stored now.
    pub fn check_room(&self, at: u64, len: u64) -> Result<(), Errno> {
        let free = self.resource_group.free_bytes();
        let chunks = read_or_go(&self.chunks)?;
        // The first condition bounds the number of pieces that the second one looks at.
        let fits =
            len <= free.saturating_add(self.held.load(Relaxed)) && chunks.growth(at, len) <= free;
        if fits { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Writes all of `data` at `at`, or none of it.
    pub fn write(&self, at: i64, data: &[u8]) -> Result<(), Errno> {
        let at = u64::try_from(at).map_err(|_| Errno::EINVAL)?;
        self.put(&mut *write_or_go(&self.chunks)?, at, data)
    }

    /// Writes `data` at the end, and extends the file by `total` bytes, with a hole if `data` is shorter.
    /// Returns the old end.
    pub fn append(&self, data: &[u8], total: u64) -> Result<i64, Errno> {
        let mut chunks = write_or_go(&self.chunks)?;
        let before = self.size();
        let end = before.checked_add(total).filter(|&end| end <= i64::MAX as u64);
        let end = end.ok_or(Errno::EFBIG)?;
        self.put(&mut chunks, before, data)?;
        self.size.store(self.size().max(end), Relaxed);
        Ok(before as i64)
    }

    fn put(&self, chunks: &mut Chunks, at: u64, data: &[u8]) -> Result<(), Errno> {
        if data.is_empty() {
            return Ok(());
        }
        let end = at.checked_add(data.len() as u64).filter(|&end| end <= i64::MAX as u64);
        let end = end.ok_or(Errno::EFBIG)?;
        let grown = chunks.growth(at, data.len() as u64);
        if !self.resource_group.take_bytes(grown) {
            return Err(Errno::ENOSPC);
        }
        self.held.fetch_add(grown, Relaxed);
        let mut rest = data;
        for (index, skip, len) in pieces(at, data.len()) {
            work::count(1);
            let chunk = chunks.0.entry(index).or_default();
            if chunk.len() < skip + len {
                let size = chunk_size(skip + len);
                chunk.reserve_exact(size - chunk.len());
                chunk.resize(size, 0);
            }
            let (now, after) = rest.split_at(len);
            chunk[skip..skip + len].copy_from_slice(now);
            rest = after;
        }
        self.size.store(self.size().max(end), Relaxed);
        Ok(())
    }

    /// Truncates the file, or extends it with a hole. Returns `true` if that changed anything. Chunks are
    /// freed with no lock held.
    pub fn truncate(&self, size: u64) -> Result<bool, Errno> {
        let cut = self.cut(&mut *write_or_go(&self.chunks)?, size);
        let changed = cut.is_some();
        if let Some(cut) = cut {
            cut.free();
        }
        Ok(changed)
    }

    /// Truncates the file to `size` if it still ends at `end`.
    pub fn cut_back(&self, end: u64, size: u64) -> Result<(), Errno> {
        let cut = {
            let mut chunks = write_or_go(&self.chunks)?;
            let back = self.size() == end && size < end;
            back.then(|| self.cut(&mut chunks, size)).flatten()
        };
        if let Some(cut) = cut {
            cut.free();
        }
        Ok(())
    }

    /// Takes out the chunks behind `size` and sets the size of the file. Returns `None` if that is the size
    /// already.
    fn cut(&self, chunks: &mut Chunks, size: u64) -> Option<Cut> {
        let before = self.size.swap(size, Relaxed);
        let mut cut =
            Cut { resource_group: self.resource_group.clone(), bytes: 0, chunks: BTreeMap::new() };
        if size >= before {
            return (size > before).then_some(cut);
        }
        let (last, used) = (size / PIECE as u64, (size % PIECE as u64) as usize);
        let kept = if used > 0 { last + 1 } else { last };
        cut.chunks = match kept {
            0 => std::mem::take(&mut chunks.0),
            _ => chunks.0.split_off(&kept),
        };
        if used > 0
            && let Some(chunk) = chunks.0.get_mut(&last)
        {
            let before = chunk.len();
            chunk.truncate(chunk_size(used));
            chunk.shrink_to_fit();
            if used < chunk.len() {
                chunk[used..].fill(0);
            }
            cut.bytes = (before - chunk.len()) as u64;
        }
        cut.bytes += match chunks.0.len() {
            // All of the chunks, whose total is known.
            0 => self.held.load(Relaxed) - cut.bytes,
            _ => cut.chunks.values().map(|chunk| chunk.len() as u64).sum(),
        };
        self.held.fetch_sub(cut.bytes, Relaxed);
        Some(cut)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let chunks = self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let chunks = std::mem::take(&mut chunks.0);
        Cut { resource_group: self.resource_group.clone(), bytes: *self.held.get_mut(), chunks }
            .free();
    }
}

/// Returns the size of a chunk for `used` bytes: the next power of two, at least a block.
fn chunk_size(used: usize) -> usize {
    used.next_power_of_two().clamp(BLOCK, PIECE)
}

/// Returns the parts of chunks that `len` bytes at `at` fall into: index, offset in the chunk, length.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let here = at + done as u64;
        let skip = (here % PIECE as u64) as usize;
        let part = (len - done).min(PIECE - skip);
        done += part;
        Some((here / PIECE as u64, skip, part))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::{Counters, Limits};
    use super::*;

    fn content(limit: u64) -> (Content, Arc<Counters>) {
        let limits = Limits { bytes: limit, bytes_per_family: limit, ..Limits::default() };
        let counters = Arc::new(Counters::new(limits));
        (Content::new(&ResourceGroup::new(&counters)), counters)
    }

    fn all(content: &Content, from: i64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        content
            .read(from, len, |part| {
                out.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn a_hole_reads_as_zeros_and_costs_nothing() {
        let (content, counters) = content(1 << 20);
        content.write(1 << 40, b"end").unwrap();
        assert_eq!(counters.bytes.get(), 512);
        assert_eq!(content.extent(), ((1 << 40) + 3, 4096));
        assert_eq!(all(&content, (1 << 40) - 4, 100), b"\0\0\0\0end");
        assert_eq!(all(&content, 0, 100_000), vec![0; 100_000]);
        assert_eq!(all(&content, (1 << 40) + 3, 100), b"");
        drop(content);
        assert_eq!(counters.bytes.get(), 0);
    }

    #[test]
    fn writes_across_chunks_are_whole_or_not_at_all() {
        let (content, counters) = content(PIECE as u64 + 1024);
        let data: Vec<u8> = (0..PIECE + 600).map(|i| i as u8).collect();
        content.write(0, &data).unwrap();
        assert_eq!(all(&content, 0, 1 << 20), data);
        assert_eq!(counters.bytes.get(), PIECE as u64 + 1024);
        assert_eq!(content.write(2 * PIECE as i64 - 10, &data), Err(Errno::ENOSPC));
        assert_eq!(content.size(), data.len() as u64);
        assert_eq!(content.check_room(0, 1 << 40), Err(Errno::ENOSPC));
        assert_eq!(content.check_room(0, PIECE as u64 + 1024), Ok(()));
        assert_eq!(content.check_room(0, PIECE as u64 + 1025), Err(Errno::ENOSPC));
        assert_eq!(content.check_room(2 * PIECE as u64, 1), Err(Errno::ENOSPC));
        assert_eq!(content.write(i64::MAX - 2, b"abc"), Err(Errno::EFBIG));
    }

    #[test]
    fn what_is_cut_off_is_gone() {
        let (content, counters) = content(1 << 30);
        content.write(0, &vec![7; 3 * PIECE]).unwrap();
        content.truncate(PIECE as u64 + 700).unwrap();
        assert_eq!(counters.bytes.get(), PIECE as u64 + 1024);
        content.truncate(2 * PIECE as u64).unwrap();
        let read = all(&content, PIECE as i64 + 699, 4);
        assert_eq!(read, [7, 0, 0, 0]);
        content.truncate(0).unwrap();
        assert_eq!(counters.bytes.get(), 0);
        content.truncate(5).unwrap();
        assert_eq!(all(&content, 0, 100), [0; 5]);
        assert_eq!(content.append(b"xy", 2).unwrap(), 5);
        assert_eq!(all(&content, 0, 100), b"\0\0\0\0\0xy");
        assert_eq!(content.append(b"z", 3).unwrap(), 7);
        assert_eq!(all(&content, 6, 100), b"yz\0\0");
        content.cut_back(11, 7).unwrap();
        assert_eq!(content.size(), 10);
        content.cut_back(10, 7).unwrap();
        assert_eq!(content.size(), 7);
        assert_eq!(content.append(b"", u64::MAX), Err(Errno::EFBIG));
    }
}
