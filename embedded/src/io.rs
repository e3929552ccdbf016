//! Reading and writing: the client's buffers of a transfer, the pieces of long transfers, and the read and
//! write calls on every kind of file.
//!
//! Sources: NetBSD `sys/kern/{sys_generic,vfs_syscalls}.c`; read(2), write(2).

use std::sync::Arc;

use super::abi::{IOV_MAX, open, signal, u64_at};
use super::call::{Answer, PIECE, Result, Stop, SyscallContext};
use super::file::OpenFile;
use super::listed::{Listed, Runs, call};
use super::work;
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::READ, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), |run| {
        transfer(run, Way::Read, false, false)
    }),
    call(sys::WRITE, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), |run| {
        transfer(run, Way::Write, false, false)
    }),
    call(sys::READV, Runs::InlineIf(|args| args[2] as u32 <= INLINE_SEGMENTS), |run| {
        transfer(run, Way::Read, true, false)
    }),
    call(sys::WRITEV, Runs::InlineIf(|args| args[2] as u32 <= INLINE_SEGMENTS), |run| {
        transfer(run, Way::Write, true, false)
    }),
    call(sys::PREAD, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), |run| {
        transfer(run, Way::Read, false, true)
    }),
    call(sys::PWRITE, Runs::InlineIf(|args| args[2] <= INLINE_BYTES), |run| {
        transfer(run, Way::Write, false, true)
    }),
    call(sys::PREADV, Runs::InlineIf(|args| args[2] as u32 <= INLINE_SEGMENTS), |run| {
        transfer(run, Way::Read, true, true)
    }),
    call(sys::PWRITEV, Runs::InlineIf(|args| args[2] as u32 <= INLINE_SEGMENTS), |run| {
        transfer(run, Way::Write, true, true)
    }),
];

/// The most bytes, and buffers, that an inline run moves.
pub(super) const INLINE_BYTES: u64 = 256 * 1024;
const INLINE_SEGMENTS: u32 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

/// The client's side of a transfer: one buffer, or several in sequence.
pub(super) struct Transfer {
    place: Place,
    /// The number of bytes in all.
    pub total: u64,
}

enum Place {
    One(u64),
    Many(Arc<[(u64, u64)]>),
}

/// Room for the bytes of a piece; small pieces need no heap.
pub(super) struct Buffer {
    few: [u8; 1024],
    many: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer { few: [0; 1024], many: Vec::new() }
    }
}

impl Buffer {
    fn get(&mut self, len: usize) -> &mut [u8] {
        if len > self.few.len() {
            self.many.resize(len, 0);
            return &mut self.many;
        }
        &mut self.few[..len]
    }
}

impl Transfer {
    /// Returns a transfer of one buffer.
    pub fn one(addr: u64, total: u64) -> Transfer {
        Transfer { place: Place::One(addr), total }
    }

    /// Returns a transfer of several buffers, given their addresses and lengths, and the total length.
    pub fn many(segments: Arc<[(u64, u64)]>, total: u64) -> Transfer {
        Transfer { place: Place::Many(segments), total }
    }

    /// Copies in all of the transfer, whatever is done already: for messages that go whole or not at all.
    pub fn all(&self, run: &mut SyscallContext<'_, '_>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.total).map_err(|_| Errno::EMSGSIZE)?];
        let mut filled = 0;
        while filled < bytes.len() {
            let len = (bytes.len() - filled).min(PIECE);
            self.parts(filled as u64, len as u64, |addr, part| {
                run.memory().copyin(addr, &mut bytes[filled..filled + part])?;
                filled += part;
                Ok(())
            })?;
        }
        Ok(bytes)
    }

    /// Runs `each` on the parts of the client's memory that hold `len` bytes of the transfer, from byte
    /// `from`.
    fn parts(
        &self,
        mut from: u64,
        mut len: u64,
        mut each: impl FnMut(u64, usize) -> Result<()>,
    ) -> Result<()> {
        let one;
        let segments = match &self.place {
            Place::One(addr) => {
                one = [(*addr, self.total)];
                &one[..]
            }
            Place::Many(segments) => segments,
        };
        for &(addr, size) in segments {
            if from >= size {
                from -= size;
                continue;
            }
            let part = (size - from).min(len);
            if part == 0 {
                break;
            }
            each(addr.wrapping_add(from), part as usize)?;
            from = 0;
            len -= part;
        }
        Ok(())
    }

    /// Copies out the next bytes and counts them as done.
    pub fn copyout(&self, run: &mut SyscallContext<'_, '_>, data: &[u8]) -> Result<()> {
        let mut rest = data;
        self.parts(run.done(), data.len() as u64, |addr, len| {
            let (part, after) = rest.split_at(len);
            rest = after;
            run.copyout(part, addr)
        })?;
        run.advance(data.len());
        Ok(())
    }

    /// Copies in the rest of the current piece. Pieces begin at multiples of `size`, so that every run asks
    /// for the same bytes however many of them were used.
    pub fn copyin<'b>(
        &self,
        run: &mut SyscallContext<'_, '_>,
        size: u64,
        buffer: &'b mut Buffer,
    ) -> Result<&'b [u8]> {
        let (bytes, end) = self.copyin_to_fault(run, size, buffer)?;
        if end { Ok(bytes) } else { Err(Errno::EFAULT.into()) }
    }

    /// Copies in the rest of the current piece, up to a bad address. The second value is `false` if a bad
    /// address cut the piece short.
    pub fn copyin_to_fault<'b>(
        &self,
        run: &mut SyscallContext<'_, '_>,
        size: u64,
        buffer: &'b mut Buffer,
    ) -> Result<(&'b [u8], bool)> {
        let begin = run.done() / size * size;
        let len = size.min(self.total - begin) as usize;
        let used = (run.done() - begin) as usize;
        let bytes = buffer.get(len);
        let mut filled = 0;
        let copied = self.parts(begin, len as u64, |addr, part| {
            run.memory().copyin(addr, &mut bytes[filled..filled + part])?;
            filled += part;
            Ok(())
        });
        match copied {
            Ok(()) => Ok((&bytes[used..], true)),
            Err(Stop::Errno(_)) => Ok((&bytes[used.min(filled)..filled], false)),
            Err(stop) => Err(stop),
        }
    }

    /// Counts bytes of the current piece as done, and forgets the piece at its end.
    pub fn consumed(&self, run: &mut SyscallContext<'_, '_>, size: u64, count: usize) {
        run.advance(count);
        if run.done().is_multiple_of(size) && run.done() < self.total {
            run.memory().forget();
        }
    }
}

