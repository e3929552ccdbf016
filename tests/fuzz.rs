//! Runs the fuzzers' bodies without a fuzzer: on every input of the kept corpora, and some thousand
//! seeded changes of them. `fuzz/README.md` says how to look for more.

use std::fs;
use std::path::Path;

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

/// The longest input made here.
const LONGEST: usize = 4096;

#[test]
fn frames() {
    all("frames", 5000, bodies::frames);
}

#[test]
fn session() {
    all("session", 5000, bodies::session);
}

#[test]
fn calls() {
    all("calls", 1500, bodies::calls);
}

/// Runs the corpus of a target, and `changes` changes of its inputs.
fn all(target: &str, changes: u32, body: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, bytes) in &corpus {
        run(name, bytes, body);
    }
    let mut random = Random(0x5eed);
    for turn in 0..changes {
        let bytes = changed(&corpus, &mut random);
        run(&format!("change {turn}"), &bytes, body);
    }
}

/// Returns the kept inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .expect("a folder with the corpus of this target")
        .map(|entry| entry.expect("an entry of the folder"))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("an input"))
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{} has the inputs", folder.display());
    inputs
}

fn run(name: &str, bytes: &[u8], body: fn(&[u8])) {
    let failing = Failing { name, bytes };
    body(bytes);
    drop(failing);
}

/// Prints the input if its run panics.
struct Failing<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the input is {}, in hexadecimal {hex}", self.name);
        }
    }
}

/// Returns one of the inputs with some changes.
fn changed(corpus: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => drop(bytes.splice(at.., tail(&corpus[random.below(corpus.len())].1, random))),
            _ if at == bytes.len() => bytes.push(random.next() as u8),
            3 => bytes[at] ^= 1 << random.below(8),
            _ => bytes[at] = random.next() as u8,
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

fn tail(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    bytes[random.below(bytes.len() + 1)..].to_vec()
}

/// The xorshift of G. Marsaglia, "Xorshift RNGs" (2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }
}
