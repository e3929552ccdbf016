//! A number of bytes, as in 16, 4k and 1m.

use std::fmt;
use std::str::FromStr;

/// The most bytes of one read or write.
pub const MAX_SIZE: u32 = 16 << 20;

/// A number of bytes, as in 16, 4k and 1m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u32);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let (digits, unit) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
            Some(b'k') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let size = digits.parse().ok().filter(|_| is_number).and_then(|n: u32| n.checked_mul(unit));
        match size {
            Some(size @ 1..=MAX_SIZE) => Ok(Size(size)),
            _ => Err(format!("{text:?} is no size from 1 to 16m, as 16, 4k or 1m are")),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            size if size % (1 << 20) == 0 => write!(f, "{}m", size >> 20),
            size if size % (1 << 10) == 0 => write!(f, "{}k", size >> 10),
            size => write!(f, "{size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("16", 16),
            ("4k", 4096),
            ("64K", 65_536),
            ("1m", 1 << 20),
            ("16M", 16 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "k", "0", "0k", "-1", "+1", "4kk", "1g", "4 k", "17m", "9999999999", "9999m"]
        {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
