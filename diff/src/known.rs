//! Differences that are known and stay, each with its reason.

use crate::outcome::Difference;

/// A known difference.
#[derive(Debug)]
pub struct Known {
    /// The calls it is about.
    pub calls: &'static [&'static str],
    /// How the servers answer, in [`Difference::kinds`]' words, whichever of the two is which; [`ANY`] is
    /// every answer.
    pub kinds: [&'static str; 2],
    pub reason: &'static str,
}

/// Whatever is answered.
const ANY: &str = "*";

/// All of them.
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
        ],
        kinds: ["ENOSYS", ANY],
        reason: "a rump kernel leaves processes and memory to its host, so these calls are not in it",
    },
    Known {
        calls: &["fcntl"],
        kinds: ["errno -4", ANY],
        reason: "NetBSD's fcntl lets EPASSTHROUGH out, which is no error number, for F_GETOWN and F_SETOWN of a file",
    },
    Known {
        calls: &["fcntl"],
        kinds: ["EDEADLK", "blocks"],
        reason: "NetBSD finds a circle of waiting processes by what its scheduler knows, and a rump kernel has none",
    },
    Known {
        calls: &["ftruncate", "truncate", "write", "writev", "pwrite", "pwritev"],
        kinds: ["ok", "ENOSPC"],
        reason: "a hole costs nothing in the embedded kernel, and memory in NetBSD's tmpfs",
    },
    Known {
        calls: &["getdents"],
        kinds: ["ok", "EINVAL"],
        reason: "the embedded kernel reads on behind an entry that was removed, where NetBSD's tmpfs has lost its place",
    },
    Known {
        calls: &["mknod", "mknodat"],
        kinds: ["EOPNOTSUPP", "ok"],
        reason: "whiteouts are for union mounts, and the embedded kernel has none",
    },
    Known {
        calls: &["issetugid"],
        kinds: ["value", "other value"],
        reason: "a rump kernel's fork does not pass on that users have changed (PK_SUGID)",
    },
    Known {
        calls: &["seteuid", "setegid", "setreuid", "setregid"],
        kinds: ["ok", "EPERM"],
        reason: "a rump kernel's exec leaves the saved user and group as they are",
    },
];

/// Why a difference is none to mend, if it is known.
pub fn reason(difference: &Difference) -> Option<&'static str> {
    let [one, other] = [&difference.kinds[0], &difference.kinds[1]];
    let is = |kind: &str, known: &str| known == ANY || kind == known;
    let known = KNOWN.iter().find(|known| {
        let [first, second] = known.kinds;
        known.calls.contains(&difference.name)
            && (is(one, first) && is(other, second) || is(one, second) && is(other, first))
    });
    known.map(|known| known.reason)
}

#[cfg(test)]
mod tests {
    use rumpring::kernel::embedded::table;

    use super::*;

    fn difference(name: &'static str, kinds: [&str; 2]) -> Difference {
        let kinds = kinds.map(String::from);
        Difference { step: 0, shown: 0, name, details: kinds.clone(), kinds }
    }

    #[test]
    fn a_known_difference_is_known_from_either_side() {
        assert!(reason(&difference("kill", ["ok", "ENOSYS"])).is_some());
        assert!(reason(&difference("kill", ["ENOSYS", "EPERM"])).is_some());
        assert_eq!(reason(&difference("kill", ["ok", "EPERM"])), None);
        assert_eq!(reason(&difference("open", ["ok", "ENOSYS"])), None);
        assert!(reason(&difference("fcntl", ["blocks", "EDEADLK"])).is_some());
        assert_eq!(reason(&difference("fcntl", ["ok", "EDEADLK"])), None);
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
