//! Timers of a process: the interval timers and the POSIX timers, which send it signals.
//!
//! They run on the kernel's timer thread (`timer_thread`), go off on ticks of 10 ms, and end with their
//! process. Timers of CPU time stand still, as in a rump kernel.
//!
//! A timer that goes off while its signal still waits to be delivered sends no other: it counts an overrun.
//! If the client does not take the signal for long, the timer is looked at less and less often, and the
//! missed times are computed; so timers of clients that read nothing cost next to nothing. Timers that send
//! no signal are never looked at.
//!
//! Source: NetBSD `sys/kern/kern_time.c`; setitimer(2), timer_create(2).

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::abi::{i32_at, pair, signal, timespec_at, timeval_at};
use super::call::{Answer, Result, SyscallContext};
use super::listed::{Listed, Runs, call, partly};
use super::process::Proc;
use super::sync::lock;
use super::time::{ABSOLUTE, MONOTONIC, REALTIME};
use super::timer_thread::{AlarmId, Due, TICK, after};
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    partly(
        sys::TIMER_CREATE,
        Runs::Inline,
        timer_create,
        "signals come without the sigev_value, for clients are sent a number only",
    ),
    call(sys::TIMER_DELETE, Runs::Inline, timer_delete),
    call(sys::TIMER_GETOVERRUN, Runs::Inline, timer_getoverrun),
    call(sys::SETITIMER, Runs::Inline, setitimer),
    call(sys::GETITIMER, Runs::Inline, getitimer),
    call(sys::TIMER_SETTIME, Runs::Inline, timer_settime),
    call(sys::TIMER_GETTIME, Runs::Inline, timer_gettime),
];

/// The most timers of a process (`TIMER_MAX`), and how many of those are interval timers (`TIMER_MIN`).
pub(super) const TIMERS: usize = 36;
const INTERVAL_TIMERS: usize = 4;

/// The lowest number the calls for POSIX timers take. NetBSD lets them use some of the interval timers.
const LOWEST: usize = 2;

/// The longest time between two looks at a timer whose signals are not taken.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The most overruns that are reported (`DELAYTIMER_MAX`).
const OVERRUNS_MAX: i64 = 32;

/// The default signal of each clock's timers: SIGALRM, SIGVTALRM, SIGPROF.
const SIGNALS: [i32; INTERVAL_TIMERS] = [14, 26, 27, 14];

/// `SIGEV_SIGNAL`, and the last of the notification methods (`SIGEV_SA`).
const BY_SIGNAL: i32 = 1;
const LAST_WAY: i32 = 3;

/// The timers of a process, empty until it makes one.
#[derive(Default)]
pub(super) struct Timers(Mutex<Vec<Option<Arc<Timer>>>>);

struct Timer {
    proc: Weak<Proc>,
    clock: i32,
    /// The signal to send, 0 for none.
    signo: i32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next time the timer goes off, if it is set.
    next: Next,
    interval: Duration,
    alarm: Option<AlarmId>,
    /// The times it should have gone off since the last signal, and those reported with that signal.
    missed: i64,
    overruns: i64,
    /// The number of intervals until `next`: one, unless the signals are not taken.
    stride: u32,
}

#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Unset,
    At(Instant),
    /// A timer on a clock that stands still, with the time left.
    Still(Duration),
}

/// The value and interval of a timer.
struct Setting {
    value: Duration,
    interval: Duration,
}

impl Timers {
    fn get(&self, number: usize) -> Option<Arc<Timer>> {
        lock(&self.0).get(number).cloned().flatten()
    }

    /// Takes out a timer.
    fn take(&self, number: usize) -> Option<Arc<Timer>> {
        lock(&self.0).get_mut(number).and_then(Option::take)
    }

    /// Returns `true` if the process has a table of timers (`p_timers`).
    fn exist(&self) -> bool {
        !lock(&self.0).is_empty()
    }

    /// Makes the table of timers. NetBSD: `timers_alloc`.
    fn begin(&self) {
        let mut timers = lock(&self.0);
        if timers.is_empty() {
            timers.resize(INTERVAL_TIMERS, None);
        }
    }

    /// Puts an interval timer at its number.
    fn put(&self, number: usize, timer: Arc<Timer>) {
        self.begin();
        let before = lock(&self.0)[number].replace(timer);
        drop(before);
    }

    /// Puts a timer at the lowest free number for POSIX timers. EAGAIN if there is none.
    fn add(&self, timer: Arc<Timer>) -> Result<usize, Errno> {
        let mut timers = lock(&self.0);
        let free = |number: &usize| timers.get(*number).is_none_or(Option::is_none);
        let number = (INTERVAL_TIMERS..TIMERS).find(free).ok_or(Errno::EAGAIN)?;
        if timers.len() <= number {
            timers.resize(number + 1, None);
        }
        timers[number] = Some(timer);
        Ok(number)
    }

