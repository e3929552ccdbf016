//! The steps of sequences, made at random and printed: a step is one call of one guest.

use std::fmt;
use std::ops::Range;

use super::super::super::testing::o;

/// A flag of open(2) that only this module needs.
pub const NOFOLLOW: u64 = 0x100;

/// A path, and the descriptor it begins at, `None` for the current directory.
#[derive(Clone)]
pub struct At {
    pub dir: Option<u64>,
    pub path: String,
}

/// A step: one call of one guest.
#[derive(Clone)]
pub struct Step {
    pub who: usize,
    pub op: Op,
}

#[derive(Clone, Debug)]
pub enum Op {
    Open {
        at: At,
        flags: u64,
        mode: u64,
    },
    Close(u64),
    Dup(u64),
    Dup2(u64, u64),
    Read {
        fd: u64,
        len: u64,
        at: Option<i64>,
    },
    Write {
        fd: u64,
        len: u64,
        fill: u8,
        at: Option<i64>,
    },
    Seek {
        fd: u64,
        by: i64,
        whence: u64,
    },
    /// Sets or clears O_APPEND.
    Append(u64, bool),
    Truncate {
        path: String,
        len: i64,
    },
    CutOpen {
        fd: u64,
        len: i64,
    },
    MakeDirectory(At, u64),
    RemoveDirectory(At),
    Unlink(At),
    Link {
        old: At,
        new: At,
        follow: bool,
    },
    Symlink {
        target: String,
        at: At,
    },
    ReadLink(At),
    Rename {
        old: At,
        new: At,
    },
    /// The rename that keeps both names of one file.
    PosixRename {
        old: String,
        new: String,
    },
    Stat {
        at: At,
        follow: bool,
    },
    StatOpen(u64),
    /// Lists an open directory, from its beginning.
    List(u64),
    Chdir(String),
    ChdirOpen(u64),
    Chroot(String),
    WhereAmI,
    Chmod(String, u64),
    Umask(u64),
    Fork,
    /// Becomes another user.
    Become {
        uid: u32,
        gid: u32,
    },
    Exit,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dir {
            None => write!(f, "{:?}", self.path),
            Some(fd) => write!(f, "{fd}:{:?}", self.path),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {}: {}", self.who, brief(&self.op))
    }
}

/// Returns the debug output, cut to a readable length.
pub fn brief(what: &impl fmt::Debug) -> String {
    let all = format!("{what:?}");
    match all.char_indices().nth(300) {
        Some((end, _)) => format!("{}.. ({} characters)", &all[..end], all.len()),
        None => all,
    }
}

/// Returns a path from the current directory.
pub fn here(path: &str) -> At {
    At { dir: None, path: path.into() }
}

/// Returns the bytes that a write writes.
pub fn pattern(fill: u8, len: u64) -> Vec<u8> {
    let round: Vec<u8> = (0..251).map(|n| fill.wrapping_add(n)).collect();
    let mut all = round.repeat(len.div_ceil(251) as usize);
    all.truncate(len as usize);
    all
}

/// The source of random steps. It uses few names and numbers, so that they meet.
pub struct Source(pub fastrand::Rng);

