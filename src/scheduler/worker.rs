//! The work of a thread with a core: it runs the core's tasks, steals others when there are none, and
//! parks. While the thread sleeps inside a task, it gives the core away.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use crossbeam_deque::Steal;
use ring::Spin;

use super::blocking_limit::Sleeper;
use super::idle::{Core, Idle, Need, Parker, Waited};
use super::{Shared, Task};

/// The number of tasks taken from the own deque between two looks at the injector, so that neither
/// starves.
const INJECTOR_EVERY: u32 = 32;

thread_local! {
    /// The state of this thread as a worker, or `None` if it is no worker.
    static POSITION: RefCell<Option<Position>> = const { RefCell::new(None) };
}

/// The state of a worker's thread.
struct Position {
    /// The thread's core, or `None` while it runs without one.
    core: Option<Core>,
    last_core: usize,
    /// The number of nested sleeps inside its task that the thread is in.
    away: u32,
    /// The kind and client of its task, if the task may sleep.
    sleeper: Option<Sleeper>,
    /// True if the task counts as asleep already.
    counted: bool,
    /// The CPU the thread is pinned to.
    pinned: Option<usize>,
    scheduler: Arc<dyn Cores>,
}

/// The part of a scheduler that [`blocking`] needs, whatever its tasks are.
trait Cores {
    fn idle(&self) -> &Idle;
    /// Called when a task is about to fall asleep.
    fn pause(self: Arc<Self>);
    /// Called when a task falls asleep and its thread has left its core. Counts the task as asleep unless
    /// it is `counted`.
    fn falls_asleep(self: Arc<Self>, sleeper: Option<&Sleeper>, counted: bool);
    /// Called when a task has woken.
    fn wakes(self: Arc<Self>, sleeper: Option<&Sleeper>);
}

impl<T: Task> Cores for Shared<T> {
    fn idle(&self) -> &Idle {
        &self.idle
    }

    fn pause(self: Arc<Self>) {
        T::pause(&self.context);
        if self.has_rescuer {
            start_ahead(&self);
        }
    }

    fn falls_asleep(self: Arc<Self>, sleeper: Option<&Sleeper>, counted: bool) {
        if !counted {
            self.asleep.enter(sleeper);
        }
        fence(Ordering::SeqCst);
        if self.has_tasks() {
            notify(&self);
        }
    }

    fn wakes(self: Arc<Self>, sleeper: Option<&Sleeper>) {
        if self.asleep.leave(sleeper) {
            notify(&self);
        }
    }
}

/// Has a thread take a free core, if there is one.
pub(super) fn notify<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(core) = shared.idle.fill_a_core() {
        spawn(shared, core);
    }
}

/// Has a thread take a core if all are free. A thread that has a core looks for tasks before it leaves.
pub(super) fn notify_if_idle<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(core) = shared.idle.fill_the_first_core() {
        spawn(shared, core);
    }
}

/// Has a thread take the reserve, unless one has it.
pub(super) fn notify_reserve<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(core) = shared.idle.fill_the_reserve() {
        spawn(shared, core);
    }
}

/// Starts the first thread of a scheduler.
pub(super) fn start<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    match shared.idle.fill_a_core() {
        Need::Thread(core) => try_spawn(shared, core).map_err(|(core, error)| {
            shared.idle.thread_failed(core);
            error
        }),
        Need::Nothing => Ok(()),
    }
}

/// Starts the rescuer, which runs only tasks that have no kind, see [`super::Config::rescuer`].
pub(super) fn start_rescuer<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    start_thread(shared, "rescuer".into(), rescuer_main)
}

/// Starts a thread for a core. If none can be started, the existing threads must do, and fewer tasks may
/// sleep.
fn spawn<T: Task>(shared: &Arc<Shared<T>>, core: Core) {
    if let Err((core, error)) = try_spawn(shared, core) {
        let threads = shared.idle.thread_failed(core);
        lower(shared, threads, &error);
    }
}

