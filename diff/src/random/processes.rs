//! Families of calls about processes: descriptors, ids, limits, timers, and the kernel's own variables.

use super::templates::Family;

/// Descriptors, whatever they are open on, and the effect of exec and fork on them.
pub const DESCRIPTORS: Family = Family {
    name: "descriptors",
    forks: 12,
    templates: &[
        (
            10,
            "open {\"f0\";\"f1\"} {O_RDWR|O_CREAT;O_RDWR|O_CREAT|O_CLOEXEC;O_RDONLY|O_NONBLOCK;O_WRONLY|O_APPEND;O_RDONLY|O_NOSIGPIPE} 0644 -> <new>",
        ),
        (3, "pipe -> <new> <new>"),
        (
            5,
            "pipe2 out(8) {0;O_CLOEXEC;O_NONBLOCK;O_NOSIGPIPE;O_CLOEXEC|O_NONBLOCK;O_APPEND;-1} -> mem <new> <new>",
        ),
        (
            4,
            "socketpair AF_LOCAL SOCK_STREAM{;|SOCK_CLOEXEC;|SOCK_NONBLOCK;|SOCK_NOSIGPIPE} 0 out(8) -> mem <new> <new>",
        ),
        (3, "socket AF_LOCAL SOCK_DGRAM{;|SOCK_CLOEXEC;|SOCK_NONBLOCK;|SOCK_NOSIGPIPE} 0 -> <new>"),
        (3, "kqueue1 {0;O_CLOEXEC;O_NONBLOCK;O_NOSIGPIPE;O_APPEND} -> <new>"),
        (8, "dup <fd> -> <new>"),
        (8, "dup2 <fd> {5;6;30;<fd>;-1;99999} -> <new>"),
        // O_CLOEXEC and F_DUPFD_CLOEXEC are left out: NetBSD's exec does not close the descriptors they
        // make unless another is marked, too.
        (
            8,
            "dup3 <fd> {5;6;30;<fd>;-1;99999} {0;O_NONBLOCK;O_NOSIGPIPE;O_NONBLOCK|O_NOSIGPIPE;O_APPEND;1} -> <new>",
        ),
        (5, "fcntl <fd> F_DUPFD {0;3;7;40;-1;99999;0x100000005} -> <new>"),
        (8, "fcntl <fd> F_GETFD 0"),
        (5, "fcntl <fd> F_SETFD {0;1;2;3;-1}"),
        (8, "fcntl <fd> F_GETFL 0"),
        (
            6,
            "fcntl <fd> F_SETFL {0;O_APPEND;O_NONBLOCK;O_ASYNC;O_SYNC;O_DSYNC|O_RSYNC;O_NOSIGPIPE;O_DIRECT;O_ALT_IO;O_RDWR|O_CREAT;-1}",
        ),
        (3, "fcntl <fd> F_GETNOSIGPIPE 0"),
        (3, "fcntl <fd> F_SETNOSIGPIPE {0;1;2;-1}"),
        (3, "fcntl <fd> F_MAXFD 0"),
        (1, "fcntl {<fd>;20} F_CLOSEM 0"),
        (1, "fcntl <fd> {-1;14;15;99;0x7fffffff} {0;1}"),
        (8, "ioctl <fd> {FIOCLEX;FIONCLEX} {null;bad}"),
        (5, "ioctl <fd> {FIONBIO;FIOASYNC} {int(0);int(1);int(-1);bad}"),
        (2, "ioctl <fd> FIONREAD out(4)"),
        (2, "ioctl <fd> {FIOGETOWN;TIOCGPGRP} out(pid)"),
        (2, "ioctl <fd> FIOSETOWN {int(pid:a);int(0);int(-1);int(99999)}"),
        (1, "ioctl <fd> {0;0x20004141;0x40044141;0x80044141;0xc0044141;0x90014141} {out(4);null}"),
        (8, "close <fd>"),
        (4, "write <fd> {'ab';'ab';bad} {2;1;0}"),
        (3, "read <fd> out(10) {1;0}"),
        (3, "lseek <fd> {0;1} {SEEK_SET;SEEK_CUR}"),
        (2, "fstat <fd> out(8)"),
        (4, "exec"),
    ],
};

