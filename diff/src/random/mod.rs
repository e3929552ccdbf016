//! Random sequences: lines of a family's templates, filled in. The seed determines the sequence.
//!
//! Arguments mostly make sense: descriptors that earlier steps have made, and a handful of names so
//! that steps use the same files. Some do not make sense.

mod processes;
mod templates;

use fastrand::Rng;

use crate::parse::{ParseError, step};
use crate::step::Step;
pub use templates::{FAMILIES, Family};

/// Returns the family of that name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// Returns a sequence of `count` steps.
pub fn sequence(family: &Family, seed: u64, count: usize) -> Result<Vec<Step>, ParseError> {
    let mut writer = Writer::new(family, seed);
    (0..count).map(|_| step(&writer.line())).collect()
}

/// Returns `true` if the call has a kqueue watch itself: NetBSD's kernel dies of that when the kqueue
/// is closed and has more to watch.
fn watches_itself(call: &str) -> bool {
    let mut words = call.split(' ');
    let (name, on, first) = (words.next(), words.next(), words.next());
    let (Some("kevent"), Some(on), Some(first)) = (name, on, first) else { return false };
    first.strip_prefix("kevent(").and_then(|ident| ident.strip_suffix(',')) == Some(on)
}

/// A writer of lines that remembers the descriptors they make.
struct Writer<'a> {
    family: &'a Family,
    rng: Rng,
    /// The actors, and the descriptors each has had.
    actors: Vec<(String, Vec<String>)>,
    slots: usize,
}

/// The most actors of a sequence.
const MOST_ACTORS: usize = 4;

