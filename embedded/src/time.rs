//! Time: reading and setting the clocks, and sleeping.
//!
//! Source: NetBSD `sys/kern/{kern_time,subr_time}.c`; clock_settime(2), gettimeofday(2), adjtime(2),
//! nanosleep(2).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::abi::{pair, timespec, timespec_at, timeval_at};
use super::call::{Answer, Result, Stop, SyscallContext};
use super::listed::{Listed, Runs, call, partly};
use super::process::{INIT, Proc};
use super::sync::lock;
use kernel::{Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::GETTIMEOFDAY, Runs::Inline, gettimeofday),
    partly(sys::SETTIMEOFDAY, Runs::Inline, settimeofday, SET),
    call(sys::ADJTIME, Runs::Inline, adjtime),
    call(sys::CLOCK_GETTIME, Runs::Inline, clock_gettime),
    partly(sys::CLOCK_SETTIME, Runs::Inline, clock_settime, SET),
    call(sys::CLOCK_GETRES, Runs::Inline, clock_getres),
    call(sys::NANOSLEEP, Runs::Inline, nanosleep),
    call(sys::CLOCK_NANOSLEEP, Runs::Inline, clock_nanosleep),
    call(sys::CLOCK_GETCPUCLOCKID2, Runs::Inline, clock_getcpuclockid2),
];

/// The description of what setting the clock lacks.
const SET: &str = "times of files and kern.boottime keep following the host's clock";

pub(super) const REALTIME: i32 = 0;
pub(super) const MONOTONIC: i32 = 3;
/// The clocks of CPU time, of a thread or of a process, whose number is in the other bits.
const THREAD_CPU: i32 = i32::MIN;
const PROCESS_CPU: i32 = 0x4000_0000;
/// `idtype_t`: the kind of ID whose CPU time is asked for.
const P_PID: i32 = 1;
const P_LWPID: i32 = 2;
/// `TIMER_ABSTIME`: the time is a point in time, not a duration.
pub(super) const ABSOLUTE: i32 = 1;

/// Returns the host's time in nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The offset of this kernel's clock from the host's. Clients may set this kernel's, but not the host's.
#[derive(Default)]
pub(super) struct Clock {
    /// The nanoseconds by which this clock is ahead of the host's.
    ahead: AtomicI64,
    /// True while the clock is being adjusted; otherwise it is read without a lock.
    adjusting: AtomicBool,
    adjustment: Mutex<Adjustment>,
}

#[derive(Default)]
struct Adjustment {
    /// The microseconds left to adjust by, ahead or back (`time_adjtime`).
    left: i64,
    /// The time up to which the clock has been adjusted.
    since: Option<Instant>,
}

impl Clock {
    /// Returns this kernel's time in nanoseconds since 1970.
    pub fn now(&self) -> i64 {
        if self.adjusting.load(Relaxed) {
            self.adjust(&mut lock(&self.adjustment), Instant::now());
        }
        now().saturating_add(self.ahead.load(Relaxed))
    }

    /// Sets the clock. NetBSD: `settime1`.
    fn set(&self, time: i64) {
        self.ahead.store(time.saturating_sub(now()), Relaxed);
    }

    /// Begins to adjust the clock slowly by so many microseconds, and returns what the previous adjustment
    /// had left. NetBSD: `adjtime1`.
    fn slew(&self, micros: Option<i64>) -> i64 {
        let mut adjustment = lock(&self.adjustment);
        let now = Instant::now();
        self.adjust(&mut adjustment, now);
        let before = adjustment.left;
        if let Some(micros) = micros {
            *adjustment = Adjustment { left: micros, since: Some(now) };
            self.adjusting.store(micros != 0, Relaxed);
        }
        before
    }

    /// Adjusts the clock for the seconds that have passed: by at most 5 ms each while more than a second is
    /// left, and by at most 0.5 ms each after that. NetBSD: `ntp_update_second`.
    fn adjust(&self, adjustment: &mut Adjustment, now: Instant) {
        let Some(since) = adjustment.since else { return };
        let mut seconds = now.saturating_duration_since(since).as_secs();
        adjustment.since = since.checked_add(Duration::from_secs(seconds));
        let before = adjustment.left;
        while seconds > 0 && adjustment.left != 0 {
            let left = adjustment.left.unsigned_abs();
            let (rate, until) = if left > 1_000_000 { (5000, 1_000_000) } else { (500, 0) };
            let steps = (left - until).div_ceil(rate).min(seconds);
            let moved = steps.saturating_mul(rate).min(left) as i64;
            adjustment.left -= moved * adjustment.left.signum();
            seconds -= steps;
        }
        let moved = before.saturating_sub(adjustment.left).saturating_mul(1000);
        self.ahead.fetch_add(moved, Relaxed);
        if adjustment.left == 0 {
            adjustment.since = None;
            self.adjusting.store(false, Relaxed);
        }
    }
}

