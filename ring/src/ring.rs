//! The ring itself: its parts, the wait, and the dispatch of completions.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::types::CancelBuilder;
use io_uring::{opcode, squeue};
use memmap2::{MmapMut, MmapRaw};

use crate::accept::Listeners;
use crate::buffers::Buffers;
use crate::peer_query::Questions;
use crate::queue::{Completion, Enter, Queue};
use crate::quiet::Quiet;
use crate::retry::Retry;
use crate::send::Sends;
use crate::setup::{Setup, setup};
use crate::slots::Slots;
use crate::spin::Spin;
use crate::token::{Op, Token};
use crate::{Arena, Config, Error, Event, Features, Socket, Stats, Waker};

/// Sockets over one io_uring, driven by the thread that made the ring.
///
/// See the [crate's documentation](crate) for its use.
pub struct Ring {
    // The queue is first, so that the ring is closed before the memory it was given is unmapped.
    pub(crate) queue: Queue,
    pub(crate) features: Features,
    pub(crate) zero_copy_from: Option<usize>,
    pub(crate) slots: Slots,
    pub(crate) listeners: Listeners,
    pub(crate) questions: Questions,
    /// True if listeners may make peer queries.
    pub(crate) peers: bool,
    pub(crate) sends: Sends,
    pub(crate) buffers: Rc<Buffers>,
    arena: Arena,
    waker: Waker,
    spin: Spin,
    /// Events that came of no completion, or of a completion that made two events.
    pub(crate) ready: VecDeque<Event>,
    /// Sockets whose recv found no buffer.
    pub(crate) starved: VecDeque<Socket>,
    /// Sockets whose recv a cancel has missed.
    pub(crate) missed_cancels: Vec<Socket>,
    /// Closing sockets whose cancel has completed before the request it cancelled.
    pub(crate) unsettled: Vec<Socket>,
    /// The number of waits for which these have been put off.
    pub(crate) waits_for_cancels: u32,
    /// Requests to make again after a pause.
    pub(crate) retry: Retry,
    /// Sockets to look at once they are quiet, and the memory for the byte that such a look may show.
    pub(crate) quiet: Quiet,
    pub(crate) glimpse: MmapRaw,
    /// The memory that chains are built in.
    pub(crate) chain: Vec<squeue::Entry>,
    pub(crate) stats: Stats,
}

impl Ring {
    /// Makes a ring, on the thread that will use it.
    pub fn new(config: &Config) -> Result<Ring, Error> {
        config.check()?;
        let buffers = Buffers::new(config.recv_buffers, config.recv_buffer_len)
            .map_err(Error::system("mapping the receive buffers"))?;
        let arena = Arena::new(&config.arena).map_err(Error::system("mapping the arena"))?;
        let glimpse = MmapMut::map_anon(1).map_err(Error::system("mapping a byte"))?.into();
        let waker = Waker::new().map_err(Error::registering("an eventfd"))?;
        let Setup { io, features, registered } = setup(config, &buffers, &arena)?;
        let zero_copy = features.contains(Features::SEND_ZC);
        let mut ring = Ring {
            queue: Queue::new(io, registered).map_err(Error::system("mapping the SQ"))?,
            features,
            zero_copy_from: config.zero_copy_from.filter(|_| zero_copy),
            slots: Slots::new(config.sockets),
            listeners: Listeners::default(),
            questions: Questions::default(),
            peers: config.peers,
            sends: Sends::default(),
            buffers,
            arena,
            waker,
            spin: Spin::new(config.spin),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            missed_cancels: Vec::new(),
            unsettled: Vec::new(),
            waits_for_cancels: 0,
            retry: Retry::default(),
            quiet: Quiet::default(),
            glimpse,
            chain: Vec::new(),
            stats: Stats::default(),
        };
        ring.arm_waker();
        Ok(ring)
    }

    /// Returns the arena of the chunks to send.
    pub fn arena(&self) -> Arena {
        self.arena.clone()
    }

