//! Calls that read and set the kernel's variables.

use super::Result;
use crate::Client;
use crate::numbers::sys;

/// The most bytes of a variable read as a string.
const MAX_STRING: usize = 1024;

impl Client {
    /// Reads at most `room` bytes of a variable and, with `new`, sets it.
    pub fn sysctl(&self, name: &[i32], room: usize, new: Option<&[u8]>) -> Result<Vec<u8>> {
        let bytes: Vec<u8> = name.iter().flat_map(|node| node.to_le_bytes()).collect();
        let name_buffer = self.space().buffer_from(&bytes)?;
        let old = self.space().buffer(room)?;
        let old_len = self.space().buffer_from(&(room as u64).to_le_bytes())?;
        let new_buffer = self.space().buffer_from(new.unwrap_or_default())?;
        let (old_addr, old_len_addr) = if room > 0 { (old.addr(), old_len.addr()) } else { (0, 0) };
        let (new_addr, new_len) = new.map_or((0, 0), |new| (new_buffer.addr(), new.len() as u64));
        let len = name.len() as u64;
        let args = [name_buffer.addr(), len, old_addr, old_len_addr, new_addr, new_len];
        self.call(sys::SYSCTL, &args)?;
        Ok(old.bytes(old_len.i64_at(0) as usize))
    }

    /// Reads a string, without its NUL; bytes that are not UTF-8 are replaced.
    pub fn sysctl_string(&self, name: &[i32]) -> Result<String> {
        let mut bytes = self.sysctl(name, MAX_STRING, None)?;
        let nul = bytes.iter().position(|&byte| byte == 0);
        bytes.truncate(nul.unwrap_or(bytes.len()));
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sets a string; it is sent with its NUL.
    pub fn set_sysctl_string(&self, name: &[i32], value: &str) -> Result<()> {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.sysctl(name, 0, Some(&bytes)).map(drop)
    }

    /// Reads an int; bytes that a shorter variable lacks are 0.
    pub fn sysctl_int(&self, name: &[i32]) -> Result<i32> {
        let mut bytes = self.sysctl(name, 4, None)?;
        bytes.resize(4, 0);
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Sets an int.
    pub fn set_sysctl_int(&self, name: &[i32], value: i32) -> Result<()> {
        self.sysctl(name, 0, Some(&value.to_le_bytes())).map(drop)
    }
}
