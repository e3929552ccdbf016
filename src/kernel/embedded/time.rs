//! Time: what the clock says, and sleeping.
//!
//! Source: NetBSD `sys/kern/{kern_time,subr_time}.c`; clock_gettime(2), gettimeofday(2), nanosleep(2).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::abi::{i64_at, pair, timespec};
use super::call::{Answer, Result, Run, Stop};
use super::table::{Listed, call, partly};
use crate::kernel::Errno;

pub(super) const CALLS: &[Listed] = &[
    call(418, gettimeofday),
    partly(427, clock_gettime, "CLOCK_REALTIME and CLOCK_MONOTONIC only, no CPU time"),
    call(429, clock_getres),
    call(430, nanosleep),
    call(477, clock_nanosleep),
];

const REALTIME: i32 = 0;
const MONOTONIC: i32 = 3;
/// `TIMER_ABSTIME`: until then, not for so long.
const ABSOLUTE: i32 = 1;

/// Nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What a clock says, in nanoseconds. NetBSD: `clock_gettime1`.
fn clock(run: &Run<'_, '_>, clock: i32) -> Result<i64> {
    match clock {
        REALTIME => Ok(now()),
        MONOTONIC => {
            Ok(i64::try_from(run.system().booted.elapsed().as_nanos()).unwrap_or(i64::MAX))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `int __clock_gettime50(clockid_t clock_id, struct timespec *tp)`
fn clock_gettime(run: &mut Run<'_, '_>) -> Answer {
    let time = clock(run, run.int(0))?;
    run.copyout(&timespec(time), run.word(1))?;
    Ok([0, 0])
}

/// `int __clock_getres50(clockid_t clock_id, struct timespec *tp)`
fn clock_getres(run: &mut Run<'_, '_>) -> Answer {
    clock(run, run.int(0))?;
    let addr = run.word(1);
    if addr != 0 {
        run.copyout(&timespec(1), addr)?;
    }
    Ok([0, 0])
}

/// `int __gettimeofday50(struct timeval *tp, void *tzp)`: the time zone is always UTC.
fn gettimeofday(run: &mut Run<'_, '_>) -> Answer {
    let (time, zone) = (run.word(0), run.word(1));
    let micros = now() / 1000;
    if time != 0 {
        run.copyout(&pair(micros / 1_000_000, micros % 1_000_000), time)?;
    }
    if zone != 0 {
        run.copyout(&[0; 8], zone)?;
    }
    Ok([0, 0])
}

/// `int __nanosleep50(const struct timespec *rqtp, struct timespec *rmtp)`
fn nanosleep(run: &mut Run<'_, '_>) -> Answer {
    let (request, remains) = (run.word(0), run.word(1));
    let request = run.copyin::<16>(request)?;
    match sleep(run, MONOTONIC, 0, &request, remains)? {
        None => Ok([0, 0]),
        Some(errno) => Err(errno.into()),
    }
}

/// `int clock_nanosleep(clockid_t clock_id, int flags, const struct timespec *rqtp,
/// struct timespec *rmtp)`: its error is its return value.
fn clock_nanosleep(run: &mut Run<'_, '_>) -> Answer {
    let (id, flags) = (run.int(0), run.int(1));
    let (request, remains) = (run.word(2), run.word(3));
    let slept = run.copyin::<16>(request);
    match slept.and_then(|request| sleep(run, id, flags, &request, remains)) {
        Ok(None) => Ok([0, 0]),
        Ok(Some(errno)) | Err(Stop::Errno(errno)) => Ok([errno.0.into(), 0]),
        Err(stop) => Err(stop),
    }
}

/// Sleeps, and says how that ended. NetBSD: `nanosleep1`.
fn sleep(
    run: &mut Run<'_, '_>,
    id: i32,
    flags: i32,
    request: &[u8; 16],
    remains: u64,
) -> Result<Option<Errno>> {
    let (seconds, nanos) = (i64_at(request, 0), i64_at(request, 8));
    let now_there = clock(run, id)?;
    if !(0..1_000_000_000).contains(&nanos) {
        return Ok(Some(Errno::EINVAL));
    }
    let now = Instant::now();
    let first = run.done() == 0;
    if first {
        let wanted = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let since = if flags & ABSOLUTE != 0 { i128::from(now_there) } else { 0 };
        let length = u64::try_from((wanted - since).max(0)).unwrap_or(u64::MAX);
        // No deadline is one that never comes: this is centuries away.
        run.call.progress.deadline = now.checked_add(Duration::from_nanos(length));
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
