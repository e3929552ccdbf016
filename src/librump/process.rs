//! A client's process in the rump kernel.
//!
//! The process has a main lwp, as in the reference: preforks, execs and interrupts are done on it, one at
//! a time. System calls run on other lwps. Those are kept from call to call, because making one costs
//! more than most calls do. Before an exec, and at the end, they have to be gone.

use std::ffi::{CStr, CString, c_int, c_long, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cpus::Visit;
use super::current::{self, Called, InCall};
use super::escape::call_escapable;
use super::lingers;
use super::load;
use super::lwp::{self, Inside, Parked};
use super::owners::Owner;
use super::sleepers::{self, Sleepers};
use super::upcalls::Upcalls;
use super::{faults, indirect};
use crate::scheduler;
use kernel::{Args, Call, Client, Errno, Outcome, Process};

/// `RUMP_RFFD_*`: the use of the parent's descriptors.
const RFFD_SHARE: c_int = 0;
const RFFD_COPY: c_int = 1;
const RFFD_CLEAR: c_int = 2;

/// The number of lwps kept for a process. One is enough for a client that makes one call at a time, and
/// more would show: while a client asks how many lwps its process has, as NetBSD's own tests do, there
/// are only the main one and that of the call itself.
const KEPT: usize = 1;

/// The errno by which the kernel asks to have a call made again, as when its file was closed while it
/// slept: the kernel's own return to a process does so (`sys/sys/errno.h`). A call is made again at most
/// [`MOST_RESTARTS`] times.
const ERESTART: Errno = Errno(-3);
const MOST_RESTARTS: u32 = 8;

/// The time that calls have to end before the kernel is told again to wake them: at first, and at most.
const FIRST_PATIENCE: Duration = Duration::from_millis(5);
const MOST_PATIENCE: Duration = Duration::from_secs(1);

struct RumpProcess {
    pid: libc::pid_t,
    // A thread that has one of the next two locks may sleep in the kernel, so a thread that waits for one
    // must not have a CPU of the kernel. The locks are taken in this order, and before the kernel is
    // entered.
    main: Mutex<Option<Parked>>,
    /// The lwp that is freed last, once calls were told to end. It was told to end, too, so whatever the
    /// kernel does as it closes the process's files does not wait for a peer, as a socket that lingers
    /// would.
    last: Mutex<Option<Parked>>,
    lwps: Mutex<Lwps>,
    /// Signalled when no call is on its way in any more, or no call is left.
    changed: Condvar,
    /// The sleeping calls that the kernel does not wake.
    sleepers: Sleepers,
    /// The number by which the kernel knows the client.
    owner: Owner,
}

#[derive(Default)]
struct Lwps {
    kept: Vec<Parked>,
    /// The lwps that the next call that may wait has to free.
    spent: Vec<Parked>,
    /// The number of calls on their way to an lwp.
    entering: usize,
    /// The number of calls that have an lwp.
    inside: usize,
    /// The number of calls among them that may change credentials.
    changing: usize,
    /// The number of such calls that have ended. An lwp from before has the old credentials.
    changes: u64,
    /// True if the lwps are to go: calls that end free theirs, and no call begins.
    leaving: bool,
}

impl Lwps {
    /// Returns `true` if the lwp of a call is kept. `changes` is the count of changes when the call
    /// began.
    fn keeps(&self, changes: u64) -> bool {
        !self.leaving && changes == self.changes && self.kept.len() < KEPT
    }

    /// Takes the lwps that are on no thread, except the main one.
    fn take(&mut self) -> Vec<Parked> {
        let mut lwps = std::mem::take(&mut self.kept);
        lwps.append(&mut self.spent);
        lwps
    }
}

/// A call on one of the process's lwps.
struct Entered {
    inside: Inside,
    /// The value of [`Lwps::changes`] when the call began.
    changes: u64,
    is_changing: bool,
}

/// Returns `true` if a call of this number may give its process other credentials. The process's other
/// lwps get these when the kernel schedules them. Since lwps are entered in another way here, they are
/// not kept.
///
/// Source: NetBSD, the callers of `proc_crmod_leave`: setuid(2), chroot(2), setgroups(2), setreuid(2),
/// setregid(2), setgid(2), setegid(2), seteuid(2), fchroot(2); syscall(2) and __syscall(2) may be any of them.
fn changes_credentials(number: i32) -> bool {
    matches!(number, 0 | 23 | 61 | 80 | 126 | 127 | 181 | 182 | 183 | 198 | 297)
}

/// Forks a client's process off init's.
pub fn spawn(client: Arc<dyn Client>, command: &[u8]) -> Result<Arc<dyn Process>, Errno> {
    let inside = lwp::enter()?;
    rfork(&inside, Some(client), RFFD_CLEAR, Some(command))
}

/// Forks the process that the thread is in, and switches back.
fn rfork(
    inside: &Inside,
    client: Option<Arc<dyn Client>>,
    descriptors: c_int,
    command: Option<&[u8]>,
) -> Result<Arc<dyn Process>, Errno> {
    let owner = Owner::new(client)?;
    let command = command.map(c_string);
    let name = command.as_ref().map_or(std::ptr::null(), |command| command.as_ptr());
    let number = owner.id().for_kernel();
    // SAFETY: the thread has a CPU; `name` is null or a string of C; the kernel does not follow the
    // owner.
    match unsafe { (inside.upcalls().lwproc_rfork)(number, descriptors, name) } {
        0 => {}
        error => return Err(Errno(error)),
    }
    // SAFETY: the thread has a CPU, and is in the new process.
    let pid = unsafe { (inside.upcalls().getpid)() };
    let main = Mutex::new(Some(inside.switch_back()));
    Ok(Arc::new(RumpProcess {
        pid,
        main,
        lwps: Mutex::default(),
        last: Mutex::default(),
        changed: Condvar::new(),
        sleepers: Sleepers::default(),
        owner,
    }))
}

impl Process for RumpProcess {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn syscall(&self, call: &mut Call<'_>) -> Outcome {
        if call.number < 0 {
            // The kernel checks the upper end only.
            return Outcome::Done(Err(Errno::ENOSYS));
        }
        if let Err(errno) = faults::check(call.number, call.args) {
            return Outcome::Done(Err(errno));
        }
        if call.inline { self.run_here(call) } else { Outcome::Done(self.run(call)) }
    }

    fn prefork(&self) -> Result<Arc<dyn Process>, Errno> {
        self.on_main(|inside| rfork(inside, None, RFFD_COPY, None))?
    }

    fn adopt(&self, client: Arc<dyn Client>) -> Result<Arc<dyn Process>, Errno> {
        self.on_main(|inside| rfork(inside, Some(client), RFFD_SHARE, None))?
    }

    fn exec(&self, command: &[u8]) {
        log(self.become_another(&c_string(command)));
        self.sleepers.go_on();
        self.lwps().leaving = false;
    }

    fn interrupt(&self) {
        let kept = {
            let mut lwps = self.lwps();
            lwps.leaving = true;
            lwps.take()
        };
        self.sleepers.end();
        // When the kernel is told, it wakes the lwps that exist. One made a little later would sleep on.
        self.wait_while(Duration::MAX, |lwps| lwps.entering > 0);
        let mut last = lock(&self.last);
        log(lwp::enter().map(|inside| self.choose_last(&mut last, &inside, kept)));
        drop(last);
        // The kernel wakes lwps without the lock of what they wait for, so one that was about to sleep
        // may not have noticed.
        let mut patience = FIRST_PATIENCE;
        loop {
            log(self.on_main(|inside| {
                // SAFETY: the thread has a CPU and is in the process.
                unsafe { (inside.upcalls().lwpexit)() };
                wake(&self.sleepers);
            }));
            if !self.wait_while(patience, |lwps| lwps.inside > 0) {
                break;
            }
            patience = (patience * 2).min(MOST_PATIENCE);
        }
        // Inline calls, which must not wait, have freed nothing.
        let spent = self.lwps().take();
        if !spent.is_empty() {
            log(lwp::enter().map(|inside| free(&inside, spent)));
        }
    }

    fn release(&self) {
        // A process that goes sends no signals to its client.
        self.owner.forget();
        let mut kept = self.lwps().take();
        let main = lock(&self.main).take();
        let mut last = lock(&self.last);
        log(lwp::enter().map(|inside| {
            if lingers::any()
                && last.is_none()
                && let Some(main) = &main
            {
                self.choose_last(&mut last, &inside, std::mem::take(&mut kept));
                inside.switch_to(main);
                // SAFETY: the thread has a CPU and is in the process.
                unsafe { (inside.upcalls().lwpexit)() };
                inside.switch_home();
            }
            // What the lwps close must not wait for others. The end of a pipe, for example, waits for its
            // writers.
            current::on_last(|| free(&inside, kept.into_iter().chain(main).chain(last.take())));
        }));
    }
}

impl RumpProcess {
    /// Runs a call on one of the process's lwps.
    fn run(&self, call: &mut Call<'_>) -> Result<[i64; 2], Errno> {
        let entered = self.enter(call.number)?;
        let upcalls = entered.inside.upcalls();
        let result = self.run_in(upcalls, call);
        self.leave(&entered);
        result
    }

    /// Runs a call on a thread that is in the process.
    fn run_in(&self, upcalls: &Upcalls, call: &mut Call<'_>) -> Result<[i64; 2], Errno> {
        let (number, args) = indirect::direct(call.number, call.args);
        let called = Called { number, closes_many: faults::closes_many(number, args) };
        for _ in 0..MOST_RESTARTS {
            // Each run begins anew: it looks descriptors up and copies in as the first one did.
            let run = |here: &InCall<'_>| invoke(upcalls, here, call.number, call.args);
            match current::with(self.owner.id(), called, call.memory, &self.sleepers, run) {
                Err(ERESTART) if !self.sleepers.are_ending() => {}
                Err(ERESTART) => break,
                result => return result,
            }
        }
        Err(Errno::EINTR)
    }

    /// Runs a call on a thread that must not wait: only if an lwp and a CPU are free.
    fn run_here(&self, call: &mut Call<'_>) -> Outcome {
        let (lwp, changes) = {
            let mut lwps = self.lwps();
            if lwps.leaving {
                return Outcome::Done(Err(Errno::EINTR));
            }
            if lwps.changing > 0 || changes_credentials(call.number) {
                return Outcome::Elsewhere;
            }
            let Some(lwp) = lwps.kept.pop() else { return Outcome::Elsewhere };
            lwps.inside += 1;
            (lwp, lwps.changes)
        };
        let outcome = match Visit::begin(&lwp) {
            Some(visit) => Outcome::Done(self.run_in(visit.upcalls, call)),
            None => Outcome::Elsewhere,
        };
        let mut lwps = self.lwps();
        if lwps.keeps(changes) {
            lwps.kept.push(lwp);
        } else {
            // The lwp is not freed here, because that takes locks.
            lwps.spent.push(lwp);
        }
        lwps.inside -= 1;
        if lwps.leaving {
            self.changed.notify_all();
        }
        outcome
    }

    /// Enters the kernel on an lwp of the process, for a call of this number.
    fn enter(&self, number: i32) -> Result<Entered, Errno> {
        let is_changing = changes_credentials(number);
        let (kept, changes) = {
            let mut lwps = self.lwps();
            if lwps.leaving {
                return Err(Errno::EINTR);
            }
            lwps.entering += 1;
            lwps.changing += usize::from(is_changing);
            (lwps.kept.pop(), lwps.changes)
        };
        let entered = lwp::enter().and_then(|inside| {
            match kept {
                Some(lwp) => inside.switch_to(&lwp),
                None => inside.make_lwp(self.pid)?,
            }
            Ok(inside)
        });
        let mut lwps = self.lwps();
        lwps.entering -= 1;
        match entered {
            Ok(_) => lwps.inside += 1,
            Err(_) => lwps.changing -= usize::from(is_changing),
        }
        if lwps.leaving {
            self.changed.notify_all();
        }
        entered.map(|inside| Entered { inside, changes, is_changing })
    }

    /// Waits while `is_so` returns `true`, for `most` at most. Returns `true` if it still does.
    fn wait_while(&self, most: Duration, is_so: impl Fn(&Lwps) -> bool) -> bool {
        let lwps = self.lwps();
        if !is_so(&lwps) {
            return false;
        }
        drop(lwps);
        scheduler::blocking(|| {
            let waited = self.changed.wait_timeout_while(self.lwps(), most, |lwps| is_so(lwps));
            waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
        })
    }

    /// Switches back from the lwp of a call, and keeps or frees the lwp.
    fn leave(&self, Entered { inside, changes, is_changing }: &Entered) {
        let lwp = inside.switch_back();
        let mut lwps = self.lwps();
        lwps.changing -= usize::from(*is_changing);
        lwps.changes += u64::from(*is_changing);
        if *is_changing {
            let mut kept = std::mem::take(&mut lwps.kept);
            lwps.spent.append(&mut kept);
        }
        if lwps.keeps(*changes) {
            lwps.kept.push(lwp);
        } else {
            lwps.spent.push(lwp);
        }
        if !lwps.spent.is_empty() {
            let spent = std::mem::take(&mut lwps.spent);
            drop(lwps);
            free(inside, spent);
            lwps = self.lwps();
        }
        lwps.inside -= 1;
        if lwps.leaving {
            self.changed.notify_all();
        }
    }

    /// Makes sure that there is a last lwp, one of these or a new one, and frees the others.
    fn choose_last(&self, last: &mut Option<Parked>, inside: &Inside, mut kept: Vec<Parked>) {
        // Calls may be told to end twice: the second time by a client that leaves in its exec.
        if last.is_none() {
            *last = kept.pop().or_else(|| {
                let made = inside.make_lwp(self.pid);
                made.is_ok().then(|| inside.switch_back())
            });
        }
        free(inside, kept);
    }

    /// Closes the close-on-exec descriptors and takes the new name, on the last lwp. Then makes another
    /// main lwp.
    fn become_another(&self, command: &CStr) -> Result<(), Errno> {
        let (mut main, mut last) = (lock(&self.main), lock(&self.last));
        let inside = &lwp::enter()?;
        let old = main.take();
        let last = match last.take() {
            Some(last) => {
                free(inside, old);
                last
            }
            None => old.ok_or(Errno::ESRCH)?,
        };
        inside.switch_to(&last);
        // SAFETY: the thread has a CPU and is in the process, whose other lwps are gone.
        current::on_last(|| unsafe { (inside.upcalls().execnotify)(command.as_ptr()) });
        inside.make_lwp(self.pid)?;
        *main = Some(inside.switch_back());
        free(inside, [last]);
        Ok(())
    }

    /// Runs `what` on the main lwp, and nothing else at the same time.
    fn on_main<R>(&self, what: impl FnOnce(&Inside) -> R) -> Result<R, Errno> {
        let main = match self.main.try_lock() {
            Ok(main) => main,
            // The holder of the lock may wait for a CPU of the kernel.
            Err(_) => scheduler::blocking(|| lock(&self.main)),
        };
        let lwp = main.as_ref().ok_or(Errno::ESRCH)?;
        let inside = lwp::enter()?;
        inside.switch_to(lwp);
        let result = what(&inside);
        inside.switch_home();
        Ok(result)
    }

    fn lwps(&self) -> MutexGuard<'_, Lwps> {
        lock(&self.lwps)
    }
}

