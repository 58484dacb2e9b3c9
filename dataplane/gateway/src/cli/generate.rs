//! stand-in
use std::process::ExitCode;
use crate::cli::arguments::Generate;
/// x
#[must_use] pub fn run(_: &Generate) -> ExitCode { ExitCode::FAILURE }
