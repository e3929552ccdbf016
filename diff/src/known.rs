//! Differences that are known and stay, each with its reason.

use crate::outcome::Difference;

/// A known difference.
#[derive(Debug)]
pub struct Known {
    /// The calls it is about; empty for all calls.
    pub calls: &'static [&'static str],
    /// Texts of the call, one of which must occur in it if there are any.
    pub with: &'static [&'static str],
    /// A text that must occur in an earlier step, or empty.
    pub after: &'static str,
    /// The answers of the servers, in the words of [`Difference::kinds`], in either order; `*` stands
    /// for every answer.
    pub kinds: [&'static str; 2],
    pub reason: &'static str,
}

/// A known difference with default fields: any call with any text.
const ALWAYS: Known = Known { calls: &[], with: &[], after: "", kinds: [ANY, ANY], reason: "" };

/// The kind that stands for every answer.
const ANY: &str = "*";

/// All known differences.
///
/// Sources: NetBSD `sys/kern/syscalls.master`: a rump kernel has the calls marked RUMP;
/// `sys/rump/librump/rumpkern/{lwproc,locks,emul}.c`, `sys/rump/librump/rumpvfs/rumpfs.c`.
pub const KNOWN: &[Known] = &[
    Known {
        calls: &[
            "kill",
            "mmap",
            "getrusage",
            "setpriority",
            "getpriority",
            "wait4",
            "munmap",
            "sched_yield",
            "clock_getcpuclockid2",
        ],
        kinds: ["ENOSYS", ANY],
        reason: "a rump kernel leaves processes and memory to its host, so these calls are not in it",
        ..ALWAYS
    },
    Known {
        calls: &["fcntl"],
        kinds: ["errno -4", ANY],
        reason: "NetBSD's fcntl lets EPASSTHROUGH out, which is no error number, for F_GETOWN and F_SETOWN of a file",
        ..ALWAYS
    },
    Known {
        calls: &["fcntl"],
        with: &["F_GETFL"],
        after: "AF_LOCAL",
        kinds: ["value", "other value"],
        reason: "NetBSD's search for sockets that only messages hold (unp_gc) leaves its marks, FMARK and FDEFER, in the flags of open files",
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kinds: ["EOPNOTSUPP", ANY],
        reason: NO_PROCESS_EVENTS,
        ..ALWAYS
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kinds: ["EINVAL", ANY],
        reason: NO_PROCESS_EVENTS,
        ..ALWAYS
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kinds: ["value", ANY],
        reason: NO_PROCESS_EVENTS,
        ..ALWAYS
    },
    Known {
        calls: &["getsockopt"],
        with: &["LOCAL_PEEREID"],
        kinds: ["bytes", ANY],
        reason: "NetBSD 7.99's unp_connect1 gives who connects its own identity for that of who listens, against unix(4)",
        ..ALWAYS
    },
    Known {
        calls: &["setsockopt"],
        // TCP_NODELAY is number 1, which is IP_OPTIONS at this level.
        with: &["IPPROTO_IP TCP_NODELAY"],
        kinds: ["ENOPROTOOPT", ANY],
        reason: "the embedded kernel's packets have no IP options",
        ..ALWAYS
    },
    Known {
        calls: &["getrlimit"],
        with: &["RLIMIT_NPROC"],
        kinds: ["bytes", ANY],
        reason: "how many processes there may be is each kernel's own",
        ..ALWAYS
    },
    Known {
        calls: &["getrlimit"],
        after: "fork",
        kinds: ["bytes", ANY],
        reason: "a rump kernel's fork leaves parent and child one set of limits to change (lwproc_newproc), where NetBSD's gives each its own",
        ..ALWAYS
    },
    Known {
        calls: &["recvfrom", "recvmsg", "read", "readv", "sendto", "sendmsg", "write", "writev"],
        after: "rights(",
        kinds: ["ECONNRESET", ANY],
        reason: "a socket that only messages inside itself hold is closed at once; NetBSD's unp_thread finds it when another local socket goes",
        ..ALWAYS
    },
    Known {
        calls: &["recvmsg"],
        with: &["MSG_PEEK"],
        after: "rights(",
        kinds: ["bytes", "other bytes"],
        reason: "who only looks at a message with descriptors gets NetBSD's addresses of the files, and zeros of the embedded kernel",
    },
    Known {
        calls: &["sendto", "sendmsg", "write", "writev"],
        after: "rights(",
        kinds: ["EPIPE", "ok"],
        reason: "a socket in a message that was thrown away is closed at once; NetBSD's unp_thread does it when another local socket goes",
        ..ALWAYS
    },
    Known {
        calls: &["__sysctl"],
        with: &["[i32 1, i32 18]"],
        kinds: ["ENOENT", ANY],
        reason: "a rump kernel leaves kern.ngroups out, which NetBSD has",
        ..ALWAYS
    },
    Known {
        calls: &["fcntl"],
        kinds: ["EDEADLK", "blocks"],
        reason: "NetBSD finds a circle of waiting processes by what its scheduler knows, and a rump kernel has none",
        ..ALWAYS
    },
    Known {
        calls: &[],
        kinds: ["ENOSYS and signals", "ENOSYS and other signals"],
        reason: "NetBSD sends SIGSYS to who makes a call that it lacks; the embedded kernel only says so, for a program may go on without",
        ..ALWAYS
    },
    Known {
        calls: &["ftruncate", "truncate", "write", "writev", "pwrite", "pwritev"],
        kinds: ["ok", "ENOSPC"],
        reason: "a hole costs nothing in the embedded kernel, and memory in NetBSD's tmpfs",
        ..ALWAYS
    },
    Known {
        calls: &["ioctl", "fcntl"],
        kinds: ["ENODEV", ANY],
        reason: "a rump kernel's null and zero are not NetBSD's own devices, and refuse every request",
        ..ALWAYS
    },
    Known {
        calls: &["getdents"],
        kinds: ["ok", "EINVAL"],
        reason: "the embedded kernel reads on behind an entry that was removed, where NetBSD's tmpfs has lost its place",
        ..ALWAYS
    },
    Known {
        calls: &["mknod", "mknodat"],
        kinds: ["EOPNOTSUPP", "ok"],
        reason: "whiteouts are for union mounts, and the embedded kernel has none",
        ..ALWAYS
    },
    Known {
        calls: &["issetugid"],
        kinds: ["value", "other value"],
        reason: "a rump kernel's fork does not pass on that users have changed (PK_SUGID)",
        ..ALWAYS
    },
    Known {
        calls: &["clock_gettime"],
        after: " exec",
        kinds: ["EPERM", ANY],
        reason: "a rump kernel's exec does not forget that users have changed (PK_SUGID), and the CPU time of such a process is the superuser's to read",
        ..ALWAYS
    },
    Known {
        calls: &["timer_gettime", "timer_settime", "timer_getoverrun", "timer_delete"],
        after: " exec",
        kinds: ["EINVAL", ANY],
        reason: TIMERS_STAY,
        ..ALWAYS
    },
    Known {
        calls: &["timer_create"],
        after: " exec",
        kinds: ["bytes", "other bytes"],
        reason: TIMERS_STAY,
        ..ALWAYS
    },
    Known {
        calls: &["clock_gettime", "clock_nanosleep"],
        with: &["0x40000000"],
        kinds: ["EPERM", "ok"],
        reason: "a rump kernel has no ptrace, whose rule for strangers holds for the times of processes, too",
        ..ALWAYS
    },
    Known {
        calls: &["seteuid", "setegid", "setreuid", "setregid"],
        kinds: ["ok", "EPERM"],
        reason: "a rump kernel's exec leaves the saved user and group as they are",
        ..ALWAYS
    },
];

