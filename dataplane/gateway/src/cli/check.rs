//! stand-in
use std::path::Path; use std::process::ExitCode; use crate::config::{self, Config, Purpose};
#[must_use] pub fn run(_: &Path) -> ExitCode { ExitCode::FAILURE }
/// x
pub fn load(p: &Path) -> Result<Config, ExitCode> { config::load(p, Purpose::Check).map_err(|_| ExitCode::FAILURE) }
