//! Measures a batch of tasks to the pool's workers, and the notice back that all are done.
//!
//! That notice is a thread's unparking here, where the server has its mailbox and the ring's waker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

use criterion::{Criterion, Throughput};
use rumpring::scheduler::{Config, Scheduler, Task};

/// A task that only counts itself.
struct Tick;

/// The number of tasks still to come, and the thread that waits for them.
struct Context {
    left: AtomicUsize,
    waiting: Thread,
}

impl Task for Tick {
    type Context = &'static Context;

    fn run(self, context: &Self::Context) {
        if context.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            context.waiting.unpark();
        }
    }
}

pub fn benches(criterion: &mut Criterion) {
    // The context lives as long as the program: the pool's threads may use it until the end.
    let context: &'static Context =
        Box::leak(Box::new(Context { left: AtomicUsize::new(0), waiting: thread::current() }));
    let (_pool, mut dispatcher) =
        Scheduler::new(&Config::default(), context).expect("a pool starts");
    let mut group = criterion.benchmark_group("pool");
    for batch in [1, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("there and back, {batch} at once"), |bencher| {
            bencher.iter(|| {
                context.left.store(batch as usize, Ordering::Release);
                (0..batch as usize).for_each(|core| dispatcher.push(core, Tick));
                dispatcher.notify(std::time::Instant::now());
                while context.left.load(Ordering::Acquire) > 0 {
                    thread::park();
                }
            });
        });
    }
    group.finish();
}