    /// Removes the POSIX timers at an exec.
    pub fn exec(&self) {
        let gone: Vec<_> = {
            let mut timers = lock(&self.0);
            let from = timers.len().min(INTERVAL_TIMERS);
            let gone = timers.drain(from..).flatten().collect();
            if timers.iter().all(Option::is_none) {
                timers.clear();
            }
            gone
        };
        gone.iter().for_each(|timer| timer.stop());
    }

    /// Removes all timers when the process ends.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *lock(&self.0));
        gone.iter().flatten().for_each(|timer| timer.stop());
    }
}

impl Timer {
    fn new(proc: &Proc, clock: i32, signo: i32) -> Arc<Timer> {
        // The process makes a call, so the table of processes has it.
        let proc = proc.system.processes.find(proc.pid);
        let proc = proc.map_or_else(Weak::new, |proc| Arc::downgrade(&proc));
        Arc::new(Timer { proc, clock, signo, state: Mutex::default() })
    }

    /// Returns `true` if the timer's clock counts CPU time.
    fn stands_still(&self) -> bool {
        !matches!(self.clock, REALTIME | MONOTONIC)
    }

    /// Sets the timer to go off at `next`, and then at every interval. If two threads of a client do so at
    /// once, only one alarm is set.
    fn set(self: &Arc<Self>, next: Next, interval: Duration) -> Result<(), Errno> {
        let (before, set) = {
            let mut state = lock(&self.state);
            (state.next, state.interval, state.stride) = (next, interval, 1);
            (state.alarm.take(), self.set_alarm(&mut state))
        };
        self.cancel(before);
        set
    }

    fn set_alarm(self: &Arc<Self>, state: &mut State) -> Result<(), Errno> {
        let (Next::At(at), Some(proc)) = (state.next, self.proc.upgrade()) else { return Ok(()) };
        if self.signo == 0 {
            return Ok(());
        }
        let me: Arc<dyn Due> = self.clone();
        state.alarm = Some(proc.system.timer_thread.set(at, Arc::downgrade(&me))?);
        Ok(())
    }

    /// Stops the timer.
    fn stop(&self) {
        let alarm = {
            let mut state = lock(&self.state);
            state.next = Next::Unset;
            state.alarm.take()
        };
        self.cancel(alarm);
    }

    fn cancel(&self, alarm: Option<AlarmId>) {
        if let (Some(alarm), Some(proc)) = (alarm, self.proc.upgrade()) {
            proc.system.timer_thread.cancel(alarm);
        }
    }

    /// Returns the time until the timer goes off, and its interval. NetBSD: `timer_gettime`.
    fn left(&self) -> Setting {
        let state = lock(&self.state);
        let value = match state.next {
            Next::Unset => Duration::ZERO,
            Next::At(at) => state.until_next(at, Instant::now()),
            Next::Still(left) => left,
        };
        Setting { value, interval: state.interval }
    }

    /// Handles the expiry of the timer. Returns `true` if the signal is to be sent, which it is not while
    /// the last one waits to be delivered. NetBSD: `realtimerexpire`, `itimerfire`.
    fn expire(self: &Arc<Self>, is_pending: bool) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let Next::At(at) = state.next else { return false };
        if at > now {
            // The timer was set anew while this expiry was on its way.
            return false;
        }
        state.alarm = None;
        state.next = Next::Unset;
        let skipped = i64::from(state.stride) - 1;
        if is_pending {
            state.missed = state.missed.saturating_add(skipped + 1);
        } else {
            state.overruns = std::mem::take(&mut state.missed).saturating_add(skipped);
        }
        if state.interval > Duration::ZERO {
            let late = now.duration_since(at).as_nanos() / state.interval.as_nanos();
            state.missed = state.missed.saturating_add(i64::try_from(late).unwrap_or(i64::MAX));
            state.stride = if is_pending { longer(state.stride, state.interval) } else { 1 };
            let more = state.interval * (state.stride - 1);
            state.next = Next::At(after(now, state.until_next(at, now) + more));
            if self.set_alarm(&mut state).is_err() {
                state.next = Next::Unset;
            }
        }
        !is_pending
    }
}

/// Returns twice the number of intervals, as long as they are not too long.
fn longer(stride: u32, interval: Duration) -> u32 {
    let most = LONGEST_LOOK.as_nanos() / interval.as_nanos();
    stride.saturating_mul(2).min(u32::try_from(most).unwrap_or(u32::MAX)).max(1)
}

