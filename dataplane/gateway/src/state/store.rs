//! Where records are kept: a local directory. One trait, so that a cluster's store can follow.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::state::contents::Flaw;
use crate::state::{Contents, StateError};

/// Keeps [`Contents`] over crashes.
pub trait Store: Send {
    /// What is kept; `None`: nothing ever was.
    ///
    /// # Errors
    /// [`StateError`]: unreadable or damaged.
    fn read(&self) -> Result<Option<Contents>, StateError>;

    /// Replaces what is kept. When this returns, a crash cannot undo it; when it fails, either the
    /// old or the new contents are kept, whole.
    ///
    /// # Errors
    /// [`StateError::Io`].
    fn commit(&mut self, contents: &Contents) -> Result<(), StateError>;

    /// What messages call it.
    fn place(&self) -> PathBuf;
}

/// A directory of this machine, locked against a second gateway while this value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

/// The records.
pub(super) const RECORDS: &str = "records";

/// The next generation of them, until it is renamed.
pub(super) const NEXT: &str = "records.new";

/// Held while a process works with the directory.
pub(super) const LOCK: &str = "lock";

impl Directory {
    /// Opens and locks a directory, creating it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`StateError::Locked`] or [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(path);
        created.map_err(failed(path, "create"))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock_path = path.join(LOCK);
        let lock = options
            .open(&lock_path)
            .map_err(failed(&lock_path, "open"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_path_buf(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Locked {
                path: path.to_path_buf(),
            }),
            Err(error) => Err(failed(&lock_path, "lock")(error.into())),
        }
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let next = self.path.join(NEXT);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(RECORDS))?;
        File::open(&self.path)?.sync_all()
    }
}

impl Store for Directory {
    fn read(&self) -> Result<Option<Contents>, StateError> {
        read_records(&self.path)
    }

    fn commit(&mut self, contents: &Contents) -> Result<(), StateError> {
        let replaced = self.replace(&contents.to_bytes());
        replaced.map_err(failed(&self.path.join(RECORDS), "write"))
    }

    fn place(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Whether a directory is missing or holds nothing but what a start leaves behind.
pub(super) fn is_empty(directory: &Path) -> Result<bool, StateError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(directory, "read")(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed(directory, "read"))?.file_name();
        if name != LOCK && name != NEXT {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The records of a directory, without its lock: a rename replaces them whole.
pub(super) fn read_records(directory: &Path) -> Result<Option<Contents>, StateError> {
    let path = directory.join(RECORDS);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "read")(error)),
    };
    match Contents::from_bytes(&bytes) {
        Ok(contents) => Ok(Some(contents)),
        Err(Flaw::Damaged(why)) => Err(StateError::Damaged { path, why }),
        Err(Flaw::Version(version)) => Err(StateError::Version { path, version }),
    }
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> StateError {
    move |error| StateError::Io {
        path: path.to_path_buf(),
        action,
        error,
    }
}
