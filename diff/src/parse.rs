//! Parses sequences from text. A line is a step:
//!
//! ```text
//! ACTOR CALL ARGUMENT... [-> [mem] NAME...]
//! ACTOR fork NEW-ACTOR
//! ACTOR exec
//! ACTOR exit
//! ```
//!
//! An argument is
//!
//! - a number: `5`, `-1`, `0644`, `0xff`, NetBSD's constants, `O_CREAT|O_RDWR`, `$fd` for what an
//!   earlier step named, `pid:a` or `-pid:a`, `port:1` for a port of the sequence's own, `#` for the
//!   length of what the argument before points to;
//! - a pointer: `"path"` with a NUL behind (`"@/path"` is absolute, in the sequence's directory), `'bytes'`
//!   without, either repeated (`'x'*1000`) and joined (`'a'+'b'`), `null`, `bad`, a structure of
//!   [`crate::structures`] as `timespec(0, 1000)` or `out(16)`, or one in pieces,
//!   `[i32 5, zero 4, ptr 'x']`.
//!
//! `-> mem` takes the ints out of the memory the last pointer points to. `#` at a line's start makes it a
//! comment, `== NAME` begins the next sequence of a script.

use embedded::by_name;

use crate::numbers::constant;
use crate::step::{Act, Arg, Block, Call, Part, Slots, Step, Target, Value};
use crate::structures;

/// An error in a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at `{rest}` in `{line}`")]
pub struct ParseError {
    line: String,
    rest: String,
    problem: String,
}

/// A sequence and its name.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
}

/// The most bytes a line may have a call copy in at a time.
const MOST_BYTES: usize = 1 << 20;

/// The most steps of a sequence.
pub const MOST_STEPS: usize = 10_000;

/// Parses a script: its sequences, each under its name.
pub fn script(text: &str) -> Result<Vec<Case>, ParseError> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.to_string(), steps: Vec::new() });
            continue;
        }
        // A report marks the step that differs with `> `.
        let step = step(line.strip_prefix("> ").unwrap_or(line))?;
        if cases.is_empty() {
            cases.push(Case { name: "first".into(), steps: Vec::new() });
        }
        if let Some(case) = cases.last_mut() {
            case.steps.push(step);
        }
    }
    Ok(cases)
}

/// Parses a line.
pub fn step(line: &str) -> Result<Step, ParseError> {
    let mut cursor = Cursor { line, rest: line };
    let actor = cursor.word()?.to_string();
    let verb = cursor.word()?;
    let act = match verb {
        "fork" => Act::Fork(cursor.word()?.to_string()),
        "exec" => Act::Exec,
        "exit" => Act::Exit,
        name => {
            let entry = by_name(name).ok_or_else(|| cursor.error("no such call"))?;
            let mut args = cursor.arguments()?;
            pad(entry.alias, &mut args);
            Act::Call(Call { entry, args, slots: cursor.slots()? })
        }
    };
    cursor.space();
    if !cursor.rest.is_empty() {
        return Err(cursor.error("more than the step needs"));
    }
    Ok(Step { actor, act, text: line.to_string() })
}

/// Inserts the empty slots before offsets and devices.
///
/// Source: NetBSD `sys/kern/syscalls.master`, the arguments named PAD.
fn pad(name: &str, args: &mut Vec<Arg>) {
    let at = match name {
        "lseek" | "truncate" | "ftruncate" | "posix_fadvise" | "posix_fallocate" | "fdiscard" => 1,
        "pread" | "pwrite" | "preadv" | "pwritev" | "mknodat" => 3,
        _ => return,
    };
    if at <= args.len() {
        args.insert(at, Arg::Value(Value::Number(0)));
    }
}

