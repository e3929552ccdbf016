//! The submission thread: ring events to sessions, jobs to the scheduler, replies to the ring.
//!
//! [`Server::run`] is the loop. Each turn handles every event there is, then submits all that came of
//! it with one `io_uring_enter`. Only this thread touches the ring and the sessions, so neither has a
//! lock; it meets the workers at two places, the scheduler's deques (jobs out) and the [`mailbox`]
//! (results back).
//!
//! - [`core`]: what becomes of an event. It knows the ring as a trait only.
//! - [`connection`]: one client; [`shared`]: what all connections share.
//! - [`task`] and [`job`]: what goes to the scheduler; [`memory`]: a client's memory as calls see it;
//!   [`prefetch`]: what is fetched of it before it is asked for; [`predictor`]: when that is.
//! - [`inline`]: which calls this thread runs itself.
//! - [`send_queue`]: what is owed to a client; [`quota`]: what one client takes of what all share;
//!   [`holding`]: what one call does;
//!   [`reply_slot`]: where a call that cannot restart waits for its client.
//! - [`signals`]: those on their way to a client.
//! - [`access`]: who may connect.
//! - [`preforks`], [`timers`], [`limits`], [`stats`], [`listener`]: what their names say.

mod access;
mod client_wait;
mod connection;
mod core;
mod holding;
mod inline;
mod job;
mod limits;
mod listener;
#[cfg(all(loom, test))]
mod loom_tests;
mod mailbox;
mod memory;
mod predictor;
mod prefetch;
mod preforks;
mod quota;
mod reply_slot;
mod send_queue;
mod shared;
mod signals;
#[cfg(test)]
mod simulator;
mod stats;
mod task;
mod timers;

pub use access::Access;
pub use limits::{AnswerTime, Limits};
pub use listener::{Bound, ListenError, SocketFile, SocketMode, listen};
pub use memory::{MAX_ASK, ROOM};
pub use stats::{CoreStats, Stats};

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ring::{Chunk, Event, Listener, Ring, Socket, Then};

use crate::scheduler::{self, Scheduler};
use kernel::Kernel;
use rumpsp::url::Url;
use rumpsp::wire;

use core::{Net, ServerCore};
use inline::Inline;
use job::{Context, Job};
use mailbox::{Mailbox, Message};
use shared::Shared;

/// How long processes have to go once the server has hung up on everybody. A kernel that keeps one
/// for longer is left behind.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long threads look for work before they sleep, unless told otherwise, as long as that pays: about
/// the time in which a client that was answered comes with its next call.
pub const SPIN: Duration = Duration::from_micros(20);

/// What to serve with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where.
    pub url: Url,
    pub ring: ring::Config,
    pub scheduler: scheduler::Config,
    pub limits: Limits,
    /// Who may connect.
    pub access: Access,
    /// The same, by the socket file.
    pub socket: SocketMode,
}

impl Config {
    /// The defaults, at this URL.
    pub fn new(url: Url) -> Config {
        Config {
            url,
            ring: ring::Config { spin: SPIN, ..ring::Config::default() },
            scheduler: scheduler::Config { spin: SPIN, ..scheduler::Config::default() },
            limits: Limits::default(),
            access: Access::default(),
            socket: SocketMode::default(),
        }
    }
}

/// Why a server does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Ring(#[from] ring::Error),
    #[error(transparent)]
    Scheduler(#[from] scheduler::Error),
    /// The server's thread could not be made, or panicked.
    #[error("the server's thread: {0}")]
    Thread(String),
    /// Something has gone that it cannot do without.
    #[error("the server has ended: {0}")]
    Ended(String),
}

/// A server that listens. It stays on the thread that made it.
pub struct Server {
    // Before the ring, which has the socket: see [`SocketFile`].
    file: Option<SocketFile>,
    ring: Ring,
    listener: Option<Listener>,
    url: Url,
    core: ServerCore,
    mailbox: Arc<Mailbox>,
    scheduler: Scheduler<Job>,
    /// Calls that panicked.
    panics: Arc<AtomicU64>,
    // Last, so that all the others are gone when it says so.
    ended: SayEnded,
}

/// A way to a server from other threads.
#[derive(Clone)]
pub struct Control {
    mailbox: Arc<Mailbox>,
    ended: Arc<Ended>,
}

/// Whether a server has ended, and if so why, should it not have.
#[derive(Default)]
struct Ended {
    how: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

/// Says so when the server goes, however it does.
#[derive(Default)]
struct SayEnded {
    ended: Arc<Ended>,
    why: Option<String>,
}

impl Drop for SayEnded {
    fn drop(&mut self) {
        let panicked = std::thread::panicking().then(|| "its thread panicked".to_string());
        let how = self.why.take().or(panicked).map_or(Ok(()), Err);
        *self.ended.how.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.ended.changed.notify_all();
    }
}

impl Control {
    /// Has the server stop: it takes no more clients, calls in flight have [`Limits::drain`] to end.
    pub fn stop(&self) {
        self.mailbox.post(Message::Stop);
    }

