//! Clients that are killed: processes with work in flight, which get SIGKILL at any moment.

use std::error::Error;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use client::numbers::sys;
use client::{Client, ForkToken};
use rumpsp::url::Url;

use super::run::{Counts, Run, sum};

/// The shortest and the longest life, in milliseconds.
const LIFE: [u32; 2] = [20, 1500];

/// The longest life of a victim that is not killed, because its killer is gone.
const LONGEST: Duration = Duration::from_secs(30);

/// The time each answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client to be killed. Started by this program itself.
#[derive(Args)]
pub struct Victim {
    url: Url,
    #[arg(long, value_enum)]
    at: At,
}

/// The work that a victim has in flight.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum At {
    Calls,
    Asleep,
    Copyin,
    Fork,
}

const ALL: [(&str, At); 4] = [
    ("killed with calls in flight", At::Calls),
    ("killed asleep in reads of pipes", At::Asleep),
    ("killed while it owes copies", At::Copyin),
    ("killed while it forks", At::Fork),
];

/// Runs `number` victims at a time, each followed by another.
pub fn kill(run: &Run, number: usize) -> Counts {
    std::thread::scope(|scope| {
        let one = |number| scope.spawn(move || kill_one_by_one(run, number));
        let threads: Vec<_> = (0..number).map(one).collect();
        sum(threads.into_iter().map(|thread| thread.join().expect("killers do not panic")))
    })
}

fn kill_one_by_one(run: &Run, number: usize) -> Counts {
    let (mut counts, mut random) = (Counts::new(), run.random("victims", number));
    while !run.is_over() {
        let (name, at) = ALL[run.choose(&mut random, ALL.len())];
        let life = LIFE[0] + random.below(LIFE[1] - LIFE[0]);
        match start(&run.url, at).and_then(|child| live(run, child, life)) {
            Ok(None) => *counts.entry(name).or_default() += 1,
            Ok(Some(said)) => run.wrong("victims", format!("{at:?} ended before its time: {said}")),
            Err(error) => run.wrong("victims", error.to_string()),
        }
    }
    counts
}

fn start(url: &Url, at: At) -> io::Result<Child> {
    let at = at.to_possible_value().expect("all have a name");
    // The program is started through /proc, since its path may by now name another program, built
    // meanwhile.
    Command::new("/proc/self/exe")
        .args(["victim", &url.to_string(), "--at", at.get_name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Kills the victim when its time has come. Returns its message if it ended with an error before.
fn live(run: &Run, mut child: Child, millis: u32) -> io::Result<Option<String>> {
    run.sleep(Duration::from_millis(millis.into()));
    child.kill()?;
    let status = child.wait()?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    // A status without a code means a signal, whoever sent it; a code means that the victim ended
    // itself.
    Ok(status.code().map(|code| format!("status {code}: {}", said.trim())))
}

impl Victim {
    pub fn run(&self) -> Result<(), Box<dyn Error>> {
        let client = Client::builder().name("victim").timeout(PATIENCE).connect(&self.url)?;
        match self.at {
            At::Calls => calls(&client),
            At::Asleep => asleep(&client),
            At::Copyin => copyin(&client),
            At::Fork => fork(&client),
        }
    }
}

fn calls(client: &Client) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while start.elapsed() < LONGEST {
        let pending: Vec<_> = (0..32).map(|_| client.begin(sys::GETPID, &[])).collect();
        for pending in pending {
            pending.finish()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn asleep(client: &Client) -> Result<(), Box<dyn Error>> {
    let buffer = client.space().alloc(1)?;
    let mut pending = Vec::new();
    for _ in 0..8 {
        let [from, _] = client.pipe()?;
        pending.push(client.begin(sys::READ, &[from as u64, buffer, 1]));
    }
    std::thread::sleep(LONGEST);
    Ok(())
}

/// Begins calls that no thread waits on, so that nothing answers the server's requests for their bytes.
fn copyin(client: &Client) -> Result<(), Box<dyn Error>> {
    let buffer = client.space().alloc(10_000)?;
    let [_, to] = client.pipe()?;
    let write = |_| client.begin(sys::WRITE, &[to as u64, buffer, 10_000]);
    let pending: Vec<_> = (0..8).map(write).collect();
    std::thread::sleep(LONGEST);
    drop(pending);
    Ok(())
}

fn fork(client: &Client) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while start.elapsed() < LONGEST {
        let tokens: Result<Vec<ForkToken>, _> = (0..4).map(|_| client.prefork()).collect();
        let mut children = Vec::new();
        for token in tokens? {
            let child = token.connect()?;
            child.getpid()?;
            children.push(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
