//! `xipsec check`.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::{FAILED, complain};
use crate::config::{self, Config, Purpose};

/// Prints every mistake and every warning of a file.
#[must_use]
pub fn run(file: &Path) -> ExitCode {
    match load(file) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format_args!("warning: {warning}"));
            }
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

/// A file for a command that works with packets: its warnings are printed, and what this version
/// has not built is refused.
///
/// # Errors
/// As [`load`].
pub(crate) fn accept(file: &Path, purpose: Purpose) -> Result<Config, ExitCode> {
    let refuse = |errors: Vec<config::ConfigError>| {
        errors.iter().for_each(complain);
        ExitCode::from(FAILED)
    };
    let config = config::load(file, purpose).map_err(refuse)?;
    for warning in &config.warnings {
        complain(&format_args!("warning: {warning}"));
    }
    let refused = config::not_built(&config);
    if refused.is_empty() {
        Ok(config)
    } else {
        Err(refuse(refused))
    }
}

/// A file for a command that only looks something up in it.
///
/// # Errors
/// The exit status of a command that got a file with mistakes, all of which are printed.
pub fn load(file: &Path) -> Result<Config, ExitCode> {
    config::load(file, Purpose::Check).map_err(|errors| {
        errors.iter().for_each(complain);
        ExitCode::from(FAILED)
    })
}
