//! Helpers for tests: a client with its own memory, and a driver that runs a call again and again as the
//! server would.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::sync::lock;
use super::{Config, Embedded, Limits, table, work};
use kernel::{
    Args, Call, Client, CopyError, Errno, Kernel, MAX_ARGS, Outcome, Process, Progress, UserMemory,
};

/// The address and size of every client's memory.
pub const BASE: u64 = 0x10_0000;
pub const SIZE: usize = 1 << 20;
/// An address that no client has mapped.
pub const NOWHERE: u64 = 0x10;
/// The longest a test waits for the end of a call, or for a signal.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn kernel() -> Embedded {
    Embedded::default()
}

pub fn kernel_with(limits: Limits) -> Embedded {
    Embedded::new(Config { limits, ..Config::default() })
}

/// A client that records the signals it gets.
#[derive(Default)]
pub struct Signals {
    sent: Mutex<Vec<i32>>,
    /// True if signals stay pending until they are taken.
    waits: AtomicBool,
    /// The number of times that somebody asked if a signal is pending.
    looks: AtomicUsize,
}

impl Signals {
    pub fn taken(&self) -> Vec<i32> {
        std::mem::take(&mut lock(&self.sent))
    }

    pub fn untaken(&self) -> usize {
        lock(&self.sent).len()
    }

    pub fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::SeqCst);
    }

    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

impl Client for Signals {
    fn raise(&self, signo: i32) {
        lock(&self.sent).push(signo);
    }

    fn is_pending(&self, signo: i32) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.waits.load(Ordering::SeqCst) && lock(&self.sent).contains(&signo)
    }
}

/// A client: a process, its memory, its signals.
pub struct Guest {
    pub process: Arc<dyn Process>,
    pub signals: Arc<Signals>,
    memory: Arc<Mutex<Vec<u8>>>,
    /// The address of the next string.
    next: AtomicU64,
    /// The bytes a run may copy out.
    pub room: usize,
    /// True if a copy in is answered only when it is asked for again.
    pub slow: bool,
}

impl Guest {
    pub fn new(kernel: &Embedded) -> Guest {
        let signals = Arc::new(Signals::default());
        let process = kernel.spawn(signals.clone(), b"test").expect("a process");
        Guest::with(process, signals)
    }

    pub fn with(process: Arc<dyn Process>, signals: Arc<Signals>) -> Guest {
        Guest {
            process,
            signals,
            memory: Arc::new(Mutex::new(vec![0; SIZE])),
            next: AtomicU64::new(BASE),
            room: 256 * 1024,
            slow: true,
        }
    }

    /// Returns another client of its own family, with the same memory: for tests of many clients.
    pub fn beside(&self, kernel: &Embedded) -> Guest {
        let signals = Arc::new(Signals::default());
        let process = kernel.spawn(signals.clone(), b"test").expect("a process");
        let (memory, next) = (self.memory.clone(), AtomicU64::new(BASE));
        Guest { process, signals, memory, next, room: self.room, slow: self.slow }
    }

    /// Forks as a client does: prefork, adopt, release.
    pub fn fork(&self) -> Guest {
        let signals = Arc::new(Signals::default());
        let prefork = self.process.prefork().expect("a prefork");
        let process = prefork.adopt(signals.clone()).expect("a child");
        prefork.release();
        let mut child = Guest::with(process, signals);
        *lock(&child.memory) = lock(&self.memory).clone();
        child.next = AtomicU64::new(self.next.load(Ordering::Relaxed));
        child
    }

