//! Tests of the server of a rump kernel, against a stand-in for that kernel which keeps the real
//! kernel's rules and aborts if the server breaks them: see `fake/librump.c`.
//!
//! Every test ends with a server that ends well. Without a C compiler the tests are skipped, and say
//! so.

mod fake;
mod process;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use client::numbers::{O_CLOEXEC, sys};
use client::raw::{RawConnection, RawFrame};
use client::{CallError, CallResult, Client, Pending};
use fake::sys as own;
use fake::{
    Count, Daemon, Kernel, Program, alone, connect, count, librumpring, prefix, try_connect, until,
    with_lifetime,
};
use process::{Counters, PROGRAM, SOON, output};
use rumpsp::url::Url;
use rumpsp::wire::{self, ErrorCode, Kind};
use rustix::process::{Signal, geteuid, kill_process};

const EINTR: i32 = 4;
const EBADF: i32 = 9;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENAMETOOLONG: i32 = 63;
const ENOSYS: i32 = 78;

/// Defines `let kernel = kernel!(args)`, which skips the test if there is no stand-in.
macro_rules! kernel {
    ($($arg:expr),*) => {
        match Kernel::start(&[$($arg),*]) {
            Some(kernel) => kernel,
            None => return,
        }
    };
}

#[track_caller]
fn fails(result: CallResult, errno: i32) {
    match result {
        Err(CallError::Errno(error)) if error.0 == errno => {}
        other => panic!("expected errno {errno}, got {other:?}"),
    }
}

/// Sends bytes to the kernel and back.
#[track_caller]
fn echoes(client: &Client, bytes: &[u8]) {
    let from = client.space().buffer_from(bytes).unwrap();
    let to = client.space().buffer(bytes.len()).unwrap();
    let len = bytes.len();
    client.call(own::ECHO, &[from.addr(), to.addr(), len as u64]).expect("an echo");
    assert!(to.bytes(len) == bytes, "{len} bytes came back otherwise");
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Begins a read that sleeps; returns it and the descriptor whose write ends it.
fn asleep(client: &Client) -> (Pending, i32) {
    let [reader, writer] = client.pipe().unwrap();
    let to = client.space().alloc(8).unwrap();
    (client.begin(sys::READ, &[reader as u64, to, 8]), writer)
}

#[test]
fn bytes_of_any_length_go_in_and_come_out() {
    let kernel = kernel!();
    let client = kernel.client();
    for len in [0, 1, 7, 8, 9, 4095, 4096, 65_535, 65_536, 65_537, 1 << 20, 3 << 20] {
        echoes(&client, &pattern(len));
    }
    let good = client.space().buffer(16).unwrap();
    fails(client.call(own::ECHO, &[16, good.addr(), 16]), EFAULT);
    fails(client.call(own::ECHO, &[good.addr() + 8, good.addr(), 16]), EFAULT);
    echoes(&client, b"still here");
    drop(good);
    drop(client);
    kernel.ends_well();
}

#[test]
fn strings_are_as_long_as_they_may_be() {
    let kernel = kernel!();
    let client = kernel.client();
    let text = "a string of 24 bytes, so";
    let from = client.space().buffer_str(text).unwrap();
    let to = client.space().buffer(64).unwrap();
    let echo = |from: u64, most: u64| client.call(own::ECHOSTR, &[from, to.addr(), most]);
    for most in [25, 26, 1024] {
        assert_eq!(echo(from.addr(), most), Ok([25, 0]));
        assert_eq!(to.bytes(25), [text.as_bytes(), &[0]].concat());
    }
    fails(echo(from.addr(), 24), ENAMETOOLONG);
    fails(echo(from.addr(), 1), ENAMETOOLONG);
    fails(echo(16, 10), EFAULT);
    let empty = client.space().buffer_str("").unwrap();
    assert_eq!(echo(empty.addr(), 1), Ok([1, 0]));
    assert_eq!(client.getpid().unwrap(), 2);
    drop((from, to, empty));
    drop(client);
    kernel.ends_well();
}

#[test]
fn a_string_longer_than_the_kernel_asked_for_does_not_reach_it() {
    let kernel = kernel!();
    let mut raw = RawConnection::connect(kernel.server.url()).unwrap();
    raw.hello("liar", SOON).unwrap();
    let mut frame = Vec::new();
    wire::syscall_request(&mut frame, 1, own::ECHOSTR, &[0x1000, 0x2000, 8]);
    raw.write(&frame).unwrap();
    let ask = raw.read_frame(SOON).unwrap();
    assert_eq!(ask.header.kind(), Some(Kind::Copyinstr));
    let header = wire::Header { len: 24 + 100, class: 1, ..ask.header };
    raw.write(&[&header.encode()[..], &[b'x'; 99], &[0]].concat()).unwrap();
    // The stand-in would abort. The server may answer the liar as it likes.
    let _ = raw.read_frame(SOON);
    drop(raw);
    let client = kernel.client();
    alone(&client);
    drop(client);
    kernel.ends_well();
}

#[test]
fn memory_is_mapped_in_the_client_or_not() {
    let kernel = kernel!();
    let client = kernel.client();
    let [addr, _] = client.call(own::ANONMMAP, &[8192]).unwrap();
    assert!(client.space().contains(addr as u64, 8192));
    fails(client.call(own::ANONMMAP, &[1 << 62]), ENOMEM);
    drop(client);
    kernel.ends_well();
}

#[test]
fn a_signal_comes_before_the_response_of_the_call_that_raised_it() {
    let kernel = kernel!();
    let heard: Arc<Mutex<Vec<i32>>> = Arc::default();
    let hearing = heard.clone();
    let client = Client::builder()
        .timeout(SOON)
        .on_signal(move |signo| hearing.lock().unwrap().push(signo))
        .connect(kernel.server.url())
        .unwrap();
    let pid = client.getpid().unwrap();
    for round in 1..=50 {
        client.kill(pid, 30).unwrap();
        assert_eq!(heard.lock().unwrap().len(), round);
    }
    // The signal comes from another process, outside of any call of this one; it arrives at the latest
    // with the next call.
    kernel.client().kill(pid, 31).unwrap();
    let end = Instant::now() + SOON;
    while heard.lock().unwrap().last() != Some(&31) {
        assert!(Instant::now() < end, "signal 31 did not come");
        client.getpid().unwrap();
    }
    drop(client);
    kernel.ends_well();
}

#[test]
fn numbers_arguments_and_errors_arrive_as_they_were_sent() {
    let kernel = kernel!();
    let client = kernel.client();
    for errno in [1, 4, 16, 35, 96, 300] {
        fails(client.call(own::FAIL, &[errno]), errno as i32);
    }
    for number in [-1, i32::MIN, own::END, i32::MAX, 0, 519] {
        fails(client.call(number, &[1, 2, 3]), ENOSYS);
    }
    // The kernel reads nine slots, however many were sent; those that were not are zero.
    let args: Vec<u64> = (1..=9).map(|n| n * 0x0123_4567_89ab).collect();
    for sent in 0..=9 {
        let sum: u64 = (1u64..).zip(&args[..sent]).map(|(n, arg)| n * arg).sum();
        let last = if sent == 9 { args[8] as i64 } else { 0 };
        assert_eq!(client.call(own::ARGS, &args[..sent]), Ok([sum as i64, last]));
    }
    let name = client.space().buffer(17).unwrap();
    client.call(own::COMMAND, &[name.addr()]).unwrap();
    assert_eq!(&name.bytes(5), b"test\0");
    assert_eq!(client.getppid().unwrap(), 1);
    drop(name);
    drop(client);
    kernel.ends_well();
}

#[test]
fn megabytes_come_out_in_order() {
    let kernel = kernel!();
    let client = kernel.client();
    for (len, times) in [(1, 100_000), (65_536, 160), (1 << 20, 12), (9 << 20, 1)] {
        let to = client.space().buffer(len).unwrap();
        client.call(own::FLOOD, &[to.addr(), len as u64, times]).expect("a flood");
        assert!(to.bytes(len).iter().all(|&byte| byte == (times - 1) as u8), "{times} of {len}");
    }
    drop(client);
    kernel.ends_well();
}

/// Makes one of several calls. The writing end of `pipe` is `pipe[1]`.
fn some_call(client: &Client, which: u64, pipe: [i32; 2]) -> Result<(), CallError> {
    match which % 7 {
        0 => client.getpid().map(drop),
        1 | 2 => {
            let bytes = pattern((which % 5000) as usize);
            let from = client.space().buffer_from(&bytes)?;
            let to = client.space().buffer(bytes.len())?;
            client.call(own::ECHO, &[from.addr(), to.addr(), bytes.len() as u64])?;
            assert!(to.bytes(bytes.len()) == bytes, "an echo came back otherwise");
            Ok(())
        }
        3 => client.call(own::NAP, &[which % 4]).map(drop),
        4 => client.call(own::HOSTSLEEP, &[1, 0, 0, 0]).map(drop),
        5 => {
            // There are as many writes as reads, at the latest in the end.
            client.write(pipe[1], b"x")?;
            client.read(pipe[0], 1).map(drop)
        }
        _ => {
            let to = client.space().buffer(4096)?;
            client.call(own::FLOOD, &[to.addr(), 4096, which % 40]).map(drop)
        }
    }
}

#[test]
fn many_threads_of_one_client() {
    let kernel = kernel!();
    let client = kernel.client();
    let pipe = client.pipe().unwrap();
    thread::scope(|scope| {
        for thread in 0..16 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..60 {
                    some_call(client, thread * 11 + round, pipe).expect("a call");
                }
            });
        }
    });
    // Only some of the lwps are kept.
    until(&client, Count::Lwps, |lwps| lwps < 16);
    assert!(count(&client, Count::MostAway) > 1, "the sleeps were not announced");
    drop(client);
    kernel.ends_well();
}

