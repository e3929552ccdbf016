//! Calls on files, directories, descriptors and pipes.

use super::{PAD, Result, int};
use crate::numbers::sys;
use crate::{Buffer, Client};

/// Bytes of `struct stat`.
const STAT_LEN: usize = 152;

/// The fields that stat(2) returns.
///
/// Source: NetBSD `sys/sys/stat.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub mode: u32,
    pub ino: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: i64,
    pub blocks: i64,
    pub blksize: i32,
}

impl Stat {
    fn read(buffer: &Buffer<'_>) -> Stat {
        Stat {
            dev: buffer.i64_at(0) as u64,
            mode: buffer.i32_at(8) as u32,
            ino: buffer.i64_at(16) as u64,
            nlink: buffer.i32_at(24) as u32,
            uid: buffer.i32_at(28) as u32,
            gid: buffer.i32_at(32) as u32,
            size: buffer.i64_at(112),
            blocks: buffer.i64_at(120),
            blksize: buffer.i32_at(128),
        }
    }

    /// Returns `true` for a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Returns `true` for a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

impl Client {
    /// Opens a file; `mode` is used if the call creates the file.
    pub fn open(&self, path: &str, flags: i32, mode: u32) -> Result<i32> {
        let path = self.space().buffer_str(path)?;
        Ok(self.call(sys::OPEN, &[path.addr(), int(flags), mode.into()])?[0] as i32)
    }

    /// Closes a descriptor.
    pub fn close(&self, fd: i32) -> Result<()> {
        self.call(sys::CLOSE, &[int(fd)]).map(drop)
    }

    /// Reads at most `len` bytes.
    pub fn read(&self, fd: i32, len: usize) -> Result<Vec<u8>> {
        let buffer = self.space().buffer(len)?;
        let [read, _] = self.call(sys::READ, &[int(fd), buffer.addr(), len as u64])?;
        Ok(buffer.bytes(read as usize))
    }

    /// Writes bytes and returns the number of bytes taken.
    pub fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize> {
        let buffer = self.space().buffer_from(bytes)?;
        let args = [int(fd), buffer.addr(), bytes.len() as u64];
        Ok(self.call(sys::WRITE, &args)?[0] as usize)
    }

    /// Reads at most `len` bytes at an offset of the file.
    pub fn pread(&self, fd: i32, len: usize, offset: i64) -> Result<Vec<u8>> {
        let buffer = self.space().buffer(len)?;
        let args = [int(fd), buffer.addr(), len as u64, PAD, offset as u64];
        let [read, _] = self.call(sys::PREAD, &args)?;
        Ok(buffer.bytes(read as usize))
    }

    /// Writes bytes at an offset of the file and returns the number of bytes taken.
    pub fn pwrite(&self, fd: i32, bytes: &[u8], offset: i64) -> Result<usize> {
        let buffer = self.space().buffer_from(bytes)?;
        let args = [int(fd), buffer.addr(), bytes.len() as u64, PAD, offset as u64];
        Ok(self.call(sys::PWRITE, &args)?[0] as usize)
    }

    /// Reads into pieces of these lengths, and returns the bytes of each piece.
    pub fn readv(&self, fd: i32, lens: &[usize]) -> Result<Vec<Vec<u8>>> {
        let buffers: std::result::Result<Vec<_>, _> =
            lens.iter().map(|&len| self.space().buffer(len)).collect();
        let buffers = buffers?;
        let mut left = self.vectored(sys::READV, fd, &buffers)?;
        let pieces = buffers.iter().map(|buffer| {
            let piece = buffer.bytes(left);
            left -= piece.len();
            piece
        });
        Ok(pieces.collect())
    }

    /// Writes these pieces and returns the number of bytes taken.
    pub fn writev(&self, fd: i32, pieces: &[&[u8]]) -> Result<usize> {
        let buffers: std::result::Result<Vec<_>, _> =
            pieces.iter().map(|piece| self.space().buffer_from(piece)).collect();
        self.vectored(sys::WRITEV, fd, &buffers?)
    }

