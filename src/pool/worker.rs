//! What a thread does with a seat: run its core's tasks, steal when there are none, park; and how it
//! gives the seat away while it sleeps inside a task.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use crossbeam_deque::Steal;
use ring::Spin;

use super::asleep::Sleeper;
use super::roster::{Berth, Need, Roster, Seat, Waited};
use super::{Shared, Task};

/// Tasks taken from the own deque between two looks at the injector, so that neither starves.
const INJECTOR_EVERY: u32 = 32;

thread_local! {
    /// What this thread can do about its seat, if it is a worker.
    static POSITION: RefCell<Option<Position>> = const { RefCell::new(None) };
}

/// Where a worker stands.
struct Position {
    /// `None` while it runs without a seat.
    seat: Option<Seat>,
    last_core: usize,
    /// How many sleeps inside its task it is in.
    away: u32,
    /// What its task counts as while it sleeps.
    sleeper: Option<Sleeper>,
    /// It counts so already.
    counted: bool,
    /// The CPU the thread is pinned to.
    pinned: Option<usize>,
    pool: Arc<dyn Seats>,
}

/// The part of a pool that [`blocking`] needs, whatever its tasks are.
trait Seats {
    fn roster(&self) -> &Roster;
    /// A task is about to fall asleep.
    fn pause(self: Arc<Self>);
    /// A task falls asleep that counts so from now on unless it is `counted`, and its thread has left its
    /// seat.
    fn falls_asleep(self: Arc<Self>, sleeper: Option<&Sleeper>, counted: bool);
    /// A task has woken.
    fn wakes(self: Arc<Self>, sleeper: Option<&Sleeper>);
}

impl<T: Task> Seats for Shared<T> {
    fn roster(&self) -> &Roster {
        &self.roster
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

/// Has a thread take a free seat, if there is one.
pub(super) fn notify<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(seat) = shared.roster.fill_a_seat() {
        spawn(shared, seat);
    }
}

/// Has a thread take a seat if all are free. One that has a seat looks for tasks before it leaves.
pub(super) fn notify_if_idle<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(seat) = shared.roster.fill_the_first_seat() {
        spawn(shared, seat);
    }
}

/// Has a thread take the reserve, if nobody has it.
pub(super) fn notify_reserve<T: Task>(shared: &Arc<Shared<T>>) {
    if let Need::Thread(seat) = shared.roster.fill_the_reserve() {
        spawn(shared, seat);
    }
}

/// Makes the first thread of a pool.
pub(super) fn start<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    match shared.roster.fill_a_seat() {
        Need::Thread(seat) => try_spawn(shared, seat).map_err(|(seat, error)| {
            shared.roster.thread_failed(seat);
            error
        }),
        Need::Nothing => Ok(()),
    }
}

/// Makes the thread that runs no task of a kind, see [`super::Config::rescuer`].
pub(super) fn start_rescuer<T: Task>(shared: &Arc<Shared<T>>) -> io::Result<()> {
    start_thread(shared, "rescuer".into(), rescuer_main)
}

/// Makes a thread for a seat. If there can be none, the threads that exist must do, and fewer may sleep.
fn spawn<T: Task>(shared: &Arc<Shared<T>>, seat: Seat) {
    if let Err((seat, error)) = try_spawn(shared, seat) {
        let threads = shared.roster.thread_failed(seat);
        lower(shared, threads, &error);
    }
}

/// How many threads are to be awake beside those that sleep: one for each seat, whose task may fall asleep
/// while it is found out that there can be no more, and two that are left then.
fn awake_beside<T: Task>(shared: &Shared<T>) -> usize {
    shared.roster.seats() + 2
}

/// Makes threads before they are needed, for one falls asleep: if there can be none, that is found out while
/// some are awake.
fn start_ahead<T: Task>(shared: &Arc<Shared<T>>) {
    let awake = || shared.roster.threads().saturating_sub(shared.asleep.count());
    while awake() <= awake_beside(shared)
        && shared.asleep.has_rested(Instant::now())
        && start_without_seat(shared)
    {}
}

/// Makes a thread more because a task waits that would not if there had always been room for threads.
fn grow<T: Task>(shared: &Arc<Shared<T>>) {
    let is_time = shared.asleep.is_lowered() && shared.asleep.has_rested(Instant::now());
    if is_time && start_without_seat(shared) && shared.asleep.raise() {
        notify(shared);
    }
}