/// Returns the number of threads that are to be awake besides the sleeping ones: one for each core, whose
/// task may fall asleep while the scheduler finds out that no more threads can be started, and two that
/// are left then.
fn awake_beside<T: Task>(shared: &Shared<T>) -> usize {
    shared.idle.cores() + 2
}

/// Starts threads before they are needed, because a task falls asleep. If none can be started, this is
/// found out while some threads are awake.
fn start_ahead<T: Task>(shared: &Arc<Shared<T>>) {
    let awake = || shared.idle.threads().saturating_sub(shared.asleep.count());
    while awake() <= awake_beside(shared)
        && shared.asleep.has_rested(Instant::now())
        && start_without_core(shared)
    {}
}

/// Starts one more thread, because a task waits that would not wait if there had always been room for
/// threads.
fn grow<T: Task>(shared: &Arc<Shared<T>>) {
    let is_time = shared.asleep.is_lowered() && shared.asleep.has_rested(Instant::now());
    if is_time && start_without_core(shared) && shared.asleep.raise() {
        notify(shared);
    }
}

/// Starts a thread that waits for a core. Returns `false` if none can be started.
fn start_without_core<T: Task>(shared: &Arc<Shared<T>>) -> bool {
    shared.idle.thread_begins();
    let started = start_thread(shared, "worker".into(), |shared| thread_main(shared, None));
    if let Err(error) = &started {
        lower(shared, shared.idle.thread_ended(), error);
    }
    started.is_ok()
}

/// Lowers the bound of sleepers, because there can be no more threads than these, and enough of them have
/// to stay awake.
fn lower<T: Task>(shared: &Shared<T>, threads: usize, error: &io::Error) {
    let most = threads.saturating_sub(awake_beside(shared)).max(1);
    tracing::warn!(
        "cannot start another worker thread: {error}; of {threads} no more than {most} may sleep"
    );
    shared.asleep.lower(most, Instant::now());
}

fn try_spawn<T: Task>(shared: &Arc<Shared<T>>, core: Core) -> Result<(), (Core, io::Error)> {
    let (index, cpu) = (core.index, core.cpu);
    start_thread(shared, format!("worker {index}"), move |shared| thread_main(shared, Some(core)))
        .map_err(|error| (Core { index, cpu }, error))
}

/// Starts a thread of this name that runs `main`. A panic there is reported as the scheduler's.
fn start_thread<T: Task>(
    shared: &Arc<Shared<T>>,
    name: String,
    main: impl FnOnce(Arc<Shared<T>>) + Send + 'static,
) -> io::Result<()> {
    #[cfg(test)]
    if shared.refuses_threads.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let shared = shared.clone();
    let body = move || {
        let context = shared.clone();
        if catch_unwind(AssertUnwindSafe(|| main(shared))).is_err() {
            T::worker_panicked(&context.context);
        }
    };
    std::thread::Builder::new().name(name).spawn(body).map(drop)
}

/// Runs a worker's thread, which may begin without a core.
fn thread_main<T: Task>(shared: Arc<Shared<T>>, core: Option<Core>) {
    let parker = Arc::new(Parker::default());
    take_position(&shared);
    let mut spin = Spin::new(shared.spin);
    let mut core = core.or_else(|| {
        rest(&shared, &parker);
        wait_for_core(&shared, &parker)
    });
    while let Some(given) = core {
        begin_on(given);
        run_tasks(&shared, &mut spin);
        rest(&shared, &parker);
        core = wait_for_core(&shared, &parker);
    }
    leave_position(&shared);
    shared.idle.thread_ended();
}

/// Runs the rescuer's thread. It has a core only while no other thread can be started for that core.
fn rescuer_main<T: Task>(shared: Arc<Shared<T>>) {
    let parker = Arc::new(Parker::default());
    take_position(&shared);
    loop {
        retire(&shared, &parker);
        let Some(core) = parker.wait() else { break };
        begin_on(core);
        run_as_rescuer(&shared);
    }
    leave_position(&shared);
}

