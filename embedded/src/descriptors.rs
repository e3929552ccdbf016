//! Descriptors: the table of a process, and the calls that only manage descriptors: close, dup, fcntl.
//!
//! Sources: NetBSD `sys/kern/{sys_descrip,kern_descrip}.c`; dup(2), fcntl(2), close(2).

use std::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, RwLock, Weak};

use super::abi::{fcntl, open};
use super::call::{Answer, Result, SyscallContext};
use super::console::Console;
use super::file::{Held, OpenFile};
use super::ioctl;
use super::kqueue::Kqueue;
use super::limits::ResourceGroup;
use super::listed::{Listed, Runs, call, partly};
use super::locks;
use super::sync::{read, write};
use super::work;
use kernel::{Args, Errno, sys};

pub(super) const CALLS: &[Listed] = &[
    call(sys::CLOSE, Runs::Inline, close),
    call(sys::DUP, Runs::Inline, dup),
    call(sys::DUP2, Runs::Inline, dup2),
    partly(sys::FCNTL, Runs::InlineIf(is_short), fcntl_call, "O_ASYNC sends no SIGIO"),
    call(sys::DUP3, Runs::Inline, dup3),
];

/// The slots that a table has without paying for them (`NDFILE`), and the number it pays for at a time.
const FREE_SLOTS: usize = 20;
const SLOT_STEP: usize = 64;

#[derive(Clone)]
struct Slot {
    file: Held,
    close_on_exec: bool,
}

/// The descriptors of a process, or of a preforked process and the one that takes it over. Until its first
/// use the table costs no heap beyond itself.
pub(super) struct FdTable {
    /// `RLIMIT_NOFILE` of the process.
    limit: AtomicUsize,
    /// The resource group of the processes that have this table.
    resource_group: Arc<ResourceGroup>,
    /// The number of processes that share this table.
    sharers: AtomicUsize,
    slots: RwLock<Slots>,
}

#[derive(Default)]
struct Slots {
    /// True if descriptors 0, 1 and 2 are the console, whose slots are made at the first use.
    console: bool,
    /// The most slots the table has ever had.
    most: u32,
    /// The parts that few tables have, boxed.
    rare: Option<Box<Rare>>,
    slots: Vec<Option<Slot>>,
    /// A lower bound of the lowest free slot: every slot before this one is taken.
    taken: usize,
    /// The bytes of slots that are paid for.
    paid: u32,
}

#[derive(Default)]
struct Rare {
    /// The kqueues in this table.
    kqueues: Vec<Weak<Kqueue>>,
    /// The numbers reserved by calls under way, for the files they are opening.
    reserved: Vec<usize>,
}

impl Slots {
    /// Returns the lowest free number from `from` on.
    fn free(&self, from: usize) -> usize {
        let mut from = from.max(self.taken);
        loop {
            let gap = self.slots.iter().skip(from).position(Option::is_none);
            let at = gap.map_or(self.slots.len().max(from), |gap| from + gap);
            if !self.reserved().contains(&at) {
                return at;
            }
            from = at + 1;
        }
    }

    fn reserved(&self) -> &[usize] {
        self.rare.as_ref().map_or(&[], |rare| &rare.reserved)
    }

    /// Gives up a reserved number. Returns `false` if it was not reserved any more, as another file may
    /// have been moved there.
    fn unreserve(&mut self, at: usize) -> bool {
        let Some(rare) = &mut self.rare else { return false };
        let found = rare.reserved.iter().position(|&reserved| reserved == at);
        found.map(|found| rare.reserved.swap_remove(found)).is_some()
            && self.slots.get(at).is_none_or(Option::is_none)
    }

