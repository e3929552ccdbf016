//! The `rumpring` program: see [`rumpring::cli`].

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

fn main() -> std::process::ExitCode {
    rumpring::cli::main()
}
