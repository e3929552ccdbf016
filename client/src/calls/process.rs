//! Calls about the process: ids, signals, memory, and the end of the kernel.

use super::{PAD, Result, int};
use crate::Client;
use crate::numbers::{MAP_ANON, MAP_PRIVATE, PROT_READ, PROT_WRITE, RB_HALT, sys};

impl Client {
    fn get_id(&self, number: i32) -> Result<i32> {
        Ok(self.call(number, &[])?[0] as i32)
    }

    /// Returns the process id.
    pub fn getpid(&self) -> Result<i32> {
        self.get_id(sys::GETPID)
    }

    /// Returns the parent's process id.
    pub fn getppid(&self) -> Result<i32> {
        self.get_id(sys::GETPPID)
    }

    /// Returns the real user id.
    pub fn getuid(&self) -> Result<u32> {
        Ok(self.get_id(sys::GETUID)? as u32)
    }

    /// Returns the effective user id.
    pub fn geteuid(&self) -> Result<u32> {
        Ok(self.get_id(sys::GETEUID)? as u32)
    }

    /// Returns the real group id.
    pub fn getgid(&self) -> Result<u32> {
        Ok(self.get_id(sys::GETGID)? as u32)
    }

    /// Returns the effective group id.
    pub fn getegid(&self) -> Result<u32> {
        Ok(self.get_id(sys::GETEGID)? as u32)
    }

    /// Sends a signal to a process. A signal to the client's own process comes back to its handler.
    pub fn kill(&self, pid: i32, signo: i32) -> Result<()> {
        self.call(sys::KILL, &[int(pid), int(signo)]).map(drop)
    }

    /// Maps `len` bytes of anonymous memory and returns their address in the client's memory.
    pub fn mmap_anon(&self, len: u64) -> Result<u64> {
        let (prot, flags) = (PROT_READ | PROT_WRITE, MAP_ANON | MAP_PRIVATE);
        let args = [0, len, int(prot), int(flags), int(-1), PAD, 0];
        Ok(self.call(sys::MMAP, &args)?[0] as u64)
    }

    /// Reboots or, with [`RB_HALT`], halts the kernel; both end the server.
    pub fn reboot(&self, flags: i32) -> Result<()> {
        self.call(sys::REBOOT, &[int(flags), 0]).map(drop)
    }

    /// Halts the kernel, which ends the server.
    pub fn halt(&self) -> Result<()> {
        self.reboot(RB_HALT)
    }
}
