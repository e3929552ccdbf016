//! Several calls in one load, chosen by weight: `getpid=60+read:4k=20`.

use std::fmt;
use std::str::FromStr;

use super::{Call, Random, Size};

/// The most parts of a mix.
pub const MAX_PARTS: usize = 8;

/// The highest weight of a part.
const MAX_WEIGHT: u32 = 1_000_000;

/// A mix of calls: of getpid, read, pwrite and copyinstr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    parts: [Part; MAX_PARTS],
    len: usize,
    weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    call: Simple,
    weight: u32,
}

/// A call that a mix may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Simple {
    Getpid,
    Read(Size),
    Pwrite(Size),
    Copyinstr,
}

impl Mix {
    const EMPTY: Mix =
        Mix { parts: [Part { call: Simple::Getpid, weight: 0 }; MAX_PARTS], len: 0, weight: 0 };

    /// Returns the default mix: mostly small calls, some that move a page, few that have a path.
    pub fn usual() -> Mix {
        let page = Size(4096);
        let parts = [
            (Simple::Getpid, 60),
            (Simple::Read(page), 20),
            (Simple::Pwrite(page), 15),
            (Simple::Copyinstr, 5),
        ];
        parts.into_iter().fold(Mix::EMPTY, |mix, (call, weight)| mix.with(call, weight))
    }

    /// Adds a part, for which there must be room.
    fn with(mut self, call: Simple, weight: u32) -> Mix {
        self.parts[self.len] = Part { call, weight };
        self.len += 1;
        self.weight += weight;
        self
    }

    /// Returns the calls and their weights.
    pub fn parts(&self) -> impl Iterator<Item = (Call, u32)> {
        self.parts[..self.len].iter().map(|part| (part.call.into(), part.weight))
    }

    /// Returns a random part, by weight, and its number.
    pub fn choose(&self, random: &mut Random) -> (usize, Call) {
        let mut left = random.below(self.weight);
        let mut number = 0;
        while number + 1 < self.len && left >= self.parts[number].weight {
            left -= self.parts[number].weight;
            number += 1;
        }
        (number, self.parts[number].call.into())
    }
}

impl From<Simple> for Call {
    fn from(simple: Simple) -> Call {
        match simple {
            Simple::Getpid => Call::Getpid,
            Simple::Read(size) => Call::Read(size),
            Simple::Pwrite(size) => Call::Pwrite(size),
            Simple::Copyinstr => Call::Copyinstr,
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Parses a mix. Parts are separated by `+`, or by commas where those mean nothing else.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix::EMPTY;
        for part in text.split(['+', ',']) {
            let (call, weight) = part.split_once('=').ok_or_else(|| {
                format!(
                    "{part:?} has no weight; a mix is CALL=WEIGHT+..., as in getpid=3+read:4k=1"
                )
            })?;
            let call = match call.parse()? {
                Call::Getpid => Simple::Getpid,
                Call::Read(size) => Simple::Read(size),
                Call::Pwrite(size) => Simple::Pwrite(size),
                Call::Copyinstr => Simple::Copyinstr,
                call => return Err(format!("{call} cannot be mixed with other calls")),
            };
            let weight = super::number(weight, MAX_WEIGHT)?;
            if mix.len == MAX_PARTS {
                return Err(format!("a mix has at most {MAX_PARTS} parts"));
            }
            mix = mix.with(call, weight);
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (call, weight)) in self.parts().enumerate() {
            write!(f, "{}{call}={weight}", if number == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_separated_by_either() {
        let plus: Mix = "getpid=60+read:4k=20".parse().unwrap();
        assert_eq!("getpid=60,read:4k=20".parse(), Ok(plus));
        assert_eq!(plus.to_string(), "getpid=60+read:4k=20");
    }

    #[test]
    fn what_is_no_mix_says_why() {
        let nine = ["getpid=1"; 9].join("+");
        for (text, says) in [
            ("", "no weight"),
            ("getpid", "no weight"),
            ("getpid=0", "no number from 1"),
            ("getpid=1000001", "no number from 1"),
            ("getpid=1+", "no weight"),
            ("fork=1", "cannot be mixed"),
            ("read=1", "none of"),
            (&nine, "at most 8 parts"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn parts_are_chosen_by_weight() {
        let mix: Mix = "getpid=1+read:1=2+copyinstr=7".parse().unwrap();
        let mut random = Random::new(3);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let (number, call) = mix.choose(&mut random);
            assert_eq!(mix.parts().nth(number).unwrap().0, call);
            counts[number] += 1;
        }
        let expected = [1000, 2000, 7000];
        assert!(counts.iter().zip(expected).all(|(&is, e)| i32::abs(is - e) < 300), "{counts:?}");
    }
}
