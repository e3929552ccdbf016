//! Memory for the kernel's pages: `rumpuser_malloc` and `rumpuser_free`.
//!
//! Nearly all that the kernel allocates is one page at a page's boundary, by the thousand. librumpuser
//! has the C library do it, which takes two pages for each and leaves holes that no other page fits in,
//! so that a server under a mixed load grows for hours. Here such pages come out of one reserved range
//! of addresses, and a page that was freed is the next to be had. Whatever else is asked for, and all
//! that does not fit, is librumpuser's affair.
//!
//! Source: NetBSD `lib/librumpuser/rumpuser_mem.c`, rumpuser(3).

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a page of the kernel, whatever those of the host.
pub const PAGE: usize = 4096;

/// Addresses that are reserved. They cost nothing until they are used.
const RANGE: usize = 1 << 36;

/// Bytes of them made usable at once.
const CHUNK: usize = 1 << 20;

/// A range of addresses, and which of its pages are free.
struct Pages {
    /// The first address, on a page's boundary; the range is never given back.
    start: usize,
    len: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes from the start that can be used, and that have been handed out before.
    usable: usize,
    used: usize,
    /// Pages that were freed, by their number.
    free: Vec<u32>,
}

impl Pages {
    /// Reserves `len` bytes of addresses, a multiple of [`CHUNK`]. `None` if the host has none.
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

    /// A page. `None` if all are taken, or the host has no memory.
    fn take(&self) -> Option<NonNull<c_void>> {
        let mut state = self.lock();
        let offset = match state.free.pop() {
            Some(number) => number as usize * PAGE,
            None => {
                self.make_usable(&mut state)?;
                state.used += PAGE;
                state.used - PAGE
            }
        };
        NonNull::new((self.start + offset) as *mut c_void)
    }

    /// Sees to it that there is a page that was never handed out.
    fn make_usable(&self, state: &mut State) -> Option<()> {
        if state.used < state.usable {
            return Some(());
        }
        if state.usable == self.len {
            return None;
        }
        let chunk = (self.start + state.usable) as *mut c_void;
        // SAFETY: inside the range, which is this type's alone, and where nothing was handed out.
        let error = unsafe { libc::mprotect(chunk, CHUNK, libc::PROT_READ | libc::PROT_WRITE) };
        if error != 0 {
            return None;
        }
        state.usable += CHUNK;
        Some(())
    }

    /// Takes a page back. `false` if this address is none of these pages'.
    fn give_back(&self, page: *mut c_void) -> bool {
        let Some(offset) = (page as usize).checked_sub(self.start).filter(|at| *at < self.len)
        else {
            return false;
        };
        let number = u32::try_from(offset / PAGE).expect("the range has fewer pages");
        self.lock().free.push(number);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages of this process's kernel.
fn pages() -> Option<&'static Pages> {
    static PAGES: OnceLock<Option<Pages>> = OnceLock::new();
    PAGES.get_or_init(|| Pages::reserve(RANGE)).as_ref()
}

/// Memory of this size and alignment, if it is a page.
pub fn take(len: usize, alignment: usize) -> Option<NonNull<c_void>> {
    if len == PAGE && alignment <= PAGE { pages()?.take() } else { None }
}

/// Takes back what [`take`] gave. `false` if it was not from there.
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
            // SAFETY: a page of ours.
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
