//! Runs a sequence on two servers at once, step by step, until the first difference.
//!
//! A step whose answer does not come within the grace time blocks; it stays in flight, and the step
//! that later wakes it is the step after which it has ended. Both servers must agree on that step.
//! If they disagree they get more time, since machines are shared: only a difference that remains
//! then counts. A step that NetBSD's kernel would not survive is skipped ([`Side::closes_in_use`]).

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use kernel::Errno;

use crate::outcome::{Difference, Ending, Outcome, compare};
use crate::side::{Broken, Side};
use crate::step::Step;

/// The time between two looks at the servers.
const GLANCE: Duration = Duration::from_micros(200);

/// The time between two steps, for work that a kernel does after its answer: a segment crosses the
/// loopback, a closed socket goes.
const PACE: Duration = Duration::from_millis(1);

/// The times for which a duel waits.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The time after which a call that has not ended counts as blocked.
    pub grace: Duration,
    /// The time for a wake-up to show, once the step that caused it has ended.
    pub settle: Duration,
    /// The time after which a thing that only one server has done counts as a difference.
    pub patience: Duration,
}

impl Times {
    /// Returns the times for this grace time.
    pub fn new(grace: Duration) -> Times {
        Times { grace, settle: grace / 4, patience: (grace * 20).max(Duration::from_secs(2)) }
    }
}

/// Two servers.
pub struct Duel {
    sides: [Side; 2],
    times: Times,
    /// The time between two steps.
    pace: Duration,
    /// The number of sequences so far, for their directories.
    sequences: u64,
    steps: u64,
}

/// The effects of a step on a server so far that must show on both servers.
#[derive(PartialEq, Eq)]
struct Seen {
    ended: BTreeSet<usize>,
    signals: Vec<(String, Vec<i32>)>,
}

impl Duel {
    pub fn new(sides: [Side; 2], times: Times) -> Duel {
        Duel { sides, times, pace: PACE, sequences: 0, steps: 0 }
    }

    /// Multiplies the usual time between two steps from now on: a busy machine may need it.
    pub fn slow_down(&mut self, times: u32) {
        self.pace = PACE * times;
    }

    /// Returns the number of steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn sides(&self) -> &[Side; 2] {
        &self.sides
    }

    /// Runs a sequence, up to its first difference.
    pub fn run(&mut self, steps: &[Step]) -> Result<Option<Difference>, Broken> {
        self.sequences += 1;
        for side in &mut self.sides {
            side.enter(self.sequences)?;
        }
        let mut found = Ok(None);
        for (number, step) in steps.iter().enumerate() {
            self.steps += 1;
            found = self.step(number, step, steps);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        for side in &mut self.sides {
            side.leave();
        }
        for side in &self.sides {
            side.is_alive()?;
        }
        found
    }

    fn step(
        &mut self,
        number: usize,
        step: &Step,
        steps: &[Step],
    ) -> Result<Option<Difference>, Broken> {
        if self.sides.iter().any(|side| side.closes_in_use(step)) {
            return Ok(None);
        }
        for side in &mut self.sides {
            side.begin(number, step)?;
        }
        self.settle(number);
        Ok(self.difference(number, steps))
    }

    /// Waits until both servers have finished a step's work.
    fn settle(&mut self, step: usize) {
        let start = Instant::now();
        loop {
            for side in &mut self.sides {
                side.look();
            }
            let elapsed = start.elapsed();
            if elapsed >= self.time_for(step) {
                return;
            }
            match self.sides.iter_mut().find(|side| side.outcome(step).is_none()) {
                Some(side) => side.wait(step, GLANCE * 5),
                None => thread::sleep(GLANCE),
            }
        }
    }

    /// Returns the time to wait in all, as it looks now.
    fn time_for(&self, step: usize) -> Duration {
        let ended = [0, 1].map(|side| self.sides[side].outcome(step));
        let is_absent = ended.iter().flatten().any(|outcome| outcome.ending.is_absent());
        if self.seen(0) != self.seen(1) {
            return if is_absent { self.times.grace } else { self.times.patience };
        }
        if ended.iter().any(Option::is_none) {
            return self.times.grace;
        }
        let is_waiting = self.sides.iter().any(Side::is_waiting);
        if is_waiting { self.times.settle } else { self.pace }
    }

    fn seen(&self, side: usize) -> Seen {
        let side = &self.sides[side];
        Seen {
            ended: side.ended().keys().copied().collect(),
            signals: side.signals().into_iter().collect(),
        }
    }

    /// Returns the kinds of a difference in signals, which are others if neither server has the call.
    fn kinds_of_signals(&self, step: usize) -> [&'static str; 2] {
        let mut outcomes = self.sides.iter().filter_map(|side| side.outcome(step));
        let lacks = |outcome: &Outcome| outcome.ending == Ending::Errno(Errno::ENOSYS.0);
        match outcomes.all(lacks) {
            true => ["ENOSYS and signals", "ENOSYS and other signals"],
            false => ["signals", "other signals"],
        }
    }

    /// Returns the first difference up to step `last`, in outcomes or else in signals.
    fn difference(&self, last: usize, steps: &[Step]) -> Option<Difference> {
        let [one, other] = &self.sides;
        let outcome = (0..=last).find_map(|number| {
            let seen = [one.outcome(number), other.outcome(number)];
            let found = compare(number, steps[number].name(), seen)?;
            Some(Difference { shown: last, ..found })
        });
        let signals = [one.signals(), other.signals()];
        let found = outcome.or_else(|| {
            (signals[0] != signals[1]).then(|| Difference {
                step: last,
                shown: last,
                name: steps[last].name(),
                text: String::new(),
                earlier: String::new(),
                kinds: self.kinds_of_signals(last).map(String::from),
                details: signals.map(|heard| format!("{heard:?}")),
            })
        })?;
        let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
        let (text, earlier) = (texts[found.step].into(), texts[..found.step].join("\n"));
        Some(Difference { text, earlier, ..found })
    }
}
