//! The outcome of a step in a form that can be compared, and the differences of two outcomes.

use std::fmt;

use client::CallError;
use kernel::Errno;

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Values([i64; 2]),
    Errno(i32),
    /// The server refused the request, or the connection ended.
    Failed(String),
}

/// A call's end, and the contents of the memory that its arguments point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub ending: Ending,
    pub memory: Vec<Vec<u8>>,
}

impl Ending {
    pub fn of(error: &CallError) -> Ending {
        match error {
            CallError::Errno(errno) => Ending::Errno(errno.0),
            other => Ending::Failed(other.to_string()),
        }
    }

    /// Returns `true` if the kernel lacks the call, or says so.
    pub fn is_absent(&self) -> bool {
        [Errno::ENOSYS, Errno::EOPNOTSUPP].iter().any(|errno| *self == Ending::Errno(errno.0))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Values([value, 0]) => write!(f, "{value}"),
            Ending::Values([one, two]) => write!(f, "{one}, {two}"),
            Ending::Errno(number) => match Errno(*number).name() {
                Some(name) => f.write_str(name),
                None => write!(f, "errno {number}"),
            },
            Ending::Failed(why) => f.write_str(why),
        }
    }
}

/// A difference between two servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The step that differs.
    pub step: usize,
    /// The step after which the difference showed: a later one, if a call has ended on one server only.
    pub shown: usize,
    /// The call of the step.
    pub name: &'static str,
    /// The step as it is written.
    pub text: String,
    /// The steps before it, as they are written.
    pub earlier: String,
    /// The kind of answer of each server, in a word; differences are counted by it: `ENOENT`, `ok`,
    /// `blocks`.
    pub kinds: [String; 2],
    /// The answers in full.
    pub details: [String; 2],
}

impl Difference {
    /// Returns the key by which differences are told apart.
    pub fn key(&self) -> String {
        format!("{}: {} / {}", self.name, self.kinds[0], self.kinds[1])
    }
}

/// Returns the difference between two outcomes of one step, if they differ; `None` stands for a call
/// that blocks.
pub fn compare(step: usize, name: &'static str, seen: [Option<&Outcome>; 2]) -> Option<Difference> {
    if seen[0] == seen[1] {
        return None;
    }
    let details = match seen {
        [Some(one), Some(other)] if one.ending == other.ending => memory_details(one, other),
        _ => seen.map(|outcome| {
            outcome.map_or("blocks".to_string(), |outcome| outcome.ending.to_string())
        }),
    };
    let (text, earlier) = Default::default();
    Some(Difference { step, shown: step, name, text, earlier, kinds: kinds(seen), details })
}

fn kinds(seen: [Option<&Outcome>; 2]) -> [String; 2] {
    if let [Some(one), Some(other)] = seen {
        if one.ending == other.ending {
            return ["bytes".into(), "other bytes".into()];
        }
        if let (Ending::Values(_), Ending::Values(_)) = (&one.ending, &other.ending) {
            return ["value".into(), "other value".into()];
        }
    }
    seen.map(|outcome| match outcome.map(|outcome| &outcome.ending) {
        None => "blocks".to_string(),
        Some(Ending::Values(_)) => "ok".to_string(),
        Some(ending) => ending.to_string(),
    })
}

/// The number of bytes shown from where two pieces of memory begin to differ.
const SHOWN: usize = 24;

fn memory_details(one: &Outcome, other: &Outcome) -> [String; 2] {
    let mut pieces = one.memory.iter().zip(&other.memory).enumerate();
    let Some((piece, (left, right))) = pieces.find(|(_, (left, right))| left != right) else {
        return [&one.memory, &other.memory].map(|memory| format!("{} pieces", memory.len()));
    };
    let equal = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    [left, right].map(|bytes| {
        let from: Vec<String> =
            bytes[equal..].iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
        format!("{}; memory {piece} from byte {equal}: {}", one.ending, from.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending, memory: &[u8]) -> Outcome {
        Outcome { ending, memory: vec![memory.to_vec()] }
    }

    #[test]
    fn each_kind_of_difference_has_its_key() {
        let ok = outcome(Ending::Values([1, 0]), b"ab");
        let cases = [
            (Some(outcome(Ending::Values([2, 0]), b"ab")), "read: value / other value"),
            (Some(outcome(Ending::Values([1, 0]), b"ac")), "read: bytes / other bytes"),
            (Some(outcome(Ending::Errno(9), b"ab")), "read: ok / EBADF"),
            (None, "read: ok / blocks"),
        ];
        for (other, key) in cases {
            let difference = compare(3, "read", [Some(&ok), other.as_ref()]).expect(key);
            assert_eq!((difference.key().as_str(), difference.step), (key, 3));
        }
        assert_eq!(compare(3, "read", [Some(&ok), Some(&ok.clone())]), None);
        assert_eq!(compare(3, "read", [None, None]), None);
    }

    #[test]
    fn bytes_are_shown_from_where_they_differ() {
        let one = outcome(Ending::Values([0, 0]), b"abc");
        let other = outcome(Ending::Values([0, 0]), b"abd");
        let found = compare(0, "read", [Some(&one), Some(&other)]).unwrap();
        assert_eq!(found.details[0], "0; memory 0 from byte 2: 63");
    }
}
