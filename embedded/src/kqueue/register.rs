//! Changing what a kqueue waits for.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`kqueue_register`, `filt_*attach`).

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::super::file::OpenFile;
use super::super::process::Proc;
use super::super::sync::lock;
use super::super::wait::Side;
use super::knote::{Key, Knote, Target, Verdict};
use super::{Event, KNOTE_BYTES, KNOTES_MAX, Kevent, Kqueue, abi};
use kernel::Errno;

impl Kqueue {
    /// Makes one change for `proc`. If it fails, `change` is reported with the error.
    pub(super) fn change(self: &Arc<Self>, proc: &Proc, change: &mut Kevent) -> Result<(), Errno> {
        let file = match change.filter {
            abi::READ | abi::WRITE | abi::VNODE => Some(descriptor(proc, change.ident)?),
            abi::PROC | abi::SIGNAL | abi::TIMER => None,
            _ => return Err(Errno::EINVAL),
        };
        let key = (change.filter, change.ident);
        let (flags, has) = (change.flags, |flag| change.flags & flag != 0);
        let knote = match self.find(key, file.as_ref()) {
            Some(knote) if has(abi::ADD) => {
                knote.update(change);
                knote.look();
                knote
            }
            Some(_) if has(abi::DELETE) => {
                self.remove(key);
                return Ok(());
            }
            Some(knote) => knote,
            None if has(abi::ADD) => self.add(proc, change, file.as_ref())?,
            None => return Err(Errno::ENOENT),
        };
        if flags & abi::DISABLE != 0 {
            knote.disable();
        }
        if flags & abi::ENABLE != 0 && knote.enable() {
            self.activate(&knote);
        }
        Ok(())
    }

    /// Returns the knote with this key. If the knote is on another file than the descriptor means now,
    /// removes it and returns `None`.
    fn find(&self, key: Key, file: Option<&Arc<OpenFile>>) -> Option<Arc<Knote>> {
        let knote = lock(&self.state).knotes.get(&key).cloned()?;
        if file.is_some_and(|file| !knote.is_on(file)) {
            self.remove(key);
            return None;
        }
        Some(knote)
    }

    /// Makes a new knote.
    fn add(
        self: &Arc<Self>,
        proc: &Proc,
        change: &mut Kevent,
        file: Option<&Arc<OpenFile>>,
    ) -> Result<Arc<Knote>, Errno> {
        let target = target(proc, change, file);
        let mut kevent = *change;
        (change.fflags, change.data) = (0, 0);
        let target = target?;
        if file.is_none() {
            kevent.flags |= abi::CLEAR;
        }
        let knote = Knote::new(self, target, kevent);
        self.put(&knote)?;
        if let Err(errno) = knote.attach() {
            self.remove_this(&knote);
            return Err(errno);
        }
        knote.look();
        // The process may have ended before there was a knote to be told.
        if change.filter == abi::PROC && proc.system.processes.find(change.ident as i32).is_none() {
            knote.told(Event::Exit);
        }
        // The descriptor may have been closed before there was a knote to be removed with it.
        if let Some(file) = file
            && !proc.files.get(change.ident as i32).is_ok_and(|now| Arc::ptr_eq(&now, file))
        {
            self.remove_this(&knote);
        }
        Ok(knote)
    }

    /// Follows a process to its child: `kevent` is that of the knote on the parent.
    pub(super) fn track(
        self: &Arc<Self>,
        child: &Arc<Proc>,
        kevent: Kevent,
        parent: u64,
    ) -> Result<(), Errno> {
        let knote = Knote::new(self, Target::Process(child.extras().watched.watchers()), kevent);
        knote.born_of(parent);
        self.put(&knote)?;
        knote.attach()?;
        self.activate(&knote);
        Ok(())
    }

    /// Puts the knote into the kqueue. ENOMEM if there are too many, or the family cannot pay for it.
    fn put(&self, knote: &Arc<Knote>) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        let many = state.knotes.len() >= KNOTES_MAX || state.closed;
        match state.knotes.entry(knote.key) {
            // Another thread of the client has added the same knote first.
            Entry::Occupied(_) => Err(Errno::EEXIST),
            Entry::Vacant(free) if !many && self.resource_group.take_bytes(KNOTE_BYTES) => {
                free.insert(knote.clone());
                Ok(())
            }
            Entry::Vacant(_) => Err(Errno::ENOMEM),
        }
    }

    /// Removes this knote, unless another thread has.
    pub(super) fn remove_this(&self, knote: &Arc<Knote>) {
        let is_it =
            lock(&self.state).knotes.get(&knote.key).is_some_and(|it| Arc::ptr_eq(it, knote));
        if is_it {
            self.remove(knote.key);
        }
    }

    /// Evaluates a knote that was on the list, and returns what happens to it.
    pub(super) fn judge(&self, knote: &Arc<Knote>) -> Verdict {
        let ready = knote.evaluate();
        let mut state = lock(&self.state);
        let verdict = knote.verdict(ready, state.turn);
        if let Verdict::Again(_) = verdict {
            state.put(knote);
        }
        verdict
    }
}

/// Returns the open file of the descriptor in an ident.
fn descriptor(proc: &Proc, ident: u64) -> Result<Arc<OpenFile>, Errno> {
    proc.files.get(i32::try_from(ident).map_err(|_| Errno::EBADF)?)
}

/// Returns the target for the knote of this change. NetBSD: `f_attach`.
fn target(proc: &Proc, change: &Kevent, file: Option<&Arc<OpenFile>>) -> Result<Target, Errno> {
    let watchers = |proc: &Proc| proc.extras().watched.watchers();
    match (change.filter, file) {
        (abi::VNODE, Some(file)) => {
            file.ops.check_filter(None)?;
            let watched = file.ops.watched().ok_or(Errno::EINVAL)?;
            Ok(Target::File(Arc::downgrade(file), watched.watchers()))
        }
        (filter, Some(file)) => {
            let side = if filter == abi::READ { Side::Read } else { Side::Write };
            file.ops.check_filter(Some(side))?;
            file.ops.filter(file, side, None).ok_or(Errno::EINVAL)?;
            let hears = file.ops.watched().filter(|_| side == Side::Read);
            Ok(Target::Side(Arc::downgrade(file), side, hears.map(|watched| watched.watchers())))
        }
        (abi::PROC, None) => {
            let pid = change.ident as i32;
            if pid == proc.pid {
                return Ok(Target::Process(watchers(proc)));
            }
            let other = proc.system.processes.find(pid).ok_or(Errno::ESRCH)?;
            let (own, its) = (proc.credentials(), other.credentials());
            if own.euid != 0 && own.uid != its.uid {
                return Err(Errno::EACCES);
            }
            Ok(Target::Process(watchers(&other)))
        }
        (abi::SIGNAL, None) => Ok(Target::Signal(watchers(proc))),
        (abi::TIMER, None) if change.data == 0 => Err(Errno::EINVAL),
        (abi::TIMER, None) => Ok(Target::Timer(Arc::downgrade(&proc.system))),
        _ => Err(Errno::EINVAL),
    }
}