/// Runs 32 clients of 8 threads for two seconds, and hangs up on each client time and again.
fn storm(kernel: Kernel) {
    let (over, calls, drops) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for number in 0..32u64 {
            let (url, over, calls, drops) = (kernel.server.url(), &over, &calls, &drops);
            scope.spawn(move || {
                for life in 1.. {
                    let client = connect(url);
                    let pipe = client.pipe().unwrap();
                    thread::scope(|scope| {
                        for thread in 0..8u64 {
                            let client = &client;
                            scope.spawn(move || {
                                for round in 0.. {
                                    let which = number * 31 + thread * 7 + round + life;
                                    match some_call(client, which, pipe) {
                                        Ok(()) => calls.fetch_add(1, Ordering::Relaxed),
                                        Err(CallError::Lost(_)) => return,
                                        Err(error) => panic!("call {which}: {error}"),
                                    };
                                }
                            });
                        }
                        thread::sleep(Duration::from_millis(30 + (number * life * 37) % 400));
                        client.disconnect();
                    });
                    drops.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        thread::sleep(Duration::from_secs(2));
        // The storm goes on until it has made enough calls.
        let end = Instant::now() + SOON;
        while calls.load(Ordering::Relaxed) <= 1000 && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("{calls:?} calls, {drops:?} clients dropped");
    assert!(calls.into_inner() > 1000 && drops.into_inner() >= 32);
    let client = kernel.client();
    alone(&client);
    until(&client, Count::Pipes, |pipes| pipes == 0);
    drop(client);
    kernel.ends_well();
}

#[test]
fn many_clients_of_many_threads_that_vanish_on_one_cpu() {
    let Some(kernel) = Kernel::with_cpus("1", &[]) else { return };
    storm(kernel);
}

#[test]
fn many_clients_of_many_threads_that_vanish_on_four_cpus() {
    let Some(kernel) = Kernel::with_cpus("4", &["--workers", "1"]) else { return };
    storm(kernel);
}

#[test]
fn more_calls_sleep_than_there_are_seats_and_others_are_served() {
    let kernel = kernel!("--workers", "1");
    let clients: Vec<Client> = (0..40).map(|_| kernel.client()).collect();
    // One call sleeps in each client, and many in one.
    let mut sleeps: Vec<_> = clients.iter().map(asleep).collect();
    sleeps.extend((0..20).map(|_| asleep(&clients[0])));
    let other = kernel.client();
    until(&other, Count::Sleepers, |sleepers| sleepers == 60);
    for _ in 0..100 {
        other.getpid().unwrap();
        echoes(&other, b"awake");
    }
    assert!(count(&other, Count::MostAway) >= 60);
    for (at, (pending, writer)) in sleeps.into_iter().enumerate() {
        let client = &clients[if at < 40 { at } else { 0 }];
        client.write(writer, b"wake").unwrap();
        assert_eq!(pending.finish(), Ok([4, 0]), "sleeper {at}");
    }
    drop(clients);
    alone(&other);
    drop(other);
    kernel.ends_well();
}

#[test]
fn at_the_bound_of_sleepers_calls_wait_and_none_is_lost() {
    let kernel = kernel!("--workers", "2", "--max-asleep", "4");
    let client = kernel.client();
    let naps: Vec<_> = (0..40).map(|_| client.begin(own::NAP, &[30])).collect();
    let other = kernel.client();
    echoes(&other, b"served meanwhile");
    for nap in naps {
        assert_eq!(nap.finish(), Ok([0, 0]));
    }
    // There are four sleepers and a thread a seat; and the first copy of another kind may sleep, too.
    let workers = count(&other, Count::OwnLwps);
    assert!(workers <= 4 + 2 + 2, "{workers} workers");
    drop((client, other));
    kernel.ends_well();
}

#[test]
fn a_bound_of_sleepers_delays_only_those_who_sleep() {
    let kernel = kernel!("--workers", "2", "--max-asleep", "6");
    let client = kernel.client();
    let pipes: Vec<[i32; 2]> = (0..20).map(|_| client.pipe().unwrap()).collect();
    let to = client.space().alloc(8).unwrap();
    let reads = pipes.iter().map(|[reader, _]| client.begin(sys::READ, &[*reader as u64, to, 8]));
    let sleeps: Vec<_> = reads.collect();
    let other = kernel.client();
    for _ in 0..50 {
        other.getpid().unwrap();
    }
    for [_, writer] in &pipes {
        client.write(*writer, b"wake").unwrap();
    }
    for sleep in sleeps {
        assert_eq!(sleep.finish(), Ok([4, 0]));
    }
    drop((client, other));
    kernel.ends_well();
}

/// Has one client fill the places of sleepers; the reads of others still find their bytes.
#[test]
fn of_the_sleepers_of_all_greedy_clients_leave_some() {
    let kernel = kernel!("--workers", "1", "--max-asleep", "8");
    let (greedy, stranger) = (kernel.client(), kernel.client());
    let [reader, _] = greedy.pipe().unwrap();
    let to = greedy.space().alloc(8).unwrap();
    let reads: Vec<_> =
        (0..100).map(|_| greedy.begin(sys::READ, &[reader as u64, to, 8])).collect();
    until(&stranger, Count::Sleepers, |sleepers| sleepers >= 6);
    let [reader, writer] = stranger.pipe().unwrap();
    for _ in 0..20 {
        stranger.write(writer, b"wake").unwrap();
        assert_eq!(stranger.read(reader, 4).unwrap(), b"wake");
    }
    let (sleep, writer) = asleep(&stranger);
    until(&stranger, Count::Sleepers, |sleepers| sleepers >= 7);
    stranger.write(writer, b"wake").unwrap();
    assert_eq!(sleep.finish(), Ok([4, 0]));
    drop(reads);
    drop(greedy);
    alone(&stranger);
    drop(stranger);
    kernel.ends_well();
}

#[test]
fn a_child_has_the_files_of_its_parent() {
    let kernel = kernel!();
    let parent = kernel.client();
    let [reader, writer] = parent.pipe().unwrap();
    let token = parent.prefork().unwrap();
    assert_eq!(count(&parent, Count::Copied), 1, "a prefork copies the descriptors");
    let child = token.connect().unwrap();
    assert_eq!(count(&parent, Count::Shared), 1, "its child shares the prefork's");
    assert_eq!(count(&parent, Count::Cleared), 1, "a guest starts without any");
    // The prefork itself is gone.
    until(&parent, Count::Procs, |procs| procs == 2);
    until(&parent, Count::FdTabs, |tables| tables == 2);
    assert_ne!(child.getpid().unwrap(), parent.getpid().unwrap());
    parent.write(writer, b"to the child").unwrap();
    assert_eq!(child.read(reader, 100).unwrap(), b"to the child");
    parent.close(writer).unwrap();
    fails(parent.call(sys::CLOSE, &[writer as u64]), EBADF);
    // A read sleeps in the parent and is woken by the child.
    let to = parent.space().alloc(8).unwrap();
    let read = parent.begin(sys::READ, &[reader as u64, to, 8]);
    until(&child, Count::Sleepers, |sleepers| sleepers == 1);
    child.write(writer, b"up").unwrap();
    assert_eq!(read.finish(), Ok([2, 0]));
    // The last writer goes with the child.
    let read = parent.begin(sys::READ, &[reader as u64, to, 8]);
    until(&child, Count::Sleepers, |sleepers| sleepers == 1);
    drop(child);
    assert_eq!(read.finish(), Ok([0, 0]));
    drop(parent);
    kernel.ends_well();
}

#[test]
fn a_token_is_good_once_and_a_forged_one_never() {
    let kernel = kernel!();
    let parent = kernel.client();
    let refused = |bytes: &wire::Token| {
        let mut raw = RawConnection::connect(kernel.server.url()).unwrap();
        raw.read_banner(SOON).unwrap();
        let mut frame = Vec::new();
        wire::fork_request(&mut frame, 1, bytes, false);
        raw.write(&frame).unwrap();
        let RawFrame { header, .. } = raw.read_frame(SOON).unwrap();
        assert_eq!((header.class, header.word), (2, ErrorCode::InvalidPrefork.number()));
    };
    let token = parent.prefork().unwrap();
    let mut forged = *token.bytes();
    forged[15] ^= 1;
    refused(&forged);
    let child = token.connect().unwrap();
    refused(token.bytes());
    drop(child);
    refused(token.bytes());
    // A token that is cancelled takes its process with it; one that is not used stays until its parent
    // goes, and longer.
    let token = parent.prefork().unwrap();
    until(&parent, Count::Procs, |procs| procs == 2);
    token.cancel().unwrap();
    until(&parent, Count::Procs, |procs| procs == 1);
    refused(token.bytes());
    let token = parent.prefork().unwrap();
    let pipe = parent.pipe().unwrap();
    let other = kernel.client();
    drop(parent);
    let orphan = token.connect().unwrap();
    fails(orphan.call(sys::CLOSE, &[pipe[0] as u64]), EBADF);
    drop(orphan);
    alone(&other);
    drop(other);
    kernel.ends_well();
}

#[test]
fn families_fork_while_their_calls_run() {
    let kernel = kernel!();
    thread::scope(|scope| {
        for _ in 0..6 {
            let url = kernel.server.url();
            scope.spawn(move || {
                let mut client = connect(url);
                let pipe = client.pipe().unwrap();
                for generation in 0..10 {
                    let naps: Vec<_> = (0..3).map(|ms| client.begin(own::NAP, &[ms])).collect();
                    let token = client.prefork().unwrap();
                    let next = token.connect().unwrap();
                    next.write(pipe[1], b"inherited").unwrap();
                    assert_eq!(client.read(pipe[0], 9).unwrap(), b"inherited");
                    if generation % 2 == 0 {
                        naps.into_iter().for_each(|nap| assert_eq!(nap.finish(), Ok([0, 0])));
                    }
                    client = next;
                }
            });
        }
    });
    let client = kernel.client();
    alone(&client);
    until(&client, Count::Pipes, |pipes| pipes == 0);
    drop(client);
    kernel.ends_well();
}

#[test]
fn exec_keeps_the_process_and_ends_its_calls() {
    let kernel = kernel!();
    let client = kernel.client();
    let pid = client.getpid().unwrap();
    for round in 0..10 {
        let [kept, _] = client.pipe().unwrap();
        let [closed, _] = client.pipe2(O_CLOEXEC).unwrap();
        let sleeps: Vec<_> = (0..8).map(|_| asleep(&client).0).collect();
        // The calls are asleep already, or still on their way.
        if round % 2 == 0 {
            until(&client, Count::Sleepers, |sleepers| sleepers == 8);
        }
        let name = format!("program {round}");
        client.exec(&name).unwrap();
        for sleep in sleeps {
            match sleep.finish() {
                Err(CallError::Errno(error)) if [EINTR, EBUSY].contains(&error.0) => {}
                other => panic!("a call that exec ended: {other:?}"),
            }
        }
        assert_eq!(count(&client, Count::Sleepers), 0);
        assert_eq!(client.getpid().unwrap(), pid);
        let command = client.space().buffer(17).unwrap();
        client.call(own::COMMAND, &[command.addr()]).unwrap();
        assert_eq!(command.bytes(name.len()), name.as_bytes());
        fails(client.call(sys::CLOSE, &[closed as u64]), EBADF);
        client.close(kept).unwrap();
        // Calls sleep and wake as before the exec.
        let (sleep, writer) = asleep(&client);
        client.write(writer, b"awake").unwrap();
        assert_eq!(sleep.finish(), Ok([5, 0]));
        client.exec("closes the rest").unwrap();
        for fd in 3..40 {
            let _ = client.close(fd);
        }
    }
    drop(client);
    kernel.ends_well();
}

#[test]
fn exec_waits_for_calls_that_nothing_ends() {
    let kernel = kernel!();
    let client = kernel.client();
    let from = client.space().buffer_from(b"late").unwrap();
    let to = client.space().buffer(4).unwrap();
    let other = kernel.client();
    let begun = Instant::now();
    let sleep = client.begin(own::HOSTSLEEP, &[3000, from.addr(), to.addr(), 4]);
    // A call that has not begun when an exec comes is refused instead.
    until(&other, Count::Away, |away| away == 1);
    client.exec("patient").unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(3), "exec did not wait");
    assert_eq!(sleep.finish(), Ok([0, 0]));
    assert_eq!(to.bytes(4), b"late");
    drop((from, to));
    drop((client, other));
    kernel.ends_well();
}

#[test]
fn a_kernel_that_blocks_for_ever() {
    const MOST: f64 = 4.0;
    const SEATS: f64 = 2.0;
    let mut kernel = kernel!("--workers", "2", "--max-asleep", "4", "--drain", "1");
    let client = kernel.client();
    let hour = [3_600_000, 0, 0, 0];
    let stuck: Vec<_> = (0..20).map(|_| client.begin(own::HOSTSLEEP, &hour)).collect();
    kernel.server.until(SOON, "calls that are stuck", |c| c.get("asleep") >= MOST - 1.0);
    // That client leaves some places to another.
    let second = mute(&kernel, &[(own::HOSTSLEEP, &hour)]);
    kernel.server.until(SOON, "calls that are stuck", |c| c.get("asleep") >= MOST);
    // One more call of that kind waits for a thread. All other calls are served, and so are new
    // clients.
    let mut raw = mute(&kernel, &[(own::HOSTSLEEP, &[0, 0, 0, 0])]);
    let others_are_served = || {
        for _ in 0..50 {
            kernel.client().getpid().expect("a call of another kind");
        }
    };
    others_are_served();
    assert!(raw.read_frame(Duration::from_millis(100)).is_err(), "it was not to start");
    // Their client goes: calls that have not begun are over, calls that are stuck harm nobody.
    drop((stuck, client, second));
    others_are_served();
    let at_the_bound = |c: &Counters| (MOST..=MOST + SEATS).contains(&c.get("asleep"));
    kernel.server.until(SOON, "four stuck calls, or one more a seat", at_the_bound);
    // The stuck calls do not keep the server from its end.
    kernel.server.signal(Signal::TERM);
    kernel.server.ended_within(SOON, "SIGTERM with calls that never end");
}

/// Connects a client that makes these calls and answers nothing.
fn mute(kernel: &Kernel, calls: &[(i32, &[u64])]) -> RawConnection {
    let mut raw = RawConnection::connect(kernel.server.url()).unwrap();
    raw.hello("mute", SOON).unwrap();
    let mut frames = Vec::new();
    for (reqno, (number, args)) in (1..).zip(calls) {
        wire::syscall_request(&mut frames, reqno, *number, args);
    }
    raw.write(&frames).unwrap();
    raw
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let kernel = kernel!();
    let other = kernel.client();
    let busy = || until(&other, Count::Procs, |procs| procs == 2);
    // These calls sleep, for good and for a time.
    let client = kernel.client();
    let sleeps = (asleep(&client), asleep(&client), client.begin(own::NAP, &[60_000]));
    until(&other, Count::Sleepers, |sleepers| sleepers == 3);
    client.disconnect();
    drop((sleeps, client));
    alone(&other);
    // The client is asked for bytes, a string, a mapping, and does not answer.
    for call in [
        (own::ECHO, &[0x1000, 0x2000, 100][..]),
        (own::ECHOSTR, &[0x1000, 0x2000, 100]),
        (own::ANONMMAP, &[4096]),
        (sys::WRITE, &[1, 0x1000, 10]),
    ] {
        let mut raw = mute(&kernel, &[call; 5]);
        for _ in 0..5 {
            raw.read_frame(SOON).expect("it is asked");
        }
        drop(raw);
        alone(&other);
    }
    // The client goes before it is asked.
    let late = [200, 0x1000, 0x2000, 10];
    let raw = mute(&kernel, &[(own::HOSTSLEEP, &late[..]); 3]);
    busy();
    drop(raw);
    alone(&other);
    // The client does not take the bytes that come: all at once, or bit by bit.
    for args in [[0x1000, 8 << 20, 1], [0x1000, 4096, 10_000], [0x1000, 65_536, 10_000]] {
        let raw = mute(&kernel, &[(own::FLOOD, &args[..]); 2]);
        busy();
        thread::sleep(Duration::from_millis(100));
        // Its own calls wait, and no other client's.
        echoes(&other, b"meanwhile");
        drop(raw);
        alone(&other);
    }
    // The client goes in the middle of an exec that waits.
    let mut raw = mute(&kernel, &[(own::HOSTSLEEP, &[300, 0, 0, 0]), (own::NAP, &[60_000])]);
    busy();
    let mut frame = Vec::new();
    wire::handshake_request(&mut frame, 9, wire::Handshake::Exec, "never");
    raw.write(&frame).unwrap();
    drop(raw);
    alone(&other);
    drop(other);
    kernel.ends_well();
}

#[test]
fn a_flood_waits_for_a_slow_reader() {
    let kernel = kernel!();
    let mut raw = mute(&kernel, &[(own::FLOOD, &[0x1000, 65_536, 100])]);
    thread::sleep(Duration::from_millis(200));
    for piece in 0..100 {
        let frame = raw.read_frame(SOON).unwrap();
        assert_eq!(frame.header.kind(), Some(Kind::Copyout), "piece {piece}");
        assert!(frame.body[16..].iter().all(|&byte| byte == piece), "piece {piece}");
    }
    assert_eq!(raw.read_frame(SOON).unwrap().header.kind(), Some(Kind::Syscall));
    drop(raw);
    kernel.ends_well();
}

#[test]
fn a_reboot_answers_its_caller_and_ends_the_process() {
    let mut kernel = kernel!();
    // Other clients are asleep, or asked, or not reading; the server does not wait for them.
    let sleeper = kernel.client();
    let (sleep, _) = asleep(&sleeper);
    let asked = mute(&kernel, &[(own::ECHO, &[0x1000, 0x2000, 100])]);
    let deaf = mute(&kernel, &[(own::FLOOD, &[0x1000, 65_536, 10_000])]);
    let client = kernel.client();
    until(&client, Count::Sleepers, |sleepers| sleepers == 1);
    let socket = kernel.server.socket();
    client.reboot(0).expect("the answer to who halts");
    let status = kernel.server.ended_within(SOON, "a reboot");
    assert_eq!(status.code(), Some(0), "{:?}", kernel.server.last_words());
    assert!(!socket.exists(), "the socket file stayed");
    assert!(matches!(sleep.finish(), Err(CallError::Lost(_))));
    drop((asked, deaf));
}

#[test]
fn a_halt_leaves_the_process_for_a_signal_to_end() {
    let mut kernel = kernel!();
    let client = kernel.client();
    let socket = kernel.server.socket();
    client.halt().expect("the answer to who halts");
    let end = Instant::now() + SOON;
    while socket.exists() {
        assert!(Instant::now() < end, "the socket file stayed");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(try_connect(kernel.server.url()).is_err());
    assert!(kernel.server.is_running());
    kernel.server.signal(Signal::TERM);
    kernel.server.ended_within(SOON, "SIGTERM after a halt");
}

#[test]
fn a_signal_halts_the_kernel_with_calls_asleep() {
    let kernel = kernel!("--drain", "1");
    let client = kernel.client();
    let sleeps: Vec<_> = (0..5).map(|_| asleep(&client)).collect();
    until(&kernel.client(), Count::Sleepers, |sleepers| sleepers == 5);
    kernel.ends_well();
    for (sleep, _) in sleeps {
        assert!(sleep.finish().is_err());
    }
}

/// Runs a program that must fail, and returns its message.
#[track_caller]
fn refuses(command: &mut Command) -> String {
    let output = output(command, SOON);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    said
}

fn serve(url: &str, args: &[&str]) -> Command {
    let mut command = process::rumpring();
    with_lifetime(&mut command).args(["serve", "--kernel", "librump", url]).args(args);
    command
}

/// Returns the URL of a socket of its own.
fn somewhere() -> (tempfile::TempDir, Url) {
    let dir = tempfile::tempdir().unwrap();
    let url = Url::Unix(dir.path().join("s"));
    (dir, url)
}

#[test]
fn what_is_missing_is_named_with_the_loaders_words() {
    let Some(prefix) = prefix() else { return };
    let (dir, url) = somewhere();
    let url = url.to_string();
    let nowhere = dir.path().to_str().unwrap();
    let said = refuses(&mut serve(&url, &["--rump-prefix", nowhere]));
    assert!(said.contains("rumpuser") && said.contains("RUMP_PREFIX"), "{said}");
    assert!(said.contains("cannot open shared object file"), "{said}");
    // One of the three libraries is there.
    let lib = dir.path().join("lib");
    std::fs::create_dir(&lib).unwrap();
    symlink(prefix.join("lib/librumpuser.so"), lib.join("librumpuser.so")).unwrap();
    let said = refuses(serve(&url, &[]).env("RUMP_PREFIX", nowhere));
    assert!(said.contains("librump.so: cannot open shared object file"), "{said}");
    // A component is missing, among others that are there.
    let prefix = prefix.to_str().unwrap();
    let args = ["--rump-prefix", prefix, "-l", "rumpuser", "-l", "rumpnothing"];
    let said = refuses(&mut serve(&url, &args));
    assert!(said.contains("cannot load rumpnothing: "), "{said}");
    assert!(!dir.path().join("s").exists());
}

/// Copies the stand-in to where any user may read it, and may not remove the socket file.
fn readable(prefix: &Path) -> tempfile::TempDir {
    let readable = tempfile::tempdir().expect("a directory");
    let lib = readable.path().join("lib");
    std::fs::create_dir(&lib).expect("a directory");
    for name in ["rumpuser", "rump", "rumpkern_sysproxy"] {
        let file = format!("lib{name}.so");
        std::fs::copy(prefix.join("lib").join(&file), lib.join(&file)).expect("a copy");
    }
    std::fs::set_permissions(readable.path(), Permissions::from_mode(0o755)).expect("a mode");
    readable
}

/// Starts a server that may have `threads` more threads than it has, of a user whom that limit binds.
/// Returns `None`, and says so, if there is no program to set the limit.
fn with_few_threads(url: &Url, rump: &Path, threads: usize) -> Option<(Program, Client)> {
    const USER: u32 = 54_322;
    let (rump, user) = (rump.to_str().expect("a path of words"), format!("{USER}:{USER}"));
    let mut args = vec!["--rump-prefix", rump, "--workers", "2"];
    let mut limit = Command::new("prlimit");
    if geteuid().is_root() {
        args.extend(["--user", &user]);
        limit.uid(USER).gid(USER);
    }
    let mut program = Program::spawn(&mut serve(&url.to_string(), &args));
    let client = program.client(url);
    let pid = program.pid().as_raw_nonzero();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let most = tasks.count() + threads;
    limit.arg(format!("--pid={pid}")).arg(format!("--nproc={most}:{most}"));
    let Ok(limited) = limit.output() else {
        process::say("SKIPPED: there is no prlimit(1)");
        return None;
    };
    assert!(limited.status.success(), "{limited:?}");
    Some((program, client))
}

/// Has one client use up all threads that there can be. Others come and go meanwhile, and once that
/// client has left everything is as before.
#[test]
fn where_there_are_no_more_threads_a_server_goes_on() {
    let Some(prefix) = prefix() else { return };
    let readable = readable(prefix);
    let (dir, url) = somewhere();
    let Some((mut program, stranger)) = with_few_threads(&url, readable.path(), 20) else { return };
    for _ in 0..2 {
        let greedy = program.client(&url);
        let [reader, _] = greedy.pipe().unwrap();
        let to = greedy.space().alloc(8).unwrap();
        for _ in 0..300 {
            greedy.post(sys::READ, &[reader as u64, to, 8]);
        }
        greedy.flush();
        let end = Instant::now() + SOON;
        while !program.said().iter().any(|line| line.contains("cannot start another")) {
            assert!(Instant::now() < end, "it starts as many threads as it likes");
            thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..20 {
            let next = program.client(&url);
            assert!(next.getpid().unwrap() > 1, "newcomers are served");
        }
        drop(greedy);
        alone(&stranger);
        echoes(&stranger, b"as before");
        let (sleep, writer) = asleep(&stranger);
        stranger.write(writer, b"wake").unwrap();
        assert_eq!(sleep.finish(), Ok([4, 0]));
    }
    drop(stranger);
    assert!(kill_process(program.pid(), Signal::TERM).is_ok());
    let begin = Instant::now();
    assert_eq!(program.ends().code(), Some(0), "it said {:?}", program.said());
    assert!(begin.elapsed() < Duration::from_secs(5), "it has nobody to wait for");
    drop(dir);
}

#[test]
fn a_kernel_may_be_loaded_and_served_by_a_user_without_privileges() {
    let Some(prefix) = prefix() else { return };
    if !geteuid().is_root() {
        return process::say("SKIPPED: only root can become somebody else");
    }
    let readable = readable(prefix);
    let rump = readable.path().to_str().expect("a path of words");
    let (dir, url) = somewhere();
    let args = ["--rump-prefix", rump, "--user", "54321:4321"];
    let mut program = Program::spawn(&mut serve(&url.to_string(), &args));
    let client = program.client(&url);
    let pid = client.call(own::HOSTPID, &[]).expect("the server's pid")[0];
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the server's threads");
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["Uid:\t54321\t54321\t54321\t54321", "Groups:\t4321", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "expected {line:?} in {status}");
        }
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    client.reboot(0).expect("a halt");
    assert_eq!(program.ends().code(), Some(0));
    drop(dir);
}

/// Builds a component that has `name` and calls `needs`, all resolved when it is loaded.
fn component(lib: &Path, name: &str, needs: Option<&str>) {
    let source = lib.join(format!("{name}.c"));
    let call = needs.map(|needs| format!("{needs}()")).unwrap_or("0".into());
    let declare = needs.map(|needs| format!("int {needs}(void);")).unwrap_or_default();
    std::fs::write(&source, format!("{declare} int {name}(void) {{ return {call}; }}")).unwrap();
    let args = ["-fPIC", "-shared", "-Wl,-z,now", "-Wno-missing-prototypes"];
    fake::cc(&lib.join(format!("lib{name}.so")), &source, args);
}

#[test]
fn components_are_loaded_in_any_order_that_works() {
    let Some(prefix) = prefix() else { return };
    let (dir, url) = somewhere();
    let url = url.to_string();
    let lib = dir.path().join("lib");
    symlink(prefix, dir.path().join("rump")).unwrap();
    std::fs::create_dir(&lib).unwrap();
    for name in ["rumpuser", "rump", "rumpkern_sysproxy"] {
        let file = format!("lib{name}.so");
        symlink(prefix.join("lib").join(&file), lib.join(&file)).unwrap();
    }
    component(&lib, "rumpa", Some("rumpb"));
    component(&lib, "rumpb", Some("rumpc"));
    component(&lib, "rumpc", None);
    component(&lib, "rumpx", Some("rumpy"));
    component(&lib, "rumpy", Some("rumpx"));
    for order in [["rumpa", "rumpb", "rumpc"], ["rumpc", "rumpa", "rumpb"]] {
        let mut args = vec!["--rump-prefix", dir.path().to_str().unwrap()];
        args.extend(order.iter().flat_map(|name| ["-l", name]));
        let mut program = Program::spawn(&mut serve(&url, &args));
        let client = program.client(&url.parse().unwrap());
        client.reboot(0).unwrap();
        assert_eq!(program.ends().code(), Some(0));
    }
    // Two components need each other at once, which no order solves, beside one that loads.
    let prefix = dir.path().to_str().unwrap();
    let args = ["--rump-prefix", prefix, "-l", "rumpx", "-l", "rumpc", "-l", "rumpy"];
    let said = refuses(&mut serve(&url, &args));
    assert!(said.contains("cannot load rumpx, rumpy: "), "{said}");
    assert!(said.contains("undefined symbol: rump"), "{said}");
}

/// Returns the program under the name of NetBSD's own server.
fn rump_server(dir: &Path) -> Command {
    let name = dir.join("rump_server");
    if !name.exists() {
        symlink(PROGRAM, &name).unwrap();
    }
    let mut command = Command::new(name);
    with_lifetime(&mut command).env_remove("RUST_LOG").env("RUMP_PREFIX", prefix().unwrap());
    command
}

#[test]
fn rump_server_understands_the_manuals_command_line() {
    let Some(prefix) = prefix() else { return };
    let (dir, url) = somewhere();
    let disk = dir.path().join("disk");
    let module = dir.path().join("thing.kmod");
    let drive = format!("key=/dk,hostpath={},size=1m,offset=512,type=chr", disk.display());
    let mut command = rump_server(dir.path());
    command.args(["-s", "-lrumpuser", "-c", "2", "-r", "16m", "-v", "-d", &drive, "-m"]);
    let mut program = Program::spawn(command.arg(&module).arg(url.to_string()));
    let client = program.client(&url);
    assert_eq!(client.banner(), "RUMPSP-0.4-NetBSD-7.99.34/amd64");
    assert_eq!(disk.metadata().unwrap().len(), (1 << 20) + 512);
    let pid = client.call(own::HOSTPID, &[]).unwrap()[0];
    assert_eq!(pid, i64::from(program.pid().as_raw_nonzero().get()), "it stays in the foreground");
    client.reboot(0).unwrap();
    assert_eq!(program.ends().code(), Some(0));
    let said = program.said();
    for line in [
        "fake: booted, ncpu 2, memory 16m",
        "fake: drive /dk type 2 from 512 size 1048576: disk",
        "fake: module 0 from /module.mod",
        "fake: no more /module.mod",
    ] {
        assert!(said.iter().any(|said| said == line), "no {line:?} in {said:?}");
    }
    assert!(prefix.exists() && !dir.path().join("s").exists());
}

#[test]
fn rump_server_detaches_once_it_is_ready() {
    if prefix().is_none() {
        return;
    }
    let (dir, url) = somewhere();
    let output = output(rump_server(dir.path()).arg(url.to_string()), SOON);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    // The server is ready: the test does not wait here.
    let client = connect(&url);
    let daemon = Daemon::of(&client);
    let pid = daemon.pid().as_raw_nonzero().get();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session: i32 = stat.rsplit(' ').nth(stat.split(' ').count() - 6).unwrap().parse().unwrap();
    assert_eq!(session, pid, "it has a session of its own");
    let (sleep, _) = asleep(&client);
    until(&client, Count::Sleepers, |sleepers| sleepers == 1);
    for _ in 0..20 {
        echoes(&client, b"from the background");
    }
    client.disconnect();
    drop(sleep);
    let other = connect(&url);
    alone(&other);
    kill_process(daemon.pid(), Signal::TERM).unwrap();
    daemon.ends();
    assert!(!dir.path().join("s").exists());
}

#[test]
fn a_failure_before_rump_server_is_ready_is_its_own() {
    let Some(prefix) = prefix() else { return };
    let (dir, url) = somewhere();
    let url = url.to_string();
    let start = |fail: &str| refuses(rump_server(dir.path()).env("FAKE_FAIL", fail).arg(&url));
    let said = start("init");
    assert!(said.contains("rump_init returned 22"), "{said}");
    assert_eq!(said.lines().count(), 1, "once is enough: {said}");
    let said = start("server");
    assert!(said.contains("ENOMEM") || said.contains("memory"), "{said}");
    let said = refuses(rump_server(dir.path()).args(["-lrumpnothing", &url]));
    assert!(said.contains("cannot load rumpnothing"), "{said}");
    let drive = "key=/k,hostpath=/nowhere/there,size=host";
    let said = refuses(rump_server(dir.path()).args(["-d", drive, &url]));
    assert!(said.contains("/nowhere/there"), "{said}");
    // Another server is there already.
    let mut command = rump_server(dir.path());
    let mut first = Program::spawn(command.args(["-s", &url]));
    let client = first.client(&url.parse().unwrap());
    let said = refuses(rump_server(dir.path()).arg(&url));
    assert!(said.contains(&url), "{said}");
    client.reboot(0).unwrap();
    assert_eq!(first.ends().code(), Some(0));
    assert!(prefix.exists());
}

/// Returns a stock program, with or without the library before librumpuser.
fn stock(dir: &Path, linked: bool) -> Command {
    let library = librumpring();
    let mut command = Command::new(fake::host(dir, linked.then_some(&library)));
    with_lifetime(&mut command);
    for name in ["CPUS", "SPIN", "CONNECTIONS", "MAX_ASLEEP", "DRAIN"] {
        command.env_remove(format!("RUMPRING_{name}"));
    }
    if !linked {
        command.env("LD_PRELOAD", library);
    }
    command
}

#[test]
fn a_stock_program_gets_this_server_by_preload_or_by_link() {
    if prefix().is_none() {
        return;
    }
    for linked in [false, true] {
        let (dir, url) = somewhere();
        let mut program = Program::spawn(stock(dir.path(), linked).arg(url.to_string()));
        let client = program.client(&url);
        assert_eq!(client.banner(), "RUMPSP-0.4-NetBSD-7.99.34/amd64");
        let pipe = client.pipe().unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let client = &client;
                scope.spawn(move || {
                    (0..30).for_each(|n| some_call(client, thread + n, pipe).expect("a call"));
                });
            }
        });
        let child = client.prefork().unwrap().connect().unwrap();
        child.exec("child").unwrap();
        child.write(pipe[1], b"by the child").unwrap();
        assert_eq!(client.read(pipe[0], 100).unwrap(), b"by the child");
        drop(child);
        // These calls sleep inside the kernel, and the server must know of that.
        let sleeps: Vec<_> = (0..20).map(|_| asleep(&client)).collect();
        let other = connect(&url);
        until(&other, Count::Sleepers, |sleepers| sleepers == 20);
        drop((sleeps, client));
        alone(&other);
        other.reboot(0).unwrap();
        assert_eq!(program.ends().code(), Some(0), "{:?}", program.said());
        assert!(!dir.path().join("s").exists(), "the socket file stayed");
    }
}

#[test]
fn a_stock_programs_server_has_a_log() {
    if prefix().is_none() {
        return;
    }
    for (lines, warns) in [("10", true), ("0", false)] {
        let (dir, url) = somewhere();
        let mut command = stock(dir.path(), false);
        command.env("RUMPRING_LOG_LINES", lines).env("RUMPRING_NONSENSE", "1").arg(url.to_string());
        let program = Program::spawn(&mut command);
        let end = Instant::now() + SOON;
        while !program.said().iter().any(|line| line.contains("host: serving")) {
            assert!(Instant::now() < end, "{:?}", program.said());
            thread::sleep(Duration::from_millis(5));
        }
        let is_warned =
            |line: &String| line.contains("the variable RUMPRING_NONSENSE says nothing");
        while warns && !program.said().iter().any(is_warned) {
            assert!(Instant::now() < end, "{:?}", program.said());
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(program.said().iter().any(is_warned), warns, "{:?}", program.said());
    }
}

#[test]
fn without_the_library_the_stand_in_finds_it_out() {
    let Some(_) = prefix() else { return };
    let (dir, url) = somewhere();
    let mut command = stock(dir.path(), false);
    let mut program = Program::spawn(
        command.env_remove("LD_PRELOAD").env("FAKE_LIFETIME", "10").arg(url.to_string()),
    );
    assert!(!program.ends().success());
    let end = Instant::now() + SOON;
    while !program.said().iter().any(|line| line.contains("its place was not taken")) {
        assert!(Instant::now() < end, "{:?}", program.said());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stock_programs_server_is_set_up_by_the_environment() {
    if prefix().is_none() {
        return;
    }
    let (dir, url) = somewhere();
    for (name, value) in
        [("CONNECTIONS", "0"), ("CPUS", "x"), ("CPUS", "99999"), ("SPIN", "-1"), ("DRAIN", "1.5")]
    {
        let name = format!("RUMPRING_{name}");
        let mut command = stock(dir.path(), false);
        let output = output(command.env(&name, value).arg(url.to_string()), SOON);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.status.code().is_some(), "{said}");
        assert!(said.contains(&name) || said.contains(value), "{name}={value}: {said}");
        assert!(said.contains("host: error "), "{said}");
        if value != "99999" {
            assert_eq!(output.status.code(), Some(EINVAL), "{said}");
        }
    }
    let cpu = rumpring::scheduler::allowed_cpus().unwrap()[0].to_string();
    let mut command = stock(dir.path(), false);
    command.env("RUMPRING_CONNECTIONS", "2").env("RUMPRING_CPUS", &cpu);
    command.env("RUMPRING_SPIN", "20").env("RUMPRING_MAX_ASLEEP", "40");
    let mut program = Program::spawn(command.arg(url.to_string()));
    let first = program.client(&url);
    let second = connect(&url);
    let third = Client::builder().timeout(Duration::from_millis(300)).connect(&url);
    assert!(third.is_err(), "a third of two clients");
    let sleeps: Vec<_> = (0..10).map(|_| asleep(&first)).collect();
    until(&second, Count::Sleepers, |sleepers| sleepers == 10);
    let tasks =
        std::fs::read_dir(format!("/proc/{}/task", program.pid().as_raw_nonzero())).unwrap();
    let mut workers = 0;
    for task in tasks.map(|task| task.unwrap().path()) {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        if status.starts_with("Name:\tworker") {
            let line = format!("Cpus_allowed_list:\t{cpu}\n");
            assert!(status.contains(&line), "{status}");
            workers += 1;
        }
    }
    assert!((11..=40).contains(&workers), "{workers} workers");
    drop(sleeps);
    drop(first);
    alone(&second);
    second.reboot(0).unwrap();
    assert_eq!(program.ends().code(), Some(0), "{:?}", program.said());
}

/// One call keeps the only CPU, and another client asks for its pid: that client waits, and no other.
#[test]
fn who_waits_for_a_cpu_keeps_nobody_from_being_served() {
    let Some(mut kernel) = Kernel::with_cpus("1", &[]) else { return };
    let (holder, asker) = (kernel.client(), kernel.client());
    // From now on the client has an lwp, on which such calls are run at once.
    asker.getpid().unwrap();
    let go = kernel.server.dir().join("go");
    let path = holder.space().buffer_str(go.to_str().expect("a path of words")).unwrap();
    thread::scope(|scope| {
        let held = scope.spawn(|| holder.call(own::HOLD, &[path.addr()]));
        let end = Instant::now() + SOON;
        while !kernel.server.said().contains(&"fake: a CPU is held".to_string()) {
            assert!(Instant::now() < end, "the call does not begin");
            thread::sleep(Duration::from_millis(5));
        }
        let asked: Vec<_> = (0..4).map(|_| asker.begin(sys::GETPID, &[])).collect();
        // Each of these is served after the frames sent before: the last ones after the calls have been
        // tried.
        let refused = (0..4).all(|_| is_refused_without_the_kernel(kernel.server.url()));
        std::fs::write(&go, "").unwrap();
        assert!(refused, "others were served meanwhile");
        assert_eq!(held.join().unwrap(), Ok([0, 0]));
        for pid in asked {
            assert_eq!(pid.finish(), Ok([3, 0]));
        }
    });
    drop(asker);
    alone(&holder);
    drop(path);
    drop(holder);
    kernel.ends_well();
}

/// Returns `true` if a newcomer gets its banner, and an error for a call before its handshake.
fn is_refused_without_the_kernel(url: &Url) -> bool {
    let mut raw = RawConnection::connect(url).unwrap();
    let mut frame = Vec::new();
    wire::syscall_request(&mut frame, 1, sys::GETPID, &[]);
    raw.read_banner(SOON).is_ok()
        && raw.write(&frame).is_ok()
        && raw.read_frame(SOON).is_ok_and(|frame| frame.header.class == 2)
}

/// The kernel keeps data of a client for longer than the client is connected.
#[test]
fn a_late_signal_reaches_nobody_least_of_all_the_next_client() {
    const GONE: usize = 20;
    let kernel = kernel!();
    let stranger = kernel.client();
    for _ in 0..GONE {
        let client = kernel.client();
        client.call(own::LATER, &[30, 200]).unwrap();
        drop(client);
    }
    alone(&stranger);
    let heard = Arc::new(AtomicU32::new(0));
    let next: Vec<Client> = (0..GONE)
        .map(|_| {
            let hearing = heard.clone();
            let builder = Client::builder().timeout(SOON).on_signal(move |signo| {
                hearing.fetch_or(1 << signo, Ordering::SeqCst);
            });
            let client = builder.connect(kernel.server.url()).unwrap();
            // Each client has a signal of its own coming, after the others': it hears that one.
            client.call(own::LATER, &[20, 400]).unwrap();
            client
        })
        .collect();
    until(&stranger, Count::LateRaises, |raises| raises == 2 * GONE as i64);
    for client in &next {
        client.getpid().unwrap();
    }
    assert_eq!(heard.load(Ordering::SeqCst), 1 << 20, "signals by number");
    drop(next);
    alone(&stranger);
    drop(stranger);
    kernel.ends_well();
}

fn nanosleep(client: &Client, sec: i64, nsec: i64) -> Pending {
    let time = [sec, nsec].map(i64::to_le_bytes).concat();
    let time = client.space().alloc_from(&time).unwrap();
    client.begin(own::NANOSLEEP, &[time])
}

#[test]
fn a_nanosleep_takes_its_time() {
    let kernel = kernel!();
    let client = kernel.client();
    let begin = Instant::now();
    let slept = nanosleep(&client, 0, 50_000_000).finish_timeout(SOON);
    assert_eq!(slept, Some(Ok([0, 0])));
    assert!(begin.elapsed() >= Duration::from_millis(50));
    drop(client);
    kernel.ends_well();
}

/// A pause that nothing in the kernel ends early is over when its client leaves, in any way.
#[test]
fn sleepers_of_a_client_that_left_do_not_count() {
    const EACH: usize = 40;
    let kernel = kernel!("--max-asleep", "4");
    let stranger = kernel.client();
    for by_exec in [false, true] {
        let client = kernel.client();
        let mut sleeps: Vec<_> = (0..EACH).map(|_| nanosleep(&client, 86_400, 0)).collect();
        client.getpid().unwrap();
        until(&stranger, Count::Away, |away| away >= 3);
        if by_exec {
            client.exec("next").unwrap();
            for sleep in &mut sleeps {
                let end = sleep.finish_timeout(SOON).expect("an exec ends it");
                fails(end, EINTR);
            }
            let slept = nanosleep(&client, 0, 1_000_000).finish_timeout(SOON);
            assert_eq!(slept, Some(Ok([0, 0])), "what comes after the exec sleeps as ever");
        }
        drop(sleeps);
        drop(client);
        let slept = nanosleep(&stranger, 0, 1_000_000).finish_timeout(SOON);
        assert_eq!(slept, Some(Ok([0, 0])), "a stranger sleeps after that");
    }
    alone(&stranger);
    drop(stranger);
    kernel.ends_well();
}

/// The kernel keeps an lwp for each thread that has entered it, until that thread ends.
#[test]
fn threads_that_end_give_their_lwps_back() {
    const SLEEPERS: usize = 600;
    let kernel = kernel!();
    let stranger = kernel.client();
    for _ in 0..3 {
        let client = kernel.client();
        let [reader, _] = client.pipe().unwrap();
        let to = client.space().alloc(8).unwrap();
        for _ in 0..SLEEPERS {
            client.post(sys::READ, &[reader as u64, to, 8]);
        }
        client.flush();
        until(&stranger, Count::Sleepers, |sleepers| sleepers == SLEEPERS as i64);
        drop(client);
        alone(&stranger);
    }
    let end = Instant::now() + SOON;
    loop {
        // Threads end and begin: they are counted a moment before or after their lwps.
        let (lwps, threads) = (count(&stranger, Count::OwnLwps), kernel.server.threads());
        if lwps <= threads as i64 {
            break;
        }
        assert!(Instant::now() < end, "{lwps} lwps of {threads} threads");
        thread::sleep(Duration::from_millis(20));
    }
    drop(stranger);
    kernel.ends_well();
}