    /// Pays for the slots up to `at`. EMFILE if `resource_group` cannot pay.
    fn pay(&mut self, at: usize, resource_group: &ResourceGroup) -> Result<(), Errno> {
        let slots = (at + 1).saturating_sub(FREE_SLOTS).next_multiple_of(SLOT_STEP);
        let price = (slots * size_of::<Option<Slot>>()) as u32;
        if price > self.paid {
            if !resource_group.take_bytes(u64::from(price - self.paid)) {
                return Err(Errno::EMFILE);
            }
            self.paid = price;
            let more = (FREE_SLOTS + slots).saturating_sub(self.slots.len());
            self.slots.reserve_exact(more);
        }
        Ok(())
    }

    /// Puts `slot` at number `at`, which the caller has paid for. Returns the slot that was there.
    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        if at >= self.slots.len() {
            self.slots.resize(at + 1, None);
            self.most = self.most.max(at as u32 + 1);
        }
        if at == self.taken {
            self.taken = at + 1;
        }
        self.slots[at].replace(slot)
    }

    fn take(&mut self, at: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.taken = self.taken.min(at);
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        Some(slot)
    }

    /// Takes out every kqueue: kqueues stay with their process.
    fn drop_kqueues(&mut self) {
        for at in 0..self.slots.len() {
            let slot = self.slots.get(at).and_then(Option::as_ref);
            if slot.is_some_and(|slot| slot.file.file().ops.kqueue().is_some()) {
                self.take(at);
            }
        }
    }
}

impl FdTable {
    /// Returns the table of a client's first process. NetBSD: `rump_consdev_init`.
    pub fn with_console(resource_group: Arc<ResourceGroup>) -> Self {
        FdTable {
            limit: AtomicUsize::new(resource_group.system.limits.files_per_process),
            resource_group,
            sharers: AtomicUsize::new(1),
            slots: RwLock::new(Slots { console: true, ..Slots::default() }),
        }
    }

    /// Returns the limit that all descriptor numbers stay below.
    fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Sets the limit. Descriptors that are open above it stay open.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    fn console(&self) -> Arc<OpenFile> {
        self.resource_group.add_file();
        OpenFile::counted(Console, open::FWRITE, &self.resource_group)
    }

    /// Runs `change` on the slots.
    fn with<T>(&self, change: impl FnOnce(&mut Slots) -> T) -> T {
        let mut slots = write(&self.slots);
        if slots.console {
            slots.console = false;
            // The console is counted but not limited: a process that exists may look at its descriptors.
            let file = self.console();
            for at in 0..3 {
                let file = Held::new(file.clone(), &self.resource_group).ok();
                if let Some(file) = file {
                    slots.put(at, Slot { file, close_on_exec: false });
                }
            }
        }
        change(&mut slots)
    }