    /// Returns a handle that ends the ring's sleep, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns the features of the kernel that the ring uses.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Returns the counters of the ring, and the gauges of what it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            sockets: self.slots.live(),
            sends: self.sends.in_flight(),
            free_recv_buffers: u32::from(self.buffers.free()),
            chunks: self.arena.lent(),
            heap_chunks: self.arena.lent_from_heap(),
            heap_chunks_made: self.arena.made_on_heap(),
            ..self.stats
        }
    }

    /// Submits everything queued and sleeps until there is an event to look for, `deadline` has passed,
    /// or a [`Waker`] woke the ring. May return early; the caller loops.
    ///
    /// `idle` says whether the caller's own queues are empty. If they are not, there is no sleep. The
    /// ring calls it while looking for events ([`Config::spin`]), and once more right before sleeping,
    /// when wakers already know the thread as parked.
    pub fn wait(
        &mut self,
        deadline: Option<Instant>,
        idle: impl Fn() -> bool,
    ) -> Result<(), Error> {
        self.stats.cq_overflows += u64::from(self.queue.overflown());
        let unfinished = self.before_wait() | !self.flush()?;
        if unfinished || !self.ready.is_empty() || self.queue.has_completions() {
            return self.poll();
        }
        let retries = [self.listeners.next_retry(), self.retry.next(), self.quiet.next()];
        let deadline = retries.into_iter().chain([deadline]).flatten().min();
        let timeout = deadline.map(|when| when.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            self.quiet.ring_is_late();
            return self.poll();
        }
        if self.spin.pays() && self.look(&idle)? {
            return self.poll();
        }
        self.waker.park();
        if !idle() {
            self.waker.unpark();
            return self.poll();
        }
        let done = self.enter(Enter::Wait(timeout));
        self.waker.unpark();
        done
    }

    /// Looks for events without sleeping. Returns `true` if there are any. Queued entries are submitted
    /// first: the events come of them.
    fn look(&mut self, idle: impl Fn() -> bool) -> Result<bool, Error> {
        self.poll()?;
        let queue = &mut self.queue;
        Ok(self.spin.look(|| queue.has_completions() || queue.needs_enter() || !idle()))
    }

    /// Takes the next event. Makes no system call, unless the SQ fills up.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let completion = self.queue.pop(&mut self.stats)?;
            if let Some(event) = self.complete(completion) {
                return Some(event);
            }
        }
    }

    /// Does the work due once after a batch of completions: everything that was put off so as not to
    /// spin. Returns `true` if the work is to be done again without sleeping.
    fn before_wait(&mut self) -> bool {
        self.retry_missed_cancels();
        let puts_off = self.cancel_unsettled();
        self.arm_delayed_accepts();
        self.make_delayed();
        puts_off | self.look_at_quiet() | self.feed_starved()
    }

    fn flush(&mut self) -> Result<bool, Error> {
        match self.queue.flush_backlog(&mut self.stats) {
            Ok(flushed) => Ok(flushed),
            Err(error) => self.tolerate(error).map(|()| false),
        }
    }

    /// Submits entries and runs deferred work, without sleeping.
    fn poll(&mut self) -> Result<(), Error> {
        if self.queue.needs_enter() { self.enter(Enter::Poll) } else { Ok(()) }
    }

    fn enter(&mut self, how: Enter) -> Result<(), Error> {
        let done = self.queue.enter(how, &mut self.stats);
        done.or_else(|error| self.tolerate(error))
    }

    /// Ignores the errors that just end an enter: the caller looks for events and enters again.
    fn tolerate(&mut self, error: io::Error) -> Result<(), Error> {
        match error.raw_os_error() {
            // The time is up; a signal came.
            Some(libc::ETIME | libc::EINTR) => {}
            // Completions must be fetched first.
            Some(libc::EBUSY) => self.stats.refused_enters += 1,
            // The kernel is out of memory for requests. No event tells when it has memory again.
            Some(libc::EAGAIN | libc::ENOMEM) => {
                self.stats.refused_enters += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Some(libc::EBADR) => return Err(Error::CompletionLost),
            _ => return Err(Error::system("io_uring_enter")(error)),
        }
        Ok(())
    }

    pub(crate) fn arm_waker(&mut self) {
        let poll = self.waker.poll();
        self.queue.push(&[poll], &mut self.stats);
    }

    fn complete(&mut self, completion: Completion) -> Option<Event> {
        let Some(token) = completion.token else {
            self.stats.stale_cqes += 1;
            return None;
        };
        match token.op {
            Op::Accept => return self.on_accept(token, completion),
            Op::Recv => return self.on_recv(token, completion),
            Op::Send => return self.on_send(token, completion),
            Op::PeerQuery => return self.on_answer(token, completion.result),
            Op::Close => return self.on_close(token, completion.result),
            Op::HangUp => return self.on_hang_up(token, completion),
            Op::Look => return self.on_look(token, completion),
            Op::CancelAccept => self.on_cancel_accept(token),
            Op::CancelRecv => self.on_cancel_recv(token, completion.result),
            Op::CancelAll => self.on_cancel_all(token),
            Op::Shutdown => self.on_shutdown(token, completion.result),
            Op::Wake => self.on_wake(completion),
        }
        None
    }

    fn on_wake(&mut self, completion: Completion) {
        if completion.result < 0 {
            // Until the poll is armed again no sleep is longer than the pause.
            return self.try_later(Token { op: Op::Wake, index: 0, generation: 0 });
        }
        self.stats.wakes += 1;
        if !completion.more() {
            self.arm_waker();
        }
    }

    /// Cancels all requests and waits until the kernel has let go of our memory. Bounded: returns
    /// `false` if the kernel does not let go within a second.
    pub(crate) fn cancel_everything(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(1);
        self.ready.clear();
        self.starved.clear();
        while self.queue.in_flight() > 0 {
            if Instant::now() >= end {
                return false;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(0);
            self.queue.push(&[cancel], &mut self.stats);
            let _ = self.flush();
            let _ = self.enter(Enter::Wait(Some(Duration::from_millis(10))));
            while self.queue.pop(&mut self.stats).is_some() {}
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.cancel_everything() {
            // A peer that does not read can keep zero copy memory in flight for as long as it likes.
            tracing::warn!("io_uring: requests still in flight, their memory is not freed");
            std::mem::forget(Rc::clone(&self.buffers));
            std::mem::forget(std::mem::take(&mut self.sends));
            std::mem::forget(std::mem::take(&mut self.questions));
        }
    }
}

impl Socket {
    pub(crate) fn token(self, op: Op) -> Token {
        Token { op, index: self.index, generation: self.generation }
    }

    pub(crate) fn of(token: Token) -> Socket {
        Socket { index: token.index, generation: token.generation }
    }
}
