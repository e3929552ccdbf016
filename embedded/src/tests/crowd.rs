//! Several guests at once in the same few directories. Whatever the order of events, in the end the tree is
//! consistent, the counts are right, and no call waits for ever.
//!
//! `cargo test` makes a few rounds, `ROUNDS=1000 cargo test --release --lib crowd` more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::super::Embedded;
use super::super::testing::{Guest, kernel, o};
use super::files::{on, rename, word};
use crate::seeds::number;
use kernel::{
    Errno,
    sys::{CHDIR, CHROOT, LINK, MKDIR, POSIX_RENAME, RMDIR, SYMLINK, UNLINK},
};

/// The longest that a round may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of steps of each guest in a round.
const STEPS: usize = 400;

fn rounds() -> u64 {
    number("ROUNDS").unwrap_or(6)
}

/// Runs this in so many guests at once, each with its own random numbers.
fn together(
    kernel: &Arc<Embedded>,
    many: u64,
    seed: u64,
    act: impl Fn(&Guest, &mut fastrand::Rng) + Send + Sync + 'static,
) {
    let (act, (done, all)) = (Arc::new(act), channel());
    for who in 0..many {
        let (kernel, act, done) = (kernel.clone(), act.clone(), done.clone());
        std::thread::spawn(move || {
            let mut guest = Guest::new(&kernel);
            guest.slow = false;
            act(&guest, &mut fastrand::Rng::with_seed(seed * many + who));
            guest.process.release();
            drop((guest, kernel));
            let _ = done.send(());
        });
    }
    drop(done);
    for _ in 0..many {
        all.recv_timeout(PATIENCE).expect("every guest comes through");
    }
}

fn two(guest: &Guest, number: i32, one: &str, other: &str) -> Result<i64, Errno> {
    guest.call(number, &[guest.string(one), guest.string(other)])
}

fn pick<'a>(random: &mut fastrand::Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

/// Returns what `lstat` reports: the inode, `true` for a directory, and the links.
fn look(guest: &Guest, path: &str) -> (u64, bool, u64) {
    guest.call(441, &[guest.string(path), guest.buffer()]).unwrap();
    let (mode_and_links, number) = (word(guest, 8), word(guest, 16));
    let links = word(guest, 24) & 0xffff_ffff;
    (number as u64, mode_and_links & 0o170_000 == 0o040_000, links as u64)
}

fn names(guest: &Guest, path: &str) -> Vec<String> {
    let fd = guest.open(path, o::RDONLY).unwrap();
    let mut names = Vec::new();
    loop {
        let len = guest.call(390, &[fd, guest.buffer(), 4096]).unwrap() as usize;
        if len == 0 {
            break;
        }
        let bytes = guest.get(guest.buffer(), len);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let word = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]) as usize;
            names.push(String::from_utf8(rest[13..13 + word(10)].to_vec()).unwrap());
            rest = &rest[word(8)..];
        }
    }
    guest.close(fd).unwrap();
    names.into_iter().filter(|name| name != "." && name != "..").collect()
}

/// A tree as it was found: its directories, and for each file its link count and the links found.
#[derive(Default)]
struct Tree {
    directories: BTreeSet<u64>,
    files: BTreeMap<u64, (u64, u64)>,
}

impl Tree {
    fn walk(&mut self, guest: &Guest, path: &str) {
        let (own, _, links) = look(guest, path);
        assert!(self.directories.insert(own), "{path} is in two places");
        assert!(self.directories.len() < 10_000, "a tree without end");
        let mut below = 0;
        for name in names(guest, path) {
            let inside = format!("{path}/{name}");
            let (number, is_directory, links) = look(guest, &inside);
            if is_directory {
                below += 1;
                assert_eq!(look(guest, &format!("{inside}/..")).0, own, "{inside}/..");
                self.walk(guest, &inside);
            } else {
                self.files.entry(number).or_insert((links, 0)).1 += 1;
            }
        }
        assert_eq!(links, 2 + below, "links of {path}");
    }

