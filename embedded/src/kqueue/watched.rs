//! Things that tell their knotes what happens to them: processes, and files of the file system.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`knote`), `sys/miscfs/genfs/genfs_vnops.c`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::super::process::Proc;
use super::super::sync::lock;
use super::super::work;
use super::Knote;

/// `sys/event.h`: what happens to a file.
pub(in super::super) mod note {
    /// Its last link was removed.
    pub const DELETE: u32 = 0x1;
    /// It was written to.
    pub const WRITE: u32 = 0x2;
    /// It grew.
    pub const EXTEND: u32 = 0x4;
    /// Its attributes changed.
    pub const ATTRIB: u32 = 0x8;
    /// Its link count changed.
    pub const LINK: u32 = 0x10;
    /// It was renamed.
    pub const RENAME: u32 = 0x20;
    /// It was revoked, or its file system is gone.
    pub const REVOKE: u32 = 0x40;
}

/// What happens.
#[derive(Clone, Copy)]
pub(in super::super) enum Event<'e> {
    /// Something of `note`, to a file.
    File(u32),
    /// A process is sent a signal,
    Signal(i32),
    /// has made this child,
    Fork(&'e Arc<Proc>),
    /// has become another program,
    Exec,
    /// is gone.
    Exit,
}

/// The knotes of one thing. Until there is one it costs no heap, and telling costs a look.
#[derive(Default)]
pub(in super::super) struct Watched(OnceLock<Arc<Watchers>>);

/// By the knote's address, which tells it from others while it lives.
#[derive(Default)]
pub(in super::super) struct Watchers(Mutex<BTreeMap<usize, Weak<Knote>>>);

impl Watched {
    /// Tells every knote. To be called without a lock held that a filter or a waker may want.
    pub fn tell(&self, event: Event<'_>) {
        let Some(watchers) = self.0.get() else { return };
        let mut from = 0;
        loop {
            // Those that are too many are told later, of all but forks: a worker makes those.
            if work::is_full()
                && let Some(event) = event.owned()
            {
                let watchers = watchers.clone();
                return work::later(move || while watchers.tell_some(&mut from, event) {});
            }
            if !watchers.tell_some(&mut from, event) {
                return;
            }
        }
    }

    /// Tells the knotes of a file what happened to it, by the bits of `note`. NetBSD: `VN_KNOTE`.
    pub fn note(&self, hints: u32) {
        self.tell(Event::File(hints));
    }

    /// Where the knotes are.
    pub fn watchers(&self) -> Arc<Watchers> {
        self.0.get_or_init(Arc::default).clone()
    }

    /// How many knotes there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.get().map_or(0, |watchers| lock(&watchers.0).len())
    }
}

impl<'e> Event<'e> {
    /// The same for later, unless it is a fork.
    fn owned(self) -> Option<Event<'static>> {
        match self {
            Event::File(hints) => Some(Event::File(hints)),
            Event::Signal(signo) => Some(Event::Signal(signo)),
            Event::Fork(_) => None,
            Event::Exec => Some(Event::Exec),
            Event::Exit => Some(Event::Exit),
        }
    }
}

/// So many knotes are told between two looks at the list.
const SOME: usize = 16;

impl Watchers {
    /// Tells some knotes from that address on; whether there may be more.
    fn tell_some(&self, from: &mut usize, event: Event<'_>) -> bool {
        let told: Vec<Arc<Knote>> = {
            let knotes = lock(&self.0);
            let some = knotes.range(*from..).take(SOME);
            some.inspect(|(at, _)| *from = **at + 1)
                .filter_map(|(_, knote)| knote.upgrade())
                .collect()
        };
        let more = lock(&self.0).range(*from..).next().is_some();
        work::count(8 * told.len());
        for knote in told {
            knote.told(event);
        }
        more
    }

    pub fn add(&self, knote: &Arc<Knote>) {
        lock(&self.0).insert(Arc::as_ptr(knote) as usize, Arc::downgrade(knote));
    }

    pub fn remove(&self, knote: &Arc<Knote>) {
        let left = lock(&self.0).remove(&(Arc::as_ptr(knote) as usize));
        drop(left);
    }
}
