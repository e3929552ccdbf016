//! Open files, which descriptors point to, and the operations of each kind of file.
//!
//! Source: NetBSD `sys/sys/file.h` (`struct file`, `struct fileops`).

use crate::owner::Owner;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use super::abi::{Stat, poll};
use super::call::{Result, SyscallContext};
use super::io::Transfer;
use super::ioctl;
use super::kqueue::{Kqueue, Watched};
use super::limits::ResourceGroup;
use super::locks;
use super::memfs::Inode;
use super::sockets::Socket;
use super::sync::lock_or_go;
use super::wait::{Side, Waitable};
use kernel::Errno;

/// The operations of a kind of file (`struct fileops`).
pub(super) trait FileOps: Send + Sync {
    /// Moves bytes to the client, from `position` or from the file's offset (`fo_read`).
    fn read(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        position: Option<i64>,
    ) -> Result<()>;

    /// Takes bytes from the client (`fo_write`).
    fn write(
        &self,
        run: &mut SyscallContext<'_, '_>,
        file: &OpenFile,
        transfer: &Transfer,
        position: Option<i64>,
    ) -> Result<()>;

    /// Waits until the open of the file is complete (`VOP_OPEN`). A later run of the call asks again.
    fn opened(&self, _run: &mut SyscallContext<'_, '_>, _file: &OpenFile) -> Result<()> {
        Ok(())
    }

    /// `fo_stat`
    fn stat(&self) -> Result<Stat>;

    /// Answers a request of this kind of file. The flag of FIONBIO and FIOASYNC is set whatever the answer
    /// (`fo_ioctl`).
    fn ioctl(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        _addr: u64,
    ) -> Result<()> {
        match request {
            ioctl::FIONBIO | ioctl::FIOASYNC => Ok(()),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// Returns all of poll's events that hold now (`fo_poll`).
    fn poll(&self, _file: &OpenFile) -> u32 {
        poll::IN | poll::RDNORM | poll::OUT
    }

    /// Returns what a filter of kqueue sees on this side, `None` if there is no filter (`fo_kqfilter`).
    /// `low_water` is the least count that is ready, if the client has set one (`NOTE_LOWAT`).
    fn filter(&self, _file: &OpenFile, _side: Side, _low_water: Option<i64>) -> Option<Seen> {
        None
    }

    /// Returns the error for attaching a knote to `side`, or to the vnode if `side` is `None`. A file
    /// without a filter for a side refuses with EINVAL anyway.
    fn check_filter(&self, _side: Option<Side>) -> Result<(), Errno> {
        Ok(())
    }

    /// Returns the place where calls wait for the file's readiness to change, `None` if it never changes. A
    /// hangup, an error or end of file (HUP, ERR) wakes both sides.
    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        None
    }

    /// Makes the calls that wait for the file run again, as a descriptor they came through was closed
    /// (`fo_restart`).
    fn restart(&self) {}

    /// Closes the file, whose last descriptor is gone (`fo_close`).
    fn close(&self) {}

    /// Returns the work left to do, if any, once a descriptor of the file is closed and released.
    fn after_close(&self) -> Option<Box<dyn FnOnce()>> {
        None
    }

    /// Returns `true` if the file can be sent to other processes (`SCM_RIGHTS`).
    fn travels(&self) -> bool {
        true
    }

    /// Returns `true` if the file takes an owner for its signals, O_ASYNC and O_NONBLOCK.
    fn signals(&self) -> bool {
        true
    }

    /// Returns the process or group that gets the file's signals, positive or negative as with `F_SETOWN`;
    /// `None` if this kind of file does not keep an owner.
    fn owner(&self) -> Option<&Owner> {
        None
    }

    /// Returns the vnode of this file, if it has one (`DTYPE_VNODE`).
    fn inode(&self) -> Option<&Arc<Inode>> {
        None
    }

    /// Returns the socket of this file, if it is one (`DTYPE_SOCKET`).
    fn socket(&self) -> Option<&Arc<Socket>> {
        None
    }

    /// Returns the kqueue of this file, if it is one (`DTYPE_KQUEUE`). A kqueue stays with its process:
    /// forks do not get it, and it cannot be passed.
    fn kqueue(&self) -> Option<&Arc<Kqueue>> {
        None
    }

    /// Returns the klist of this file's vnode (`v_klist`). `EVFILT_VNODE` works on files that have one, and
    /// `EVFILT_READ` hears of its notes too.
    fn watched(&self) -> Option<&Watched> {
        None
    }
}

/// The state of a file as a filter of kqueue sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub ready: bool,
    /// The bytes to read, the room to write, or the connections to accept.
    pub data: i64,
    /// True if nothing more will come, or be taken (`EV_EOF`).
    pub eof: bool,
    /// The filter flags that come with the event: the error of a socket.
    pub flags: u32,
}

