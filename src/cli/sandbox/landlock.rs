//! The Landlock part of the sandbox: the server may reach no files, networks or other processes, except
//! that it may remove the socket file. This holds for what io_uring does on the server's behalf as well,
//! which seccomp does not see.
//!
//! Source: landlock(7); the kernel's Documentation/userspace-api/landlock.rst.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::Failure;

/// The interface of Landlock to ask for: the latest when this was written.
const WANTED: ABI = ABI::V6;

/// The features that came with a later interface than the first, each with its first Linux.
const LATER: [(ABI, &str, &str); 4] = [
    (ABI::V3, "6.2", "truncating files"),
    (ABI::V4, "6.7", "binding and connecting TCP sockets"),
    (ABI::V5, "6.10", "requests to devices"),
    (ABI::V6, "6.12", "signals to other processes and abstract unix sockets"),
];

/// Confines this thread and those it will make. `socket` is the file to be removed in the end.
pub fn confine(socket: Option<&Path>) -> Result<(), Failure> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?;
    let mut ruleset = ruleset.create()?;
    // Nothing can be removed from a directory that cannot be reached.
    if let Some(Ok(dir)) = socket.map(|socket| PathFd::new(directory(socket))) {
        ruleset = ruleset.add_rule(PathBeneath::new(dir, AccessFs::RemoveFile))?;
    }
    let status = ruleset.restrict_self()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. }
            if status.ruleset != RulesetStatus::NotEnforced =>
        {
            say(effective_abi);
            Ok(())
        }
        LandlockStatus::NotEnabled => Err("it is switched off at boot".into()),
        _ => Err("this Linux was built without it; 5.13 is the first that has it".into()),
    }
}

/// Returns the directory that a file is in.
fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

fn say(abi: ABI) {
    for (since, linux, what) in LATER {
        if abi < since {
            tracing::warn!("--sandbox: Landlock does not bound {what} here (Linux {linux} does)");
        }
    }
    tracing::info!("--sandbox: Landlock, interface {}", abi as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_directory_is_in_this_one() {
        assert_eq!(directory(Path::new("s")), Path::new("."));
        assert_eq!(directory(Path::new("/s")), Path::new("/"));
        assert_eq!(directory(Path::new("a/b/s")), Path::new("a/b"));
    }
}
