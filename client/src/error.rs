//! Errors of a client: calls that fail, connections that end, connections that are never made.

use std::io;

use kernel::Errno;
use rumpsp::url::Url;
use rumpsp::wire::{ErrorCode, Kind, MAX_BANNER};

/// The result of a raw call: its two return values, or the reason why there are none.
pub type CallResult = Result<[i64; 2], CallError>;

/// The reason why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The kernel ran the call and it failed.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The server refused the request before any kernel saw it.
    #[error("the server refused the request: {0:?} (a stock client makes {errno} of it)", errno = refused_errno(*.0))]
    Refused(ErrorCode),
    /// The connection ended before the answer came; whether the call ran is not known.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// No answer in time. The call may still run; its answer will be dropped.
    #[error("no answer from the server in time; give it longer or look whether it still works")]
    TimedOut,
    /// The client's simulated memory is full, or would be.
    #[error("{0}")]
    Memory(#[from] super::OutOfMemory),
}

impl CallError {
    /// Returns the errno of a failed call, as a stock client would see it: the kernel's own errno or
    /// the one a stock client makes of a refusal. `None` if the connection failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            CallError::Errno(errno) => Some(*errno),
            CallError::Refused(code) => Some(refused_errno(*code)),
            CallError::Memory(_) => Some(Errno::ENOMEM),
            CallError::Lost(_) | CallError::TimedOut => None,
        }
    }
}

/// Returns the errno a stock client makes of a refusal.
///
/// Source: NetBSD `lib/librumpuser/sp_common.c`, `errmap`.
pub fn refused_errno(code: ErrorCode) -> Errno {
    match code {
        ErrorCode::TryAgain => Errno::EAGAIN,
        ErrorCode::Auth => Errno::EPERM,
        ErrorCode::InvalidPrefork => Errno::ESRCH,
        ErrorCode::RforkFailed => Errno::EIO,
        ErrorCode::InExec => Errno::EBUSY,
        ErrorCode::NoMemory => Errno::ENOMEM,
        ErrorCode::Malformed => Errno::EINVAL,
    }
}

/// The reason why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The server hung up between two frames.
    #[error("the server closed the connection; connect again if it still runs")]
    Closed,
    /// The server hung up in the middle of a frame.
    #[error("the server closed the connection in the middle of a frame; look into its log")]
    Truncated,
    /// The socket failed.
    #[error("the connection failed: {0}; connect again")]
    Io(io::ErrorKind),
    /// The server sent bytes that no server may send; this client hung up.
    #[error("the server broke the protocol: {0}; this client hung up")]
    Protocol(#[from] ProtocolError),
    /// [`Client::disconnect`](super::Client::disconnect) was called.
    #[error("this client disconnected")]
    Disconnected,
    /// [`Client::reconnect`](super::Client::reconnect) was called while the call was on its way.
    #[error("this client connected anew while the call was on its way; make the call again")]
    Reconnected,
}

/// Bytes of a server that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A length under that of a header, or over the bound of the frame's kind.
    #[error("a frame of {len} bytes, where class {class} and type {kind} allow 24 to {most}")]
    Length { len: u64, class: u16, kind: u16, most: u64 },
    /// A class that does not exist.
    #[error("a frame of the unknown class {0}")]
    Class(u16),
    /// A type that does not exist or that a server does not send in this class.
    #[error("a frame of class {class} with type {kind}, which a server does not send")]
    Kind { class: u16, kind: u16 },
    /// An error frame with a code that does not exist.
    #[error("an error frame with the unknown code {0}")]
    ErrorCode(u32),
    /// A body that is shorter than its kind's, or whose own length disagrees with the frame's.
    #[error("a body of {len} bytes in a {kind:?} frame")]
    Body { kind: Kind, len: u64 },
    /// A response to a request that was never made or has been answered.
    #[error("an answer to request {0}, which nobody waits for")]
    Unasked(u64),
    /// A response of another type than its request.
    #[error("a {got:?} answer to the {asked:?} request {reqno}")]
    OtherKind { reqno: u64, asked: Kind, got: Kind },
    /// The server has left more answers unread than it may.
    #[error("{0} bytes of answers to its copies left unread")]
    Unread(usize),
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL stands for every interface.
    #[error("{0}: a client needs the address of one server, not of every interface")]
    Wildcard(Url),
    /// No server answers at the URL.
    #[error("{url}: cannot connect: {source}; start the server, or correct the address")]
    Connect { url: Url, source: io::Error },
    /// The server's first line is not one of this protocol.
    #[error("{url}: {problem}; is it a rump kernel server?")]
    Banner { url: Url, problem: BannerError },
    /// The server refused the handshake, or hung up during it.
    #[error("{url}: handshake failed: {source}")]
    Handshake { url: Url, source: CallError },
}

impl ConnectError {
    /// Returns the refusal, if the server answered the handshake with one.
    pub fn refused(&self) -> Option<ErrorCode> {
        match self {
            ConnectError::Handshake { source: CallError::Refused(code), .. } => Some(*code),
            _ => None,
        }
    }
}

/// An error in a banner.
#[derive(Debug, thiserror::Error)]
pub enum BannerError {
    /// The socket failed, or the time was up.
    #[error("no banner: {0}")]
    Io(#[from] io::Error),
    /// The server hung up before the end of the line.
    #[error("no banner: the server closed the connection after {0} bytes of it")]
    Closed(usize),
    /// No end of the line within the longest banner.
    #[error("a first line of more than {most} bytes", most = MAX_BANNER - 1)]
    TooLong,
    /// Bytes came behind the newline.
    #[error("{0} bytes came with the banner")]
    Trailing(usize),
    /// The line does not begin with `RUMPSP-`.
    #[error("a first line that does not begin with RUMPSP-: `{0}`")]
    Foreign(String),
}
