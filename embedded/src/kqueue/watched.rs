//! Klists: processes and vnodes tell their knotes about events.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`knote`), `sys/miscfs/genfs/genfs_vnops.c`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::super::process::Proc;
use super::super::sync::lock;
use super::super::work;
use super::Knote;

/// `sys/event.h`: the events of a vnode.
pub(in super::super) mod note {
    /// The file's last link was removed.
    pub const DELETE: u32 = 0x1;
    /// The file was written to.
    pub const WRITE: u32 = 0x2;
    /// The file grew.
    pub const EXTEND: u32 = 0x4;
    /// The file's attributes changed.
    pub const ATTRIB: u32 = 0x8;
    /// The file's link count changed.
    pub const LINK: u32 = 0x10;
    /// The file was renamed.
    pub const RENAME: u32 = 0x20;
    /// The file was revoked, or its file system is gone.
    pub const REVOKE: u32 = 0x40;
}

/// An event of a process or a vnode.
#[derive(Clone, Copy)]
pub(in super::super) enum Event<'e> {
    /// Events of a vnode, bits of `note`.
    File(u32),
    /// The process was sent this signal.
    Signal(i32),
    /// The process has forked this child.
    Fork(&'e Arc<Proc>),
    /// The process has executed another program.
    Exec,
    /// The process has exited.
    Exit,
}

/// The klist of a process or vnode. It costs no heap until it has a knote, and telling an empty one costs
/// one load.
#[derive(Default)]
pub(in super::super) struct Watched(OnceLock<Arc<Watchers>>);

/// The knotes by address, which is unique while they live.
#[derive(Default)]
pub(in super::super) struct Watchers(Mutex<BTreeMap<usize, Weak<Knote>>>);

impl Watched {
    /// Tells every knote. The caller holds no lock that a filter or a waker may take.
    pub fn tell(&self, event: Event<'_>) {
        let Some(watchers) = self.0.get() else { return };
        let mut from = 0;
        loop {
            // If there are too many, a worker tells the rest later. A fork event is always told at once, as
            // only workers fork.
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

    /// Tells the knotes of a vnode what happened to it, by the bits of `note`. NetBSD: `VN_KNOTE`.
    pub fn note(&self, hints: u32) {
        self.tell(Event::File(hints));
    }

    /// Returns the list of knotes.
    pub fn watchers(&self) -> Arc<Watchers> {
        self.0.get_or_init(Arc::default).clone()
    }

    /// Returns the number of knotes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.get().map_or(0, |watchers| lock(&watchers.0).len())
    }
}

impl<'e> Event<'e> {
    /// Returns the event with a `'static` lifetime, to be told later; `None` for a fork.
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

/// The number of knotes that are told between two looks at the list.
const SOME: usize = 16;

impl Watchers {
    /// Tells some knotes from that address on. Returns `true` if there may be more.
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
