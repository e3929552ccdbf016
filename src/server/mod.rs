//! The submission thread: takes ring events to sessions, jobs to the scheduler, and replies to the ring.
//!
//! [`Server::run`] is the loop. Each turn handles all events, then submits the results with one
//! `io_uring_enter`. Only this thread touches the ring and the sessions, so neither has a lock. It meets
//! the workers at two places: the scheduler's deques (jobs out) and the [`mailbox`] (results back).
//!
//! - [`core`]: the reactions to events, which know the ring only as a trait.
//! - [`connection`]: one client; [`shared`]: what all connections share.
//! - [`task`] and [`job`]: the jobs of the scheduler; [`memory`]: a client's memory as calls see it;
//!   [`prefetch`]: the bytes of it that are fetched ahead; [`predictor`]: for which calls that is done.
//! - [`inline`]: the calls that this thread runs itself.
//! - [`send_queue`]: the bytes owed to a client; [`quota`]: one client's use of the shared resources;
//!   [`holding`]: one call's part of that; [`reply_slot`]: where a call that cannot restart waits for its
//!   client.
//! - [`signals`]: the signals on their way to a client.
//! - [`access`]: the rules for who may connect.
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

/// The time that processes have to go once the server has hung up on everybody. If the kernel keeps a
/// process for longer, the server ends without it.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// The time that threads look for work before they sleep, by default and as long as that pays: about the
/// time in which a client that was answered makes its next call.
pub const SPIN: Duration = Duration::from_micros(20);

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL to listen at.
    pub url: Url,
    pub ring: ring::Config,
    pub scheduler: scheduler::Config,
    pub limits: Limits,
    /// The rules for who may connect.
    pub access: Access,
    /// The owner and mode of the socket file, and TCP's keepalive.
    pub socket: SocketMode,
}

impl Config {
    /// Returns the default configuration for this URL.
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

/// The reason why a server does not start, or ends.
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
    /// Something has gone that the server cannot do without.
    #[error("the server has ended: {0}")]
    Ended(String),
}

/// A server that listens. It stays on the thread that made it.
pub struct Server {
    // This field is before the ring, which has the socket: see [`SocketFile`].
    file: Option<SocketFile>,
    ring: Ring,
    listener: Option<Listener>,
    url: Url,
    core: ServerCore,
    mailbox: Arc<Mailbox>,
    scheduler: Scheduler<Job>,
    /// The number of calls that panicked.
    panics: Arc<AtomicU64>,
    // This field is last, so that all others are gone when it reports the end.
    ended: SayEnded,
}

/// A handle to a server, for other threads.
#[derive(Clone)]
pub struct Control {
    mailbox: Arc<Mailbox>,
    ended: Arc<Ended>,
}

/// The end of a server.
#[derive(Default)]
struct Ended {
    how: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

/// A guard that reports the server's end, however the server ends.
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
    /// Stops the server: it takes no more clients, and calls in flight have [`Limits::drain`] to end.
    pub fn stop(&self) {
        self.mailbox.post(Message::Stop);
    }

    /// Ends the server at once, because the kernel has gone. The server still handles the messages posted
    /// before.
    pub fn abandon(&self) {
        self.mailbox.post(Message::KernelGone);
    }

    /// Returns the server's counters, or `None` if it has ended.
    pub fn stats(&self) -> Option<Stats> {
        let (answer, stats) = mpsc::channel();
        self.mailbox.post(Message::Stats(answer));
        stats.recv_timeout(Duration::from_secs(10)).ok()
    }

    /// Ends the server at once, with this as its error.
    pub fn fail(&self, reason: String) {
        self.mailbox.fail(reason);
    }

    /// Runs `body` on a thread that the server cannot do without: if `body` ends before the server, by a
    /// panic or otherwise, the server ends too.
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

    /// Waits until the server has ended and its socket file is gone. Returns the reason if the server
    /// failed.
    pub fn wait_for_end(&self) -> Result<(), Error> {
        let how = self.ended.how.lock().unwrap_or_else(PoisonError::into_inner);
        let how = self.ended.changed.wait_while(how, |how| how.is_none());
        let how = how.unwrap_or_else(PoisonError::into_inner).clone();
        how.unwrap_or(Ok(())).map_err(Error::Ended)
    }

    /// Returns `true` if the server has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.how.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Server {
    /// Binds, listens and starts the scheduler. Connections are accepted from here on, and served once
    /// the server runs.
    pub fn new(config: &Config, kernel: Arc<dyn Kernel>) -> Result<Server, Error> {
        Server::on(bind(config)?, config, kernel)
    }

    /// Creates a server as [`Server::new`] does, on a socket that listens already, by [`bind`]. This is
    /// for callers that have something to do before there is a ring or a thread.
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
            // No call of such a kernel sleeps on a thread.
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

    /// Returns the URL where the server listens. If the system chose the port, it has that port.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns a handle to stop and to query this server.
    pub fn control(&self) -> Control {
        Control { mailbox: self.mailbox.clone(), ended: self.ended.ended.clone() }
    }

    /// Serves until the server is stopped, or until a client halts the kernel.
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
        // Sends what was queued in the last turn.
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
            // The receiver may have gone.
            let _ = sender.send(self.stats());
        }
    }

    fn stats(&self) -> Stats {
        let mut scheduler = self.scheduler.stats();
        scheduler.panics += self.panics.load(Ordering::Relaxed);
        Stats { core: self.core.stats(), ring: self.ring.stats(), scheduler }
    }
}

/// Binds and listens at the configured URL, if something says who may connect there.
pub fn bind(config: &Config) -> Result<Bound, ListenError> {
    check_access(config)?;
    listener::listen(&config.url, config.socket)
}

/// Returns an error if anybody could connect and nothing says who may, unless that is wanted.
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
            // The core sends one thing at a time, and nothing to sockets that it has closed.
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

/// A server on a thread of its own. Dropping it stops the server, and waits for its end.
pub struct Running {
    url: Url,
    control: Control,
    thread: Option<std::thread::JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Starts a server. The server is ready when this returns.
    pub fn start(config: Config, kernel: Arc<dyn Kernel>) -> Result<Running, Error> {
        Running::start_on(bind(&config)?, config, kernel)
    }

    /// Starts a server as [`Running::start`] does, on a socket that listens already.
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

    /// Returns the URL where the server listens.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns a handle to stop and to query the server.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops the server, if nobody has, and waits for its end.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    /// Waits until somebody else has ended the server, as a client that halts the kernel does.
    pub fn wait(mut self) -> Result<(), Error> {
        self.join()
    }

    /// Lets the server run on without this value. From here on, only a [`Control`] reaches it.
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