fn free(inside: &Inside, lwps: impl IntoIterator<Item = Parked>) {
    for lwp in lwps {
        inside.switch_to(&lwp);
        inside.release();
    }
}

/// Wakes the calls that sleep on a channel, from inside the kernel.
fn wake(sleepers: &Sleepers) {
    type Wakeup = unsafe extern "C" fn(*const c_void);
    let channels = sleepers.channels();
    if channels.is_empty() {
        return;
    }
    match load::symbol("rumpns_wakeup") {
        Ok(wakeup) => {
            // SAFETY: the kernel's function has this type.
            let wakeup = unsafe { std::mem::transmute::<NonNull<c_void>, Wakeup>(wakeup) };
            for channel in channels {
                // SAFETY: the thread has a CPU. A channel is only compared, and whoever sleeps on a
                // channel is ready for a wake-up too many.
                unsafe { wakeup(std::ptr::without_provenance(channel)) };
            }
        }
        Err(error) => tracing::error!("{error}: calls of a client that has left sleep on"),
    }
}

/// A call, as it is handed to the kernel.
struct Syscall {
    upcall: unsafe extern "C" fn(c_int, *mut c_void, *mut c_long) -> c_int,
    number: c_int,
    /// The arguments. The kernel may write to them, and reads as many as the call has: the block is
    /// longer than the longest of its argument structures.
    args: Args,
    retval: [c_long; 2],
    error: c_int,
}

