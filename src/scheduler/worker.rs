//! What a thread does with a core: run its core's tasks, steal when there are none, park; and how it
//! gives the core away while it sleeps inside a task.

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

/// Tasks taken from the own deque between two looks at the injector, so that neither starves.
const INJECTOR_EVERY: u32 = 32;

thread_local! {
    /// What this thread can do about its core, if it is a worker.
    static POSITION: RefCell<Option<Position>> = const { RefCell::new(None) };
}

/// Where a worker stands.
struct Position {
    /// `None` while it runs without a core.
    core: Option<Core>,
    last_core: usize,
    /// How many sleeps inside its task it is in.
    away: u32,
    /// What its task counts as while it sleeps.
    sleeper: Option<Sleeper>,
    /// It counts so already.
    counted: bool,
    /// The CPU the thread is pinned to.
    pinned: Option<usize>,
    scheduler: Arc<dyn Cores>,
}

/// The part of a scheduler that [`blocking`] needs, whatever its tasks are.
trait Cores {
    fn idle(&self) -> &Idle;
    /// A task is about to fall asleep.
    fn pause(self: Arc<Self>);
    /// A task falls asleep that counts so from now on unless it is `counted`, and its thread has left its
    /// core.
    fn falls_asleep(self: Arc<Self>, sleeper: Option<&Sleeper>, counted: bool);
    /// A task has woken.
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

/// Has a thread take a core if all are free. One that has a core looks for tasks before it leaves.
pub(super) fn notify_if_idle<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(core) = shared.idle.fill_the_first_core() {
        spawn(shared, core);
    }
}

/// Has a thread take the reserve, if nobody has it.
pub(super) fn notify_reserve<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(core) = shared.idle.fill_the_reserve() {
        spawn(shared, core);
    }
}

/// Makes the first thread of a scheduler.
pub(super) fn start<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    match shared.idle.fill_a_core() {
        Need::Thread(core) => try_spawn(shared, core).map_err(|(core, error)| {
            shared.idle.thread_failed(core);
            error
        }),
        Need::Nothing => Ok(()),
    }
}

/// Makes the thread that runs no task of a kind, see [`super::Config::rescuer`].
pub(super) fn start_rescuer<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    start_thread(shared, "rescuer".into(), rescuer_main)
}

/// Makes a thread for a core. If there can be none, the threads that exist must do, and fewer may sleep.
fn spawn<T: Task>(shared: &Arc<Shared<T>>, core: Core) {
    if let Err((core, error)) = try_spawn(shared, core) {
        let threads = shared.idle.thread_failed(core);
        lower(shared, threads, &error);
    }
}

/// How many threads are to be awake beside those that sleep: one for each core, whose task may fall asleep
/// while it is found out that there can be no more, and two that are left then.
fn awake_beside<T: Task>(shared: &Shared<T>) -> usize {
    shared.idle.cores() + 2
}

/// Makes threads before they are needed, for one falls asleep: if there can be none, that is found out while
/// some are awake.
fn start_ahead<T: Task>(shared: &Arc<Shared<T>>) {
    let awake = || shared.idle.threads().saturating_sub(shared.asleep.count());
    while awake() <= awake_beside(shared)
        && shared.asleep.has_rested(Instant::now())
        && start_without_core(shared)
    {}
}

/// Makes a thread more because a task waits that would not if there had always been room for threads.
fn grow<T: Task>(shared: &Arc<Shared<T>>) {
    let is_time = shared.asleep.is_lowered() && shared.asleep.has_rested(Instant::now());
    if is_time && start_without_core(shared) && shared.asleep.raise() {
        notify(shared);
    }
}

/// Makes a thread that waits for a core. Whether there can be one.
fn start_without_core<T: Task>(shared: &Arc<Shared<T>>) -> bool {
    shared.idle.thread_begins();
    let started = start_thread(shared, "worker".into(), |shared| thread_main(shared, None));
    if let Err(error) = &started {
        lower(shared, shared.idle.thread_ended(), error);
    }
    started.is_ok()
}

/// There can be no more threads than these: so many may sleep that enough are awake.
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

/// Has a thread of this name do that. Its panic is the scheduler's.
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

/// A worker's thread, which may begin without a core.
fn thread_main<T: Task>(shared: Arc<Shared<T>>, core: Option<Core>) {
    let parker = Arc::new(Parker::default());
    take_position(&shared);
    let mut spin = Spin::new(shared.spin);
    let mut core = core.or_else(|| {
        rest(&shared, &parker);
        wait_for_core(&shared, &parker)
    });
    while let Some(given) = core {
        sit_down(given);
        run_tasks(&shared, &mut spin);
        rest(&shared, &parker);
        core = wait_for_core(&shared, &parker);
    }
    leave_position(&shared);
    shared.idle.thread_ended();
}

/// The rescuer's thread. It has a core only while no other thread can be started for it.
fn rescuer_main<T: Task>(shared: Arc<Shared<T>>) {
    let parker = Arc::new(Parker::default());
    take_position(&shared);
    loop {
        retire(&shared, &parker);
        let Some(core) = parker.wait() else { break };
        sit_down(core);
        run_as_rescuer(&shared);
    }
    leave_position(&shared);
}

