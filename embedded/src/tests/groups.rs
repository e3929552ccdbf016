//! Process groups, sessions and their login names.

use super::super::testing::{Guest, NOWHERE, kernel};
use super::super::{Embedded, Limits};
use kernel::{
    Errno,
    sys::{GETLOGIN, GETPGID, GETPGRP, GETSID, SETLOGIN, SETPGID, SETSID},
};

fn pid(guest: &Guest) -> u64 {
    guest.process.pid() as u64
}

fn group(guest: &Guest) -> u64 {
    guest.call(GETPGRP, &[]).unwrap() as u64
}

fn session(guest: &Guest) -> u64 {
    guest.call(GETSID, &[0]).unwrap() as u64
}

#[test]
fn clients_begin_in_group_and_session_0_as_init_is() {
    let guest = Guest::new(&kernel());
    assert_eq!((group(&guest), session(&guest)), (0, 0));
    assert_eq!(guest.call(GETPGID, &[1]), Ok(0));
    assert_eq!(guest.call(GETSID, &[1]), Ok(0));
    assert_eq!(guest.fails(GETPGID, &[29_000]), Errno::ESRCH);
    assert_eq!(guest.fails(GETSID, &[u64::MAX]), Errno::ESRCH);
}

#[test]
fn a_process_moves_itself() {
    let kernel = kernel();
    let (guest, other) = (Guest::new(&kernel), Guest::new(&kernel));
    assert_eq!(guest.fails(SETPGID, &[0, u64::MAX]), Errno::EINVAL);
    assert_eq!(guest.fails(SETPGID, &[0, 5_000]), Errno::EPERM, "no such group to enter");
    assert_eq!(guest.call(SETPGID, &[0, 0]), Ok(0));
    assert_eq!((group(&guest), session(&guest)), (pid(&guest), 0));
    assert_eq!(guest.call(SETPGID, &[0, 0]), Ok(0), "again is no change");
    assert_eq!(other.call(SETPGID, &[0, pid(&guest)]), Ok(0));
    assert_eq!(other.call(GETPGID, &[0]), Ok(pid(&guest) as i64));
    // The leader of a group may not begin a session; others may, in a group without other members.
    assert_eq!(guest.fails(SETSID, &[]), Errno::EPERM);
    assert_eq!(other.call(SETSID, &[]), Ok(pid(&other) as i64));
    assert_eq!((group(&other), session(&other)), (pid(&other), pid(&other)));
    assert_eq!(other.fails(SETSID, &[]), Errno::EPERM);
    assert_eq!(other.fails(SETPGID, &[0, pid(&guest)]), Errno::EPERM, "it leads a session");
    assert_eq!(other.call(SETPGID, &[0, 0]), Ok(0), "where it is anyway");
    assert_eq!(guest.call(GETSID, &[pid(&other)]), Ok(pid(&other) as i64));
}

#[test]
fn a_parent_moves_its_children_until_they_are_another_program() {
    let kernel = kernel();
    let parent = Guest::new(&kernel);
    let (one, two) = (parent.fork(), parent.fork());
    let stranger = Guest::new(&kernel);
    // A forked client is a child of its prefork, which is gone, so of init, as in a rump kernel.
    assert_eq!(parent.fails(SETPGID, &[pid(&one), 0]), Errno::ESRCH);
    assert_eq!(parent.fails(SETPGID, &[pid(&stranger), 0]), Errno::ESRCH);
    assert_eq!(parent.fails(SETPGID, &[29_000, 0]), Errno::ESRCH);
    assert_eq!(parent.fails(SETPGID, &[1, 0]), Errno::ESRCH);
    drop((one, two));
    // The preforks themselves are children, and a client that takes one over is a grandchild meanwhile.
    let first = parent.process.prefork().unwrap();
    let second = parent.process.prefork().unwrap();
    let grandchild = second.adopt(parent.signals.clone()).unwrap();
    let first_pid = first.pid() as u64;
    assert_eq!(parent.call(SETPGID, &[first_pid, 0]), Ok(0));
    assert_eq!(parent.call(SETPGID, &[grandchild.pid() as u64, first_pid]), Ok(0));
    assert_eq!(parent.call(GETPGID, &[grandchild.pid() as u64]), Ok(first_pid as i64));
    assert_eq!(group(&parent), 0);
    assert_eq!(parent.fails(SETPGID, &[first_pid, 4_000]), Errno::EPERM);
    grandchild.exec(b"other");
    assert_eq!(parent.fails(SETPGID, &[grandchild.pid() as u64, 0]), Errno::EACCES);
    // A child in another session cannot be moved.
    let apart = Guest::with(grandchild, parent.signals.clone());
    assert_eq!(apart.call(SETSID, &[]), Ok(pid(&apart) as i64));
    assert_eq!(parent.fails(SETPGID, &[pid(&apart), 0]), Errno::EPERM);
    assert_eq!(parent.fails(SETPGID, &[first_pid, pid(&apart)]), Errno::EPERM);
}

