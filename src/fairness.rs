//! Fair shares of a resource that many clients share.

/// Returns `true` if a client that has `own` may have one more, where all clients have `all` and may have
/// `most`. Of the last quarter, each client gets only a little, so that a few greedy clients leave
/// something to the others.
pub fn leaves_some(own: usize, all: usize, most: usize) -> bool {
    leaves_some_of(most / 4, own, all, most)
}

/// Returns what [`leaves_some`] does, where each client gets only a little of the last `reserve`.
pub fn leaves_some_of(reserve: usize, own: usize, all: usize, most: usize) -> bool {
    let little = 1 + most.saturating_sub(all) / 256;
    all < most && (all < most - reserve || own < little)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_smaller_than_a_quarter_leaves_more_to_the_greedy() {
        assert!(leaves_some_of(50, 949, 949, 1000));
        assert!(!leaves_some_of(50, 950, 950, 1000));
        assert!(leaves_some_of(50, 0, 999, 1000) && !leaves_some_of(50, 0, 1000, 1000));
    }

    #[test]
    fn of_the_last_quarter_everybody_gets_a_little() {
        assert!(leaves_some(749, 749, 1000));
        assert!(!leaves_some(750, 750, 1000));
        assert!(leaves_some(0, 750, 1000) && leaves_some(0, 999, 1000));
        assert!(!leaves_some(1, 900, 1000));
        assert!(!leaves_some(0, 1000, 1000));
        assert!(leaves_some(100, 900_000, 1_000_000));
        assert!(leaves_some(2, 2, 3) && !leaves_some(0, 3, 3), "few in all");
    }
}
