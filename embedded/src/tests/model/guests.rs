//! The other side of the model: guests of a kernel, which make the calls of each step.

use std::collections::HashMap;

use super::super::super::testing::kernel_with;
use super::super::super::testing::{Guest, o};
use super::super::super::{Embedded, Limits, Usage};
use super::kernel::{Answer, Stat};
use super::steps::{At, Op, Step, pattern};
use kernel::Errno;

/// The current directory as a descriptor (`AT_FDCWD`).
const HERE: u64 = -100i64 as u64;

/// A kernel, its guests, and the node of the model for each of its inodes.
pub struct Real {
    kernel: Embedded,
    guests: Vec<Option<Guest>>,
    known: HashMap<u64, u64>,
}

impl Real {
    /// Makes a kernel with a family for each of `rooms`, the bytes its guest can take in a run.
    pub fn new(limits: &Limits, rooms: &[usize]) -> Real {
        let kernel = kernel_with(limits.clone());
        let guests = rooms.iter().map(|&room| {
            let mut guest = Guest::new(&kernel);
            guest.room = room;
            // The console is counted once the guest has used it.
            stat_open(&guest, 0).expect("a console");
            Some(guest)
        });
        let guests = guests.collect();
        Real { kernel, guests, known: HashMap::new() }
    }

    pub fn usage(&self) -> Usage {
        self.kernel.usage()
    }

    pub fn guest(&self, who: usize) -> &Guest {
        self.guests[who].as_ref().expect("a guest that is there")
    }

    /// Returns `true` if a kernel's inode may be the model's node: they were paired before, or both are
    /// new.
    pub fn is_same(&mut self, inode: u64, node: u64) -> bool {
        match self.known.get(&inode) {
            Some(known) => *known == node,
            None => {
                let is_new = self.known.values().all(|known| *known != node);
                self.known.insert(inode, node);
                is_new
            }
        }
    }

    pub fn step(&mut self, step: &Step) -> Result<Answer, Errno> {
        match step.op {
            Op::Fork => {
                let mut child = self.guest(step.who).fork();
                child.room = self.guest(step.who).room;
                self.guests.push(Some(child));
                Ok(Answer::Number(0))
            }
            Op::Exit => {
                self.guests[step.who].take().expect("a guest that is there").process.release();
                Ok(Answer::Number(0))
            }
            _ => perform(self.guest(step.who), &step.op),
        }
    }
}

fn number(result: Result<i64, Errno>) -> Result<Answer, Errno> {
    result.map(Answer::Number)
}

fn whole(at: &At) -> bool {
    at.dir.is_none()
}

/// Returns the directory and path arguments of a call.
fn two(guest: &Guest, at: &At) -> [u64; 2] {
    [at.dir.unwrap_or(HERE), guest.string(&at.path)]
}

fn perform(guest: &Guest, op: &Op) -> Result<Answer, Errno> {
    let text = |path: &String| guest.string(path);
    // Makes the call that takes a path, or the one that takes a directory before it.
    let named = |plain: i32, beside: i32, at: &At, more: &[u64]| {
        let args = two(guest, at);
        let from = if whole(at) { 1 } else { 0 };
        let call = if whole(at) { plain } else { beside };
        guest.call(call, &[&args[from..], more].concat())
    };
    match op {
        Op::Open { at, flags, mode } => number(named(5, 468, at, &[*flags, *mode])),
        Op::Close(fd) => number(guest.close(*fd)),
        Op::Dup(fd) => number(guest.call(41, &[*fd])),
        Op::Dup2(from, to) => number(guest.call(90, &[*from, *to])),
        Op::Read { fd, len, at } => read(guest, *fd, *len, *at).map(Answer::Bytes),
        Op::Write { fd, len, fill, at } => {
            guest.put(guest.buffer(), &pattern(*fill, *len));
            let args = [*fd, guest.buffer(), *len, 0, at.unwrap_or(0) as u64];
            number(guest.call(if at.is_some() { 174 } else { 4 }, &args))
        }
        Op::Seek { fd, by, whence } => number(guest.call(199, &[*fd, 0, *by as u64, *whence])),
        Op::Append(fd, on) => number(guest.call(92, &[*fd, 4, if *on { o::APPEND } else { 0 }])),
        Op::Truncate { path, len } => number(guest.call(200, &[text(path), 0, *len as u64])),
        Op::CutOpen { fd, len } => number(guest.call(201, &[*fd, 0, *len as u64])),
        Op::MakeDirectory(at, mode) => number(named(136, 461, at, &[*mode])),
        Op::RemoveDirectory(at) => {
            number(named(137, 471, at, if whole(at) { &[] } else { &[0x800] }))
        }
        Op::Unlink(at) => number(named(10, 471, at, &[])),
        Op::Link { old, new, follow } => number(link(guest, old, new, *follow)),
        Op::Symlink { target, at } if whole(at) => {
            number(guest.call(57, &[text(target), text(&at.path)]))
        }
        Op::Symlink { target, at } => {
            let [dir, path] = two(guest, at);
            number(guest.call(470, &[text(target), dir, path]))
        }
        Op::ReadLink(at) => {
            let len = named(58, 469, at, &[guest.buffer(), 2000])?;
            Ok(Answer::Bytes(guest.get(guest.buffer(), len as usize)))
        }
        Op::Rename { old, new } if whole(old) && whole(new) => {
            number(guest.call(128, &[text(&old.path), text(&new.path)]))
        }
        Op::Rename { old, new } => {
            number(guest.call(458, &[two(guest, old), two(guest, new)].concat()))
        }
        Op::PosixRename { old, new } => number(guest.call(270, &[text(old), text(new)])),
        Op::Stat { at, follow } => stat(guest, at, *follow).map(Answer::Stat),
        Op::StatOpen(fd) => stat_open(guest, *fd),
        Op::List(fd) => {
            guest.call(199, &[*fd, 0, 0, 0])?;
            let names = list(guest, *fd)?;
            guest.call(199, &[*fd, 0, 0, 0])?;
            Ok(Answer::Names(names))
        }
        Op::Chdir(path) => number(guest.call(12, &[text(path)])),
        Op::ChdirOpen(fd) => number(guest.call(13, &[*fd])),
        Op::Chroot(path) => number(guest.call(61, &[text(path)])),
        Op::WhereAmI => {
            let len = guest.call(296, &[guest.buffer(), 4096])? as usize;
            Ok(Answer::Bytes(guest.get(guest.buffer(), len - 1)))
        }
        Op::Chmod(path, mode) => number(guest.call(15, &[text(path), *mode])),
        Op::Umask(mask) => number(guest.call(60, &[*mask])),
        Op::Become { uid, gid } => {
            guest.call(181, &[u64::from(*gid)]).ok();
            number(guest.call(23, &[u64::from(*uid)]))
        }
        Op::Fork | Op::Exit => unreachable!("these are no calls"),
    }
}

