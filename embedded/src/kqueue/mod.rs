//! kqueue: sets of events that a process waits for, kept by the kernel from call to call.
//!
//! A knote is one thing to wait for, found by filter and ident in its kqueue. It is the waker of a place in
//! its file's wait queue. Once woken, the knote takes a new place, evaluates its filter, and if that is
//! satisfied puts itself on the list of its kqueue, once. So waking a knote costs the same however many
//! there are, and the cost of a kevent call depends on the length of the list.
//!
//! Lock order: kqueue, then knote, then the queue or list that the knote is in. Filters look at files and
//! wake others without any of these locks, so kqueues may watch each other.
//!
//! Source: NetBSD `sys/kern/kern_event.c`; kqueue(2).

mod kevent;
mod knote;
mod register;
mod watched;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(super) use kevent::Kevent;
pub(super) use knote::Knote;
pub(super) use watched::{Event, Watched, note};

use super::abi::{Stat, open, poll, u64_at};
use super::call::{Answer, Result, SyscallContext};
use super::file::{FileOps, OpenFile, Seen};
use super::io::Transfer;
use super::limits::ResourceGroup;
use super::listed::{Listed, Runs, call, partly};
use super::sync::lock;
use super::wait::{Side, WaitQueue, Waitable};
use super::work;
use kernel::{Errno, sys};
use knote::Key;

pub(super) const CALLS: &[Listed] = &[
    call(sys::KQUEUE, Runs::Inline, |run| make(run, 0)),
    call(sys::KQUEUE1, Runs::Inline, |run| make(run, run.uint(0))),
    partly(
        sys::KEVENT,
        Runs::InlineIf(|args| args[2] <= FEW),
        kevent::kevent,
        "NOTE_EXIT comes without an exit status, for no client says how it ended",
    ),
];

/// `sys/event.h`
mod abi {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const VNODE: u32 = 3;
    pub const PROC: u32 = 4;
    pub const SIGNAL: u32 = 5;
    pub const TIMER: u32 = 6;
    /// The names of the filters in C, including `EVFILT_AIO`, of which there is the name only.
    pub const NAMES: [&str; 7] = [
        "EVFILT_READ",
        "EVFILT_WRITE",
        "EVFILT_AIO",
        "EVFILT_VNODE",
        "EVFILT_PROC",
        "EVFILT_SIGNAL",
        "EVFILT_TIMER",
    ];

    pub const ADD: u32 = 0x1;
    pub const DELETE: u32 = 0x2;
    pub const ENABLE: u32 = 0x4;
    pub const DISABLE: u32 = 0x8;
    pub const ONESHOT: u32 = 0x10;
    pub const CLEAR: u32 = 0x20;
    pub const RECEIPT: u32 = 0x40;
    pub const DISPATCH: u32 = 0x80;
    /// The flags that clients cannot set.
    pub const SYSFLAGS: u32 = 0xf000;
    pub const ERROR: u32 = 0x4000;
    pub const EOF: u32 = 0x8000;

    pub const LOWAT: u32 = 0x1;

    pub const EXIT: u32 = 0x8000_0000;
    pub const FORK: u32 = 0x4000_0000;
    pub const EXEC: u32 = 0x2000_0000;
    pub const TRACK: u32 = 0x1;
    pub const TRACKERR: u32 = 0x2;
    pub const CHILD: u32 = 0x4;
}

/// The most changes that an inline run makes.
const FEW: u64 = 64;

/// The most knotes of one kqueue; ENOMEM beyond.
const KNOTES_MAX: usize = 1 << 16;

/// The bytes a knote is charged for, its places in maps and queues included.
pub(super) const KNOTE_BYTES: u64 = 384;

/// A kqueue.
pub(super) struct Kqueue {
    state: Mutex<State>,
    /// Wakes kevent calls, polls of this kqueue, and knotes on it.
    waiting: WaitQueue,
    /// The resource group that pays for the knotes.
    resource_group: Arc<ResourceGroup>,
}