impl Source {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())].clone()
    }

    /// Returns `true` once in `many` times on average.
    fn one_in(&mut self, many: u32) -> bool {
        self.0.u32(..many) == 0
    }

    fn fd(&mut self) -> u64 {
        if self.one_in(20) { self.pick(&[0, 1, 40, u64::MAX]) } else { self.0.u64(3..7) }
    }

    /// Returns a path that ends in one of these names, through directories that may exist.
    fn path_to(&mut self, names: &[&str]) -> String {
        if self.one_in(60) {
            return self.odd_path();
        }
        let mut path = self.pick(&["", "", "/", "/tmp/"]).to_string();
        for _ in 0..self.pick(&[0, 0, 0, 1, 1, 2]) {
            path +=
                self.pick(&["a/", "a/", "a/", "b/", "b/", "b/", "c/", "l/", "./", "../", "..//"]);
        }
        path += self.pick(names);
        if self.one_in(12) {
            path += "/";
        }
        path
    }

    /// Returns a path at a bound, or one that is nearly a path.
    fn odd_path(&mut self) -> String {
        match self.0.u32(..8) {
            0 => "x".repeat(self.0.usize(255..257)),
            1 => "a/".repeat(self.0.usize(510..513)),
            // As many links as a path may lead through, if they lead back.
            2 | 3 => "/l".repeat(self.0.usize(31..34)),
            _ => self.pick(&["", "/", "//", "/..", ".", "..", "a/.", "a/.."]).to_string(),
        }
    }

    fn path(&mut self) -> String {
        self.path_to(&["a", "a", "b", "b", "c", "c", "d", "l"])
    }

    fn at_to(&mut self, names: &[&str]) -> At {
        let dir = match self.0.u32(..24) {
            0 => Some(self.fd()),
            // Descriptor 5, at which every guest has a directory at first.
            1..=3 => Some(5),
            _ => None,
        };
        At { dir, path: self.path_to(names) }
    }

    fn at(&mut self) -> At {
        self.at_to(&["a", "a", "b", "b", "c", "c", "d", "l"])
    }

    fn len(&mut self) -> u64 {
        match self.0.u32(..20) {
            0..=1 => self.pick(&[65_535, 65_536, 65_537, 140_000]),
            2 => 0,
            _ => self.pick(&[1, 5, 100, 511, 512, 513, 4096, 5000]),
        }
    }

    fn offset(&mut self) -> i64 {
        match self.0.u32(..12) {
            0 => self.pick(&[-1, i64::MIN, i64::MAX, i64::MAX - 5, 1 << 40]),
            1 | 2 => self.pick(&[65_535, 65_536, 66_000, 131_072]),
            _ => self.pick(&[0, 0, 1, 100, 511, 512, 513, 1024, 9000]),
        }
    }

    fn position(&mut self) -> Option<i64> {
        if self.one_in(3) { Some(self.offset()) } else { None }
    }

    fn open(&mut self) -> Op {
        if self.one_in(4) {
            return Op::Open { at: self.at(), flags: o::RDONLY, mode: 0 };
        }
        let access = [o::RDONLY, o::WRONLY, o::RDWR, o::RDWR, o::RDWR];
        let mut flags = if self.one_in(40) { 3 } else { self.pick(&access) };
        let others = [
            (o::CREAT, 2),
            (o::APPEND, 5),
            (o::TRUNC, 5),
            (o::EXCL, 8),
            (o::DIRECTORY, 15),
            (NOFOLLOW, 12),
        ];
        for (flag, rare) in others {
            if self.one_in(rare) {
                flags |= flag;
            }
        }
        let names = ["c", "c", "d", "d", "e", "l", "a"];
        Op::Open { at: self.at_to(&names), flags, mode: self.mode() }
    }

    /// Returns the first steps of a guest, which make something to meet.
    pub fn first(&mut self, who: usize) -> Vec<Step> {
        let (mode, flags) = (0o777, o::RDWR | o::CREAT);
        let open = |path: &str, flags| Op::Open { at: here(path), flags, mode };
        let mut ops = vec![
            Op::Umask(self.pick(&[0, 0o022])),
            Op::MakeDirectory(here(self.pick(&["/a", "/a/b", "/b", "/tmp/a"])), mode),
            open(self.pick(&["/c", "/a/c", "/b/d"]), flags),
            open(self.pick(&["/d", "/tmp/a/c", "/c"]), flags),
            open(self.pick(&["/a", "/a/b", "/tmp/a", "/tmp", "/"]), o::RDONLY),
        ];
        if self.one_in(6) {
            ops.push(Op::Symlink { target: ".".into(), at: here("/l") });
        }
        if self.one_in(2) {
            ops.push(Op::Chdir(self.pick(&["/a", "/tmp", "/a/b"]).to_string()));
        }
        ops.into_iter().map(|op| Step { who, op }).collect()
    }

    /// Returns a step of one of these guests.
    pub fn step(&mut self, guests: Range<usize>) -> Step {
        Step { who: self.0.usize(guests), op: self.op() }
    }

    fn op(&mut self) -> Op {
        match self.0.u32(..100) {
            0..=9 => self.open(),
            10..=15 => Op::MakeDirectory(self.at_to(&["a", "b", "b", "c"]), self.mode()),
            16..=28 => Op::Rename { old: self.at(), new: self.at() },
            29..=31 => Op::PosixRename { old: self.path(), new: self.path() },
            32..=37 => Op::Link { old: self.at(), new: self.at(), follow: self.0.bool() },
            38..=41 => Op::Symlink { target: self.path(), at: self.at_to(&["l", "l", "d", "b"]) },
            42..=45 => Op::Unlink(self.at_to(&["c", "d", "l", "l", "a"])),
            46..=51 => Op::RemoveDirectory(self.at_to(&["a", "b", "b", "c"])),
            52..=54 => Op::Chdir(self.path_to(&["a", "b", "l", "", ".."])),
            55 => Op::ChdirOpen(self.fd()),
            56..=77 => self.transfer(),
            78..=79 => Op::Truncate { path: self.path(), len: self.offset() },
            80..=81 => Op::CutOpen { fd: self.fd(), len: self.offset() },
            82 => Op::Close(self.fd()),
            83 => Op::Dup(self.fd()),
            84 => Op::Dup2(self.fd(), self.fd()),
            85 => Op::Append(self.fd(), self.0.bool()),
            86..=87 => Op::Stat { at: self.at(), follow: self.0.bool() },
            88 => Op::StatOpen(self.fd()),
            89 => Op::List(self.fd()),
            90 => Op::ReadLink(self.at_to(&["l", "l", "c"])),
            91 => Op::WhereAmI,
            92 => Op::Chmod(self.path(), self.mode()),
            93 => Op::Umask(self.pick(&[0, 0o022, 0o077])),
            _ => self.rare(),
        }
    }

    fn rare(&mut self) -> Op {
        match self.0.u32(..20) {
            0..=2 => Op::Become { uid: self.pick(&[100, 101]), gid: self.pick(&[0, 9]) },
            3 | 4 => Op::Fork,
            5 => Op::Chroot(self.path()),
            6 => Op::Exit,
            _ => self.open(),
        }
    }

    fn transfer(&mut self) -> Op {
        let (fd, at) = (self.fd(), self.position());
        match self.0.u32(..7) {
            0..=1 => Op::Read { fd, len: self.len(), at },
            2..=4 => Op::Write { fd, len: self.len(), fill: self.0.u8(..), at },
            _ => Op::Seek { fd, by: self.offset(), whence: self.pick(&[0, 0, 1, 2, 3]) },
        }
    }

    fn mode(&mut self) -> u64 {
        self.pick(&[0o777, 0o777, 0o777, 0o755, 0o644, 0o1777, 0o700, 0o070, 0o500, 0])
    }
}