impl State {
    /// Returns the time until the timer goes off, if `look` is the next time it is looked at. The timer may
    /// go off before `look` without being looked at; `look` is in the past for a timer that is never looked
    /// at.
    fn until_next(&self, look: Instant, now: Instant) -> Duration {
        let left = look.saturating_duration_since(now);
        if self.interval.is_zero() || self.stride <= 1 && !left.is_zero() {
            return left;
        }
        let remainder = |time: Duration| {
            let nanos = time.as_nanos() % self.interval.as_nanos();
            Duration::from_nanos(nanos.try_into().unwrap_or(0))
        };
        match remainder(left) {
            Duration::ZERO => self.interval - remainder(now.saturating_duration_since(look)),
            left => left,
        }
    }
}

/// Stops a dropped timer. Two threads of a client may make the same timer at once, and one replaces the
/// other.
impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Due for Timer {
    fn due(self: Arc<Self>) {
        let Some(proc) = self.proc.upgrade() else { return };
        if self.expire(proc.is_pending(self.signo)) {
            proc.raise(self.signo);
        }
    }
}

/// Returns the duration for a timer value, at least a tick unless it is 0. EINVAL if it is not a valid
/// time, ETIMEDOUT if it is negative. NetBSD: `itimerfix`, `itimespecfix`.
fn fixed((seconds, nanos): (i64, i64)) -> Result<Duration, Errno> {
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(Errno::EINVAL);
    }
    let seconds = u64::try_from(seconds).map_err(|_| Errno::ETIMEDOUT)?;
    let time = Duration::new(seconds, nanos as u32);
    Ok(if time.is_zero() { time } else { time.max(TICK) })
}

/// Decodes two times, the interval before the value, with parts of a second of `part` nanoseconds. The
/// value is checked first.
fn setting(bytes: &[u8; 32], part: u32) -> Result<Setting, Errno> {
    let time = |at| match part {
        MICROSECOND => {
            let (seconds, micros) = timeval_at(bytes, at);
            (seconds, micros * 1000)
        }
        _ => timespec_at(bytes, at),
    };
    let value = fixed(time(16))?;
    Ok(Setting { value, interval: fixed(time(0))? })
}

/// The unit of parts of a second, in nanoseconds.
const MICROSECOND: u32 = 1000;
const NANOSECOND: u32 = 1;

/// Encodes two times, to be copied out.
fn encode(setting: &Setting, part: u32) -> [u8; 32] {
    let time = |time: Duration| {
        pair(i64::try_from(time.as_secs()).unwrap_or(i64::MAX), (time.subsec_nanos() / part).into())
    };
    let mut out = [0; 32];
    out[..16].copy_from_slice(&time(setting.interval));
    out[16..].copy_from_slice(&time(setting.value));
    out
}

/// Returns the next expiry of a timer that is set to `value`.
fn next_in(timer: &Timer, value: Duration) -> Next {
    match value {
        Duration::ZERO => Next::Unset,
        _ if timer.stands_still() => Next::Still(value),
        _ => Next::At(after(Instant::now(), value)),
    }
}

/// Returns the number of an interval timer, which is that of its clock.
fn interval_timer(run: &SyscallContext<'_, '_>) -> Result<usize> {
    let which = run.uint(0) as usize;
    if which < INTERVAL_TIMERS { Ok(which) } else { Err(Errno::EINVAL.into()) }
}

/// `int __getitimer50(int which, struct itimerval *itv)`
fn getitimer(run: &mut SyscallContext<'_, '_>) -> Answer {
    let which = interval_timer(run)?;
    let out = run.word(1);
    copyout_interval(run, which, out)?;
    Ok([0, 0])
}

fn copyout_interval(run: &mut SyscallContext<'_, '_>, which: usize, out: u64) -> Result<()> {
    let timer = run.proc.timers().and_then(|timers| timers.get(which));
    let none = Setting { value: Duration::ZERO, interval: Duration::ZERO };
    let left = timer.map_or(none, |timer| timer.left());
    run.copyout(&encode(&left, MICROSECOND), out)
}

/// `int __setitimer50(int which, const struct itimerval *itv, struct itimerval *oitv)`
fn setitimer(run: &mut SyscallContext<'_, '_>) -> Answer {
    let which = interval_timer(run)?;
    let (new, old) = (run.word(1), run.word(2));
    let bytes = match new {
        0 => None,
        addr => Some(run.copyin::<32>(addr)?),
    };
    if old != 0 {
        copyout_interval(run, which, old)?;
    }
    let Some(bytes) = bytes else { return Ok([0, 0]) };
    let Setting { value, interval } = setting(&bytes, MICROSECOND).map_err(|_| Errno::EINVAL)?;
    let proc = run.proc;
    let timer = match proc.timers().and_then(|timers| timers.get(which)) {
        Some(timer) => timer,
        None if value.is_zero() => return Ok([0, 0]),
        None => {
            let timer = Timer::new(proc, which as i32, SIGNALS[which]);
            proc.extras().timers.put(which, timer.clone());
            timer
        }
    };
    timer.set(next_in(&timer, value), interval)?;
    Ok([0, 0])
}

