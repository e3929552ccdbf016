use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;
use std::thread;

use super::super::Usage;
use super::super::descriptors::FdTable;
use super::super::limits::ResourceGroup;
use super::super::process::Proc;
use super::super::testing::{Guest, Signals, kernel, o};
use kernel::{Errno, Kernel, Process};

/// The bytes an `Arc` adds to its contents.
const ARC: usize = 16;

#[test]
fn a_fresh_process_costs_little() {
    // The process itself, its descriptor table, its family's resource group, its name, and its place in the
    // map of processes, which may be half empty.
    let parts = size_of::<Proc>() + size_of::<FdTable>() + size_of::<ResourceGroup>();
    let heap = 3 * ARC + parts + 16 + 2 * (16 + 1);
    assert!(heap <= 496, "a fresh process takes {heap} bytes");
}

#[test]
fn fifteen_thousand_processes_live_at_once_and_leave_nothing() {
    let kernel = kernel();
    let before = kernel.usage();
    let client = Arc::new(Signals::default());
    let mut live: Vec<Arc<dyn Process>> = Vec::new();
    for _ in 0..5_000 {
        let process = kernel.spawn(client.clone(), b"storm").unwrap();
        let prefork = process.prefork().unwrap();
        live.push(prefork.adopt(client.clone()).unwrap());
        live.push(prefork);
        live.push(process);
    }
    let pids: HashSet<i32> = live.iter().map(|process| process.pid()).collect();
    assert_eq!(pids.len(), 15_000);
    // A child has taken its prefork's place in the count.
    assert_eq!(kernel.usage(), Usage { processes: 10_000, ..before });
    for process in &live {
        process.release();
    }
    assert_eq!(kernel.usage(), before);
    drop(live);
    assert_eq!(kernel.usage(), before);
}

#[test]
fn pids_rise_and_come_back_after_a_round() {
    let kernel = super::super::testing::kernel_with(super::super::Limits {
        processes: 10,
        ..Default::default()
    });
    let client = Arc::new(Signals::default());
    let spawn = || kernel.spawn(client.clone(), b"").unwrap();
    let kept = spawn();
    let mut last = kept.pid();
    for _ in 0..29_999 {
        let process = spawn();
        assert_eq!(process.pid(), last + 1);
        last = process.pid();
        process.release();
    }
    assert_eq!(spawn().pid(), kept.pid() + 1);
}

#[test]
fn a_storm_of_clients_on_several_threads_leaves_nothing() {
    let kernel = Arc::new(kernel());
    let before = kernel.usage();
    let threads: Vec<_> = (0..4)
        .map(|who| {
            let kernel = kernel.clone();
            thread::spawn(move || {
                for turn in 0..60 {
                    let mut guest = Guest::new(&kernel);
                    guest.slow = turn % 2 == 0;
                    one_client_s_life(&guest, &format!("/tmp/{who}-{turn}"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(kernel.usage(), before);
}

fn one_client_s_life(guest: &Guest, path: &str) {
    let fd = guest.open(path, o::RDWR | o::CREAT | o::EXCL).unwrap();
    guest.write(fd, &[7; 3000]).unwrap();
    let (reader, writer) = guest.pipe();
    guest.write(writer, &[1; 9000]).unwrap();
    guest.call(394, &[2, 2, 0]).unwrap();
    let child = guest.fork();
    assert_eq!(child.read(reader, 10_000).unwrap().len(), 9000);
    let mut asleep = child.start(3, &[reader, child.buffer(), 1]);
    assert_eq!(asleep.run(), None);
    assert_eq!(asleep.interrupt(), Err(Errno::EINTR));
    guest.call(10, &[guest.string(path)]).unwrap();
    child.process.release();
    guest.process.release();
}

#[test]
fn many_blocked_readers_are_woken_by_their_own_writers_only() {
    let kernel = kernel();
    let mut guests = Vec::new();
    for _ in 0..2_000 {
        let mut guest = small(&kernel);
        guest.slow = false;
        let (reader, writer) = guest.pipe();
        let mut asleep = guest.start(3, &[reader, guest.buffer(), 1]);
        assert_eq!(asleep.run(), None);
        guests.push((guest, asleep, writer));
    }
    for (guest, asleep, writer) in &mut guests {
        assert!(!asleep.woken());
        guest.write(*writer, b"x").unwrap();
        assert!(asleep.woken());
        assert_eq!(asleep.run(), Some(Ok([1, 0])));
    }
}

/// Makes a client that shares its memory with no other.
fn small(kernel: &super::super::Embedded) -> Guest {
    Guest::new(kernel)
}

#[test]
fn interrupted_calls_leave_their_queues() {
    let kernel = kernel();
    let guest = Guest::new(&kernel);
    let (reader, _writer) = guest.pipe();
    for _ in 0..100 {
        let mut asleep = guest.start(3, &[reader, guest.buffer(), 1]);
        assert_eq!(asleep.run(), None);
        assert_eq!(asleep.interrupt(), Err(Errno::EINTR));
        // And a call that is dropped without an end.
        let mut asleep = guest.start(3, &[reader, guest.buffer(), 1]);
        assert_eq!(asleep.run(), None);
    }
}