    /// Makes a call with an array of `struct iovec`: address and length.
    fn vectored(&self, number: i32, fd: i32, buffers: &[Buffer<'_>]) -> Result<usize> {
        let words = buffers.iter().flat_map(|buffer| [buffer.addr(), buffer.len() as u64]);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let iovecs = self.space().buffer_from(&bytes)?;
        let args = [int(fd), iovecs.addr(), buffers.len() as u64];
        Ok(self.call(number, &args)?[0] as usize)
    }

    /// Moves the offset and returns the new one.
    pub fn lseek(&self, fd: i32, offset: i64, whence: i32) -> Result<i64> {
        Ok(self.call(sys::LSEEK, &[int(fd), PAD, offset as u64, int(whence)])?[0])
    }

    /// Cuts or extends a file.
    pub fn ftruncate(&self, fd: i32, len: i64) -> Result<()> {
        self.call(sys::FTRUNCATE, &[int(fd), PAD, len as u64]).map(drop)
    }

    /// Makes a second descriptor of the same open file.
    pub fn dup(&self, fd: i32) -> Result<i32> {
        Ok(self.call(sys::DUP, &[int(fd)])?[0] as i32)
    }

    /// Makes a second descriptor of the same open file, with this number.
    pub fn dup2(&self, from: i32, to: i32) -> Result<i32> {
        Ok(self.call(sys::DUP2, &[int(from), int(to)])?[0] as i32)
    }

    /// Reads or changes a descriptor; `arg` is a number, for the commands that take one.
    pub fn fcntl(&self, fd: i32, command: i32, arg: i32) -> Result<i32> {
        Ok(self.call(sys::FCNTL, &[int(fd), int(command), int(arg)])?[0] as i32)
    }

    /// Makes a pipe; returns the end to read from and the end to write to.
    pub fn pipe(&self) -> Result<[i32; 2]> {
        Ok(self.call(sys::PIPE, &[])?.map(|fd| fd as i32))
    }

    /// Makes a pipe with flags, such as `O_CLOEXEC` or `O_NONBLOCK`.
    pub fn pipe2(&self, flags: i32) -> Result<[i32; 2]> {
        let fds = self.space().buffer(8)?;
        self.call(sys::PIPE2, &[fds.addr(), int(flags)])?;
        Ok([fds.i32_at(0), fds.i32_at(4)])
    }

    /// Makes a directory.
    pub fn mkdir(&self, path: &str, mode: u32) -> Result<()> {
        let path = self.space().buffer_str(path)?;
        self.call(sys::MKDIR, &[path.addr(), mode.into()]).map(drop)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: &str) -> Result<()> {
        let path = self.space().buffer_str(path)?;
        self.call(sys::RMDIR, &[path.addr()]).map(drop)
    }

    /// Removes a file's name.
    pub fn unlink(&self, path: &str) -> Result<()> {
        let path = self.space().buffer_str(path)?;
        self.call(sys::UNLINK, &[path.addr()]).map(drop)
    }

    /// Returns the attributes of a file.
    pub fn stat(&self, path: &str) -> Result<Stat> {
        self.stat_path(sys::STAT, path)
    }

    /// Returns the attributes of a file, or of the symbolic link itself.
    pub fn lstat(&self, path: &str) -> Result<Stat> {
        self.stat_path(sys::LSTAT, path)
    }

    fn stat_path(&self, number: i32, path: &str) -> Result<Stat> {
        let path = self.space().buffer_str(path)?;
        let stat = self.space().buffer(STAT_LEN)?;
        self.call(number, &[path.addr(), stat.addr()])?;
        Ok(Stat::read(&stat))
    }

    /// Returns the attributes of an open file.
    pub fn fstat(&self, fd: i32) -> Result<Stat> {
        let stat = self.space().buffer(STAT_LEN)?;
        self.call(sys::FSTAT, &[int(fd), stat.addr()])?;
        Ok(Stat::read(&stat))
    }
}
