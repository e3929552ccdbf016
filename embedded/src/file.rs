//! Open files: what descriptors point to, and what a kind of file can do.
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

/// What a kind of file can do (`struct fileops`).
pub(super) trait FileOps: Send + Sync {
    /// Moves bytes to the client, at `position` or where the file is (`fo_read`).
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

    /// Waits until whoever opened it may go on (`VOP_OPEN`). In a later run it is asked again.
    fn opened(&self, _run: &mut SyscallContext<'_, '_>, _file: &OpenFile) -> Result<()> {
        Ok(())
    }

    /// `fo_stat`
    fn stat(&self) -> Result<Stat>;

    /// A request of its own; the flag of FIONBIO and FIOASYNC is set whatever it answers (`fo_ioctl`).
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

    /// Which of poll's events hold now, of all there are (`fo_poll`).
    fn poll(&self, _file: &OpenFile) -> u32 {
        poll::IN | poll::RDNORM | poll::OUT
    }

    /// What a filter of kqueue sees on this side, nothing if there is none (`fo_kqfilter`).
    /// `low_water` is the least to be ready with, where the client has named one (`NOTE_LOWAT`).
    fn filter(&self, _file: &OpenFile, _side: Side, _low_water: Option<i64>) -> Option<Seen> {
        None
    }

    /// What a knote that is to be put on this side of it is refused with, or on the file of the file
    /// system that it is, for no side. What has no filter for a side is refused with EINVAL anyway.
    fn check_filter(&self, _side: Option<Side>) -> Result<(), Errno> {
        Ok(())
    }

    /// Where calls wait for its readiness to change; nowhere if it never does. That it is over (HUP, ERR,
    /// end of file) is news for both sides.
    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        None
    }

    /// Has calls that wait for it run again: a descriptor they came through was closed (`fo_restart`).
    fn restart(&self) {}

    /// The last descriptor is gone (`fo_close`).
    fn close(&self) {}

    /// What is to be done once a descriptor of it is closed and it has been let go of, if anything.
    fn after_close(&self) -> Option<Box<dyn FnOnce()>> {
        None
    }

    /// Whether it can be sent to other processes (`SCM_RIGHTS`).
    fn travels(&self) -> bool {
        true
    }

    /// Whether it takes an owner for its signals, O_ASYNC and O_NONBLOCK.
    fn signals(&self) -> bool {
        true
    }

    /// The process or group its signals are for, positive or negative as with `F_SETOWN`, where it
    /// remembers that.
    fn owner(&self) -> Option<&Owner> {
        None
    }

    /// The file of the file system that this is, if it is one (`DTYPE_VNODE`).
    fn inode(&self) -> Option<&Arc<Inode>> {
        None
    }

    /// The socket that this is, if it is one (`DTYPE_SOCKET`).
    fn socket(&self) -> Option<&Arc<Socket>> {
        None
    }

    /// The kqueue that this is, if it is one (`DTYPE_KQUEUE`). It stays with its process: forks do not
    /// get it, and it cannot be passed.
    fn kqueue(&self) -> Option<&Arc<Kqueue>> {
        None
    }

    /// Where the knotes of the file of the file system are that this is (`v_klist`): `EVFILT_VNODE`
    /// works on what has this, and `EVFILT_READ` hears of its notes too.
    fn watched(&self) -> Option<&Watched> {
        None
    }
}

/// What a filter of kqueue sees of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub ready: bool,
    /// Bytes to read, room to write, connections to accept.
    pub data: i64,
    /// Nothing more will come, or be taken (`EV_EOF`).
    pub eof: bool,
    /// What comes with it: the error of a socket.
    pub flags: u32,
}

/// Where reading and writing go on. It is known without a lock; a transfer that moves it holds one, and may
/// wait for the file with it, so that an inline run does not wait for that.
#[derive(Default)]
pub(super) struct Offset {
    value: AtomicI64,
    moving: Mutex<()>,
}

/// An offset that nobody else moves meanwhile.
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

    /// Moves it on, past `count` bytes.
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

/// An open file: shared by the descriptors that were made from one another, in one process or many.
/// It is closed when the last of them goes.
pub(super) struct OpenFile {
    flags: AtomicU32,
    pub offset: Offset,
    pub ops: Box<dyn FileOps>,
    /// Who has opened it.
    resource_group: Arc<ResourceGroup>,
}

impl OpenFile {
    /// Opens `ops`, unless too many files are open.
    pub fn new(
        ops: impl FileOps + 'static,
        flags: u32,
        resource_group: &Arc<ResourceGroup>,
    ) -> Result<Arc<OpenFile>, Errno> {
        if !resource_group.take_file() {
            // What was made for it goes with it.
            ops.close();
            return Err(Errno::ENFILE);
        }
        Ok(OpenFile::counted(ops, flags, resource_group))
    }

    /// Opens `ops`; the caller has counted it.
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

    /// Lets go of it: a descriptor of it has been closed.
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

    /// EBADF unless it is open for this, `FREAD` or `FWRITE`.
    pub fn check(&self, access: u32) -> Result<(), Errno> {
        if self.has(access) { Ok(()) } else { Err(Errno::EBADF) }
    }
}

/// An open file as a descriptor has it. Who has descriptors of what others have opened, and sent, pays for
/// it as for what it opens.
pub(super) struct Held {
    file: Arc<OpenFile>,
    /// Who pays beside the one who opened it.
    by: Option<Arc<ResourceGroup>>,
}

impl Held {
    /// ENFILE if `family` can have no more open files.
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

    /// The file, which this descriptor does not have any more.
    pub fn release(self) -> Arc<OpenFile> {
        self.file.clone()
    }
}

impl Clone for Held {
    fn clone(&self) -> Held {
        if let Some(by) = &self.by {
            // It counts already.
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