/// `int timer_create(clockid_t clock_id, struct sigevent *evp, timer_t *timerid)`
fn timer_create(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (clock, event, out) = (run.uint(0) as usize, run.word(1), run.word(2));
    let usual = *SIGNALS.get(clock).ok_or(Errno::EINVAL)?;
    run.proc.extras().timers.begin();
    let signo = match event {
        0 => usual,
        addr => {
            let event = run.copyin::<32>(addr)?;
            let (how, signo) = (i32_at(&event, 0), i32_at(&event, 4));
            let known = (1..signal::LIMIT as i32).contains(&signo);
            if !(0..=LAST_WAY).contains(&how) || how == BY_SIGNAL && !known {
                return Err(Errno::EINVAL.into());
            }
            if how == BY_SIGNAL { signo } else { 0 }
        }
    };
    let proc = run.proc;
    let timer = Timer::new(proc, clock as i32, signo);
    let number = proc.extras().timers.add(timer)? as i32;
    run.copyout(&number.to_le_bytes(), out)?;
    Ok([0, 0])
}

/// Returns the number that a call for POSIX timers names. EINVAL if there cannot be such a timer, or the
/// process has never made one.
fn number(run: &SyscallContext<'_, '_>) -> Result<usize> {
    let number = usize::try_from(run.int(0)).map_err(|_| Errno::EINVAL)?;
    let exist = run.proc.timers().is_some_and(Timers::exist);
    if exist && (LOWEST..TIMERS).contains(&number) { Ok(number) } else { Err(Errno::EINVAL.into()) }
}

/// Returns the timer that a call names.
fn named(run: &SyscallContext<'_, '_>, number: usize) -> Result<Arc<Timer>> {
    let timer = run.proc.timers().and_then(|timers| timers.get(number));
    Ok(timer.ok_or(Errno::EINVAL)?)
}

/// `int timer_delete(timer_t timerid)`
fn timer_delete(run: &mut SyscallContext<'_, '_>) -> Answer {
    let number = number(run)?;
    let timer = run.proc.timers().and_then(|timers| timers.take(number)).ok_or(Errno::EINVAL)?;
    timer.stop();
    Ok([0, 0])
}

/// `int __timer_settime50(timer_t timerid, int flags, const struct itimerspec *value, struct itimerspec
/// *ovalue)`: the old value is the time at which the timer would have gone off, not the time left.
fn timer_settime(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (flags, new, old) = (run.int(1), run.word(2), run.word(3));
    let bytes = run.copyin::<32>(new)?;
    let number = number(run)?;
    let Setting { value, interval } = setting(&bytes, NANOSECOND)?;
    let timer = named(run, number)?;
    let now = clock(run, &timer);
    let mut before = timer.left();
    if !before.value.is_zero() && !timer.stands_still() {
        before.value += now;
    }
    let next = match value {
        Duration::ZERO => Next::Unset,
        _ if flags & ABSOLUTE == 0 => next_in(&timer, value),
        _ if timer.stands_still() => Next::Still(Duration::from_nanos(1)),
        _ => Next::At(after(Instant::now(), value.saturating_sub(now))),
    };
    timer.set(next, interval)?;
    if old != 0 {
        run.copyout(&encode(&before, NANOSECOND), old)?;
    }
    Ok([0, 0])
}

/// Returns the time of a timer's clock.
fn clock(run: &SyscallContext<'_, '_>, timer: &Timer) -> Duration {
    match timer.clock {
        REALTIME => Duration::from_nanos(run.system().clock.now().try_into().unwrap_or(0)),
        _ => run.system().booted.elapsed(),
    }
}

/// `int __timer_gettime50(timer_t timerid, struct itimerspec *value)`
fn timer_gettime(run: &mut SyscallContext<'_, '_>) -> Answer {
    let timer = named(run, number(run)?)?;
    run.copyout(&encode(&timer.left(), NANOSECOND), run.word(1))?;
    Ok([0, 0])
}

/// `int timer_getoverrun(timer_t timerid)`
fn timer_getoverrun(run: &mut SyscallContext<'_, '_>) -> Answer {
    let timer = named(run, number(run)?)?;
    let overruns = lock(&timer.state).overruns;
    Ok([overruns.min(OVERRUNS_MAX), 0])
}
