//! The command line: one file a command. Results go to standard output, all else to standard
//! error; exit status 0 success, 1 refused or failed, 2 wrong usage.

pub mod arguments;

pub mod table;

pub mod check;

pub mod generate;

pub mod state;

pub mod replay;

pub mod target;

pub mod show;

pub mod change;

pub mod run;

use std::process::ExitCode;

use arguments::{Arguments, Command, SaCommand};

/// Refused or failed.
pub(crate) const FAILED: u8 = 1;

/// Wrong usage.
pub(crate) const USAGE: u8 = 2;

/// Runs the command that `arguments` name.
#[must_use]
pub fn dispatch(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run { config } => run::run(&config),
        Command::Check { config } => check::run(&config),
        Command::Replay(replay) => replay::run(&replay),
        Command::Generate(generate) => generate::run(&generate),
        Command::State { command } => state::run(&command),
        Command::Status { read } => show::status(&read),
        Command::Sa { command } => match command {
            SaCommand::List { read } => show::sas(&read),
            SaCommand::Dummy {
                target,
                name,
                count,
            } => change::dummies(&target, name, count),
        },
        Command::Policy {
            command: arguments::PolicyCommand::List { read },
        } => show::policies(&read),
        Command::Port {
            command: arguments::PortCommand::List { read },
        } => show::ports(&read),
        Command::Stats { read } => show::stats(&read),
    }
}

/// One line on standard error: `xipsec: WHAT: WHY`.
#[expect(clippy::print_stderr, reason = "the command line speaks to people")]
pub(crate) fn complain(message: &impl std::fmt::Display) {
    eprintln!("xipsec: {message}");
}

/// A result on standard output. A reader that went away is no error of ours.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}").unwrap_or_default();
}
