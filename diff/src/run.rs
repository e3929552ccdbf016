//! Runs scripts and random sequences on two servers, and confirms each difference.

use crate::duel::Duel;
use crate::outcome::Difference;
use crate::parse::{Case, ParseError};
use crate::random::{Family, sequence};
use crate::report::{Example, Report};
use crate::shrink::shrink;
use crate::side::Broken;
use crate::step::Step;

/// The factors by which each step's time is multiplied: a difference must show again with all of them,
/// otherwise it is a matter of timing.
const SLOWER: [u32; 3] = [1, 8, 40];

/// The reason why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{during}: {source}")]
    Broken {
        /// The sequence, to see it again.
        during: String,
        source: Broken,
    },
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
}

/// A run: its servers and what it has found so far.
pub struct Run<'a> {
    duel: Duel,
    report: Report,
    /// Called with each new difference.
    tell: &'a mut dyn FnMut(&Example),
}

impl<'a> Run<'a> {
    pub fn new(duel: Duel, tell: &'a mut dyn FnMut(&Example)) -> Run<'a> {
        Run { duel, report: Report::default(), tell }
    }

    /// Runs the sequences of a script; `option` selects it on the command line.
    pub fn script(&mut self, option: &str, cases: &[Case]) -> Result<(), RunError> {
        self.report.scripts += 1;
        for case in cases {
            let again = format!("{option} (== {})", case.name);
            self.sequence(&case.steps, false, again)?;
        }
        Ok(())
    }

    /// Runs a random sequence of a family.
    pub fn random(&mut self, family: &Family, seed: u64, steps: usize) -> Result<(), RunError> {
        self.report.sequences += 1;
        let again = format!("--family {} --seed {seed} --sequences 1 --steps {steps}", family.name);
        self.sequence(&sequence(family, seed, steps)?, true, again)
    }

    fn sequence(
        &mut self,
        steps: &[Step],
        may_shrink: bool,
        again: String,
    ) -> Result<(), RunError> {
        let broken = |source| RunError::Broken { during: in_full(&again, steps), source };
        let Some(first) = self.duel.run(steps).map_err(broken)? else { return Ok(()) };
        if !self.report.count(&first) {
            return Ok(());
        }
        let shown = self.confirm(steps, first, may_shrink);
        let Some((difference, steps)) = shown.map_err(broken)? else {
            return Ok(());
        };
        let example = self.report.add(difference, &steps, again);
        (self.tell)(example);
        Ok(())
    }

    /// Makes a difference show again, in as few steps as possible. Returns `None` if it does not: then
    /// it was a matter of timing, and both servers can give either answer.
    fn confirm(
        &mut self,
        steps: &[Step],
        first: Difference,
        may_shrink: bool,
    ) -> Result<Option<(Difference, Vec<Step>)>, Broken> {
        let key = first.key();
        let Some(found) = self.shows_again(steps, &key)? else { return Ok(None) };
        if may_shrink {
            let kept = shrink(steps, |steps| Ok::<_, Broken>(self.shows(steps, &key)?.is_some()))?;
            if let Some(found) = self.shows_again(&kept, &key)? {
                return Ok(Some((found, kept)));
            }
        }
        Ok(Some((found, steps.to_vec())))
    }

    /// Returns the difference, if these steps show it every time.
    fn shows_again(&mut self, steps: &[Step], key: &str) -> Result<Option<Difference>, Broken> {
        let mut found = Ok(None);
        for times in SLOWER {
            self.duel.slow_down(times);
            found = self.shows(steps, key);
            if !matches!(found, Ok(Some(_))) {
                break;
            }
        }
        self.duel.slow_down(1);
        found
    }

    /// Returns the difference, if these steps still show it first.
    fn shows(&mut self, steps: &[Step], key: &str) -> Result<Option<Difference>, Broken> {
        let found = self.duel.run(steps)?;
        Ok(found.filter(|found| found.key() == key))
    }

    /// Ends the run: cleans the servers and returns the report.
    pub fn end(mut self) -> Report {
        for side in self.duel.sides() {
            crate::prepare::clean(side);
        }
        self.report.steps = self.duel.steps();
        self.report
    }
}

/// Returns a sequence that a server did not survive, in full: no server is left to make it short on.
fn in_full(again: &str, steps: &[Step]) -> String {
    let lines: Vec<String> = steps.iter().map(|step| format!("    {step}\n")).collect();
    format!("{again}:\n{}", lines.concat())
}