/// The ids, groups and sessions of processes. Signals here are those that writing sends: a rump kernel
/// has no kill.
pub const PROCESSES: Family = Family {
    name: "processes",
    forks: 24,
    templates: &[
        (8, "{setuid;seteuid;setgid;setegid} <user>"),
        (8, "{setreuid;setregid} <user> <user>"),
        (8, "{getuid;geteuid;getgid;getegid}"),
        (3, "setgroups {0;1;2;16;17;-1} {[i32 100, i32 101];[zero 64];bad;null}"),
        (4, "getgroups {0;1;2;16;-1} {out(64);bad;null}"),
        (4, "umask {0;022;0777;07777;-1}"),
        (6, "setpgid {0;pid:a;pid:b;pid:c;pid:d;-1;99999;1} {0;pid:a;pid:b;pid:c;-1;99999;1}"),
        (3, "setsid"),
        (4, "{getpid;getppid;getpgrp}"),
        (6, "{getpgid;getsid} {0;pid:a;pid:b;pid:c;pid:d;-1;99999;1}"),
        (3, "__setlogin {\"one\";\"\";\"exactly-16-bytes\";\"more-than-16-bytes\";bad;null}"),
        (4, "__getlogin {out(20);bad} {20;16;3;0;-1}"),
        (4, "pipe2 out(8) {0;O_NONBLOCK;O_NOSIGPIPE} -> mem <new> <new>"),
        (2, "socketpair AF_LOCAL SOCK_STREAM|SOCK_NONBLOCK 0 out(8) -> mem <new> <new>"),
        (3, "fcntl <fd> F_SETFL O_NONBLOCK"),
        (6, "close <fd>"),
        (6, "write <fd> <bytes> 1"),
        (2, "writev <fd> iov('abc', 'defgh') 2"),
        (2, "sendto <fd> 'message' # {0;MSG_NOSIGNAL} null 0"),
        (1, "shutdown <fd> {0;1;2}"),
        (5, "fcntl <fd> F_SETOWN {0;pid:a;pid:b;-pid:a;-pid:b;99999;-99999;1;-1}"),
        (4, "fcntl <fd> F_GETOWN 0"),
        (5, "ioctl <fd> FIOSETOWN {int(pid:a);int(pid:b);int(-pid:a);int(0);int(99999)}"),
        (4, "ioctl <fd> TIOCSPGRP {int(pid:a);int(pid:b);int(0);int(-1);int(99999)}"),
        (4, "ioctl <fd> {FIOGETOWN;TIOCGPGRP} out(pid)"),
        (3, "exec"),
        (1, "exit"),
    ],
};

