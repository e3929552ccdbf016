//! The `rumpring` program.
fn main() {}
