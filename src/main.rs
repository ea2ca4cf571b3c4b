//! The `causeway` command. What it can do is in `causeway::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    causeway::cli::main(std::env::args_os())
}
