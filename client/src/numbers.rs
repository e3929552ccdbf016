//! NetBSD/amd64's numbers, as the typed calls use them: system calls, flags, names of sysctl nodes.
//!
//! Source: NetBSD `sys/kern/syscalls.master`, `sys/sys/{fcntl,mman,reboot,socket,sysctl,time}.h`.

pub use kernel::sys;

pub const O_RDONLY: i32 = 0;
pub const O_WRONLY: i32 = 1;
pub const O_RDWR: i32 = 2;
pub const O_NONBLOCK: i32 = 0x4;
pub const O_APPEND: i32 = 0x8;
pub const O_CREAT: i32 = 0x200;
pub const O_TRUNC: i32 = 0x400;
pub const O_EXCL: i32 = 0x800;
pub const O_DIRECTORY: i32 = 0x20_0000;
pub const O_CLOEXEC: i32 = 0x40_0000;

pub const F_DUPFD: i32 = 0;
pub const F_GETFD: i32 = 1;
pub const F_SETFD: i32 = 2;
pub const F_GETFL: i32 = 3;
pub const F_SETFL: i32 = 4;
pub const F_DUPFD_CLOEXEC: i32 = 12;
pub const FD_CLOEXEC: i32 = 1;

pub const SEEK_SET: i32 = 0;
pub const SEEK_CUR: i32 = 1;
pub const SEEK_END: i32 = 2;

pub const PROT_READ: i32 = 1;
pub const PROT_WRITE: i32 = 2;
pub const MAP_PRIVATE: i32 = 0x2;
pub const MAP_ANON: i32 = 0x1000;

pub const AF_LOCAL: i32 = 1;
pub const AF_INET: i32 = 2;
pub const SOCK_STREAM: i32 = 1;
pub const SOCK_DGRAM: i32 = 2;
pub const SOL_SOCKET: i32 = 0xffff;
pub const SO_REUSEADDR: i32 = 0x4;

pub const CLOCK_REALTIME: i32 = 0;
pub const CLOCK_MONOTONIC: i32 = 3;

/// Halt instead of rebooting.
pub const RB_HALT: i32 = 0x8;

pub const CTL_KERN: i32 = 1;
pub const KERN_OSTYPE: i32 = 1;
pub const KERN_OSRELEASE: i32 = 2;
pub const KERN_VERSION: i32 = 4;
pub const KERN_HOSTNAME: i32 = 10;
pub const CTL_HW: i32 = 6;
pub const HW_MACHINE: i32 = 1;
pub const HW_NCPU: i32 = 3;
pub const HW_PAGESIZE: i32 = 7;