#[test]
fn a_group_lives_as_long_as_somebody_is_in_it() {
    let kernel = kernel();
    let (leader, member) = (Guest::new(&kernel), Guest::new(&kernel));
    leader.call(SETPGID, &[0, 0]).unwrap();
    let id = pid(&leader);
    member.call(SETPGID, &[0, id]).unwrap();
    let child = member.fork();
    assert_eq!(group(&child), id);
    leader.process.release();
    assert!(kernel.system.groups.has(id as i32), "its number is no new process's");
    member.process.release();
    assert_eq!(child.call(37, &[-(id as i64) as u64, 0]), Ok(0));
    child.process.release();
    drop((leader, member, child));
    assert!(!kernel.system.groups.has(id as i32));
    let other = Guest::new(&kernel);
    assert_eq!(other.fails(SETPGID, &[0, id]), Errno::EPERM);
    assert_eq!(other.fails(37, &[-(id as i64) as u64, 0]), Errno::ESRCH);
}

#[test]
fn numbers_of_groups_and_sessions_are_not_given_to_processes() {
    let kernel = super::super::testing::kernel_with(Limits { processes: 10, ..Limits::default() });
    let leader = Guest::new(&kernel);
    leader.call(SETSID, &[]).unwrap();
    let child = leader.fork();
    child.call(SETPGID, &[0, 0]).unwrap();
    let id = leader.process.pid();
    drop(leader);
    // The group has ended with its leader, the session has not.
    assert!(kernel.system.groups.find(id).is_none());
    assert_eq!(child.call(GETSID, &[0]), Ok(id.into()));
    let spawn = |kernel: &Embedded| Guest::new(kernel).process.pid();
    assert!((0..30_010).all(|_| spawn(&kernel) != id));
}

#[test]
fn a_login_name_is_its_session_s() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (one, two) = (guest.fork(), guest.fork());
    let name = |guest: &Guest, len: u64| {
        guest.put(guest.buffer(), &[b'#'; 20]);
        assert_eq!(guest.call(GETLOGIN, &[guest.buffer(), len]), Ok(0));
        guest.get(guest.buffer(), 20)
    };
    assert_eq!(name(&guest, 20), [&[0; 16][..], b"####"].concat());
    one.call(SETSID, &[]).unwrap();
    assert_eq!(one.call(SETLOGIN, &[one.string("somebody")]), Ok(0));
    let child = one.fork();
    assert_eq!(name(&child, 9), b"somebody\0###########");
    assert_eq!(name(&child, 3), b"som#################");
    assert_eq!(name(&child, 0), b"####################");
    assert_eq!(name(&two, 1)[0], 0, "another session");
    // A new session begins with the login name of the previous one.
    child.call(SETSID, &[]).unwrap();
    assert_eq!(name(&child, 9), b"somebody\0###########");
    assert_eq!(child.call(SETLOGIN, &[child.string("sixteen-letters!")]), Ok(0));
    assert_eq!(name(&child, 17), b"sixteen-letters!####");
    assert_eq!(name(&one, 9), b"somebody\0###########");
    assert_eq!(one.fails(SETLOGIN, &[one.string("seventeen-letters")]), Errno::EINVAL);
    assert_eq!(one.fails(SETLOGIN, &[NOWHERE]), Errno::EFAULT);
    one.call(183, &[5]).unwrap();
    assert_eq!(one.fails(SETLOGIN, &[NOWHERE]), Errno::EPERM);
}

#[test]
fn a_storm_of_moves_between_groups_leaves_none() {
    let kernel = kernel();
    std::thread::scope(|scope| {
        for who in 0..4u64 {
            let kernel = &kernel;
            scope.spawn(move || {
                for turn in 0..100 {
                    let guest = Guest::new(kernel);
                    let mine = pid(&guest);
                    guest.call(SETPGID, &[0, 0]).unwrap();
                    let child = guest.fork();
                    // Join the group of a process with a nearby pid, if it exists and leads one.
                    let _ = child.call(SETPGID, &[0, mine + 1 + (who + turn) % 5]);
                    let _ = child.call(SETSID, &[]);
                    let _ = child.call(37, &[-(mine as i64) as u64, 1]);
                    let grandchild = child.fork();
                    let _ = grandchild.call(SETPGID, &[0, mine]);
                    child.process.release();
                    assert_eq!(grandchild.call(37, &[0, 2]), Ok(0), "it reaches itself");
                    assert_eq!(grandchild.signals.taken().last(), Some(&2));
                    guest.process.release();
                    grandchild.process.release();
                }
            });
        }
    });
    let left: Vec<i32> = (1..30_000).filter(|&id| kernel.system.groups.has(id)).collect();
    assert_eq!(left, []);
    assert_eq!(kernel.system.uidinfo.count(0), 0);
    assert_eq!(kernel.usage().processes, 0);
}
