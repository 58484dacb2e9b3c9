//! xipsec run
use std::process::ExitCode;
use std::path::Path;
/// Runs.
#[must_use]
pub fn run(_config: &Path) -> ExitCode { ExitCode::FAILURE }
