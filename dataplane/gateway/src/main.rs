//! `xipsec`: arguments to the command line, exit code to the shell.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = xipsec::cli::arguments::Arguments::parse();
    xipsec::cli::dispatch(arguments)
}