    /// The kernel is gone: has the server end at once, with what it has already been told.
    pub fn abandon(&self) {
        self.mailbox.post(Message::KernelGone);
    }

    /// The server's counters, or `None` if it has ended.
    pub fn stats(&self) -> Option<Stats> {
        let (answer, stats) = mpsc::channel();
        self.mailbox.post(Message::Stats(answer));
        stats.recv_timeout(Duration::from_secs(10)).ok()
    }

    /// Has the server end at once with this as its error.
    pub fn fail(&self, reason: String) {
        self.mailbox.fail(reason);
    }

    /// Runs `body` on a thread that the server cannot do without: if it ends before the server, by a panic
    /// or otherwise, that is the server's end.
    pub fn run_for_good(
        &self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let control = self.clone();
        let run = move || {
            let how = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(()) => "ended",
                Err(_) => "panicked",
            };
            control.fail(format!("the thread `{name}` {how}"));
        };
        std::thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }

    /// Waits until the server has ended, its socket file with it. Returns why, should it not have.
    pub fn wait_for_end(&self) -> Result<(), Error> {
        let how = self.ended.how.lock().unwrap_or_else(PoisonError::into_inner);
        let how = self.ended.changed.wait_while(how, |how| how.is_none());
        let how = how.unwrap_or_else(PoisonError::into_inner).clone();
        how.unwrap_or(Ok(())).map_err(Error::Ended)
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.ended.how.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Server {
    /// Binds, listens and starts the scheduler. Connections are accepted from here on, and served once it
    /// runs.
    pub fn new(config: &Config, kernel: Arc<dyn Kernel>) -> Result<Server, Error> {
        Server::on(bind(config)?, config, kernel)
    }

    /// The same on a socket that listens already, by [`bind`]: for who has something to do in between,
    /// before there is a ring or a thread.
    pub fn on(bound: Bound, config: &Config, kernel: Arc<dyn Kernel>) -> Result<Server, Error> {
        let ask = config.access.ask(&config.url);
        let mut ring = Ring::new(&ring::Config { peers: ask.is_some(), ..config.ring.clone() })?;
        let waker = ring.waker();
        let mailbox = Arc::new(Mailbox::new(Box::new(move || waker.wake())));
        let identity = kernel.identity();
        let banner = wire::banner(&identity.ostype, &identity.osrelease, &identity.machine);
        let restarts = kernel.restarts();
        let context = Context { kernel, mailbox: mailbox.clone(), panics: Arc::default() };
        let panics = context.panics.clone();
        let mut pool_config = config.scheduler.clone();
        pool_config.rescuer = !restarts;
        if restarts {
            // None of its calls sleeps on a thread.
            pool_config.max_asleep = NonZeroUsize::MIN;
        }
        let (scheduler, dispatcher) = Scheduler::new(&pool_config, context.clone())?;
        let shared = Shared::new(
            ring.arena(),
            config.limits.clone(),
            dispatcher,
            scheduler.injector(),
            context,
        );
        let listener = match ask {
            Some(ask) => ring.listen_for(bound.fd, ask)?,
            None => ring.listen(bound.fd)?,
        };
        Ok(Server {
            ring,
            listener: Some(listener),
            file: bound.file,
            url: bound.url,
            core: ServerCore::new(
                banner,
                shared,
                config.access.clone(),
                config.url.path().is_some(),
            ),
            mailbox,
            scheduler,
            panics,
            ended: SayEnded::default(),
        })
    }

    /// Where it listens: with the port that the system chose, if it was to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A way to stop and to ask this server.
    pub fn control(&self) -> Control {
        Control { mailbox: self.mailbox.clone(), ended: self.ended.ended.clone() }
    }

    /// Serves until it is stopped, or until a client halts the kernel.
    pub fn run(mut self) -> Result<(), Error> {
        let result = self.serve();
        self.ended.why = result.as_ref().err().map(|error| match error {
            Error::Ended(why) => why.clone(),
            error => error.to_string(),
        });
        result
    }

    fn serve(&mut self) -> Result<(), Error> {
        let _here = Inline::begin();
        let mut last_wait = None;
        while !self.core.is_over() {
            let deadline = earlier(self.core.next_deadline(), last_wait);
            let (mailbox, core) = (&self.mailbox, &self.core);
            self.ring.wait(deadline, || mailbox.is_empty() && !core.has_ready())?;
            self.core.set_time(Instant::now());
            while let Some(event) = self.ring.next_event() {
                self.happened(event);
            }
            self.core.turn(&self.mailbox, &mut self.ring, Instant::now);
            self.answer_stats_requests();
            if let Some(why) = self.mailbox.failure() {
                return Err(Error::Ended(why.into()));
            }
            if self.core.is_stopping() {
                self.listen_no_more();
                let limit = *last_wait.get_or_insert_with(|| self.core.stop_limit(LAST_WAIT));
                if Instant::now() >= limit {
                    tracing::warn!("the kernel still holds on to clients that have gone");
                    break;
                }
            }
        }
        // What was queued in the last turn still goes out.
        self.ring.wait(Some(Instant::now()), || false)?;
        Ok(())
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Accepted { socket, peer, .. } => {
                self.core.accepted(socket, peer.as_ref(), &mut self.ring);
            }
            Event::AcceptFailed { error, .. } => {
                tracing::warn!("cannot accept a connection: {error}");
            }
            Event::Received { socket, data } => self.core.received(socket, &data),
            Event::RecvEnded { socket, error: None } => {
                self.core.receive_ended(socket, &mut self.ring);
            }
            Event::RecvEnded { socket, error: Some(error) } => {
                tracing::debug!(client = socket.index(), "receiving failed: {error}");
                self.core.hung_up(socket);
            }
            Event::HungUp { socket } => self.core.hung_up(socket),
            Event::Sent { socket, result } => self.core.sent(socket, result.is_ok()),
            Event::Closed { socket } => self.core.closed(socket),
        }
    }

    fn listen_no_more(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.file = None;
            self.ring.stop_listening(listener);
        }
    }

