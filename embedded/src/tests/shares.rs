//! Tests of what one family may take of shared resources, by every way there is: itself, its children, what
//! it is sent, what it leaves behind, and together with other greedy families. A stranger is served
//! meanwhile, and in the end everything is given back.

use super::super::Limits;
use super::super::testing::{Guest, Signals, kernel_with, o};
use super::messages::{passed, receive, rights, send};
use super::sockets::{bind, inet, socket};
use super::streams::{connect, listen, local, pair};
use kernel::{Errno, Kernel};

use std::sync::Arc;

const EXEC_NAME: &[u8] = b"other";

/// Opens files until that fails. Returns their number, and the error.
fn open_all(guest: &Guest) -> (u64, Errno) {
    let mut count = 0;
    loop {
        match guest.open("/dev/null", o::RDWR) {
            Ok(_) => count += 1,
            Err(errno) => return (count, errno),
        }
    }
}

#[test]
fn open_files_of_a_family() {
    let limits = Limits { files: 1000, files_per_family: 10, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    // The console is one open file.
    assert_eq!(open_all(&guest), (9, Errno::ENFILE));
    // Its children belong to the family, and stay in it: after an exec, and after their parent's end.
    let child = guest.fork();
    child.close(3).unwrap();
    child.process.exec(EXEC_NAME);
    assert_eq!(open_all(&child), (0, Errno::ENFILE), "the parent has it open still");
    guest.process.release();
    assert_eq!(open_all(&child), (1, Errno::ENFILE));
    for (call, args) in [(42, &[][..]), (394, &[1, 1, 0]), (344, &[])] {
        assert_eq!(child.fails(call, args), Errno::ENFILE, "call {call}");
    }
    assert_eq!(open_all(&Guest::new(&kernel)), (9, Errno::ENFILE), "a stranger");
    child.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn open_files_that_others_have_opened() {
    let limits = Limits { files: 1000, files_per_family: 10, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let keeper = Guest::new(&kernel);
    let head = listen(&keeper, 1, &local("/tmp/s"), 5);
    let mut kept = 0;
    let mut end = None;
    // One client after the other connects, opens a file, sends it and ends.
    while end.is_none() {
        let helper = Guest::new(&kernel);
        let client = socket(&helper, 1, 1, 0).unwrap();
        connect(&helper, client, &local("/tmp/s")).unwrap();
        let file = helper.open("/dev/zero", o::RDWR).unwrap();
        send(&helper, client, b"x", &rights(&[file]), 0).unwrap();
        let server = keeper.call(30, &[head, 0, 0]).unwrap() as u64;
        helper.process.release();
        match receive(&keeper, server, 1, 100, 0) {
            Ok(got) => {
                // More descriptors of the file, in more processes, are not more files.
                let fd = passed(&got);
                keeper.call(41, &[fd]).unwrap();
                kept += 1;
            }
            Err(errno) => end = Some(errno),
        }
        keeper.close(server).unwrap();
        assert!(kept < 10, "the bound holds for what was sent, too");
    }
    // In addition to the console and the listener: the last place was the connection's.
    assert_eq!((kept, end), (7, Some(Errno::EMSGSIZE)));
    let child = keeper.fork();
    keeper.process.release();
    assert_eq!(open_all(&child), (1, Errno::ENFILE));
    // Each received file has two descriptors.
    child.close(4).unwrap();
    child.close(5).unwrap();
    assert_eq!(open_all(&child), (1, Errno::ENFILE));
    child.process.release();
    let after = Guest::new(&kernel);
    after.call(10, &[after.string("/tmp/s")]).unwrap();
    after.process.release();
    assert_eq!(kernel.usage(), before);
}

/// Sends a file until that fails. Returns how often it was sent, and the error.
fn send_all(guest: &Guest, socket: u64, file: u64) -> (u64, Errno) {
    guest.call(92, &[socket, 4, 4]).unwrap();
    let mut count = 0;
    loop {
        match send(guest, socket, b"x", &rights(&[file]), 0) {
            Ok(_) => count += 1,
            Err(errno) => return (count, errno),
        }
    }
}

#[test]
fn files_in_flight_of_a_family() {
    let limits = Limits { files: 1000, files_per_family: 20, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    assert_eq!(send_all(&guest, one, one), (10, Errno::EAGAIN));
    let child = guest.fork();
    assert_eq!(send_all(&child, two, two), (0, Errno::EAGAIN));
    let stranger = Guest::new(&kernel);
    let (left, right) = pair(&stranger, 1);
    assert_eq!(send_all(&stranger, left, left), (10, Errno::EAGAIN));
    receive(&stranger, right, 1, 100, 0).unwrap();
    assert_eq!(send_all(&stranger, left, left), (1, Errno::EAGAIN), "one was received");
    // A client that has ended has left nothing that could be received.
    guest.process.release();
    child.process.release();
    stranger.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn files_in_flight_to_a_family() {
    let limits = Limits { files: 1000, files_per_family: 20, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let keeper = Guest::new(&kernel);
    let head = listen(&keeper, 1, &local("/tmp/s"), 50);
    // The senders end; what they have sent stays, and is charged to the receiver.
    let mut sent = 0;
    for _ in 0..5 {
        let helper = Guest::new(&kernel);
        let client = socket(&helper, 1, 1, 0).unwrap();
        connect(&helper, client, &local("/tmp/s")).unwrap();
        let file = helper.open("/dev/zero", o::RDWR).unwrap();
        for _ in 0..4 {
            helper.call(92, &[client, 4, 4]).unwrap();
            sent += u64::from(send(&helper, client, b"x", &rights(&[file]), 0).is_ok());
        }
        helper.process.release();
    }
    assert_eq!((sent, kernel.usage().flights), (10, 10));
    keeper.close(head).unwrap();
    keeper.call(10, &[keeper.string("/tmp/s")]).unwrap();
    keeper.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn of_the_last_quarter_each_family_gets_a_little() {
    let limits = Limits { files: 4000, files_per_family: 1000, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let mut greedy: Vec<Guest> = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..100 {
        let guest = Guest::new(&kernel);
        taken.push(open_all(&guest).0 + 1);
        greedy.push(guest);
    }
    assert_eq!(taken[..3], [1000; 3]);
    assert!(taken[3..].iter().all(|&files| (2..=5).contains(&files)), "{taken:?}");
    // With more than a hundred greedy families, a stranger can still open a few files.
    assert!(open_all(&Guest::new(&kernel)).0 >= 2);
    // Two of the families with the most files have to end before others get more.
    for guest in greedy.drain(..2) {
        guest.process.release();
    }
    assert!(open_all(&Guest::new(&kernel)).0 > 500);
    drop(greedy);
    assert_eq!(kernel.usage(), before);
}

#[test]
fn what_a_family_has_made_in_the_file_system() {
    let limits = Limits { inodes: 1000, inodes_per_family: 5, ..Limits::default() };
    let kernel = kernel_with(limits);
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    let make = |guest: &Guest, path: &str| guest.call(136, &[guest.string(path), 0o777]);
    for name in 0..5 {
        make(&guest, &format!("/tmp/{name}")).unwrap();
    }
    let child = guest.fork();
    assert_eq!(make(&child, "/tmp/more"), Err(Errno::ENOSPC));
    assert_eq!(child.open("/tmp/more", o::RDWR | o::CREAT), Err(Errno::ENOSPC));
    let name = child.string("/tmp/more");
    for (call, args) in [(57, [name, name, 0]), (132, [name, 0o644, 0])] {
        assert_eq!(child.fails(call, &args), Errno::ENOSPC, "call {call}");
    }
    // The room of files that another family removes is given back to the family that made them.
    let stranger = Guest::new(&kernel);
    make(&stranger, "/tmp/theirs").unwrap();
    for name in ["/tmp/0", "/tmp/theirs"] {
        stranger.call(137, &[stranger.string(name)]).unwrap();
    }
    make(&child, "/tmp/more").unwrap();
    assert_eq!(make(&child, "/tmp/again"), Err(Errno::ENOSPC));
    // The files it leaves behind at its end are charged to no other family.
    guest.process.release();
    child.process.release();
    for name in 0..5 {
        make(&stranger, &format!("/tmp/again{name}")).unwrap();
        stranger.call(137, &[stranger.string(&format!("/tmp/again{name}"))]).unwrap();
    }
    for name in ["1", "2", "3", "4", "more"] {
        stranger.call(137, &[stranger.string(&format!("/tmp/{name}"))]).unwrap();
    }
    stranger.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn tables_of_descriptors_are_paid_for() {
    let kernel = kernel_with(Limits { bytes_per_family: 100_000, ..Limits::default() });
    let before = kernel.usage();
    let guest = Guest::new(&kernel);
    guest.call(90, &[0, 10]).unwrap();
    assert_eq!(kernel.usage().bytes, before.bytes, "a few cost nothing");
    guest.call(90, &[0, 1000]).unwrap();
    let table = kernel.usage().bytes - before.bytes;
    assert!((16_000..32_000).contains(&table), "{table} bytes");
    // Each child has one of its own.
    let children: Vec<_> = std::iter::from_fn(|| guest.process.prefork().ok()).take(100).collect();
    assert_eq!(children.len() as u64 + 1, 100_000 / table);
    assert_eq!(guest.process.prefork().err(), Some(Errno::EAGAIN));
    let other = Guest::new(&kernel);
    other.call(90, &[0, 1000]).unwrap();
    other.fork().process.release();
    for child in children {
        child.release();
    }
    guest.fork().process.release();
    guest.process.release();
    other.process.release();
    assert_eq!(kernel.usage(), before);
}

#[test]
fn segments_of_calls_that_sleep_are_paid_for() {
    let kernel = kernel_with(Limits { bytes_per_family: 40_000, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let (reader, writer) = guest.pipe();
    let before = kernel.usage().bytes;
    let iovecs: Vec<u8> =
        (0..1024).flat_map(|_| [guest.buffer(), 1]).flat_map(u64::to_le_bytes).collect();
    let iovecs = guest.place(&iovecs);
    // readv
    let sleeper = |count| guest.start(120, &[reader, iovecs, count]);
    let mut calls = [sleeper(16), sleeper(1024), sleeper(1024), sleeper(1024)];
    let ends: Vec<_> = calls.iter_mut().map(|call| call.run()).collect();
    assert_eq!(ends, [None, None, None, Some(Err(Errno::ENOMEM))]);
    assert_eq!(kernel.usage().bytes, before + 2 * 16 * 1024);
    guest.write(writer, &[1; 16]).unwrap();
    for call in &mut calls[..3] {
        let _ = call.interrupt();
    }
    drop(calls);
    assert_eq!(kernel.usage().bytes, before);
}

#[test]
fn records_of_a_stream_count_for_what_they_take() {
    let kernel = kernel_with(Limits { bytes_per_family: 64 << 10, ..Limits::default() });
    let guest = Guest::new(&kernel);
    let (one, two) = pair(&guest, 1);
    guest.call(92, &[one, 4, 4]).unwrap();
    let before = kernel.usage().bytes;
    let mut sent = 0;
    // Messages of a byte each, ended by MSG_EOR.
    while send(&guest, one, b"x", &[], 0x8).is_ok() {
        sent += 1;
    }
    let paid = kernel.usage().bytes - before;
    assert!(sent > 100 && paid >= sent * 100, "{paid} bytes for {sent} records");
    while guest.read(two, 1).is_ok_and(|bytes| !bytes.is_empty()) {
        sent -= 1;
        if sent == 0 {
            break;
        }
    }
    assert_eq!(kernel.usage().bytes, before);
}

#[test]
fn processes_of_families_in_the_last_quarter() {
    let limits = Limits { processes: 400, processes_per_family: 100, ..Limits::default() };
    let kernel = kernel_with(limits);
    let mut live = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..6 {
        let guest = Guest::new(&kernel);
        let children: Vec<_> = std::iter::from_fn(|| guest.process.prefork().ok()).collect();
        sizes.push(children.len() + 1);
        live.push((guest, children));
    }
    assert_eq!(sizes, [100, 100, 100, 1, 1, 1]);
    // A family that has none is never refused.
    let more: Vec<_> =
        std::iter::from_fn(|| kernel.spawn(Arc::new(Signals::default()), b"").ok()).collect();
    assert_eq!(more.len(), 97);
    for process in more {
        process.release();
    }
    for (guest, children) in live {
        children.iter().for_each(|child| child.release());
        guest.process.release();
    }
    assert_eq!(kernel.usage().processes, 0);
}

#[test]
fn ports_that_are_chosen() {
    let kernel = kernel_with(Limits { files_per_process: 1 << 20, ..Limits::default() });
    let bind_all = |guest: &Guest| {
        let mut count = 0;
        loop {
            let udp = socket(guest, 2, 2, 0).unwrap();
            match bind(guest, udp, &inet([127, 0, 0, 1], 0)) {
                Ok(_) => count += 1,
                Err(errno) => return (count, errno),
            }
        }
    };
    let greedy: Vec<Guest> = (0..4).map(|_| Guest::new(&kernel)).collect();
    let taken: Vec<(u64, Errno)> = greedy.iter().map(bind_all).collect();
    assert_eq!(taken[..3], [(4096, Errno::EAGAIN); 3]);
    assert!(taken[3].0 < 20, "{taken:?}");
    let child = greedy[0].fork();
    assert_eq!(bind_all(&child).0, 0);
    // Not by its number either; lower ports are not counted.
    let udp = socket(&child, 2, 2, 0).unwrap();
    assert!(bind(&child, udp, &inet([127, 0, 0, 1], 50_000)).is_err());
    assert_eq!(bind(&child, udp, &inet([127, 0, 0, 1], 5000)), Ok(0));
    assert!(bind_all(&Guest::new(&kernel)).0 > 5, "a stranger");
    child.process.release();
    for guest in greedy {
        guest.process.release();
    }
    assert_eq!(bind_all(&Guest::new(&kernel)).0, 4096);
    assert_eq!(kernel.usage().ports, 0);
}
