//! Locks without poisoning: a panic in a call is reported by the code that runs it, and what the call had
//! locked is left as it was. No call changes state in steps that would be harmful half done.

use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};

use super::work;
use kernel::Errno;

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    work::locked();
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex that may be held for long. An inline run does not wait for it, but fails with
/// [`work::ELSEWHERE`].
pub(super) fn lock_or_go<T: ?Sized>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, Errno> {
    if work::is_inline() { now(mutex.try_lock()) } else { Ok(lock(mutex)) }
}

/// Like [`lock_or_go`], for reading.
pub(super) fn read_or_go<T: ?Sized>(lock: &RwLock<T>) -> Result<RwLockReadGuard<'_, T>, Errno> {
    if work::is_inline() { now(lock.try_read()) } else { Ok(read(lock)) }
}

/// Like [`lock_or_go`], for writing.
pub(super) fn write_or_go<T: ?Sized>(lock: &RwLock<T>) -> Result<RwLockWriteGuard<'_, T>, Errno> {
    if work::is_inline() { now(lock.try_write()) } else { Ok(write(lock)) }
}

fn now<G>(tried: Result<G, TryLockError<G>>) -> Result<G, Errno> {
    match tried {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(error)) => Ok(error.into_inner()),
        Err(TryLockError::WouldBlock) => Err(work::ELSEWHERE),
    }
}

pub(super) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    #[cfg(test)]
    work::locked();
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    #[cfg(test)]
    work::locked();
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
