//! The division of connections between threads and processes.

/// Some of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The first connection of the share.
    pub first: u32,
    /// The number of connections.
    pub count: u32,
}

impl Share {
    /// Divides the share evenly into at most `parts` shares of a multiple of `unit` connections each;
    /// this share must be a multiple of `unit`. No share is empty.
    pub fn divide(self, parts: u32, unit: u32) -> Vec<Share> {
        let units = self.count / unit;
        let parts = parts.clamp(1, units.max(1));
        let edge =
            |part: u32| (u64::from(units) * u64::from(part) / u64::from(parts)) as u32 * unit;
        let share =
            |part| Share { first: self.first + edge(part), count: edge(part + 1) - edge(part) };
        (0..parts).map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_all() {
        for (count, parts, unit) in
            [(10, 3, 1), (10, 1, 1), (3, 8, 1), (10, 3, 2), (1_000_000, 64, 2), (2, 5, 2)]
        {
            let shares = Share { first: 7, count }.divide(parts, unit);
            assert_eq!(shares.len() as u32, parts.min(count / unit));
            let mut next = 7;
            for share in &shares {
                assert_eq!((share.first, share.count % unit), (next, 0));
                next += share.count;
            }
            assert_eq!(next, 7 + count);
            let counts = shares.iter().map(|share| share.count);
            let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
            assert!(least > 0 && most - least <= unit, "{shares:?}");
        }
    }
}
