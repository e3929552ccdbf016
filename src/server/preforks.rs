//! Processes that wait for a client which has not connected yet, and the tokens that get them.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use ring::Socket;
use subtle::ConstantTimeEq;

use crate::kernel::Process;
use crate::wire::{TOKEN_LEN, Token};

/// All preforks of a server, bounded in number.
pub struct Preforks {
    by_token: HashMap<Secret, Prefork>,
    /// Of parents that are still there.
    by_parent: HashMap<Socket, Vec<Token>>,
    most: usize,
    most_in_all: usize,
}

struct Prefork {
    process: Arc<dyn Process>,
    parent: Socket,
    /// When it goes unused: set once its parent has gone.
    until: Option<Instant>,
}

/// A token that takes as long to compare however much of it is right. Its hash is keyed at random, so
/// the time a look-up takes tells nothing about other tokens.
struct Secret(Token);

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Preforks {
    /// Room for so many of each parent, and of all.
    pub fn new(most: usize, most_in_all: usize) -> Preforks {
        Preforks { by_token: HashMap::new(), by_parent: HashMap::new(), most, most_in_all }
    }

    /// Keeps a prefork under a new random token. Gives it back if there are too many, or if the
    /// system has no random numbers.
    pub fn keep(
        &mut self,
        parent: Socket,
        process: Arc<dyn Process>,
    ) -> Result<Token, Arc<dyn Process>> {
        let of_parent = self.by_parent.get(&parent).map_or(0, Vec::len);
        let is_full = of_parent >= self.most || self.by_token.len() >= self.most_in_all;
        let mut token = [0; TOKEN_LEN];
        if is_full || getrandom::fill(&mut token).is_err() {
            return Err(process);
        }
        self.by_parent.entry(parent).or_default().push(token);
        self.by_token.insert(Secret(token), Prefork { process, parent, until: None });
        Ok(token)
    }

    /// The prefork of this token, which is good no more.
    pub fn take(&mut self, token: &Token) -> Option<Arc<dyn Process>> {
        let prefork = self.by_token.remove(&Secret(*token))?;
        if let Some(tokens) = self.by_parent.get_mut(&prefork.parent) {
            tokens.retain(|kept| kept != token);
            if tokens.is_empty() {
                self.by_parent.remove(&prefork.parent);
            }
        }
        Some(prefork.process)
    }

    /// The parent has gone; its preforks stay good until `until`. Says whether there are any.
    pub fn orphan(&mut self, parent: Socket, until: Instant) -> bool {
        let Some(tokens) = self.by_parent.remove(&parent) else {
            return false;
        };
        for token in tokens {
            if let Some(prefork) = self.by_token.get_mut(&Secret(token)) {
                prefork.until = Some(until);
            }
        }
        true
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<dyn Process>> {
        let over = |prefork: &Prefork| prefork.until.is_some_and(|until| until <= now);
        self.by_token.extract_if(|_, prefork| over(prefork)).map(|(_, p)| p.process).collect()
    }

    /// Takes out all.
    pub fn drain(&mut self) -> Vec<Arc<dyn Process>> {
        self.by_parent.clear();
        self.by_token.drain().map(|(_, prefork)| prefork.process).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }
}
