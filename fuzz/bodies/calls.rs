//! The embedded kernel: a few processes make arbitrary calls with arbitrary arguments, and their memory
//! answers late, with anything, with less than asked for or not at all. Once all processes are released
//! and every file somebody named is removed, the kernel holds what it would without them.
//!
//! Input: a step a byte (see [`Rig::step`]), each followed by what it needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use embedded::{Config, Embedded, Limits, Status, Usage, table};
use kernel::{
    Args, Call, Client, CopyError, Errno, Kernel, MAX_ARGS, Outcome, Process, Progress, UserMemory,
};

use super::input::Input;

/// Where a client's memory begins, and how long it is.
const BASE: u64 = 0x10_0000;
const SIZE: usize = 64 * 1024;
/// The most processes, steps, sleeping calls and runs of one call.
const PROCESSES: usize = 5;
const STEPS: usize = 200;
const SLEEPERS: usize = 6;
const RUNS: usize = 400;
/// Different names that are remembered; no new ones are used from there on.
const NAMES: usize = 40;
/// The family of local sockets, whose addresses are paths.
const AF_LOCAL: u8 = 1;
/// The longest path, its NUL included (`MAXPATHLEN`).
const PATH_MAX: usize = 1024;

/// Small, so that they are reached.
fn limits() -> Limits {
    Limits {
        files_per_process: 12,
        files: 24,
        files_per_family: 20,
        inodes: 24,
        inodes_per_family: 20,
        bytes: 96 * 1024,
        bytes_per_family: 64 * 1024,
        processes: 8,
        processes_per_family: 6,
    }
}

fn kernel() -> Embedded {
    Embedded::new(Config { limits: limits(), ..Config::default() })
}

pub fn calls(data: &[u8]) {
    let mut input = Input::new(data);
    let kernel = kernel();
    let booted = kernel.usage();
    let mut rig = Rig { kernel, names: BTreeSet::new(), guests: Vec::new() };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        rig.step(&mut input);
        rig.check();
    }
    rig.end(booted);
}

/// A client that signals are lost on.
struct Discarding;

impl Client for Discarding {
    fn raise(&self, signo: i32) {
        assert!((1..64).contains(&signo), "signal {signo}");
    }
}

/// A client: its process, its memory, its calls that sleep.
struct Guest {
    process: Arc<dyn Process>,
    memory: Vec<u8>,
    /// Where the next thing goes that a call points to.
    next: usize,
    sleepers: Vec<Running>,
}

impl Guest {
    fn new(process: Arc<dyn Process>, memory: Vec<u8>) -> Guest {
        assert!(process.pid() > 1, "pid {}", process.pid());
        Guest { process, memory, next: 0, sleepers: Vec::new() }
    }

    /// Puts bytes into memory, over older ones if need be.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        if self.next + bytes.len() > SIZE {
            self.next = 0;
        }
        let at = self.next;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.next = at + bytes.len().next_multiple_of(8);
        BASE + at as u64
    }
}

/// A call on its way.
struct Running {
    number: i32,
    args: Args,
    progress: Progress,
    answers: Answers,
}

/// How a client answers, and what it has answered since the call forgot.
struct Answers {
    /// Only when asked a second time.
    is_late: bool,
    /// How many it gives, before it refuses.
    left: u32,
    /// What is added to every byte of one answer more than to those of the last.
    drift: u8,
    /// Bytes a run may copy out.
    room: usize,
    known: Vec<(u64, usize, Result<Vec<u8>, CopyError>)>,
}

struct Rig {
    kernel: Embedded,
    /// Every part of a path that a client has named.
    names: BTreeSet<Vec<u8>>,
    guests: Vec<Guest>,
}