    /// Puts bytes at an address of the client's memory.
    pub fn put(&self, addr: u64, bytes: &[u8]) {
        let at = (addr - BASE) as usize;
        lock(&self.memory)[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Returns the bytes at an address of the client's memory.
    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let at = (addr - BASE) as usize;
        lock(&self.memory)[at..at + len].to_vec()
    }

    /// Puts bytes somewhere in the first half of memory, and returns their address.
    pub fn place(&self, bytes: &[u8]) -> u64 {
        let len = bytes.len().next_multiple_of(8) as u64;
        let mut at = self.next.fetch_add(len, Ordering::Relaxed);
        if at + len > BASE + SIZE as u64 / 2 {
            at = BASE;
            self.next.store(BASE + len, Ordering::Relaxed);
        }
        self.put(at, bytes);
        at
    }

    /// Puts a string somewhere, and returns its address.
    pub fn string(&self, text: &str) -> u64 {
        self.place(&[text.as_bytes(), b"\0"].concat())
    }

    /// Returns the address of `SIZE / 2` bytes that strings never reach.
    pub fn buffer(&self) -> u64 {
        BASE + SIZE as u64 / 2
    }

    /// Makes a call that can end, and waits for its result.
    pub fn call(&self, number: i32, args: &[u64]) -> Result<i64, Errno> {
        self.call2(number, args).map(|values| values[0])
    }

    pub fn call2(&self, number: i32, args: &[u64]) -> Result<[i64; 2], Errno> {
        let mut pending = self.start(number, args);
        pending.wait()
    }

    /// Makes a call that fails, and returns its error.
    pub fn fails(&self, number: i32, args: &[u64]) -> Errno {
        self.call(number, args).expect_err("a failing call")
    }

    /// Begins a call, without running it yet.
    pub fn start(&self, number: i32, args: &[u64]) -> Pending {
        let mut block: Args = [0; MAX_ARGS];
        block[..args.len()].copy_from_slice(args);
        Pending {
            process: self.process.clone(),
            number,
            args: block,
            memory: Memory {
                bytes: self.memory.clone(),
                slow: self.slow,
                room: self.room,
                asked: None,
                fetched: Vec::new(),
                out: Vec::new(),
            },
            progress: Progress::default(),
            alarm: Arc::new(Alarm::default()),
            interrupted: false,
            elsewhere: false,
            spent: [0; 2],
            runs: 0,
            copied: 0,
            halted: false,
        }
    }

    // Calls that many tests make.

    pub fn open(&self, path: &str, flags: u64) -> Result<u64, Errno> {
        self.call(5, &[self.string(path), flags, 0o644]).map(|fd| fd as u64)
    }

    pub fn close(&self, fd: u64) -> Result<i64, Errno> {
        self.call(6, &[fd])
    }

    pub fn write(&self, fd: u64, bytes: &[u8]) -> Result<i64, Errno> {
        self.put(self.buffer(), bytes);
        self.call(4, &[fd, self.buffer(), bytes.len() as u64])
    }

    pub fn read(&self, fd: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let count = self.call(3, &[fd, self.buffer(), len as u64])?;
        Ok(self.get(self.buffer(), count as usize))
    }

    pub fn pipe(&self) -> (u64, u64) {
        let [reader, writer] = self.call2(42, &[]).expect("a pipe");
        (reader as u64, writer as u64)
    }
}

/// Flag values of open(2).
pub mod o {
    pub const RDONLY: u64 = 0;
    pub const WRONLY: u64 = 1;
    pub const RDWR: u64 = 2;
    pub const NONBLOCK: u64 = 4;
    pub const APPEND: u64 = 8;
    pub const SHLOCK: u64 = 0x10;
    pub const EXLOCK: u64 = 0x20;
    pub const CREAT: u64 = 0x200;
    pub const TRUNC: u64 = 0x400;
    pub const EXCL: u64 = 0x800;
    pub const DIRECTORY: u64 = 0x20_0000;
    pub const CLOEXEC: u64 = 0x40_0000;
}

/// A call under way.
pub struct Pending {
    process: Arc<dyn Process>,
    number: i32,
    args: Args,
    memory: Memory,
    progress: Progress,
    alarm: Arc<Alarm>,
    interrupted: bool,
    /// True if the call has moved to a worker, or left work to one.
    pub elsewhere: bool,
    /// The most steps, and the most locks, of an inline run of the call.
    pub spent: [usize; 2],
    /// The number of runs.
    pub runs: usize,
    /// The number of bytes copied out.
    pub copied: u64,
    pub halted: bool,
}

impl Pending {
    /// Runs the call until it ends or sleeps. Returns `None` if it sleeps.
    pub fn run(&mut self) -> Option<Result<[i64; 2], Errno>> {
        loop {
            match self.once() {
                Outcome::Done(result) => {
                    assert!(self.progress.state.is_none(), "an ended call waits for nothing");
                    self.memory.deliver();
                    self.progress.clear();
                    return Some(result);
                }
                Outcome::Copy => self.memory.answer(),
                Outcome::Flush => {
                    self.copied += self.memory.deliver();
                }
                Outcome::Sleep(until) => {
                    self.memory.out.clear();
                    self.alarm.until(until);
                    return None;
                }
                Outcome::Elsewhere => unreachable!("it went there"),
                Outcome::Halt => {
                    self.halted = true;
                    return Some(Ok([0, 0]));
                }
            }
        }
    }

    /// Makes one run, and has the client answer if it was asked for bytes.
    pub fn step(&mut self) -> Outcome {
        let outcome = self.once();
        if outcome == Outcome::Copy {
            self.memory.answer();
        }
        outcome
    }

    /// Makes one run.
    pub fn once(&mut self) -> Outcome {
        self.runs += 1;
        assert!(self.runs < 1_000_000, "a call that never ends");
        let waker = Waker::from(self.alarm.clone());
        self.alarm.woken.store(false, Ordering::SeqCst);
        let inline = !self.elsewhere && table::runs_inline(self.number, &self.args);
        let outcome = self.run_once(&waker, inline);
        if inline {
            let [steps, locks] = work::spent();
            self.spent = [self.spent[0].max(steps), self.spent[1].max(locks)];
        }
        let later = std::mem::take(&mut self.progress.later);
        self.elsewhere |= !later.is_empty() || outcome == Outcome::Elsewhere;
        later.into_iter().for_each(|work| work());
        if outcome == Outcome::Elsewhere {
            self.memory.out.clear();
            return self.run_once(&waker, false);
        }
        outcome
    }

    fn run_once(&mut self, waker: &Waker, inline: bool) -> Outcome {
        self.process.syscall(&mut Call {
            number: self.number,
            args: &self.args,
            memory: &mut self.memory,
            progress: &mut self.progress,
            waker,
            interrupted: self.interrupted,
            inline,
        })
    }

