//! Tests of signals: who may send them to whom, and how they are delivered.

use super::super::Embedded;
use super::super::credentials::Credentials;
use super::super::testing::{Guest, Signals, kernel};
use kernel::{Errno, sys::KILL};

use std::sync::Arc;

const SIGTERM: u64 = 15;
const SIGCONT: u64 = 19;

fn pid(guest: &Guest) -> u64 {
    guest.process.pid() as u64
}

fn minus(id: u64) -> u64 {
    -(id as i64) as u64
}

/// Returns a client with this real, effective and saved user.
fn user(kernel: &Embedded, [uid, euid, suid]: [u32; 3]) -> Guest {
    let guest = Guest::new(kernel);
    let proc = kernel.system.processes.find(guest.process.pid()).unwrap();
    let own = Credentials { uid, euid, suid, ..Credentials::default() };
    proc.change_credentials(|_| Ok(Some(own))).unwrap();
    guest
}

#[test]
fn one_s_own_users_and_the_superuser_may() {
    let kernel = kernel();
    for (from, to, allowed) in [
        ([0, 0, 0], [5, 6, 7], true),
        ([5, 0, 5], [6, 6, 6], true),
        ([0, 5, 0], [6, 6, 6], false),
        // The real and effective users of both count, the saved ones do not.
        ([5, 6, 7], [5, 8, 8], true),
        ([5, 6, 7], [6, 8, 8], true),
        ([5, 6, 7], [8, 5, 8], true),
        ([5, 6, 7], [8, 6, 8], true),
        ([5, 6, 7], [7, 7, 7], false),
        ([5, 6, 7], [8, 8, 5], false),
        ([5, 5, 5], [0, 0, 0], false),
    ] {
        let (one, other) = (user(&kernel, from), user(&kernel, to));
        one.call(82, &[0, 0]).unwrap();
        let result = one.call(KILL, &[pid(&other), SIGTERM]);
        assert_eq!(result, if allowed { Ok(0) } else { Err(Errno::EPERM) }, "{from:?} {to:?}");
        assert_eq!(one.call(KILL, &[pid(&other), 0]), result);
        assert_eq!(other.signals.taken(), if allowed { vec![15] } else { vec![] });
        // Within a session every process may be sent SIGCONT.
        assert_eq!(one.call(KILL, &[pid(&other), SIGCONT]), Ok(0));
        assert_eq!(other.signals.taken(), [19]);
        one.fork().call(147, &[]).unwrap();
        other.call(147, &[]).unwrap();
        assert_eq!(one.call(KILL, &[pid(&other), SIGCONT]), result, "{from:?} {to:?}");
        assert_eq!(one.call(KILL, &[pid(&one), SIGTERM]), Ok(0), "oneself, always");
    }
}

#[test]
fn init_takes_signals_and_does_nothing() {
    let kernel = kernel();
    let (root, other) = (Guest::new(&kernel), user(&kernel, [5, 5, 5]));
    assert_eq!(root.call(KILL, &[1, SIGTERM]), Ok(0));
    assert_eq!(other.fails(KILL, &[1, SIGTERM]), Errno::EPERM);
    assert_eq!(other.fails(KILL, &[1, 64]), Errno::EINVAL);
    assert_eq!(root.fails(KILL, &[29_000, 64]), Errno::EINVAL, "looked at first");
    assert_eq!((root.signals.taken(), other.signals.taken()), (vec![], vec![]));
}

#[test]
fn a_group_gets_what_may_be_sent_to_its_members() {
    let kernel = kernel();
    let leader = user(&kernel, [5, 5, 5]);
    leader.call(82, &[0, 0]).unwrap();
    let group = pid(&leader);
    let join = |guest: &Guest| guest.call(82, &[0, group]).unwrap();
    let (mate, stranger, outside) =
        (user(&kernel, [5, 9, 9]), user(&kernel, [6, 6, 6]), user(&kernel, [5, 5, 5]));
    join(&mate);
    join(&stranger);
    let taken = || [&leader, &mate, &stranger, &outside].map(|guest| guest.signals.taken());
    assert_eq!(outside.call(KILL, &[minus(group), 1]), Ok(0));
    assert_eq!(taken(), [vec![1], vec![1], vec![], vec![]]);
    assert_eq!(stranger.call(KILL, &[0, 2]), Ok(0), "one's own group, oneself included");
    assert_eq!(taken(), [vec![], vec![], vec![2], vec![]]);
    assert_eq!(stranger.call(KILL, &[minus(group), SIGCONT]), Ok(0));
    assert_eq!(taken(), [vec![19], vec![19], vec![19], vec![]]);
    // If no process in the group may be signalled, the error is as if it were empty, as in NetBSD.
    let other = user(&kernel, [7, 7, 7]);
    assert_eq!(other.fails(KILL, &[minus(group), 1]), Errno::ESRCH);
    assert_eq!(other.fails(KILL, &[minus(4_000), 1]), Errno::ESRCH);
    // A process that leaves the group gets no more of its signals.
    mate.call(82, &[0, 0]).unwrap();
    stranger.process.release();
    assert_eq!(outside.call(KILL, &[minus(group), 3]), Ok(0));
    assert_eq!(taken(), [vec![3], vec![], vec![], vec![]]);
}

#[test]
fn everybody_is_who_may_be_reached_but_oneself() {
    let kernel = kernel();
    let guests = [[0, 0, 0], [5, 5, 5], [5, 6, 6], [7, 7, 7]].map(|ids| user(&kernel, ids));
    let taken = || guests.each_ref().map(|guest| guest.signals.taken().len());
    assert_eq!(guests[1].call(KILL, &[u64::MAX, 1]), Ok(0));
    assert_eq!(taken(), [0, 0, 1, 0]);
    assert_eq!(guests[0].call(KILL, &[u64::MAX, 1]), Ok(0));
    assert_eq!(taken(), [0, 1, 1, 1]);
    assert_eq!(guests[3].fails(KILL, &[u64::MAX, 1]), Errno::ESRCH);
    assert_eq!(taken(), [0, 0, 0, 0]);
}

#[test]
fn a_prefork_keeps_its_signals_for_who_takes_its_place() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let prefork = guest.process.prefork().unwrap();
    let at = prefork.pid() as u64;
    for signo in [30, 2, 30, 63] {
        assert_eq!(guest.call(KILL, &[at, signo]), Ok(0));
    }
    assert_eq!(guest.signals.taken(), []);
    let signals = Arc::new(Signals::default());
    let child = Guest::with(prefork.adopt(signals.clone()).unwrap(), signals);
    assert_eq!(child.signals.taken(), [], "it makes no call yet");
    child.call(20, &[]).unwrap();
    assert_eq!(child.signals.taken(), [2, 30, 63], "each once");
    child.call(20, &[]).unwrap();
    assert_eq!(child.signals.taken(), []);
    // A child's own child has no pending signals.
    assert_eq!(guest.call(KILL, &[at, 9]), Ok(0));
    prefork.release();
    assert_eq!(guest.fails(KILL, &[at, 9]), Errno::ESRCH);
}
