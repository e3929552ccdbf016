//! The preforks: processes that wait for a client which has not connected yet, and the tokens that name
//! them.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use ring::Socket;
use subtle::ConstantTimeEq;

use crate::fairness::leaves_some;
use kernel::Process;
use rumpsp::wire::{TOKEN_LEN, Token};

/// All preforks of a server. Their number is bounded.
pub struct Preforks {
    by_token: HashMap<Secret, Prefork>,
    /// The tokens of parents that are still connected.
    by_parent: HashMap<Socket, Vec<Token>>,
    /// The tokens of parents that have gone, the oldest first, each with the time when it expires. Some
    /// may be used by now.
    orphans: VecDeque<(Instant, Token)>,
    most: usize,
    most_in_all: usize,
}

struct Prefork {
    process: Arc<dyn Process>,
    parent: Socket,
}

/// A token whose comparison takes as long however much of it is right. Its hash is keyed at random, so
/// the time of a look-up tells nothing about other tokens.
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
    /// Creates an empty table, with room for `most` preforks of each parent and `most_in_all` in total.
    pub fn new(most: usize, most_in_all: usize) -> Preforks {
        Preforks {
            by_token: HashMap::new(),
            by_parent: HashMap::new(),
            orphans: VecDeque::new(),
            most,
            most_in_all,
        }
    }

    /// Evicts the oldest orphan if that makes room for another prefork of this parent, so that exited
    /// parents cannot exhaust the table. For a parent that has many already, none is evicted unless the
    /// table is full.
    pub fn make_room(&mut self, parent: Socket) -> Option<Arc<dyn Process>> {
        let (own, all, most) = (self.of(parent), self.len(), self.most_in_all);
        let has_room_after = leaves_some(own, all.saturating_sub(1), most);
        let may_evict = own <= most / 256 || all >= most;
        if !self.is_full_for(parent) || self.has_most(parent) || !has_room_after || !may_evict {
            return None;
        }
        std::iter::from_fn(|| self.orphans.pop_front())
            .find_map(|(_, token)| self.by_token.remove(&Secret(token)))
            .map(|prefork| prefork.process)
    }

    fn has_most(&self, parent: Socket) -> bool {
        self.of(parent) >= self.most
    }

    fn is_full_for(&self, parent: Socket) -> bool {
        !leaves_some(self.of(parent), self.by_token.len(), self.most_in_all)
    }

    fn of(&self, parent: Socket) -> usize {
        self.by_parent.get(&parent).map_or(0, Vec::len)
    }

    /// Keeps a prefork under a new random token. Returns the prefork if there are too many, or if the
    /// system has no random numbers.
    pub fn keep(
        &mut self,
        parent: Socket,
        process: Arc<dyn Process>,
    ) -> Result<Token, Arc<dyn Process>> {
        let is_full = self.has_most(parent) || self.is_full_for(parent);
        let mut token = [0; TOKEN_LEN];
        if is_full || getrandom::fill(&mut token).is_err() {
            return Err(process);
        }
        self.by_parent.entry(parent).or_default().push(token);
        self.by_token.insert(Secret(token), Prefork { process, parent });
        Ok(token)
    }

    /// Takes the prefork of this token, which is invalid from here on.
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

    /// Notes that the parent has gone. Its preforks stay valid until `until`.
    pub fn orphan(&mut self, parent: Socket, until: Instant) {
        let Some(tokens) = self.by_parent.remove(&parent) else { return };
        self.orphans.extend(tokens.into_iter().map(|token| (until, token)));
        if self.orphans.len() > 2 * self.most_in_all {
            self.orphans.retain(|(_, token)| self.by_token.contains_key(&Secret(*token)));
        }
    }

    /// Returns the time when the first orphan expires.
    pub fn next_to_expire(&mut self) -> Option<Instant> {
        while let Some((until, token)) = self.orphans.front() {
            if self.by_token.contains_key(&Secret(*token)) {
                return Some(*until);
            }
            self.orphans.pop_front();
        }
        None
    }

    /// Takes out the orphans that have expired. The first one in the queue expires first.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<dyn Process>> {
        let mut over = Vec::new();
        while let Some((_, token)) = self.orphans.front().filter(|(until, _)| *until <= now) {
            over.extend(self.by_token.remove(&Secret(*token)).map(|prefork| prefork.process));
            self.orphans.pop_front();
        }
        over
    }

    /// Takes out all preforks.
    pub fn drain(&mut self) -> Vec<Arc<dyn Process>> {
        self.by_parent.clear();
        self.orphans.clear();
        self.by_token.drain().map(|(_, prefork)| prefork.process).collect()
    }

    /// Returns the number of preforks that wait.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }
}