/// The offset at which reading and writing go on. It can be read without the lock. A transfer that moves
/// the offset holds the lock, and may wait for the file meanwhile, so an inline run does not wait for the
/// lock.
#[derive(Default)]
pub(super) struct Offset {
    value: AtomicI64,
    moving: Mutex<()>,
}

/// A locked offset, which only its holder moves.
pub(super) struct HeldOffset<'o> {
    value: &'o AtomicI64,
    _moving: MutexGuard<'o, ()>,
}

impl Offset {
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }

    pub fn lock(&self) -> Result<HeldOffset<'_>, Errno> {
        Ok(HeldOffset { _moving: lock_or_go(&self.moving)?, value: &self.value })
    }

    /// Advances the offset by `count` bytes.
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count as i64, Relaxed);
    }
}

impl HeldOffset<'_> {
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }

    pub fn set(&mut self, to: i64) {
        self.value.store(to, Relaxed);
    }
}

/// An open file, shared by the descriptors that were made from one another, in one process or many. It is
/// closed when the last of them goes.
pub(super) struct OpenFile {
    flags: AtomicU32,
    pub offset: Offset,
    pub ops: Box<dyn FileOps>,
    /// The resource group of the process that opened the file.
    resource_group: Arc<ResourceGroup>,
}

impl OpenFile {
    /// Opens `ops`. ENFILE if too many files are open.
    pub fn new(
        ops: impl FileOps + 'static,
        flags: u32,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<Arc<OpenFile>, Errno> {
        if !resource_group.take_file() {
            // Undo what was made for the file.
            ops.close();
            return Err(Errno::ENFILE);
        }
        Ok(OpenFile::counted(ops, flags, resource_group))
    }

    /// Opens `ops`; the caller has counted the file.
    pub fn counted(
        ops: impl FileOps + 'static,
        flags: u32,
        resource_group: &Arc<ResourceGroup>,
    ) -> Arc<OpenFile> {
        Arc::new(OpenFile {
            flags: AtomicU32::new(flags),
            offset: Offset::default(),
            ops: Box::new(ops),
            resource_group: resource_group.clone(),
        })
    }

    /// Releases the file after a descriptor of it has been closed.
    pub fn let_go(self: Arc<Self>) {
        let after = self.ops.after_close();
        drop(self);
        if let Some(after) = after {
            after();
        }
    }

    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }

    pub fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    /// Sets or clears `flag`.
    pub fn set(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, Relaxed);
        } else {
            self.flags.fetch_and(!flag, Relaxed);
        }
    }

    /// Returns EBADF unless the file is open for `access`, `FREAD` or `FWRITE`.
    pub fn check(&self, access: u32) -> Result<(), Errno> {
        if self.has(access) { Ok(()) } else { Err(Errno::EBADF) }
    }
}

/// An open file as held by a descriptor. A family pays for descriptors of files that others opened and sent
/// to it as for files it opens.
pub(super) struct Held {
    file: Arc<OpenFile>,
    /// The family that pays in addition to the one that opened the file.
    by: Option<Arc<ResourceGroup>>,
}

impl Held {
    /// Returns ENFILE if `family` can have no more open files.
    pub fn new(file: Arc<OpenFile>, family: &Arc<ResourceGroup>) -> Result<Held, Errno> {
        if Arc::ptr_eq(&file.resource_group, family) {
            return Ok(Held { file, by: None });
        }
        match family.take_foreign(address(&file)) {
            true => Ok(Held { file, by: Some(family.clone()) }),
            false => Err(Errno::ENFILE),
        }
    }

    pub fn file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// Returns the file, which this descriptor no longer holds.
    pub fn release(self) -> Arc<OpenFile> {
        self.file.clone()
    }
}

impl Clone for Held {
    fn clone(&self) -> Held {
        if let Some(by) = &self.by {
            // The file is counted already.
            by.take_foreign(address(&self.file));
        }
        Held { file: self.file.clone(), by: self.by.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(by) = &self.by {
            by.give_foreign(address(&self.file));
        }
    }
}

fn address(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file) as usize
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        locks::gone(self);
        self.ops.close();
        self.resource_group.give_file();
    }
}