    /// Walks the whole tree, and checks that it is all there is.
    fn check(kernel: &Embedded, guest: &Guest) -> Tree {
        let mut tree = Tree::default();
        tree.walk(guest, "/");
        for (number, (links, found)) in &tree.files {
            assert_eq!(links, found, "names of inode {number}");
        }
        let found = tree.directories.len() + tree.files.len();
        assert_eq!(kernel.usage().inodes, found as u64, "what nobody can reach");
        assert_eq!(kernel.usage().files, 1, "open files but for one console");
        tree
    }
}

/// Removes everything in a directory except what is there from the start.
fn clear(guest: &Guest, path: &str) {
    for name in names(guest, path) {
        let inside = format!("{path}/{name}");
        match inside.as_str() {
            "//dev" => {}
            "//tmp" => clear(guest, &inside),
            _ if look(guest, &inside).1 => {
                clear(guest, &inside);
                on(guest, RMDIR, &inside).unwrap();
            }
            _ => assert_eq!(on(guest, UNLINK, &inside), Ok(0), "{inside}"),
        }
    }
}

#[test]
fn directories_moved_across_one_another_all_stay_within_reach() {
    const MOVED: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    for round in 0..rounds() {
        let kernel = Arc::new(kernel());
        let guest = Guest::new(&kernel);
        for name in MOVED {
            on(&guest, MKDIR, &format!("/{name}")).unwrap();
            // No directory is ever empty, so nothing replaces one.
            on(&guest, MKDIR, &format!("/{name}/{name}{name}")).unwrap();
        }
        together(&kernel, 2 + round % 3, round, |guest, random| {
            let any = |random: &mut fastrand::Rng| {
                let deep = random.usize(1..4);
                let names: Vec<_> = (0..deep).map(|_| pick(random, &MOVED)).collect();
                format!("/{}", names.join("/"))
            };
            for _ in 0..STEPS {
                let (from, to) = (any(random), any(random));
                let moved = rename(guest, &from, &to);
                let refused = [Errno::ENOENT, Errno::EINVAL, Errno::ENOTEMPTY];
                assert!(moved.is_ok_and(|_| true) || refused.contains(&moved.unwrap_err()));
            }
        });
        let before = 3;
        let tree = Tree::check(&kernel, &guest);
        assert_eq!(tree.directories.len(), before + 2 * MOVED.len(), "round {round}");
        clear(&guest, "/");
        assert_eq!(kernel.usage().inodes, 7);
    }
}

/// Makes a random call that changes names.
fn meddle(guest: &Guest, random: &mut fastrand::Rng) {
    let any = |random: &mut fastrand::Rng| {
        let dirs = ["", "/", "/a/", "/b/", "/a/a/", "/b/a/", "/a/b/a/", "../", "../../b/"];
        format!("{}{}", pick(random, &dirs), pick(random, &["a", "a", "b", "b", "f", "g"]))
    };
    let (one, other) = (any(random), any(random));
    let result = match random.u32(..16) {
        0 | 1 => on(guest, MKDIR, &one),
        2 => on(guest, RMDIR, &one),
        3 => on(guest, UNLINK, &one),
        4 => two(guest, LINK, &one, &other),
        5 => two(guest, SYMLINK, &one, &other),
        6 => two(guest, POSIX_RENAME, &one, &other),
        7 => on(guest, CHDIR, &one),
        8 => guest.call(199, &[random.u64(3..9), 0, 0, 2]),
        9 => guest.close(random.u64(3..9)),
        10 | 11 => guest.open(&one, o::RDWR | o::CREAT).and_then(|fd| {
            let written = guest.write(fd, b"something");
            if fd > 8 { guest.close(fd) } else { written }
        }),
        _ => rename(guest, &one, &other),
    };
    // Some calls succeed and some fail; only the sum is checked.
    let _ = result;
}

