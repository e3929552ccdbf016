//! Makes clients: settings, the banner, the handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{BannerError, CallError, ConnectError};
use super::link::Link;
use super::memory::Memory;
use super::patience::Patience;
use super::socket::Socket;
use super::{AddressSpace, Client};
use rumpsp::url::Url;
use rumpsp::wire::{self, Handshake, Kind, MAX_BANNER, Token};

/// The most bytes of one COPYOUT, by default.
pub const DEFAULT_MAX_COPY: usize = 64 << 20;

/// The most bytes of answers a server may leave unread, by default.
pub const DEFAULT_MAX_UNREAD: usize = 256 << 20;

/// A handler that runs for each signal, on the thread that received it.
pub type SignalHandler = dyn Fn(i32) + Send + Sync;

/// The settings of a connection, which its successors and children inherit.
#[derive(Clone)]
pub(super) struct Settings {
    pub name: Arc<str>,
    pub timeout: Option<Duration>,
    pub on_signal: Option<Arc<SignalHandler>>,
    pub max_copy: usize,
    pub max_unread: usize,
}

impl Settings {
    pub fn patience(&self) -> Patience {
        Patience::from_timeout(self.timeout)
    }
}

/// Settings for clients. One builder may connect many clients: they share the settings, and the memory
/// if one was given.
///
/// ```no_run
/// use std::time::Duration;
/// use rumpring_client::Client;
///
/// let url = "unix:///run/rump.sock".parse()?;
/// let client = Client::builder()
///     .name("probe")
///     .timeout(Duration::from_secs(5))
///     .on_signal(|signo| eprintln!("signal {signo}"))
///     .connect(&url)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    settings: Arc<Settings>,
    memory: Option<Arc<dyn Memory>>,
}

impl Default for Builder {
    fn default() -> Builder {
        let settings = Settings {
            name: "rumpring".into(),
            timeout: None,
            on_signal: None,
            max_copy: DEFAULT_MAX_COPY,
            max_unread: DEFAULT_MAX_UNREAD,
        };
        Builder { settings: Arc::new(settings), memory: None }
    }
}

impl Builder {
    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Builder {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Sets the command's name in the handshake; NULs are left out.
    pub fn name(self, name: &str) -> Builder {
        self.set(|settings| settings.name = name.into())
    }

    /// Sets the memory for the server's copies. Without it each client has an [`AddressSpace`] of its
    /// own.
    pub fn memory(mut self, memory: Arc<dyn Memory>) -> Builder {
        self.memory = Some(memory);
        self
    }

    /// Sets the handler that runs for each signal, by NetBSD's number. The handler may make calls on
    /// the client. Without a handler, signals are logged at debug level and dropped.
    pub fn on_signal(self, handler: impl Fn(i32) + Send + Sync + 'static) -> Builder {
        self.set(|settings| settings.on_signal = Some(Arc::new(handler)))
    }

    /// Sets the longest time that connecting and each blocking call may take. By default there is no
    /// limit.
    pub fn timeout(self, timeout: Duration) -> Builder {
        self.set(|settings| settings.timeout = Some(timeout))
    }

    /// Sets the most bytes of one COPYOUT; a longer one breaks the protocol. The default is
    /// [`DEFAULT_MAX_COPY`].
    pub fn max_copy(self, bytes: usize) -> Builder {
        self.set(|settings| settings.max_copy = bytes)
    }

    /// Sets the most bytes of answers to its own copies that the server may leave unread; more break
    /// the protocol. The default is [`DEFAULT_MAX_UNREAD`].
    pub fn max_unread(self, bytes: usize) -> Builder {
        self.set(|settings| settings.max_unread = bytes)
    }

    /// Connects as a guest: a new process in the server's kernel.
    pub fn connect(&self, url: &Url) -> Result<Client, ConnectError> {
        let memory = match &self.memory {
            Some(memory) => memory.clone(),
            None => Arc::new(AddressSpace::new()),
        };
        connect_guest(&Arc::new(url.clone()), self.settings.clone(), memory)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &*self.settings;
        let mut debug = f.debug_struct("Builder");
        debug.field("name", &settings.name).field("timeout", &settings.timeout);
        debug.finish_non_exhaustive()
    }
}

/// Connects as a guest.
pub(super) fn connect_guest(
    url: &Arc<Url>,
    settings: Arc<Settings>,
    memory: Arc<dyn Memory>,
) -> Result<Client, ConnectError> {
    let name = settings.name.clone();
    connect(url, settings, memory, |out, reqno| {
        wire::handshake_request(out, reqno, Handshake::Guest, &name);
    })
}

/// Connects, reads the banner and shakes hands with the frame that `hello` appends.
pub(super) fn connect(
    url: &Arc<Url>,
    settings: Arc<Settings>,
    memory: Arc<dyn Memory>,
    hello: impl FnOnce(&mut Vec<u8>, u64),
) -> Result<Client, ConnectError> {
    let patience = settings.patience();
    let (link, banner) = open(url, settings.clone(), memory, patience)?;
    let asked = link.ask(Kind::Handshake, hello);
    let answer = link.wait(asked, patience).unwrap_or(Err(CallError::TimedOut));
    answer.map_err(|source| ConnectError::Handshake { url: Url::clone(url), source })?;
    Ok(Client { link, url: url.clone(), settings, banner })
}

/// Tells the server to forget a prefork. A server that knew the token hangs up without an answer.
pub(super) fn cancel(
    url: &Arc<Url>,
    settings: Arc<Settings>,
    token: &Token,
) -> Result<(), ConnectError> {
    let patience = settings.patience();
    let (link, _) = open(url, settings, Arc::new(AddressSpace::new()), patience)?;
    let encode = |out: &mut Vec<u8>, reqno| wire::fork_request(out, reqno, token, true);
    match link.wait(link.ask(Kind::Handshake, encode), patience).unwrap_or(Err(CallError::TimedOut))
    {
        Ok(_) | Err(CallError::Lost(super::Lost::Closed)) => Ok(()),
        Err(source) => Err(ConnectError::Handshake { url: Url::clone(url), source }),
    }
}

fn open(
    url: &Arc<Url>,
    settings: Arc<Settings>,
    memory: Arc<dyn Memory>,
    patience: Patience,
) -> Result<(Arc<Link>, Arc<str>), ConnectError> {
    let socket = Socket::connect(url, settings.timeout)?;
    let banner = read_banner(&socket, patience)
        .map_err(|problem| ConnectError::Banner { url: Url::clone(url), problem })?;
    Ok((Arc::new(Link::new(socket, settings, memory)), banner))
}

/// Reads the banner, which is one line with nothing behind it. Returns the line without its newline.
///
/// Source: NetBSD `lib/librumpclient/rumpclient.c`, `doconnect`, which checks the newline only.
pub(super) fn read_banner(socket: &Socket, patience: Patience) -> Result<Arc<str>, BannerError> {
    let mut line = [0; MAX_BANNER];
    let mut len = 0;
    let end = loop {
        if let Some(end) = line[..len].iter().position(|&byte| byte == b'\n') {
            break end;
        }
        if len == line.len() {
            return Err(BannerError::TooLong);
        }
        match socket.receive_some(&mut line[len..], patience)? {
            0 => return Err(BannerError::Closed(len)),
            n => len += n,
        }
    };
    if end + 1 < len {
        return Err(BannerError::Trailing(len - end - 1));
    }
    let text = String::from_utf8_lossy(&line[..end]);
    if !text.starts_with("RUMPSP-") {
        return Err(BannerError::Foreign(text.escape_debug().to_string()));
    }
    Ok(text.into())
}
