//! Lists of structures, which clients ask for by size and number.

use super::super::call::{Result, Stop, SyscallContext};
use super::Request;

/// Copies out each of `found` as encoded by `encode`, cut to `size` bytes, as many as were asked for and as
/// fit. Returns the size of all of them; a client that only asks for it gets `slop` more. The list may have
/// changed by the time the client has taken what was copied out so far, so a long list is not a snapshot.
pub(super) fn elements<T, const N: usize>(
    run: &mut SyscallContext<'_, '_>,
    request: &Request,
    needed: &mut u64,
    found: &[T],
    (size, count, slop): (u64, i32, u64),
    encode: impl Fn(&T) -> [u8; N],
) -> Result<()> {
    let all = found.len() as u64;
    if request.old == 0 {
        *needed = (all + slop).wrapping_mul(size);
        return Ok(());
    }
    let fits = (request.room / size).min(u64::try_from(count).unwrap_or(0));
    let part = size.min(N as u64) as usize;
    for (at, one) in found.iter().enumerate().skip(run.done() as usize) {
        if at as u64 >= fits {
            break;
        }
        if run.memory().room() < part {
            run.call.progress.done = at as u64;
            return Err(Stop::Flush);
        }
        run.copyout(&encode(one)[..part], request.old.wrapping_add(at as u64 * size))?;
    }
    *needed = all.wrapping_mul(size);
    Ok(())
}
