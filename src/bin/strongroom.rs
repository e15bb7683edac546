//! The `strongroom` program: see [`strongroom::cli`].

fn main() -> std::process::ExitCode {
    strongroom::cli::main()
}
