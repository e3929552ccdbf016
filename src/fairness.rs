//! What each of many gets of something that all share.

/// Whether somebody who has `own` may have one more, where all may have `most` and have `all`. Of the last
/// quarter nobody gets more than a little, so that a few who are greedy leave something to the others.
pub fn leaves_some(own: usize, all: usize, most: usize) -> bool {
    let little = 1 + most.saturating_sub(all) / 256;
    all < most && (all < most - most / 4 || own < little)
}

#[cfg(test)]
mod tests {
    use super::*;

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
