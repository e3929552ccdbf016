//! The form of attacks, and the code that runs them.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use client::Client;
use rumpsp::wire::ErrorCode;

use crate::process::{raise_file_limit, say};
use crate::support::{FrameClient, Said, refusal};
use crate::target::{Kind, Target};

/// Attacks of one kind.
pub struct Group {
    pub name: &'static str,
    pub attacks: &'static [Attack],
}

/// An attack of a hostile client.
pub struct Attack {
    pub name: &'static str,
    act: Act,
}

enum Act {
    Holds(fn(&Target) -> Held),
    Vanishes(fn(&Target) -> Option<Vec<FrameClient>>),
}

/// The things a hostile client keeps while others are to be served. `None` means that there is no such
/// attack on this target.
pub type Held = Option<Box<dyn Any>>;

/// Makes an attack whose clients keep their connections, and then let go.
pub const fn attack(name: &'static str, act: fn(&Target) -> Held) -> Attack {
    Attack { name, act: Act::Holds(act) }
}

/// Makes a moment at which clients vanish, in each way.
pub const fn moment(name: &'static str, stage: fn(&Target) -> Option<Vec<FrameClient>>) -> Attack {
    Attack { name, act: Act::Vanishes(stage) }
}

pub fn hold<T: Any>(held: T) -> Held {
    Some(Box::new(held))
}

/// A way to vanish, with its name.
type Way = (&'static str, fn(FrameClient));

const WAYS: [Way; 3] = [
    ("a close", drop),
    ("a reset", FrameClient::reset),
    ("a half-close", FrameClient::half_close_and_go),
];

thread_local! {
    /// The step that the attack is at, for the message of its failure.
    static STEP: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sets the step that the attack is at.
pub fn step(what: impl Into<String>) {
    STEP.set(what.into());
}

/// Runs all attacks of a group on one server, one after the other.
pub fn run(group: &Group, kind: Kind) {
    static IN_ALL: AtomicUsize = AtomicUsize::new(0);
    let wanted = wanted();
    let attacks = || group.attacks.iter().filter(|attack| attack.name.contains(&wanted));
    if attacks().next().is_none() {
        return;
    }
    raise_file_limit();
    let target = Target::start(kind);
    let begun = Instant::now();
    let resident = target.client();
    let ran = attacks().filter(|attack| attack.run(&target, &resident)).count();
    drop(resident);
    let name = target.to_string();
    target.ends_well();
    let (in_all, took) = (IN_ALL.fetch_add(ran, Relaxed) + ran, begun.elapsed());
    let of = group.attacks.len();
    say(&format!("{name}: {ran} of {of} attacks of {} in {took:.1?}; {in_all} in all", group.name));
}

/// Returns the text that the names of the attacks to run contain: the variable ATTACK.
fn wanted() -> String {
    std::env::var("ATTACK").unwrap_or_default()
}

impl Attack {
    /// Runs the attack. Returns `false` if it was not run: not every target has the calls it needs.
    fn run(&self, target: &Target, resident: &Client) -> bool {
        step("");
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| match self.act {
            Act::Holds(act) => holds(act, target, resident),
            Act::Vanishes(stage) => vanishes(stage, target, resident),
        }));
        let ran = outcome.unwrap_or_else(|panic| {
            let (name, said, at) = (self.name, words(&*panic), STEP.take());
            panic!("the attack {name:?} on {target}, at {at:?}: {said}")
        });
        println!(
            "{target}: {}: {}, {:.1?}",
            self.name,
            if ran { "ran" } else { "none such" },
            begun.elapsed()
        );
        ran
    }
}

fn holds(act: fn(&Target) -> Held, target: &Target, resident: &Client) -> bool {
    let Some(held) = act(target) else {
        return false;
    };
    is_served(target, resident, "the hostile client holds on");
    drop(held);
    is_served(target, resident, "the hostile client has gone");
    true
}

fn vanishes(
    stage: fn(&Target) -> Option<Vec<FrameClient>>,
    target: &Target,
    resident: &Client,
) -> bool {
    for (name, way) in WAYS {
        step(format!("the way to {name}"));
        let Some(clients) = stage(target) else {
            return false;
        };
        is_served(target, resident, &format!("before {name}"));
        step(name);
        clients.into_iter().for_each(way);
        is_served(target, resident, &format!("after {name}"));
    }
    true
}

fn is_served(target: &Target, resident: &Client, when: &str) {
    step(when);
    target.is_alive();
    target.serves(resident);
}

/// Returns the message of a panic.
pub fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// A thread that repeats something until this is dropped, or until the function returns `false`.
pub struct Busy {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    pub fn new(mut turn: impl FnMut() -> bool + Send + 'static) -> Busy {
        let over: Arc<AtomicBool> = Arc::default();
        let is_over = over.clone();
        let thread = thread::spawn(move || while !is_over.load(Relaxed) && turn() {});
        Busy { over, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !thread::panicking()
        {
            panic!("a busy attacker: {}", words(&*panic));
        }
    }
}

/// The server's reaction to bad bytes.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// An error, and the client stays.
    Error(ErrorCode),
    /// An error, then a hang-up.
    ErrorAndEnd(ErrorCode),
    /// A hang-up.
    End,
}

/// Sends bad bytes, whose request number is 9, and checks the server's reaction.
pub fn meets(mut client: FrameClient, bytes: &[u8], fate: Fate, what: impl Into<String>) {
    step(what);
    client.send(bytes);
    if let Fate::Error(code) | Fate::ErrorAndEnd(code) = fate {
        client.expect(Said::refused(9, code));
    }
    match fate {
        Fate::Error(_) => drop(client.getpid()),
        Fate::ErrorAndEnd(_) | Fate::End => client.expect_end(),
    }
}

/// Returns the number of the server's next request.
pub fn asked(client: &mut FrameClient) -> u64 {
    match client.hear() {
        Said::Copyin { reqno, .. }
        | Said::Copyinstr { reqno, .. }
        | Said::Anonmmap { reqno, .. } => reqno,
        said => panic!("expected to be asked, not {said:?}"),
    }
}

/// Declines the requests of a call until the call ends; other frames are dropped.
pub fn end_of_call(client: &mut FrameClient, call: u64) -> i32 {
    loop {
        match client.hear() {
            Said::Copyin { reqno, .. }
            | Said::Copyinstr { reqno, .. }
            | Said::Anonmmap { reqno, .. } => client.send(&refusal(reqno)),
            Said::Result { reqno, error, .. } if reqno == call => return error,
            Said::Result { .. } | Said::Copyout { .. } | Said::Raise { .. } => {}
            said => panic!("expected the end of call {call}, not {said:?}"),
        }
    }
}
