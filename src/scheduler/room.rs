//! The number of threads that the system has room for.
//!
//! Of limits that are shared with others, this process takes half of what is left.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, getuid};
use rustix::thread::{CapabilitySet, capabilities};

/// A number of threads, and the limit that allows no more.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    pub threads: usize,
    /// The name of the limit, in words for whoever may change it.
    pub bound: String,
}

/// Returns the number of threads that there is room for, if anything bounds it.
pub fn for_threads() -> Option<Room> {
    let rooms = by_sysctls().into_iter().chain(by_user()).chain(by_cgroups());
    rooms.min_by_key(|room| room.threads)
}

/// Returns half of what is left of a limit.
fn half(most: usize, used: usize, bound: String) -> Room {
    Room { threads: most.saturating_sub(used) / 2, bound }
}

/// Returns what the sysctls leave. A process has a bounded number of mappings, and each thread takes
/// four. A thread that starts when none are left takes the process with it.
///
/// Source: proc(5), `vm.max_map_count`, `kernel.threads-max`, `kernel.pid_max`.
fn by_sysctls() -> Vec<Room> {
    /// The mappings of everything else, and of the threads that there may be over the bound.
    const OTHER_MAPPINGS: usize = 8192;
    const MAPPINGS_EACH: usize = 4;
    let limit = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        Some((read_number(Path::new(&path))?, format!("the sysctl {name}")))
    };
    let by_mappings = limit("vm.max_map_count").map(|(mappings, bound)| {
        let threads = mappings.saturating_sub(OTHER_MAPPINGS) / MAPPINGS_EACH;
        Room { threads, bound }
    });
    let by_threads = ["kernel.threads-max", "kernel.pid_max"].into_iter().filter_map(limit);
    by_mappings.into_iter().chain(by_threads.map(|(most, bound)| half(most, 0, bound))).collect()
}

/// Returns what the limit of this user's processes leaves. The limit counts threads.
///
/// Source: getrlimit(2), `RLIMIT_NPROC`.
fn by_user() -> Option<Room> {
    let most = getrlimit(Resource::Nproc).current.filter(|_| !is_exempt())?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let uid = getuid().as_raw();
    Some(half(most, threads_of(uid), "RLIMIT_NPROC (ulimit -u)".into()))
}

/// Returns `true` if this process may have any number of threads: as the superuser or with a capability,
/// both in the first user namespace.
fn is_exempt() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let able = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    let is_able = || capabilities(None).is_ok_and(|sets| sets.effective.intersects(able));
    is_first_namespace(&map) && (getuid().is_root() || is_able())
}

/// Returns `true` if this mapping is the one of the first namespace, which maps every user to itself.
fn is_first_namespace(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Returns the number of threads of all of a user's processes.
fn threads_of(uid: u32) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let status = |entry: fs::DirEntry| {
        let is_process = entry.file_name().to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        is_process.then(|| fs::read_to_string(entry.path().join("status")).ok())?
    };
    let all = processes.flatten().filter_map(status);
    all.filter_map(|status| threads_in(&status, uid)).sum()
}

/// Returns the number of threads of a process with this `status`, if the process is the user's.
fn threads_in(status: &str, uid: u32) -> Option<usize> {
    let field = |name: &str| {
        let mut values = status.lines().filter_map(|line| line.strip_prefix(name));
        values.next()?.split_whitespace().next()
    };
    (field("Uid:")?.parse() == Ok(uid)).then(|| field("Threads:")?.parse().ok())?
}

/// Returns what the control groups of this process leave, from its own group to the uppermost.
///
/// Source: cgroups(7), `/proc/pid/cgroup`; the kernel's documentation of the controller `pids`.
fn by_cgroups() -> Vec<Room> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups_of_pids(&groups).iter().filter_map(|group| by_cgroup(group)).collect()
}

/// Returns what this group leaves, if it bounds processes.
fn by_cgroup(group: &Path) -> Option<Room> {
    let file = group.join("pids.max");
    let most = read_number(&file)?;
    let used = read_number(&group.join("pids.current")).unwrap_or(0);
    Some(half(most, used, file.display().to_string()))
}

/// Returns the directories of the groups that bound processes, in both versions of control groups.
fn groups_of_pids(groups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            _ if controllers.split(',').any(|name| name == "pids") => {
                Path::new("/sys/fs/cgroup/pids")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        let above = path.ancestors().take_while(|path| !path.as_os_str().is_empty());
        found.extend(above.map(|path| root.join(path)).chain([root.to_path_buf()]));
    }
    found
}

/// Returns the number in a file, or `None` if the file says `max` or does not exist.
fn read_number(file: &Path) -> Option<usize> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_process_and_all_above() {
        let paths = |groups| {
            let found = groups_of_pids(groups);
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            paths("0::/system.slice/rump.service\n"),
            [
                "/sys/fs/cgroup/system.slice/rump.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup"
            ]
        );
        assert_eq!(paths("0::/\n"), ["/sys/fs/cgroup"]);
        assert_eq!(
            paths("9:name=systemd:/x\n8:misc,pids:/a:b\n4:memory:/y\n"),
            ["/sys/fs/cgroup/pids/a:b", "/sys/fs/cgroup/pids"]
        );
        assert!(paths("").is_empty() && paths("nonsense").is_empty());
    }

    #[test]
    fn a_group_leaves_half_of_what_others_do_not_have() {
        let group = tempfile::tempdir().expect("a directory");
        assert_eq!(by_cgroup(group.path()), None, "it bounds nothing");
        let write = |name: &str, text: &str| {
            fs::write(group.path().join(name), text).expect("a file");
        };
        write("pids.max", "max\n");
        assert_eq!(by_cgroup(group.path()), None, "it has no bound");
        write("pids.max", "500\n");
        write("pids.current", "100\n");
        let room = by_cgroup(group.path()).expect("a bound");
        assert_eq!(room.threads, 200);
        assert!(room.bound.ends_with("/pids.max"), "{room:?} names the file");
        write("pids.current", "600\n");
        assert_eq!(by_cgroup(group.path()).map(|room| room.threads), Some(0));
    }

    #[test]
    fn threads_of_a_user_are_those_of_its_processes() {
        let status = "Name:\tx\nUid:\t7\t8\t8\t8\nThreads:\t12\nNoNewPrivs:\t0\n";
        assert_eq!(threads_in(status, 7), Some(12));
        assert_eq!(threads_in(status, 8), None, "the real user counts");
        assert_eq!(threads_in("", 7), None);
        assert!(threads_of(getuid().as_raw()) >= 1, "this thread is there");
    }

    #[test]
    fn the_first_namespace_maps_all_to_themselves() {
        assert!(is_first_namespace("         0          0 4294967295\n"));
        assert!(!is_first_namespace("0 100000 65536\n") && !is_first_namespace(""));
    }

    #[test]
    fn this_system_has_room() {
        let room = for_threads().expect("every system has bounds");
        assert!(!room.bound.is_empty());
    }
}