struct Cursor<'a> {
    line: &'a str,
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn error(&self, problem: impl Into<String>) -> ParseError {
        let rest = self.rest.chars().take(40).collect();
        ParseError { line: self.line.into(), rest, problem: problem.into() }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes `text` if it comes next, and returns whether it did.
    fn takes(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        self.space();
        if self.takes(text) { Ok(()) } else { Err(self.error(format!("no `{text}`"))) }
    }

    /// Takes characters as long as `is_part` returns `true` for them.
    fn run(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn word(&mut self) -> Result<&'a str, ParseError> {
        self.space();
        let word = self.run(|c| c.is_ascii_alphanumeric() || c == '_');
        if word.is_empty() { Err(self.error("no word")) } else { Ok(word) }
    }

    /// Parses the arguments of a call.
    fn arguments(&mut self) -> Result<Vec<Arg>, ParseError> {
        let mut args = Vec::new();
        loop {
            self.space();
            if self.rest.is_empty() || self.rest.starts_with("->") {
                return Ok(args);
            }
            let arg = self.argument(&args)?;
            args.push(arg);
            if args.len() > 10 {
                return Err(self.error("too many arguments"));
            }
        }
    }

    fn slots(&mut self) -> Result<Slots, ParseError> {
        let mut names = Vec::new();
        self.space();
        if self.takes("->") {
            self.space();
            while !self.rest.is_empty() {
                names.push(self.word()?.to_string());
                self.space();
            }
        }
        if names.first().is_some_and(|first| first == "mem") {
            names.remove(0);
            return Ok(Slots::Memory(names));
        }
        Ok(Slots::Values(names))
    }

    /// Parses one argument; `before` has the arguments to its left.
    fn argument(&mut self, before: &[Arg]) -> Result<Arg, ParseError> {
        self.space();
        let block = |parts| Ok(Arg::Pointer(Target::Block(Block::plain(parts))));
        match self.rest.chars().next() {
            Some('"') => block(self.path()?),
            Some('\'') => block(vec![Part::Bytes(self.bytes()?)]),
            Some('[') => block(self.pieces()?),
            Some('#') => {
                self.rest = &self.rest[1..];
                let last = before.iter().rev().find_map(|arg| match arg {
                    Arg::Pointer(Target::Block(block)) => Some(block.len()),
                    _ => None,
                });
                let len = last.ok_or_else(|| self.error("nothing to the left has a length"))?;
                Ok(Arg::Value(Value::Number(len as i64)))
            }
            Some(c) if c.is_ascii_lowercase() => self.named(),
            _ => Ok(Arg::Value(self.value()?)),
        }
    }

    /// Parses `null`, `bad`, `pid:a`, `port:1`, or a structure.
    fn named(&mut self) -> Result<Arg, ParseError> {
        if self.rest.starts_with("pid:") || self.rest.starts_with("port:") {
            return Ok(Arg::Value(self.value()?));
        }
        match self.word()? {
            "null" => Ok(Arg::Pointer(Target::Null)),
            "bad" => Ok(Arg::Pointer(Target::Nowhere)),
            name => {
                self.expect("(")?;
                let mut args = Vec::new();
                self.space();
                while !self.takes(")") {
                    if !args.is_empty() {
                        self.expect(",")?;
                    }
                    self.space();
                    let arg = match structures::layout(self.rest) {
                        Some((layout, rest)) => {
                            self.rest = rest;
                            structures::Piece::Layout(layout)
                        }
                        None => structures::Piece::Arg(self.argument(&[])?),
                    };
                    args.push(arg);
                    self.space();
                }
                let block = structures::build(name, args).map_err(|why| self.error(why))?;
                Ok(Arg::Pointer(Target::Block(block)))
            }
        }
    }

    /// Parses `"path"`, and adds its NUL.
    fn path(&mut self) -> Result<Vec<Part>, ParseError> {
        let mut bytes = self.bytes()?;
        bytes.push(0);
        if bytes.starts_with(b"@/") {
            bytes.remove(0);
            return Ok(vec![Part::Directory, Part::Bytes(bytes)]);
        }
        Ok(vec![Part::Bytes(bytes)])
    }

    /// Parses quoted bytes, repeated and joined.
    fn bytes(&mut self) -> Result<Vec<u8>, ParseError> {
        let mut bytes = Vec::new();
        loop {
            let quote = self.rest.chars().next().filter(|&c| c == '"' || c == '\'');
            let Some(quote) = quote else { return Err(self.error("no quote")) };
            self.rest = &self.rest[1..];
            let text = self.run(|c| c != quote);
            self.expect(&quote.to_string())?;
            let times = if self.takes("*") { self.count()? } else { 1 };
            if bytes.len() + text.len().saturating_mul(times) > MOST_BYTES {
                return Err(self.error("too many bytes"));
            }
            bytes.extend(text.as_bytes().repeat(times));
            if !self.takes("+") {
                return Ok(bytes);
            }
        }
    }

    fn count(&mut self) -> Result<usize, ParseError> {
        let digits = self.run(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| self.error("no count"))
    }

    /// Parses `[i32 5, zero 4, ptr 'x', 'bytes']`.
    fn pieces(&mut self) -> Result<Vec<Part>, ParseError> {
        self.expect("[")?;
        let mut parts = Vec::new();
        self.space();
        while !self.takes("]") {
            if !parts.is_empty() {
                self.expect(",")?;
                self.space();
            }
            parts.push(self.piece()?);
            self.space();
        }
        Ok(parts)
    }

    fn piece(&mut self) -> Result<Part, ParseError> {
        if self.rest.starts_with('\'') {
            return Ok(Part::Bytes(self.bytes()?));
        }
        let kind = self.word()?;
        self.space();
        let int = |cursor: &mut Self, width| Ok(Part::Int { value: cursor.value()?, width });
        match kind {
            "i8" => int(self, 1),
            "i16" => int(self, 2),
            "i32" => int(self, 4),
            "i64" => int(self, 8),
            "zero" => Ok(Part::Bytes(vec![0; self.count()?.min(MOST_BYTES)])),
            "room" => Ok(Part::Room(self.count()?.min(MOST_BYTES))),
            "ptr" => match self.argument(&[])? {
                Arg::Pointer(target) => Ok(Part::Pointer(Box::new(target))),
                Arg::Value(_) => Err(self.error("a number is no pointer")),
            },
            _ => Err(self.error(format!("no such piece as {kind}"))),
        }
    }

    fn value(&mut self) -> Result<Value, ParseError> {
        self.space();
        if self.takes("$") {
            return Ok(Value::Slot(self.word()?.to_string()));
        }
        if self.takes("port:") {
            return Ok(Value::Port(self.count()? as u16));
        }
        let is_negative = self.takes("-");
        if self.takes("pid:") {
            return Ok(Value::Pid { actor: self.word()?.to_string(), is_negative });
        }
        let mut sum = self.number()?;
        while self.takes("|") {
            sum |= self.number()?;
        }
        Ok(Value::Number(if is_negative { sum.wrapping_neg() } else { sum }))
    }

    fn number(&mut self) -> Result<i64, ParseError> {
        let word = self.word()?;
        let parsed = if let Some(digits) = word.strip_prefix("0x") {
            u64::from_str_radix(digits, 16).ok().map(|value| value as i64)
        } else if word.len() > 1 && word.starts_with('0') {
            i64::from_str_radix(word, 8).ok()
        } else if word.starts_with(|c: char| c.is_ascii_digit()) {
            word.parse().ok()
        } else {
            constant(word)
        };
        parsed.ok_or_else(|| self.error(format!("{word} is no number and no constant")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        match step(line).expect("a step").act {
            Act::Call(call) => call,
            other => panic!("a call, not {other:?}"),
        }
    }

    fn number(arg: &Arg) -> i64 {
        match arg {
            Arg::Value(Value::Number(number)) => *number,
            other => panic!("a number, not {other:?}"),
        }
    }

    fn block(arg: &Arg) -> &Block {
        match arg {
            Arg::Pointer(Target::Block(block)) => block,
            other => panic!("a block, not {other:?}"),
        }
    }

    #[test]
    fn numbers_are_c_s() {
        let call = call("a open 'x' O_CREAT|O_RDWR|1 0644 -> f");
        assert_eq!((number(&call.args[1]), number(&call.args[2])), (0x203, 0o644));
        assert_eq!(call.slots, Slots::Values(vec!["f".into()]));
        assert_eq!(number(&super::tests::call("a close -1").args[0]), -1);
        assert_eq!(number(&super::tests::call("a close 0xffffffffffffffff").args[0]), -1);
    }

    #[test]
    fn strings_end_with_nul_and_bytes_do_not() {
        let call = call("a write $f \"a\"*3+\"b\" # 'xy'+'z' #");
        assert_eq!(block(&call.args[1]).len(), 5);
        assert_eq!(number(&call.args[2]), 5);
        assert_eq!(number(&call.args[4]), 3);
        assert_eq!(call.args.len(), 5);
    }

    #[test]
    fn offsets_have_an_empty_slot_before_them() {
        assert_eq!(number(&call("a pread 0 out(3) # 7").args[4]), 7);
        assert_eq!(number(&call("a lseek 0 7 1").args[2]), 7);
        assert_eq!(number(&call("a mknodat 0 'x' 1 7").args[4]), 7);
        assert_eq!(number(&call("a mknod 'x' 1 7").args[2]), 7);
    }

    #[test]
    fn pieces_make_structures() {
        let call =
            call("a ioctl 0 0 [i8 1, i16 2, i32 3, i64 pid:b, zero 2, ptr 'x', room 3, 'yy']");
        assert_eq!(block(&call.args[2]).len(), 1 + 2 + 4 + 8 + 2 + 8 + 3 + 2);
    }

    #[test]
    fn nonsense_is_said_to_be_so() {
        for line in [
            "",
            "a",
            "a nothing",
            "a open \"x",
            "a open 'x",
            "a close NO",
            "a close (",
            "a exit 3",
            "a close 1 |",
            "a read 0 out(",
            "a read 0 nothing(1)",
            "a read 0 [i9 3]",
            "a read #",
            "a write 0 'x'*99999999999",
            "a write 0 'x'*9999999",
            "a fork",
            "a getpid -> $x",
        ] {
            assert!(step(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_script_has_sequences() {
        let cases = script("# what\n== one\na getpid\n\n== two\na getpid\nb exit\n").unwrap();
        let names: Vec<_> =
            cases.iter().map(|case| (case.name.as_str(), case.steps.len())).collect();
        assert_eq!(names, [("one", 1), ("two", 2)]);
    }
}
