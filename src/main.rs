//! The `piton` program: hands its arguments to `piton::cli` and ends with the exit code that comes back.

fn main() -> std::process::ExitCode {
    piton::cli::main()
}
