//! A simulated address space: regions of bytes at addresses that have nothing to do with this
//! process's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lowest address given out; below it only [`AddressSpace::map_at`] maps anything.
const BASE: u64 = 0x10_0000_0000;

/// The end of the addresses of a NetBSD/amd64 process (`VM_MAXUSER_ADDRESS`).
const END: u64 = 0x7f80_0000_0000;

/// The most bytes of a space in all, by default.
pub const DEFAULT_LIMIT: usize = 1 << 30;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Bytes left free behind a region, so that running over its end is a fault.
const GUARD: u64 = 16;

/// An address outside every region, or a range that runs over a region's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {len} bytes at address {addr:#x}; allocate them first")]
pub struct Fault {
    pub addr: u64,
    pub len: u64,
}

/// A request for more memory than the space has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for {asked} bytes in an address space limited to {limit}; free some, or raise the limit"
)]
pub struct OutOfMemory {
    pub asked: u64,
    pub limit: usize,
}

/// Regions of bytes at addresses.
///
/// Every range used must lie within one region. An address is given out once: a late copy of an
/// abandoned call to a freed buffer is refused and reaches no new buffer.
///
/// ```
/// use rumpring_client::AddressSpace;
///
/// let space = AddressSpace::new();
/// let addr = space.alloc_from(b"hello")?;
/// space.write(addr + 1, b"a")?;
/// assert_eq!(space.read(addr, 5)?, b"hallo");
/// assert!(space.read(addr, 6).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AddressSpace {
    regions: Mutex<Regions>,
    limit: usize,
    faults: AtomicU64,
}

#[derive(Clone, Debug)]
struct Regions {
    by_address: BTreeMap<u64, Vec<u8>>,
    /// The next address to give out.
    next: u64,
    /// Bytes in all regions.
    total: usize,
}

impl Default for AddressSpace {
    fn default() -> AddressSpace {
        AddressSpace::with_limit(DEFAULT_LIMIT)
    }
}

impl Clone for AddressSpace {
    /// Copies all regions to the same addresses, as fork does.
    fn clone(&self) -> AddressSpace {
        AddressSpace {
            regions: Mutex::new(self.lock().clone()),
            limit: self.limit,
            faults: AtomicU64::new(0),
        }
    }
}

impl AddressSpace {
    /// Makes an empty space that may hold [`DEFAULT_LIMIT`] bytes.
    pub fn new() -> AddressSpace {
        AddressSpace::default()
    }

