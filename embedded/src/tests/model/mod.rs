//! The file system against a model: random sequences of calls by a few guests, made to the kernel and to a
//! model that is as plain as it can be and shares no code with it. The results of each call must be equal,
//! and now and then the whole state: names, kinds, sizes, link counts, contents, the pairing of nodes and
//! inodes, and the kernel's counts.
//!
//! `cargo test` runs one or two hundred sequences. `SEQUENCES=100000 cargo test --release --lib model` runs
//! more, `SEED=n` repeats one of them; a failure names its seed and shows a short sequence that fails too.
//!
//! - `steps`: the steps of sequences; `guests`: making the calls to a kernel
//! - `kernel`: the model, continued in `files` and `names`; `nodes`, `paths`: its parts

mod files;
mod guests;
mod kernel;
mod names;
mod nodes;
mod paths;
mod steps;

use std::convert::Infallible;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::testing::o;
use super::super::{Limits, Usage};
use super::shrink::shrink;
use crate::seeds::on_all_cpus;
use guests::Real;
use kernel::{Answer, Model};
use nodes::{DIRECTORY, FILE, ROOT, What};
use steps::{Op, Source, Step, brief, here};

/// The number of families, the first of which only looks, and the most guests including their children.
const FIRST: usize = 4;
const MOST: usize = 6;

/// The steps of a sequence, and the steps between two looks at everything.
const STEPS: usize = 120;
const LOOK: usize = 30;

/// The bytes that the guests take in a run: with few, a call that lists or reads takes several runs.
const ROOMS: [usize; FIRST] = [256 * 1024, 256 * 1024, 300, 70_000];

/// A description of what was wrong, and when.
type Wrong = String;

/// Returns large limits, or small ones that are reached.
fn limits(seed: u64) -> Limits {
    let (files_per_process, limits) = (9, Limits::default());
    match seed % 3 {
        0 => Limits { files_per_process, ..limits },
        1 => Limits { files_per_process, inodes: 16, bytes: 150_000, files: 14, ..limits },
        _ => Limits { files_per_process, bytes_per_family: 1540, bytes: 4000, ..limits },
    }
}

