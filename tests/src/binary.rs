//! The `xipsec` binary under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::shell;

/// Path of the `xipsec` binary that belongs to the running test program.
///
/// `XIPSEC_BIN` names it outright. Otherwise it is built once per test program, with the profile
/// that the test itself was built with: an old binary must never pass for the present code.
///
/// # Errors
/// When it does not build.
pub fn xipsec() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| locate().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|text| anyhow!("{text}"))
}

/// A command that starts `xipsec`.
///
/// # Errors
/// When it does not build.
pub fn command() -> Result<Command> {
    Ok(Command::new(xipsec()?))
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Builds the named packages' binaries and returns the folder that holds them.
///
/// # Errors
/// When cargo fails; the text holds its output.
pub fn build(profile: &str, packages: &[&str]) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace())
        .args(["build", "--quiet", "--bins", "--profile", profile]);
    for package in packages {
        command.args(["--package", package]);
    }
    shell::run(&mut command).context("the binary under test does not build")?;
    Ok(target().join(if profile == "dev" { "debug" } else { profile }))
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target)
}

fn locate() -> Result<PathBuf> {
    if let Some(path) = env::var_os("XIPSEC_BIN") {
        return Ok(path.into());
    }
    // target/PROFILE/deps/test-program
    let own = env::current_exe()?;
    let folder = own
        .ancestors()
        .nth(2)
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let profile = match folder {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    Ok(build(profile, &["xipsec"])?.join("xipsec"))
}
