//! Hostile clients over real sockets: whatever one does, a well-behaved client is served at once, both
//! while the hostile client holds on and after it has gone, and in the end nothing of it is left.
//!
//! The attacks are a catalogue in groups (`attacks/`); each group runs against each target on one server,
//! so that damage adds up and shows. A target is the embedded kernel in this process, the stand-in for
//! librump behind the program itself, and NetBSD's own kernel where RUMP_PREFIX names one.
//!
//! With part of an attack's name in ATTACK, only that attack is run.

mod fake;
mod process;
mod support;

#[path = "attacks/answers.rs"]
mod answers;
#[path = "attacks/bodies.rs"]
mod bodies;
#[path = "attacks/deaths.rs"]
mod deaths;
#[path = "attacks/exhaustion.rs"]
mod exhaustion;
#[path = "attacks/harness.rs"]
mod harness;
#[path = "attacks/headers.rs"]
mod headers;
#[path = "attacks/moments.rs"]
mod moments;
#[path = "attacks/slow.rs"]
mod slow;
#[path = "attacks/target.rs"]
mod target;

use std::collections::HashSet;
use std::thread;
use std::time::Instant;

use harness::{Group, run, words};
use process::say;
use target::Kind;

/// All attacks. A new attack goes into the group of its kind, a new group here.
const CATALOGUE: [&Group; 7] = [
    &deaths::GROUP,
    &headers::GROUP,
    &bodies::GROUP,
    &answers::GROUP,
    &moments::GROUP,
    &slow::GROUP,
    &exhaustion::GROUP,
];

/// The fewest attacks there may be.
const FEWEST: usize = 50;

#[test]
fn the_catalogue() {
    let mut names = HashSet::new();
    for group in CATALOGUE {
        println!("{}:", group.name);
        for attack in group.attacks {
            println!("    {}", attack.name);
            assert!(names.insert(attack.name), "two attacks of the name {:?}", attack.name);
        }
    }
    println!("{} attacks", names.len());
    assert!(names.len() >= FEWEST, "only {} attacks", names.len());
}

#[test]
fn embedded_unix() {
    all_groups(Kind::EmbeddedUnix);
}

#[test]
fn embedded_tcp() {
    all_groups(Kind::EmbeddedTcp);
}

#[test]
fn fake_unix() {
    all_groups(Kind::StandInUnix);
}

#[test]
fn fake_tcp() {
    all_groups(Kind::StandInTcp);
}

#[test]
fn netbsd_unix() {
    all_groups(Kind::NetBsdUnix);
}

#[test]
fn netbsd_tcp() {
    all_groups(Kind::NetBsdTcp);
}

/// Runs the groups beside each other, since each waits most of its time: at its end for the preforks of
/// parents that have gone.
fn all_groups(kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let begun = Instant::now();
    let failed: Vec<String> = thread::scope(|scope| {
        let groups = CATALOGUE.map(|group| (group, scope.spawn(move || run(group, kind))));
        let failed = groups.into_iter().filter_map(|(group, thread)| {
            let panic = thread.join().err()?;
            Some(format!("in the group {:?}: {}", group.name, words(&*panic)))
        });
        failed.collect()
    });
    assert!(failed.is_empty(), "{kind:?}: {}", failed.join("\n"));
    say(&format!("{kind:?}: all groups in {:.1?}", begun.elapsed()));
}
