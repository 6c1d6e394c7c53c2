//! The `codit` program.

fn main() -> std::process::ExitCode {
    codit::cli::main()
}
