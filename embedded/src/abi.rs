//! NetBSD/amd64 as clients see it: flag values and the layouts of structures, little-endian and naturally
//! aligned. The readers take arrays of the structure's length, so none can read past the end.
//!
//! Sources: NetBSD `sys/sys/{fcntl,stat,signal,reboot,time,syslimits,types}.h`.

/// `fcntl.h`: open flags, and the flags kept of an open file.
pub(super) mod open {
    /// The file may be read. `O_RDONLY` becomes this flag once the file is open.
    pub const FREAD: u32 = 0x1;
    /// The file may be written.
    pub const FWRITE: u32 = 0x2;
    pub const NONBLOCK: u32 = 0x4;
    pub const APPEND: u32 = 0x8;
    pub const SHLOCK: u32 = 0x10;
    pub const EXLOCK: u32 = 0x20;
    pub const ASYNC: u32 = 0x40;
    pub const SYNC: u32 = 0x80;
    pub const NOFOLLOW: u32 = 0x100;
    pub const CREAT: u32 = 0x200;
    pub const TRUNC: u32 = 0x400;
    pub const EXCL: u32 = 0x800;
    /// An open file has, or had, a lock of its own (`FHASLOCK`).
    pub const HASLOCK: u32 = 0x4000;
    pub const DSYNC: u32 = 0x1_0000;
    pub const RSYNC: u32 = 0x2_0000;
    pub const ALT_IO: u32 = 0x4_0000;
    pub const DIRECT: u32 = 0x8_0000;
    pub const DIRECTORY: u32 = 0x20_0000;
    pub const CLOEXEC: u32 = 0x40_0000;
    pub const SEARCH: u32 = 0x80_0000;
    pub const NOSIGPIPE: u32 = 0x100_0000;

    /// The flags `F_SETFL` can change (`FCNTLFLAGS`).
    pub const SETTABLE: u32 =
        APPEND | ASYNC | SYNC | NONBLOCK | DSYNC | RSYNC | ALT_IO | DIRECT | NOSIGPIPE;
    /// The open flags that an open file keeps (`FMASK`).
    pub const KEPT: u32 = FREAD | FWRITE | SETTABLE;
}

/// `fcntl.h`: commands of `fcntl(2)`.
pub(super) mod fcntl {
    pub const DUPFD: i32 = 0;
    pub const GETFD: i32 = 1;
    pub const SETFD: i32 = 2;
    pub const GETFL: i32 = 3;
    pub const SETFL: i32 = 4;
    pub const GETOWN: i32 = 5;
    pub const SETOWN: i32 = 6;
    pub const GETLK: i32 = 7;
    pub const SETLK: i32 = 8;
    pub const SETLKW: i32 = 9;
    pub const CLOSEM: i32 = 10;
    pub const MAXFD: i32 = 11;
    pub const DUPFD_CLOEXEC: i32 = 12;
    pub const GETNOSIGPIPE: i32 = 13;
    pub const SETNOSIGPIPE: i32 = 14;
    /// A command for the file system, with a bit that says it takes a parameter and the parameter's length
    /// (`F_FSCTL`, `F_FSIN`, `F_PARAM_LEN`).
    pub const FOR_FILE_SYSTEM: i32 = i32::MIN;
    pub const IN: i32 = 0x1000_0000;
    pub const LENGTH: i32 = 0xfff;
    /// The flag of `F_GETFD` and `F_SETFD`.
    pub const CLOEXEC: u64 = 1;
}

/// `stat.h`: types in `st_mode`.
pub(super) mod mode {
    pub const FIFO: u32 = 0o010_000;
    pub const CHARACTER: u32 = 0o020_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const BLOCK: u32 = 0o060_000;
    pub const REGULAR: u32 = 0o100_000;
    pub const LINK: u32 = 0o120_000;
    pub const SOCKET: u32 = 0o140_000;
    pub const WHITEOUT: u32 = 0o160_000;
    /// All bits of a type (`S_IFMT`).
    pub const TYPE: u32 = 0o170_000;
    /// Every permission bit (`ALLPERMS`).
    pub const PERMISSIONS: u32 = 0o7777;
    pub const SET_UID: u32 = 0o4000;
    pub const SET_GID: u32 = 0o2000;
    /// The sticky bit (`S_ISTXT`).
    pub const STICKY: u32 = 0o1000;
    /// The access bits: of one class in a mode, and in the argument of `access(2)`.
    pub const READ: u32 = 4;
    pub const WRITE: u32 = 2;
    pub const EXECUTE: u32 = 1;
}