/// Makes the thread a worker.
fn take_position<T: Task>(shared: &Arc<Shared<T>>) {
    let scheduler = shared.clone();
    POSITION.set(Some(Position {
        last_core: 0,
        core: None,
        away: 0,
        sleeper: None,
        counted: false,
        pinned: None,
        scheduler,
    }));
}

/// Ends the thread's being a worker. Otherwise, if the thread slept at its end, it would take a core with
/// it.
fn leave_position<T: Task>(shared: &Shared<T>) {
    POSITION.set(None);
    if !shared.idle.is_closed() {
        let ends = catch_unwind(AssertUnwindSafe(|| T::thread_end(&shared.context)));
        if ends.is_err() {
            shared.idle.count_panic();
        }
    }
}

/// Runs the tasks that have no kind, until there are none or a worker waits for the core. Passes over the
/// others.
fn run_as_rescuer<T: Task>(shared: &Arc<Shared<T>>) {
    while let Some(index) = own_core() {
        let task = match index == shared.stealers.len() {
            true => take_priority(shared),
            false => find_new(shared, index),
        };
        let Some(task) = task else { return };
        if let Some(task) = pass_over(shared, task) {
            run(shared, Admitted { task, sleeper: None, counted: false });
        }
        if shared.idle.is_closed() || shared.idle.waiting() > 0 {
            return;
        }
    }
}

/// Leaves a task to the workers if it may sleep; returns it otherwise.
fn pass_over<T: Task>(shared: &Shared<T>, task: T) -> Option<T> {
    if task.kind().is_some() {
        task.held(&shared.context);
    }
    let _passing = shared.lock_passing();
    if task.kind().is_none() {
        return Some(task);
    }
    shared.passed_over.push(task);
    None
}

/// Frees the rescuer's core. From here on, the rescuer waits until it is needed.
fn retire<T: Task>(shared: &Arc<Shared<T>>, parker: &Arc<Parker>) {
    T::pause(&shared.context);
    shared.idle.retire_rescuer(take_core().0, parker);
    // The tasks that it passed over need a worker: if no worker waits, the rescuer itself would be given
    // the core again.
    if shared.has_new_tasks() || shared.has_tasks() && shared.idle.waiting() > 0 {
        notify(shared);
    }
}

/// Takes the core from this thread. Returns it and the index of the core that the thread had last.
fn take_core() -> (Option<Core>, usize) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        (position.core.take(), position.last_core)
    })
}

/// Waits for a core. Returns `None` if the thread is to end, because the scheduler ends or because the
/// thread is one of many that have had nothing to do for long.
fn wait_for_core<T: Task>(shared: &Shared<T>, parker: &Arc<Parker>) -> Option<Core> {
    match parker.wait_for(shared.keep_alive) {
        Waited::Core(core) => Some(core),
        Waited::End => None,
        Waited::TimedOut if shared.idle.retire(parker) => None,
        Waited::TimedOut => parker.wait(),
    }
}

/// Runs tasks until there are none, or the core is gone.
fn run_tasks<T: Task>(shared: &Arc<Shared<T>>, spin: &mut Spin) {
    let mut turn = 0;
    let mut fresh = true;
    while let Some(index) = own_core() {
        let Some(task) = next_task(shared, index, &mut turn, spin) else {
            return;
        };
        // Under backpressure, a worker that finds work has the next worker woken, so that cores fill as
        // fast as work is found.
        if std::mem::take(&mut fresh) && shared.is_under_backpressure() && shared.has_tasks() {
            notify(shared);
        }
        match admit(shared, task) {
            Some(admitted) => run(shared, admitted),
            None => grow(shared),
        }
        if shared.idle.is_closed() {
            return;
        }
    }
}

/// A task that may start.
struct Admitted<T> {
    task: T,
    sleeper: Option<Sleeper>,
    /// True if the task counts as asleep already.
    counted: bool,
}

