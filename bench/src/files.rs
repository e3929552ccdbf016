//! The limit of open files: each connection is an open file.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Lets this process, and those it starts, have `wanted` open files, or as many as allowed, and returns
/// the new limit.
pub fn raise(wanted: Option<u64>) -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let current = wanted.unwrap_or(most).min(most);
    if limit.current != Some(current) {
        limit.current = (current < u64::MAX).then_some(current);
        setrlimit(Resource::Nofile, limit).map_err(|errno| {
            io::Error::other(format!("{current} open files (RLIMIT_NOFILE): {errno}"))
        })?;
    }
    Ok(current)
}