/// Runs every call of this file: with one buffer or several, at the file's offset or at a given position.
fn transfer(run: &mut SyscallContext<'_, '_>, way: Way, vector: bool, positioned: bool) -> Answer {
    if vector && run.int(2) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = run.file(run.int(0))?;
    file.check(if way == Way::Read { open::FREAD } else { open::FWRITE })?;
    if let Some(over) = other_file(run, &file) {
        return over;
    }
    let position = if positioned { Some(position(run, &file)?) } else { None };
    let transfer = if vector { several(run)? } else { single(run)? };
    let moved = match way {
        Way::Read => file.ops.read(run, &file, &transfer, position),
        Way::Write => file.ops.write(run, &file, &transfer, position),
    };
    finish(run, &file, moved)
}

/// Returns the answer of a call whose descriptor means another open file than in an earlier run; `None` if
/// it is the same file.
pub(super) fn other_file(run: &SyscallContext<'_, '_>, file: &Arc<OpenFile>) -> Option<Answer> {
    let earlier = run.kept()?.file.as_ref()?;
    if earlier.as_ptr() == Arc::as_ptr(file) {
        return None;
    }
    Some(match run.done() {
        0 => Err(Errno::EBADF.into()),
        done => Ok([done as i64, 0]),
    })
}

/// Returns the offset of `pread` and `pwrite`, which have a slot of padding before it.
fn position(run: &SyscallContext<'_, '_>, file: &OpenFile) -> Result<i64> {
    let inode = file.ops.inode().filter(|inode| !inode.is_fifo()).ok_or(Errno::ESPIPE)?;
    let at = run.offset(4);
    if at < 0 && !inode.is_node() { Err(Errno::EINVAL.into()) } else { Ok(at) }
}

/// Returns a transfer of one buffer: `buf` and `nbyte` are arguments 1 and 2.
fn single(run: &SyscallContext<'_, '_>) -> Result<Transfer> {
    let (addr, total) = (run.word(1), run.word(2));
    if total > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    Ok(Transfer { place: Place::One(addr), total })
}

/// Returns a transfer of several buffers: `iovp` and `iovcnt` are arguments 1 and 2.
fn several(run: &mut SyscallContext<'_, '_>) -> Result<Transfer> {
    if let Some(segments) = run.kept().and_then(|kept| kept.segments.clone()) {
        let total = segments.iter().map(|segment| segment.1).sum();
        return Ok(Transfer { place: Place::Many(segments), total });
    }
    let (addr, count) = (run.word(1), run.uint(2));
    if count > IOV_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; count as usize * 16];
    run.memory().copyin(addr, &mut bytes)?;
    let mut total = 0u64;
    let mut segments = Vec::with_capacity(count as usize);
    for iovec in bytes.chunks_exact(16) {
        let (base, len) = (u64_at(iovec, 0), u64_at(iovec, 8));
        total =
            total.checked_add(len).filter(|&sum| sum <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        segments.push((base, len));
    }
    if total > INLINE_BYTES {
        work::elsewhere()?;
    }
    let segments: Arc<[(u64, u64)]> = segments.into();
    run.keep_segments(&segments)?;
    Ok(Transfer { place: Place::Many(segments), total })
}

/// Returns the answer of a transfer: a partial count if bytes were moved before it had to wait; a broken
/// pipe raises SIGPIPE. NetBSD: `dofileread`, `dofilewrite`.
fn finish(run: &mut SyscallContext<'_, '_>, file: &Arc<OpenFile>, moved: Result<()>) -> Answer {
    let done = run.done() as i64;
    match moved {
        Ok(()) => Ok([done, 0]),
        Err(Stop::Errno(Errno::EAGAIN | Errno::EINTR)) if done > 0 => Ok([done, 0]),
        Err(Stop::Sleep(_) | Stop::Flush) if run.call.interrupted && done > 0 => Ok([done, 0]),
        Err(Stop::Errno(Errno::EPIPE)) => {
            if !file.has(open::NOSIGPIPE) {
                run.proc.raise(signal::PIPE);
            }
            Err(Errno::EPIPE.into())
        }
        Err(stop @ (Stop::Sleep(_) | Stop::Flush)) => {
            run.keep().file = Some(Arc::downgrade(file));
            Err(stop)
        }
        Err(stop @ Stop::Asked) => {
            if done > 0 {
                run.keep().file = Some(Arc::downgrade(file));
            }
            Err(stop)
        }
        Err(stop) => Err(stop),
    }
}