/// A task that was found.
enum Found<T> {
    /// A task from a deque or an injector, which may have to wait.
    New(T),
    /// A task that has waited, and counts as asleep.
    Ready(T, Sleeper),
}

/// Lets a task start, or keeps it for later.
fn admit<T: Task>(shared: &Shared<T>, found: Found<T>) -> Option<Admitted<T>> {
    match found {
        Found::Ready(task, sleeper) => {
            Some(Admitted { task, sleeper: Some(sleeper), counted: true })
        }
        Found::New(task) => {
            let sleeper = Sleeper::of(&task);
            let held = |task: &T| task.held(&shared.context);
            let task = match &sleeper {
                Some(sleeper) => shared.asleep.admit(task, sleeper, held)?,
                None => task,
            };
            Some(Admitted { task, sleeper, counted: false })
        }
    }
}

/// Runs a task to its end.
fn run<T: Task>(shared: &Arc<Shared<T>>, admitted: Admitted<T>) {
    let Admitted { task, sleeper, counted } = admitted;
    set_sleeper(sleeper, counted);
    if catch_unwind(AssertUnwindSafe(|| task.run(&shared.context))).is_err() {
        shared.idle.count_panic();
    }
    // The task counted as asleep and did not sleep.
    if let Some(sleeper) = take_counted()
        && shared.asleep.leave(Some(&sleeper))
    {
        notify(shared);
    }
}

/// Returns the next task. If there is none, the thread pauses, and looks for one for as long as the
/// scheduler spins.
fn next_task<T: Task>(
    shared: &Shared<T>,
    index: usize,
    turn: &mut u32,
    spin: &mut Spin,
) -> Option<Found<T>> {
    if index == shared.stealers.len() {
        return take_priority(shared).map(Found::New);
    }
    *turn = turn.wrapping_add(1);
    if turn.is_multiple_of(INJECTOR_EVERY)
        && let Some(task) = take_injected(shared)
    {
        return Some(task);
    }
    // This is done only every other time, so that many priority tasks do not starve the others.
    if turn.is_multiple_of(2)
        && let Some(task) = take_priority(shared)
    {
        return Some(Found::New(task));
    }
    let mut task = find_task(shared, index);
    if task.is_none() {
        T::pause(&shared.context);
        shared.relieve();
        if spin.pays() {
            spin.look(|| {
                task = find_task(shared, index);
                task.is_some()
            });
        }
    }
    task
}

/// Takes a task from the own deque, a priority task, one that has waited or was passed over, one from the
/// injector, or one from another core, in this order.
fn find_task<T: Task>(shared: &Shared<T>, index: usize) -> Option<Found<T>> {
    take(|| shared.stealers[index].steal())
        .or_else(|| take_priority(shared))
        .map(Found::New)
        .or_else(|| take_injected(shared))
        .or_else(|| steal_elsewhere(shared, index).map(Found::New))
}

/// Takes a task that no thread has looked at yet.
fn find_new<T: Task>(shared: &Shared<T>, index: usize) -> Option<T> {
    take(|| shared.stealers[index].steal())
        .or_else(|| take_priority(shared))
        .or_else(|| take(|| shared.injector.steal()))
        .or_else(|| steal_elsewhere(shared, index))
}

/// Takes a task that has waited or was passed over, or one from the injector.
fn take_injected<T: Task>(shared: &Shared<T>) -> Option<Found<T>> {
    let ready = shared.asleep.next_ready().map(|(task, sleeper)| Found::Ready(task, sleeper));
    ready.or_else(|| {
        let passed_over = take_passed_over(shared);
        passed_over.or_else(|| take(|| shared.injector.steal())).map(Found::New)
    })
}

/// Takes a task that the rescuer has passed over.
pub(super) fn take_passed_over<T: Task>(shared: &Shared<T>) -> Option<T> {
    // A steal has a fence, and most often there is no task, so this looks first.
    if shared.passed_over.is_empty() { None } else { take(|| shared.passed_over.steal()) }
}

