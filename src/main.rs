//! The `rumpring` program: see [`rumpring::cli`].

fn main() -> std::process::ExitCode {
    rumpring::cli::main()
}
