//! Users and groups, as a matrix: the IDs before, the call, and the IDs after it.

use super::super::credentials::Credentials;
use super::super::process::Proc;
use super::super::testing::{BASE, Guest, NOWHERE, kernel};
use kernel::{
    Errno,
    sys::{GETGROUPS, ISSETUGID, SETEGID, SETEUID, SETGID, SETGROUPS, SETREGID, SETREUID, SETUID},
};

use std::sync::Arc;

const SAME: u64 = u32::MAX as u64;

/// Returns a guest whose process has these credentials, and the process.
fn guest_as(kernel: &super::super::Embedded, own: Credentials) -> (Guest, Arc<Proc>) {
    let guest = Guest::new(kernel);
    let proc = kernel.system.processes.find(guest.process.pid()).unwrap();
    proc.change_credentials(|_| Ok(Some(own))).unwrap();
    (guest, proc)
}

type Three = [u32; 3];

/// Real, effective and saved user before, the call and its arguments, and the users after it.
type Row = (Three, i32, &'static [u64], Result<Three, Errno>);

const USERS: &[Row] = &[
    ([0, 0, 0], SETUID, &[5], Ok([5, 5, 5])),
    ([0, 0, 0], SETEUID, &[5], Ok([0, 5, 0])),
    ([0, 0, 0], SETREUID, &[5, SAME], Ok([5, 0, 0])),
    ([0, 0, 0], SETREUID, &[5, 6], Ok([5, 6, 6])),
    ([0, 0, 0], SETREUID, &[SAME, 6], Ok([0, 6, 0])),
    ([0, 0, 0], SETREUID, &[0, 6], Ok([0, 6, 0])),
    ([0, 0, 0], SETUID, &[SAME], Ok([0, 0, 0])),
    // A user who was the superuser, and may become it again.
    ([0, 5, 0], SETEUID, &[0], Ok([0, 0, 0])),
    ([0, 5, 0], SETUID, &[0], Ok([0, 0, 0])),
    ([0, 5, 0], SETUID, &[5], Err(Errno::EPERM)),
    // The saved user counts for seteuid and for the effective one of setreuid, not for setuid.
    ([7, 8, 9], SETUID, &[7], Ok([7, 7, 7])),
    ([7, 8, 9], SETUID, &[8], Err(Errno::EPERM)),
    ([7, 8, 9], SETUID, &[9], Err(Errno::EPERM)),
    ([7, 8, 9], SETEUID, &[7], Ok([7, 7, 9])),
    ([7, 8, 9], SETEUID, &[8], Err(Errno::EPERM)),
    ([7, 8, 9], SETEUID, &[9], Ok([7, 9, 9])),
    ([7, 8, 9], SETEUID, &[0], Err(Errno::EPERM)),
    ([7, 8, 9], SETEUID, &[SAME], Ok([7, 8, 9])),
    ([7, 8, 9], SETREUID, &[8, 7], Ok([8, 7, 7])),
    ([7, 8, 9], SETREUID, &[9, SAME], Err(Errno::EPERM)),
    ([7, 8, 9], SETREUID, &[SAME, 9], Ok([7, 9, 9])),
    ([7, 8, 9], SETREUID, &[8, SAME], Ok([8, 8, 8])),
    ([7, 8, 9], SETREUID, &[SAME, 10], Err(Errno::EPERM)),
    ([7, 8, 9], SETREUID, &[SAME, SAME], Ok([7, 8, 9])),
];

#[test]
fn users_change_by_the_rules() {
    let kernel = kernel();
    for &([uid, euid, suid], call, args, then) in USERS {
        let own = Credentials { uid, euid, suid, ..Credentials::default() };
        let (guest, proc) = guest_as(&kernel, own.clone());
        let result = guest.call(call, args);
        let now = proc.credentials();
        let uidinfo = [now.uid, now.euid, now.suid];
        let what = format!("{uid} {euid} {suid}: {call} {args:?}");
        assert_eq!(result, then.map(|_| 0), "{what}");
        assert_eq!(uidinfo, then.unwrap_or([uid, euid, suid]), "{what}");
        assert_eq!(guest.call2(24, &[]), Ok([uidinfo[0].into(), uidinfo[1].into()]));
        assert_eq!(guest.call(25, &[]), Ok(uidinfo[1].into()));
        guest.process.release();
    }
}

#[test]
fn groups_change_by_the_same_rules_and_the_effective_user_decides() {
    let kernel = kernel();
    for &([gid, egid, sgid], call, args, then) in USERS {
        let call = match call {
            SETUID => SETGID,
            SETEUID => SETEGID,
            _ => SETREGID,
        };
        for euid in [0, 99] {
            let own = Credentials { euid, gid, egid, sgid, ..Credentials::default() };
            let (guest, proc) = guest_as(&kernel, own);
            let allowed = guest.call(call, args).is_ok();
            let now = proc.credentials();
            let groups = [now.gid, now.egid, now.sgid];
            let what = format!("{gid} {egid} {sgid} as {euid}: {call} {args:?}");
            assert_eq!(guest.call2(47, &[]), Ok([groups[0].into(), groups[1].into()]));
            assert_eq!(guest.call(43, &[]), Ok(groups[1].into()));
            if euid == 0 {
                assert!(allowed, "{what}");
            } else if gid != 0 {
                // Group 0 gives no privilege by itself, so only the other rows show that.
                assert_eq!(allowed, then.is_ok(), "{what}");
                assert_eq!(groups, then.unwrap_or([gid, egid, sgid]), "{what}");
            }
            guest.process.release();
        }
    }
}

#[test]
fn groups_are_set_by_the_superuser() {
    let guest = Guest::new(&kernel());
    let list: Vec<u8> = (100..116u32).flat_map(u32::to_le_bytes).collect();
    let at = guest.place(&list);
    assert_eq!(guest.call(SETGROUPS, &[16, at]), Ok(0));
    assert_eq!(guest.fails(SETGROUPS, &[17, at]), Errno::EINVAL);
    assert_eq!(guest.fails(SETGROUPS, &[u64::MAX, at]), Errno::EINVAL);
    assert_eq!(guest.fails(SETGROUPS, &[2, NOWHERE]), Errno::EFAULT);
    assert_eq!(guest.call(GETGROUPS, &[0, 0]), Ok(16));
    assert_eq!(guest.fails(GETGROUPS, &[15, BASE]), Errno::EINVAL);
    assert_eq!(guest.call(GETGROUPS, &[16, guest.buffer()]), Ok(16));
    assert_eq!(guest.get(guest.buffer(), 64), list);
    let child = guest.fork();
    assert_eq!(child.call(SETGROUPS, &[1, at]), Ok(0));
    assert_eq!(child.call(GETGROUPS, &[0, 0]), Ok(1));
    assert_eq!(guest.call(GETGROUPS, &[0, 0]), Ok(16), "a child's are its own");
    assert_eq!(guest.call(SETEUID, &[5]), Ok(0));
    assert_eq!(guest.fails(SETGROUPS, &[0, 0]), Errno::EPERM);
    assert_eq!(guest.fails(SETGROUPS, &[1, NOWHERE]), Errno::EFAULT, "looked at first");
    assert_eq!(guest.call(SETEUID, &[0]), Ok(0));
    assert_eq!(guest.call(SETGROUPS, &[0, NOWHERE]), Ok(0));
    assert_eq!(guest.call(GETGROUPS, &[0, 0]), Ok(0));
}

#[test]
fn a_change_taints_until_the_next_program() {
    let kernel = kernel();
    for (call, args, taints) in [
        (SETUID, &[0][..], false),
        (SETEUID, &[5], true),
        (SETREUID, &[SAME, SAME], false),
        (SETREGID, &[4, 4], true),
        (SETGROUPS, &[0, 0], true),
        (SETGID, &[1], true),
    ] {
        let guest = Guest::new(&kernel);
        assert_eq!(guest.call(ISSETUGID, &[]), Ok(0));
        assert_eq!(guest.call(call, args), Ok(0));
        assert_eq!(guest.call(ISSETUGID, &[]), Ok(taints.into()), "{call} {args:?}");
        assert_eq!(guest.fork().call(ISSETUGID, &[]), Ok(taints.into()));
    }
    let guest = Guest::new(&kernel);
    guest.call(SETEUID, &[5]).unwrap();
    assert_eq!(guest.fails(SETUID, &[6]), Errno::EPERM);
    guest.process.exec(b"other");
    assert_eq!(guest.call(ISSETUGID, &[]), Ok(1), "still not one and the same user");
    guest.call(SETEUID, &[0]).unwrap();
    guest.call(SETUID, &[5]).unwrap();
    guest.process.exec(b"other");
    assert_eq!(guest.call(ISSETUGID, &[]), Ok(0));
}

#[test]
fn exec_saves_the_effective_ones() {
    let kernel = kernel();
    let own = Credentials { uid: 1, euid: 2, suid: 3, gid: 4, egid: 5, sgid: 6, groups: vec![7] };
    let (guest, proc) = guest_as(&kernel, own.clone());
    guest.process.exec(b"other");
    assert_eq!(*proc.credentials(), Credentials { suid: 2, sgid: 5, ..own });
    assert_eq!(guest.fails(SETEUID, &[3]), Errno::EPERM, "the way back is closed");
}

#[test]
fn preforks_and_children_have_the_rights_of_their_parent() {
    let kernel = kernel();
    let own = Credentials { uid: 1, euid: 2, suid: 3, gid: 4, egid: 5, sgid: 6, groups: vec![7] };
    let (guest, proc) = guest_as(&kernel, own.clone());
    let prefork = guest.process.prefork().unwrap();
    // A later change of the parent's credentials does not affect the child.
    proc.change_credentials(|_| Ok(Some(Credentials::default()))).unwrap();
    let child = prefork.adopt(guest.signals.clone()).unwrap();
    for process in [&prefork, &child] {
        let proc = kernel.system.processes.find(process.pid()).unwrap();
        assert_eq!(*proc.credentials(), own);
    }
}

#[test]
fn others_keep_out_of_what_is_not_theirs() {
    let guest = Guest::new(&kernel());
    guest.call(60, &[0]).unwrap();
    let (rdwr, creat) = (2, 0x200);
    let make = |path: &str, mode| guest.call(5, &[guest.string(path), rdwr | creat, mode]);
    make("/tmp/mine", 0o600).unwrap();
    make("/tmp/group", 0o660).unwrap();
    guest.call(SETGROUPS, &[1, guest.place(&0u32.to_le_bytes())]).unwrap();
    guest.call(SETUID, &[5]).unwrap();
    assert_eq!(guest.open("/tmp/mine", rdwr), Err(Errno::EACCES));
    assert!(guest.open("/tmp/group", rdwr).is_ok(), "group 0 is among its groups");
    assert!(guest.open("/tmp/new", rdwr | creat).is_ok());
    assert_eq!(guest.call(439, &[guest.string("/tmp/new"), guest.buffer()]), Ok(0));
    assert_eq!(guest.get(guest.buffer() + 28, 4), 5u32.to_le_bytes());
    // Only the superuser may reboot.
    assert_eq!(guest.fails(208, &[0, 0]), Errno::EPERM);
}
