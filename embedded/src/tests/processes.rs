use super::super::process::Proc;
use super::super::testing::{BASE, Guest, NOWHERE, kernel, kernel_with, o};
use super::super::{Limits, OSRELEASE};
use kernel::{Errno, Kernel, Process};

#[test]
fn a_kernel_says_what_it_is() {
    let identity = kernel().identity();
    assert_eq!((&*identity.ostype, &*identity.machine), ("NetBSD", "amd64"));
    assert_eq!(identity.osrelease, OSRELEASE);
}

#[test]
fn getpid_comes_with_the_parent() {
    let kernel = kernel();
    let (first, second) = (Guest::new(&kernel), Guest::new(&kernel));
    let pid = i64::from(first.process.pid());
    assert!(pid > 1);
    assert_eq!(first.call2(20, &[]), Ok([pid, 1]));
    assert_eq!(second.call(20, &[]), Ok(pid + 1));
    assert_eq!(first.call(39, &[]), Ok(1));
}

#[test]
fn everybody_is_the_superuser() {
    let guest = Guest::new(&kernel());
    for number in [24, 47] {
        assert_eq!(guest.call2(number, &[]), Ok([0, 0]));
    }
    for number in [25, 43, 305] {
        assert_eq!(guest.call(number, &[]), Ok(0));
    }
    assert_eq!(guest.call(79, &[0, 0]), Ok(0));
    assert_eq!(guest.call(79, &[16, BASE]), Ok(0));
    assert_eq!(guest.fails(79, &[u64::MAX, BASE]), Errno::EINVAL);
}

#[test]
fn a_session_is_begun_once() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let pid = i64::from(guest.process.pid());
    assert_eq!(guest.call(81, &[]), Ok(0));
    assert_eq!(guest.call(147, &[]), Ok(pid));
    assert_eq!(guest.fails(147, &[]), Errno::EPERM);
    assert_eq!(guest.call(81, &[]), Ok(pid));
    assert_eq!(guest.call(286, &[0]), Ok(pid));
    let child = guest.fork();
    assert_eq!(child.call(207, &[0]), Ok(pid));
    assert_eq!(child.call(207, &[pid as u64]), Ok(pid));
    assert_eq!(child.fails(207, &[30_000]), Errno::ESRCH);
    assert_eq!(child.call(147, &[]), Ok(child.process.pid().into()));
}

#[test]
fn umask_returns_the_one_before() {
    let guest = Guest::new(&kernel());
    assert_eq!(guest.call(60, &[0o77]), Ok(0o22));
    assert_eq!(guest.fork().call(60, &[0]), Ok(0o77));
}

#[test]
fn calls_that_are_not_there_are_counted() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    for number in [2, 2, 500, 512, 100_000, -1, i32::MIN] {
        assert_eq!(guest.fails(number, &[]), Errno::ENOSYS);
    }
    assert_eq!(kernel.missing(), [(2, 2), (500, 1), (512, 4)]);
}

#[test]
fn a_child_has_its_own_pid_and_init_for_a_parent() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let prefork = guest.process.prefork().unwrap();
    let child = Guest::with(prefork.adopt(guest.signals.clone()).unwrap(), guest.signals.clone());
    assert_ne!(child.process.pid(), guest.process.pid());
    assert_eq!(child.call(39, &[]), Ok(prefork.pid().into()));
    prefork.release();
    assert_eq!(child.call2(20, &[]), Ok([child.process.pid().into(), 1]));
}

#[test]
fn signals_reach_the_one_they_are_meant_for() {
    let kernel = kernel();
    let (me, other) = (Guest::new(&kernel), Guest::new(&kernel));
    let pid = |guest: &Guest| guest.process.pid() as u64;
    assert_eq!(me.call(37, &[pid(&me), 30]), Ok(0));
    assert_eq!(me.call(37, &[pid(&other), 15]), Ok(0));
    assert_eq!(me.call(37, &[pid(&other), 0]), Ok(0));
    assert_eq!(me.fails(37, &[pid(&other), 64]), Errno::EINVAL);
    assert_eq!(me.fails(37, &[pid(&other), u64::MAX]), Errno::EINVAL);
    assert_eq!(me.fails(37, &[12345, 0]), Errno::ESRCH);
    assert_eq!((me.signals.taken(), other.signals.taken()), (vec![30], vec![15]));
    // A signal to a group, and to every other process.
    other.call(147, &[]).unwrap();
    assert_eq!(me.call(37, &[-i64::from(other.process.pid()) as u64, 1]), Ok(0));
    assert_eq!((me.signals.taken(), other.signals.taken()), (vec![], vec![1]));
    assert_eq!(me.call(37, &[0, 2]), Ok(0));
    assert_eq!((me.signals.taken(), other.signals.taken()), (vec![2], vec![]));
    assert_eq!(me.call(37, &[-1i64 as u64, 3]), Ok(0));
    assert_eq!((me.signals.taken(), other.signals.taken()), (vec![], vec![3]));
    other.process.release();
    assert_eq!(me.fails(37, &[pid(&other), 0]), Errno::ESRCH);
    assert_eq!(me.fails(37, &[i64::from(i32::MIN) as u64, 0]), Errno::ESRCH);
}