impl Rig {
    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte() % 16;
        if self.guests.is_empty() || step == 0 {
            return self.spawn(input);
        }
        let at = input.pick(self.guests.len()).expect("there is a guest");
        match step {
            1 => self.fork(at),
            2 => self.guests[at].process.exec(input.take(20)),
            3 => self.release(at),
            4 => self.sleeper(at, input, false),
            5 => self.sleeper(at, input, true),
            _ => self.call(at, input),
        }
    }

    fn spawn(&mut self, input: &mut Input<'_>) {
        if self.guests.len() < PROCESSES {
            let process = self.kernel.spawn(Arc::new(Discarding), input.take(4));
            self.guests.push(Guest::new(process.expect("room for a process"), vec![0; SIZE]));
        }
    }

    /// Forks as a client does.
    fn fork(&mut self, at: usize) {
        let parent = &self.guests[at];
        let Ok(prefork) = parent.process.prefork() else {
            return;
        };
        if self.guests.len() < PROCESSES {
            let child = prefork.adopt(Arc::new(Discarding)).expect("room for a process");
            let child = Guest::new(child, parent.memory.clone());
            self.guests.push(child);
        }
        prefork.release();
    }

    /// The client goes: its calls end, then its process.
    fn release(&mut self, at: usize) {
        let mut guest = self.guests.swap_remove(at);
        guest.process.interrupt();
        for mut call in std::mem::take(&mut guest.sleepers) {
            let is_over = self.run(&mut guest, &mut call, true);
            assert!(is_over, "call {} sleeps on though its client has gone", call.number);
        }
        guest.process.release();
    }

    fn call(&mut self, at: usize, input: &mut Input<'_>) {
        let guest = &mut self.guests[at];
        let number = any_number(input);
        let answers = any_answers(input);
        let mut args = [0; MAX_ARGS];
        for slot in args.iter_mut().take(usize::from(input.byte() % 8)) {
            *slot = any_argument(input, guest);
        }
        let call = Running { number, args, progress: Progress::default(), answers };
        self.go_on(at, call);
    }

    /// A call that sleeps runs again, or ends since its client execs.
    fn sleeper(&mut self, at: usize, input: &mut Input<'_>, is_interrupted: bool) {
        let sleepers = &mut self.guests[at].sleepers;
        let Some(nth) = input.pick(sleepers.len()) else {
            return;
        };
        let mut call = sleepers.swap_remove(nth);
        if !is_interrupted {
            return self.go_on(at, call);
        }
        self.with(at, |rig, guest| {
            assert!(rig.run(guest, &mut call, true), "call {} sleeps on", call.number);
        });
    }

    fn go_on(&mut self, at: usize, mut call: Running) {
        self.with(at, |rig, guest| {
            let has_room = guest.sleepers.len() < SLEEPERS;
            if !rig.run(guest, &mut call, !has_room) {
                guest.sleepers.push(call);
            }
        });
    }

    /// Takes a guest out for a while.
    fn with(&mut self, at: usize, act: impl FnOnce(&mut Rig, &mut Guest)) {
        let mut guest = self.guests.swap_remove(at);
        act(self, &mut guest);
        self.guests.push(guest);
    }

    /// Runs a call until it ends or sleeps; whether it has ended.
    fn run(&mut self, guest: &mut Guest, call: &mut Running, interrupted: bool) -> bool {
        for _ in 0..RUNS {
            let mut memory = Memory {
                bytes: &mut guest.memory,
                answers: &mut call.answers,
                names: &mut self.names,
                asked: None,
                out: Vec::new(),
            };
            let outcome = guest.process.syscall(&mut Call {
                number: call.number,
                args: &call.args,
                memory: &mut memory,
                progress: &mut call.progress,
                waker: Waker::noop(),
                interrupted,
                inline: false,
            });
            assert_eq!(outcome == Outcome::Copy, memory.asked.is_some(), "asked, and said so");
            match outcome {
                Outcome::Done(result) => {
                    memory.deliver();
                    assert!(call.progress.state.is_none(), "an ended call waits for nothing");
                    if let Err(Errno(errno)) = result {
                        assert!((1..=96).contains(&errno), "errno {errno}");
                    }
                    return true;
                }
                Outcome::Halt => return true,
                Outcome::Elsewhere => unreachable!("it was not inline"),
                Outcome::Sleep(_) => return false,
                Outcome::Copy => memory.answer(),
                Outcome::Flush => memory.deliver(),
            }
        }
        // Long transfers in small pieces do not end here; their client goes.
        assert!(!interrupted, "call {} goes on though its client has gone", call.number);
        self.run(guest, call, true)
    }

    /// What holds between any two steps.
    fn check(&self) {
        let (usage, limits) = (self.kernel.usage(), limits());
        let processes = self.guests.len() as u64;
        assert_eq!(usage.processes, processes, "processes of clients that are there");
        // The console of a new process is opened at the limit, too.
        assert!(usage.files <= limits.files + processes, "{usage:?}");
        assert!(usage.bytes <= limits.bytes, "{usage:?}");
        assert!(usage.inodes <= limits.inodes.max(20), "{usage:?}");
        assert!(usage.ports <= usage.files, "{usage:?}");
    }

    /// Everybody goes, and every file anybody named.
    fn end(mut self, booted: Usage) {
        while !self.guests.is_empty() {
            self.release(0);
        }
        let left = self.kernel.usage();
        let Usage { processes, files, ports, .. } = left;
        let before = (booted.processes, booted.files, booted.ports);
        assert_eq!((processes, files, ports), before, "what no process has");
        let untouched = kernel();
        let expected = sweep(&untouched, &self.names);
        assert_eq!(sweep(&self.kernel, &self.names), expected, "files that nobody can name");
    }
}

