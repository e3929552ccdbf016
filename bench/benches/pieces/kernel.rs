//! Measures calls of the embedded kernel, run to their end on this thread; and by clients that share
//! nothing, one alone and one on every CPU at once: as long as they share no lock either, a call takes
//! the same CPU time.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use client::numbers::{self, sys};
use criterion::{Criterion, Throughput};
use embedded::Embedded;
use kernel::{
    Args, Call, Client, CopyError, Kernel, MAX_ARGS, Outcome, Process, Progress, UserMemory,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Addresses in the client's memory: the path of the file, and the buffer.
const PATH: u64 = 0x1000;
const BUFFER: u64 = 0x2000;

/// Bytes of the client's memory.
const SIZE: usize = 1 << 16;

/// Bytes of a large read.
const PAGE: u64 = 4096;

/// A client that takes no signals.
struct Nobody;

impl Client for Nobody {
    fn raise(&self, _: i32) {}
}

/// A client's memory that is local: no copy waits.
struct Memory(Vec<u8>);

impl Memory {
    fn at(&mut self, addr: u64, len: usize) -> Result<&mut [u8], CopyError> {
        let start = addr as usize;
        self.0.get_mut(start..start.saturating_add(len)).ok_or(CopyError::Fault)
    }
}

impl UserMemory for Memory {
    fn copyin(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), CopyError> {
        buf.copy_from_slice(self.at(addr, buf.len())?);
        Ok(())
    }
    fn copyinstr(&mut self, addr: u64, buf: &mut [u8]) -> Result<usize, CopyError> {
        buf.copy_from_slice(self.at(addr, buf.len())?);
        buf.iter().position(|&byte| byte == 0).ok_or(CopyError::TooLong)
    }
    fn copyout(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.at(addr, data.len())?.copy_from_slice(data);
        Ok(())
    }
    fn copyoutstr(&mut self, data: &[u8], addr: u64) -> Result<(), CopyError> {
        self.copyout(data, addr)
    }
    fn anonmmap(&mut self, _: u64) -> Result<u64, CopyError> {
        Err(CopyError::NoMemory)
    }
    fn room(&self) -> usize {
        SIZE
    }
    fn forget(&mut self) {}
}

/// Runs a call that does not wait, and returns its value.
fn call(process: &dyn Process, memory: &mut Memory, number: i32, args: &[u64]) -> i64 {
    let mut block: Args = [0; MAX_ARGS];
    block[..args.len()].copy_from_slice(args);
    let mut call = Call {
        number,
        args: &block,
        memory,
        progress: &mut Progress::default(),
        waker: Waker::noop(),
        interrupted: false,
        inline: false,
    };
    match process.syscall(&mut call) {
        Outcome::Done(Ok([value, _])) => value,
        outcome => panic!("call {number} ended with {outcome:?}"),
    }
}

/// Makes a file of `len` bytes in the process and returns its descriptor.
fn file(process: &dyn Process, memory: &mut Memory, len: u64) -> u64 {
    let path = format!("/file-of-{}\0", process.pid());
    memory.at(PATH, path.len()).expect("it is there").copy_from_slice(path.as_bytes());
    let flags = (numbers::O_RDWR | numbers::O_CREAT) as u64;
    let file = call(process, memory, sys::OPEN, &[PATH, flags, 0o600]) as u64;
    assert_eq!(call(process, memory, sys::PWRITE, &[file, BUFFER, len, 0, 0]), len as i64);
    file
}

pub fn benches(criterion: &mut Criterion) {
    let kernel = Embedded::default();
    let spawn = || kernel.spawn(Arc::new(Nobody), b"bench").expect("a process");
    let process = spawn();
    let mut memory = Memory(vec![0; SIZE]);
    let file = file(&*process, &mut memory, PAGE);
    let mut group = criterion.benchmark_group("embedded");
    group.bench_function("getpid", |bencher| {
        bencher.iter(|| black_box(call(&*process, &mut memory, sys::GETPID, &[])));
    });
    group.bench_function("a process made and ended", |bencher| {
        bencher.iter(|| spawn().release());
    });
    group.throughput(Throughput::Bytes(PAGE));
    group.bench_function("pread 4k", |bencher| {
        let args = [file, BUFFER, PAGE, 0, 0];
        bencher.iter(|| assert_eq!(call(&*process, &mut memory, sys::PREAD, &args), PAGE as i64));
    });
    group.finish();
    process.release();
    let allowed = sched_getaffinity(None).expect("the CPUs of this process");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    side_by_side(criterion, &kernel, &cpus[..1]);
    side_by_side(criterion, &kernel, &cpus);
}

/// Measures the same two calls by a client on each of these CPUs at once.
fn side_by_side(criterion: &mut Criterion, kernel: &Embedded, cpus: &[usize]) {
    let mut group = criterion.benchmark_group(format!("embedded, {} at once", cpus.len()));
    group.bench_function("getpid", |bencher| {
        bencher.iter_custom(|calls| {
            at_once(kernel, cpus, |process, memory, _| {
                for _ in 0..calls {
                    black_box(call(process, memory, sys::GETPID, &[]));
                }
            })
        });
    });
    group.throughput(Throughput::Bytes(PAGE));
    group.bench_function("pread 4k", |bencher| {
        bencher.iter_custom(|calls| {
            at_once(kernel, cpus, |process, memory, file| {
                for _ in 0..calls {
                    let args = [file, BUFFER, PAGE, 0, 0];
                    assert_eq!(call(process, memory, sys::PREAD, &args), PAGE as i64);
                }
            })
        });
    });
    group.finish();
}

/// Runs `work` for several clients at once, with a file each, each on a CPU of its own as on the
/// workers. Returns the CPU time of the slowest client: a client that waits for a lock spins and
/// sleeps, which takes some CPU time, and other work of this machine takes none.
fn at_once(
    kernel: &Embedded,
    cpus: &[usize],
    work: impl Fn(&dyn Process, &mut Memory, u64) + Sync,
) -> Duration {
    let (begin, work) = (Barrier::new(cpus.len()), &work);
    thread::scope(|scope| {
        let client = |cpu: usize| {
            let mut own = CpuSet::new();
            own.set(cpu);
            sched_setaffinity(None, &own).expect("a CPU of this process");
            let process = kernel.spawn(Arc::new(Nobody), b"bench").expect("a process");
            let mut memory = Memory(vec![0; SIZE]);
            let file = file(&*process, &mut memory, PAGE);
            begin.wait();
            let start = cpu_time();
            work(&*process, &mut memory, file);
            let time = cpu_time() - start;
            process.release();
            time
        };
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || client(cpu))).collect();
        let times = threads.into_iter().map(|thread| thread.join().expect("a client that ends"));
        times.max().unwrap_or_default()
    })
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no negative time")
}
