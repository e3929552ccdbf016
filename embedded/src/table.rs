//! The system calls: each family lists its own, and dispatch, the log and the documented table work
//! from those lists. This file imports the families, and none of them imports it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::listed::{Body, Listed, Runs};
use super::{
    credentials, descriptors, files, groups, io, ioctl, kqueue, locks, memory, pid, pipe, poll,
    rlimits, signal, sockets, sysctl, system, time, timers, usage,
};
use kernel::{Args, NAMES};

/// The lowest number that no system call has (`SYS_NSYSENT`).
pub const LIMIT: i32 = 512;

/// The extent to which a system call is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything that callers can see is there.
    Implemented,
    /// A part is there; the text says what is missing.
    Partial(&'static str),
    /// The call fails with ENOSYS.
    Absent,
}

/// A system call.
#[derive(Clone, Debug)]
pub struct Entry {
    /// NetBSD's number.
    pub number: i32,
    /// NetBSD's name, without `SYS_`: `__stat50`.
    pub name: &'static str,
    /// The name a C program calls: `stat`.
    pub alias: &'static str,
    /// The family it belongs to.
    pub family: &'static str,
    pub status: Status,
}

const FAMILIES: &[(&str, &[Listed])] = &[
    ("processes", pid::CALLS),
    ("credentials", credentials::CALLS),
    ("process groups", groups::CALLS),
    ("resources", rlimits::CALLS),
    ("usage and priority", usage::CALLS),
    ("descriptors", descriptors::CALLS),
    ("reading and writing", io::CALLS),
    ("pipes", pipe::CALLS),
    ("opening files", files::open::CALLS),
    ("names of files", files::links::CALLS),
    ("directories", files::directories::CALLS),
    ("current directory and root", files::cwd::CALLS),
    ("attributes of files", files::attributes::CALLS),
    ("asking about files", files::status::CALLS),
    ("contents of files", files::contents::CALLS),
    ("locks", locks::CALLS),
    ("device requests", ioctl::CALLS),
    ("sockets", sockets::CALLS),
    ("signals", signal::CALLS),
    ("waiting for one of many", poll::CALLS),
    ("kqueue", kqueue::CALLS),
    ("time", time::CALLS),
    ("timers", timers::CALLS),
    ("memory", memory::CALLS),
    ("sysctl", sysctl::CALLS),
    ("the system", system::CALLS),
];

static BODIES: [Option<(Body, Runs)>; LIMIT as usize] = bodies();

const fn bodies() -> [Option<(Body, Runs)>; LIMIT as usize] {
    let mut bodies = [None; LIMIT as usize];
    let mut family = 0;
    while family < FAMILIES.len() {
        let calls = FAMILIES[family].1;
        let mut i = 0;
        while i < calls.len() {
            let number = calls[i].number as usize;
            assert!(bodies[number].is_none(), "two calls with one number");
            bodies[number] = Some((calls[i].run, calls[i].runs));
            i += 1;
        }
        family += 1;
    }
    bodies
}

/// Returns the function of call `number`, if it is implemented.
pub(super) fn body(number: i32) -> Option<Body> {
    found(number).map(|(body, _)| body)
}

fn found(number: i32) -> Option<(Body, Runs)> {
    BODIES.get(usize::try_from(number).ok()?).copied().flatten()
}

/// Returns `true` if a call with these arguments may run on the submission thread. A call that is not
/// implemented may, as it is answered at once.
pub(super) fn runs_inline(number: i32, args: &Args) -> bool {
    match found(number) {
        Some((_, Runs::InlineIf(is_short))) => is_short(args),
        Some((_, Runs::OnWorker)) => false,
        Some((_, Runs::Inline)) | None => true,
    }
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let mut entries: Vec<Entry> = NAMES
        .iter()
        .map(|&(number, name, alias)| Entry {
            number,
            name,
            alias: if alias.is_empty() || alias.contains("_with_") { name } else { alias },
            family: "",
            status: Status::Absent,
        })
        .collect();
    for &(family, calls) in FAMILIES {
        for listed in calls {
            if let Ok(at) = entries.binary_search_by_key(&listed.number, |entry| entry.number) {
                entries[at].family = family;
                entries[at].status = match listed.missing {
                    "" => Status::Implemented,
                    missing => Status::Partial(missing),
                };
            }
        }
    }
    entries
});

/// Returns every system call of NetBSD by rising number, those the embedded kernel lacks included.
pub fn table() -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter()
}

/// Returns the system call with this number.
pub fn by_number(number: i32) -> Option<&'static Entry> {
    let at = ENTRIES.binary_search_by_key(&number, |entry| entry.number).ok()?;
    Some(&ENTRIES[at])
}

/// Returns the system call with this name: NetBSD's own, or the C library's.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    table().find(|entry| entry.name == name).or_else(|| table().find(|entry| entry.alias == name))
}

/// The number of calls to each system call that is not implemented.
pub(super) struct Missing {
    counts: Box<[AtomicU64]>,
    /// Calls with numbers that no system call can have.
    outside: AtomicU64,
}

impl Missing {
    pub fn new() -> Self {
        Missing {
            counts: (0..LIMIT).map(|_| AtomicU64::new(0)).collect(),
            outside: AtomicU64::new(0),
        }
    }

    /// Counts a call of `number`, and logs its name the first time.
    pub fn note(&self, number: i32) {
        let known = usize::try_from(number).ok().and_then(|at| self.counts.get(at));
        let Some(count) = known else {
            if self.outside.fetch_add(1, Relaxed) == 0 {
                tracing::warn!(number, "a client made a system call with a number out of range");
            }
            return;
        };
        if count.fetch_add(1, Relaxed) == 0 {
            let name = by_number(number).map_or("no such call", |entry| entry.name);
            tracing::warn!(number, name, "a client made a system call this kernel lacks: ENOSYS");
        }
    }

    /// Returns the numbers that were called, and how often.
    pub fn counts(&self) -> Vec<(i32, u64)> {
        let known = self.counts.iter().enumerate();
        known
            .map(|(number, count)| (number as i32, count.load(Relaxed)))
            .chain([(LIMIT, self.outside.load(Relaxed))])
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_here_has_a_name() {
        for &(family, calls) in FAMILIES {
            for listed in calls {
                let entry = by_number(listed.number).expect("a number without a name");
                assert_eq!(entry.family, family);
                assert_ne!(entry.status, Status::Absent);
            }
        }
    }

    #[test]
    fn names_find_their_calls() {
        assert_eq!(by_name("getpid").unwrap().number, 20);
        assert_eq!(by_name("stat").unwrap().number, 439);
        assert_eq!(by_name("__stat50").unwrap().number, 439);
        assert_eq!(by_name("socket").unwrap().number, 394);
        assert_eq!(by_name("reboot").unwrap().number, 208);
        assert_eq!(by_name("ptrace").unwrap().status, Status::Absent);
        assert!(by_name("no_such_call").is_none());
        assert!(table().is_sorted_by_key(|entry| entry.number));
    }

    #[test]
    fn missing_calls_are_counted_by_number() {
        let missing = Missing::new();
        for number in [1, 1, 511, 512, -1, i32::MIN, i32::MAX] {
            assert!(body(number).is_none());
            missing.note(number);
        }
        assert_eq!(missing.counts(), [(1, 2), (511, 1), (512, 4)]);
    }
}
