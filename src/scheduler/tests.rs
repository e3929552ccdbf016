use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::*;

/// The longest time that any of these tests waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Job(Box<dyn FnOnce() + Send>);

impl Task for Job {
    type Context = ();

    fn run(self, (): &()) {
        (self.0)()
    }
}

fn job(work: impl FnOnce() + Send + 'static) -> Job {
    Job(Box::new(work))
}

fn scheduler(spin: Duration) -> (Scheduler<Job>, Dispatcher<Job>) {
    Scheduler::new(&Config { spin, ..Config::default() }, ()).expect("a pool starts")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_task_runs_once_whoever_brings_it() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..40_000).map(|_| AtomicUsize::new(0)).collect());
    let run = |i: usize| {
        let runs = runs.clone();
        job(move || {
            runs[i].fetch_add(1, Ordering::Relaxed);
        })
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            let injector = scheduler.injector();
            let tasks: Vec<Job> = (0..5_000).map(|i| run(20_000 + part * 5_000 + i)).collect();
            scope.spawn(move || tasks.into_iter().for_each(|task| injector.inject(task)));
        }
        for i in 0..20_000 {
            dispatcher.push(i, run(i));
            if i % 7 == 0 {
                dispatcher.notify(Instant::now());
            }
        }
        dispatcher.notify(Instant::now());
    });
    until("all ran", || runs.iter().all(|n| n.load(Ordering::Relaxed) == 1));
}

#[test]
fn a_lone_task_never_waits_for_the_next_one() {
    // One task at a time, each pushed while the workers are about to park: this is the race that loses
    // wake-ups if parking is wrong.
    for spin in [Duration::ZERO, Duration::from_micros(20)] {
        let (_pool, mut dispatcher) = scheduler(spin);
        let (done, wait) = mpsc::channel();
        for i in 0..20_000 {
            let done = done.clone();
            dispatcher.push(i, job(move || done.send(i).unwrap()));
            dispatcher.notify(Instant::now());
            assert_eq!(wait.recv_timeout(PATIENCE), Ok(i), "task {i} was not run");
        }
    }
}

#[test]
fn a_task_that_sleeps_in_blocking_leaves_its_core_to_others() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let sleepers = dispatcher.cores() * 4;
    let gate = Arc::new(Barrier::new(sleepers + 1));
    for i in 0..sleepers {
        let gate = gate.clone();
        dispatcher.push(
            i,
            job(move || {
                blocking(|| gate.wait());
            }),
        );
    }
    dispatcher.notify(Instant::now());
    // All of them sleep at once, though there are fewer cores, and other tasks still run.
    until("all sleep", || scheduler.stats().hand_offs == sleepers as u64);
    let (done, wait) = mpsc::channel();
    dispatcher.push(0, job(move || done.send(()).unwrap()));
    dispatcher.notify(Instant::now());
    wait.recv_timeout(PATIENCE).expect("a task runs while others sleep");
    gate.wait();
}

/// A task of a kind.
struct OfKind(usize, Job);

impl Task for OfKind {
    type Context = ();

    const KINDS: usize = 2;

    fn kind(&self) -> Option<usize> {
        Some(self.0)
    }

    fn run(self, (): &()) {
        self.1.run(&());
    }
}

