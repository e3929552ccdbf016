//! Processes that wait for a client which has not connected yet, and the tokens that get them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ring::Socket;

use crate::kernel::Process;
use crate::wire::{TOKEN_LEN, Token};

/// All preforks of a server, bounded in number.
pub struct Preforks {
    by_token: HashMap<Token, Prefork>,
    most: usize,
}

struct Prefork {
    process: Arc<dyn Process>,
    parent: Socket,
    /// When it goes unused: set once its parent has gone.
    until: Option<Instant>,
}

impl Preforks {
    /// Room for this many.
    pub fn new(most: usize) -> Preforks {
        Preforks { by_token: HashMap::new(), most }
    }

    /// Keeps a prefork under a new random token. Gives it back if there are too many, or if the
    /// system has no random numbers.
    pub fn keep(
        &mut self,
        parent: Socket,
        process: Arc<dyn Process>,
    ) -> Result<Token, Arc<dyn Process>> {
        let mut token = [0; TOKEN_LEN];
        if self.by_token.len() >= self.most || getrandom::fill(&mut token).is_err() {
            return Err(process);
        }
        self.by_token.insert(token, Prefork { process, parent, until: None });
        Ok(token)
    }

    /// The prefork of this token, which is good no more.
    ///
    /// The hash of the table is keyed at random, so the time a look-up takes tells nothing about
    /// tokens.
    pub fn take(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        Some(self.by_token.remove(token)?.process)
    }

    /// The parent has gone; its preforks stay good until `until`. Says whether there are any.
    pub fn orphan(&mut self, parent: Socket, until: Instant) -> bool {
        let mut any = false;
        for prefork in self.by_token.values_mut().filter(|prefork| prefork.parent == parent) {
            prefork.until = Some(until);
            any = true;
        }
        any
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<dyn Process>> {
        let over = |prefork: &Prefork| prefork.until.is_some_and(|until| until <= now);
        self.by_token.extract_if(|_, prefork| over(prefork)).map(|(_, p)| p.process).collect()
    }

    /// Takes out all.
    pub fn drain(&mut self) -> Vec<Arc<dyn Process>> {
        self.by_token.drain().map(|(_, prefork)| prefork.process).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }
}
