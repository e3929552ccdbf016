//! Differences that are known and stay, each with its reason.

use crate::outcome::Difference;

/// A known difference.
#[derive(Debug)]
pub struct Known {
    /// The calls it is about.
    pub calls: &'static [&'static str],
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
        kind: "ENOSYS",
        reason: "a rump kernel leaves processes and memory to its host, so these calls are not in it",
    },
    Known {
        calls: &["fcntl"],
        kind: "errno -4",
        reason: "NetBSD's fcntl lets EPASSTHROUGH out, which is no error number, for F_GETOWN and F_SETOWN of a file",
    },
];

/// Why a difference is none to mend, if it is known.
pub fn reason(difference: &Difference) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| {
        known.calls.contains(&difference.name)
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
        Difference { step: 0, shown: 0, name, details: kinds.clone(), kinds }
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
