//! Removes the files that a sequence has left.

use client::Client;
use client::numbers::{O_DIRECTORY, O_RDONLY};
use embedded::by_name;

/// The most names removed, and the deepest directory: a sequence makes fewer.
const MOST_NAMES: usize = 2000;
const DEEPEST: usize = 24;

/// Removes a directory and everything below it, as far as possible: without getdents only the
/// directory.
pub fn remove_all(client: &Client, path: &str) {
    let mut budget = MOST_NAMES;
    remove(client, path, DEEPEST, &mut budget);
}

fn remove(client: &Client, path: &str, depth: usize, budget: &mut usize) {
    if client.rmdir(path).is_ok() || depth == 0 {
        return;
    }
    for name in names(client, path) {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        let inner = format!("{path}/{name}");
        if client.unlink(&inner).is_err() {
            remove(client, &inner, depth - 1, budget);
        }
    }
    let _ = client.rmdir(path);
}

/// Returns the names in a directory, as many as a buffer takes.
fn names(client: &Client, path: &str) -> Vec<String> {
    let Some(getdents) = by_name("getdents") else { return Vec::new() };
    let Ok(fd) = client.open(path, O_RDONLY | O_DIRECTORY, 0) else { return Vec::new() };
    let mut names = Vec::new();
    if let Ok(buffer) = client.space().buffer(64 << 10) {
        let args = [fd as u64, buffer.addr(), buffer.len() as u64];
        if let Ok([len, _]) = client.call(getdents.number, &args) {
            parse(&buffer.bytes(len as usize), &mut names);
        }
    }
    let _ = client.close(fd);
    names
}

/// Appends the names of directory entries. Source: NetBSD `sys/sys/dirent.h`.
fn parse(mut bytes: &[u8], names: &mut Vec<String>) {
    while bytes.len() >= 13 {
        let reclen = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let namlen = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        let (Some(name), Some(rest)) = (bytes.get(13..13 + namlen), bytes.get(reclen.max(13)..))
        else {
            return;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if name != "." && name != ".." && !name.is_empty() {
            names.push(name);
        }
        bytes = rest;
    }
}
