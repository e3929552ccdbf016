//! Open files of the file system: reading, writing and other operations through a descriptor.
//!
//! Source: NetBSD `sys/kern/vfs_vnops.c`.

use std::sync::Arc;

use super::abi::{Stat, open};
use super::call::{PIECE, Result, Stop, SyscallContext};
use super::file::{FileOps, OpenFile, Seen};
use super::io::{Buffer, Transfer};
use super::ioctl;
use super::kqueue::{Watched, note};
use super::memfs::{Content, Inode};
use super::wait::Side;
use super::work;
use kernel::Errno;

/// A vnode as an open file: a file, directory or device.
pub(super) struct Vnode(pub Arc<Inode>);

impl FileOps for Vnode {
    fn read(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        position: Option<i64>,
    ) -> Result<()> {
        match self.0.device() {
            Some(device) => {
                self.0.accessed();
                device.read(run, transfer)?;
                passed(run, file, position);
                Ok(())
            }
            None => read_file(run, file, &self.0, transfer, position),
        }
    }

    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        position: Option<i64>,
    ) -> Result<()> {
        match self.0.device() {
            Some(device) => {
                self.0.written();
                device.write(run, transfer)?;
                passed(run, file, position);
                Ok(())
            }
            None => write_file(run, file, &self.0, transfer, position),
        }
    }

    fn stat(&self) -> Result<Stat> {
        Ok(self.0.stat())
    }

    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        if let Some(device) = self.0.device() {
            return device.ioctl(run, request, addr);
        }
        match request {
            ioctl::FIONREAD => {
                let left = self.0.stat().size - file.offset.get();
                run.copyout(&(left as i32).to_le_bytes(), addr)
            }
            // No bytes wait to be written, and there is no buffer with room.
            ioctl::FIONWRITE | ioctl::FIONSPACE => run.copyout(&[0; 4], addr),
            ioctl::FIONBIO | ioctl::FIOASYNC => Ok(()),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// NetBSD: `genfs_kqfilter`, which has no filter for writing; `seltrue_kqfilter`.
    fn filter(&self, file: &OpenFile, side: Side, _low_water: Option<i64>) -> Option<Seen> {
        if self.0.device().is_some() {
            return Some(Seen { ready: true, ..Seen::default() });
        }
        let data = self.0.stat().size - file.offset.get();
        (side == Side::Read).then(|| Seen { ready: data != 0, data, ..Seen::default() })
    }

    fn watched(&self) -> Option<&Watched> {
        self.0.watched()
    }

    fn inode(&self) -> Option<&Arc<Inode>> {
        Some(&self.0)
    }
}

/// Sets the offset of a device's open file behind the bytes transferred.
fn passed(run: &SyscallContext<'_, '_>, file: &OpenFile, position: Option<i64>) {
    if position.is_none() {
        file.offset.add(run.done());
    }
}

/// Reads a regular file. The first run of a long read advances the offset past all of it, so that no other
/// reader of the same open file gets any of it.
fn read_file(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    inode: &Inode,
    transfer: &Transfer,
    position: Option<i64>,
) -> Result<()> {
    let content = inode.content()?;
    let (from, total) = match (position, run.kept().and_then(|kept| kept.extent)) {
        (Some(from), _) => (from, transfer.total),
        (None, Some(extent)) => extent,
        (None, None) if transfer.total <= run.memory().room() as u64 => {
            let mut offset = file.offset.lock()?;
            let before = run.done();
            content.read(offset.get(), transfer.total, |data| transfer.copyout(run, data))?;
            offset.set(offset.get() + (run.done() - before) as i64);
            if transfer.total > 0 {
                inode.accessed();
            }
            return Ok(());
        }
        (None, None) => {
            let mut offset = file.offset.lock()?;
            let at = offset.get();
            let total = transfer.total.min(content.size().saturating_sub(at as u64));
            let extent = (at, total);
            offset.set(at + total as i64);
            drop(offset);
            run.keep().extent = Some(extent);
            extent
        }
    };
    let begun = run.done();
    while run.done() < total {
        let room = run.memory().room() as u64;
        if room == 0 {
            return Err(Stop::Flush);
        }
        let before = run.done();
        let Some(at) = from.checked_add_unsigned(before) else { break };
        match content.read(at, room.min(total - before), |data| transfer.copyout(run, data)) {
            // Return what was copied out so far.
            Err(Stop::Elsewhere) if before > begun => return Err(Stop::Flush),
            read => read?,
        }
        if run.done() == before {
            break;
        }
    }
    if total > 0 {
        inode.accessed();
    }
    Ok(())
}

