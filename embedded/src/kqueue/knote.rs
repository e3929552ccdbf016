//! Knotes: one thing that one kqueue waits for.
//!
//! Source: NetBSD `sys/kern/kern_event.c` (`filt_*`), `sys/kern/kern_sig.c` (`filt_signal`),
//! `sys/miscfs/genfs/genfs_vnops.c` (`filt_genfs*`).

use std::sync::{Arc, Mutex, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::super::System;
use super::super::file::{OpenFile, Seen};
use super::super::process::Proc;
use super::super::sync::lock;
use super::super::timer_thread::{AlarmId, Due, TICK, after};
use super::super::wait::{Registration, Side};
use super::watched::Watchers;
use super::{Event, Kevent, Kqueue, abi, note};
use kernel::Errno;

/// What finds a knote in its kqueue: filter and ident.
pub(super) type Key = (u32, u64);

/// One thing that one kqueue waits for.
pub(in super::super) struct Knote {
    kqueue: Weak<Kqueue>,
    pub(super) key: Key,
    target: Target,
    state: Mutex<State>,
}

/// What a knote is on. It keeps none of it: what is gone has nothing more to tell.
pub(super) enum Target {
    /// Something to read from a file, or room to write to it.
    Side(Weak<OpenFile>, Side, Option<Arc<Watchers>>),
    /// What happens to a file of the file system.
    File(Weak<OpenFile>, Arc<Watchers>),
    /// What happens to a process.
    Process(Arc<Watchers>),
    /// The signals of a process.
    Signal(Arc<Watchers>),
    Timer(Weak<System>),
}

struct State {
    /// What is reported (`kn_kevent`).
    kevent: Kevent,
    /// What the client asked for (`kn_sfflags`, `kn_sdata`).
    wanted: u32,
    value: i64,
    /// Its filter was satisfied (`KN_ACTIVE`).
    active: bool,
    /// Its turn on its kqueue's list, if it is there (`KN_QUEUED`).
    queued: Option<u64>,
    disabled: bool,
    removed: bool,
    /// Its place in its file's queue, if nobody has taken it out to wake it.
    place: Option<Registration>,
    /// Somebody has, and it has not looked since.
    woken: bool,
    /// Its timer, while it is set.
    alarm: Option<AlarmId>,
    /// When its timer went off, or will.
    at: Option<Instant>,
}

/// What becomes of a knote that a kevent call has looked at.
pub(super) enum Verdict {
    /// It is not ready, or not any more.
    Quiet,
    /// Somebody else has put it on the list meanwhile, or removed it.
    Elsewhere,
    /// It is reported,
    Report(Kevent),
    /// and goes to the end of the list,
    Again(Kevent),
    /// or away.
    Last(Kevent),
}

impl Knote {
    pub(super) fn new(kqueue: &Arc<Kqueue>, target: Target, kevent: Kevent) -> Arc<Knote> {
        let Kevent { ident, filter, fflags, data, .. } = kevent;
        let kevent = Kevent { fflags: 0, data: 0, ..kevent };
        let state = State {
            kevent,
            wanted: fflags,
            value: data,
            active: false,
            queued: None,
            disabled: false,
            removed: false,
            place: None,
            woken: false,
            alarm: None,
            at: None,
        };
        let key = (filter, ident);
        Arc::new(Knote { kqueue: Arc::downgrade(kqueue), key, target, state: Mutex::new(state) })
    }

    /// It is the child of a process that a knote of this kqueue tracks: says so.
    pub(super) fn born_of(&self, parent: u64) {
        let mut state = lock(&self.state);
        state.kevent.fflags = abi::CHILD;
        state.kevent.data = parent as i64;
    }

    /// Takes its place on what it watches; a timer is set. The caller looks at it after this.
    pub(super) fn attach(self: &Arc<Self>) -> Result<(), Errno> {
        match &self.target {
            Target::Side(_, _, None) => Ok(()),
            Target::Side(_, _, Some(watchers))
            | Target::File(_, watchers)
            | Target::Process(watchers)
            | Target::Signal(watchers) => {
                watchers.add(self);
                Ok(())
            }
            Target::Timer(_) => {
                let mut state = lock(&self.state);
                state.at = Some(after(Instant::now(), period(state.value)));
                self.set_alarm(&mut state)
            }
        }
    }

    /// Leaves what it watches. It has been removed from its kqueue.
    pub(super) fn detach(self: &Arc<Self>) {
        let (place, alarm) = {
            let mut state = lock(&self.state);
            (state.place.take(), state.alarm.take())
        };
        drop(place);
        match &self.target {
            Target::Side(_, _, None) => {}
            Target::Side(_, _, Some(watchers))
            | Target::File(_, watchers)
            | Target::Process(watchers)
            | Target::Signal(watchers) => watchers.remove(self),
            Target::Timer(system) => {
                if let (Some(alarm), Some(system)) = (alarm, system.upgrade()) {
                    system.timer_thread.cancel(alarm);
                }
            }
        }
    }

    /// Whether it is still on this open file. A number may mean another one by now.
    pub(super) fn is_on(&self, file: &Arc<OpenFile>) -> bool {
        match &self.target {
            Target::Side(on, ..) | Target::File(on, _) => {
                std::ptr::eq(on.as_ptr(), Arc::as_ptr(file))
            }
            _ => false,
        }
    }

    /// What a second EV_ADD changes.
    pub(super) fn update(&self, kevent: &Kevent) {
        let mut state = lock(&self.state);
        (state.wanted, state.value) = (kevent.fflags, kevent.data);
        state.kevent.udata = kevent.udata;
    }

    pub(super) fn disable(&self) {
        lock(&self.state).disabled = true;
    }

    /// Enables it; whether its filter was satisfied meanwhile. NetBSD: `knote_enqueue`.
    pub(super) fn enable(&self) -> bool {
        let mut state = lock(&self.state);
        state.disabled = false;
        state.active
    }

    /// It is satisfied; whether it has to go on the list now, in this turn. Its kqueue's lock is held.
    pub(super) fn activate(&self, turn: u64) -> bool {
        let mut state = lock(&self.state);
        if state.removed {
            return false;
        }
        state.active = true;
        let put = state.queued.is_none() && !state.disabled;
        if put {
            state.queued = Some(turn);
        }
        put
    }

    /// It is no knote of its kqueue any more; its turn on the list, if it is there. Its kqueue's lock is
    /// held, or that is closed.
    pub(super) fn remove(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        state.removed = true;
        state.queued
    }

    /// It has been taken off the list; whether it is to be looked at. Its kqueue's lock is held.
    pub(super) fn taken_off(&self) -> bool {
        let mut state = lock(&self.state);
        state.queued = None;
        !state.disabled
    }

    /// Looks whether its filter is satisfied, from wherever that is news: it takes its place first, so
    /// that nothing is lost between the two.
    pub(super) fn look(self: &Arc<Self>) {
        let Some(kqueue) = self.kqueue.upgrade() else { return };
        if self.evaluate() {
            kqueue.activate(self);
        }
    }

    /// Takes its place, and says whether its filter is satisfied (`f_event`).
    pub(super) fn evaluate(self: &Arc<Self>) -> bool {
        let Target::Side(file, side, _) = &self.target else {
            let state = &mut *lock(&self.state);
            self.count_periods(state);
            return state.kevent.data != 0 || state.kevent.fflags != 0;
        };
        let Some(file) = file.upgrade() else { return false };
        let low_water = {
            let mut state = lock(&self.state);
            if state.removed {
                return false;
            }
            state.woken = false;
            if state.place.is_none()
                && let Some(source) = file.ops.waitable()
            {
                let waker = Waker::from(self.clone());
                state.place = Some(Registration::new(source, *side, &waker));
            }
            (state.wanted & abi::LOWAT != 0).then_some(state.value)
        };
        let seen = file.ops.filter(&file, *side, low_water).unwrap_or_default();
        self.saw(seen);
        seen.ready
    }

    fn saw(&self, seen: Seen) {
        let kevent = &mut lock(&self.state).kevent;
        kevent.data = seen.data;
        kevent.fflags = seen.flags;
        if seen.eof {
            kevent.flags |= abi::EOF;
        } else if kevent.flags & abi::ONESHOT == 0 {
            // One that is reported once stays over once it was: its file may have been revoked.
            kevent.flags &= !abi::EOF;
        }
    }

    /// Says what becomes of it after a look for a kevent call: it has been taken off the list, and its
    /// kqueue's lock is held.
    pub(super) fn verdict(self: &Arc<Self>, ready: bool, turn: u64) -> Verdict {
        let mut state = lock(&self.state);
        if state.removed || state.queued.is_some() {
            return Verdict::Elsewhere;
        }
        // One that is reported once is, whatever has become of it.
        let once = state.kevent.flags & abi::ONESHOT != 0;
        if !ready && !once {
            state.active = false;
            return Verdict::Quiet;
        }
        let kevent = state.kevent;
        if once {
            return Verdict::Last(kevent);
        }
        if kevent.flags & abi::CLEAR != 0 {
            (state.kevent.data, state.kevent.fflags) = (0, 0);
            state.active = false;
            self.next_period(&mut state);
        } else if kevent.flags & abi::DISPATCH != 0 {
            state.disabled = true;
            state.active = false;
        } else {
            state.queued = Some(turn);
            return Verdict::Again(kevent);
        }
        Verdict::Report(kevent)
    }

    /// After a report, or in vain: takes its place anew if somebody took it out while it was looked at,
    /// and looks again then.
    pub(super) fn settle(self: &Arc<Self>) {
        let woken = lock(&self.state).woken;
        if woken {
            self.look();
        }
    }

    /// Something happened to what it watches. NetBSD: `filt_proc`, `filt_signal`, `filt_genfsvnode`,
    /// `filt_genfsread`.
    pub(super) fn told(self: &Arc<Self>, event: Event<'_>) {
        let Some(kqueue) = self.kqueue.upgrade() else { return };
        let satisfied = match (&self.target, event) {
            (Target::Side(..), Event::File(hints)) => return self.told_to_read(&kqueue, hints),
            (Target::File(..), Event::File(hints)) => self.told_of_file(hints),
            (Target::Signal(_), Event::Signal(signo)) => {
                let mut state = lock(&self.state);
                state.kevent.data += i64::from(self.key.1 == signo as u64);
                state.kevent.data != 0
            }
            (Target::Process(watchers), Event::Exit) => {
                watchers.remove(self);
                let mut state = lock(&self.state);
                state.kevent.flags |= abi::EOF | abi::ONESHOT;
                state.kevent.fflags |= state.wanted & abi::EXIT;
                true
            }
            (Target::Process(_), Event::Fork(child)) => self.told_of_fork(&kqueue, child),
            (Target::Process(_), Event::Exec) => {
                let mut state = lock(&self.state);
                state.kevent.fflags |= state.wanted & abi::EXEC;
                state.kevent.fflags != 0
            }
            _ => false,
        };
        if satisfied {
            kqueue.activate(self);
        }
    }

    fn told_to_read(self: &Arc<Self>, kqueue: &Arc<Kqueue>, hints: u32) {
        if hints & note::REVOKE != 0 {
            lock(&self.state).kevent.flags |= abi::EOF | abi::ONESHOT;
            return kqueue.activate(self);
        }
        if hints & (note::WRITE | note::EXTEND) != 0 {
            // NetBSD tells before who wrote is past what was written: whether it still is ready is
            // seen by the kevent call.
            return kqueue.activate(self);
        }
        self.look();
    }

    fn told_of_file(&self, hints: u32) -> bool {
        let mut state = lock(&self.state);
        // What happened at once is told at once, if some of it was asked for.
        if state.wanted & hints != 0 {
            state.kevent.fflags |= hints;
        }
        if hints & note::REVOKE != 0 {
            state.kevent.flags |= abi::EOF;
            return true;
        }
        state.kevent.fflags != 0
    }

    fn told_of_fork(&self, kqueue: &Arc<Kqueue>, child: &Arc<Proc>) -> bool {
        let (wanted, kevent) = {
            let state = lock(&self.state);
            (state.wanted, state.kevent)
        };
        let mut fflags = wanted & abi::FORK;
        if wanted & abi::TRACK != 0 {
            let kevent = Kevent { ident: child.pid as u64, fflags: wanted, data: 0, ..kevent };
            if kqueue.track(child, kevent, self.key.1).is_err() {
                fflags |= abi::TRACKERR;
            }
        }
        let mut state = lock(&self.state);
        state.kevent.fflags |= fflags;
        state.kevent.fflags != 0
    }

    fn set_alarm(self: &Arc<Self>, state: &mut State) -> Result<(), Errno> {
        let (Target::Timer(system), Some(at)) = (&self.target, state.at) else { return Ok(()) };
        let Some(system) = system.upgrade() else { return Ok(()) };
        let me: Arc<dyn Due> = self.clone();
        state.alarm = Some(system.timer_thread.set(at, Arc::downgrade(&me))?);
        Ok(())
    }

    /// How often the timer went off so far: nobody is woken for each time while the first is on the
    /// list. NetBSD: `filt_timerexpire`.
    fn count_periods(&self, state: &mut State) {
        let (Target::Timer(_), Some(at), None) = (&self.target, state.at, state.alarm) else {
            return;
        };
        let late = Instant::now().saturating_duration_since(at);
        let period = period(state.value).as_nanos();
        state.kevent.data = match state.kevent.flags & abi::ONESHOT {
            0 => i64::try_from(late.as_nanos() / period).unwrap_or(i64::MAX).saturating_add(1),
            _ => 1,
        };
    }

    /// What was counted has been reported: on to the next time.
    fn next_period(self: &Arc<Self>, state: &mut State) {
        let (Target::Timer(_), Some(at), None) = (&self.target, state.at, state.alarm) else {
            return;
        };
        let (now, period) = (Instant::now(), period(state.value));
        let into = now.saturating_duration_since(at).as_nanos() % period.as_nanos();
        let left = period - Duration::from_nanos(into.try_into().unwrap_or(0));
        state.at = Some(after(now, left));
        if self.set_alarm(state).is_err() {
            state.at = None;
        }
    }
}

/// What `value` milliseconds come to between two times of a timer: whole ticks, at least one.
fn period(value: i64) -> Duration {
    let millis = u64::try_from(value).unwrap_or(0);
    let tick = TICK.as_millis() as u64;
    Duration::from_millis((millis / tick * tick).max(tick))
}

impl Wake for Knote {
    fn wake(self: Arc<Self>) {
        let (place, active) = {
            let mut state = lock(&self.state);
            state.woken = true;
            (state.place.take(), state.active)
        };
        drop(place);
        // One that is active is looked at by a kevent call, which takes a new place.
        if !active {
            self.look();
        }
    }
}

impl Due for Knote {
    fn due(self: Arc<Self>) {
        let Some(kqueue) = self.kqueue.upgrade() else { return };
        {
            let mut state = lock(&self.state);
            state.alarm = None;
            state.kevent.data = 1;
        }
        kqueue.activate(&self);
    }
}

#[cfg(test)]
mod tests {
    use super::super::KNOTE_BYTES;
    use super::*;

    #[test]
    fn a_knote_costs_what_is_paid_for_it() {
        // Itself in its Arc, an entry in its kqueue's map and one in that of what it watches, both in
        // maps that may be half empty, its place on the list and in its file's queue.
        let map = 2 * (size_of::<Key>() + 8) + 2 * 16;
        let all = 16 + size_of::<Knote>() + map + 2 * 8 + 16;
        assert!(all as u64 <= KNOTE_BYTES, "a knote takes {all} bytes");
    }
}