/// Resource limits. No actor forks: in a rump kernel parent and child share their limits.
pub const LIMITS: Family = Family {
    name: "limits",
    forks: 0,
    templates: &[
        (
            10,
            "setrlimit {RLIMIT_CPU;RLIMIT_DATA;RLIMIT_STACK;RLIMIT_CORE;RLIMIT_RSS;RLIMIT_MEMLOCK;RLIMIT_AS} rlimit({0;1;5000;0x7fffffffffffffff;-1}, {0;1;5000;0x7fffffffffffffff;-1})",
        ),
        (
            10,
            "getrlimit {RLIMIT_CPU;RLIMIT_FSIZE;RLIMIT_CORE;RLIMIT_RSS;RLIMIT_SBSIZE;RLIMIT_AS} out(16)",
        ),
        (6, "setrlimit RLIMIT_FSIZE rlimit({0;10;100;5000}, {5000;0x7fffffffffffffff})"),
        (6, "setrlimit RLIMIT_NOFILE rlimit({0;3;5;7;20;-1}, {20;60})"),
        (3, "{setrlimit;getrlimit} {-1;12;99} {rlimit(1, 1);bad;null}"),
        (2, "{setuid;seteuid} {0;100}"),
        (10, "open <name> {O_RDWR|O_CREAT;O_RDWR|O_APPEND;O_RDONLY} 0644 -> <new>"),
        (2, "pipe -> <new> <new>"),
        (
            2,
            "socketpair AF_LOCAL {SOCK_STREAM;SOCK_DGRAM}|SOCK_NONBLOCK 0 out(8) -> mem <new> <new>",
        ),
        (4, "dup <fd> -> <new>"),
        (2, "dup2 <fd> {4;6;19;20;60} -> <new>"),
        (3, "fcntl <fd> {F_DUPFD;F_DUPFD_CLOEXEC} {0;5;19;20;60} -> <new>"),
        (6, "close <fd>"),
        (8, "write <fd> <bytes> {1;2}"),
        (6, "write <fd> {'x'*9;'x'*11;'x'*100;'x'*5001} #"),
        (4, "pwrite <fd> 'abcdefghijk' # <off>"),
        (2, "writev <fd> iov('abcdef', 'ghijkl') 2"),
        (4, "ftruncate <fd> <off>"),
        (3, "truncate <name> <off>"),
        (1, "posix_fallocate <fd> <off> <off>"),
        (3, "lseek <fd> {0;5;100} {SEEK_SET;SEEK_END}"),
        (4, "fstat <fd> out(stat)"),
        (2, "read <fd> out(100) #"),
    ],
};

/// Clocks, sleeping, and timers that do not go off: no two kernels agree on when one does.
pub const TIME: Family = Family {
    name: "time",
    forks: 4,
    templates: &[
        (
            6,
            "clock_gettime {CLOCK_REALTIME;CLOCK_MONOTONIC;CLOCK_VIRTUAL;CLOCK_PROF;99;-1;0x40000000;0x80000000;0x80000063} {out(now);out(now);bad;null}",
        ),
        (
            4,
            "clock_getres {CLOCK_REALTIME;CLOCK_MONOTONIC;CLOCK_VIRTUAL;CLOCK_PROF;99;-1;0x40000000} {out(now);out(now);bad;null}",
        ),
        (2, "clock_settime {CLOCK_MONOTONIC;CLOCK_VIRTUAL;99;-1} {timespec(1, 2);bad;null}"),
        (1, "clock_settime CLOCK_REALTIME {bad;null}"),
        (1, "settimeofday {null;bad} {null;bad}"),
        (2, "gettimeofday {out(now);bad;null} {out(8);null;bad}"),
        (3, "adjtime {null;timeval(0, 0);bad} {out(timeval);null;bad}"),
        (3, "clock_getcpuclockid2 {1;2;0;-1} {0;1;2;-1;99999} {out(4);bad}"),
        (1, "setuid {0;5}"),
        (3, "nanosleep timespec({0;0;-1;-5}, {0;1;1000000;999999999999;-1}) {null;out(16);bad}"),
        (1, "nanosleep {bad;null} null"),
        (
            5,
            "clock_nanosleep {CLOCK_REALTIME;CLOCK_MONOTONIC;CLOCK_VIRTUAL;99} {0;TIMER_ABSTIME;2} timespec({0;0;-1}, {0;1000000;1000000000;-1}) {null;out(now);bad}",
        ),
        (1, "clock_nanosleep CLOCK_REALTIME TIMER_ABSTIME timespec(1, {0;-1;-1000000000}) out(16)"),
        (1, "clock_nanosleep CLOCK_REALTIME {0;TIMER_ABSTIME} {bad;null} null"),
        // ITIMER_MONOTONIC is left out: NetBSD's kernel dies of a process that ends with such a timer.
        (
            14,
            "setitimer {0;0;1;2;4;-1} times({0;5000;1000;-1}, {0;0;1;999999;1000000;-1}, {0;0;1000;5000;90000;-1}, {0;0;1000000;-1}) {null;out(left);bad}",
        ),
        (2, "setitimer {0;1;2;3;4} {null;bad} {out(left);null}"),
        (10, "getitimer {0;0;1;2;3;4;-1} {out(left);out(left);bad}"),
        (
            14,
            "timer_create {CLOCK_REALTIME;CLOCK_REALTIME;CLOCK_MONOTONIC;4;-1} {null;[i32 0, i32 30, zero 24];[i32 1, i32 30, zero 24];[i32 1, i32 0, zero 24];[i32 1, i32 64, zero 24];[i32 1, i32 63, zero 24];[i32 2, i32 30, zero 24];[i32 3, i32 30, zero 24];[i32 4, i32 30, zero 24];bad} out(4) -> mem <new>",
        ),
        (
            14,
            "timer_settime <fd> 0 times({0;5000;-1}, {0;0;1;999999999;1000000000;-1}, {0;1000;5000;90000;-1}, {0;0;1000000000;-1}) {null;out(now, 32);out(now, 32);bad}",
        ),
        (
            4,
            "timer_settime <fd> {TIMER_ABSTIME;2;-1} times({0;5000}, 0, {0;0;0x7000000000}, {0;1000000000}) {null;out(now, 32)}",
        ),
        (1, "timer_settime <fd> 0 {null;bad} null"),
        (12, "timer_gettime <fd> {out(left);out(left);bad}"),
        (5, "timer_getoverrun <fd>"),
        (5, "timer_delete <fd>"),
        (2, "exec"),
    ],
};