#[test]
fn at_the_bound_of_sleepers_only_their_kind_waits() {
    let config = Config { max_asleep: NonZeroUsize::new(3).unwrap(), ..Config::default() };
    let (scheduler, mut dispatcher) = Scheduler::<OfKind>::new(&config, ()).unwrap();
    let (gate, awake) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let held = gate.lock().unwrap();
    let sleeper = || {
        let (gate, awake) = (gate.clone(), awake.clone());
        job(move || {
            blocking(|| drop(gate.lock().unwrap()));
            awake.fetch_add(1, Ordering::SeqCst);
        })
    };
    for i in 0..50 {
        dispatcher.push(i, OfKind(0, sleeper()));
    }
    dispatcher.notify(Instant::now());
    until("the bound is reached", || scheduler.stats().asleep >= 3);
    // Tasks of the other kind go on, and the first one that sleeps even falls asleep; later ones would
    // wait.
    let (done, wait) = mpsc::channel();
    for i in 0..100 {
        let done = done.clone();
        dispatcher.push(i, OfKind(1, job(move || done.send(()).unwrap())));
    }
    dispatcher.notify(Instant::now());
    for _ in 0..100 {
        wait.recv_timeout(PATIENCE).expect("tasks of another kind go on");
    }
    dispatcher.push(0, OfKind(1, sleeper()));
    dispatcher.notify(Instant::now());
    until("one of the other kind sleeps", || scheduler.stats().asleep >= 4);
    let most = 3 + 2 * dispatcher.cores();
    assert!(
        scheduler.stats().asleep <= most,
        "{} asleep, at most {most} may",
        scheduler.stats().asleep
    );
    drop(held);
    until("all that waited have slept and woken", || awake.load(Ordering::SeqCst) == 51);
    until("nobody sleeps", || scheduler.stats().asleep == 0);
}

/// A task of a client, of a kind or of none.
struct Of(Arc<Client>, Option<usize>, Job);

impl Task for Of {
    type Context = ();

    const KINDS: usize = 2;

    fn kind(&self) -> Option<usize> {
        self.1
    }

    fn client(&self) -> Arc<Client> {
        self.0.clone()
    }

    fn run(self, (): &()) {
        self.2.run(&());
    }
}