#[derive(Default)]
struct State {
    knotes: BTreeMap<Key, Arc<Knote>>,
    /// The knotes for the next kevent call to evaluate (`kq_head`), by the turn in which they were put
    /// here.
    active: BTreeMap<u64, Arc<Knote>>,
    /// The next turn.
    turn: u64,
    /// True once the last descriptor is gone: nothing is put here any more.
    closed: bool,
}

impl State {
    /// Puts a knote at the end of the list.
    fn put(&mut self, knote: &Arc<Knote>) {
        self.active.insert(self.turn, knote.clone());
        self.turn += 1;
    }
}

impl Kqueue {
    fn count(&self) -> usize {
        lock(&self.state).active.len()
    }

    /// Removes the knotes on descriptor `fd`, which is closed. NetBSD: `knote_fdclose`.
    pub fn forget(&self, fd: usize) {
        for filter in [abi::READ, abi::WRITE, abi::VNODE] {
            self.remove((filter, fd as u64));
        }
    }

    /// Removes the knote with this key, if there is one. NetBSD: `knote_detach`.
    fn remove(&self, key: Key) {
        let knote = {
            let mut state = lock(&self.state);
            let Some(knote) = state.knotes.remove(&key) else { return };
            if let Some(turn) = knote.remove() {
                state.active.remove(&turn);
            }
            knote
        };
        self.removed(&knote);
    }

    /// Finishes the removal of a knote that has been taken out of the map.
    fn removed(&self, knote: &Arc<Knote>) {
        knote.detach();
        self.resource_group.give_bytes(KNOTE_BYTES);
    }

    /// Puts a knote on the list, unless it is there, is disabled or has been removed. NetBSD:
    /// `knote_activate`.
    fn activate(self: &Arc<Self>, knote: &Arc<Knote>) {
        let put = {
            let mut state = lock(&self.state);
            let put = !state.closed && knote.activate(state.turn);
            if put {
                state.put(knote);
            }
            put
        };
        if put {
            self.wake();
        }
    }

    /// Wakes the waiters of this kqueue. A waiter may be a knote of another kqueue, which wakes others.
    /// These wake-ups run one after the other, so that a long chain of kqueues takes no deep stack.
    fn wake(self: &Arc<Self>) {
        if WAKING.with_borrow_mut(|turns| {
            let busy = turns.is_some();
            turns.get_or_insert_default().push(self.clone());
            busy
        }) {
            return;
        }
        let _end = EndOfTurns;
        while let Some(next) = WAKING.with_borrow_mut(|turns| turns.as_mut()?.pop()) {
            next.waiting.wake();
            work::count(1);
        }
    }
}

thread_local! {
    /// The kqueues for this thread to wake after the one it is waking.
    static WAKING: RefCell<Option<Vec<Arc<Kqueue>>>> = const { RefCell::new(None) };
}

/// Clears `WAKING` on drop, even on a panic, so that the next wake-up begins anew.
struct EndOfTurns;

impl Drop for EndOfTurns {
    fn drop(&mut self) {
        let left = WAKING.with_borrow_mut(Option::take);
        drop(left);
    }
}

impl Waitable for Kqueue {
    fn queue(&self, _side: Side) -> &WaitQueue {
        &self.waiting
    }
}

/// A kqueue as an open file.
struct KqueueFile(Arc<Kqueue>);

impl FileOps for KqueueFile {
    fn read(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        Err(Errno::ENXIO.into())
    }

    fn write(
        &self,
        _run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        _transfer: &Transfer,
        _position: Option<i64>,
    ) -> Result<()> {
        Err(Errno::ENXIO.into())
    }

    /// NetBSD: `kqueue_stat`.
    fn stat(&self) -> Result<Stat> {
        Ok(Stat {
            mode: super::abi::mode::FIFO,
            size: self.0.count() as i64,
            block_size: Kevent::SIZE as i32,
            ..Stat::default()
        })
    }