impl Writer<'_> {
    fn new(family: &Family, seed: u64) -> Writer<'_> {
        let actors = ["a", "b"].map(|name| (name.to_string(), Vec::new())).to_vec();
        Writer { family, rng: Rng::with_seed(seed), actors, slots: 0 }
    }

    fn line(&mut self) -> String {
        if self.rng.u8(..) < self.family.forks && self.actors.len() < MOST_ACTORS {
            return self.fork();
        }
        let actor = if self.rng.u8(..10) < 6 { 0 } else { self.rng.usize(..self.actors.len()) };
        let before = self.slots;
        let call = loop {
            let template = self.template();
            let call = self.fill(template, actor);
            if !watches_itself(&call) {
                break call;
            }
        };
        let line = format!("{} {call}", self.actors[actor].0);
        for slot in before..self.slots {
            self.actors[actor].1.push(format!("s{slot}"));
        }
        line
    }

    fn fork(&mut self) -> String {
        let parent = self.rng.usize(..self.actors.len());
        let child = ["c", "d"][self.actors.len() - 2];
        let line = format!("{} fork {child}", self.actors[parent].0);
        let inherited = self.actors[parent].1.clone();
        self.actors.push((child.to_string(), inherited));
        line
    }

    fn template(&mut self) -> &'static str {
        let total: u32 = self.family.templates.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.u32(..total);
        for &(weight, template) in self.family.templates {
            if at < weight {
                return template;
            }
            at -= weight;
        }
        unreachable!("less than the total is within one of them")
    }

    /// Replaces `{one;of;these}` and `<holes>` in a template.
    fn fill(&mut self, template: &str, actor: usize) -> String {
        let mut line = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '<']) {
            line.push_str(&rest[..at]);
            let close = if rest[at..].starts_with('{') { '}' } else { '>' };
            let Some(len) = rest[at..].find(close) else { break };
            let inner = &rest[at + 1..at + len];
            if close == '}' {
                let choices: Vec<&str> = inner.split(';').collect();
                let choice = choices[self.rng.usize(..choices.len())];
                let filled = self.fill(choice, actor);
                line.push_str(&filled);
            } else {
                let hole = self.hole(inner, actor);
                line.push_str(&hole);
            }
            rest = &rest[at + len + 1..];
        }
        line.push_str(rest);
        line
    }

    fn pick(&mut self, choices: &[&str]) -> String {
        choices[self.rng.usize(..choices.len())].to_string()
    }

    fn hole(&mut self, hole: &str, actor: usize) -> String {
        let is_odd = self.rng.u8(..) < 12;
        match hole {
            "fd" => self.descriptor(actor, is_odd),
            "new" => {
                self.slots += 1;
                format!("s{}", self.slots - 1)
            }
            "name" if is_odd => self.pick(templates::ODD_NAMES),
            "name" => self.pick(templates::NAMES),
            "path" => self.path(),
            "len" if is_odd => self.pick(&["0", "-1", "0x7fffffff", "0x8000000000000000"]),
            "len" => self.pick(&["0", "1", "5", "17", "100", "512", "4096"]),
            "time" if is_odd => self.pick(&["-1", "-5", "0x100000000"]),
            "time" => self.pick(&["0", "1", "50", "1000"]),
            // There is nothing between: the largest size of a file depends on the machine's memory.
            "off" if is_odd => self.pick(&["-1", "0x7fffffffffffffff", "-100"]),
            "off" => self.pick(&["0", "1", "3", "10", "100", "5000"]),
            "bytes" if is_odd => "bad".to_string(),
            "bytes" => {
                let len = self.pick(&["1", "2", "7", "100", "600", "5000"]);
                let byte = char::from(b'a' + self.rng.u8(..26));
                format!("'{byte}'*{len}")
            }
            "user" => self.pick(&["0", "1", "100", "101", "-1"]),
            "mode" if is_odd => self.pick(&["07777", "0xffff", "-1"]),
            "mode" => self.pick(&["0644", "0600", "0755", "0777", "0", "0444", "01777"]),
            other => unreachable!("no template has <{other}>"),
        }
    }

    /// Returns a path through a few names, with dots and slashes; the path does not lead out of the
    /// directory by itself.
    fn path(&mut self) -> String {
        let mut path = if self.rng.u8(..8) == 0 { "@/".to_string() } else { String::new() };
        let mut depth = 0;
        for at in 0..self.rng.usize(1..5) {
            if at > 0 {
                path.push_str(if self.rng.u8(..8) == 0 { "//" } else { "/" });
            }
            match self.rng.u8(..12) {
                0 => path.push('.'),
                1 | 2 if depth > 0 => {
                    path.push_str("..");
                    depth -= 1;
                }
                // A link leads anywhere, so the path does not go up from it.
                3 | 4 => {
                    path.push_str(&self.pick(&["l0", "l1"]));
                    depth = 0;
                }
                _ => {
                    path.push_str(&self.pick(&["d0", "d0", "d1", "f0", "f1"]));
                    depth += 1;
                }
            }
        }
        if self.rng.u8(..8) == 0 {
            path.push('/');
        }
        format!("\"{path}\"")
    }

    fn descriptor(&mut self, actor: usize, is_odd: bool) -> String {
        if is_odd || self.actors[actor].1.is_empty() {
            return self.pick(&["-1", "0", "99", "0x7fffffff", "3"]);
        }
        let slots = &self.actors[actor].1;
        // Recent descriptors are used most.
        let recent = slots.len().min(4);
        let at = if self.rng.bool() {
            slots.len() - 1 - self.rng.usize(..recent)
        } else {
            self.rng.usize(..slots.len())
        };
        format!("${}", slots[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kqueue_watches_itself() {
        assert!(watches_itself("kevent $s0 kevent($s0, EVFILT_READ, EV_ADD, 0, 0, 7) 1 null 0"));
        assert!(!watches_itself("kevent $s0 kevent($s01, EVFILT_READ, EV_ADD, 0, 0, 7) 1 null 0"));
        assert!(!watches_itself("kevent $s0 null 0 out(kevents) 4 timespec(0, 0)"));
        assert!(!watches_itself("poll pollfd($s0, POLLIN) 1 0"));
    }

    #[test]
    fn every_template_is_a_step() {
        for family in FAMILIES {
            for seed in 0..40 {
                let steps = sequence(family, seed, 100);
                assert_eq!(
                    steps.unwrap_or_else(|error| panic!("{}: {error}", family.name)).len(),
                    100
                );
            }
        }
    }

    #[test]
    fn the_seed_says_which() {
        let text = |seed| {
            let steps = sequence(&FAMILIES[0], seed, 30).unwrap();
            steps.iter().map(|step| step.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }
}
