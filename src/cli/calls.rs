//! `rumpring calls`: the calls of the embedded kernel, as the README shows them.

use std::collections::BTreeMap;

use clap::Args;

use super::Failure;
use crate::output;
use embedded::{self, Status};

/// List the system calls of the embedded kernel, as a table in Markdown.
#[derive(Args)]
pub struct Calls {}

impl Calls {
    pub fn run(&self) -> Result<(), Failure> {
        Ok(output::print(table())?)
    }
}

/// Returns a table of the kernel's calls, by family, with what is missing of some.
pub fn table() -> String {
    let mut families: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for entry in embedded::table() {
        let missing = match entry.status {
            Status::Absent => continue,
            Status::Implemented => "",
            Status::Partial(missing) => missing,
        };
        let family = families.entry(entry.family).or_default();
        family.entry(missing).or_default().push(format!("`{}`", entry.name));
    }
    let mut text = String::from("| family | calls | of which is missing |\n| --- | --- | --- |\n");
    for (family, calls) in &families {
        for (missing, names) in calls {
            text += &format!("| {family} | {} | {missing} |\n", names.join(", "));
        }
    }
    text
}
