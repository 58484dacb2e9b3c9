//! `xipsec run`.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::{FAILED, check, complain};
use crate::config::Purpose;
use crate::daemon;

/// Runs the gateway until SIGTERM or SIGINT.
#[must_use]
pub fn run(file: &Path) -> ExitCode {
    let config = match check::accept(file, Purpose::Run) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match daemon::run::run(config, |line| complain(&line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            complain(&refusal);
            ExitCode::from(FAILED)
        }
    }
}
