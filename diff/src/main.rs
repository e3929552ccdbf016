//! `rumpring-diff`: checks whether two servers give the same answers.

#![forbid(unsafe_code)]
// These macros panic when nobody reads what they print: see `rumpring::output`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser};
use rumpring::output::{self, PrintError};
use rumpring_diff::duel::{Duel, Times};
use rumpring_diff::random::{self, FAMILIES, Family};
use rumpring_diff::report::{Example, Report};
use rumpring_diff::run::{Run, RunError};
use rumpring_diff::scripts::{SCRIPTS, Script};
use rumpring_diff::{parse, prepare};
use rumpsp::url::Url;

/// The name of the program, with which errors begin.
const NAME: &str = "rumpring-diff";

/// Run the same system calls on two servers and compare the answers.
///
/// Sequences written by hand come first, then random ones. Results, errors, bytes copied out, signals and
/// which calls block must be the same. Ends with success if no difference was found but known ones.
///
/// A rump kernel has fifos with -l rumpvfs_fifofs.
#[derive(Parser)]
#[command(name = "rumpring-diff", version)]
struct Cli {
    /// One server, as `unix:///tmp/rump.sock`.
    #[arg(required_unless_present = "list")]
    one: Option<Url>,

    /// The other.
    #[arg(required_unless_present = "list")]
    other: Option<Url>,

    /// Only random sequences of this family.
    #[arg(long, value_name = "NAME", value_parser = parse_family)]
    family: Vec<&'static str>,

    /// Only this script.
    #[arg(long, value_name = "NAME", value_parser = parse_script)]
    script: Vec<&'static str>,

    /// Only the sequences in this file, as they are printed.
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,

    /// Seed of the first random sequence of each family; the others follow it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Random sequences of each family.
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    sequences: u64,

    /// Steps of a random sequence.
    #[arg(long, value_name = "N", default_value_t = 40,
        value_parser = clap::value_parser!(u16).range(1..=10_000))]
    steps: u16,

    /// Milliseconds after which a call without an answer blocks.
    #[arg(long, value_name = "MS", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    grace: u64,

    /// Print the names of scripts and families.
    #[arg(long, exclusive = true)]
    list: bool,
}

fn parse_family(name: &str) -> Result<&'static str, String> {
    let known = random::family(name).map(|family| family.name);
    known.ok_or_else(|| "no such family; --list prints them".to_string())
}

fn parse_script(name: &str) -> Result<&'static str, String> {
    let known = SCRIPTS.iter().find(|script| script.name == name).map(|script| script.name);
    known.ok_or_else(|| "no such script; --list prints them".to_string())
}

impl Cli {
    fn is_all(&self) -> bool {
        self.script.is_empty() && self.family.is_empty() && self.file.is_empty()
    }

    /// Returns the scripts to run: all, unless the command line restricts them.
    fn scripts(&self) -> impl Iterator<Item = &'static Script> {
        let is_all = self.is_all();
        SCRIPTS.iter().filter(move |script| is_all || self.script.contains(&script.name))
    }

    /// Returns the families to run: all, unless the command line restricts them.
    fn families(&self) -> impl Iterator<Item = &'static Family> {
        let is_all = self.is_all();
        FAMILIES.iter().filter(move |family| is_all || self.family.contains(&family.name))
    }
}

fn list() -> Result<(), PrintError> {
    let scripts: Vec<&str> = SCRIPTS.iter().map(|script| script.name).collect();
    let families: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let (scripts, families) = (scripts.join(" "), families.join(" "));
    output::print(format_args!("scripts: {scripts}\nfamilies: {families}\n"))
}

/// The time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(30);

fn run(cli: &Cli, urls: &[Url; 2]) -> Result<Report, Box<dyn Error>> {
    let sides = prepare::sides(urls)
        .map_err(|source| RunError::Broken { during: "preparing".into(), source })?;
    let times = Times::new(Duration::from_millis(cli.grace));
    let mut printed = Ok(());
    let mut tell = |example: &Example| {
        if printed.is_ok() {
            printed = output::print(format_args!("{example}\n"));
        }
    };
    let mut run = Run::new(Duel::new(sides, times), &mut tell);
    for path in &cli.file {
        let option = format!("--file {}", path.display());
        let text = std::fs::read_to_string(path)
            .map_err(|source| RunError::File { path: path.display().to_string(), source })?;
        run.script(&option, &parse::script(&text)?)?;
    }
    for script in cli.scripts() {
        run.script(&format!("--script {}", script.name), &script.cases()?)?;
    }
    let mut told = Instant::now();
    for family in cli.families() {
        for number in 0..cli.sequences {
            run.random(family, cli.seed.wrapping_add(number), cli.steps.into())?;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (name, done, all) = (family.name, number + 1, cli.sequences);
                output::say(format_args!("{name}: {done} of {all} sequences"));
            }
        }
    }
    let report = run.end();
    printed?;
    output::print(format_args!("{report}\n"))?;
    Ok(report)
}

/// Refuses options of random sequences where there are no random sequences.
fn check(cli: &Cli, given: &ArgMatches) -> Result<(), String> {
    let was_given = |id| given.value_source(id) == Some(ValueSource::CommandLine);
    if !cli.family.is_empty() && cli.sequences == 0 {
        return Err("--family says nothing with --sequences 0; have one at least".into());
    }
    let is_random = cli.families().next().is_some();
    match ["seed", "sequences", "steps"].into_iter().find(|id| !is_random && was_given(id)) {
        Some(id) => Err(format!(
            "--{id} says nothing to scripts and files; --family NAME has random sequences, too"
        )),
        None => Ok(()),
    }
}

fn main() -> ExitCode {
    let (cli, given): (Cli, _) = match output::parse_with_matches(NAME) {
        Ok(parsed) => parsed,
        Err(status) => return status,
    };
    check(&cli, &given).unwrap_or_else(|error| {
        Cli::command().error(ErrorKind::ArgumentConflict, error).exit();
    });
    let (Some(one), Some(other), false) = (&cli.one, &cli.other, cli.list) else {
        return output::end(NAME, list());
    };
    match run(&cli, &[one.clone(), other.clone()]) {
        Ok(report) if !report.is_clean() => ExitCode::FAILURE,
        result => output::end(NAME, result.map(drop)),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn an_option_that_says_nothing_is_refused() {
        let is_good = |words: &str| {
            let words = std::iter::once("rumpring-diff").chain(words.split(' '));
            let given = Cli::command().try_get_matches_from(words).map_err(|_| ())?;
            check(&Cli::from_arg_matches(&given).map_err(|_| ())?, &given).map_err(|_| ())
        };
        for (words, good) in [
            ("unix://a unix://b --seed 7 --sequences 3 --steps 9", true),
            ("unix://a unix://b --script pipes --family pipes --seed 7", true),
            ("unix://a unix://b --script pipes --seed 7", false),
            ("unix://a unix://b --file x --steps 7", false),
            ("unix://a unix://b --file x --sequences 20", false),
            ("unix://a unix://b --sequences 0", true),
            ("unix://a unix://b --family pipes --sequences 0", false),
            ("--list", true),
            ("--list --seed 7", false),
            ("unix://a unix://b --list", false),
        ] {
            assert_eq!(is_good(words).is_ok(), good, "{words}");
        }
    }
}