/// Takes a priority task. A thread that has the reserve may take only these.
pub(super) fn take_priority<T: Task>(shared: &Shared<T>) -> Option<T> {
    // This looks first, as above.
    if shared.priority.is_empty() { None } else { take(|| shared.priority.steal()) }
}

fn steal_elsewhere<T: Task>(shared: &Shared<T>, index: usize) -> Option<T> {
    let cores = shared.stealers.len();
    (1..cores).find_map(|step| take(|| shared.stealers[(index + step) % cores].steal()))
}

/// Repeats a steal that lost a race: each loss is another thread's success.
pub(super) fn take<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

/// Frees the core, if the thread still has one, and adds the thread to those that wait for a core.
fn rest<T: Task>(shared: &Arc<Shared<T>>, parker: &Arc<Parker>) {
    T::pause(&shared.context);
    let (core, last_core) = take_core();
    match core {
        Some(core) => shared.idle.give_back(core, parker),
        None => shared.idle.add_parked(last_core, parker),
    }
    if shared.has_tasks() {
        notify(shared);
    }
}

fn own_core() -> Option<usize> {
    POSITION.with_borrow(|position| Some(position.as_ref()?.core.as_ref()?.index))
}

fn set_sleeper(sleeper: Option<Sleeper>, counted: bool) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        (position.sleeper, position.counted) = (sleeper, counted);
    });
}

/// Ends the task's record. Returns what the task still counts as.
fn take_counted() -> Option<Sleeper> {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        let sleeper = position.sleeper.take();
        sleeper.filter(|_| std::mem::take(&mut position.counted))
    })
}

/// Takes a core, and pins the thread to its CPU.
fn begin_on(core: Core) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        if position.pinned != Some(core.cpu) {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: core.cpu }) {
                tracing::warn!("cannot pin a worker to CPU {}", core.cpu);
            }
            position.pinned = Some(core.cpu);
        }
        position.last_core = core.index;
        position.core = Some(core);
    });
}

/// Gives this thread's core away, so that other tasks run on it while this thread sleeps inside its task.
/// [`take_core_again`] must follow. Pairs may nest; only the outermost counts.
///
/// Does nothing outside of a scheduler.
pub fn release_core() {
    let left = POSITION.with_borrow_mut(|position| {
        let position = position.as_mut()?;
        position.away += 1;
        (position.away == 1).then(|| {
            let counted = std::mem::take(&mut position.counted);
            let sleeper = position.sleeper.clone();
            (position.scheduler.clone(), position.core.take(), sleeper, counted)
        })
    });
    let Some((scheduler, core, sleeper, counted)) = left else {
        return;
    };
    scheduler.clone().pause();
    if let Some(core) = core {
        scheduler.idle().leave(core);
    }
    scheduler.falls_asleep(sleeper.as_ref(), counted);
}

/// Takes the thread's core again after a sleep, or another core, if one is free. If none is free, the
/// thread ends its task without a core.
pub fn take_core_again() {
    let back = POSITION.with_borrow_mut(|position| {
        let position = position.as_mut()?;
        position.away = position.away.checked_sub(1)?;
        let sleeper = position.sleeper.clone();
        (position.away == 0).then(|| (position.scheduler.clone(), position.last_core, sleeper))
    });
    let Some((scheduler, last_core, sleeper)) = back else {
        return;
    };
    if let Some(core) = scheduler.idle().come_back(last_core) {
        begin_on(core);
    }
    scheduler.wakes(sleeper.as_ref());
}

/// Runs `sleep`, which may put the thread to sleep, between [`release_core`] and [`take_core_again`].
pub fn blocking<R>(sleep: impl FnOnce() -> R) -> R {
    struct Away;
    impl Drop for Away {
        fn drop(&mut self) {
            take_core_again();
        }
    }
    release_core();
    let _away = Away;
    sleep()
}