    /// NetBSD: `kqueue_ioctl`.
    fn ioctl(
        &self,
        run: &mut SyscallContext<'_, '_>,
        _file: &OpenFile,
        request: u32,
        addr: u64,
    ) -> Result<()> {
        match request {
            KFILTER_BYFILTER => name_of_filter(run, addr),
            KFILTER_BYNAME => filter_of_name(run, addr),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// NetBSD: `kqueue_poll`.
    fn poll(&self, _file: &OpenFile) -> u32 {
        if self.0.count() > 0 { poll::IN | poll::RDNORM } else { 0 }
    }

    /// NetBSD: `filt_kqueue`.
    fn filter(&self, _file: &OpenFile, side: Side, _low_water: Option<i64>) -> Option<Seen> {
        let count = self.0.count();
        (side == Side::Read).then(|| Seen {
            ready: count > 0,
            data: count as i64,
            ..Seen::default()
        })
    }

    /// NetBSD: `kqueue_kqfilter`, which returns 1 (EPERM).
    fn check_filter(&self, side: Option<Side>) -> Result<(), Errno> {
        if side == Some(Side::Read) { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn waitable(&self) -> Option<Arc<dyn Waitable>> {
        Some(self.0.clone())
    }

    fn restart(&self) {
        self.0.waiting.wake();
    }

    fn close(&self) {
        let knotes = {
            let mut state = lock(&self.0.state);
            state.closed = true;
            (std::mem::take(&mut state.knotes), std::mem::take(&mut state.active))
        };
        let kqueue = self.0.clone();
        // There may be very many knotes: they find the kqueue closed until they are removed.
        work::now_or_later(8 * knotes.0.len(), move || {
            for knote in knotes.0.values() {
                knote.remove();
                kqueue.removed(knote);
            }
        });
    }

    fn travels(&self) -> bool {
        false
    }

    fn signals(&self) -> bool {
        false
    }

    fn kqueue(&self) -> Option<&Arc<Kqueue>> {
        Some(&self.0)
    }
}

/// `int kqueue(void)`, `int kqueue1(int flags)`: unknown flags are ignored.
fn make(run: &mut SyscallContext<'_, '_>, flags: u32) -> Answer {
    let proc = run.proc;
    proc.files.check_room()?;
    let kqueue = Arc::new(Kqueue {
        state: Mutex::default(),
        waiting: WaitQueue::default(),
        resource_group: proc.family.clone(),
    });
    proc.files.has_kqueue(&kqueue);
    let kept = open::FREAD | open::FWRITE | flags & (open::NONBLOCK | open::NOSIGPIPE);
    let file = OpenFile::new(KqueueFile(kqueue), kept, &proc.family)?;
    Ok([proc.files.insert(file, 0, flags & open::CLOEXEC != 0)?.into(), 0])
}

const KFILTER_BYFILTER: u32 = 0xc018_6b00;
const KFILTER_BYNAME: u32 = 0xc018_6b01;

/// The longest name of a filter that is copied in (`KFILTER_MAXNAME`).
const NAME_MAX: usize = 256;

/// Copies in a `struct kfilter_mapping`: returns it, the address and size of its name.
fn mapping(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<([u8; 24], u64, u64)> {
    let mapping = run.copyin::<24>(addr)?;
    Ok((mapping, u64_at(&mapping, 0), u64_at(&mapping, 8)))
}

/// `KFILTER_BYFILTER`
fn name_of_filter(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<()> {
    let (mapping, out, room) = mapping(run, addr)?;
    let filter = u64_at(&mapping, 16) as u32;
    let name = abi::NAMES.get(filter as usize).ok_or(Errno::ENOENT)?;
    if room <= name.len() as u64 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    let name = [name.as_bytes(), b"\0"].concat();
    Ok(run.memory().copyoutstr(&name, out)?)
}

/// `KFILTER_BYNAME`
fn filter_of_name(run: &mut SyscallContext<'_, '_>, addr: u64) -> Result<()> {
    let (mut mapping, name, _) = mapping(run, addr)?;
    let mut bytes = [0; NAME_MAX];
    let len = run.memory().copyinstr(name, &mut bytes)?;
    let named = |known: &&str| known.as_bytes() == &bytes[..len];
    let filter = abi::NAMES.iter().position(named).ok_or(Errno::ENOENT)?;
    mapping[16..20].copy_from_slice(&(filter as u32).to_le_bytes());
    run.copyout(&mapping, addr)
}