/// Returns the time of a clock, in nanoseconds. NetBSD: `clock_gettime1`. A rump kernel does not count the
/// CPU time of its clients, whose programs run elsewhere, and returns zero for it; so does this one.
fn clock(run: &SyscallContext<'_, '_>, clock: i32) -> Result<i64> {
    match clock {
        REALTIME => Ok(run.system().clock.now()),
        MONOTONIC => {
            Ok(i64::try_from(run.system().booted.elapsed().as_nanos()).unwrap_or(i64::MAX))
        }
        _ if clock & PROCESS_CPU != 0 => process_clock(run, clock & !(PROCESS_CPU | THREAD_CPU)),
        _ if clock & THREAD_CPU != 0 => match clock & !THREAD_CPU {
            0 | 1 => Ok(0),
            _ => Err(Errno::ESRCH.into()),
        },
        _ => Err(Errno::EINVAL.into()),
    }
}

/// NetBSD: `ptrace_listener_cb`.
fn process_clock(run: &SyscallContext<'_, '_>, pid: i32) -> Result<i64> {
    let own = run.proc.credentials();
    let may = |proc: &Proc| own.uid == proc.credentials().uid && !proc.is_tainted();
    let allowed = match pid {
        0 => may(run.proc),
        INIT => false,
        _ => may(&*run.system().processes.find(pid).ok_or(Errno::ESRCH)?),
    };
    if allowed || own.is_superuser() { Ok(0) } else { Err(Errno::EPERM.into()) }
}

/// `int __clock_gettime50(clockid_t clock_id, struct timespec *tp)`
fn clock_gettime(run: &mut SyscallContext<'_, '_>) -> Answer {
    let time = clock(run, run.int(0))?;
    run.copyout(&timespec(time), run.word(1))?;
    Ok([0, 0])
}

/// `int __clock_settime50(clockid_t clock_id, const struct timespec *tp)`
fn clock_settime(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (id, addr) = (run.int(0), run.word(1));
    let time = timespec_at(&run.copyin::<16>(addr)?, 0);
    if id != REALTIME {
        return Err(Errno::EINVAL.into());
    }
    set_clock(run, time)
}

/// `int __settimeofday50(const struct timeval *tv, const void *tzp)`: the time zone is ignored.
fn settimeofday(run: &mut SyscallContext<'_, '_>) -> Answer {
    let addr = run.word(0);
    if addr == 0 {
        return Ok([0, 0]);
    }
    let (seconds, micros) = timeval_at(&run.copyin::<16>(addr)?, 0);
    set_clock(run, (seconds, micros * 1000))
}

/// Sets the clock to seconds and nanoseconds, without checking that they are a valid time.
fn set_clock(run: &mut SyscallContext<'_, '_>, (seconds, nanos): (i64, i64)) -> Answer {
    superuser(run)?;
    run.system().clock.set(seconds.saturating_mul(1_000_000_000).saturating_add(nanos));
    Ok([0, 0])
}

