//! What the README shows of the program is what the program says.

/// The README, as it is committed.
const README: &str = include_str!("../README.md");

#[test]
fn the_table_of_calls_is_the_kernels() {
    let table = rumpring::cli::calls_table();
    assert!(
        README.contains(&table),
        "the README's table of calls is not what `rumpring calls` prints:\n{table}"
    );
}
