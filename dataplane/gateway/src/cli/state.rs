//! stand-in
use std::process::ExitCode;
use crate::cli::arguments::StateCommand;
/// x
#[must_use] pub fn run(_: &StateCommand) -> ExitCode { ExitCode::FAILURE }
/// x
pub fn refuse_recorded_keys(_: &crate::config::Config) -> Result<(), String> { Ok(()) }