/// A scheduler of one core with a bound of sleeping tasks, and tasks that are woken one by one.
struct Sleepers {
    scheduler: Scheduler<Of>,
    dispatcher: Dispatcher<Of>,
    wake: mpsc::Sender<()>,
    woken: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Sleepers {
    fn new(most: usize) -> Sleepers {
        let cpus = vec![allowed_cpus().unwrap()[0]];
        let max_asleep = NonZeroUsize::new(most).unwrap();
        let config = Config { cpus, max_asleep, rescuer: true, ..Config::default() };
        let (scheduler, dispatcher) = Scheduler::new(&config, ()).unwrap();
        let (wake, woken) = mpsc::channel();
        Sleepers { scheduler, dispatcher, wake, woken: Arc::new(Mutex::new(woken)) }
    }

    fn push(&mut self, client: &Arc<Client>, kind: Option<usize>, job: Job) {
        self.dispatcher.push(0, Of(client.clone(), kind, job));
        self.dispatcher.notify(Instant::now());
    }

    /// Pushes tasks that sleep until they are woken.
    fn sleep(&mut self, client: &Arc<Client>, tasks: usize) {
        for _ in 0..tasks {
            let woken = self.woken.clone();
            let sleep = move || blocking(|| woken.lock().unwrap().recv().unwrap());
            self.push(client, Some(0), job(sleep));
        }
    }

    /// Pushes tasks that end at once, and returns a channel that tells of each.
    fn pass(
        &mut self,
        client: &Arc<Client>,
        kind: Option<usize>,
        tasks: usize,
    ) -> mpsc::Receiver<()> {
        let (done, wait) = mpsc::channel();
        for _ in 0..tasks {
            let done = done.clone();
            self.push(client, kind, job(move || done.send(()).unwrap()));
        }
        wait
    }

    /// Waits until all that was pushed has been looked at and every task that does not sleep waits.
    /// Returns the number of sleepers and of threads.
    #[track_caller]
    fn settle(&mut self) -> (usize, usize) {
        let wait = self.pass(&Arc::default(), None, 1);
        wait.recv_timeout(PATIENCE).expect("it does not sleep");
        let mut settled = (0, 0);
        until("all others wait", || {
            let stats = self.scheduler.stats();
            settled = (stats.asleep, stats.threads);
            stats.asleep + self.scheduler.shared.idle.waiting() == stats.threads
        });
        settled
    }

    /// Checks that so many tasks sleep once all that was pushed has been looked at.
    #[track_caller]
    fn are_asleep(&mut self, asleep: usize) {
        let wait = self.pass(&Arc::default(), None, 1);
        wait.recv_timeout(PATIENCE).expect("it does not sleep");
        until(&format!("{asleep} sleep"), || self.scheduler.stats().asleep == asleep);
    }
}

#[test]
fn of_the_last_sleepers_each_client_gets_a_little() {
    let [greedy, second, third, last]: [Arc<Client>; 4] = Default::default();
    let mut sleepers = Sleepers::new(8);
    sleepers.sleep(&greedy, 50);
    sleepers.are_asleep(6);
    sleepers.sleep(&second, 3);
    sleepers.are_asleep(7);
    sleepers.sleep(&third, 1);
    sleepers.are_asleep(8);
    let others = sleepers.pass(&last, Some(0), 20);
    sleepers.are_asleep(8);
    assert!(others.try_recv().is_err(), "there is no room for another");
    // One task wakes. The greedy client has enough, so the tasks of the client that has nothing go on,
    // one after the other.
    sleepers.wake.send(()).unwrap();
    for _ in 0..20 {
        others.recv_timeout(PATIENCE).expect("it goes on");
    }
    for _ in 0..53 {
        sleepers.wake.send(()).unwrap();
    }
    until("all have slept and woken", || sleepers.scheduler.stats().asleep == 0);
}

#[test]
fn where_there_are_no_more_threads_some_stay_awake() {
    let [client, other]: [Arc<Client>; 2] = Default::default();
    let mut sleepers = Sleepers::new(1000);
    sleepers.sleep(&client, 10);
    sleepers.are_asleep(10);
    sleepers.scheduler.shared.refuses_threads.store(true, Ordering::SeqCst);
    sleepers.sleep(&client, 50);
    let (asleep, threads) = sleepers.settle();
    assert!((10..=threads - 2).contains(&asleep), "{asleep} sleep of {threads}: some are awake");
    for kind in [None, Some(1)] {
        let wait = sleepers.pass(&other, kind, 30);
        for _ in 0..30 {
            wait.recv_timeout(PATIENCE).expect("what is not of that kind is run");
        }
    }
    let of_that_kind = sleepers.pass(&other, Some(0), 30);
    assert_eq!(sleepers.settle(), (asleep, threads));
    assert!(of_that_kind.try_recv().is_err(), "it waits");
    // The bound is now one less than the number of sleepers, or two.
    for _ in 0..3 {
        sleepers.wake.send(()).unwrap();
    }
    for _ in 0..30 {
        of_that_kind.recv_timeout(PATIENCE).expect("the client leaves it something");
    }
    for _ in 0..57 {
        sleepers.wake.send(()).unwrap();
    }
    sleepers.are_asleep(0);
    assert_eq!(sleepers.settle(), (0, threads));
}

#[test]
fn where_all_threads_sleep_the_rescuer_runs_what_does_not() {
    let [client, other]: [Arc<Client>; 2] = Default::default();
    let mut sleepers = Sleepers::new(1000);
    sleepers.are_asleep(0);
    sleepers.scheduler.shared.refuses_threads.store(true, Ordering::SeqCst);
    sleepers.sleep(&client, 20);
    sleepers.are_asleep(1);
    let of_others = sleepers.pass(&other, Some(1), 30);
    for _ in 0..30 {
        let wait = sleepers.pass(&other, None, 10);
        for _ in 0..10 {
            wait.recv_timeout(PATIENCE).expect("what does not sleep is run");
        }
    }
    assert!(of_others.try_recv().is_err(), "there is no thread for what may sleep");
    for _ in 0..20 {
        sleepers.wake.send(()).unwrap();
    }
    for _ in 0..30 {
        of_others.recv_timeout(PATIENCE).expect("there is a thread again");
    }
    sleepers.are_asleep(0);
    assert_eq!(sleepers.scheduler.stats().threads, 1);
}

#[test]
fn the_bound_of_sleepers_grows_again_with_the_threads() {
    let client: Arc<Client> = Arc::default();
    let mut sleepers = Sleepers::new(1000);
    let shared = sleepers.scheduler.shared.clone();
    sleepers.are_asleep(0);
    shared.refuses_threads.store(true, Ordering::SeqCst);
    sleepers.sleep(&client, 2);
    sleepers.are_asleep(1);
    shared.refuses_threads.store(false, Ordering::SeqCst);
    let mut pushed = 2;
    until("many sleep", || {
        sleepers.sleep(&client, 1);
        pushed += 1;
        sleepers.scheduler.stats().asleep >= 20
    });
    for _ in 0..pushed {
        sleepers.wake.send(()).unwrap();
    }
    sleepers.are_asleep(0);
}

#[test]
fn no_task_is_left_behind_that_waited_for_sleepers() {
    let max_asleep = NonZeroUsize::new(5).unwrap();
    let (scheduler, mut dispatcher) =
        Scheduler::<Of>::new(&Config { max_asleep, ..Config::default() }, ()).unwrap();
    let clients: [Arc<Client>; 7] = Default::default();
    let (done, wait) = mpsc::channel();
    for i in 0..3_000 {
        let done = done.clone();
        let work = move || {
            if i % 3 == 0 {
                blocking(|| std::thread::sleep(Duration::from_micros(i as u64 % 50)));
            }
            done.send(()).unwrap();
        };
        dispatcher.push(i, Of(clients[i % 7].clone(), Some(i / 100 % 2), job(work)));
        dispatcher.notify(Instant::now());
    }
    for _ in 0..3_000 {
        wait.recv_timeout(PATIENCE).expect("all run");
    }
    until("nobody sleeps", || scheduler.stats().asleep == 0);
}

/// A task that has no kind any more once it has been told so.
struct Changing(Arc<AtomicUsize>, Job);

impl Task for Changing {
    type Context = ();

