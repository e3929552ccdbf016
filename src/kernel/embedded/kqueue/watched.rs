//! Things that tell their knotes what happens to them: processes, and files of the file system.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`knote`), `sys/miscfs/genfs/genfs_vnops.c`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::super::process::Task;
use super::super::sync::lock;
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
    Fork(&'e Arc<Task>),
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
        let told: Vec<Arc<Knote>> = lock(&watchers.0).values().filter_map(Weak::upgrade).collect();
        for knote in told {
            knote.told(event);
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

impl Watchers {
    pub fn add(&self, knote: &Arc<Knote>) {
        lock(&self.0).insert(Arc::as_ptr(knote) as usize, Arc::downgrade(knote));
    }

    pub fn remove(&self, knote: &Arc<Knote>) {
        let left = lock(&self.0).remove(&(Arc::as_ptr(knote) as usize));
        drop(left);
    }
}