const NO_PROCESS_EVENTS: &str =
    "a rump kernel has no events of signals and processes, which NetBSD has";

const TIMERS_STAY: &str =
    "a rump kernel's exec leaves the timers of timer_create, which NetBSD's deletes";

/// Returns the reason why a difference stays, if it is known.
pub fn reason(difference: &Difference) -> Option<&'static str> {
    let [one, other] = [&difference.kinds[0], &difference.kinds[1]];
    let is = |kind: &str, known: &str| known == ANY || kind == known;
    let known = KNOWN.iter().find(|known| {
        let [first, second] = known.kinds;
        (known.calls.is_empty() || known.calls.contains(&difference.name))
            && (known.with.is_empty()
                || known.with.iter().any(|word| difference.text.contains(word)))
            && difference.earlier.contains(known.after)
            && (is(one, first) && is(other, second) || is(one, second) && is(other, first))
    });
    known.map(|known| known.reason)
}

#[cfg(test)]
mod tests {
    use embedded::table;

    use super::*;

    fn difference(name: &'static str, kinds: [&str; 2]) -> Difference {
        let kinds = kinds.map(String::from);
        let text = "kevent $k kevent(1, EVFILT_PROC, EV_ADD)".into();
        let earlier = "a socket AF_INET SOCK_STREAM 0 -> s".into();
        Difference { step: 0, shown: 0, name, text, earlier, details: kinds.clone(), kinds }
    }

    #[test]
    fn what_is_written_tells_one_call_from_another() {
        let seen = ["ok", "EOPNOTSUPP"];
        assert!(reason(&difference("kevent", seen)).is_some());
        let other = Difference { text: "kevent $k null 0".into(), ..difference("kevent", seen) };
        assert_eq!(reason(&other), None);
        let limits = Difference {
            text: "getrlimit RLIMIT_CORE out(16)".into(),
            ..difference("getrlimit", ["bytes", "other bytes"])
        };
        assert_eq!(reason(&limits), None);
        let earlier = "a fork b".into();
        assert!(reason(&Difference { earlier, ..limits }).is_some());
    }

    #[test]
    fn a_known_difference_is_known_from_either_side() {
        assert!(reason(&difference("kill", ["ok", "ENOSYS"])).is_some());
        assert!(reason(&difference("kill", ["ENOSYS", "EPERM"])).is_some());
        assert_eq!(reason(&difference("kill", ["ok", "EPERM"])), None);
        assert_eq!(reason(&difference("open", ["ok", "ENOSYS"])), None);
        assert!(reason(&difference("fcntl", ["blocks", "EDEADLK"])).is_some());
        assert_eq!(reason(&difference("fcntl", ["ok", "EDEADLK"])), None);
        let signals = ["ENOSYS and signals", "ENOSYS and other signals"];
        assert!(reason(&difference("ptrace", signals)).is_some());
        assert_eq!(reason(&difference("ptrace", ["signals", "other signals"])), None);
    }

    #[test]
    fn every_known_call_exists_and_has_a_reason() {
        for known in KNOWN {
            assert!(!known.reason.is_empty());
            for name in known.calls {
                assert!(table().any(|entry| entry.alias == *name), "{name}");
            }
        }
    }
}
