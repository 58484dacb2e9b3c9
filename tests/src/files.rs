//! Folders for keys, sockets and captures, named after the process that made them.

use std::fs;
use std::path::Path;
use std::process;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// First part of the name of every namespace and folder; the maker's process id and a serial number
/// follow.
pub const PREFIX: &str = "xipsec-test-";

/// The same for what outlives its maker until someone removes it.
pub const LASTING_PREFIX: &str = "xipsec-lab-";

/// A new folder for one test, removed with the value. `lasting` ones are not swept.
///
/// # Errors
/// When the system's folder for temporary files takes none.
pub fn directory(lasting: bool) -> Result<TempDir> {
    let start = if lasting { LASTING_PREFIX } else { PREFIX };
    let name = format!("{start}{}-", process::id());
    tempfile::Builder::new()
        .prefix(&name)
        .tempdir()
        .context("no folder for temporary files")
}

/// Removes every folder of this process, for an end at which no value is dropped.
pub fn remove_own() {
    for start in [PREFIX, LASTING_PREFIX] {
        remove(|name| name.starts_with(&format!("{start}{}-", process::id())));
    }
}

/// Removes folders of test processes that are no more.
pub fn sweep() {
    remove(|name| name.strip_prefix(PREFIX).is_some_and(owner_is_gone));
}

/// Whether a name that starts with a process id belongs to a process that is no more.
pub(crate) fn owner_is_gone(name: &str) -> bool {
    let owner = name.split('-').next().unwrap_or_default();
    owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists()
}

fn remove(wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&wanted) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
