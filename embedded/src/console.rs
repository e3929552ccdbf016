//! The console of the server: what clients write to it is handed to the embedder.
//!
//! Source: NetBSD `sys/rump/librump/rumpkern/cons.c`.

use super::abi::{Stat, mode, poll};
use super::call::{PIECE, Result, SyscallContext};
use super::file::{FileOps, OpenFile};
use super::io::{Buffer, Transfer};
use super::ioctl;
use super::time;
use super::wait::Side;
use kernel::Errno;

/// The console, as descriptors 0, 1 and 2 of a new client.
pub(super) struct Console;

/// The size of `struct termios`.
const TERMIOS_SIZE: usize = 44;

impl FileOps for Console {
    /// Always returns end of file.
    fn read(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        Ok(())
    }

    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        while run.done() < transfer.total {
            let mut buffer = Buffer::default();
            let piece = transfer.copyin(run, PIECE as u64, &mut buffer)?;
            run.system().print(piece);
            let count = piece.len();
            transfer.consumed(run, PIECE as u64, count);
        }
        Ok(())
    }

    fn stat(&self) -> Result<Stat> {
        let born = time::now();
        Ok(Stat {
            mode: mode::CHARACTER | 0o600,
            accessed: born,
            modified: born,
            changed: born,
            born,
            ..Stat::default()
        })
    }

    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        match request {
            // The console looks like a terminal just far enough for isatty(3).
            ioctl::TIOCGETA => run.copyout(&[0; TERMIOS_SIZE], addr),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn poll(&self, _file: &OpenFile) -> u32 {
        poll::OUT
    }

    fn check_filter(&self, _side: Option<Side>) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn signals(&self) -> bool {
        false
    }
}
