//! Fork: a token from the parent, a connection for the child.

use std::fmt;
use std::sync::Arc;

use super::Client;
use super::builder::{self, Settings};
use super::error::ConnectError;
use super::memory::Memory;
use rumpsp::url::Url;
use rumpsp::wire::{self, Token};

/// The right to become a client's child, from [`Client::prefork`]. It can be used once.
pub struct ForkToken {
    pub(super) token: Token,
    pub(super) url: Arc<Url>,
    pub(super) settings: Arc<Settings>,
    /// A copy of the parent's memory, made when it asked for the prefork.
    pub(super) memory: Arc<dyn Memory>,
}

impl ForkToken {
    /// Connects as the child: a new process with the parent's open files, and the parent's memory as it
    /// was at the prefork. The token is borrowed, so that a test can show it twice.
    pub fn connect(&self) -> Result<Client, ConnectError> {
        let hello = |out: &mut Vec<u8>, reqno| wire::fork_request(out, reqno, &self.token, false);
        builder::connect(&self.url, self.settings.clone(), self.memory.fork(), hello)
    }

    /// Has the server forget the token and the process made for it.
    pub fn cancel(&self) -> Result<(), ConnectError> {
        builder::cancel(&self.url, self.settings.clone(), &self.token)
    }

    /// Returns the secret itself, for a client written otherwise.
    pub fn bytes(&self) -> &Token {
        &self.token
    }
}

impl Client {
    /// Connects as the child of a prefork: [`ForkToken::connect`].
    pub fn fork(token: &ForkToken) -> Result<Client, ConnectError> {
        token.connect()
    }
}

impl fmt::Debug for ForkToken {
    /// Formats the token without its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkToken").field("url", &self.url).finish_non_exhaustive()
    }
}