pub fn read(guest: &Guest, fd: u64, len: u64, at: Option<i64>) -> Result<Vec<u8>, Errno> {
    let args = [fd, guest.buffer(), len, 0, at.unwrap_or(0) as u64];
    let count = guest.call(if at.is_some() { 173 } else { 3 }, &args)?;
    Ok(guest.get(guest.buffer(), count as usize))
}

fn link(guest: &Guest, old: &At, new: &At, follow: bool) -> Result<i64, Errno> {
    if whole(old) && whole(new) {
        return guest.call(9, &[guest.string(&old.path), guest.string(&new.path)]);
    }
    let flags = [if follow { 0x400 } else { 0 }];
    guest.call(457, &[&two(guest, old)[..], &two(guest, new), &flags].concat())
}

pub fn stat(guest: &Guest, at: &At, follow: bool) -> Result<Stat, Errno> {
    let [dir, path] = two(guest, at);
    match (at.dir, follow) {
        (None, true) => guest.call(439, &[path, guest.buffer()])?,
        (None, false) => guest.call(441, &[path, guest.buffer()])?,
        _ => guest.call(466, &[dir, path, guest.buffer(), if follow { 0 } else { 0x200 }])?,
    };
    Ok(seen(guest))
}

/// Of the console, checks only that there is one.
fn stat_open(guest: &Guest, fd: u64) -> Result<Answer, Errno> {
    const CHARACTER: u32 = 0o020_000;
    guest.call(440, &[fd, guest.buffer()])?;
    let stat = seen(guest);
    let is_console = stat.mode & 0o170_000 == CHARACTER;
    Ok(if is_console { Answer::Number(0) } else { Answer::Stat(stat) })
}

/// Decodes the guest's `struct stat`.
fn seen(guest: &Guest) -> Stat {
    let bytes = guest.get(guest.buffer(), 152);
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    Stat {
        node: word(16),
        mode: half(8),
        links: half(24).into(),
        uid: half(28),
        size: word(SIZE_AT),
    }
}

/// The offset of `st_size`.
const SIZE_AT: usize = 112;

/// Returns all entries from the offset of the descriptor on: name, type and inode.
pub fn list(guest: &Guest, fd: u64) -> Result<Vec<(String, u32, u64)>, Errno> {
    let mut entries = Vec::new();
    loop {
        let len = guest.call(390, &[fd, guest.buffer(), 300])? as usize;
        if len == 0 {
            return Ok(entries);
        }
        let bytes = guest.get(guest.buffer(), len);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let word = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]) as usize;
            let inode = u64::from_le_bytes(rest[..8].try_into().unwrap());
            let name = String::from_utf8(rest[13..13 + word(10)].to_vec()).unwrap();
            entries.push((name, u32::from(rest[12]) << 12, inode));
            rest = &rest[word(8)..];
        }
    }
}