/// Removes all files with these names, in whatever directories of these names; what is held then.
fn sweep(kernel: &Embedded, names: &BTreeSet<Vec<u8>>) -> Usage {
    let process = kernel.spawn(Arc::new(Discarding), b"sweep").expect("room for a process");
    let mut guest = Guest::new(process, vec![0; SIZE]);
    sweep_here(&mut guest, names);
    guest.process.release();
    kernel.usage()
}

fn sweep_here(guest: &mut Guest, names: &BTreeSet<Vec<u8>>) {
    use kernel::sys::{CHDIR, LCHFLAGS, RMDIR, UNLINK};
    for name in names {
        let path = [&name[..], b"\0"].concat();
        // Somebody may have made it immutable.
        by_path(guest, LCHFLAGS, &path);
        if by_path(guest, UNLINK, &path) {
            continue;
        }
        if by_path(guest, CHDIR, &path) {
            sweep_here(guest, names);
            assert!(by_path(guest, CHDIR, b"..\0"), "there is a way back");
            by_path(guest, RMDIR, &path);
        }
    }
}

fn by_path(guest: &mut Guest, number: i32, path: &[u8]) -> bool {
    let mut args = [0; MAX_ARGS];
    args[0] = guest.place(path);
    let (mut answers, mut progress) = (Answers::good(), Progress::default());
    let mut memory = Memory {
        bytes: &mut guest.memory,
        answers: &mut answers,
        names: &mut BTreeSet::new(),
        asked: None,
        out: Vec::new(),
    };
    let outcome = guest.process.syscall(&mut Call {
        number,
        args: &args,
        memory: &mut memory,
        progress: &mut progress,
        waker: Waker::noop(),
        interrupted: false,
        inline: false,
    });
    matches!(outcome, Outcome::Done(Ok(_)))
}

/// Mostly the number of a call that is there.
fn any_number(input: &mut Input<'_>) -> i32 {
    let byte = input.byte();
    if byte == 0xff {
        return input.word() as i32;
    }
    let there = || table().filter(|entry| entry.status != Status::Absent);
    let nth = usize::from(byte) % there().count();
    there().nth(nth).map_or(0, |entry| entry.number)
}

fn any_answers(input: &mut Input<'_>) -> Answers {
    let how = input.byte();
    Answers {
        is_late: how & 1 == 0,
        left: if how & 0x0e == 0x0e { u32::from(how >> 4) } else { u32::MAX },
        drift: if how & 0x70 == 0x70 { 1 } else { 0 },
        room: if how & 0x80 == 0 { 256 * 1024 } else { 4096 },
        known: Vec::new(),
    }
}

/// A small number, a wild one, an address of something new, or of anything.
fn any_argument(input: &mut Input<'_>, guest: &mut Guest) -> u64 {
    match input.byte() % 12 {
        0..=2 => u64::from(input.byte() % 16),
        3 => u64::from(input.byte()) << (input.byte() % 64),
        4 => input.word(),
        5 => 0u64.wrapping_sub(u64::from(input.byte())),
        6 => BASE + u64::from(input.byte()) * 257,
        7 => BASE + SIZE as u64 - u64::from(input.byte()),
        8 => {
            let len = usize::from(input.byte());
            guest.place(input.take(len))
        }
        9 => {
            const PARTS: [&str; 8] = ["/", "tmp", "a", "..", "b", "dev", "null", "."];
            let mut path = String::new();
            for _ in 0..input.byte() % 5 {
                path.push_str(PARTS[usize::from(input.byte() % 8)]);
                path.push('/');
            }
            guest.place(format!("{}\0", path.trim_end_matches('/')).as_bytes())
        }
        10 => {
            let mut segments = Vec::new();
            for _ in 0..input.byte() % 5 {
                let addr = BASE + u64::from(input.byte()) * 250;
                segments.extend(addr.to_le_bytes());
                segments.extend((u64::from(input.byte()) << (input.byte() % 12)).to_le_bytes());
            }
            guest.place(&segments)
        }
        _ => 0,
    }
}

impl Answers {
    fn good() -> Answers {
        Answers { is_late: false, left: u32::MAX, drift: 0, room: SIZE, known: Vec::new() }
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Bytes(u64, usize),
    Text(u64, usize),
    Mapping(u64),
}

impl What {
    /// A name for the answer.
    fn key(self) -> (u64, usize) {
        match self {
            What::Bytes(addr, len) => (addr, len),
            What::Text(addr, len) => (addr, len | 1 << 40),
            What::Mapping(len) => (len, 1 << 41),
        }
    }
}

/// The memory of a client as one run of a call sees it.
struct Memory<'a> {
    bytes: &'a mut Vec<u8>,
    answers: &'a mut Answers,
    names: &'a mut BTreeSet<Vec<u8>>,
    asked: Option<What>,
    out: Vec<(u64, Vec<u8>)>,
}

