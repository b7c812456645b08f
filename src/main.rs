//! The `walpost` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    walpost::cli::main(std::env::args_os()).into()
}
