//! `xipsec`: arguments to the command line, exit code to the shell.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    xipsec::daemon::secrecy::keep_out_of_core_dumps();
    let arguments = xipsec::cli::arguments::Arguments::parse();
    xipsec::cli::dispatch(arguments)
}
