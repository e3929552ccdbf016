//! `rumpring calls`: what the embedded kernel has, as the README shows it.

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

/// The calls it has, by family; of some the family says what is missing.
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