#[test]
fn reboot_halts() {
    let guest = Guest::new(&kernel());
    for args in [[0, 0], [8, 0], [0x400, guest.string("boot")], [0x400, NOWHERE]] {
        let mut pending = guest.start(208, &args);
        assert_eq!(pending.run(), Some(Ok([0, 0])));
        assert!(pending.halted);
    }
}

#[test]
fn anonymous_memory_is_mapped_by_the_client() {
    let guest = Guest::new(&kernel());
    let (rw, anon, nothing) = (3, 0x1002, u64::MAX);
    assert_eq!(guest.call(197, &[0, 10_000, rw, anon, nothing, 0, 0]), Ok(0x7000_0000));
    assert_eq!(guest.fails(197, &[0, 1 << 31, rw, anon, nothing, 0, 0]), Errno::ENOMEM);
    assert_eq!(guest.fails(197, &[0, u64::MAX, rw, anon, nothing, 0, 0]), Errno::ENOMEM);
    assert_eq!(guest.fails(197, &[0, 0, rw, anon, nothing, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(197, &[0, 4096, 8, anon, nothing, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(197, &[0, 4096, rw, 0x1003, nothing, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(197, &[0, 4096, rw, anon | 0x10, nothing, 0, 0]), Errno::EINVAL);
    assert_eq!(guest.fails(197, &[0, 4096, rw, 2, 77, 0, 0]), Errno::EBADF);
    assert_eq!(guest.fails(197, &[0, 4096, rw, 2, 1, 0, 0]), Errno::ENODEV);
}

#[test]
fn processes_are_bounded() {
    let kernel = kernel_with(Limits { processes: 2, ..Limits::default() });
    let first = Guest::new(&kernel);
    let prefork = first.process.prefork().unwrap();
    let signals = first.signals.clone();
    assert_eq!(kernel.spawn(signals.clone(), b"").err(), Some(Errno::EAGAIN));
    assert_eq!(first.process.prefork().err(), Some(Errno::EAGAIN));
    // A client that comes with a token takes the prefork's place, once.
    let child = prefork.adopt(signals.clone()).unwrap();
    assert_eq!(prefork.adopt(signals.clone()).err(), Some(Errno::EAGAIN));
    prefork.release();
    prefork.release();
    assert_eq!(kernel.usage().processes, 2);
    child.release();
    assert!(kernel.spawn(signals, b"").is_ok());
    drop((prefork, child));
    assert_eq!(kernel.usage().processes, 1);
}

#[test]
fn exec_closes_what_is_to_be_closed() {
    let guest = Guest::new(&kernel());
    let kept = guest.open("/tmp/kept", o::RDWR | o::CREAT).unwrap();
    let closed = guest.open("/tmp/closed", o::RDWR | o::CREAT | o::CLOEXEC).unwrap();
    guest.write(kept, b"before").unwrap();
    guest.process.exec(b"another-program-with-a-long-name");
    assert_eq!(guest.write(kept, b" after"), Ok(6));
    assert_eq!(guest.fails(6, &[closed]), Errno::EBADF);
}

#[test]
fn exec_changes_the_name_and_fork_keeps_it() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let proc = Proc::spawn(&kernel.system, guest.signals.clone(), b"first").unwrap();
    assert_eq!(proc.command(), b"first");
    let child = proc.prefork().unwrap();
    let child = kernel.system.processes.find(child.pid()).unwrap();
    proc.exec(b"a-name-longer-than-sixteen-bytes");
    assert_eq!((proc.command(), child.command()), (b"a-name-longer-th".into(), b"first".into()));
}