#[test]
fn whatever_many_do_to_the_same_names_adds_up() {
    for round in 0..rounds() {
        let kernel = Arc::new(kernel());
        let guest = Guest::new(&kernel);
        guest.call(440, &[0, guest.buffer()]).unwrap();
        together(&kernel, 2 + round % 3, round, |guest, random| {
            for _ in 0..STEPS {
                meddle(guest, random);
            }
        });
        assert_eq!(kernel.usage().processes, 1);
        Tree::check(&kernel, &guest);
        clear(&guest, "/");
        let left = kernel.usage();
        assert_eq!((left.inodes, left.bytes), (7, 0), "round {round}");
    }
}

/// A point where two threads wait for each other, spinning, so that neither is much later than the other.
#[derive(Default)]
struct Gate(AtomicU64);

impl Gate {
    fn pass(&self) {
        let (at, begun) = (self.0.fetch_add(1, SeqCst), Instant::now());
        while self.0.load(SeqCst) < (at / 2 + 1) * 2 {
            assert!(begun.elapsed() < PATIENCE, "the other one does not come");
            std::thread::yield_now();
        }
    }
}

#[test]
fn two_directories_are_never_moved_into_each_other() {
    let kernel = Arc::new(kernel());
    let guest = Guest::new(&kernel);
    on(&guest, MKDIR, "/a").unwrap();
    on(&guest, MKDIR, "/b").unwrap();
    let (gate, came) = (Gate::default(), AtomicU64::new(0));
    together(&kernel, 2, 1, move |guest, _| {
        let is_first = came.fetch_add(1, SeqCst) == 0;
        for turn in 0..rounds() * 500 {
            gate.pass();
            let _ =
                if is_first { rename(guest, "/a", "/b/a") } else { rename(guest, "/b", "/a/b") };
            gate.pass();
            // Move the directory back.
            if is_first {
                let back = [rename(guest, "/b/a", "/a"), rename(guest, "/a/b", "/b")];
                let moved = back.iter().filter(|moved| moved.is_ok()).count();
                assert_eq!(moved, 1, "in turn {turn}, then {back:?}");
            }
        }
    });
    Tree::check(&kernel, &guest);
}

#[test]
fn nobody_waits_for_ever_where_a_directory_is_older_than_the_one_it_is_in() {
    let kernel = Arc::new(kernel());
    let guest = Guest::new(&kernel);
    for path in ["/inner", "/inner/stays", "/inner/moves", "/outer"] {
        on(&guest, MKDIR, path).unwrap();
    }
    rename(&guest, "/inner", "/outer/inner").unwrap();
    let came = AtomicU64::new(0);
    together(&kernel, 2, 1, move |guest, _| {
        let is_first = came.fetch_add(1, SeqCst) == 0;
        for _ in 0..rounds() * 1000 {
            if is_first {
                assert_eq!(rename(guest, "/outer/inner/moves", "/outer/moves"), Ok(0));
                assert_eq!(rename(guest, "/outer/moves", "/outer/inner/moves"), Ok(0));
            } else {
                assert_eq!(on(guest, RMDIR, "/outer/inner"), Err(Errno::ENOTEMPTY));
            }
        }
    });
    Tree::check(&kernel, &guest);
}

#[test]
fn who_is_moved_out_of_his_root_gets_no_further_than_that() {
    let kernel = Arc::new(kernel());
    let guest = Guest::new(&kernel);
    // So deep that the walk is often under way when the move happens.
    const DEPTH: usize = 150;
    let deep = |depth| format!("/jail/d{}", "/e".repeat(depth));
    for path in ["/x", "/x/y", "/x/y/out", "/jail"] {
        on(&guest, MKDIR, path).unwrap();
    }
    for depth in 0..=DEPTH {
        on(&guest, MKDIR, &deep(depth)).unwrap();
    }
    let above = ["/", "/x", "/x/y"].map(|path| look(&guest, path).0);
    let (gate, came) = (Gate::default(), AtomicU64::new(0));
    together(&kernel, 2, 1, move |guest, _| {
        if came.fetch_add(1, SeqCst) == 0 {
            gate.pass();
            for _ in 0..rounds() * 500 {
                assert_eq!(rename(guest, "/jail/d", "/x/y/out/d"), Ok(0));
                assert_eq!(rename(guest, "/x/y/out/d", "/jail/d"), Ok(0));
            }
            return;
        }
        on(guest, CHDIR, &deep(DEPTH)).unwrap();
        on(guest, CHROOT, "/jail").unwrap();
        gate.pass();
        let up = "../".repeat(DEPTH + 10);
        for _ in 0..rounds() * 500 {
            // The directory it was in when it was moved may be in another one by the time of the next name.
            assert!(!above.contains(&look(guest, &up).0));
        }
    });
}