    const KINDS: usize = 1;

    fn kind(&self) -> Option<usize> {
        (self.0.load(Ordering::SeqCst) == 0).then_some(0)
    }

    fn run(self, (): &()) {
        self.1.run(&());
    }
}

#[test]
fn who_waits_and_is_not_to_sleep_any_more_goes_on() {
    let max_asleep = NonZeroUsize::MIN;
    let (scheduler, mut dispatcher) =
        Scheduler::<Changing>::new(&Config { max_asleep, ..Config::default() }, ()).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let (held, sleeper) = (gate.lock().unwrap(), gate.clone());
    dispatcher.push(0, Changing(Arc::default(), job(move || blocking(|| drop(sleeper.lock())))));
    dispatcher.notify(Instant::now());
    until("it sleeps", || scheduler.stats().asleep == 1);
    let (changed, (done, wait)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    for _ in 0..10 {
        let done = done.clone();
        dispatcher.push(0, Changing(changed.clone(), job(move || done.send(()).unwrap())));
    }
    dispatcher.notify(Instant::now());
    assert!(wait.recv_timeout(Duration::from_millis(50)).is_err(), "they wait");
    changed.store(1, Ordering::SeqCst);
    dispatcher.reconsider();
    for _ in 0..10 {
        wait.recv_timeout(PATIENCE).expect("they go on");
    }
    drop(held);
}

#[test]
fn who_was_passed_over_and_is_not_to_sleep_any_more_goes_on() {
    let cpus = vec![allowed_cpus().unwrap()[0]];
    let config = Config { cpus, rescuer: true, ..Config::default() };
    let (scheduler, mut dispatcher) = Scheduler::<Changing>::new(&config, ()).unwrap();
    until("the first thread waits", || scheduler.shared.idle.waiting() == 1);
    scheduler.shared.refuses_threads.store(true, Ordering::SeqCst);
    let gate = Arc::new(Mutex::new(()));
    let (held, sleeper) = (gate.lock().unwrap(), gate.clone());
    dispatcher.push(0, Changing(Arc::default(), job(move || blocking(|| drop(sleeper.lock())))));
    dispatcher.notify(Instant::now());
    until("it sleeps", || scheduler.stats().asleep == 1);
    let (changed, (done, wait)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    dispatcher.push(0, Changing(changed.clone(), job(move || done.send(()).unwrap())));
    dispatcher.notify(Instant::now());
    until("it is passed over", || !scheduler.shared.passed_over.is_empty());
    changed.store(1, Ordering::SeqCst);
    dispatcher.reconsider();
    wait.recv_timeout(PATIENCE).expect("it goes on");
    drop(held);
}

#[test]
fn threads_of_a_burst_of_sleepers_end_when_they_wake() {
    const SLEEPERS: usize = 600;
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let gate = Arc::new(Mutex::new(()));
    for _ in 0..2 {
        let held = gate.lock().unwrap();
        for i in 0..SLEEPERS {
            let gate = gate.clone();
            dispatcher.push(i, job(move || blocking(|| drop(gate.lock().unwrap()))));
        }
        dispatcher.notify(Instant::now());
        until("all of them sleep", || scheduler.stats().asleep == SLEEPERS);
        assert!(scheduler.stats().threads >= SLEEPERS, "each has a thread");
        drop(held);
        let most = idle::MOST_WAITING + dispatcher.cores();
        until("no more are left than may wait", || scheduler.stats().threads <= most);
        until("all have woken", || scheduler.stats().asleep == 0);
    }
    let (done, wait) = mpsc::channel();
    dispatcher.push(0, job(move || done.send(()).unwrap()));
    dispatcher.notify(Instant::now());
    wait.recv_timeout(PATIENCE).expect("those that are left go on");
}

#[test]
fn a_task_behind_a_long_one_gets_a_worker_of_its_own() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    if dispatcher.cores() < 2 {
        return;
    }
    let gate = Arc::new(Barrier::new(2));
    let long = gate.clone();
    // The task does not announce its sleep, as a long computation does not.
    let run = move || {
        long.wait();
    };
    dispatcher.push(0, job(run));
    dispatcher.notify(Instant::now());
    until("the long one runs", || scheduler.shared.stealers.iter().all(|deque| deque.is_empty()));
    let (done, wait) = mpsc::channel();
    dispatcher.push(0, job(move || done.send(()).unwrap()));
    dispatcher.notify(Instant::now());
    until("somebody looks", || {
        dispatcher.look(Instant::now());
        dispatcher.next_look().is_none()
    });
    wait.recv_timeout(PATIENCE).expect("the short one runs while the long one does");
    gate.wait();
}

/// A job whose scheduler counts the threads that ended.
struct Counting(Job);

impl Task for Counting {
    type Context = Arc<AtomicUsize>;

    fn run(self, _: &Self::Context) {
        self.0.run(&());
    }

    fn thread_end(ended: &Self::Context) {
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn threads_that_have_nothing_to_do_end_but_for_a_few() {
    const SLEEPERS: usize = 100;
    let ended = Arc::new(AtomicUsize::new(0));
    let config = Config { keep_alive: Duration::from_millis(50), ..Config::default() };
    let (scheduler, mut dispatcher) = Scheduler::<Counting>::new(&config, ended.clone()).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    for i in 0..SLEEPERS {
        let gate = gate.clone();
        dispatcher.push(i, Counting(job(move || blocking(|| drop(gate.lock().unwrap())))));
    }
    dispatcher.notify(Instant::now());
    until("all of them sleep", || scheduler.stats().asleep == SLEEPERS);
    let most = scheduler.stats().threads;
    assert_eq!(ended.load(Ordering::SeqCst), 0, "nobody ends who sleeps in a task");
    drop(held);
    until("a few are left", || {
        scheduler.stats().threads <= idle::KEPT_WAITING + dispatcher.cores()
    });
    let left = scheduler.stats().threads;
    until("each that ended said so", || ended.load(Ordering::SeqCst) >= most - left);
    let (done, wait) = mpsc::channel();
    for i in 0..SLEEPERS {
        let done = done.clone();
        dispatcher.push(i, Counting(job(move || done.send(()).unwrap())));
    }
    dispatcher.notify(Instant::now());
    for _ in 0..SLEEPERS {
        wait.recv_timeout(PATIENCE).expect("those that are left go on");
    }
    assert!(scheduler.stats().threads > 0);
}

#[test]
fn tasks_of_priority_run_while_long_ones_have_all_cores() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let cores = dispatcher.cores();
    let gate = Arc::new(Barrier::new(cores + 1));
    let (runs, running) = mpsc::channel();
    for index in 0..cores {
        let (gate, runs) = (gate.clone(), runs.clone());
        // The tasks do not announce their sleep, as long computations do not.
        dispatcher.push(
            index,
            job(move || {
                runs.send(()).unwrap();
                gate.wait();
            }),
        );
    }
    // One more worker is woken when a task waits for too long.
    dispatcher.notify(Instant::now());
    for _ in 0..cores {
        until("a long one runs", || {
            dispatcher.look(Instant::now());
            running.try_recv().is_ok()
        });
    }
    let (done, wait) = mpsc::channel();
    let other = done.clone();
    dispatcher.push(0, job(move || other.send("behind").unwrap()));
    for _ in 0..3 {
        let done = done.clone();
        dispatcher.push_priority(job(move || done.send("ahead").unwrap()));
        dispatcher.notify(Instant::now());
        let mut came = None;
        until("the reserve has run it", || {
            dispatcher.look(Instant::now());
            came = wait.try_recv().ok();
            came.is_some()
        });
        assert_eq!(came, Some("ahead"), "the reserve leaves all else to the cores");
    }
    assert!(scheduler.stats().threads <= cores + 1, "there is one more thread and not one each");
    gate.wait();
    assert_eq!(wait.recv_timeout(PATIENCE), Ok("behind"));
}

#[test]
fn threads_that_pause_say_so() {
    static PAUSES: AtomicUsize = AtomicUsize::new(0);
    struct Pausing(Job);
    impl Task for Pausing {
        type Context = ();
        fn run(self, (): &()) {
            self.0.run(&());
        }
        fn pause((): &()) {
            PAUSES.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (_pool, mut dispatcher) = Scheduler::<Pausing>::new(&Config::default(), ()).unwrap();
    until("the first thread finds nothing", || PAUSES.load(Ordering::SeqCst) > 0);
    let before = PAUSES.load(Ordering::SeqCst);
    let (done, wait) = mpsc::channel();
    let sleep = move || {
        blocking(|| done.send(PAUSES.load(Ordering::SeqCst)).unwrap());
    };
    dispatcher.push(0, Pausing(job(sleep)));
    dispatcher.notify(Instant::now());
    assert!(wait.recv_timeout(PATIENCE).unwrap() > before, "it pauses before it sleeps");
}

#[test]
fn no_more_threads_run_at_once_than_there_are_cores() {
    let (_pool, mut dispatcher) = scheduler(Duration::ZERO);
    let cores = dispatcher.cores();
    let running = Arc::new(Mutex::new((HashSet::<ThreadId>::new(), 0)));
    let (done, wait) = mpsc::channel();
    for i in 0..2_000 {
        let (running, done) = (running.clone(), done.clone());
        let work = move || {
            {
                let mut running = running.lock().unwrap();
                running.0.insert(std::thread::current().id());
                running.1 = running.0.len().max(running.1);
            }
            std::hint::spin_loop();
            running.lock().unwrap().0.remove(&std::thread::current().id());
            done.send(()).unwrap();
        };
        dispatcher.push(i, job(work));
    }
    dispatcher.notify(Instant::now());
    for _ in 0..2_000 {
        wait.recv_timeout(PATIENCE).expect("all run");
    }
    let most = running.lock().unwrap().1;
    assert!((1..=cores).contains(&most), "{most} ran at once on {cores} cores");
}

#[test]
fn workers_are_pinned_to_the_cpus_asked_for() {
    let allowed = core_affinity::get_core_ids().unwrap();
    let cpu = allowed.last().unwrap().id;
    let config = Config { cpus: vec![cpu, cpu], ..Config::default() };
    let (_pool, mut dispatcher) = Scheduler::<Job>::new(&config, ()).unwrap();
    assert_eq!(dispatcher.cores(), 1, "a CPU named twice is one core");
    let (done, wait) = mpsc::channel();
    let seen = move || done.send(core_affinity::get_core_ids().unwrap()).unwrap();
    dispatcher.push(0, job(seen));
    dispatcher.notify(Instant::now());
    let ids = wait.recv_timeout(PATIENCE).unwrap();
    assert_eq!(ids.iter().map(|id| id.id).collect::<Vec<_>>(), [cpu]);
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_that_names_it() {
    let config = Config { cpus: vec![99_999], ..Config::default() };
    let error = Scheduler::<Job>::new(&config, ()).map(drop).unwrap_err().to_string();
    assert!(error.contains("99999"), "{error}");
}

#[test]
fn a_panic_is_counted_and_the_worker_goes_on() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let (done, wait) = mpsc::channel();
    for index in 0..dispatcher.cores() {
        dispatcher.push(index, job(|| std::panic::resume_unwind(Box::new(()))));
    }
    dispatcher.push(0, job(move || done.send(()).unwrap()));
    dispatcher.notify(Instant::now());
    wait.recv_timeout(PATIENCE).expect("the next task runs");
    until("panics are counted", || scheduler.stats().panics == dispatcher.cores() as u64);
}

#[test]
fn a_dropped_pool_ends_its_threads() {
    let (scheduler, mut dispatcher) = scheduler(Duration::ZERO);
    let shared = Arc::downgrade(&scheduler.shared);
    let (done, wait) = mpsc::channel();
    dispatcher.push(0, job(move || done.send(()).unwrap()));
    dispatcher.notify(Instant::now());
    wait.recv_timeout(PATIENCE).unwrap();
    drop(dispatcher);
    drop(scheduler);
    until("the threads let go of the pool", || shared.strong_count() == 0);
}

#[test]
fn lists_of_cpus() {
    assert_eq!(parse_cpus("0,2-4"), Ok(vec![0, 2, 3, 4]));
    for bad in ["", "x", "3-1", "0-99999999", "1,", "-1"] {
        assert!(parse_cpus(bad).is_err(), "{bad:?} is no list");
    }
}

/// A task whose worker panics when it has no tasks left.
struct Last;

impl Task for Last {
    type Context = mpsc::Sender<()>;

    fn run(self, _: &Self::Context) {}

    fn pause(_: &Self::Context) {
        panic!("a panic that no task has made");
    }

    fn worker_panicked(context: &Self::Context) {
        context.send(()).expect("the test waits for it");
    }
}

#[test]
fn a_worker_that_panics_outside_of_tasks_is_told_of() {
    let (told, hear) = mpsc::channel();
    let (_pool, mut dispatcher) = Scheduler::new(&Config::default(), told).expect("a pool starts");
    dispatcher.push(0, Last);
    dispatcher.notify(Instant::now());
    hear.recv_timeout(PATIENCE).expect("somebody is told");
}
