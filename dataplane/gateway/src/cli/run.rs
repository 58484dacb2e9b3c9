//! `xipsec run`.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::{FAILED, complain};
use crate::config::{self, Purpose};
use crate::daemon;

/// Runs the gateway until SIGTERM or SIGINT.
#[must_use]
pub fn run(file: &Path) -> ExitCode {
    let config = match config::load(file, Purpose::Run) {
        Ok(config) => config,
        Err(errors) => {
            errors.iter().for_each(complain);
            return ExitCode::from(FAILED);
        }
    };
    for warning in &config.warnings {
        complain(&format_args!("warning: {warning}"));
    }
    let refused = config::not_built(&config);
    if !refused.is_empty() {
        refused.iter().for_each(complain);
        return ExitCode::from(FAILED);
    }
    match daemon::run::run(config, |line| complain(&line)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            complain(&refusal);
            ExitCode::from(FAILED)
        }
    }
}
