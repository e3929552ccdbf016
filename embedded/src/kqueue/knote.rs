//! Knotes: a knote is one thing that one kqueue waits for.
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

/// The key of a knote in its kqueue: filter and ident.
pub(super) type Key = (u32, u64);

/// One thing that one kqueue waits for.
pub(in super::super) struct Knote {
    kqueue: Weak<Kqueue>,
    pub(super) key: Key,
    target: Target,
    state: Mutex<State>,
}

/// The thing a knote is on. The knote does not keep it alive: what is gone sends no more events.
pub(super) enum Target {
    /// Something to read from a file, or room to write to it.
    Side(Weak<OpenFile>, Side, Option<Arc<Watchers>>),
    /// Changes of a vnode.
    File(Weak<OpenFile>, Arc<Watchers>),
    /// Events of a process.
    Process(Arc<Watchers>),
    /// The signals of a process.
    Signal(Arc<Watchers>),
    Timer(Weak<System>),
}

struct State {
    /// The event as it is reported (`kn_kevent`).
    kevent: Kevent,
    /// The flags and data the client asked for (`kn_sfflags`, `kn_sdata`).
    wanted: u32,
    value: i64,
    /// True if the filter was satisfied (`KN_ACTIVE`).
    active: bool,
    /// Its turn on the kqueue's list, `None` if it is not on the list (`KN_QUEUED`).
    queued: Option<u64>,
    disabled: bool,
    removed: bool,
    /// Its place in the file's wait queue, `None` once a waker has taken it out.
    place: Option<Registration>,
    /// True if a waker has taken it out and the knote has not been evaluated since.
    woken: bool,
    /// The alarm of a timer, while it is set.
    alarm: Option<AlarmId>,
    /// The time at which the timer went off, or will go off.
    at: Option<Instant>,
}

/// The fate of a knote that a kevent call has evaluated.
pub(super) enum Verdict {
    /// The knote is not ready, or not any more.
    Quiet,
    /// Another thread has put the knote on the list meanwhile, or removed it.
    Elsewhere,
    /// The event is reported.
    Report(Kevent),
    /// The event is reported, and the knote goes to the end of the list.
    Again(Kevent),
    /// The event is reported, and the knote is removed.
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

    /// Records that the process is the child of process `parent`, which a knote of this kqueue tracks.
    pub(super) fn born_of(&self, parent: u64) {
        let mut state = lock(&self.state);
        state.kevent.fflags = abi::CHILD;
        state.kevent.data = parent as i64;
    }

    /// Attaches the knote to its target, or sets its timer. The caller evaluates it after this.
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

    /// Detaches the knote from its target. It has been removed from its kqueue.
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

    /// Returns `true` if the knote is on this open file. By now its descriptor may mean another file.
    pub(super) fn is_on(&self, file: &Arc<OpenFile>) -> bool {
        match &self.target {
            Target::Side(on, ..) | Target::File(on, _) => {
                std::ptr::eq(on.as_ptr(), Arc::as_ptr(file))
            }
            _ => false,
        }
    }

    /// Makes the changes of a second EV_ADD.
    pub(super) fn update(&self, kevent: &Kevent) {
        let mut state = lock(&self.state);
        (state.wanted, state.value) = (kevent.fflags, kevent.data);
        state.kevent.udata = kevent.udata;
    }

    pub(super) fn disable(&self) {
        lock(&self.state).disabled = true;
    }

    /// Enables the knote. Returns `true` if its filter was satisfied meanwhile. NetBSD: `knote_enqueue`.
    pub(super) fn enable(&self) -> bool {
        let mut state = lock(&self.state);
        state.disabled = false;
        state.active
    }

    /// Marks the knote as active. Returns `true` if it has to go on the list now, in this turn. The caller
    /// holds the kqueue's lock.
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

    /// Marks the knote as removed from its kqueue. Returns its turn on the list, if it is there. The caller
    /// holds the kqueue's lock, or the kqueue is closed.
    pub(super) fn remove(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        state.removed = true;
        state.queued
    }

    /// Marks the knote as taken off the list. Returns `true` if it is to be evaluated. The caller holds the
    /// kqueue's lock.
    pub(super) fn taken_off(&self) -> bool {
        let mut state = lock(&self.state);
        state.queued = None;
        !state.disabled
    }

    /// Evaluates the filter and activates the knote if it is satisfied, whatever brought the news. The
    /// knote takes its place in the wait queue first, so that no event is lost between the two.
    pub(super) fn look(self: &Arc<Self>) {
        let Some(kqueue) = self.kqueue.upgrade() else { return };
        if self.evaluate() {
            kqueue.activate(self);
        }
    }

    /// Takes a place in the wait queue, and returns `true` if the filter is satisfied (`f_event`).
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
            // A one-shot knote keeps EV_EOF once it had it: its file may have been revoked.
            kevent.flags &= !abi::EOF;
        }
    }

    /// Decides what happens to the knote after a kevent call has evaluated it. It has been taken off the
    /// list, and the caller holds the kqueue's lock.
    pub(super) fn verdict(self: &Arc<Self>, ready: bool, turn: u64) -> Verdict {
        let mut state = lock(&self.state);
        if state.removed || state.queued.is_some() {
            return Verdict::Elsewhere;
        }
        // A one-shot knote is reported even if it is not ready any more.
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

    /// Takes a new place in the wait queue, after a report or without one, if a waker took the knote out
    /// during the evaluation, and then evaluates the knote again.
    pub(super) fn settle(self: &Arc<Self>) {
        let woken = lock(&self.state).woken;
        if woken {
            self.look();
        }
    }

    /// Handles an event of the knote's target. NetBSD: `filt_proc`, `filt_signal`, `filt_genfsvnode`,
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
            // NetBSD notifies before the writer's offset is past what was written: the kevent call checks
            // whether the knote still is ready.
            return kqueue.activate(self);
        }
        self.look();
    }

    fn told_of_file(&self, hints: u32) -> bool {
        let mut state = lock(&self.state);
        // Events that happen together are reported together, if the knote asked for any of them.
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

    /// Counts the periods of a timer that have passed. While the first is on the list, no thread is woken
    /// for the others. NetBSD: `filt_timerexpire`.
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

    /// Sets the timer to its next period, after the passed ones have been reported.
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

/// Returns the period of a timer of `value` milliseconds: whole ticks, at least one.
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
        // An active knote is evaluated by a kevent call, which takes a new place.
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
        // The knote in its Arc, an entry in the map of its kqueue and one in that of its target, both maps
        // perhaps half empty, its place on the list and in the file's wait queue.
        let map = 2 * (size_of::<Key>() + 8) + 2 * 16;
        let all = 16 + size_of::<Knote>() + map + 2 * 8 + 16;
        assert!(all as u64 <= KNOTE_BYTES, "a knote takes {all} bytes");
    }
}
