//! The client itself: calls, one or many at once; exec, reconnect, disconnect; polling.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::AddressSpace;
use super::builder::{self, Builder, Settings};
use super::error::{CallError, CallResult, ConnectError, Lost};
use super::fork::ForkToken;
use super::link::{Asked, Completed, Link, Reply};
use super::memory::Memory;
use super::patience::Patience;
use super::pending::Pending;
use rumpsp::url::Url;
use rumpsp::wire::{self, Handshake, Kind};

/// A process in a server's kernel, and the connection that it lives by.
///
/// All methods but [`Client::reconnect`] take `&self` and may be used from several threads at once.
/// Dropping the client, and every [`Pending`] of it, ends the process.
pub struct Client {
    pub(super) link: Arc<Link>,
    pub(super) url: Arc<Url>,
    pub(super) settings: Arc<Settings>,
    pub(super) banner: Arc<str>,
}

impl Client {
    /// Connects with the defaults: see [`Builder`].
    pub fn connect(url: &Url) -> Result<Client, ConnectError> {
        Builder::default().connect(url)
    }

    /// Returns a builder for a client with other settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Makes a call and waits for its end, as long as [`Builder::timeout`] allows.
    pub fn call(&self, number: i32, args: &[u64]) -> CallResult {
        let mut pending = Pending::new(self.link.clone(), self.ask_call(number, args));
        pending.end(self.settings.patience()).unwrap_or(Err(CallError::TimedOut))
    }

    /// Sends a call and returns a [`Pending`], which gives its result, now or later, on any thread.
    /// While the socket is full this waits, and reads meanwhile; [`Client::post`] never waits.
    pub fn begin(&self, number: i32, args: &[u64]) -> Pending {
        self.begin_within(number, args, self.settings.patience())
    }

    pub(super) fn begin_within(&self, number: i32, args: &[u64], patience: Patience) -> Pending {
        let asked = self.ask_call(number, args);
        self.link.flush(asked.end, patience);
        Pending::new(self.link.clone(), asked)
    }

    fn ask_call(&self, number: i32, args: &[u64]) -> Asked {
        self.link.ask(Kind::Syscall, |out, reqno| wire::syscall_request(out, reqno, number, args))
    }

    /// Queues a call and returns its id; nothing is written before [`Client::pump`], [`Client::flush`]
    /// or any other call. [`Client::take_completed`] returns its result. This is the way for one thread
    /// that drives many calls on many clients.
    pub fn post(&self, number: i32, args: &[u64]) -> u64 {
        self.link.post(|out, reqno| wire::syscall_request(out, reqno, number, args))
    }

    /// Appends to `into` the posted calls that have ended, in the order of their ends. Reads nothing:
    /// [`Client::pump`] does. When the connection ends, all posted calls end with that error.
    pub fn take_completed(&self, into: &mut Vec<Completed>) {
        self.link.take_completed(into);
    }

    /// Writes and reads without waiting and serves the server's requests; returns the number of frames
    /// that came. Call it when the socket ([`AsFd`]) is readable, level-triggered, and, while
    /// [`Client::wants_write`] returns `true`, when it is writable. If another thread is receiving,
    /// that thread does the work.
    pub fn pump(&self) -> Result<usize, Lost> {
        self.link.pump()
    }

    /// Returns `true` if bytes are queued that the socket had no room for, or that were only posted.
    pub fn wants_write(&self) -> bool {
        self.link.owed() > 0
    }

    /// Writes the queued bytes, and reads while the socket is full, as long as the timeout allows.
    pub fn flush(&self) {
        self.link.flush(self.link.end(), self.settings.patience());
    }

    /// Returns the number of calls and other requests without an answer so far.
    pub fn outstanding(&self) -> usize {
        self.link.outstanding()
    }

    /// Returns the reason why the connection ended, once a thread has noticed: [`Client::pump`] looks.
    pub fn lost(&self) -> Option<Lost> {
        self.link.lost()
    }

    /// Asks for a child process with a copy of the open files, for a client that connects with the
    /// token.
    pub fn prefork(&self) -> Result<ForkToken, CallError> {
        match self.request(Kind::Prefork, wire::prefork_request)? {
            Reply::Prefork(token) => Ok(ForkToken {
                token,
                url: self.url.clone(),
                settings: self.settings.clone(),
                memory: self.link.memory().fork(),
            }),
            Reply::Handshake | Reply::Syscall(_) => unreachable!("settled by kind"),
        }
    }

    /// Becomes another program: the process and its open files stay, less those marked
    /// close-on-exec; its other calls are ended first.
    pub fn exec(&self, name: &str) -> Result<(), CallError> {
        let encode = |out: &mut Vec<u8>, reqno| {
            wire::handshake_request(out, reqno, Handshake::Exec, name);
        };
        self.request(Kind::Handshake, encode).map(|_| ())
    }

    fn request(
        &self,
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<Reply, CallError> {
        let asked = self.link.ask(kind, encode);
        self.link.wait(asked, self.settings.patience()).unwrap_or_else(|| {
            self.link.forget(asked.reqno);
            Err(CallError::TimedOut)
        })
    }

    /// Connects anew, as a new guest process with the same settings and memory. Calls pending on the
    /// old connection end with [`Lost::Reconnected`], also if this fails.
    pub fn reconnect(&mut self) -> Result<(), ConnectError> {
        self.link.lose(Lost::Reconnected);
        let memory = self.link.memory().clone();
        *self = builder::connect_guest(&self.url, self.settings.clone(), memory)?;
        Ok(())
    }

    /// Hangs up. Pending calls end with [`Lost::Disconnected`], as will any later call.
    pub fn disconnect(&self) {
        self.link.lose(Lost::Disconnected);
    }

    /// Returns the memory the server's copies reach.
    pub fn memory(&self) -> &Arc<dyn Memory> {
        self.link.memory()
    }

    /// Returns the space in which typed calls keep their buffers.
    pub fn space(&self) -> &AddressSpace {
        self.link.memory().space()
    }

    /// Returns the server's first line, without its newline.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Returns the server's address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the longest time that a blocking call may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.settings.timeout
    }
}

impl AsFd for Client {
    /// Returns the socket, for poll(2) and the like. Reading or writing it in any other way breaks the
    /// client.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Client");
        debug.field("url", &self.url).field("lost", &self.lost()).finish_non_exhaustive()
    }
}
