//! A load of a comparison: its calls, its connections, and its rate.

use std::fmt;

use crate::load::Plan;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSpec {
    pub plan: Plan,
    pub when: When,
}

/// The time at which calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A call is made as soon as the call before is answered: a closed loop.
    Answered,
    /// At a given number of calls a second: an open loop.
    Rate(u64),
    /// At a given percentage of the rate that the same server reached in a closed loop: an open loop,
    /// too.
    Percent(u32),
}

impl LoadSpec {
    /// Returns `true` if calls are made at a rate.
    pub fn is_open(&self) -> bool {
        self.when != When::Answered
    }

    /// Returns the same load in a closed loop.
    pub fn closed(self) -> LoadSpec {
        LoadSpec { when: When::Answered, ..self }
    }

    /// Returns the settings besides the call, in words.
    pub fn with(&self) -> String {
        let Plan { connections, in_flight, .. } = self.plan;
        match self.when {
            When::Answered => format!("{connections} x {in_flight}"),
            When::Rate(rate) => format!("{connections} x {in_flight} at {rate}/s"),
            When::Percent(percent) => format!("{connections} x {in_flight} at {percent} %"),
        }
    }

    /// Returns the load as part of a file's name.
    pub fn in_file_name(&self) -> String {
        let Plan { call, connections, in_flight } = self.plan;
        let call = call.to_string().replace(':', "-");
        let when = match self.when {
            When::Answered => String::new(),
            When::Rate(rate) => format!("-{rate}cps"),
            When::Percent(percent) => format!("-{percent}pct"),
        };
        format!("{call}-{connections}x{in_flight}{when}")
    }
}

impl fmt::Display for LoadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plan.call, self.with())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_one_from_the_other() {
        let call = "pwrite:4k".parse().unwrap();
        let plan = Plan { call, connections: 4, in_flight: 2 };
        for (when, words, file) in [
            (When::Answered, "pwrite:4k 4 x 2", "pwrite-4k-4x2"),
            (When::Rate(90), "pwrite:4k 4 x 2 at 90/s", "pwrite-4k-4x2-90cps"),
            (When::Percent(50), "pwrite:4k 4 x 2 at 50 %", "pwrite-4k-4x2-50pct"),
        ] {
            let load_spec = LoadSpec { plan, when };
            assert_eq!(
                (load_spec.to_string().as_str(), load_spec.in_file_name().as_str()),
                (words, file)
            );
            assert_eq!(load_spec.is_open(), when != When::Answered);
        }
    }
}
