//! Clients that come, do work that is checked, and go: some orderly, some in the middle of a frame or a
//! call.

use std::error::Error;
use std::time::Duration;

use client::Client;
use client::numbers::sys;

use super::canary::{check_file, check_pipe};
use super::run::{Counts, Run, sum};
use crate::workload::Random;

/// The time each answer may take, while others do their worst.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause between two visits, in milliseconds.
const PAUSE: u32 = 150;

/// The most bytes of a file.
const MOST_BYTES: u32 = 100_000;

type Visit = fn(&Client, &mut Random) -> Result<(), Box<dyn Error>>;

/// The things a client may come for.
const VISITS: [(&str, Visit); 5] = [
    ("file", visit_file),
    ("pipe", |client, random| check_pipe(client, random)),
    ("fork", visit_family),
    ("exec", visit_exec),
    ("preforks that nobody takes", visit_preforks),
];

type Leave = fn(&Client) -> Result<(), Box<dyn Error>>;

/// The ways a client may leave.
const LEAVES: [(&str, Leave); 4] = [
    ("gone without a word", |_| Ok(())),
    ("gone with calls in flight", leave_calls),
    ("gone from sleeping calls", leave_asleep),
    ("gone with a reset", leave_reset),
];

/// Runs `number` such clients at a time until the end.
pub fn come_and_go(run: &Run, number: usize) -> Counts {
    std::thread::scope(|scope| {
        let one = |number| scope.spawn(move || come_and_go_alone(run, number));
        let threads: Vec<_> = (0..number).map(one).collect();
        sum(threads.into_iter().map(|thread| thread.join().expect("these threads do not panic")))
    })
}

fn come_and_go_alone(run: &Run, number: usize) -> Counts {
    let (mut counts, mut random) = (Counts::new(), run.random("churn", number));
    let mut pause = Duration::ZERO;
    while run.sleep(pause) {
        let (name, visit) = VISITS[run.choose(&mut random, VISITS.len())];
        let (end, leave) = LEAVES[random.below(LEAVES.len() as u32) as usize];
        match come(run, &mut random, visit, leave) {
            Ok(()) => [name, end].iter().for_each(|name| *counts.entry(name).or_default() += 1),
            Err(error) => run.wrong("churn", format!("{name}, {end}: {error}")),
        }
        pause = Duration::from_millis(random.below(PAUSE).into());
    }
    counts
}

fn come(run: &Run, random: &mut Random, visit: Visit, leave: Leave) -> Result<(), Box<dyn Error>> {
    let client = Client::builder().name("visitor").timeout(PATIENCE).connect(&run.url)?;
    visit(&client, random)?;
    leave(&client)
}

fn visit_file(client: &Client, random: &mut Random) -> Result<(), Box<dyn Error>> {
    let len = random.below(MOST_BYTES) as usize + 1;
    check_file(client, "visitor", len, random)
}

/// Checks that a child is a process of its own, and has its parent's open files.
fn visit_family(client: &Client, _: &mut Random) -> Result<(), Box<dyn Error>> {
    let [from, to] = client.pipe()?;
    let child = client.prefork()?.connect()?;
    if child.getpid()? == client.getpid()? {
        return Err("a child is the same process".into());
    }
    child.write(to, b"child")?;
    if client.read(from, 10)? != b"child" {
        return Err("a child's pipe is not its parent's".into());
    }
    Ok(())
}

/// Checks that a process that becomes another program stays the same process.
fn visit_exec(client: &Client, _: &mut Random) -> Result<(), Box<dyn Error>> {
    let (pid, [from, to]) = (client.getpid()?, client.pipe()?);
    client.exec("other")?;
    if client.getpid()? != pid {
        return Err("another process after exec".into());
    }
    client.write(to, b"x")?;
    match client.read(from, 10)?.as_slice() {
        b"x" => Ok(()),
        _ => Err("another pipe after exec".into()),
    }
}

fn visit_preforks(client: &Client, random: &mut Random) -> Result<(), Box<dyn Error>> {
    for _ in 0..=random.below(4) {
        let token = client.prefork()?;
        if random.below(2) == 0 {
            token.cancel()?;
        }
    }
    Ok(())
}

fn leave_calls(client: &Client) -> Result<(), Box<dyn Error>> {
    for _ in 0..20 {
        drop(client.begin(sys::GETPID, &[]));
    }
    Ok(())
}

fn leave_asleep(client: &Client) -> Result<(), Box<dyn Error>> {
    let [from, _] = client.pipe()?;
    let buffer = client.space().alloc(1)?;
    for _ in 0..3 {
        drop(client.begin(sys::READ, &[from as u64, buffer, 1]));
    }
    Ok(())
}

/// Leaves with a reset: over TCP because of the linger time, over a unix socket because answers are
/// unread.
fn leave_reset(client: &Client) -> Result<(), Box<dyn Error>> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    leave_calls(client)
}