fn superuser(run: &SyscallContext<'_, '_>) -> Result<()> {
    if run.proc.credentials().euid == 0 { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// `int __adjtime50(const struct timeval *delta, struct timeval *olddelta)`
fn adjtime(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (delta, before) = (run.word(0), run.word(1));
    superuser(run)?;
    let wanted = match delta {
        0 => None,
        addr => {
            let (seconds, micros) = timeval_at(&run.copyin::<16>(addr)?, 0);
            Some(seconds.saturating_mul(1_000_000).saturating_add(micros))
        }
    };
    let left = run.system().clock.slew(wanted);
    if before != 0 {
        run.copyout(&pair(left.div_euclid(1_000_000), left.rem_euclid(1_000_000)), before)?;
    }
    Ok([0, 0])
}

/// `int clock_getcpuclockid2(idtype_t idtype, id_t id, clockid_t *clock_id)`
fn clock_getcpuclockid2(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (kind, id, addr) = (run.int(0), run.int(1), run.word(2));
    let clock = match (kind, id) {
        (P_PID, 0) => PROCESS_CPU | run.proc.pid,
        (P_PID, pid) => PROCESS_CPU | pid,
        // As far as this kernel can see, all calls of a client come from its first thread.
        (P_LWPID, 0) => THREAD_CPU | 1,
        (P_LWPID, thread) => THREAD_CPU | thread,
        _ => return Err(Errno::EINVAL.into()),
    };
    run.copyout(&clock.to_le_bytes(), addr)?;
    Ok([0, 0])
}

/// `int __clock_getres50(clockid_t clock_id, struct timespec *tp)`
fn clock_getres(run: &mut SyscallContext<'_, '_>) -> Answer {
    if !matches!(run.int(0), REALTIME | MONOTONIC) {
        return Err(Errno::EINVAL.into());
    }
    let addr = run.word(1);
    if addr != 0 {
        run.copyout(&timespec(1), addr)?;
    }
    Ok([0, 0])
}

/// `int __gettimeofday50(struct timeval *tp, void *tzp)`: the time zone is always UTC.
fn gettimeofday(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (time, zone) = (run.word(0), run.word(1));
    let micros = run.system().clock.now() / 1000;
    if time != 0 {
        run.copyout(&pair(micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000)), time)?;
    }
    if zone != 0 {
        run.copyout(&[0; 8], zone)?;
    }
    Ok([0, 0])
}

/// `int __nanosleep50(const struct timespec *rqtp, struct timespec *rmtp)`
fn nanosleep(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (request, remains) = (run.word(0), run.word(1));
    let request = run.copyin::<16>(request)?;
    match sleep(run, MONOTONIC, 0, &request, remains)? {
        None => Ok([0, 0]),
        Some(errno) => Err(errno.into()),
    }
}

/// `int clock_nanosleep(clockid_t clock_id, int flags, const struct timespec *rqtp,
/// struct timespec *rmtp)`: its error is its return value.
fn clock_nanosleep(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (id, flags) = (run.int(0), run.int(1));
    let (request, remains) = (run.word(2), run.word(3));
    let slept = run.copyin::<16>(request);
    match slept.and_then(|request| sleep(run, id, flags, &request, remains)) {
        Ok(None) => Ok([0, 0]),
        Ok(Some(errno)) | Err(Stop::Errno(errno)) => Ok([errno.0.into(), 0]),
        Err(stop) => Err(stop),
    }
}

/// Sleeps, and returns the error of the sleep, if any. NetBSD: `nanosleep1`.
fn sleep(
    run: &mut SyscallContext<'_, '_>,
    id: i32,
    flags: i32,
    request: &[u8; 16],
    remains: u64,
) -> Result<Option<Errno>> {
    let now = Instant::now();
    if run.done() == 0 {
        let since = clock(run, id)?;
        let since = (flags & ABSOLUTE != 0).then_some(since);
        // A deadline too far away for the clock never comes.
        run.call.progress.deadline = now.checked_add(length(request, since)?);
        run.call.progress.done = 1;
    }
    let deadline = run.call.progress.deadline;
    let left = deadline.map(|until| until.saturating_duration_since(now));
    let over = left.is_some_and(|left| left.is_zero());
    if !over && !run.call.interrupted {
        return Err(Stop::Sleep(deadline));
    }
    if remains != 0 {
        let left = left.map_or(i64::MAX, |left| i64::try_from(left.as_nanos()).unwrap_or(i64::MAX));
        run.copyout(&timespec(left), remains)?;
    }
    Ok((!over).then_some(Errno::EINTR))
}

/// Returns the length of a sleep: the request itself or, given `since` in nanoseconds, the time from then
/// until the requested point; zero if that has passed. EINVAL if the nanoseconds, after `since` was
/// subtracted, are out of range. NetBSD: `ts2timo`.
fn length(request: &[u8; 16], since: Option<i64>) -> Result<Duration, Errno> {
    const SECOND: i64 = 1_000_000_000;
    let (mut seconds, mut nanos) = timespec_at(request, 0);
    if let Some(since) = since {
        seconds = seconds.saturating_sub(since.div_euclid(SECOND));
        nanos = nanos.saturating_sub(since.rem_euclid(SECOND));
        if nanos < 0 {
            seconds = seconds.saturating_sub(1);
            nanos += SECOND;
        }
    }
    if !(0..SECOND).contains(&nanos) {
        return Err(Errno::EINVAL);
    }
    Ok(u64::try_from(seconds)
        .map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanos as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjustment_slows_down_towards_its_end() {
        let clock = Clock::default();
        let begin = Instant::now();
        let mut adjustment = Adjustment { left: -1_012_300, since: Some(begin) };
        let mut after = |seconds: u64| {
            clock.adjust(&mut adjustment, begin + Duration::from_secs(seconds));
            (adjustment.left, clock.ahead.load(Relaxed))
        };
        assert_eq!(after(0), (-1_012_300, 0));
        assert_eq!(after(2), (-1_002_300, -10_000_000));
        assert_eq!(after(3), (-997_300, -15_000_000));
        assert_eq!(after(5), (-996_300, -16_000_000));
        assert_eq!(after(1_000_000), (0, -1_012_300_000));
        assert_eq!(after(2_000_000), (0, -1_012_300_000));
    }
}
