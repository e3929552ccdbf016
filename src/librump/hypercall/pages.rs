//! Allocation of the kernel's pages: `rumpuser_malloc` and `rumpuser_free`.
//!
//! Nearly all that the kernel allocates is single pages at a page's boundary, by the thousand.
//! librumpuser has the C library allocate them, which takes two pages for each and leaves holes that no
//! other page fits in, so a server under a mixed load grows for hours. Here, such pages come out of one
//! reserved range of addresses, and a freed page is the next to be used. If many pages stay free for
//! long, their memory goes back to the host. librumpuser allocates everything else, and whatever does not
//! fit into the range.
//!
//! Source: NetBSD `lib/librumpuser/rumpuser_mem.c`, rumpuser(3).

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The bytes of a page of the kernel, whatever the host's page size is.
pub const PAGE: usize = 4096;

/// The bytes of reserved addresses. Addresses cost nothing until they are used.
const RANGE: usize = 1 << 36;

/// The bytes that are made usable at once.
const CHUNK: usize = 1 << 20;

/// The number of free pages that keep their memory in any case. Beyond that, as many may keep it as are
/// in use, so a load that comes and goes costs no system calls.
const KEPT: usize = 4096;

/// The number of pages whose memory goes back to the host at once.
const BATCH: usize = 64;

/// A range of addresses, and the state of its pages.
struct Pages {
    /// The first address, on a page's boundary. The range is never unmapped.
    start: usize,
    len: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The bytes from the start that can be used (`usable`), and those that have been handed out before
    /// (`used`).
    usable: usize,
    used: usize,
    /// The numbers of the freed pages. The one that was freed last comes last.
    free: VecDeque<u32>,
    /// The free pages whose memory the host has back.
    without_memory: Vec<u32>,
    /// The number of pages that are handed out.
    taken: usize,
}