    /// Runs the call until it ends, sleeping on this thread between runs.
    pub fn wait(&mut self) -> Result<[i64; 2], Errno> {
        loop {
            if let Some(result) = self.run() {
                return result;
            }
            assert!(self.alarm.wait(), "call {} sleeps too long", self.number);
        }
    }

    /// Returns `true` if the call was woken since its last run.
    pub fn woken(&self) -> bool {
        self.alarm.woken.load(Ordering::SeqCst)
    }

    /// Runs the call a last time, as after the client's end.
    pub fn interrupt(&mut self) -> Result<[i64; 2], Errno> {
        self.interrupted = true;
        self.run().expect("an interrupted call ends")
    }
}

#[derive(Default)]
struct Alarm {
    woken: AtomicBool,
    until: Mutex<Option<Instant>>,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Alarm {
    fn until(&self, until: Option<Instant>) {
        *lock(&self.until) = until;
    }

    /// Sleeps until the alarm rings. Returns `false` if that takes too long.
    fn wait(&self) -> bool {
        let patience = Instant::now() + PATIENCE;
        let deadline = lock(&self.until).unwrap_or(patience);
        let mut guard = lock(&self.lock);
        while !self.woken.load(Ordering::SeqCst) {
            let now = Instant::now();
            if now >= deadline {
                return true;
            }
            if now >= patience {
                return false;
            }
            let left = deadline.min(patience) - now;
            guard = self.bell.wait_timeout(guard, left).unwrap().0;
            if Instant::now() >= patience && !self.woken.load(Ordering::SeqCst) {
                return false;
            }
        }
        true
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let _guard = lock(&self.lock);
        self.woken.store(true, Ordering::SeqCst);
        self.bell.notify_all();
    }
}

/// The memory of a client, as a call sees it.
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    slow: bool,
    room: usize,
    /// The request the client has to answer: address and length, and `true` for a mapping.
    asked: Option<(u64, usize, bool)>,
    /// The answers: the request, and the bytes or a fault.
    fetched: Vec<(u64, usize, Result<Vec<u8>, CopyError>)>,
    out: Vec<(u64, Vec<u8>)>,
}

impl Memory {
    /// Has the client answer.
    fn answer(&mut self) {
        let (addr, len, map) = self.asked.take().expect("something was asked");
        let answer = if map { Ok(vec![0; 8]) } else { self.fetch(addr, len) };
        self.fetched.push((addr, len, answer));
    }

    fn fetch(&self, addr: u64, len: usize) -> Result<Vec<u8>, CopyError> {
        let bytes = lock(&self.bytes);
        let at = addr.checked_sub(BASE).ok_or(CopyError::Fault)? as usize;
        bytes.get(at..at.saturating_add(len)).map(<[u8]>::to_vec).ok_or(CopyError::Fault)
    }

    /// Returns the answer to this request, or makes the request.
    fn ask(&mut self, addr: u64, len: usize, map: bool) -> Result<Vec<u8>, CopyError> {
        assert!(len <= 1 << 17, "{len} bytes at once");
        let known = self.fetched.iter().find(|had| (had.0, had.1) == (addr, len));
        match known {
            Some((_, _, answer)) => answer.clone(),
            None if self.slow => {
                self.asked = Some((addr, len, map));
                Err(CopyError::Asked)
            }
            None if map => Ok(vec![0; 8]),
            None => self.fetch(addr, len),
        }
    }

    /// Writes what was copied out to the client's memory, as far as the addresses are good.
    fn deliver(&mut self) -> u64 {
        let mut count = 0;
        let mut bytes = lock(&self.bytes);
        for (addr, data) in self.out.drain(..) {
            count += data.len() as u64;
            let Some(at) = addr.checked_sub(BASE) else { continue };
            let at = at as usize % SIZE;
            let end = (at + data.len()).min(SIZE);
            bytes[at..end].copy_from_slice(&data[..end - at]);
        }
        count
    }
}

impl UserMemory for Memory {
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        let bytes = self.ask(addr, buf.len(), false)?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError> {
        let bytes = self.ask(addr, buf.len(), false)?;
        let len = bytes.iter().position(|&byte| byte == 0).ok_or(CopyError::TooLong)?;
        buf[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        assert!(!data.is_empty(), "a copy of nothing");
        assert!(self.asked.is_none(), "copied out after asking");
        self.out.push((addr, data.to_vec()));
        Ok(())
    }

    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.copyout(data, addr)
    }

    fn anonmmap(&mut self, len: u64) -> Result<u64, CopyError> {
        if len > 1 << 30 {
            return Err(CopyError::NoMemory);
        }
        // No test copies in from address 1, so that address stands for the request to map.
        self.ask(1, (len >> 12) as usize, true).map(|_| 0x7000_0000)
    }

    fn room(&self) -> usize {
        let used: usize = self.out.iter().map(|(_, data)| data.len()).sum();
        self.room.saturating_sub(used)
    }

    fn forget(&mut self) {
        self.fetched.clear();
    }
}