/// `poll.h`: events of `poll(2)`. Writable is the same as normal data being writable.
pub(super) mod poll {
    pub const IN: u32 = 0x1;
    pub const PRI: u32 = 0x2;
    pub const OUT: u32 = 0x4;
    pub const ERR: u32 = 0x8;
    pub const HUP: u32 = 0x10;
    /// The descriptor is not open. `poll` returns this event; a client need not ask for it.
    pub const NVAL: u32 = 0x20;
    pub const RDNORM: u32 = 0x40;
    pub const RDBAND: u32 = 0x80;
    pub const WRBAND: u32 = 0x100;
}

/// `signal.h`
pub(super) mod signal {
    pub const PIPE: i32 = 13;
    pub const CONT: i32 = 19;
    pub const XFSZ: i32 = 25;
    /// One past the last signal.
    pub const LIMIT: u32 = 64;
}

/// The most `iovec`s a call takes (`IOV_MAX`).
pub(super) const IOV_MAX: u32 = 1024;

/// Writes to a pipe up to this size are in one piece (`PIPE_BUF`).
pub(super) const PIPE_BUF: usize = 512;

/// Returns the device number with these parts (`makedev`).
pub(super) const fn device(major: u64, minor: u64) -> u64 {
    (major << 8 & 0x000f_ff00) | (minor << 12 & 0xfff0_0000) | (minor & 0xff)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = from.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

/// Returns the `int64_t` at offset `at`, 0 past the end.
pub(super) fn i64_at(from: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes(from, at))
}

/// Returns the `uint64_t` at offset `at`, 0 past the end.
pub(super) fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// Returns the `int32_t` at offset `at`, 0 past the end.
pub(super) fn i32_at(from: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes(from, at))
}

/// Returns the seconds and nanoseconds of the `struct timespec` at offset `at`.
pub(super) fn timespec_at(from: &[u8], at: usize) -> (i64, i64) {
    (i64_at(from, at), i64_at(from, at + 8))
}

/// Returns the seconds and microseconds of the `struct timeval` at offset `at`. The microseconds are an
/// `int`; the four bytes behind it may be anything.
pub(super) fn timeval_at(from: &[u8], at: usize) -> (i64, i64) {
    (i64_at(from, at), i32_at(from, at + 8).into())
}

/// Encodes two `int64_t`s: a `struct timespec` or `struct timeval`.
pub(super) fn pair(first: i64, second: i64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&first.to_le_bytes());
    out[8..].copy_from_slice(&second.to_le_bytes());
    out
}

/// Encodes nanoseconds since 1970 as a `struct timespec`.
pub(super) fn timespec(nanoseconds: i64) -> [u8; 16] {
    pair(nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000))
}

/// The contents of `struct stat`; times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub dev: u64,
    pub mode: u32,
    pub ino: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub accessed: i64,
    pub modified: i64,
    pub changed: i64,
    pub born: i64,
    pub size: i64,
    pub blocks: i64,
    pub block_size: i32,
    pub flags: u32,
}

impl Stat {
    /// The size of `struct stat`.
    pub const SIZE: usize = 152;

    /// Encodes the structure as `__stat50` copies it out.
    pub fn encode(&self) -> [u8; Stat::SIZE] {
        let mut out = [0; Stat::SIZE];
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(0, &self.dev.to_le_bytes());
        put(8, &self.mode.to_le_bytes());
        put(16, &self.ino.to_le_bytes());
        put(24, &self.nlink.to_le_bytes());
        put(28, &self.uid.to_le_bytes());
        put(32, &self.gid.to_le_bytes());
        put(40, &self.rdev.to_le_bytes());
        put(48, &timespec(self.accessed));
        put(64, &timespec(self.modified));
        put(80, &timespec(self.changed));
        put(96, &timespec(self.born));
        put(112, &self.size.to_le_bytes());
        put(120, &self.blocks.to_le_bytes());
        put(128, &self.block_size.to_le_bytes());
        put(132, &self.flags.to_le_bytes());
        // st_gen is zero for every caller (`vn_stat`), and the spare words are zero.
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_keep_their_parts_apart() {
        assert_eq!(device(2, 2), 0x0202);
        assert_eq!(device(46, 1), 0x2e01);
        assert_eq!(device(0xfff, 0xfffff), 0xffff_ffff);
    }

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        assert_eq!(timespec(-1), pair(-1, 999_999_999));
        assert_eq!(timespec(1_500_000_000), pair(1, 500_000_000));
    }

    #[test]
    fn readers_stop_at_the_end() {
        assert_eq!(u64_at(&[1, 0, 0, 0, 0, 0, 0, 0], 0), 1);
        assert_eq!(u64_at(&[1; 8], 1), 0);
        assert_eq!(i32_at(&[0xff; 4], 0), -1);
    }
}