    /// Returns the open file of `fd`.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let at = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        {
            let slots = read(&self.slots);
            if !slots.console {
                let slot = slots.slots.get(at).and_then(Option::as_ref);
                return Ok(slot.ok_or(Errno::EBADF)?.file.file().clone());
            }
        }
        self.with(|slots| slots.slots.get(at).cloned().flatten())
            .map(|slot| slot.file.release())
            .ok_or(Errno::EBADF)
    }

    /// Returns EMFILE if no descriptor is free.
    pub fn check_room(&self) -> Result<(), Errno> {
        let free = self.with(|slots| slots.free(0));
        if free < self.limit() { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Returns EMFILE if no two descriptors are free.
    pub fn check_room_for_two(&self) -> Result<(), Errno> {
        let second = self.with(|slots| slots.free(slots.free(0) + 1));
        if second < self.limit() { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Gives `file` the lowest free number from `from` on.
    pub fn insert(
        &self,
        file: Arc<OpenFile>,
        from: usize,
        close_on_exec: bool,
    ) -> Result<i32, Errno> {
        let slot = Slot { file: Held::new(file, &self.resource_group)?, close_on_exec };
        // A clone goes in, so that a file that gets no descriptor is not closed under the lock.
        self.with(|slots| {
            let at = slots.free(from);
            if at >= self.limit() {
                return Err(Errno::EMFILE);
            }
            slots.pay(at, &self.resource_group)?;
            slots.put(at, slot.clone());
            Ok(at as i32)
        })
    }

    /// Reserves the lowest free number for the file of an open call that has to wait. NetBSD:
    /// `fd_allocfile`.
    pub fn reserve(self: &Arc<Self>) -> Result<Reserved, Errno> {
        let at = self.with(|slots| {
            let at = slots.free(0);
            if at >= self.limit() {
                return Err(Errno::EMFILE);
            }
            slots.pay(at, &self.resource_group)?;
            slots.rare.get_or_insert_default().reserved.push(at);
            Ok(at)
        })?;
        Ok(Reserved { table: Some(self.clone()), at })
    }

    /// Gives two files the lowest free numbers, or fails without giving either one.
    pub fn insert_pair(
        &self,
        files: [Arc<OpenFile>; 2],
        close_on_exec: bool,
    ) -> Result<[i32; 2], Errno> {
        let [first, second] = files.map(|file| Held::new(file, &self.resource_group));
        let (first, second) = (first?, second?);
        let slot = |file| Slot { file, close_on_exec };
        self.with(|slots| {
            let at = slots.free(0);
            let next = slots.free(at + 1);
            if next >= self.limit() {
                return Err(Errno::EMFILE);
            }
            slots.pay(next, &self.resource_group)?;
            slots.put(at, slot(first.clone()));
            slots.put(next, slot(second.clone()));
            Ok([at as i32, next as i32])
        })
    }

    /// Gives `file` the number `at`, and closes the file that had it.
    fn replace(
        &self,
        file: Arc<OpenFile>,
        at: usize,
        close_on_exec: bool,
    ) -> Result<Option<Arc<OpenFile>>, Errno> {
        let slot = Slot { file: Held::new(file, &self.resource_group)?, close_on_exec };
        let old = self.with(|slots| {
            slots.pay(at, &self.resource_group)?;
            Ok(slots.put(at, slot.clone()))
        })?;
        let Some(old) = old else { return Ok(None) };
        let old = old.file.release();
        self.unwatch(at);
        old.ops.restart();
        Ok(Some(old))
    }

    /// Closes `fd`. NetBSD: `fd_close`.
    pub fn close(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let at = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let old = self.with(|slots| slots.take(at)).ok_or(Errno::EBADF)?;
        let old = old.file.release();
        self.unwatch(at);
        old.ops.restart();
        Ok(old)
    }

    /// Takes out every descriptor from `from` on for which `which` returns `true`.
    fn take_where(&self, from: usize, which: impl Fn(&Slot) -> bool) -> Vec<Slot> {
        let (numbers, taken) = self.with(|slots| {
            let picked = |at: &usize| slots.slots[*at].as_ref().is_some_and(&which);
            let numbers: Vec<usize> = (from..slots.slots.len()).filter(picked).collect();
            let taken = numbers.iter().filter_map(|&at| slots.take(at)).collect();
            (numbers, taken)
        });
        for at in numbers {
            self.unwatch(at);
        }
        taken
    }

    /// Records that `kqueue` is about to become one of the descriptors.
    pub fn has_kqueue(&self, kqueue: &Arc<Kqueue>) {
        self.with(|slots| {
            let kqueues = &mut slots.rare.get_or_insert_default().kqueues;
            kqueues.retain(|kqueue| kqueue.strong_count() > 0);
            kqueues.push(Arc::downgrade(kqueue));
        });
    }

    /// Removes the knotes on descriptor `at`, which is closed. NetBSD: `knote_fdclose`.
    fn unwatch(&self, at: usize) {
        let kqueues: Vec<Arc<Kqueue>> = match &read(&self.slots).rare {
            None => return,
            Some(rare) => rare.kqueues.iter().filter_map(Weak::upgrade).collect(),
        };
        work::count(kqueues.len() / 4);
        for kqueue in kqueues {
            kqueue.forget(at);
        }
    }

    /// Returns the number of descriptors NetBSD's table would have room for. That table grows in steps and
    /// does not shrink. NetBSD: `dt_nfiles`, `fd_tryexpand`.
    pub fn size(&self) -> usize {
        let most = read(&self.slots).most as usize;
        match most {
            0..=20 => 20,
            21..=50 => 50,
            _ => 50 * most.div_ceil(50).next_power_of_two(),
        }
    }

    /// Closes the descriptors that do not survive an exec. No call of the process may be running. NetBSD:
    /// `fd_closeexec`.
    pub fn close_on_exec(&self) -> Vec<Arc<OpenFile>> {
        if read(&self.slots).console {
            return Vec::new();
        }
        let closed = self.take_where(0, |slot| slot.close_on_exec);
        closed.into_iter().map(|slot| slot.file.release()).collect()
    }

    /// Returns the open file of every descriptor.
    pub fn all(&self) -> Vec<Arc<OpenFile>> {
        let slots = read(&self.slots);
        slots.slots.iter().flatten().map(|slot| slot.file.file().clone()).collect()
    }

    /// Lists every descriptor: its number, its file, and `true` if an exec closes it. A table that nobody
    /// has used yet stays unused.
    pub fn listed(&self) -> Vec<(i32, Arc<OpenFile>, bool)> {
        let slots = read(&self.slots);
        if slots.console {
            let file = self.console();
            return (0..3).map(|fd| (fd, file.clone(), false)).collect();
        }
        let slots = (0..).zip(&slots.slots);
        slots
            .filter_map(|(fd, slot)| slot.as_ref().map(|slot| (fd, slot)))
            .map(|(fd, slot)| (fd, slot.file.file().clone(), slot.close_on_exec))
            .collect()
    }

    /// Returns the highest descriptor, -1 if there is none (`fd_lastfile`).
    fn last(&self) -> i32 {
        self.with(|slots| {
            let after = slots.reserved().iter().map(|&at| at + 1).max().unwrap_or(0);
            slots.slots.len().max(after) as i32 - 1
        })
    }

    /// Returns the close-on-exec flag of `fd`, `None` if `fd` is not open.
    fn closes_on_exec(&self, fd: i32) -> Option<bool> {
        let at = usize::try_from(fd).ok()?;
        self.with(|slots| Some(slots.slots.get(at)?.as_ref()?.close_on_exec))
    }

    pub fn set_close_on_exec(&self, fd: i32, on: bool) {
        let at = usize::try_from(fd).unwrap_or(usize::MAX);
        self.with(|slots| {
            if let Some(Some(slot)) = slots.slots.get_mut(at) {
                slot.close_on_exec = on;
            }
        });
    }

    /// Returns a new table with the same open files, except for kqueues. NetBSD: `fd_copy`.
    pub fn copy(&self) -> Result<FdTable, Errno> {
        let slots = read(&self.slots);
        let mut copy = Slots {
            console: slots.console,
            most: slots.slots.len() as u32,
            taken: slots.taken,
            ..Slots::default()
        };
        if let Some(last) = slots.slots.len().checked_sub(1) {
            copy.pay(last, &self.resource_group).map_err(|_| Errno::EAGAIN)?;
        }
        copy.slots.extend(slots.slots.iter().cloned());
        let has_kqueues = slots.rare.as_ref().is_some_and(|rare| !rare.kqueues.is_empty());
        drop(slots);
        if has_kqueues {
            copy.drop_kqueues();
        }
        Ok(FdTable {
            limit: AtomicUsize::new(self.limit()),
            resource_group: self.resource_group.clone(),
            sharers: AtomicUsize::new(1),
            slots: RwLock::new(copy),
        })
    }

    /// Returns this table for one more process. NetBSD: `fd_share`.
    pub fn share(self: &Arc<Self>) -> Arc<FdTable> {
        self.sharers.fetch_add(1, AcqRel);
        self.clone()
    }

    /// Gives up the table for one process; the last one closes everything. NetBSD: `fd_free`.
    pub fn release(&self) {
        if self.sharers.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        // No call of these processes runs any more, so no call has to be told.
        let closed = std::mem::take(&mut *write(&self.slots));
        for slot in closed.slots.into_iter().flatten() {
            slot.file.release().let_go();
        }
        self.resource_group.give_bytes(closed.paid.into());
    }
}

/// A descriptor number reserved for the file that a call opens. The number becomes free again on drop.
pub(super) struct Reserved {
    /// The table, or `None` once the number has been given to a file: then others may reserve the number.
    table: Option<Arc<FdTable>>,
    at: usize,
}

impl Reserved {
    /// Gives the number to `file`, or the lowest free number if dup2 has put another file there.
    pub fn fill(mut self, file: Arc<OpenFile>, close_on_exec: bool) -> Result<i32, Errno> {
        let Some(table) = self.table.take() else { return Err(Errno::EBADF) };
        let slot = Slot { file: Held::new(file.clone(), &table.resource_group)?, close_on_exec };
        let filled = table.with(|slots| {
            let free =
                slots.unreserve(self.at) && slots.pay(self.at, &table.resource_group).is_ok();
            if free {
                slots.put(self.at, slot);
            }
            free
        });
        if filled { Ok(self.at as i32) } else { table.insert(file, 0, close_on_exec) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(table) = &self.table {
            table.with(|slots| slots.unreserve(self.at));
        }
    }
}

/// `int close(int fd)`
fn close(run: &mut SyscallContext<'_, '_>) -> Answer {
    closes_shortly(run, run.int(0))?;
    let file = run.proc.files.close(run.int(0))?;
    locks::closed(run.proc, &file);
    file.let_go();
    Ok([0, 0])
}

/// Moves the call to a worker if the open file of `fd` holds a lock: the file may have very many other
/// locks, and the open file's own have to go before the open file does.
fn closes_shortly(run: &SyscallContext<'_, '_>, fd: i32) -> Result<()> {
    if run.proc.files.get(fd).is_ok_and(|file| file.has(open::HASLOCK)) {
        work::elsewhere()?;
    }
    Ok(())
}

/// `int dup(int fd)`
fn dup(run: &mut SyscallContext<'_, '_>) -> Answer {
    let file = run.file(run.int(0))?;
    Ok([run.proc.files.insert(file, 0, false)?.into(), 0])
}

/// `int dup2(int from, int to)`
fn dup2(run: &mut SyscallContext<'_, '_>) -> Answer {
    dup_to(run, 0)
}

/// `int dup3(int from, int to, int flags)`
fn dup3(run: &mut SyscallContext<'_, '_>) -> Answer {
    let flags = run.uint(2);
    dup_to(run, flags)
}

fn dup_to(run: &mut SyscallContext<'_, '_>, flags: u32) -> Answer {
    let (from, to) = (run.int(0), run.int(1));
    let files = &run.proc.files;
    let file = run.file(from)?;
    let at = usize::try_from(to).ok().filter(|&at| at < files.limit()).ok_or(Errno::EBADF)?;
    if from != to {
        closes_shortly(run, to)?;
        if flags & !(open::CLOEXEC | open::NONBLOCK) != 0 {
            return Err(Errno::EINVAL.into());
        }
        if flags & open::NONBLOCK != 0 {
            file.set(open::NONBLOCK, true);
        }
        if let Some(old) = files.replace(file, at, flags & open::CLOEXEC != 0)? {
            locks::closed(run.proc, &old);
            old.let_go();
        }
    }
    Ok([to.into(), 0])
}

/// Returns `true` for commands that neither close many descriptors nor work on locks, of which there may be
/// many.
fn is_short(args: &Args) -> bool {
    let command = args[1] as i32;
    !matches!(command, fcntl::CLOSEM | fcntl::GETLK | fcntl::SETLK | fcntl::SETLKW)
}

/// `int fcntl(int fd, int cmd, ... void *arg)`
fn fcntl_call(run: &mut SyscallContext<'_, '_>) -> Answer {
    let (fd, command, arg) = (run.int(0), run.int(1), run.word(2));
    let files = &run.proc.files;
    match command {
        fcntl::CLOSEM => {
            let from = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
            for slot in files.take_where(from, |_| true) {
                let file = slot.file.release();
                file.ops.restart();
                locks::closed(run.proc, &file);
                file.let_go();
            }
            return Ok([0, 0]);
        }
        fcntl::MAXFD => return Ok([files.last().into(), 0]),
        fcntl::GETLK | fcntl::SETLK | fcntl::SETLKW => return locks::record(run),
        _ => {}
    }
    let file = run.file(fd)?;
    if command & fcntl::FOR_FILE_SYSTEM != 0 {
        return Err(for_file_system(run, &file)?.into());
    }
    let value: i64 = match command {
        fcntl::DUPFD | fcntl::DUPFD_CLOEXEC => {
            let from = usize::try_from(arg as i32).ok().filter(|&from| from < files.limit());
            let from = from.ok_or(Errno::EINVAL)?;
            files.insert(file, from, command == fcntl::DUPFD_CLOEXEC)?.into()
        }
        fcntl::GETFD => files.closes_on_exec(fd).unwrap_or(false).into(),
        fcntl::SETFD => {
            files.set_close_on_exec(fd, arg & fcntl::CLOEXEC != 0);
            0
        }
        fcntl::GETNOSIGPIPE => file.has(open::NOSIGPIPE).into(),
        fcntl::SETNOSIGPIPE => {
            file.set(open::NOSIGPIPE, arg != 0);
            0
        }
        // Flags of an open file are one greater than the flags of open(2).
        fcntl::GETFL => i64::from(file.flags() as i32).wrapping_sub(1),
        fcntl::SETFL => set_flags(&file, arg)?,
        fcntl::GETOWN | fcntl::SETOWN if !file.ops.signals() => return Err(Errno::ENOTTY.into()),
        fcntl::GETOWN => file.ops.owner().map_or(0, |owner| owner.id().into()),
        fcntl::SETOWN => {
            if let Some(owner) = file.ops.owner() {
                ioctl::set_owner(run, owner, arg as i32)?;
            }
            0
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok([value, 0])
}

/// Returns the errno for a command for the file system, which has no commands. NetBSD: `fcntl_forfs`,
/// `genfs_fcntl`.
fn for_file_system(run: &mut SyscallContext<'_, '_>, file: &OpenFile) -> Result<Errno> {
    let (command, addr) = (run.int(1), run.word(2));
    file.check(open::FREAD | open::FWRITE)?;
    let length = command >> 16 & fcntl::LENGTH;
    if command & fcntl::IN != 0 && length > 0 {
        let mut parameter = vec![0; length as usize];
        run.memory().copyin(addr, &mut parameter)?;
    }
    Ok(if file.ops.kqueue().is_some() { Errno::ENOTTY } else { Errno::EOPNOTSUPP })
}

/// `F_SETFL`
fn set_flags(file: &OpenFile, arg: u64) -> Result<i64, Errno> {
    // NetBSD: `kqueue_fcntl`.
    if file.ops.kqueue().is_some() {
        return Err(Errno::ENOTTY);
    }
    let wanted = (arg as u32).wrapping_add(1) & open::SETTABLE;
    let changed = (wanted ^ file.flags()) & open::SETTABLE;
    if !file.ops.signals() && changed & (open::NONBLOCK | open::ASYNC) != 0 {
        return Err(Errno::ENOTTY);
    }
    file.set(open::SETTABLE & !wanted, false);
    file.set(wanted, true);
    Ok(0)
}
