//! NetBSD/amd64's numbers, as the typed calls use them: system calls, flags, names of sysctl nodes.
//!
//! Source: NetBSD `sys/kern/syscalls.master`, `sys/sys/{fcntl,mman,reboot,socket,sysctl,time}.h`.

/// Numbers of system calls.
pub mod sys {
    pub const READ: i32 = 3;
    pub const WRITE: i32 = 4;
    pub const OPEN: i32 = 5;
    pub const CLOSE: i32 = 6;
    pub const UNLINK: i32 = 10;
    pub const GETPID: i32 = 20;
    pub const GETUID: i32 = 24;
    pub const GETEUID: i32 = 25;
    pub const GETSOCKNAME: i32 = 32;
    pub const KILL: i32 = 37;
    pub const GETPPID: i32 = 39;
    pub const DUP: i32 = 41;
    pub const PIPE: i32 = 42;
    pub const GETEGID: i32 = 43;
    pub const GETGID: i32 = 47;
    pub const DUP2: i32 = 90;
    pub const FCNTL: i32 = 92;
    pub const CONNECT: i32 = 98;
    pub const BIND: i32 = 104;
    pub const SETSOCKOPT: i32 = 105;
    pub const LISTEN: i32 = 106;
    pub const READV: i32 = 120;
    pub const WRITEV: i32 = 121;
    pub const MKDIR: i32 = 136;
    pub const RMDIR: i32 = 137;
    pub const PREAD: i32 = 173;
    pub const PWRITE: i32 = 174;
    pub const MMAP: i32 = 197;
    pub const LSEEK: i32 = 199;
    pub const FTRUNCATE: i32 = 201;
    pub const SYSCTL: i32 = 202;
    pub const REBOOT: i32 = 208;
    /// `__socket30`
    pub const SOCKET: i32 = 394;
    /// `__gettimeofday50`
    pub const GETTIMEOFDAY: i32 = 418;
    /// `__clock_gettime50`
    pub const CLOCK_GETTIME: i32 = 427;
    /// `__nanosleep50`
    pub const NANOSLEEP: i32 = 430;
    /// `__stat50`
    pub const STAT: i32 = 439;
    /// `__fstat50`
    pub const FSTAT: i32 = 440;
    /// `__lstat50`
    pub const LSTAT: i32 = 441;
    pub const PIPE2: i32 = 453;
}

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
