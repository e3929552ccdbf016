//! The sequences written by hand, a file for each family.

use crate::parse::{Case, ParseError, script};

/// A file of sequences.
pub struct Script {
    pub name: &'static str,
    text: &'static str,
}

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        &[$(Script { name: $name, text: include_str!(concat!("../scripts/", $name, ".txt")) }),*]
    };
}

/// All scripts.
pub const SCRIPTS: &[Script] = scripts![
    "open",
    "edges",
    "large",
    "names",
    "entries",
    "links",
    "at",
    "nodes",
    "roots",
    "rights",
    "times",
    "descriptors",
    "locks",
    "pipes",
    "fifos",
    "local",
    "inet",
    "inet6",
    "interfaces",
    "poll",
    "kqueue",
    "time",
    "processes",
    "sysctl",
];

impl Script {
    /// Parses the script's sequences.
    pub fn cases(&self) -> Result<Vec<Case>, ParseError> {
        script(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_can_be_read() {
        for script in SCRIPTS {
            let cases = script.cases().unwrap_or_else(|error| panic!("{}: {error}", script.name));
            assert!(!cases.is_empty(), "{} has sequences", script.name);
            for (at, case) in cases.iter().enumerate() {
                assert!(!case.steps.is_empty(), "{}: {} has steps", script.name, case.name);
                let twice = cases[..at].iter().any(|other| other.name == case.name);
                assert!(!twice, "{}: {} is there twice", script.name, case.name);
            }
        }
    }
}