/// Makes the call. It ends with EINTR if it is left.
fn invoke(
    upcalls: &Upcalls,
    here: &InCall<'_>,
    number: i32,
    args: &Args,
) -> Result<[i64; 2], Errno> {
    let mut syscall = Syscall {
        upcall: upcalls.syscall,
        number,
        args: *args,
        retval: [0, 0],
        error: Errno::EINTR.0,
    };
    lingers::look(number, args);
    faults::bound(number, &mut syscall.args);
    let this = &raw mut syscall;
    if sleepers::can_be_left(number, args) {
        // SAFETY: `run` may be called, and such a call holds nothing where it is left.
        unsafe { call_escapable(run, this, &here.way_out) };
    } else {
        // SAFETY: as in `run`.
        unsafe { run(this) };
    }
    match syscall.error {
        0 => Ok(syscall.retval),
        error => Err(Errno(error)),
    }
}

/// Hands a call to the kernel. This frame has nothing to drop.
///
/// # Safety
///
/// The thread has a CPU and is on an lwp of the client's process; the number is not negative; the call is
/// valid until this returns, and nobody else uses it.
unsafe extern "C" fn run(syscall: *mut Syscall) {
    // SAFETY: the caller's promise; the kernel checks the number's upper end; block and result are in the
    // call and long enough.
    unsafe {
        let block = (&raw mut (*syscall).args).cast();
        let retval = (&raw mut (*syscall).retval).cast();
        (*syscall).error = ((*syscall).upcall)((*syscall).number, block, retval);
    }
}

/// Returns a name for C, up to its first NUL.
fn c_string(name: &[u8]) -> CString {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    CString::new(&name[..end]).expect("no NUL before the end")
}

/// Logs an error that can only occur if the kernel itself has gone wrong.
fn log<T>(result: Result<T, Errno>) {
    if let Err(errno) = result {
        tracing::error!("the rump kernel: {errno}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