/// The thread is a worker.
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

/// The thread is no worker any more: were it to sleep at its end, it would take a core with it.
fn leave_position<T: Task>(shared: &Shared<T>) {
    POSITION.set(None);
    if !shared.idle.is_closed() {
        let ends = catch_unwind(AssertUnwindSafe(|| T::thread_end(&shared.context)));
        if ends.is_err() {
            shared.idle.count_panic();
        }
    }
}

/// The rescuer runs tasks of no kind until there are none, or a worker waits for the core. It passes over
/// the others.
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

/// Leaves a task to the workers if it may sleep; else returns it.
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

/// The rescuer frees its core and waits until it is needed.
fn retire<T: Task>(shared: &Arc<Shared<T>>, parker: &Arc<Parker>) {
    T::pause(&shared.context);
    shared.idle.retire_rescuer(take_core().0, parker);
    // What it leaves to the workers is theirs alone: without one it would be given the core again for it.
    if shared.has_new_tasks() || shared.has_tasks() && shared.idle.waiting() > 0 {
        notify(shared);
    }
}

/// Takes the core from this thread, and says on which core it sat last.
fn take_core() -> (Option<Core>, usize) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        (position.core.take(), position.last_core)
    })
}

/// Waits for a core, or returns `None` because the thread is to end: the scheduler does, or the thread is one of
/// many that have had nothing to do for long.
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
        // While there is more than those awake can do, whoever finds work has the next one woken: cores
        // fill as fast as work is found.
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
    /// It counts as asleep already.
    counted: bool,
}

/// A task that was found.
enum Found<T> {
    /// It comes from a deque or an injector, and may have to wait.
    New(T),
    /// It has waited, and counts as asleep.
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
    // It counted as asleep and did not sleep.
    if let Some(sleeper) = take_counted()
        && shared.asleep.leave(Some(&sleeper))
    {
        notify(shared);
    }
}

/// A task. If there is none the thread pauses, and looks for one for as long as the scheduler spins.
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
    // Every other time only, so that many of priority do not starve the others.
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

/// A task from the own deque, one of priority, one that has waited or was passed over, one from the injector
/// or one from another core, in this order.
fn find_task<T: Task>(shared: &Shared<T>, index: usize) -> Option<Found<T>> {
    take(|| shared.stealers[index].steal())
        .or_else(|| take_priority(shared))
        .map(Found::New)
        .or_else(|| take_injected(shared))
        .or_else(|| steal_elsewhere(shared, index).map(Found::New))
}

/// A task that nobody has looked at yet.
fn find_new<T: Task>(shared: &Shared<T>, index: usize) -> Option<T> {
    take(|| shared.stealers[index].steal())
        .or_else(|| take_priority(shared))
        .or_else(|| take(|| shared.injector.steal()))
        .or_else(|| steal_elsewhere(shared, index))
}

/// A task that has waited or was passed over, or one from the injector.
fn take_injected<T: Task>(shared: &Shared<T>) -> Option<Found<T>> {
    let ready = shared.asleep.next_ready().map(|(task, sleeper)| Found::Ready(task, sleeper));
    ready.or_else(|| {
        let passed_over = take_passed_over(shared);
        passed_over.or_else(|| take(|| shared.injector.steal())).map(Found::New)
    })
}

/// A task that the rescuer has passed over.
pub(super) fn take_passed_over<T: Task>(shared: &Shared<T>) -> Option<T> {
    // A steal has a fence, and most often there is none.
    if shared.passed_over.is_empty() { None } else { take(|| shared.passed_over.steal()) }
}

/// A task of priority. All that whoever has the reserve may take.
pub(super) fn take_priority<T: Task>(shared: &Shared<T>) -> Option<T> {
    // As above.
    if shared.priority.is_empty() { None } else { take(|| shared.priority.steal()) }
}

fn steal_elsewhere<T: Task>(shared: &Shared<T>, index: usize) -> Option<T> {
    let cores = shared.stealers.len();
    (1..cores).find_map(|step| take(|| shared.stealers[(index + step) % cores].steal()))
}

/// Repeats a steal that lost a race: each loss is somebody else's success.
pub(super) fn take<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

/// Frees the core, if the thread still has one, and joins those who wait for one.
fn rest<T: Task>(shared: &Arc<Shared<T>>, parker: &Arc<Parker>) {
    T::pause(&shared.context);
    let (core, last_core) = take_core();
    match core {
        Some(core) => shared.idle.stand_up(core, parker),
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

/// The task is over: what it still counts as.
fn take_counted() -> Option<Sleeper> {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        let sleeper = position.sleeper.take();
        sleeper.filter(|_| std::mem::take(&mut position.counted))
    })
}

/// Takes a core, and its CPU.
fn sit_down(core: Core) {
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

/// This thread is about to sleep inside its task: gives its core away, so that its core goes on with
/// other tasks. [`take_core_again`] must follow. They may nest; only the outermost pair counts.
///
/// Does nothing outside a scheduler.
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

/// This thread has slept: takes its core again, or another, if one is free. If none is, it ends its
/// task without.
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
        sit_down(core);
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
