//! The program `rumpring` under another name: tests of this package need a server as a process.

fn main() -> std::process::ExitCode {
    rumpring::cli::main()
}
