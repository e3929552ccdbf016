//! The differences that were found, counted and in words.

use std::collections::BTreeMap;
use std::fmt;

use crate::known;
use crate::outcome::Difference;
use crate::step::Step;

/// The most differences kept with an example.
const MOST_EXAMPLES: usize = 500;

/// A difference with the steps that show it.
#[derive(Clone, Debug)]
pub struct Example {
    pub difference: Difference,
    /// The steps that show it; the difference shows after the last one.
    pub steps: Vec<String>,
    /// The options to see it again.
    pub again: String,
    pub count: u64,
}

/// The results of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub scripts: u64,
    pub sequences: u64,
    pub steps: u64,
    /// Unknown differences, by [`Difference::key`].
    unknown: BTreeMap<String, Example>,
    /// The number of known differences, by reason.
    known: BTreeMap<&'static str, u64>,
    /// The number of differences beyond the bound on examples.
    more: u64,
}

impl Report {
    /// Counts a difference. Returns `true` if it is new and an example is wanted.
    pub fn count(&mut self, difference: &Difference) -> bool {
        if let Some(reason) = known::reason(difference) {
            *self.known.entry(reason).or_default() += 1;
            return false;
        }
        if let Some(example) = self.unknown.get_mut(&difference.key()) {
            example.count += 1;
            return false;
        }
        let is_wanted = self.unknown.len() < MOST_EXAMPLES;
        self.more += u64::from(!is_wanted);
        is_wanted
    }

    /// Keeps the first example of a difference.
    pub fn add(&mut self, difference: Difference, steps: &[Step], again: String) -> &Example {
        // Steps behind it were not made.
        let made = steps.iter().take(difference.shown + 1);
        let steps = made.map(|step| step.text.clone()).collect();
        let key = difference.key();
        self.unknown.entry(key).or_insert(Example { difference, steps, again, count: 1 })
    }

    /// Returns the differences without a known reason.
    pub fn unknown(&self) -> impl Iterator<Item = &Example> {
        self.unknown.values()
    }

    /// Returns `true` if there are no unknown differences.
    pub fn is_clean(&self) -> bool {
        self.unknown.is_empty() && self.more == 0
    }

    /// Returns the number of known differences.
    pub fn known(&self) -> u64 {
        self.known.values().sum()
    }
}

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Example { difference, steps, again, .. } = self;
        writeln!(f, "{}", difference.key())?;
        for (at, step) in steps.iter().enumerate() {
            let mark = if at == difference.step { '>' } else { ' ' };
            writeln!(f, "  {mark} {step}")?;
        }
        writeln!(f, "    one:   {}", difference.details[0])?;
        writeln!(f, "    other: {}", difference.details[1])?;
        writeln!(f, "    again: {again}")
    }
}

impl fmt::Display for Report {
    /// Prints the differences by frequency, then one line of sums.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut examples: Vec<&Example> = self.unknown.values().collect();
        examples.sort_by_key(|example| std::cmp::Reverse(example.count));
        for example in examples {
            writeln!(f, "{:6} {}", example.count, example.difference.key())?;
        }
        for (reason, count) in &self.known {
            writeln!(f, "{count:6} known: {reason}")?;
        }
        if self.more > 0 {
            writeln!(f, "{:6} more, of which no example was kept", self.more)?;
        }
        let Report { scripts, sequences, steps, unknown, .. } = self;
        write!(
            f,
            "{scripts} scripts, {sequences} random sequences, {steps} steps: {} differences, {} known",
            unknown.len(),
            self.known(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(kinds: [&str; 2]) -> Difference {
        let kinds = kinds.map(String::from);
        Difference {
            step: 0,
            shown: 0,
            name: "kill",
            text: String::new(),
            earlier: String::new(),
            details: kinds.clone(),
            kinds,
        }
    }

    #[test]
    fn differences_are_counted_by_kind() {
        let mut report = Report::default();
        let found = difference(["ok", "EPERM"]);
        assert!(report.count(&found));
        report.add(found.clone(), &[], String::new());
        assert!(!report.count(&found));
        assert!(!report.count(&difference(["ok", "ENOSYS"])));
        assert!(!report.is_clean());
        assert_eq!((report.unknown().count(), report.known()), (1, 1));
        let text = report.to_string();
        assert!(text.starts_with("     2 kill: ok / EPERM\n"), "{text}");
        assert!(text.ends_with("1 differences, 1 known"), "{text}");
    }
}