    fn answer_stats_requests(&mut self) {
        let stats_requests: Vec<_> = self.core.stats_requests().collect();
        for sender in stats_requests {
            // Nobody may be waiting for it any more.
            let _ = sender.send(self.stats());
        }
    }

    fn stats(&self) -> Stats {
        let mut scheduler = self.scheduler.stats();
        scheduler.panics += self.panics.load(Ordering::Relaxed);
        Stats { core: self.core.stats(), ring: self.ring.stats(), scheduler }
    }
}

/// Binds and listens where a server is to be, if it has been said who may connect there.
pub fn bind(config: &Config) -> Result<Bound, ListenError> {
    check_access(config)?;
    listener::listen(&config.url, config.socket)
}

/// Refuses to listen where anybody could connect of whom nothing was said, unless that is wanted.
fn check_access(config: &Config) -> Result<(), ListenError> {
    if config.access.is_said(&config.url) {
        return Ok(());
    }
    if !config.access.anywhere {
        return Err(ListenError::Open(config.url.clone()));
    }
    tracing::warn!(
        "{}: whoever reaches that address can connect and is root in the kernel; RUMPRING_ALLOW_FROM \
         says who may",
        config.url
    );
    Ok(())
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

impl Net for Ring {
    fn send(&mut self, socket: Socket, chunks: std::vec::Drain<'_, Chunk>, then: Then) {
        if let Err(error) = Ring::send(self, socket, chunks, then) {
            // The core sends one thing at a time, and nothing to sockets it has closed.
            tracing::error!(client = socket.index(), "a send was refused: {error}");
        }
    }

    fn pause(&mut self, socket: Socket) {
        Ring::pause(self, socket);
    }

    fn resume(&mut self, socket: Socket) {
        Ring::resume(self, socket);
    }

    fn watch_hang_up(&mut self, socket: Socket) {
        Ring::watch_hang_up(self, socket);
    }

    fn shutdown(&mut self, socket: Socket) {
        Ring::shutdown(self, socket);
    }

    fn close(&mut self, socket: Socket) {
        Ring::close(self, socket);
    }
}

/// A server on a thread of its own. Dropping it stops it, and waits.
pub struct Running {
    url: Url,
    control: Control,
    thread: Option<std::thread::JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Starts a server; it is ready when this returns.
    pub fn start(config: Config, kernel: Arc<dyn Kernel>) -> Result<Running, Error> {
        Running::start_on(bind(&config)?, config, kernel)
    }

    /// The same on a socket that listens already.
    pub fn start_on(
        bound: Bound,
        config: Config,
        kernel: Arc<dyn Kernel>,
    ) -> Result<Running, Error> {
        let (ready, started) = mpsc::channel();
        let serve = move || {
            let server = match Server::on(bound, &config, kernel) {
                Ok(server) => server,
                Err(error) => {
                    drop(ready.send(Err(error)));
                    return Ok(());
                }
            };
            drop(ready.send(Ok((server.url().clone(), server.control()))));
            server.run()
        };
        let thread = std::thread::Builder::new()
            .name("submission".into())
            .spawn(serve)
            .map_err(|error| Error::Thread(error.to_string()))?;
        let (url, control) =
            started.recv().map_err(|_| Error::Thread("ended at its start".into()))??;
        Ok(Running { url, control, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A way to stop and to ask it.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops it, if nobody has, and waits for its end.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    /// Waits until somebody else has ended it, as a client that halts the kernel does.
    pub fn wait(mut self) -> Result<(), Error> {
        self.join()
    }

    /// Lets it run on by itself: a [`Control`] is the way to it from here on.
    pub fn detach(mut self) {
        self.thread = None;
    }

    fn end(&mut self) -> Result<(), Error> {
        self.control.stop();
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread.join().unwrap_or_else(|_| Err(Error::Thread("panicked".into())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some()
            && let Err(error) = self.end()
        {
            tracing::error!("{error}");
        }
    }
}