#[test]
fn a_name_that_is_replaced_is_there_all_the_time() {
    let kernel = Arc::new(kernel());
    let guest = Guest::new(&kernel);
    guest.open("/tmp/it", o::RDWR | o::CREAT).unwrap();
    together(&kernel, 4, 1, |guest, random| {
        let own = format!("/tmp/of-{}", guest.process.pid());
        for _ in 0..rounds() * 100 {
            // Replace the file by renaming, as programs do with a file that others read.
            let fd = guest.open(&own, o::RDWR | o::CREAT | o::EXCL).unwrap();
            guest.close(fd).unwrap();
            assert_eq!(two(guest, LINK, "/tmp/it", &format!("{own}-too")), Ok(0));
            assert_eq!(on(guest, UNLINK, &format!("{own}-too")), Ok(0));
            assert_eq!(rename(guest, &own, "/tmp/it"), Ok(0));
            let fd = guest.open("/tmp/it", o::RDWR | if random.bool() { o::CREAT } else { 0 });
            guest.close(fd.unwrap()).unwrap();
        }
    });
    assert_eq!(names(&guest, "/tmp"), ["it"]);
}

#[test]
fn a_name_that_is_replaced_can_be_taken_away_or_moved() {
    // Guests replace the file all the time, and one of them at a time removes it: the removal always finds
    // a file.
    for (taken_by_rename, seed) in [(false, 1), (true, 2)] {
        let kernel = Arc::new(kernel());
        let guest = Guest::new(&kernel);
        guest.open("/tmp/it", o::RDWR | o::CREAT).unwrap();
        let taking = Arc::new(std::sync::Mutex::new(()));
        together(&kernel, 4, seed, move |guest, _| {
            let own = format!("/tmp/of-{}", guest.process.pid());
            for _ in 0..rounds() * 100 {
                let fd = guest.open(&own, o::RDWR | o::CREAT).unwrap();
                guest.close(fd).unwrap();
                assert_eq!(rename(guest, &own, "/tmp/it"), Ok(0));
                // One guest at a time removes it, so that it is there until then: the others only replace
                // it.
                let Ok(_alone) = taking.try_lock() else { continue };
                let taken = if taken_by_rename {
                    rename(guest, "/tmp/it", "/tmp/gone")
                } else {
                    on(guest, UNLINK, "/tmp/it")
                };
                assert_eq!(taken, Ok(0));
                let fd = guest.open("/tmp/it", o::RDWR | o::CREAT).unwrap();
                guest.close(fd).unwrap();
            }
        });
    }
}

#[test]
fn a_removed_directory_has_no_links_however_it_was_emptied() {
    let kernel = Arc::new(kernel());
    let guest = Guest::new(&kernel);
    let mut other = Guest::new(&kernel);
    other.slow = false;
    for turn in 0..rounds() * 300 {
        on(&guest, MKDIR, "/p").unwrap();
        on(&guest, MKDIR, "/p/c").unwrap();
        let fd = guest.open("/p", o::RDONLY).unwrap();
        // One guest removes the last entry, and the other removes the directory as soon as it can.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    if on(&other, RMDIR, "/p") == Ok(0) {
                        return;
                    }
                }
            });
            match turn % 2 {
                0 => on(&guest, RMDIR, "/p/c").unwrap(),
                _ => rename(&guest, "/p/c", "/c").unwrap(),
            };
        });
        let _ = on(&guest, RMDIR, "/c");
        guest.call(440, &[fd, guest.buffer()]).unwrap();
        assert_eq!(word(&guest, 24) & 0xffff_ffff, 0, "turn {turn}");
        guest.close(fd).unwrap();
    }
}
