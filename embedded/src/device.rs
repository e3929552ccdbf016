//! Devices: `/dev/null`, `/dev/zero`, `/dev/random` and `/dev/urandom`.
//!
//! Sources: NetBSD `sys/dev/{mm,rndpseudo}.c`,
//! `sys/rump/librump/rumpvfs/devnull.c`; null(4), zero(4), rnd(4).

use super::abi;
use super::call::{PIECE, Result, Stop, SyscallContext};
use super::io::Transfer;
use super::ioctl;
use kernel::Errno;

/// A device that a device node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Null,
    Zero,
    Random,
    Urandom,
}

static ZEROS: [u8; PIECE] = [0; PIECE];

/// Returns `len` zero bytes, at most a piece of them.
pub(super) fn zeros(len: usize) -> &'static [u8] {
    &ZEROS[..len.min(PIECE)]
}

impl Device {
    /// Every device, with its name in `/dev`.
    pub const ALL: [(&'static str, Device); 4] = [
        ("null", Device::Null),
        ("zero", Device::Zero),
        ("random", Device::Random),
        ("urandom", Device::Urandom),
    ];

    /// Returns the device number (`st_rdev`).
    pub fn number(self) -> u64 {
        match self {
            Device::Null => abi::device(2, 2),
            Device::Zero => abi::device(2, 12),
            Device::Random => abi::device(46, 0),
            Device::Urandom => abi::device(46, 1),
        }
    }

    /// Returns the character device with this number, if there is one.
    pub fn by_number(number: u64) -> Option<Device> {
        Device::ALL.into_iter().map(|(_, device)| device).find(|it| it.number() == number)
    }

    /// Fills the client's buffer, or returns end of file at once (`/dev/null`).
    pub fn read(self, run: &mut SyscallContext<'_, '_>, transfer: &Transfer) -> Result<()> {
        let mut bytes = match self {
            Device::Null => return Ok(()),
            Device::Zero => Vec::new(),
            Device::Random | Device::Urandom => vec![0; PIECE.min(transfer.total as usize)],
        };
        while run.done() < transfer.total {
            let room = run.memory().room().min(PIECE);
            if room == 0 {
                return Err(Stop::Flush);
            }
            let count = (transfer.total - run.done()).min(room as u64) as usize;
            if self == Device::Zero {
                transfer.copyout(run, zeros(count))?;
            } else {
                getrandom::fill(&mut bytes[..count]).map_err(|_| Errno::EIO)?;
                transfer.copyout(run, &bytes[..count])?;
            }
        }
        Ok(())
    }

    /// Answers an ioctl without waiting; the devices have no requests of their own. NetBSD: `mm_ioctl`,
    /// `rnd_ioctl`.
    pub fn ioctl(self, run: &mut SyscallContext<'_, '_>, request: u32, addr: u64) -> Result<()> {
        let is_memory = matches!(self, Device::Null | Device::Zero);
        match request {
            ioctl::FIONBIO => Ok(()),
            ioctl::FIOASYNC if !is_memory || run.copyin(addr)? == [0; 4] => Ok(()),
            ioctl::TIOCGETA => Err(Errno::ENOTTY.into()),
            _ if is_memory => Err(Errno::EOPNOTSUPP.into()),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// Takes everything and keeps nothing: the client is not even asked for the bytes.
    pub fn write(self, run: &mut SyscallContext<'_, '_>, transfer: &Transfer) -> Result<()> {
        run.call.progress.done = transfer.total;
        Ok(())
    }
}