/// The kernel's variables: names that both kernels have, and ways to ask for them.
pub const SYSCTL: Family = Family {
    name: "sysctl",
    forks: 0,
    templates: &[
        (
            10,
            "__sysctl [i32 1, i32 {1;2;3;58;9999;-1}, i32 1] {2;2;2;2;1;3} {out(64);out(64);out(64);null;bad} {long(64);long(64);long(0);long(1);long(4);long(5);long(7);bad;null} null 0",
        ),
        (
            10,
            "__sysctl [i32 {6;6;6;6;99;-1}, i32 {1;4;7;11;9999}, i32 1] {2;2;2;2;1;3} {out(64);out(64);out(64);null;bad} {long(64);long(64);long(0);long(1);long(4);long(5);long(7);bad;null} null 0",
        ),
        (
            10,
            "__sysctl [i32 1, i32 {10;22;10;22;3}] 2 {null;out(300)} {long(300);long(3);null} {'name';\"name\";'x'*255;'x'*256;'x'*257;int(5);long(5);bad;null} {#;0;1;4;8;300}",
        ),
        (
            4,
            "__sysctl [i32 {1;6;4;10;13;8;99;0;-1}, i32 {-3;-4;-5;-6;-8;-100;99}, i32 0] {1;2;3;0;13} {out(64);null} {long(64);null} {null;[i32 0x01000000, zero 92];[zero 96];bad} {0;96;95}",
        ),
        (
            6,
            "__sysctl [i32 10, i32 {pid:a;0x7fffffff;pid:b;99999;-1}, i32 2, i32 {1;2;4;5;12;13;0}, i32 {1;2;3}] {5;4;6;3} {out(16);null} {long(16);long(8);long(4)} {null;long(4096);bad} {0;8;4}",
        ),
        (
            3,
            "__sysctl [i32 4, i32 2, i32 {6;17}, i32 {2;3}] 4 {out(16);null} {long(16);long(3)} null 0",
        ),
        (
            1,
            "__sysctl [i32 4, i32 24, i32 17, i32 {1;2}] 4 {out(16);null} {long(16);long(3)} null 0",
        ),
        (2, "__sysctl [i32 1, i32 61] 2 {null;out(now, 4)} {long(4);long(2);long(8)} null 0"),
        (2, "__sysctl [i32 1, i32 81] 2 {null;out(now, 300)} {long(4);long(256);long(257)} null 0"),
        (2, "__sysctl {bad;null} 2 out(64) long(64) null 0"),
        (
            2,
            "__sysctl [i32 {8;9;5}, i32 -2, i32 0] {2;3} {out(200);null} {long(200);long(95);null} {null;[i32 0x01000000, zero 92];[zero 96];bad} {0;96;95;3}",
        ),
        (2, "{setuid;seteuid} {0;5}"),
    ],
};