/// A kernel and its model.
struct Pair {
    real: Real,
    model: Model,
    limits: Limits,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let limits = limits(seed);
        let (real, model) = (Real::new(&limits, &ROOMS), Model::new(&limits, FIRST));
        Pair { real, model, limits }
    }

    /// Makes all steps, and removes what they leave.
    fn run(&mut self, steps: &[Step]) -> Result<(), Wrong> {
        self.look().map_err(|wrong| format!("at the beginning: {wrong}"))?;
        for (n, step) in steps.iter().enumerate() {
            self.step(step).map_err(|wrong| format!("step {n}, {step:?}: {wrong}"))?;
            if n % LOOK == LOOK - 1 {
                self.look().map_err(|wrong| format!("after step {n}: {wrong}"))?;
            }
        }
        self.look().map_err(|wrong| format!("at the end: {wrong}"))?;
        self.clear()
    }

    /// Makes a step, unless its guest does not exist or would be one too many.
    fn step(&mut self, step: &Step) -> Result<(), Wrong> {
        let is_full = matches!(step.op, Op::Fork) && self.model.guests() >= MOST;
        if !self.model.has(step.who) || is_full {
            return Ok(());
        }
        let (expected, got) = (self.model.step(step), self.real.step(step));
        match (expected, got) {
            (Ok(expected), Ok(got)) => self.same(&expected, &got)?,
            (expected, got) if expected == got => {}
            (expected, got) => return Err(format!("{}, not {}", brief(&got), brief(&expected))),
        }
        let (expected, got) = (self.model.usage(), self.real.usage());
        if expected == got { Ok(()) } else { Err(format!("{got:?} is held, not {expected:?}")) }
    }

    /// Checks that the kernel's answer is the model's, each with its own numbers for nodes.
    fn same(&mut self, expected: &Answer, got: &Answer) -> Result<(), Wrong> {
        let mut real = got.clone();
        match (expected, &mut real) {
            (Answer::Stat(expected), Answer::Stat(got)) => {
                got.node = self.node(got.node, expected.node)?;
            }
            (Answer::Names(expected), Answer::Names(got)) if expected.len() == got.len() => {
                for (expected, got) in expected.iter().zip(got) {
                    got.2 = self.node(got.2, expected.2)?;
                }
            }
            _ => {}
        }
        if *expected == real {
            return Ok(());
        }
        Err(format!("{}, not {}", brief(&real), brief(expected)))
    }

    fn node(&mut self, inode: u64, node: u64) -> Result<u64, Wrong> {
        if self.real.is_same(inode, node) {
            return Ok(node);
        }
        Err(format!("inode {inode} is not node {node}"))
    }

    /// Compares the whole state.
    fn look(&mut self) -> Result<(), Wrong> {
        let (expected, got) = (self.model.usage(), self.real.usage());
        if expected != got {
            return Err(format!("{got:?} is held, not {expected:?}"));
        }
        // Looking into a directory takes an open file.
        if got.files < self.limits.files {
            self.look_at(ROOT, "/")?;
        }
        for who in 1..self.model.guests() {
            if self.model.has(who) {
                self.look_at_guest(who)?;
            }
        }
        Ok(())
    }

    /// Compares a node and all below it, whose path goes on from `path`.
    fn look_at(&mut self, node: usize, path: &str) -> Result<(), Wrong> {
        self.ask(0, Op::Stat { at: here(path), follow: false })?;
        match self.model.nodes.kind(node) {
            DIRECTORY => {
                let fd = self.ask(0, open(path, o::RDONLY))?;
                self.ask(0, Op::List(fd))?;
                self.ask(0, Op::Close(fd))?;
                for (name, _, below) in self.model.names(node).into_iter().skip(2) {
                    let slash = if path == "/" { "" } else { "/" };
                    self.look_at(below as usize, &format!("{path}{slash}{name}"))?;
                }
            }
            FILE => {
                let fd = self.ask(0, open(path, o::RDONLY))?;
                self.look_into(0, node, fd)?;
                self.ask(0, Op::Close(fd))?;
            }
            _ if matches!(self.model.nodes.get(node).what, What::Link(_)) => {
                self.ask(0, Op::ReadLink(here(path)))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the beginning and the end of a file.
    fn look_into(&mut self, who: usize, node: usize, fd: u64) -> Result<(), Wrong> {
        let size = self.model.nodes.size(node) as i64;
        for at in [0, (size - 500).max(0)] {
            self.ask(who, Op::Read { fd, len: 150_000, at: Some(at) })?;
        }
        Ok(())
    }

    /// Compares a guest's descriptors and current directory.
    fn look_at_guest(&mut self, who: usize) -> Result<(), Wrong> {
        self.ask(who, Op::WhereAmI)?;
        for fd in self.model.descriptors(who) {
            self.ask(who, Op::StatOpen(fd))?;
            self.ask(who, Op::Seek { fd, by: 0, whence: 1 })?;
        }
        Ok(())
    }

    /// Makes a step for a comparison. Returns its number, if it has one.
    fn ask(&mut self, who: usize, op: Op) -> Result<u64, Wrong> {
        let step = Step { who, op };
        let (expected, got) = (self.model.step(&step), self.real.step(&step));
        match (&expected, &got) {
            (Ok(expected), Ok(got)) => self.same(expected, got),
            _ if expected == got => Ok(()),
            _ => Err(format!("{}, not {}", brief(&got), brief(&expected))),
        }
        .map_err(|wrong| format!("{step:?}: {wrong}"))?;
        Ok(if let Ok(Answer::Number(number)) = got { number as u64 } else { 0 })
    }

    /// Ends every guest except the first, which then removes all there is.
    fn clear(&mut self) -> Result<(), Wrong> {
        for who in 1..self.model.guests() {
            if self.model.has(who) {
                self.ask(who, Op::Exit)?;
            }
        }
        self.clear_directory(ROOT, "")?;
        let (expected, got) = (self.model.usage(), self.real.usage());
        let nothing = Usage { processes: 1, files: 1, bytes: 0, ports: 0, ..got };
        // What is left is what is there from the start, except for directories that a guest removed or
        // renamed.
        if got != expected || got != nothing || got.inodes > 7 {
            return Err(format!("in the end {got:?} is held, not {expected:?}"));
        }
        Ok(())
    }

    fn clear_directory(&mut self, node: usize, path: &str) -> Result<(), Wrong> {
        for (name, kind, below) in self.model.names(node).into_iter().skip(2) {
            let path = format!("{path}/{name}");
            if path == "/dev" {
                continue;
            }
            if kind == DIRECTORY {
                self.clear_directory(below as usize, &path)?;
                self.ask(0, Op::RemoveDirectory(here(&path)))?;
            } else {
                self.ask(0, Op::Unlink(here(&path)))?;
            }
        }
        Ok(())
    }
}

fn open(path: &str, flags: u64) -> Op {
    Op::Open { at: here(path), flags, mode: 0 }
}

/// Runs a sequence with the limits of a seed; a panic counts as wrong, too.
fn run(seed: u64, steps: &[Step]) -> Result<(), Wrong> {
    let ran = catch_unwind(AssertUnwindSafe(|| Pair::new(seed).run(steps)));
    ran.unwrap_or_else(|_| Err("it panicked".into()))
}

/// Returns the sequence of a seed.
fn sequence(seed: u64) -> Vec<Step> {
    let mut source = Source(fastrand::Rng::with_seed(seed));
    let mut steps: Vec<Step> = (1..FIRST).flat_map(|who| source.first(who)).collect();
    steps.extend((0..STEPS).map(|_| source.step(1..MOST)));
    steps
}

/// Runs these seeds, every `step`th. Returns a short description of the first failure.
fn run_all(seeds: Range<u64>, step: usize) -> Result<(), Wrong> {
    for seed in seeds.step_by(step) {
        let steps = sequence(seed);
        let Err(wrong) = run(seed, &steps) else { continue };
        let shorter = shrink(&steps, |steps| Ok::<_, Infallible>(run(seed, steps).is_err()));
        let Ok(shorter) = shorter;
        let listed: String = shorter.iter().map(|step| format!("\n  {step:?}")).collect();
        let short = run(seed, &shorter).err().unwrap_or_default();
        return Err(format!("SEED={seed}: {wrong}\nin short: {short}{listed}"));
    }
    Ok(())
}

#[test]
fn sequences() {
    on_all_cpus("SEQUENCES", 200, run_all);
}