impl Memory<'_> {
    /// The answer to this question, or the question is put.
    fn ask(&mut self, what: What) -> Result<Vec<u8>, CopyError> {
        assert!(self.asked.is_none(), "asked again before the answer");
        let (addr, len) = what.key();
        if let Some((_, _, answer)) =
            self.answers.known.iter().find(|it| (it.0, it.1) == (addr, len))
        {
            return answer.clone();
        }
        self.asked = Some(what);
        if !self.answers.is_late {
            self.answer();
            return self.ask(what);
        }
        Err(CopyError::Asked)
    }

    /// The client answers.
    fn answer(&mut self) {
        let what = self.asked.take().expect("something was asked");
        let answer = match what {
            _ if self.answers.left == 0 => Err(CopyError::Fault),
            What::Bytes(addr, len) => self.fetch(addr, len),
            What::Text(addr, len) => self.text(addr, len),
            What::Mapping(len) if len > 1 << 30 => Err(CopyError::NoMemory),
            What::Mapping(_) => Ok(Vec::new()),
        };
        self.answers.left = self.answers.left.saturating_sub(1);
        let (addr, len) = what.key();
        self.answers.known.push((addr, len, answer));
        if self.answers.drift > 0 {
            self.bytes.iter_mut().take(512).for_each(|byte| *byte = byte.wrapping_add(1));
        }
    }

    fn fetch(&mut self, addr: u64, len: usize) -> Result<Vec<u8>, CopyError> {
        let at = addr.checked_sub(BASE).ok_or(CopyError::Fault)?;
        let at = usize::try_from(at).map_err(|_| CopyError::Fault)?;
        let bytes = self.bytes.get(at..at.saturating_add(len)).ok_or(CopyError::Fault)?.to_vec();
        // The address of a local socket has a path in it.
        if let [_, AF_LOCAL, path @ ..] = &bytes[..]
            && path.len() < 256
        {
            self.remember(path.split(|&byte| byte == 0).next().unwrap_or(path))?;
        }
        Ok(bytes)
    }

    /// A string, without its NUL.
    fn text(&mut self, addr: u64, len: usize) -> Result<Vec<u8>, CopyError> {
        let at = addr.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
        let from = at.and_then(|at| self.bytes.get(at..)).ok_or(CopyError::Fault)?;
        let end = from.iter().take(len).position(|&byte| byte == 0).ok_or(CopyError::TooLong)?;
        let text = from[..end].to_vec();
        self.remember(&text)?;
        Ok(text)
    }

    /// Notes the parts of a path.
    fn remember(&mut self, path: &[u8]) -> Result<(), CopyError> {
        for part in path.split(|&byte| byte == b'/') {
            if matches!(part, b"" | b"." | b"..") || self.names.contains(part) {
                continue;
            }
            if self.names.len() == NAMES {
                return Err(CopyError::Fault);
            }
            self.names.insert(part.to_vec());
        }
        Ok(())
    }

    /// What was copied out reaches the client, as far as its addresses are good.
    fn deliver(&mut self) {
        for (addr, data) in self.out.drain(..) {
            let at = addr.checked_sub(BASE).and_then(|at| usize::try_from(at).ok());
            let Some(to) = at.and_then(|at| self.bytes.get_mut(at..)) else { continue };
            let len = data.len().min(to.len());
            to[..len].copy_from_slice(&data[..len]);
        }
    }
}

impl UserMemory for Memory<'_> {
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        assert!(buf.len() <= 1 << 17, "{} bytes at once", buf.len());
        buf.copy_from_slice(&self.ask(What::Bytes(addr, buf.len()))?);
        Ok(())
    }

    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError> {
        assert!(buf.len() <= PATH_MAX, "a path of {} bytes", buf.len());
        let text = self.ask(What::Text(addr, buf.len()))?;
        buf[..text.len()].copy_from_slice(&text);
        Ok(text.len())
    }

    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        assert!(!data.is_empty(), "a copy of nothing");
        assert!(self.asked.is_none(), "copied out after asking");
        assert!(data.len() <= 1 << 17, "{} bytes at once", data.len());
        self.out.push((addr, data.to_vec()));
        Ok(())
    }

    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.copyout(data, addr)
    }

    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError> {
        self.ask(What::Mapping(len)).map(|_| 0x7000_0000)
    }

    fn room(&self) -> usize {
        let used: usize = self.out.iter().map(|(_, data)| data.len()).sum();
        self.answers.room.saturating_sub(used)
    }

    fn forget(&mut self) {
        self.answers.known.clear();
    }
}
