//! Sizes and times as people write them.

use std::time::Duration;

/// The most seconds of any time: a year, which can be added to any other time.
const YEAR: u64 = 365 * 86_400;

/// Parses a number of bytes, with k, m or g behind.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is no number of bytes"))
}

/// Parses a number of bytes to hold in memory, which has to be less than any memory's size.
pub fn memory(text: &str) -> Result<usize, String> {
    match usize::try_from(size(text)?) {
        Ok(bytes @ ..=0x7fff_ffff_ffff) => Ok(bytes),
        _ => Err(format!("`{text}` is more than any memory")),
    }
}

/// Parses a number of seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ ..=YEAR) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is no whole number of seconds of a year at most")),
    }
}