/// Writes a regular file, a piece at a time. A piece is written whole or not at all. The range of a longer
/// write is reserved with its first piece: no other writer of the same open file, and no append, gets
/// between its pieces. If the client goes away before all pieces have come, the missing ones stay a hole.
fn write_file(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    inode: &Inode,
    transfer: &Transfer,
    position: Option<i64>,
) -> Result<()> {
    let content = inode.content()?;
    if run.done() == 0 {
        let from = match position {
            _ if file.has(open::APPEND) => content.size(),
            Some(from) => from as u64,
            None => file.offset.get() as u64,
        };
        run.check_file_size(from, transfer.total)?;
        content.check_room(from, transfer.total)?;
    }
    let mut grows = false;
    while run.done() < transfer.total {
        let mut buffer = Buffer::default();
        let (piece, all) = transfer.copyin_to_fault(run, PIECE as u64, &mut buffer)?;
        let count = piece.len();
        let extent = match run.kept().and_then(|kept| kept.extent) {
            Some(extent) => extent,
            None => begin_write(run, file, content, transfer.total, position, piece)?,
        };
        let written = match run.done() {
            0 => Ok(()),
            done => content.write(extent.0.saturating_add_unsigned(done), piece),
        };
        let (begin, before) = extent;
        grows = begin.saturating_add_unsigned(transfer.total) as u64 > before;
        if written == Err(work::ELSEWHERE) {
            return Err(Stop::Elsewhere);
        }
        if written.is_err() || !all {
            let done = run.done() + written.map_or(0, |()| count as u64);
            take_back(file, content, extent, done, transfer.total, position)?;
            inode.modified();
            return Err(written.err().unwrap_or(Errno::EFAULT).into());
        }
        transfer.consumed(run, PIECE as u64, count);
    }
    if transfer.total > 0 {
        inode.modified();
        if grows {
            inode.note(note::EXTEND);
        }
        inode.note(note::WRITE);
    }
    Ok(())
}

/// Writes the first piece, and keeps its place in the call's state if others follow.
fn begin_write(
    run: &mut SyscallContext<'_, '_>,
    file: &OpenFile,
    content: &Content,
    total: u64,
    position: Option<i64>,
    piece: &[u8],
) -> Result<(i64, u64), Errno> {
    let extent = first_piece(file, content, total, position, piece)?;
    if total > piece.len() as u64 {
        run.keep().extent = Some(extent);
    }
    Ok(extent)
}

/// Writes the first piece of a write of `total` bytes, at the offset of the open file or at the end, and
/// reserves room for the others behind it. Returns the begin of the write, and the old length of the file.
fn first_piece(
    file: &OpenFile,
    content: &Content,
    total: u64,
    position: Option<i64>,
    piece: &[u8],
) -> Result<(i64, u64), Errno> {
    if let (Some(from), false) = (position, file.has(open::APPEND)) {
        let before = content.size();
        content.write(from, piece)?;
        return Ok((from, before));
    }
    let mut offset = file.offset.lock()?;
    if file.has(open::APPEND) {
        let begin = content.append(piece, total)?;
        if position.is_none() {
            offset.set(begin.saturating_add_unsigned(total));
        }
        return Ok((begin, begin as u64));
    }
    let (begin, before) = (offset.get(), content.size());
    let end = begin.checked_add_unsigned(total).ok_or(Errno::EFBIG)?;
    content.write(begin, piece)?;
    offset.set(end);
    Ok((begin, before))
}

/// Undoes the rest of a write that fails after `done` bytes: truncates the file to its old length, and
/// moves the offset back, unless others have gone on from there. NetBSD: `tmpfs_write`.
fn take_back(
    file: &OpenFile,
    content: &Content,
    extent: (i64, u64),
    done: u64,
    total: u64,
    position: Option<i64>,
) -> Result<(), Errno> {
    let (begin, before) = extent;
    let (stopped, end) =
        (begin.saturating_add_unsigned(done), begin.saturating_add_unsigned(total));
    let mut offset = file.offset.lock()?;
    let own = if file.has(open::APPEND) { end } else { stopped };
    content.cut_back(own as u64, before)?;
    if position.is_none() && offset.get() == end {
        offset.set(stopped);
    }
    Ok(())
}