/// Makes a thread that waits for a seat. Whether there can be one.
fn start_without_seat<T: Task>(shared: &Arc<Shared<T>>) -> bool {
    shared.roster.thread_begins();
    let started = start_thread(shared, "worker".into(), |shared| thread_main(shared, None));
    if let Err(error) = &started {
        lower(shared, shared.roster.thread_ended(), error);
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

fn try_spawn<T: Task>(shared: &Arc<Shared<T>>, seat: Seat) -> Result<(), (Seat, io::Error)> {
    let (core, cpu) = (seat.core, seat.cpu);
    start_thread(shared, format!("worker {core}"), move |shared| thread_main(shared, Some(seat)))
        .map_err(|error| (Seat { core, cpu }, error))
}

/// Has a thread of this name do that. Its panic is the pool's.
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

/// A worker's thread, which may begin without a seat.
fn thread_main<T: Task>(shared: Arc<Shared<T>>, seat: Option<Seat>) {
    let berth = Arc::new(Berth::default());
    take_position(&shared);
    let mut spin = Spin::new(shared.spin);
    let mut seat = seat.or_else(|| {
        rest(&shared, &berth);
        wait_for_seat(&shared, &berth)
    });
    while let Some(given) = seat {
        sit_down(given);
        run_tasks(&shared, &mut spin);
        rest(&shared, &berth);
        seat = wait_for_seat(&shared, &berth);
    }
    leave_position(&shared);
    shared.roster.thread_ended();
}

/// The rescuer's thread. It has a seat only while no other thread can be started for it.
fn rescuer_main<T: Task>(shared: Arc<Shared<T>>) {
    let berth = Arc::new(Berth::default());
    take_position(&shared);
    loop {
        retire(&shared, &berth);
        let Some(seat) = berth.wait() else { break };
        sit_down(seat);
        run_as_rescuer(&shared);
    }
    leave_position(&shared);
}

/// The thread is a worker.
fn take_position<T: Task>(shared: &Arc<Shared<T>>) {
    let pool = shared.clone();
    POSITION.set(Some(Position {
        last_core: 0,
        seat: None,
        away: 0,
        sleeper: None,
        counted: false,
        pinned: None,
        pool,
    }));
}

/// The thread is no worker any more: were it to sleep at its end, it would take a seat with it.
fn leave_position<T: Task>(shared: &Shared<T>) {
    POSITION.set(None);
    if !shared.roster.is_closed() {
        let ends = catch_unwind(AssertUnwindSafe(|| T::thread_end(&shared.context)));
        if ends.is_err() {
            shared.roster.count_panic();
        }
    }
}

/// The rescuer runs tasks of no kind until there are none, or a worker waits for the seat. It passes over
/// the others.
fn run_as_rescuer<T: Task>(shared: &Arc<Shared<T>>) {
    while let Some(core) = seated_core() {
        let task = match core == shared.stealers.len() {
            true => take_priority(shared),
            false => find_new(shared, core),
        };
        let Some(task) = task else { return };
        if let Some(task) = pass_over(shared, task) {
            run(shared, Admitted { task, sleeper: None, counted: false });
        }
        if shared.roster.is_closed() || shared.roster.waiting() > 0 {
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

/// The rescuer frees its seat and waits until it is needed.
fn retire<T: Task>(shared: &Arc<Shared<T>>, berth: &Arc<Berth>) {
    T::pause(&shared.context);
    shared.roster.retire_rescuer(take_seat().0, berth);
    // What it leaves to the workers is theirs alone: without one it would be given the seat again for it.
    if shared.has_new_tasks() || shared.has_tasks() && shared.roster.waiting() > 0 {
        notify(shared);
    }
}

/// Takes the seat from this thread, and says on which core it sat last.
fn take_seat() -> (Option<Seat>, usize) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        (position.seat.take(), position.last_core)
    })
}

/// Waits for a seat, or returns `None` because the thread is to end: the pool does, or the thread is one of
/// many that have had nothing to do for long.
fn wait_for_seat<T: Task>(shared: &Shared<T>, berth: &Arc<Berth>) -> Option<Seat> {
    match berth.wait_for(shared.keep_alive) {
        Waited::Seat(seat) => Some(seat),
        Waited::End => None,
        Waited::TimedOut if shared.roster.retire(berth) => None,
        Waited::TimedOut => berth.wait(),
    }
}

/// Runs tasks until there are none, or the seat is gone.
fn run_tasks<T: Task>(shared: &Arc<Shared<T>>, spin: &mut Spin) {
    let mut turn = 0;
    let mut fresh = true;
    while let Some(core) = seated_core() {
        let Some(task) = next_task(shared, core, &mut turn, spin) else {
            return;
        };
        // While there is more than those awake can do, whoever finds work has the next one woken: seats
        // fill as fast as work is found.
        if std::mem::take(&mut fresh) && shared.is_pressed() && shared.has_tasks() {
            notify(shared);
        }
        match admit(shared, task) {
            Some(admitted) => run(shared, admitted),
            None => grow(shared),
        }
        if shared.roster.is_closed() {
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
        shared.roster.count_panic();
    }
    // It counted as asleep and did not sleep.
    if let Some(sleeper) = take_counted()
        && shared.asleep.leave(Some(&sleeper))
    {
        notify(shared);
    }
}

/// A task. If there is none the thread pauses, and looks for one for as long as the pool spins.
fn next_task<T: Task>(
    shared: &Shared<T>,
    core: usize,
    turn: &mut u32,
    spin: &mut Spin,
) -> Option<Found<T>> {
    if core == shared.stealers.len() {
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
    let mut task = find_task(shared, core);
    if task.is_none() {
        T::pause(&shared.context);
        shared.relieve();
        if spin.pays() {
            spin.look(|| {
                task = find_task(shared, core);
                task.is_some()
            });
        }
    }
    task
}

/// A task from the own deque, one of priority, one that has waited or was passed over, one from the injector
/// or one from another core, in this order.
fn find_task<T: Task>(shared: &Shared<T>, core: usize) -> Option<Found<T>> {
    take(|| shared.stealers[core].steal())
        .or_else(|| take_priority(shared))
        .map(Found::New)
        .or_else(|| take_injected(shared))
        .or_else(|| steal_elsewhere(shared, core).map(Found::New))
}

/// A task that nobody has looked at yet.
fn find_new<T: Task>(shared: &Shared<T>, core: usize) -> Option<T> {
    take(|| shared.stealers[core].steal())
        .or_else(|| take_priority(shared))
        .or_else(|| take(|| shared.injector.steal()))
        .or_else(|| steal_elsewhere(shared, core))
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

fn steal_elsewhere<T: Task>(shared: &Shared<T>, core: usize) -> Option<T> {
    let cores = shared.stealers.len();
    (1..cores).find_map(|step| take(|| shared.stealers[(core + step) % cores].steal()))
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

/// Frees the seat, if the thread still has one, and joins those who wait for one.
fn rest<T: Task>(shared: &Arc<Shared<T>>, berth: &Arc<Berth>) {
    T::pause(&shared.context);
    let (seat, last_core) = take_seat();
    match seat {
        Some(seat) => shared.roster.stand_up(seat, berth),
        None => shared.roster.join_bench(last_core, berth),
    }
    if shared.has_tasks() {
        notify(shared);
    }
}

fn seated_core() -> Option<usize> {
    POSITION.with_borrow(|position| Some(position.as_ref()?.seat.as_ref()?.core))
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

/// Takes a seat, and its CPU.
fn sit_down(seat: Seat) {
    POSITION.with_borrow_mut(|position| {
        let position = position.as_mut().expect("a worker has a position");
        if position.pinned != Some(seat.cpu) {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: seat.cpu }) {
                tracing::warn!("cannot pin a worker to CPU {}", seat.cpu);
            }
            position.pinned = Some(seat.cpu);
        }
        position.last_core = seat.core;
        position.seat = Some(seat);
    });
}

/// This thread is about to sleep inside its task: gives its seat away, so that its core goes on with
/// other tasks. [`take_seat_again`] must follow. They may nest; only the outermost pair counts.
///
/// Does nothing outside a pool.
pub fn leave_seat() {
    let left = POSITION.with_borrow_mut(|position| {
        let position = position.as_mut()?;
        position.away += 1;
        (position.away == 1).then(|| {
            let counted = std::mem::take(&mut position.counted);
            let sleeper = position.sleeper.clone();
            (position.pool.clone(), position.seat.take(), sleeper, counted)
        })
    });
    let Some((pool, seat, sleeper, counted)) = left else {
        return;
    };
    pool.clone().pause();
    if let Some(seat) = seat {
        pool.roster().leave(seat);
    }
    pool.falls_asleep(sleeper.as_ref(), counted);
}

/// This thread has slept: takes its seat again, or another, if one is free. If none is, it ends its
/// task without.
pub fn take_seat_again() {
    let back = POSITION.with_borrow_mut(|position| {
        let position = position.as_mut()?;
        position.away = position.away.checked_sub(1)?;
        let sleeper = position.sleeper.clone();
        (position.away == 0).then(|| (position.pool.clone(), position.last_core, sleeper))
    });
    let Some((pool, last_core, sleeper)) = back else {
        return;
    };
    if let Some(seat) = pool.roster().come_back(last_core) {
        sit_down(seat);
    }
    pool.wakes(sleeper.as_ref());
}

/// Runs `sleep`, which may put the thread to sleep, between [`leave_seat`] and [`take_seat_again`].
pub fn blocking<R>(sleep: impl FnOnce() -> R) -> R {
    struct Away;
    impl Drop for Away {
        fn drop(&mut self) {
            take_seat_again();
        }
    }
    leave_seat();
    let _away = Away;
    sleep()
}