    /// Makes an empty space that may hold `limit` bytes in all its regions.
    pub fn with_limit(limit: usize) -> AddressSpace {
        let regions = Regions { by_address: BTreeMap::new(), next: BASE, total: 0 };
        AddressSpace { regions: Mutex::new(regions), limit, faults: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a region of `len` zero bytes and returns its address, a multiple of 16.
    pub fn alloc(&self, len: usize) -> Result<u64, OutOfMemory> {
        self.lock().place(self.limit, 16, len as u64, |len| vec![0; len])
    }

    /// Makes a region that holds `bytes`.
    pub fn alloc_from(&self, bytes: &[u8]) -> Result<u64, OutOfMemory> {
        self.lock().place(self.limit, 16, bytes.len() as u64, |_| bytes.to_vec())
    }

    /// Makes a region that holds `text` and a NUL.
    pub fn alloc_str(&self, text: &str) -> Result<u64, OutOfMemory> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.alloc_from(&bytes)
    }

    /// Makes a region of `len` zero bytes at a page boundary, for ANONMMAP.
    pub fn map(&self, len: u64) -> Result<u64, OutOfMemory> {
        self.lock().place(self.limit, PAGE, len, |len| vec![0; len])
    }

    /// Makes a region that holds `bytes` at an address of the caller's choice. Returns a [`Fault`] if
    /// there is a region already or the space ends there.
    pub fn map_at(&self, addr: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        let len = bytes.len() as u64;
        let mut regions = self.lock();
        let end = addr.checked_add(len).filter(|&end| end <= END).ok_or(Fault { addr, len })?;
        let before = regions.by_address.range(..end.max(addr + 1)).next_back();
        let is_free = before
            .is_none_or(|(start, region)| start + region.len() as u64 <= addr && *start != addr);
        if !is_free || bytes.len() > self.limit.saturating_sub(regions.total) {
            return Err(Fault { addr, len });
        }
        regions.next = regions.next.max((end + GUARD).next_multiple_of(16));
        regions.total += bytes.len();
        regions.by_address.insert(addr, bytes);
        Ok(())
    }

    /// Frees the region that starts at `addr`.
    pub fn free(&self, addr: u64) -> Result<(), Fault> {
        let mut regions = self.lock();
        let region = regions.by_address.remove(&addr).ok_or(Fault { addr, len: 0 })?;
        regions.total -= region.len();
        Ok(())
    }

    /// Copies `len` bytes at `addr`.
    pub fn read(&self, addr: u64, len: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        self.append(addr, len, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from `addr`.
    pub fn read_into(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let regions = self.lock();
        let bytes = regions.range(addr, buf.len() as u64)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    /// Copies the string at `addr`, without its NUL.
    pub fn read_str(&self, addr: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        self.append_str(addr, u64::MAX, &mut bytes)?;
        bytes.pop();
        Ok(bytes)
    }

    /// Puts `bytes` at `addr`.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), Fault> {
        let mut regions = self.lock();
        regions.range_mut(addr, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` bytes at `addr` to `out`.
    pub fn append(&self, addr: u64, len: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.extend_from_slice(self.lock().range(addr, len)?);
        Ok(())
    }

    /// Appends the string at `addr` to `out`, its NUL included; or its first `most` bytes, if the NUL
    /// comes later. Returns a [`Fault`] if the region ends before either.
    pub fn append_str(&self, addr: u64, most: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        let regions = self.lock();
        let rest = regions.from(addr).ok_or(Fault { addr, len: most })?;
        let within = &rest[..rest.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
        let len = match within.iter().position(|&byte| byte == 0) {
            Some(nul) => nul + 1,
            None if (within.len() as u64) < most => return Err(Fault { addr, len: most }),
            None => within.len(),
        };
        out.extend_from_slice(&within[..len]);
        Ok(())
    }

    /// Returns `true` if the `len` bytes at `addr` lie within one region.
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        self.lock().range(addr, len).is_ok()
    }

    /// Returns the number of bytes in all regions.
    pub fn total(&self) -> usize {
        self.lock().total
    }

    /// Returns the number of regions.
    pub fn regions(&self) -> usize {
        self.lock().by_address.len()
    }

    /// Returns the number of the server's copies that were refused so far.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    pub(super) fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a region of `len` zero bytes that is freed when the [`Buffer`] is dropped.
    pub fn buffer(&self, len: usize) -> Result<Buffer<'_>, OutOfMemory> {
        Ok(Buffer { space: self, addr: self.alloc(len)?, len })
    }

    /// Makes a region that holds `bytes` and is freed when the [`Buffer`] is dropped.
    pub fn buffer_from(&self, bytes: &[u8]) -> Result<Buffer<'_>, OutOfMemory> {
        Ok(Buffer { space: self, addr: self.alloc_from(bytes)?, len: bytes.len() })
    }

    /// Makes a region that holds `text` and a NUL and is freed when the [`Buffer`] is dropped.
    pub fn buffer_str(&self, text: &str) -> Result<Buffer<'_>, OutOfMemory> {
        Ok(Buffer { space: self, addr: self.alloc_str(text)?, len: text.len() + 1 })
    }
}

impl Regions {
    /// Puts a region of `len` bytes at the next multiple of `align`.
    fn place(
        &mut self,
        limit: usize,
        align: u64,
        len: u64,
        fill: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<u64, OutOfMemory> {
        let full = OutOfMemory { asked: len, limit };
        if len > limit.saturating_sub(self.total) as u64 {
            return Err(full);
        }
        let addr = self.next.next_multiple_of(align);
        let end = addr.checked_add(len).filter(|end| *end <= END - PAGE).ok_or(full)?;
        self.next = end + GUARD;
        self.total += len as usize;
        self.by_address.insert(addr, fill(len as usize));
        Ok(addr)
    }

    /// Returns the bytes from `addr` to the end of its region.
    fn from(&self, addr: u64) -> Option<&[u8]> {
        let (start, region) = self.by_address.range(..=addr).next_back()?;
        region.get(usize::try_from(addr - start).ok()?..)
    }

    fn range(&self, addr: u64, len: u64) -> Result<&[u8], Fault> {
        let rest = self.from(addr).ok_or(Fault { addr, len })?;
        usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(Fault { addr, len })
    }

    fn range_mut(&mut self, addr: u64, len: u64) -> Result<&mut [u8], Fault> {
        let fault = Fault { addr, len };
        let (start, region) = self.by_address.range_mut(..=addr).next_back().ok_or(fault)?;
        let from = usize::try_from(addr - start).map_err(|_| fault)?;
        let end = usize::try_from(len).ok().and_then(|len| from.checked_add(len)).ok_or(fault)?;
        region.get_mut(from..end).ok_or(fault)
    }
}

/// A region that is freed when this is dropped.
#[derive(Debug)]
pub struct Buffer<'a> {
    space: &'a AddressSpace,
    addr: u64,
    len: usize,
}

impl Buffer<'_> {
    /// Returns the region's address, for a call's argument.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Returns the region's length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the first `len` bytes, or all bytes if the region is shorter.
    pub fn bytes(&self, len: usize) -> Vec<u8> {
        self.space.read(self.addr, len.min(self.len) as u64).unwrap_or_default()
    }

    /// Returns the little-endian i64 at `at`, 0 outside of the region.
    pub fn i64_at(&self, at: u64) -> i64 {
        let mut bytes = [0; 8];
        let _ = self.space.read_into(self.addr + at, &mut bytes);
        i64::from_le_bytes(bytes)
    }

    /// Returns the little-endian i32 at `at`, 0 outside of the region.
    pub fn i32_at(&self, at: u64) -> i32 {
        let mut bytes = [0; 4];
        let _ = self.space.read_into(self.addr + at, &mut bytes);
        i32::from_le_bytes(bytes)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let _ = self.space.free(self.addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_their_region() {
        let space = AddressSpace::new();
        let addr = space.alloc_from(&[1, 2, 3, 4]).unwrap();
        let other = space.alloc(4).unwrap();
        assert!(other >= addr + 4);
        assert_eq!(space.read(addr + 1, 3).unwrap(), [2, 3, 4]);
        assert_eq!(space.read(addr + 4, 0).unwrap(), []);
        for (at, len) in [(addr, 5), (addr + 4, 1), (addr + 5, 0), (addr - 1, 1), (0, 1)] {
            assert_eq!(space.read(at, len), Err(Fault { addr: at, len }), "{at:#x} {len}");
            assert!(!space.contains(at, len));
        }
        assert!(space.read(addr, u64::MAX).is_err());
        assert!(space.read(u64::MAX, u64::MAX).is_err());
        assert!(space.write(addr + 3, &[0; 2]).is_err());
        assert_eq!(space.read(addr, 4).unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn strings_end_with_their_nul_or_the_bound() {
        let space = AddressSpace::new();
        let addr = space.alloc_str("name").unwrap();
        let mut out = vec![9];
        space.append_str(addr + 1, 100, &mut out).unwrap();
        assert_eq!(out, b"\x09ame\0");
        out.clear();
        space.append_str(addr, 2, &mut out).unwrap();
        assert_eq!(out, b"na");
        let endless = space.alloc_from(b"abc").unwrap();
        assert!(space.append_str(endless, 4, &mut out).is_err());
        assert_eq!(space.read_str(addr).unwrap(), b"name");
    }

    #[test]
    fn a_freed_address_comes_never_back() {
        let space = AddressSpace::new();
        let addr = space.alloc(10).unwrap();
        space.free(addr).unwrap();
        assert_ne!(space.alloc(10).unwrap(), addr);
        assert!(space.write(addr, &[1]).is_err());
        assert!(space.free(addr).is_err());
        assert_eq!((space.total(), space.regions()), (10, 1));
    }

    #[test]
    fn the_limit_holds_for_all_regions_together() {
        let space = AddressSpace::with_limit(100);
        let addr = space.alloc(60).unwrap();
        assert_eq!(space.map(41), Err(OutOfMemory { asked: 41, limit: 100 }));
        assert!(space.map(u64::MAX).is_err());
        space.free(addr).unwrap();
        assert_eq!(space.map(100).unwrap() % 4096, 0);
    }

    #[test]
    fn a_chosen_address_must_be_free() {
        let space = AddressSpace::new();
        space.map_at(0x1000, vec![7; 16]).unwrap();
        for (addr, len) in [(0x1000, 1), (0x100f, 1), (0xfff, 2), (0xfff, 100), (0x1000, 0)] {
            assert!(space.map_at(addr, vec![0; len]).is_err(), "{addr:#x} {len}");
        }
        assert!(space.map_at(u64::MAX, vec![0]).is_err());
        space.map_at(0x1010, vec![8]).unwrap();
        space.map_at(0xfff, vec![6]).unwrap();
        assert_eq!(space.read(0x100f, 1).unwrap(), [7]);
    }

    #[test]
    fn empty_regions_have_addresses_of_their_own() {
        let space = AddressSpace::new();
        assert_ne!(space.alloc(0).unwrap(), space.alloc(0).unwrap());
    }

    #[test]
    fn a_clone_is_a_copy() {
        let space = AddressSpace::new();
        let addr = space.alloc_from(b"one").unwrap();
        let child = space.clone();
        space.write(addr, b"two").unwrap();
        assert_eq!(child.read(addr, 3).unwrap(), b"one");
    }

    #[test]
    fn a_buffer_frees_itself() {
        let space = AddressSpace::new();
        {
            let buffer = space.buffer_from(&5i64.to_le_bytes()).unwrap();
            assert_eq!((buffer.i64_at(0), buffer.i64_at(1)), (5, 0));
            assert_eq!(buffer.bytes(100).len(), 8);
        }
        assert_eq!(space.regions(), 0);
    }
}
