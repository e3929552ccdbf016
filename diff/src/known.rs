//! Differences that are known and stay, each with its reason.

use crate::outcome::Difference;

/// A known difference.
#[derive(Debug)]
pub struct Known {
    /// The calls it is about.
    pub calls: &'static [&'static str],
    /// What is written in them, one of these if there are any.
    pub with: &'static [&'static str],
    /// How one server answers, in [`Difference::kinds`]' words, whichever of the two that is.
    pub kind: &'static str,
    pub reason: &'static str,
}

/// All of them.
///
/// Source: NetBSD `sys/kern/syscalls.master`: a rump kernel has the calls marked RUMP.
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
        ],
        with: &[],
        kind: "ENOSYS",
        reason: "a rump kernel leaves processes and memory to its host, so these calls are not in it",
    },
    Known {
        calls: &["fcntl"],
        with: &[],
        kind: "errno -4",
        reason: "NetBSD's fcntl lets EPASSTHROUGH out, which is no error number, for F_GETOWN and F_SETOWN of a file",
    },
    Known {
        calls: &["open"],
        with: &["\"fifo\""],
        kind: "EOPNOTSUPP",
        reason: "a rump kernel cannot open fifos, which NetBSD can",
    },
    Known {
        calls: &["compat_50_wait4"],
        with: &[],
        kind: "signals",
        reason: "for a call that is none NetBSD raises SIGSYS, too: the embedded kernel only answers ENOSYS, so that a program that can do without goes on",
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kind: "EOPNOTSUPP",
        reason: NO_PROCESS_EVENTS,
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kind: "EINVAL",
        reason: NO_PROCESS_EVENTS,
    },
    Known {
        calls: &["kevent"],
        with: &["EVFILT_SIGNAL", "EVFILT_PROC"],
        kind: "value",
        reason: NO_PROCESS_EVENTS,
    },
    Known {
        calls: &["getsockopt"],
        with: &["LOCAL_PEEREID"],
        kind: "bytes",
        reason: "NetBSD 7.99's unp_connect1 gives who connects its own identity for that of who listens, against unix(4)",
    },
    Known {
        calls: &["getsockopt"],
        with: &["TCP_NODELAY"],
        kind: "bytes",
        reason: "NetBSD answers TCP_NODELAY with the bit of a flag word, 4, which the embedded kernel answers with 1",
    },
    Known {
        calls: &["sendto", "sendmsg"],
        with: &["MSG_OOB"],
        kind: "EOPNOTSUPP",
        reason: "the embedded kernel's TCP has no out-of-band data, and says so",
    },
    Known {
        calls: &["connect"],
        with: &["sin(port:"],
        kind: "ECONNREFUSED",
        reason: "an IPv6 socket of the embedded kernel takes no IPv4 connections, whatever IPV6_V6ONLY says",
    },
    Known {
        calls: &["getrlimit"],
        with: &["RLIMIT_NPROC"],
        kind: "bytes",
        reason: "how many processes there may be is each kernel's own",
    },
    Known {
        calls: &["__sysctl"],
        with: &["[i32 1, i32 18]"],
        kind: "ENOENT",
        reason: "a rump kernel leaves kern.ngroups out, which NetBSD has",
    },
];

const NO_PROCESS_EVENTS: &str =
    "a rump kernel has no events of signals and processes, which NetBSD has";

/// Why a difference is none to mend, if it is known.
pub fn reason(difference: &Difference) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| {
        known.calls.contains(&difference.name)
            && (known.with.is_empty()
                || known.with.iter().any(|word| difference.text.contains(word)))
            && difference.kinds.iter().any(|kind| kind == known.kind)
    });
    known.map(|known| known.reason)
}

#[cfg(test)]
mod tests {
    use rumpring::kernel::embedded::table;

    use super::*;

    fn difference(name: &'static str, kinds: [&str; 2]) -> Difference {
        let kinds = kinds.map(String::from);
        let text = "kevent $k kevent(1, EVFILT_PROC, EV_ADD)".into();
        Difference { step: 0, shown: 0, name, text, details: kinds.clone(), kinds }
    }

    #[test]
    fn what_is_written_tells_one_call_from_another() {
        let seen = ["ok", "EOPNOTSUPP"];
        assert!(reason(&difference("kevent", seen)).is_some());
        let other = Difference { text: "kevent $k null 0".into(), ..difference("kevent", seen) };
        assert_eq!(reason(&other), None);
    }

    #[test]
    fn a_known_difference_is_known_from_either_side() {
        assert!(reason(&difference("kill", ["ok", "ENOSYS"])).is_some());
        assert!(reason(&difference("kill", ["ENOSYS", "EPERM"])).is_some());
        assert_eq!(reason(&difference("kill", ["ok", "EPERM"])), None);
        assert_eq!(reason(&difference("open", ["ok", "ENOSYS"])), None);
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
