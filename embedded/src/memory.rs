//! The client's memory: mapping some for it. The client's address space is on its host, so all this kernel
//! can do is ask the client to map anonymous memory.
//!
//! A rump kernel offers no mmap to its clients (`rump_sys_mmap` does not exist); this module follows
//! NetBSD's `sys/uvm/uvm_mmap.c`; mmap(2).

use super::call::{Answer, SyscallContext};
use super::listed::{Listed, Runs, partly};
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[partly(
    sys::MMAP,
    Runs::Inline,
    mmap,
    "anonymous private memory at an address of the client's choice only",
)];

const SHARED: u32 = 0x1;
const PRIVATE: u32 = 0x2;
const FIXED: u32 = 0x10;
const ANONYMOUS: u32 = 0x1000;
/// `PROT_READ | PROT_WRITE | PROT_EXEC`
const PROTECTIONS: u32 = 0x7;
/// The most memory that is asked of a client at once.
const MOST: u64 = 1 << 40;

/// `void *mmap(void *addr, size_t len, int prot, int flags, int fd, long PAD, off_t pos)`
fn mmap(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (len, prot, flags, fd) = (run.word(1), run.uint(2), run.uint(3), run.int(4));
    if prot & !PROTECTIONS != 0 || flags & (SHARED | PRIVATE) == SHARED | PRIVATE {
        return Err(Errno::EINVAL.into());
    }
    if flags & ANONYMOUS == 0 {
        run.file(fd)?;
        return Err(Errno::ENODEV.into());
    }
    if fd != -1 || len == 0 || flags & FIXED != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len > MOST {
        return Err(Errno::ENOMEM.into());
    }
    let addr = run.memory().anonmmap(len.next_multiple_of(4096))?;
    if addr == 0 {
        return Err(Errno::ENOMEM.into());
    }
    Ok([addr as i64, 0])
}
