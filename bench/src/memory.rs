//! The memory of a server's process: its resident part, and the anonymous part of that.

use std::{fs, io};

/// Returns the KiB of user memory that a process has resident, shared libraries included. Memory that
/// the kernel keeps for its sockets is not included.
///
/// Source: proc(5), `/proc/PID/smaps_rollup`. `statm` is cheaper, but only nearly right.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    rolled_up(pid, ["Rss:"]).map(|[resident]| resident)
}

/// Returns the resident KiB, and the part of them that is anonymous: that belongs to no file.
pub fn resident_and_anonymous_kib(pid: u32) -> io::Result<[u64; 2]> {
    rolled_up(pid, ["Rss:", "Anonymous:"])
}

fn rolled_up<const N: usize>(pid: u32, names: [&str; N]) -> io::Result<[u64; N]> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let numbers: Option<Vec<u64>> = names.iter().map(|name| kib(&rollup, name)).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| io::Error::other("/proc/PID/smaps_rollup is not as expected"))
}

fn kib(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_part_is_read() {
        let rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:     884 kB\nPss: 113 kB\n";
        assert_eq!(kib(rollup, "Rss:"), Some(884));
        assert_eq!(kib("Pss: 113 kB\n", "Rss:"), None);
        assert_eq!(kib("Rss: many kB\n", "Rss:"), None);
    }

    #[test]
    fn memory_that_was_written_to_is_resident() {
        let before = resident_kib(std::process::id()).unwrap();
        let bytes = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = resident_kib(std::process::id()).unwrap();
        assert!(after > before + (48 << 10), "{before} and then {after} KiB");
        drop(bytes);
    }
}
