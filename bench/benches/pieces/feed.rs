//! Measures a session: from bytes to a started call, and from the call's result to a response.

use std::hint::black_box;
use std::sync::Arc;

use client::numbers::sys;
use criterion::{Criterion, Throughput};
use kernel::{Call, Client, Errno, Outcome, Process};
use rumpsp::session::{Answer, CallKey, CallRequest, CopyRequest, Host, KernelOp, Limits, Session};
use rumpsp::wire::{self, Handshake, Token};

/// The number of calls fed at once.
const CALLS: u64 = 64;

/// A process with no function.
struct Nobody;

impl Process for Nobody {
    fn pid(&self) -> i32 {
        1
    }
    fn syscall(&self, _: &mut Call<'_>) -> Outcome {
        unreachable!("no call is run here")
    }
    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        Err(Errno::EAGAIN)
    }
    fn adopt(&self, _: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        Err(Errno::EAGAIN)
    }
    fn exec(&self, _: &[u8]) {}
    fn release(&self) {}
}

/// A host that notes the calls that were started, and drops everything else.
#[derive(Default)]
struct Notes {
    started: Vec<CallKey>,
    sent: usize,
}

impl Host for Notes {
    fn send(&mut self, frame: &[u8]) {
        self.sent += black_box(frame).len();
    }
    fn hang_up(&mut self, why: &'static str) {
        panic!("hung up: {why}");
    }
    fn work(&mut self, _: KernelOp) {}
    fn discard(&mut self, _: Arc<dyn Process>) {}
    fn call(
        &mut self,
        key: CallKey,
        _: &Arc<dyn Process>,
        request: CallRequest<'_>,
    ) -> Option<CopyRequest> {
        black_box(request);
        self.started.push(key);
        None
    }
    fn answer(&mut self, _: CallKey, _: Answer<'_>) {}
    fn interrupt_calls(&mut self) {}
    fn interrupt_sleep(&mut self) {}
    fn keep_prefork(&mut self, prefork: Arc<dyn Process>) -> Result<Token, Arc<dyn Process>> {
        Err(prefork)
    }
    fn take_prefork(&mut self, _: &Token) -> Option<Arc<dyn Process>> {
        None
    }
    fn orphan_preforks(&mut self) {}
}

/// Returns a session whose handshake is done.
fn running(limits: &Limits, host: &mut Notes) -> Session {
    let mut session = Session::default();
    let mut handshake = Vec::new();
    wire::handshake_request(&mut handshake, 0, Handshake::Guest, "bench");
    session.receive(&mut &handshake[..], limits, host);
    session.spawned(Ok(Arc::new(Nobody)), host);
    session
}

pub fn benches(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut host = Notes::default();
    let mut session = running(&limits, &mut host);
    let mut bytes = Vec::new();
    (0..CALLS).for_each(|reqno| wire::syscall_request(&mut bytes, reqno, sys::GETPID, &[]));
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(CALLS));
    group.bench_function("calls started and finished", |bencher| {
        bencher.iter(|| {
            session.receive(&mut black_box(&bytes[..]), &limits, &mut host);
            let mut started = std::mem::take(&mut host.started);
            assert_eq!(started.len() as u64, CALLS);
            for key in started.drain(..) {
                session.respond(key, Ok([1, 0]), &mut host);
            }
            host.started = started;
        });
    });
    group.finish();
}
