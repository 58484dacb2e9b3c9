//! Cargo, called as a program.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use xipsec_tests::binary;

/// Cargo in the workspace's root.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(binary::workspace()).args(arguments);
    command
}

/// Runs cargo with its output going to the terminal.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let status = command(arguments)
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}