impl Pages {
    /// Reserves `len` bytes of addresses, a multiple of [`CHUNK`]. Returns `None` if the host has none.
    fn reserve(len: usize) -> Option<Pages> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at addresses that nobody has.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        (start != libc::MAP_FAILED).then(|| Pages {
            start: start as usize,
            len,
            state: Mutex::default(),
        })
    }

    /// Takes a page. Returns `None` if all are taken, or the host has no memory.
    fn take(&self) -> Option<NonNull<c_void>> {
        let mut state = self.lock();
        let free = state.free.pop_back().or_else(|| state.without_memory.pop());
        let offset = match free {
            Some(number) => number as usize * PAGE,
            None => {
                self.make_usable(&mut state)?;
                state.used += PAGE;
                state.used - PAGE
            }
        };
        state.taken += 1;
        NonNull::new((self.start + offset) as *mut c_void)
    }

    /// Makes sure that there is a page that was never handed out.
    fn make_usable(&self, state: &mut State) -> Option<()> {
        if state.used < state.usable {
            return Some(());
        }
        if state.usable == self.len {
            return None;
        }
        let chunk = (self.start + state.usable) as *mut c_void;
        // SAFETY: the chunk is inside of the range, which belongs to this type alone, and nothing of it
        // was handed out.
        let error = unsafe { libc::mprotect(chunk, CHUNK, libc::PROT_READ | libc::PROT_WRITE) };
        if error != 0 {
            return None;
        }
        state.usable += CHUNK;
        Some(())
    }

    /// Takes a page back. Returns `false` if the address is not in the range.
    fn give_back(&self, page: *mut c_void) -> bool {
        let Some(offset) = (page as usize).checked_sub(self.start).filter(|at| *at < self.len)
        else {
            return false;
        };
        let number = u32::try_from(offset / PAGE).expect("the range has fewer pages");
        let mut state = self.lock();
        state.free.push_back(number);
        state.taken = state.taken.saturating_sub(1);
        if state.free.len() >= KEPT.max(state.taken) + BATCH {
            let mut coldest: Vec<u32> = state.free.drain(..BATCH).collect();
            drop(state);
            self.give_to_host(&mut coldest);
            self.lock().without_memory.append(&mut coldest);
        }
        true
    }

    /// Returns the memory of these pages to the host. Nobody else has the pages meanwhile.
    fn give_to_host(&self, pages: &mut [u32]) {
        pages.sort_unstable();
        for run in pages.chunk_by(|page, next| page + 1 == *next) {
            let start = (self.start + run[0] as usize * PAGE) as *mut c_void;
            // SAFETY: the pages of the range are free, and are not handed out before this is over. If the
            // host does not want them, they stay as they are.
            unsafe { libc::madvise(start, run.len() * PAGE, libc::MADV_DONTNEED) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the pages of this process's kernel.
fn pages() -> Option<&'static Pages> {
    static PAGES: OnceLock<Option<Pages>> = OnceLock::new();
    PAGES.get_or_init(|| Pages::reserve(RANGE)).as_ref()
}

/// Allocates memory of this size and alignment, if that is a page.
pub fn take(len: usize, alignment: usize) -> Option<NonNull<c_void>> {
    if len == PAGE && alignment <= PAGE { pages()?.take() } else { None }
}

/// Frees what [`take`] allocated. Returns `false` if the memory is not from there.
pub fn give_back(memory: *mut c_void) -> bool {
    pages().is_some_and(|pages| pages.give_back(memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_apart_and_used_again() {
        let pages = Pages::reserve(CHUNK).unwrap();
        let all: Vec<_> = std::iter::from_fn(|| pages.take()).collect();
        assert_eq!(all.len(), CHUNK / PAGE, "at the end of the range there are no more");
        for (number, page) in all.iter().enumerate() {
            assert_eq!(page.as_ptr() as usize, pages.start + number * PAGE);
            // SAFETY: the page was allocated above.
            unsafe { page.cast::<[u8; PAGE]>().write([number as u8; PAGE]) };
        }
        for (number, page) in all.iter().enumerate() {
            // SAFETY: as above, and written.
            assert_eq!(unsafe { page.cast::<[u8; PAGE]>().read() }, [number as u8; PAGE]);
        }
        assert!(pages.give_back(all[7].as_ptr()));
        assert_eq!(pages.take(), Some(all[7]));
        assert_eq!(pages.take(), None);
    }

    /// Returns the number of pages of the range that have memory.
    fn resident(pages: &Pages) -> usize {
        let mut has = vec![0u8; pages.len / PAGE];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let error = unsafe {
            libc::mincore(pages.start as *mut c_void, pages.len, has.as_mut_ptr().cast())
        };
        assert_eq!(error, 0);
        has.iter().filter(|has| **has & 1 != 0).count()
    }

    fn touch(page: NonNull<c_void>) {
        // SAFETY: the caller has allocated the page.
        unsafe { page.cast::<[u8; PAGE]>().write([7; PAGE]) };
    }

    #[test]
    fn memory_of_a_storm_goes_back_to_the_host() {
        let pages = Pages::reserve(4 * KEPT * PAGE).unwrap();
        for _ in 0..2 {
            let mut all: Vec<_> = std::iter::from_fn(|| pages.take()).collect();
            assert_eq!(all.len(), 4 * KEPT, "free pages are used again, with memory or without");
            all.iter().copied().for_each(touch);
            assert_eq!(resident(&pages), 4 * KEPT);
            // The pages are freed in no order, as a kernel does it.
            fastrand::Rng::with_seed(1).shuffle(&mut all);
            all.iter().for_each(|page| assert!(pages.give_back(page.as_ptr())));
            assert!((KEPT..=KEPT + BATCH).contains(&resident(&pages)), "{}", resident(&pages));
        }
    }

    #[test]
    fn a_load_that_comes_and_goes_keeps_its_memory() {
        let pages = Pages::reserve(4 * KEPT * PAGE).unwrap();
        let half: Vec<_> = (0..2 * KEPT).map(|_| pages.take().unwrap()).collect();
        for _ in 0..3 {
            let other: Vec<_> = (0..2 * KEPT).map(|_| pages.take().unwrap()).collect();
            other.iter().copied().for_each(touch);
            other.iter().for_each(|page| assert!(pages.give_back(page.as_ptr())));
            assert!(pages.lock().without_memory.is_empty(), "as many are free as are in use");
        }
        drop(half);
    }

    #[test]
    fn what_is_not_from_here_is_not_taken_back() {
        let pages = Pages::reserve(CHUNK).unwrap();
        let before = (pages.start - 1) as *mut c_void;
        let behind = (pages.start + CHUNK) as *mut c_void;
        assert!(![ptr::null_mut(), before, behind].into_iter().any(|at| pages.give_back(at)));
    }

    #[test]
    fn only_a_page_is_a_page() {
        assert_eq!(take(PAGE - 1, 0), None);
        assert_eq!(take(2 * PAGE, PAGE), None);
        assert_eq!(take(PAGE, 2 * PAGE), None);
        let page = take(PAGE, PAGE).unwrap();
        assert!(give_back(page.as_ptr()));
    }
}
